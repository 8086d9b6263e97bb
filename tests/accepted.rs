//! Steps that a participant accepts with 202 and finishes later.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, Checker, Postgres, Reply, SOON, Sqlite, Stub,
    deployment::Alone,
    eventually,
    sample::{definition, step, step_with},
    stub::Call,
};

/// Answers 202 to `/slow` and leaves it to a callback; all else is done at once.
fn by_callback() -> Stub {
    Stub::start(|call| if call.path == "/slow" { Reply::json(202, Value::Null) } else { Reply::ok() })
}

async fn first_call(stub: &Stub, path: &str) -> Call {
    let what = format!("{path} is called");
    eventually(&what, SOON, async || stub.calls_to(path).into_iter().next().ok_or_else(String::new)).await
}

async fn call_back(skald: &Alone, saga: &str, token: &str, body: &Value) -> Answer {
    let request = skald.skald.client.request(Method::POST, &format!("/sagas/{saga}/steps/slow/complete")).json(body);
    skald.skald.client.send(request.header("Saga-Callback-Token", token)).await.expect("Skald answers")
}

#[rstest]
#[tokio::test]
async fn an_accepted_step_ends_by_its_callback_also_after_a_restart(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = by_callback();
    let mut skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    let mut slow = definition("slow", [step_with("slow", json!({"output": {"n": "${response.body.n}"}}))]);
    slow["output"] = json!({"n": "${steps.slow.output.n}"});
    skald.skald.register(&slow).await;
    let id = skald.skald.begun("slow", &json!({})).await;
    let call = first_call(&stub, "/slow").await;
    assert_eq!(call.header("idempotency-key"), format!("\"{id}:slow:action\""));
    assert_eq!(call.body, json!({"saga": id}));
    let accepted = |saga: &Value| saga["steps"][0]["attempts"][0]["http_status"] == 202;
    skald.skald.until(&id, "accepted", SOON, accepted).await;
    skald.skald.restart().await;

    let token = call.header("saga-callback-token");
    let done = json!({"operation": "action", "outcome": "succeeded", "output": {"n": 7}});
    assert_eq!(call_back(&skald, &id, "guessed", &done).await.problem(403), "wrong_token");
    let unsent = skald.skald.client.post(&format!("/sagas/{id}/steps/slow/complete"), &done).await;
    assert_eq!(unsent.problem(401), "missing_token");
    assert_eq!(skald.skald.saga(&id).await["status"], "running");

    assert!(call_back(&skald, &id, token, &done).await.status < 300);
    let saga = skald.skald.ended(&id).await;
    assert_eq!((&saga["status"], &saga["output"]), (&json!("completed"), &json!({"n": 7})), "{saga}");
    assert!(call_back(&skald, &id, token, &done).await.status < 300, "a repeat is answered like the first");
    let late = json!({"operation": "action", "outcome": "rejected", "code": "late", "reason": "changed its mind"});
    call_back(&skald, &id, token, &late).await.problem(409);
    assert_eq!(stub.calls_to("/slow").len(), 1);
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn a_callback_that_rejects_undoes_the_steps_before_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = by_callback();
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("slow", [step("quick"), step("slow")])).await;
    let id = skald.skald.begun("slow", &json!({})).await;
    let call = first_call(&stub, "/slow").await;
    let rejected = json!({"operation": "action", "outcome": "rejected", "code": "no_room", "reason": "all full"});
    // It may come before the 202 is durable.
    assert!(call_back(&skald, &id, call.header("saga-callback-token"), &rejected).await.status < 300);
    let saga = skald.skald.ended(&id).await;
    assert_eq!(saga["status"], "compensated");
    assert_eq!((&saga["failure"]["step"], &saga["failure"]["code"]), (&json!("slow"), &json!("no_room")));
    assert!(stub.calls_to("/slow/undo").is_empty(), "what had no effect is not undone");
    let undo = &stub.calls_to("/quick/undo")[0];
    assert_eq!(
        (undo.header("saga-compensates"), undo.header("saga-outcome")),
        (&*format!("\"{id}:quick:action\""), "succeeded")
    );
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn an_accepted_step_is_polled_where_it_says(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = Stub::start(|call| match (&*call.path, call.earlier) {
        ("/slow", _) => Reply::json(202, Value::Null).header("location", "/jobs/7"),
        ("/jobs/7", 0..2) => Reply::json(202, Value::Null),
        ("/jobs/7", _) => Reply::json(200, json!({"n": 8})),
        _ => Reply::ok(),
    });
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("polled", [step_with("slow", json!({"poll": "50ms"})), step("then")])).await;
    let saga = skald.skald.run("polled", &json!({})).await;
    assert_eq!(saga["status"], "completed", "{saga}");
    assert_eq!(saga["steps"][0]["output"], json!({"n": 8}));
    let polls = stub.calls_to("/jobs/7");
    assert_eq!(polls.len(), 3);
    assert!(polls.iter().all(|poll| poll.method == "GET"));
    assert_eq!((stub.calls_to("/slow").len(), stub.calls_to("/then").len()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn an_accepted_step_that_is_never_finished_is_undone_as_unknown_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = by_callback();
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("slow", [step_with("slow", json!({"deadline": "1s"}))])).await;
    let id = skald.skald.begun("slow", &json!({})).await;
    let within = Duration::from_secs(10);
    let saga = skald.skald.until(&id, "compensated", within, |saga| saga["status"] == "compensated").await;
    assert_eq!(saga["steps"][0]["outcome"], "unknown", "{saga}");
    assert_eq!(stub.calls_to("/slow/undo")[0].header("saga-outcome"), "unknown");
    let token = stub.calls_to("/slow")[0].header("saga-callback-token").to_owned();
    let late = json!({"operation": "action", "outcome": "succeeded", "output": {}});
    call_back(&skald, &id, &token, &late).await.problem(409);
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}
