//! Several replicas on one PostgreSQL: they share the shards, and hand them over when one joins, stops, dies or freezes.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    Client, Deployment, Postgres, Reply, SOON, Skald, Stub,
    checker::{Checker, Start},
    database::Database,
    deployment::Alone,
    eventually, met, order,
    skald::participant,
};

/// As configured by default.
const LEASE: Duration = Duration::from_secs(5);
/// What is promised is two seconds over the lease; a busy machine gets more.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);
const SETTLED_MAX: Duration = Duration::from_secs(120);
const STARTS_AT_ONCE: usize = 16;

/// Whom to ask; who joins is added.
type Clients = Mutex<Vec<Client>>;

fn clients(replicas: &[&Skald]) -> Clients {
    Mutex::new(replicas.iter().map(|replica| replica.client.clone()).collect())
}

/// How many shards each replica has, by its URL. A lease that is over is nobody's.
async fn shares(database: &Database) -> BTreeMap<String, usize> {
    let sql = "SELECT owner_url, count(*)::text
               FROM shards
               WHERE owner IS NOT NULL AND lease_until_us > skald_now_us()
               GROUP BY owner_url";
    let share = |[url, count]: [Option<String>; 2]| {
        (url.expect("an owner has a URL"), count.expect("a count").parse().expect("a number"))
    };
    database.texts(sql.to_owned()).await.into_iter().map(share).collect()
}

/// Waits until these replicas, and no others, share the shards in this way, whoever has which part. Says how long it
/// took.
async fn shared(database: &Database, replicas: &[&Skald], expected: &[usize]) -> Duration {
    let begun = Instant::now();
    eventually(&format!("the shards are shared as {expected:?}"), SOON, async || {
        let shares = shares(database).await;
        let mut counts: Vec<usize> = shares.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all_own = replicas.iter().all(|replica| shares.contains_key(&replica.client.url));
        met(counts == expected && all_own, || format!("{shares:?}"))
    })
    .await;
    begun.elapsed()
}

/// Starts a checkout under a key at one replica after the other, until one accepts it: only the owner of the key's shard
/// does, and at times nobody is.
async fn start_somewhere(clients: &Clients, number: usize) -> Start {
    let key = format!("order-{number}");
    let mut input = order(&format!("c-{}", number % 20));
    if number.is_multiple_of(7) {
        input["payment"]["token"] = json!("tok_declined");
    }
    let mut turn = number;
    eventually(&format!("the start of {key} is acknowledged"), SETTLED_MAX, async || {
        turn += 1;
        let client = {
            let clients = clients.lock().expect("nothing panics while it holds this lock");
            clients[turn % clients.len()].clone()
        };
        let request = client.request(Method::POST, "/sagas/checkout").json(&input);
        let request = request.header("Idempotency-Key", &key).header("Prefer", "respond-async");
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        match answer.status {
            200..300 => {
                let saga = answer.body["id"].as_str().expect("a saga has an id").to_owned();
                Ok(Start { key: Some(key.clone()), saga })
            }
            503 => Err(answer.text),
            _ => panic!("{}: {}", answer.status, answer.text),
        }
    })
    .await
}

async fn start_many(clients: &Clients, count: usize) -> Vec<Start> {
    stream::iter(0..count)
        .map(|number| start_somewhere(clients, number))
        .buffer_unordered(STARTS_AT_ONCE)
        .collect()
        .await
}

async fn started(database: &Database) -> usize {
    let [[count]] =
        database.texts("SELECT count(*)::text FROM sagas".to_owned()).await.try_into().expect("a count is one row");
    count.expect("a count is never NULL").parse().expect("a count is a number")
}

async fn until_started(database: &Database, count: usize) {
    eventually(&format!("{count} sagas have been started"), SETTLED_MAX, async || {
        let seen = started(database).await;
        met(seen >= count, || seen.to_string())
    })
    .await;
}

async fn join(world: &Deployment) -> Skald {
    Skald::start(world.skald.setup().clone()).await
}

/// That all ends well, whatever happened before.
async fn settle_and_check(world: &Deployment, starts: Vec<Start>) {
    world.skald.all_settled(SETTLED_MAX).await;
    let count = starts.len();
    let checker = world.checker().await.acknowledged(starts);
    checker.check();
    let ends = checker.ends();
    let ended = ends.get("completed").copied().unwrap_or(0) + ends.get("compensated").copied().unwrap_or(0);
    let parked = world.skald.client.get("/sagas?status=parked&limit=3").await.text;
    assert_eq!(ended, count, "{ends:?}; parked: {parked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_share_16_shards_and_two_take_over_from_one_that_dies_9() {
    const SAGAS: usize = 240;
    let world = Deployment::start(Postgres).await;
    shared(&world.database, &[&world.skald], &[16]).await;
    let (second, mut third) = tokio::join!(join(&world), join(&world));
    let settled = shared(&world.database, &[&world.skald, &second, &third], &[6, 5, 5]).await;
    println!("three share {settled:.1?} after the last one had its first");

    let clients = clients(&[&world.skald, &second, &third]);
    let starting = start_many(&clients, SAGAS);
    let killing = async {
        until_started(&world.database, SAGAS / 3).await;
        third.kill();
        let taken = shared(&world.database, &[&world.skald, &second], &[8, 8]).await;
        println!("taken over {taken:.1?} after the kill, with a lease of {LEASE:?}");
        assert!(taken < TAKEOVER_MAX, "{taken:?}");
        let takeovers = join_all([&world.skald, &second].map(|replica| replica.metric("shard_takeovers_total", "")));
        assert_eq!(takeovers.await.iter().sum::<f64>(), 5.0, "the dead one had five");
    };
    let (starts, ()) = tokio::join!(starting, killing);
    settle_and_check(&world, starts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_joins_gets_its_share_while_starts_go_on_10() {
    const SAGAS: usize = 240;
    let world = Deployment::start(Postgres).await;
    let (second, third) = tokio::join!(join(&world), join(&world));
    shared(&world.database, &[&world.skald, &second, &third], &[6, 5, 5]).await;
    let clients = clients(&[&world.skald, &second, &third]);
    let starting = start_many(&clients, SAGAS);
    let joining = async {
        until_started(&world.database, SAGAS / 4).await;
        let begun = Instant::now();
        let fourth = join(&world).await;
        shared(&world.database, &[&world.skald, &second, &third, &fourth], &[4, 4, 4, 4]).await;
        println!("the fourth had its share {:.1?} after its start", begun.elapsed());
        clients.lock().expect("nothing panics while it holds this lock").push(fourth.client.clone());
        fourth
    };
    let (starts, fourth) = tokio::join!(starting, joining);
    assert_eq!(fourth.metric("shards_owned", "").await, 4.0);
    assert_eq!(fourth.metric("shard_takeovers_total", "").await, 0.0, "all were given up");
    settle_and_check(&world, starts).await;
}

/// Two replicas that share the shards, each with a participant of its own behind the same name, so that it can be seen
/// who calls. The steps `slow` and `fast` follow each other.
struct Pair {
    first: Alone,
    second: Skald,
    called_by_first: Stub,
    called_by_second: Stub,
}

impl Pair {
    /// `slow` takes so long at the first one's participant, that takes one call at a time.
    async fn start(slow: Duration) -> Self {
        let called_by_first = Stub::start(move |call| match call.path.as_str() {
            "/slow" => Reply::ok().after(slow),
            _ => Reply::ok(),
        });
        let called_by_second = Stub::start(|_| Reply::ok());
        let first = Alone::start_with(
            Postgres,
            &format!("[participants.svc]\nbase_url = \"{}\"\nmax_concurrency = 1\n", called_by_first.url),
        )
        .await;
        let step = |id: &str| {
            json!({"id": id, "effect": "none", "timeout": "30s",
                   "call": {"service": "svc", "method": "POST", "path": format!("/{id}"), "body": {}}})
        };
        let definition = json!({
            "apiVersion": "skald/v1", "name": "pair", "version": 1, "deadline": "5m",
            "input": {"schema": {"type": "object"}},
            "steps": [step("slow"), step("fast")],
        });
        first.skald.register(&definition).await;
        let mut setup = first.skald.setup().clone();
        setup.config = participant("svc", &called_by_second.url);
        let second = Skald::start(setup).await;
        shared(&first.database, &[&first.skald, &second], &[8, 8]).await;
        Self { first, second, called_by_first, called_by_second }
    }

    /// The epochs under which the events of this kind were written.
    async fn epochs(&self, kind: &str) -> Vec<i64> {
        let sql = format!("SELECT epoch::text FROM event_log WHERE kind = '{kind}' ORDER BY stream, version");
        let epochs = self.first.database.texts(sql).await.into_iter();
        epochs.map(|[epoch]| epoch.expect("never NULL").parse().expect("a number")).collect()
    }

    async fn check(&self) {
        Checker::gather_log(&self.second, &self.first.database).await.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over_each_shard_when_its_calls_have_ended_9() {
    let mut pair = Pair::start(Duration::from_secs(3)).await;
    let id = pair.first.skald.begun("pair", &json!({})).await;
    eventually("the slow call is under way", SOON, async || {
        met(pair.called_by_first.calls().len() == 1, || "no call".to_owned())
    })
    .await;
    let begun = Instant::now();
    pair.first.skald.process.signal("TERM");
    let idle = shared(&pair.first.database, &[&pair.first.skald, &pair.second], &[15, 1]).await;
    println!("15 shards without calls were handed over {idle:.1?} after SIGTERM");
    let status = pair.first.skald.process.ended(SOON).await;
    let ended = Instant::now();
    assert_eq!(status.code(), Some(0), "{}", pair.first.skald.process.log());
    assert!(begun.elapsed() > Duration::from_secs(2), "it waited for its call");
    shared(&pair.first.database, &[&pair.second], &[16]).await;
    println!("the last one was handed over {:.1?} after the former owner's end", ended.elapsed());
    assert!(ended.elapsed() < LEASE, "its lease was not waited for");

    assert_eq!(pair.second.ended(&id).await["status"], "completed");
    let paths = |stub: &Stub| stub.calls().into_iter().map(|call| call.path).collect::<Vec<_>>();
    assert_eq!(
        (paths(&pair.called_by_first), paths(&pair.called_by_second)),
        (vec!["/slow".into()], vec!["/fast".into()])
    );
    let (started, succeeded) = (pair.epochs("SagaStarted").await, pair.epochs("StepSucceeded").await);
    assert_eq!(succeeded, [started[0], started[0] + 1], "what the call said was committed by who made it");
    assert_eq!(pair.second.metric("shard_takeovers_total", "").await, 0.0);
    pair.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stopped_past_its_lease_calls_and_writes_nothing_when_it_wakes_9() {
    const SAGAS: usize = 10;
    let pair = Pair::start(Duration::from_secs(2)).await;
    for _ in 0..SAGAS {
        pair.first.skald.begun("pair", &json!({})).await;
    }
    // One is being called; the others wait for the only permit.
    eventually("a call is under way", SOON, async || {
        met(!pair.called_by_first.calls().is_empty(), || "no call".to_owned())
    })
    .await;
    pair.first.skald.process.signal("STOP");
    let begun = Instant::now();
    shared(&pair.first.database, &[&pair.second], &[16]).await;
    println!("taken over {:.1?} after SIGSTOP, with a lease of {LEASE:?}", begun.elapsed());
    assert!(begun.elapsed() < TAKEOVER_MAX);
    let called = pair.called_by_first.calls().len();
    pair.second.all_settled(SETTLED_MAX).await;

    // The answer to its call is there, and with it the permit for the next one.
    pair.first.skald.process.signal("CONT");
    shared(&pair.first.database, &[&pair.first.skald, &pair.second], &[8, 8]).await;
    // The rows are there before it has read what is unfinished in its shards, and until then it forwards.
    eventually("the first one has its shards back", SOON, async || {
        let owned = pair.first.skald.metric("shards_owned", "").await;
        met(owned == 8.0, || owned.to_string())
    })
    .await;
    let after = pair.first.skald.begun("pair", &json!({})).await;
    pair.first.skald.ended(&after).await;
    let calls = pair.called_by_first.calls();
    let others = calls.iter().skip(called).filter(|call| !call.header("saga-id").contains(&after));
    assert_eq!(others.count(), 0, "it called for shards that were lost: {calls:?}");

    assert_eq!(pair.called_by_second.calls_to("/slow").len(), SAGAS);
    let (started, succeeded) = (pair.epochs("SagaStarted").await, pair.epochs("StepSucceeded").await);
    assert_eq!((started.len(), succeeded.len()), (SAGAS + 1, 2 * (SAGAS + 1)));
    let by_saga = started.iter().zip(succeeded.chunks(2)).take(SAGAS);
    for (started, succeeded) in by_saga {
        assert!(succeeded.iter().all(|epoch| epoch > started), "the one that woke wrote under its old epoch");
    }
    assert_eq!(pair.first.skald.metric("shards_lost_total", "").await, 8.0);
    pair.check().await;
}
