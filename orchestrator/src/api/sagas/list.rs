//! `GET /sagas`: sagas, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use skald_core::ids::SagaId;
use utoipa::{IntoParams, ToSchema};

use super::super::{
    params::{LIMIT_MAX, ModeParam, Params, StatusParam, TimeParam},
    problem::{Problem, problems},
    view::SagaSummary,
    words::{Moment, SagaMode, SagaStatus},
};
use crate::{access::scope::Scope, app::App, storage::SagaFilter};

/// A page of sagas, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaPage {
    items: Vec<SagaSummary>,
    /// Give it as `cursor`, with the same filters, to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// Which sagas to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes; the handler reads parameter by parameter")]
struct ListParams {
    /// One or several, separated by commas.
    #[param(nullable = false, style = Form, explode = false, example = json!(["running", "parked"]))]
    status: Option<Vec<SagaStatus>>,
    #[param(nullable = false, max_length = 1024, example = "checkout")]
    definition: Option<String>,
    #[param(nullable = false)]
    mode: Option<SagaMode>,
    /// Of unfinished sagas only.
    #[param(nullable = false, max_length = 1024, example = "PAYMENT_PROCESSING")]
    state: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    correlation_id: Option<String>,
    #[param(nullable = false, inline)]
    created_after: Option<Moment>,
    #[param(nullable = false, inline)]
    created_before: Option<Moment>,
    /// `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Items of a page; 50 if left out.
    #[param(nullable = false, minimum = 1, maximum = 250)]
    limit: Option<u32>,
}

problems!(Problems, InvalidParameter, InvalidCursor, DatabaseUnavailable);

/// List sagas.
#[utoipa::path(
    get,
    path = "/sagas",
    operation_id = "listSagas",
    tag = "sagas",
    security(("bearer" = [Scope::SagasRead])),
    params(ListParams),
    responses((status = 200, description = "A page of sagas, newest first", body = SagaPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let statuses: Vec<StatusParam> = params.take_list("status");
    let mut filter = SagaFilter {
        statuses: statuses.into_iter().map(|StatusParam(status)| status).collect(),
        definition: params.take("definition"),
        mode: params.take("mode").map(|ModeParam(mode)| mode),
        state: params.take("state"),
        correlation_id: params.take("correlation_id"),
        created_after: params.take("created_after").map(|TimeParam(time)| time),
        created_before: params.take("created_before").map(|TimeParam(time)| time),
        before: None,
        limit: 0,
    };
    let cursor: Option<String> = params.take("cursor");
    let limit = params.limit();
    params.finish()?;
    filter.statuses.sort_unstable();
    filter.statuses.dedup();
    // What the cursor is signed with: the filters, and neither place nor size of the page.
    let query = format!("{filter:?}");
    filter.before = cursor.map(|cursor| app.cursors().read(&cursor, &query)).transpose()?.map(SagaId::from_uuid);
    filter.limit = limit + 1;

    let mut rows = app.read(|store| async move { store.list(&filter).await }).await?;
    debug_assert!(rows.len() <= LIMIT_MAX as usize + 1, "the store keeps to the limit");
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|last| app.cursors().after(last.id.as_uuid(), &query));
    let items = rows.into_iter().map(SagaSummary::from).collect();
    Ok(HttpResponse::Ok().json(SagaPage { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::super::testing::TestServer;

    fn ids(page: &Value) -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    #[actix_web::test]
    async fn pages_show_every_saga_once_newest_first() {
        let server = TestServer::start().await;
        let mut started = Vec::new();
        for _ in 0..5 {
            let id = server.start_note().await;
            server.until(&id, "completed").await;
            started.push(id);
        }
        started.sort_unstable_by(|a, b| b.cmp(a));
        let mut seen = Vec::new();
        let mut path = "/sagas?limit=2&status=completed".to_owned();
        loop {
            let page = server.get(&path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            seen.extend(ids(&page.body));
            match page.body["next_cursor"].as_str() {
                Some(cursor) => path = format!("/sagas?limit=2&status=completed&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(seen, started);
    }

    #[actix_web::test]
    async fn filters_choose_and_a_cursor_belongs_to_its_filters() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let waiting = server.start_note().await;
        let other = server.start_note().await;
        for id in [&waiting, &other] {
            server.until(id, "running").await;
        }
        let correlation = server.get(&format!("/sagas/{waiting}")).await.body["correlation_id"].clone();
        for query in [
            "status=running,parked&definition=note&mode=orchestrated&created_after=2020-01-01T00:00:00Z".to_owned(),
            format!("correlation_id={}", correlation.as_str().unwrap()),
        ] {
            let page = server.get(&format!("/sagas?{query}")).await;
            assert!(ids(&page.body).contains(&waiting), "{query}: {}", page.text);
        }
        for query in ["status=parked", "definition=checkout", "created_before=2020-01-01T00:00:00Z", "state=NOWHERE"] {
            assert_eq!(ids(&server.get(&format!("/sagas?{query}")).await.body), [] as [String; 0], "{query}");
        }
        let page = server.get("/sagas?limit=1&status=running").await;
        let cursor = page.body["next_cursor"].as_str().unwrap();
        server.get(&format!("/sagas?limit=1&cursor={cursor}")).await.problem(400, "invalid_cursor");
        server.get("/sagas?cursor=made-up").await.problem(400, "invalid_cursor");
        server.participants.release("publish:action");
    }
}
