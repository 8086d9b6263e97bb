//! What operators do to sagas that run, are parked, or have ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Checker, Deployment, Postgres, Reply, SOON, Sqlite, Stub,
    deployment::Alone,
    order,
    sample::{definition, step, step_with},
};

/// A participant that refuses a call for as long as it is told to.
fn refusing(path: &'static str) -> (Stub, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&refuses);
    let stub = Stub::start(move |call| match &*call.path {
        "/declined" => Reply::rejected("declined"),
        other if other == path && switch.load(Ordering::SeqCst) => Reply::rejected("not_now"),
        _ => Reply::json(200, json!({"done": call.path})),
    });
    (stub, refuses)
}

/// Runs a saga until it is parked at `step`, has an operator act, and gives the saga as it ended.
async fn parked_and_repaired(skald: &Alone, name: &str, step: &str, command: &str, body: Value) -> Value {
    let id = skald.skald.begun(name, &json!({})).await;
    let parked = skald.skald.until_status(&id, "parked").await;
    assert_eq!(parked["state"], "PARKED");
    let of_step = parked["steps"].as_array().expect("a saga has steps").iter().find(|other| other["id"] == step);
    assert!(of_step.is_some_and(|step| step["parked"]["code"].is_string()), "{parked}");
    skald.skald.admin(&id, command, body).await.expect(200);
    let ended = skald.skald.ended(&id).await;
    let acted = skald.skald.events(&id).await.into_iter().find(|event| event["kind"] == "OperatorActed");
    let acted = acted.expect("an operator's command is an event");
    assert_eq!((&acted["actor"], &acted["data"]["reason"]), (&json!("tester"), &json!("the test says so")));
    ended
}

#[rstest]
#[tokio::test]
async fn a_parked_compensation_is_repaired_by_each_action_2_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let (stub, refuses) = refusing("/booked/undo");
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("trip", [step("booked"), step("declined")])).await;
    for (command, body, status, step_status) in [
        ("steps/booked/skip", json!({}), "abandoned", "compensation_skipped"),
        ("steps/booked/resolve", json!({"outcome": "succeeded"}), "compensated", "compensated"),
        ("abandon", json!({}), "abandoned", "compensating"),
        ("retry", json!({}), "compensated", "compensated"),
    ] {
        refuses.store(command != "retry", Ordering::SeqCst);
        if command == "retry" {
            // Parked first, and only then is the participant put right.
            refuses.store(true, Ordering::SeqCst);
            let id = skald.skald.begun("trip", &json!({})).await;
            skald.skald.until_status(&id, "parked").await;
            assert_eq!(skald.skald.admin(&id, "compensate", json!({})).await.problem(409), "not_possible");
            refuses.store(false, Ordering::SeqCst);
            skald.skald.admin(&id, command, body).await.expect(200);
            assert_eq!(skald.skald.ended(&id).await["status"], status);
            continue;
        }
        let saga = parked_and_repaired(&skald, "trip", "booked", command, body).await;
        assert_eq!((&saga["status"], &saga["steps"][0]["status"]), (&json!(status), &json!(step_status)), "{command}");
        assert_eq!(saga["failure"]["code"], "declined", "{command}");
    }
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn a_step_parked_after_the_pivot_is_repaired_by_each_action_2_3(#[values(Sqlite, Postgres)] backend: Backend) {
    let (stub, refuses) = refusing("/posted");
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    let steps =
        [step("booked"), step_with("paid", json!({"pivot": true})), step_with("posted", json!({"retriable": true}))];
    skald.skald.register(&definition("sale", steps)).await;
    for (command, body, status, step_status) in [
        ("steps/posted/skip", json!({}), "completed", "skipped"),
        ("steps/posted/resolve", json!({"outcome": "succeeded", "output": {"by": "hand"}}), "completed", "succeeded"),
        ("compensate", json!({}), "compensated", "rejected"),
        ("abandon", json!({}), "abandoned", "running"),
    ] {
        let saga = parked_and_repaired(&skald, "sale", "posted", command, body).await;
        assert_eq!(saga["status"], status, "{command}");
        let of_step = saga["steps"][2]["status"].as_str().unwrap_or_default();
        let undone = command == "compensate" && ["rejected", "compensated"].contains(&of_step);
        assert!(of_step == step_status || undone, "{command}: {}", saga["steps"][2]);
    }
    let id = skald.skald.begun("sale", &json!({})).await;
    skald.skald.until_status(&id, "parked").await;
    refuses.store(false, Ordering::SeqCst);
    let mut bulk = json!({"reason": "posted again", "actor": "tester", "filter": {"definition": "sale"}});
    let dry = skald.skald.client.post("/admin/sagas/retry", &bulk).await.expect(200);
    assert_eq!((&dry["matched"], &dry["applied"]), (&json!(1), &json!(0)));
    assert_eq!(skald.skald.saga(&id).await["status"], "parked", "a dry run, which is the default, changes nothing");
    bulk["dry_run"] = json!(false);
    assert_eq!(skald.skald.client.post("/admin/sagas/retry", &bulk).await.expect(200)["applied"], 1);
    assert_eq!(skald.skald.ended(&id).await["status"], "completed");
    Checker::gather_log(&skald.skald, &skald.database).await.check();
}

#[rstest]
#[tokio::test]
async fn force_compensating_while_a_step_runs_undoes_what_it_did_4_5(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    world.shop.sales.faults(json!({"payments": {"delay": {"rate": 1.0, "ms": 1000}}})).await;
    let id = world.skald.begun("checkout", &order("c-1")).await;
    let paying = |saga: &Value| saga["state"] == "PAYMENT_PROCESSING";
    world.skald.until(&id, "paying", SOON, paying).await;
    world.skald.admin(&id, "compensate", json!({"reason": "customer called"})).await.expect(200);
    let saga = world.skald.ended(&id).await;
    assert_eq!(saga["status"], "compensated", "{saga}");
    assert_eq!(
        (&saga["failure"]["code"], &saga["failure"]["reason"]),
        (&json!("force_compensated"), &json!("customer called"))
    );
    assert_eq!(world.shop.orders.effects_of(&id).await, [] as [String; 0]);
    assert_eq!(world.skald.admin(&id, "compensate", json!({})).await.problem(409), "saga_ended");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn force_compensating_between_steps_and_past_the_pivot_undoes_all_4(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = Deployment::start(backend).await;
    for (service, operation, step) in [("orders", "orders", 3), ("catalog", "commit", 4)] {
        let later = json!({operation: {"unavailable": {"rate": 1.0, "retry_after_s": 60}}});
        let service = if service == "orders" { &world.shop.orders } else { &world.shop.catalog };
        service.faults(later).await;
        let id = world.skald.begun("checkout", &order("c-1")).await;
        let waits = |saga: &Value| !saga["steps"][step]["attempts"][0].is_null();
        let waiting = world.skald.until(&id, "waiting", SOON, waits).await;

        let stale = world.skald.client.request(Method::POST, &format!("/admin/sagas/{id}/compensate"));
        let stale = stale.header("If-Match", "\"1\"").header("X-Actor", "tester").json(&json!({"reason": "x"}));
        assert_eq!(world.skald.client.send(stale).await.expect("Skald answers").problem(412), "revision_mismatch");
        assert_eq!(world.skald.saga(&id).await["revision"], waiting["revision"]);

        world.skald.admin(&id, "compensate", json!({})).await.expect(200);
        let saga = world.skald.ended(&id).await;
        assert_eq!(saga["status"], "compensated", "{saga}");
        service.faults(json!({})).await;
    }
    assert_eq!(world.shop.catalog.shelf("s-main", "p-1").await, (1_000, 0, 0));
    world.check().await;

    let done = world.skald.run("checkout", &order("c-1")).await;
    let done = done["id"].as_str().expect("an id is text");
    for command in ["compensate", "retry", "abandon", "steps/process_payment/skip"] {
        assert_eq!(world.skald.admin(done, command, json!({})).await.problem(409), "saga_ended", "{command}");
    }
    assert_eq!(world.skald.saga(done).await["status"], "completed");
}

#[rstest]
#[tokio::test]
async fn a_refused_refund_parks_the_checkout_until_it_is_retried_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    world.shop.sales.faults(json!({"refund": {"refuse": 1.0}})).await;
    let id = world.skald.begun("checkout", &order("blocked")).await;
    let parked = world.skald.until_status(&id, "parked").await;
    assert_eq!(parked["steps"][2]["compensation"]["status"], "parked");
    assert!(world.skald.metric("parked_sagas", "").await >= 1.0);
    let shelf = world.shop.catalog.shelf("s-main", "p-1").await;
    assert_eq!(shelf, (999, 1, 0), "what comes earlier is undone only after what comes later");
    world.check().await;
    world.shop.heal().await;
    world.skald.admin(&id, "steps/process_payment/retry", json!({})).await.expect(200);
    let saga =
        world.skald.until(&id, "compensated", Duration::from_secs(10), |saga| saga["status"] == "compensated").await;
    assert_eq!(saga["failure"]["code"], "customer_blocked");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_command_without_reason_or_saga_is_refused(#[values(Sqlite, Postgres)] backend: Backend) {
    let skald = Alone::start(backend, &[]).await;
    let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(skald.skald.admin(nobody, "compensate", json!({})).await.problem(404), "saga_not_found");
    let path = format!("/admin/sagas/{nobody}/compensate");
    assert_eq!(skald.skald.client.post(&path, &json!({})).await.problem(400), "invalid_body");
}
