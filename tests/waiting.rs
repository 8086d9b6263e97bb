//! Thousands of sagas that wait: they cost neither memory nor the speed of others.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Checker, Postgres, Reply, SOON, Sqlite, Stub,
    deployment::Alone,
    eventually, met,
    sample::{definition, step},
};

/// By default; `SKALD_TEST_WAITING=100000` for the figure that is promised.
const WAITING: usize = 5_000;
const RESIDENT_MAX: f64 = 200.0;
const MEMORY_KIB_MAX: u64 = 400 * 1024;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_waiting_sagas_stay_out_of_memory_and_survive_a_restart(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let waiting = std::env::var("SKALD_TEST_WAITING").map_or(WAITING, |count| count.parse().expect("a number"));
    let stub = Stub::start(|call| if call.path == "/slow" { Reply::json(202, Value::Null) } else { Reply::ok() });
    let mut skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("slow", [step("slow")])).await;
    skald.skald.register(&definition("quick", [step("quick")])).await;
    let before = skald.skald.process.resident_kib();
    stream::iter(0..waiting)
        .for_each_concurrent(64, async |_| {
            eventually("the start is not shed", SOON, async || {
                let answer = skald.skald.begin("slow", &json!({})).await;
                met(answer.status != 503, || answer.text.clone())?;
                assert_eq!(answer.status, 202, "{}", answer.text);
                Ok(())
            })
            .await;
        })
        .await;
    let resident = async |skald: &Alone| {
        eventually("the waiting sagas have left memory", Duration::from_secs(60), async || {
            let resident = skald.skald.metric("sagas_resident", "").await;
            met(resident <= RESIDENT_MAX, || resident.to_string())
        })
        .await;
    };
    resident(&skald).await;
    let memory = skald.skald.process.resident_kib();
    println!("{backend:?}: {waiting} waiting sagas, {before} KiB before, {memory} KiB now");
    assert!(memory < MEMORY_KIB_MAX, "{memory} KiB");
    assert_eq!(skald.skald.run("quick", &json!({})).await["status"], "completed");

    skald.skald.restart().await;
    resident(&skald).await;
    assert_eq!(skald.skald.run("quick", &json!({})).await["status"], "completed");
    for call in stub.calls_to("/slow").iter().step_by(waiting / 20) {
        let id = call.header("saga-id");
        let done = json!({"operation": "action", "outcome": "succeeded", "output": {}});
        let request = skald.skald.client.request(Method::POST, &format!("/sagas/{id}/steps/slow/complete")).json(&done);
        let request = request.header("Saga-Callback-Token", call.header("saga-callback-token"));
        assert!(skald.skald.client.send(request).await.expect("Skald answers").status < 300);
        skald.skald.until(id, "completed", SOON, |saga| saga["status"] == "completed").await;
    }
    let violations = Checker::gather_log(&skald.skald, &skald.database).await.violations();
    let others: Vec<&String> = violations.iter().filter(|violation| !violation.starts_with("2: ")).collect();
    assert!(others.is_empty(), "{others:?}");
}
