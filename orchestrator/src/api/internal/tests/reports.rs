//! What participants of a choreographed saga report, through a replica that owns nothing.

use std::sync::Arc;

use serde_json::json;
use skald_core::{
    decide::{IllegalInput, Report, Reported, ReportedOutcome},
    ids::{Operation, SagaId, call_key},
    shard::{batch::CommitError, writer::Refusal},
    state::StepStatus,
};

use super::{TestServer, forwarded};
use crate::storage::memory::Applied;

fn order() -> serde_json::Value {
    json!({
        "customer_id": "c-1",
        "items": [{"product_id": "p-1", "quantity": 1}],
        "payment": {"method": "card", "token": "tok_ok"},
    })
}

async fn begun(server: &TestServer) -> SagaId {
    let started = server.post("/sagas/checkout?mode=choreographed", &order()).await;
    assert_eq!((started.status, &started.body["status"]), (202, &json!("running")), "{}", started.text);
    assert_eq!(started.body["steps"][0]["status"], "running", "it is enabled, and nobody is called");
    started.body["id"].as_str().unwrap().parse().unwrap()
}

fn succeeded(saga: SagaId, step: &str) -> Reported {
    let report = Report {
        event_id: Arc::from(call_key(saga, step, Operation::Action)),
        causation_id: None,
        step: step.to_owned(),
        operation: Operation::Action,
        outcome: ReportedOutcome::Succeeded { output: json!({"total": 1.5}) },
        started_at: None,
        duration: None,
    };
    Reported { reports: vec![report], expected: None }
}

#[actix_web::test]
async fn a_report_reaches_the_owner_in_one_hop_and_comes_twice_without_harm() {
    let (owner, other) = TestServer::pair().await;
    let saga = begun(&owner).await;
    let row = other.app.router().report(saga, succeeded(saga, "verify_stock")).await.unwrap();
    assert_eq!((row.version, row.state.as_str()), (2, "STOCK_RESERVING"));
    let again = other.app.router().report(saga, succeeded(saga, "verify_stock")).await;
    assert_eq!(again, Err(Refusal::Known { version: 2 }));
    let early = other.app.router().report(saga, succeeded(saga, "confirm_order")).await;
    let (step, operation) = ("confirm_order".to_owned(), Operation::Action);
    let pending = IllegalInput::NotUnderWay { step, operation, status: StepStatus::Pending };
    assert_eq!(early, Err(Refusal::Illegal(pending)));
    assert_eq!(forwarded(&other, "report").await, 3);
    assert_eq!(owner.get(&format!("/sagas/{saga}")).await.body["steps"][0]["output"], json!({"total": 1.5}));
    assert!(owner.participants.calls.lock().unwrap().is_empty(), "nobody is called");
}

#[actix_web::test]
async fn a_report_whose_commit_is_in_doubt_is_repeated_and_written_once() {
    for applied in [Applied::Yes, Applied::No] {
        let (owner, other) = TestServer::pair().await;
        let saga = begun(&owner).await;
        owner.store.fail_commit(CommitError::InDoubt("the connection broke".to_owned()), applied);
        let reported = other.app.router().report(saga, succeeded(saga, "verify_stock")).await;
        let version = match (applied, reported) {
            (Applied::Yes, Err(Refusal::Known { version })) => version,
            (Applied::No, Ok(row)) => row.version,
            (_, reported) => panic!("{applied:?}: {reported:?}"),
        };
        assert_eq!(version, 2, "{applied:?}");
    }
}
