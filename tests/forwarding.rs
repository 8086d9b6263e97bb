//! Two replicas and one shard: whatever is asked of the one that owns nothing is done by the other, also while that dies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, Checker, Postgres, Reply, SOON, Skald, Sqlite, Stub,
    checker::Start,
    deployment::Alone,
    eventually, met,
    sample::{definition, step, step_with},
    skald::participant,
};

/// One shard, so that one replica owns it and the other nothing; and a lease that ends soon.
const CONFIG: &str = "[database]\nshards = 1\nlease = \"2s\"\n\n";
const AT_ONCE: usize = 24;

/// The owner, a replica that owns nothing, and the participant that both call.
struct Pair {
    stub: Stub,
    /// Whether the participant refuses what it is asked to do and to undo, so that sagas park.
    refuses: Arc<AtomicBool>,
    owner: Alone,
    other: Skald,
}

impl Pair {
    /// With definitions `trip` (`booked`, `paid`), `slow` (ends by a callback) and `lazy` (takes two seconds).
    async fn start(backend: Backend) -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&refuses);
        let stub = Stub::start(move |call| match &*call.path {
            "/slow" => Reply::json(202, Value::Null),
            "/lazy" => Reply::ok().after(Duration::from_secs(2)),
            "/paid" | "/booked/undo" if switch.load(Ordering::SeqCst) => Reply::rejected("not_now"),
            _ => Reply::ok(),
        });
        let owner = Alone::start_with(backend, &format!("{CONFIG}{}", participant("stub", &stub.url))).await;
        until_role(&owner.skald, "active").await;
        let other = Skald::start(owner.skald.setup().clone()).await;
        until_role(&other, "standby").await;
        let trip = [step("booked"), step("paid")];
        other.register(&definition("trip", trip)).await;
        other.register(&definition("slow", [step("slow")])).await;
        let lazy = step_with("lazy", json!({"timeout": "10s"}));
        owner.skald.register(&definition("lazy", [lazy])).await;
        Self { stub, refuses, owner, other }
    }

    /// Ids of sagas of `trip` that are parked, with `booked` to be undone.
    async fn parked(&self, count: usize) -> Vec<String> {
        self.refuses.store(true, Ordering::SeqCst);
        let ids = join_all((0..count).map(|_| async { self.other.begun("trip", &json!({})).await })).await;
        for id in &ids {
            self.owner.skald.until_status(id, "parked").await;
        }
        self.refuses.store(false, Ordering::SeqCst);
        ids
    }

    /// What holds whoever did it.
    async fn check(&self, starts: impl IntoIterator<Item = Start>) {
        self.other.all_settled(SOON).await;
        Checker::gather_log(&self.other, &self.owner.database).await.acknowledged(starts).check();
    }
}

async fn until_role(skald: &Skald, role: &str) {
    eventually(&format!("the replica is {role}"), SOON, async || {
        let answer = skald.client.get("/readyz").await;
        met(answer.status == 200 && answer.body["role"] == role, || answer.text)
    })
    .await;
}

/// What operators did to a saga.
async fn acted(skald: &Skald, id: &str) -> Vec<Value> {
    let events = skald.events(id).await;
    events.into_iter().filter(|event| event["kind"] == "OperatorActed").collect()
}

/// Starts a saga under a key; None for what may be repeated.
async fn start_keyed(skald: &Skald, definition: &str, key: &str, prefer: &str) -> Option<Start> {
    let request = skald.client.request(Method::POST, &format!("/sagas/{definition}")).json(&json!({}));
    let request = request.header("Idempotency-Key", key).header("Prefer", prefer);
    let answer = skald.client.send(request).await.expect("the one that is asked lives");
    match answer.status {
        201 | 202 => {
            let saga = answer.body["id"].as_str().expect("a saga has an id").to_owned();
            Some(Start { key: Some(key.to_owned()), saga })
        }
        503 => None,
        _ => panic!("{}: {}", answer.status, answer.text),
    }
}

/// An operator's command under a key.
async fn act_keyed(skald: &Skald, id: &str, command: &str, key: &str) -> Answer {
    let request = skald.client.request(Method::POST, &format!("/admin/sagas/{id}/{command}"));
    let request = request.header("Idempotency-Key", key).header("X-Actor", "tester");
    let answer = skald.client.send(request.json(&json!({"reason": "the test says so"}))).await;
    answer.expect("the one that is asked lives")
}

#[rstest]
#[tokio::test]
async fn sagas_start_through_a_replica_that_owns_nothing_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let pair = Pair::start(backend).await;
    let other = &pair.other;
    let unkeyed = other.client.post("/sagas/trip", &json!({})).await;
    assert_eq!((unkeyed.status, &unkeyed.body["status"]), (201, &json!("completed")), "{}", unkeyed.text);
    let waited = other.client.post("/sagas/lazy", &json!({})).await;
    assert_eq!((waited.status, &waited.body["status"]), (201, &json!("completed")), "{}", waited.text);
    let first = start_keyed(other, "trip", "k-1", "wait=10").await.expect("there is an owner");
    for skald in [other, &pair.owner.skald] {
        assert_eq!(start_keyed(skald, "trip", "k-1", "wait=10").await.expect("there is an owner").saga, first.saga);
    }
    assert_eq!(other.sagas().await.len(), 3);
    assert_eq!(other.metric("forwarded_requests_total", "result=\"accepted\"").await, 3.0);
    assert_eq!((other.metric("shards_owned", "").await, other.metric("saga_started_total", "").await), (0.0, 0.0));
    pair.check([first]).await;
}

#[rstest]
#[tokio::test]
async fn operators_act_through_a_replica_that_owns_nothing_2_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let pair = Pair::start(backend).await;
    for (command, body, status) in [
        ("retry", json!({}), "compensated"),
        ("steps/booked/retry", json!({}), "compensated"),
        ("steps/booked/resolve", json!({"outcome": "succeeded"}), "compensated"),
        ("steps/booked/skip", json!({}), "abandoned"),
        ("abandon", json!({}), "abandoned"),
    ] {
        let id = pair.parked(1).await.remove(0);
        let answer = pair.other.admin(&id, command, body).await;
        let correlation_id = answer.header("x-correlation-id").to_owned();
        answer.expect(200);
        assert_eq!(pair.other.ended(&id).await["status"], status, "{command}");
        let acted = acted(&pair.other, &id).await;
        assert_eq!((acted.len(), &acted[0]["actor"]), (1, &json!("tester")), "{command}");
        assert_eq!(acted[0]["data"]["correlation_id"], json!(correlation_id), "{command}");
    }
    let slow = pair.other.begun("slow", &json!({})).await;
    pair.other.admin(&slow, "compensate", json!({})).await.expect(200);
    assert_eq!(pair.other.ended(&slow).await["status"], "compensated");

    let ids = pair.parked(3).await;
    let bulk = json!({"reason": "x", "actor": "tester", "filter": {"definition": "trip"}, "dry_run": false});
    let done = pair.other.client.post("/admin/sagas/retry", &bulk).await.expect(200);
    assert_eq!((&done["matched"], &done["applied"]), (&json!(3), &json!(3)), "{done}");
    for id in &ids {
        assert_eq!(pair.other.ended(id).await["status"], "compensated");
    }
    pair.check([]).await;
}

#[rstest]
#[tokio::test]
async fn participants_and_readers_need_not_know_the_owner(#[values(Sqlite, Postgres)] backend: Backend) {
    let pair = Pair::start(backend).await;
    let client = &pair.other.client;
    let id = pair.other.begun("slow", &json!({})).await;
    let call = eventually("the step is called", SOON, async || {
        pair.stub.calls_to("/slow").into_iter().next().ok_or_else(|| "no call yet".to_owned())
    })
    .await;
    let reading = client.request(Method::GET, &format!("/sagas/{id}/stream")).timeout(SOON).send();
    let reading = reading.await.expect("it streams");
    let look = client.request(Method::GET, &format!("/sagas/{id}")).header("Prefer", "wait=30");
    let calling_back = async {
        let done = json!({"operation": "action", "outcome": "succeeded", "output": {"n": 7}});
        for _ in 0..2 {
            let request = client.request(Method::POST, &format!("/sagas/{id}/steps/slow/complete")).json(&done);
            let request = request.header("Saga-Callback-Token", call.header("saga-callback-token"));
            client.send(request).await.expect("it answers").expect(200);
        }
    };
    let (looked, ()) = tokio::join!(client.send(look), calling_back);
    let looked = looked.expect("it answers");
    assert_eq!(looked.header("preference-applied"), "wait=30");
    assert_eq!(looked.expect(200)["status"], "completed");
    let chunks: Vec<_> = reading.bytes_stream().collect().await;
    let text: String = chunks.iter().flatten().map(|chunk| String::from_utf8_lossy(chunk)).collect();
    assert!(text.contains("SagaCompleted"), "{text}");
    let replicas = client.get("/admin/replicas").await.expect(200);
    let shards = |this: bool| {
        let items = replicas["items"].as_array().expect("a list has items");
        items.iter().find(|item| item["this"] == this).map(|item| item["shards"].as_array().map_or(0, Vec::len))
    };
    assert_eq!((shards(true), shards(false)), (Some(0), Some(1)), "{replicas}");
    pair.check([]).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn starts_under_way_while_the_owner_dies_make_one_saga_each_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut pair = Pair::start(backend).await;
    let (other, owner) = (&pair.other, &mut pair.owner.skald);
    // Waiting for the end, most are committed and not answered when the owner dies.
    let starting = join_all((0..AT_ONCE).map(|number| async move {
        let key = format!("k-{number}");
        let first = start_keyed(other, "lazy", &key, "wait=20").await;
        let again = eventually(&format!("{key} is started"), SOON, async || {
            start_keyed(other, "lazy", &key, "wait=20").await.ok_or_else(|| "503".to_owned())
        })
        .await;
        assert!(first.is_none_or(|first| first.saga == again.saga), "{key}");
        again
    }));
    let unkeyed = async { other.client.post("/sagas/lazy", &json!({})).await };
    let killing = async {
        eventually("half of the sagas are there", SOON, async || {
            let count = other.sagas().await.len();
            met(count >= AT_ONCE / 2, || count.to_string())
        })
        .await;
        owner.kill();
    };
    let (starts, unkeyed, ()) = tokio::join!(starting, unkeyed, killing);
    assert!(matches!(unkeyed.status, 201 | 202), "{}", unkeyed.text);
    assert_eq!(other.sagas().await.len(), AT_ONCE + 1);
    until_role(other, "active").await;
    pair.check(starts).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn commands_under_way_while_the_owner_dies_are_carried_out_once(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut pair = Pair::start(backend).await;
    let ids = pair.parked(AT_ONCE).await;
    let (other, owner) = (&pair.other, &mut pair.owner.skald);
    let acting = join_all(ids.iter().enumerate().map(|(number, id)| async move {
        let key = format!("ticket-{number}");
        let command = if number.is_multiple_of(2) { "abandon" } else { "steps/booked/skip" };
        eventually(&format!("{command} is carried out"), SOON, async || {
            let answer = act_keyed(other, id, command, &key).await;
            met(answer.status == 200, || answer.expect(503).to_string())
        })
        .await;
        act_keyed(other, id, command, &key).await.expect(200);
    }));
    let killing = async {
        eventually("the first saga is abandoned", SOON, async || {
            let page = other.client.get("/sagas?status=abandoned&limit=1").await.expect(200);
            met(page["items"] != json!([]), || "none yet".to_owned())
        })
        .await;
        owner.kill();
    };
    tokio::join!(acting, killing);
    for id in &ids {
        assert_eq!(other.ended(id).await["status"], "abandoned");
        assert_eq!(acted(other, id).await.len(), 1, "{id}");
    }
    pair.check([]).await;
}

#[rstest]
#[tokio::test]
async fn a_command_to_an_owner_that_hangs_is_carried_out_by_its_successor(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let pair = Pair::start(backend).await;
    let id = pair.parked(1).await.remove(0);
    // It accepts connections still, and answers none.
    pair.owner.skald.process.signal("STOP");
    let saga = act_keyed(&pair.other, &id, "abandon", "ticket-1").await.expect(200);
    assert_eq!(saga["status"], "abandoned");
    // It wakes up with the command in its hands, and finds itself fenced off; whoever owns the shard then knows it.
    pair.owner.skald.process.signal("CONT");
    pair.owner.skald.ready().await;
    act_keyed(&pair.owner.skald, &id, "abandon", "ticket-1").await.expect(200);
    assert_eq!(acted(&pair.other, &id).await.len(), 1);
    pair.check([]).await;
}

#[rstest]
#[tokio::test]
async fn a_successor_carries_on_sagas_of_definitions_that_it_never_heard_of_2(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut pair = Pair::start(backend).await;
    pair.owner.skald.register(&definition("late", [step("lazy"), step("then")])).await;
    let id = pair.owner.skald.begun("late", &json!({})).await;
    pair.owner.skald.kill();
    // A list asks no definition; to show the saga would look for its own.
    eventually("the saga is completed", SOON, async || {
        let page = pair.other.client.get("/sagas?status=completed").await.expect(200);
        met(page["items"][0]["id"] == json!(id), || page.to_string())
    })
    .await;
    pair.check([]).await;
}
