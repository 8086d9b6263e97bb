//! What the API tells the metrics.

use std::time::Duration;

use actix_web::http::Method;

use crate::metrics::Metrics;

/// A request was answered. `route` is the route's pattern; None where there is none.
pub fn request_ended(metrics: &Metrics, method: &Method, route: Option<&str>, status: u16, took: Duration) {
    metrics.http.request(label(method), route.unwrap_or("unmatched"), status, took);
}

/// The method as a label: only those that the API has, so that clients cannot make labels.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
