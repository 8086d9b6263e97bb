//! An HTTP client for any of the servers, that looks at answers as they are.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;

/// Longer than any answer should take; the default of a waiting start is 10 s.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Requests to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null when the body is not JSON.
    pub body: Value,
}

impl Client {
    pub fn new(url: &str) -> Self {
        // Errs when another client was first, which has done the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().expect("the client needs nothing");
        Self { http, url: url.to_owned() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends it; the error is that of the connection.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, text, body })
    }

    async fn sent(&self, request: RequestBuilder, what: &str) -> Answer {
        self.send(request).await.unwrap_or_else(|error| panic!("{what} at {}: {error:?}", self.url))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.sent(self.request(Method::GET, path), &format!("GET {path}")).await
    }

    /// The error is that of the connection.
    pub async fn try_get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.sent(self.request(Method::POST, path).json(body), &format!("POST {path}")).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.sent(self.request(Method::PUT, path).json(body), &format!("PUT {path}")).await
    }

    /// All items of a list, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{joint}limit=250{cursor}")).await.expect(200);
            items.extend(page["items"].as_array().expect("a list has items").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

impl Answer {
    /// The body, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("our headers are text"))
    }

    /// The code of a problem, if the status is this one and the answer is a problem with all its parts.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.header("content-type").starts_with("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], status, "{}", self.text);
        assert!(self.body["title"].is_string() && self.body["type"].is_string(), "{}", self.text);
        self.body["code"].as_str().unwrap_or_else(|| panic!("a problem has a code: {}", self.text))
    }
}
