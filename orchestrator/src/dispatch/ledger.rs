//! Reading a participant's ledger: what it says it did, page by page.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    http::{Client, Failure, client, whole},
    participant::Unusable,
};
use crate::config;

/// Entries that one request asks for.
const ENTRIES_PER_PAGE: u32 = 1_000;
/// A page of such entries should stay far below.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// A participant's ledger, by the contract of `GET /ledger`.
#[derive(Debug)]
pub struct Ledger {
    client: Client<Empty<Bytes>>,
    base: Url,
    timeout: Duration,
    secret: Option<(HeaderName, HeaderValue)>,
}

/// One effect, as the participant recorded it.
#[derive(Debug, Deserialize)]
pub struct LedgerEntry {
    pub id: i64,
    /// RFC 3339.
    pub at: String,
    pub saga_id: String,
    pub step: String,
    /// `action`, `compensation`, or what the participant undid by itself.
    pub operation: String,
    pub effect: String,
    #[serde(default)]
    pub detail: Option<Box<RawValue>>,
}

#[derive(Debug)]
pub enum LedgerPage {
    /// The participant has none.
    Missing,
    /// By ascending id; empty after the last one.
    Entries(Vec<LedgerEntry>),
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("no answer to GET {path}: {reason}")]
    Unreachable { path: String, reason: String },
    #[error("GET {path} was answered {status}")]
    Status { path: String, status: StatusCode },
    #[error("the answer to GET {path} has more than {PAGE_BYTES_MAX} bytes")]
    TooLarge { path: String },
    #[error("the answer to GET {path} is not a page of a ledger: {source}")]
    Form { path: String, source: serde_json::Error },
}

#[derive(Deserialize)]
struct Page {
    items: Vec<LedgerEntry>,
}

impl Ledger {
    /// # Errors
    ///
    /// When a setting cannot be used.
    pub fn new(name: &str, config: &config::Participant) -> Result<Self, Unusable> {
        let setting = |key: &str, problem| Unusable::Setting { name: name.to_owned(), key: key.to_owned(), problem };
        let urls = config.endpoints().map_err(|(key, problem)| setting(key, problem))?;
        let base = urls.first().cloned().ok_or_else(|| setting("base_url", "is missing".to_owned()))?;
        let secret = config.secret_header.as_ref().map(config::SecretHeader::read).transpose();
        let secret = secret.map_err(|(key, problem)| setting(&format!("secret_header.{key}"), problem))?;
        let client = client(config, &urls).map_err(|source| Unusable::Client { name: name.to_owned(), source })?;
        Ok(Self { client, base, timeout: Duration::from_millis(config.timeout.0), secret })
    }

    /// The entries with a higher id than `after`.
    ///
    /// # Errors
    ///
    /// When the participant does not answer, refuses, or answers something else.
    pub async fn page(&self, after: i64) -> Result<LedgerPage, LedgerError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/ledger", self.base.path().trim_end_matches('/')));
        url.set_query(Some(&format!("after={after}&limit={ENTRIES_PER_PAGE}")));
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let unreachable = |reason| LedgerError::Unreachable { path: path.clone(), reason };
        let request = self.request(&url).map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            match response.status() {
                StatusCode::OK => Ok((StatusCode::OK, whole(response, PAGE_BYTES_MAX).await?)),
                status => Ok((status, None)),
            }
        };
        let (status, body) = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer.map_err(|failure: Failure| unreachable(failure.describe()))?,
            Err(_) => return Err(unreachable(format!("no answer within {} ms", self.timeout.as_millis()))),
        };
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NOT_IMPLEMENTED => return Ok(LedgerPage::Missing),
            status => return Err(LedgerError::Status { path, status }),
        }
        let Some(body) = body else { return Err(LedgerError::TooLarge { path }) };
        let page: Page = serde_json::from_slice(&body).map_err(|source| LedgerError::Form { path, source })?;
        Ok(LedgerPage::Entries(page.items))
    }

    fn request(&self, url: &Url) -> http::Result<Request<Empty<Bytes>>> {
        let mut request = Request::get(url.as_str());
        if let Some((name, value)) = &self.secret {
            request = request.header(name, value);
        }
        request.body(Empty::new())
    }
}
