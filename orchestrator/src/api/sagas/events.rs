//! `GET /sagas/{id}/events`: what happened to a saga.

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::{
    params::{Params, saga_id},
    problem::{Problem, problems},
    view::{SagaEvent, SagaEventPage},
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, SagaNotFound, SagaRemoved, DatabaseUnavailable);

/// List a saga's events.
///
/// Oldest first. `next_cursor` is the version of the page's last event.
#[utoipa::path(
    get,
    path = "/sagas/{id}/events",
    operation_id = "listSagaEvents",
    tag = "sagas",
    security(("bearer" = [Scope::SagasRead])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("after" = Option<u64>, Query, nullable = false, description = "Only events of later versions; 0 if left out"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
    ),
    responses((status = 200, description = "A page of events, oldest first", body = SagaEventPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let after = params.version_seen("after").unwrap_or(0);
    let limit = params.limit();
    params.finish()?;
    let id = saga_id(&id)?;
    let mut events = app.read(move |store| async move { store.events(id, after, limit + 1).await }).await?;
    if events.is_empty() {
        // Nothing more, or nothing at all?
        app.row(id).await?;
    }
    let more = events.len() > limit as usize;
    events.truncate(limit as usize);
    let next_cursor = events.last().filter(|_| more).map(|last| last.version.to_string());
    let items = events.into_iter().map(SagaEvent::try_from).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(SagaEventPage { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn events_are_flat_whole_and_paged_by_version() {
        let server = TestServer::start().await;
        let order = json!({
            "customer_id": "c-1",
            "items": [{"product_id": "p-1", "quantity": 2}],
            "payment": {"method": "card", "token": "tok_ok"},
        });
        let saga = server.post("/sagas/checkout", &order).await;
        let path = format!("/sagas/{}/events", saga.id());
        let all = server.get(&path).await;
        let events = all.body["items"].as_array().unwrap();
        assert_eq!(json!(events.len()), saga.body["revision"]);
        assert!(all.body["next_cursor"].is_null());
        let first = &events[0];
        assert_eq!((&first["type"], &first["kind"]), (&json!("CheckoutInitiated"), &json!("SagaStarted")));
        assert_eq!(first["data"]["input"], order);
        assert!(first["data"]["deadline_at"].as_str().unwrap().ends_with('Z'), "{first}");
        assert_eq!(first["id"], format!("{}:1", saga.id()));
        let reserved = events.iter().find(|event| event["type"] == "StockReserved").unwrap();
        assert_eq!((&reserved["step"], &reserved["data"]["output"]), (&json!("reserve_stock"), &json!({"total": 100})));
        let started = events.iter().find(|event| event["kind"] == "StepStarted").unwrap();
        assert_eq!(started["operation"], "action");

        let mut seen = Vec::new();
        let mut after = "0".to_owned();
        while seen.len() < events.len() {
            let page = server.get(&format!("{path}?limit=4&after={after}")).await;
            seen.extend(page.body["items"].as_array().unwrap().clone());
            after = page.body["next_cursor"].as_str().unwrap_or("end").to_owned();
        }
        assert_eq!((&seen, after.as_str()), (events, "end"));
    }

    #[actix_web::test]
    async fn past_the_end_is_empty_and_an_unknown_saga_is_not_found() {
        let server = TestServer::start().await;
        let id = server.start_note().await;
        let page = server.get(&format!("/sagas/{id}/events?after=999")).await;
        assert_eq!((page.status, &page.body), (200, &json!({"items": []})));
        let nobody = "/sagas/01890a5d-ac96-774b-bcce-b302099a8057/events";
        server.get(nobody).await.problem(404, "saga_not_found");
        server.get(&format!("{nobody}?after=-1")).await.problem(400, "invalid_parameter");
        server.get(&format!("{nobody}?after=9223372036854775808")).await.problem(400, "invalid_parameter");
    }
}
