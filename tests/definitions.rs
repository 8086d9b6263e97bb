//! Registering definitions, and what they make sagas do: conditions, parallel steps, versions.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Checker, Postgres, Reply, SOON, Sqlite, Stub,
    deployment::Alone,
    eventually, met,
    sample::{definition, step, step_with},
};

fn paths(stub: &Stub) -> Vec<String> {
    stub.calls().into_iter().map(|call| call.path).collect()
}

#[rstest]
#[tokio::test]
async fn a_step_whose_condition_is_false_is_skipped(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = Stub::start(|_| Reply::ok());
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    let gift = step_with("gift", json!({"if": "input.total > 100"}));
    skald.skald.register(&definition("order", [step("pay"), gift, step("ship")])).await;
    for (total, status, calls) in [(50, "skipped", 2), (150, "succeeded", 3)] {
        let before = stub.calls().len();
        let saga = skald.skald.run("order", &json!({"total": total})).await;
        assert_eq!((&saga["status"], &saga["steps"][1]["status"]), (&json!("completed"), &json!(status)), "{saga}");
        assert_eq!(stub.calls().len() - before, calls);
    }
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn independent_steps_run_at_once_and_are_undone_before_what_they_need_4(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let stub = Stub::start(|call| match &*call.path {
        "/left" | "/right" => Reply::ok().after(Duration::from_millis(500)),
        "/join" => Reply::rejected("no"),
        _ => Reply::ok(),
    });
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    let after = |id: &str, needs: Value| step_with(id, json!({"needs": needs}));
    let fork = [step("first"), after("left", json!(["first"])), after("right", json!(["first"]))];
    let [first, left, right] = fork;
    skald.skald.register(&definition("diamond", [first, left, right, after("join", json!(["left", "right"]))])).await;
    let id = skald.skald.begun("diamond", &json!({})).await;
    eventually("left and right are called while neither has answered", SOON, async || {
        let called = paths(&stub);
        let both = called.contains(&"/left".to_owned()) && called.contains(&"/right".to_owned());
        met(both && !called.contains(&"/join".to_owned()), || format!("{called:?}"))
    })
    .await;
    let saga = skald.skald.ended(&id).await;
    assert_eq!(saga["status"], "compensated", "{saga}");
    let called = paths(&stub);
    let at = |path: &str| called.iter().position(|other| other == path).unwrap_or_else(|| panic!("{path}: {called:?}"));
    assert!(at("/left/undo").max(at("/right/undo")) < at("/first/undo"), "{called:?}");
    assert_eq!(called.len(), 7, "each once: {called:?}");
    let [left, right] = [1, 2].map(|step| saga["steps"][step]["duration_ms"].as_u64().expect("it ended"));
    println!("{backend:?}: left took {left} ms, right {right} ms");
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn a_saga_keeps_the_version_it_started_with(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = Stub::start(|_| Reply::ok());
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    let client = &skald.skald.client;
    let first = definition("job", [step("one")]);
    assert_eq!(client.put("/definitions/job", &first).await.status, 201);
    assert_eq!(client.put("/definitions/job", &first).await.status, 200, "the same content is no change");
    let mut changed = definition("job", [step("other")]);
    assert_eq!(client.put("/definitions/job", &changed).await.problem(409), "definition_conflict");
    changed["version"] = json!(2);
    assert_eq!(client.put("/definitions/job", &changed).await.status, 201);

    assert_eq!(skald.skald.run("job", &json!({})).await["version"], 2, "the highest unless told otherwise");
    let old = client.post("/sagas/job?version=1", &json!({})).await.expect(201);
    assert_eq!((&old["version"], &old["steps"][0]["id"]), (&json!(1), &json!("one")));
    assert_eq!(client.post("/sagas/job?version=3", &json!({})).await.problem(404), "definition_not_found");
    assert_eq!(client.post("/sagas/none", &json!({})).await.problem(404), "definition_not_found");
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn a_broken_definition_is_refused_with_the_place_of_each_problem(#[values(Sqlite, Postgres)] backend: Backend) {
    let skald = Alone::start(backend, &[("stub", "http://127.0.0.1:1")]).await;
    let client = &skald.skald.client;
    let call = |path: &str| json!({"service": "stub", "method": "POST", "path": path});
    let unknown_service = json!({"service": "elsewhere", "method": "POST", "path": "/a"});
    let refers_downstream = json!({"service": "stub", "method": "POST", "path": "/a", "body": "${steps.b.output}"});
    for (steps, place) in [
        (json!([]), "steps"),
        (json!([step("a"), step("a")]), "steps[1]"),
        (json!([step_with("a", json!({"needs": ["b"]})), step_with("b", json!({"needs": ["a"]}))]), "steps"),
        (json!([step_with("a", json!({"needs": ["nowhere"]}))]), "steps[0].needs"),
        (json!([step_with("a", json!({"call": unknown_service}))]), "steps[0].call.service"),
        (json!([step_with("a", json!({"call": refers_downstream})), step("b")]), "steps[0].call.body"),
        (json!([{"id": "a", "call": call("/a")}]), "steps[0]"),
        (json!([step_with("a", json!({"pivot": true})), step_with("b", json!({"pivot": true}))]), "steps[1]"),
        (json!([step_with("a", json!({"retriable": true})), step_with("b", json!({"pivot": true}))]), "steps[0]"),
        (json!([step_with("a", json!({"timeuot": "3s"}))]), "steps[0].timeuot"),
        (json!([step_with("a", json!({"timeout": 3}))]), "steps[0].timeout"),
        (json!([step_with("a", json!({"if": "input.x >"}))]), "steps[0].if"),
    ] {
        let mut broken = definition("broken", []);
        broken["steps"] = steps.clone();
        let answer = client.put("/definitions/broken", &broken).await;
        assert_eq!(answer.problem(422), "invalid_definition", "{steps}");
        let errors = answer.body["errors"].as_array().expect("an invalid definition has places");
        let named = errors.iter().any(|error| error["place"].as_str().is_some_and(|found| found.starts_with(place)));
        assert!(named, "{place} is not among {errors:?}");
    }
    let mut two =
        definition("broken", [step_with("a", json!({"timeout": 3})), step_with("b", json!({"needs": ["z"]}))]);
    two["deadline"] = json!("soon");
    let answer = client.put("/definitions/broken", &two).await;
    assert_eq!(answer.body["errors"].as_array().map(Vec::len), Some(3), "all problems in one go: {}", answer.text);
    let mismatch = client.put("/definitions/other", &definition("job", [step("one")])).await;
    assert!((400..500).contains(&mismatch.status), "the name is in the path too: {}", mismatch.text);
    assert_eq!(client.get("/definitions/broken").await.problem(404), "definition_not_found");
}
