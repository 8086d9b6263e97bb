//! The services that a checkout calls, as cheap as services can be that keep their promise: the same key gives the same
//! answer. Everything is in memory; the oldest answers are forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, Data, Json, ServiceConfig},
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::order::{self, DECLINED_TOKEN, Item};

const PARTITIONS: usize = 16;
/// No retry comes after so many later calls.
const GENERATION_MAX: usize = 20_000;

/// What was answered, by key.
#[derive(Debug)]
pub struct Answers {
    partitions: [Mutex<Generations>; PARTITIONS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<str>, Answer>,
    old: HashMap<Box<str>, Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answers {
    pub fn new() -> Self {
        Self { partitions: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    fn once(&self, key: &str, answer: impl FnOnce() -> Answer) -> Answer {
        let partition = self.hasher.hash_one(key) as usize % PARTITIONS;
        let mut known = self.partitions[partition].lock().expect("nothing panics while it holds this lock");
        if let Some(answer) = known.young.get(key).or_else(|| known.old.get(key)) {
            return answer.clone();
        }
        if known.young.len() >= GENERATION_MAX {
            known.old = std::mem::take(&mut known.young);
        }
        let answer = answer();
        known.young.insert(key.into(), answer.clone());
        answer
    }
}

#[derive(Debug, serde::Deserialize)]
struct Stock {
    items: Vec<Item>,
}

/// A dependency of the services that is down as long as it is said to be.
#[derive(Debug, Default)]
pub struct Dependency {
    is_down: AtomicBool,
    let_through: AtomicU64,
}

/// All three services, each under its name.
pub fn routes(config: &mut ServiceConfig) {
    config
        .route("/catalog/held", web::post().to(held))
        .route("/catalog/accepted", web::post().to(HttpResponse::Accepted))
        .route("/catalog/steps/{step}", web::post().to(done))
        .route("/hold", web::post().to(hold))
        .route("/let_through", web::post().to(let_through))
        .route("/count", web::post().to(count))
        .route("/catalog/stock/verify", web::post().to(verify))
        .route("/catalog/stock/reserve", web::post().to(reserve))
        .route("/catalog/stock/release", web::post().to(done))
        .route("/sales/payments", web::post().to(pay))
        .route("/sales/payments/refund", web::post().to(done))
        .route("/orders/orders/{id}", web::post().to(confirm))
        .route("/orders/orders/{id}/cancel", web::post().to(done));
}

async fn verify(request: HttpRequest, answers: Data<Answers>, stock: Json<Stock>) -> HttpResponse {
    respond(&request, &answers, || ok(&json!({"available": !stock.items.is_empty()})))
}

async fn reserve(request: HttpRequest, answers: Data<Answers>, stock: Json<Stock>) -> HttpResponse {
    respond(&request, &answers, || ok(&json!({"reserved": true, "total": order::total(&stock.items)})))
}

async fn pay(request: HttpRequest, answers: Data<Answers>, payment: Json<Value>) -> HttpResponse {
    respond(&request, &answers, || {
        if payment["payment"]["token"] == DECLINED_TOKEN {
            return Answer {
                status: StatusCode::PAYMENT_REQUIRED,
                body: written(&json!({"code": "payment_declined", "title": "The payment was declined"})),
            };
        }
        ok(&json!({"payment_id": payment["order_id"], "amount": payment["amount"]}))
    })
}

async fn confirm(request: HttpRequest, answers: Data<Answers>, order: Json<Value>) -> HttpResponse {
    respond(&request, &answers, || ok(&json!({"order_id": request.match_info().query("id"), "total": order["total"]})))
}

async fn done(request: HttpRequest, answers: Data<Answers>, _body: Json<Value>) -> HttpResponse {
    respond(&request, &answers, || ok(&json!({"done": true})))
}

/// Each saga calls it once when it is up.
async fn held(dependency: Data<Dependency>, _body: Json<Value>) -> HttpResponse {
    if dependency.is_down.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().finish();
    }
    dependency.let_through.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok().json(true)
}

async fn hold(dependency: Data<Dependency>) -> Json<u64> {
    dependency.is_down.store(true, Ordering::Relaxed);
    Json(dependency.let_through.swap(0, Ordering::Relaxed))
}

async fn let_through(dependency: Data<Dependency>) -> Json<u64> {
    dependency.is_down.store(false, Ordering::Relaxed);
    count(dependency).await
}

async fn count(dependency: Data<Dependency>) -> Json<u64> {
    Json(dependency.let_through.load(Ordering::Relaxed))
}

fn respond(request: &HttpRequest, answers: &Answers, answer: impl FnOnce() -> Answer) -> HttpResponse {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(key) = key else { return HttpResponse::BadRequest().finish() };
    let Answer { status, body } = answers.once(key, answer);
    HttpResponse::build(status).content_type("application/json").body(body)
}

fn ok(body: &Value) -> Answer {
    Answer { status: StatusCode::OK, body: written(body) }
}

fn written(body: &Value) -> Bytes {
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: usize) -> Answer {
        ok(&json!(number))
    }

    #[test]
    fn the_same_key_gives_the_same_answer_until_many_others_came() {
        let answers = Answers::new();
        answers.once("first", || number(1));
        for other in 0..GENERATION_MAX {
            answers.once(&other.to_string(), || number(2));
        }
        assert_eq!(answers.once("first", || number(3)).body, "1");
        for other in 0..4 * GENERATION_MAX * PARTITIONS {
            answers.once(&format!("other {other}"), || number(2));
        }
        assert_eq!(answers.once("first", || number(4)).body, "4");
        let kept: usize =
            answers.partitions.iter().map(|it| it.lock().unwrap()).map(|it| it.young.len() + it.old.len()).sum();
        assert!(kept <= 2 * GENERATION_MAX * PARTITIONS, "{kept}");
    }
}
