//! Dashboards, rules and alerts against a real Prometheus that scrapes a live run: everything they ask for must parse, and
//! what should have data must have some.

mod expressions;
mod prometheus;

use std::{fs, time::Duration};

use serde_json::{Value, json};

use self::{
    expressions::{Expression, alerts, all, yaml},
    prometheus::{Prometheus, Targets},
};
use crate::{
    choreography::{Bus, World, declined},
    harness::{Backend, SOON, eventually, met, order, workspace},
    smtp_server::SmtpServer,
};

/// Rates need some scrapes.
const DATA_WITHIN: Duration = Duration::from_secs(180);

/// What has no data in this run, by the metric that is asked for, and why.
const MAY_BE_EMPTY: [(&str, &str); 7] = [
    ("kong_", "there is no gateway"),
    ("pg_", "there is no exporter beside PostgreSQL"),
    ("redis_", "there is no exporter beside Redis"),
    ("node_", "there is no exporter of the machine"),
    ("retention_", "nothing is kept for a limited time"),
    ("commit_failures_total", "no commit fails"),
    ("event_consume_errors_total", "every request for events is answered"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_parses_and_has_data() {
    let world = World::start(Backend::Postgres, Bus::Streams).await;
    let audit = world.worker("audit", &[], Backend::Postgres).await;
    let (_mails, mail_url) = SmtpServer::start().await;
    let notification = world.worker("notification", &[format!("--smtp={mail_url}")], Backend::Postgres).await;
    let views = world.worker("views", &[], Backend::Postgres).await;
    let shop = &world.all.shop;
    let prometheus = Prometheus::start(&Targets {
        skald: vec![&world.all.skald.client.url],
        participants: vec![shop.catalog.url(), shop.sales.url(), shop.orders.url()],
        workers: vec![audit.url(), notification.url(), views.url()],
    })
    .await;
    let skald = &world.all.skald;
    skald.client.put("/groups/lookers", &json!({"start": "beginning"})).await.expect(201);
    one_parks(&world).await;
    // Not a few things go wrong at the catalog from now on.
    shop.catalog.faults(json!({"verify": {"error_500": 0.3}, "release": {"error_500": 0.5}})).await;

    let expressions = all();
    let mut round = 0;
    eventually("every expression has data", DATA_WITHIN, async || {
        round += 1;
        for mode in ["orchestrated", "choreographed"] {
            for mut input in [order("c-1"), declined("c-2")] {
                input["email"] = json!("c@example.org");
                world.begin("checkout", mode, &input).await;
            }
        }
        skald.client.post("/sagas/checkout", &json!({"nothing": round})).await.expect(422);
        skald.client.get("/sagas/01890a5d-ac96-774b-bcce-b302099a8057").await.expect(404);
        let mut empty = Vec::new();
        for expression in &expressions {
            if prometheus.query(expression).await == 0 && !may_be_empty(&expression.text) {
                empty.push(expression.to_string());
            }
        }
        met(empty.is_empty(), || format!("after round {round} these have none:\n{}", empty.join("\n")))
    })
    .await;
}

fn may_be_empty(text: &str) -> bool {
    MAY_BE_EMPTY.iter().any(|(metric, _)| text.contains(metric))
}

/// A saga whose compensation is refused.
async fn one_parks(world: &World) {
    let catalog = &world.all.shop.catalog;
    catalog.faults(json!({"release": {"refuse": 1.0}})).await;
    let parked = world.begin("checkout", "orchestrated", &declined("c-1")).await;
    world.all.skald.until(&parked, "parked", SOON, |saga| saga["status"] == "parked").await;
}

#[test]
fn what_may_be_empty_is_asked_for() {
    let expressions = all();
    for (metric, reason) in MAY_BE_EMPTY {
        let asked = |expression: &Expression| expression.text.contains(metric);
        assert!(expressions.iter().any(asked), "nothing asks for {metric} any more ({reason})");
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test() {
    let operations = fs::read_to_string(workspace().join("docs/OPERATIONS.md")).expect("it is there");
    let anchors: Vec<String> = operations
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .map(|heading| heading.trim().to_lowercase().replace(' ', "-"))
        .collect();
    let tested: Value = yaml("monitoring/prometheus/tests/alerts.yml");
    let tests = tested["tests"].as_array().expect("it is a list").iter();
    let fires: Vec<&Value> = tests
        .flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
        .filter(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()))
        .map(|test| &test["alertname"])
        .collect();
    let alerts = alerts();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let runbook = alert["annotations"]["runbook_url"].as_str().expect("an alert has a runbook");
        let anchor = runbook.strip_prefix("docs/OPERATIONS.md#").expect("runbooks are there");
        assert!(anchors.iter().any(|found| found == anchor), "docs/OPERATIONS.md has no section #{anchor}");
        assert!(fires.contains(&&alert["alert"]), "no test has {} fire", alert["alert"]);
    }
}
