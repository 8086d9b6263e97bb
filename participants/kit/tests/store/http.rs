//! The store over HTTP.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use skald_kit::events::ERASED;

use super::Inner;

/// Serves on threads of its own, until the process ends; gives the URL.
pub fn serve(inner: Arc<Inner>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = move || {
        let app = App::new().app_data(web::Data::from(inner.clone())).app_data(web::PayloadConfig::new(1 << 24));
        app.route("/events", web::get().to(events))
            .route("/events", web::post().to(append_each))
            .route("/streams/{id}/events", web::post().to(append))
            .route("/streams/{id}/events", web::get().to(stream))
            .route("/sagas/{id}", web::get().to(saga))
            .route("/definitions/{name}/versions/{version}", web::get().to(definition))
            .route("/groups/{name}", web::put().to(put_group))
            .route("/groups/{name}/poll", web::post().to(poll))
            .route("/groups/{name}/settle", web::post().to(settle))
    };
    std::thread::spawn(move || {
        let server = HttpServer::new(server).workers(1).keep_alive(Duration::from_secs(300)).disable_signals();
        actix_web::rt::System::new().block_on(server.listen(listener).unwrap().run()).unwrap();
    });
    url
}

fn problem(status: u16, code: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap();
    HttpResponse::build(status).json(json!({"status": status.as_u16(), "code": code, "detail": code}))
}

/// Counts a request; the answer when it is to fail without effect.
fn arrived(inner: &Inner) -> Option<HttpResponse> {
    inner.requests.fetch_add(1, Ordering::SeqCst);
    takes_one(&inner.refusals).then(|| problem(503, "unavailable"))
}

fn takes_one(left: &std::sync::atomic::AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// An answer, or the beginning of one whose connection breaks.
fn answered(inner: &Inner, answer: HttpResponse) -> HttpResponse {
    if !takes_one(&inner.lost_answers) {
        return answer;
    }
    let broken = [Ok(web::Bytes::from_static(b"{")), Err(std::io::Error::other("lost on purpose"))];
    HttpResponse::Ok().streaming(futures_util::stream::iter(broken))
}

async fn append(inner: web::Data<Inner>, stream: web::Path<String>, body: web::Json<Value>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let answer = match inner.append(&stream, &body["expected_version"], body["events"].as_array().unwrap()) {
        Ok((version, true)) => {
            HttpResponse::Ok().insert_header(("Idempotent-Replayed", "true")).json(json!({"version": version}))
        }
        Ok((version, false)) => HttpResponse::Created().json(json!({"stream": *stream, "version": version})),
        Err((status, code)) => problem(status, code),
    };
    answered(&inner, answer)
}

async fn append_each(inner: web::Data<Inner>, body: web::Json<Value>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let one = |append: &Value| {
        let stream = append["stream"].as_str().unwrap();
        match inner.append(stream, &append["expected_version"], append["events"].as_array().unwrap()) {
            Ok((version, replayed)) => {
                json!({"stream": stream, "status": if replayed { 200 } else { 201 }, "version": version})
            }
            Err((status, code)) => json!({"stream": stream, "status": status, "problem": {"code": code}}),
        }
    };
    let results: Vec<Value> = body["appends"].as_array().unwrap().iter().map(one).collect();
    answered(&inner, HttpResponse::Ok().json(json!({"results": results})))
}

async fn stream(
    inner: web::Data<Inner>,
    stream: web::Path<String>,
    query: web::Query<std::collections::HashMap<String, String>>,
) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let after: usize = query.get("after").map_or(0, |after| after.parse().unwrap());
    // Pages of three, so that reading a stream takes several.
    let limit = query.get("limit").map_or(3, |limit| limit.parse::<usize>().unwrap().min(3));
    let data = inner.data.lock().unwrap();
    let Some(indexes) = data.streams.get(&*stream) else { return problem(404, "stream_not_found") };
    let rest = indexes.get(after..).unwrap_or_default();
    let items: Vec<&Value> = rest.iter().take(limit).map(|index| &data.log[*index]).collect();
    let mut page = json!({"items": items});
    if rest.len() > items.len() {
        page["next_cursor"] = json!((after + items.len()).to_string());
    }
    HttpResponse::Ok().json(page)
}

async fn saga(inner: web::Data<Inner>, id: web::Path<String>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let data = inner.data.lock().unwrap();
    let Some(indexes) = data.streams.get(&*id) else { return problem(404, "saga_not_found") };
    let mut input = data.log[indexes[0]]["data"]["input"].clone();
    for value in input.as_object_mut().unwrap().values_mut() {
        if value.as_str().is_some_and(skald_kit::events::is_sealed) {
            *value = data.opened.get(value.as_str().unwrap()).map_or(ERASED, String::as_str).into();
        }
    }
    HttpResponse::Ok().json(json!({"id": *id, "input": input}))
}

async fn definition(inner: web::Data<Inner>, path: web::Path<(String, u32)>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let data = inner.data.lock().unwrap();
    let found = data.definitions.iter().find(|known| (known.name.as_str(), known.version) == (&path.0, path.1));
    match found {
        Some(definition) => HttpResponse::Ok().json(json!({"name": path.0, "document": *definition.document})),
        None => problem(404, "definition_not_found"),
    }
}

/// Pages of seven, so that reading the log takes several.
async fn events(inner: web::Data<Inner>, query: web::Query<std::collections::HashMap<String, String>>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let start: usize = query.get("after").map_or(0, |after| after.strip_prefix('p').unwrap().parse().unwrap());
    let limit = query["limit"].parse::<usize>().unwrap().min(7);
    let millis = query.get("wait").map_or(0, |wait| wait.strip_suffix("ms").unwrap().parse().unwrap());
    let until = tokio::time::Instant::now() + Duration::from_millis(millis);
    let mut commits = inner.committed.subscribe();
    loop {
        commits.borrow_and_update();
        let (items, next) = inner.data.lock().unwrap().page(start, limit, query.get("category").map(String::as_str));
        let look_again = async { tokio::time::timeout_at(until, commits.changed()).await.is_ok() };
        if !items.is_empty() || !look_again.await {
            let page = json!({"items": items, "next_cursor": format!("p{next}")});
            return answered(&inner, HttpResponse::Ok().json(page));
        }
    }
}

async fn put_group(inner: web::Data<Inner>, name: web::Path<String>, body: web::Json<Value>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    inner.data.lock().unwrap().put_group(&name, &body);
    HttpResponse::Ok().json(json!({}))
}

async fn poll(inner: web::Data<Inner>, name: web::Path<String>, body: web::Json<Value>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let millis = body["wait"].as_str().unwrap().strip_suffix("ms").unwrap().parse().unwrap();
    let until = tokio::time::Instant::now() + Duration::from_millis(millis);
    let mut commits = inner.committed.subscribe();
    let refused = inner.data.lock().unwrap().settle(&name, &body["settle"]);
    loop {
        commits.borrow_and_update();
        let deliveries = inner.data.lock().unwrap().poll(&name, &body);
        if !deliveries.is_empty() || tokio::time::Instant::now() >= until {
            return answered(&inner, HttpResponse::Ok().json(json!({"deliveries": deliveries, "refused": refused})));
        }
        // What failed becomes due without a commit.
        let look_again = tokio::time::Instant::now() + Duration::from_millis(20);
        let _ = tokio::time::timeout_at(until.min(look_again), commits.changed()).await;
    }
}

async fn settle(inner: web::Data<Inner>, name: web::Path<String>, body: web::Json<Value>) -> HttpResponse {
    if let Some(failure) = arrived(&inner) {
        return failure;
    }
    let refused = inner.data.lock().unwrap().settle(&name, &body["settle"]);
    answered(&inner, HttpResponse::Ok().json(json!({"refused": refused})))
}
