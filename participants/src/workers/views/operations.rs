//! `GET /projections`, `POST /projections/{name}/rebuild` and `/verify`.

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde_json::{Value, json};
use skald_kit::Problem;

use super::{
    Views,
    progress::Progress,
    read::projector_of,
    replay::{self, Purpose},
};
use crate::{codes, http};

/// `GET /projections`: how far each is.
pub(super) async fn list(request: HttpRequest, views: web::Data<Views>) -> HttpResponse {
    let items: Vec<Value> = views
        .projectors
        .values()
        .map(|projector| {
            let seen = projector.seen();
            json!({
                "name": projector.projection().name(),
                "category": projector.projection().category(),
                "generation": seen.generation,
                "checkpoint": seen.cursor,
                "positions": seen.reached,
                "events": seen.events,
                "last_event_at": seen.last_event_at,
                "at_end": seen.is_at_end(),
                "lag_seconds": seen.lag().as_secs_f64(),
                "busy": projector.turn.available_permits() == 0,
            })
        })
        .collect();
    http::respond(&request, Ok(json!({"items": items})))
}

/// `POST /projections/{name}/rebuild`
pub(super) async fn rebuild(request: HttpRequest, views: web::Data<Views>) -> HttpResponse {
    replayed(&request, &views, Purpose::Rebuild)
}

/// `POST /projections/{name}/verify`
pub(super) async fn verify(request: HttpRequest, views: web::Data<Views>) -> HttpResponse {
    replayed(&request, &views, Purpose::Verify)
}

/// Starts a replay and answers with its progress, a line of JSON at a time. It goes on when the client leaves.
fn replayed(request: &HttpRequest, views: &Views, purpose: Purpose) -> HttpResponse {
    let projector = match projector_of(request, views) {
        Ok(projector) => projector.clone(),
        Err(problem) => return http::send(request, problem.into()),
    };
    let Ok(turn) = projector.turn.clone().try_acquire_owned() else {
        let detail = format!("{} is being rebuilt or verified", projector.projection().name());
        return http::send(request, Problem::new(codes::PROJECTION_BUSY, detail).into());
    };
    let (progress, lines) = Progress::new();
    let runtime = projector.runtime.clone();
    runtime.spawn(replay::run(projector, purpose, progress, turn));
    let body = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let text = serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            web::Bytes::from(text)
        });
        Some((text, lines))
    });
    HttpResponse::Ok().content_type("application/x-ndjson").streaming(body)
}
