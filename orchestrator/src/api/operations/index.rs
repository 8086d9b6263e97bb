//! `GET /`: leads to the documentation.

use actix_web::HttpResponse;

pub async fn handle() -> HttpResponse {
    HttpResponse::Found().insert_header(("Location", "/docs/")).finish()
}
