//! Requests to the servers that are compared.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{config::Secret, http_client};

/// Longer than the server waits for a saga's end.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(75);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A server, by the option that says where it is.
#[derive(Clone, Debug)]
pub struct Remote {
    pub name: &'static str,
    /// The option of the command line.
    flag: &'static str,
    base: Url,
    client: Client,
    /// Who asks; not shown in `Debug`.
    authorization: Option<HeaderValue>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// The code and the detail of an error, as all of them answer it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub code: String,
    pub detail: String,
}

/// Connections that all requests share.
pub fn client() -> anyhow::Result<Client> {
    let builder = http_client::builder().no_proxy().retry(reqwest::retry::never()).tcp_nodelay(true);
    Ok(builder.connect_timeout(CONNECT_TIME_MAX).timeout(ANSWER_TIME_MAX).build()?)
}

impl Remote {
    pub fn new(client: &Client, name: &'static str, flag: &'static str, base: &Url) -> Self {
        Self { name, flag, base: base.clone(), client: client.clone(), authorization: None }
    }

    /// The same server, shown this key with every request.
    ///
    /// # Errors
    ///
    /// When no header can carry it.
    pub fn showing(self, key: Option<&Secret>) -> anyhow::Result<Self> {
        let header = |key: &Secret| -> anyhow::Result<HeaderValue> {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
                .context("the key has characters that no header can carry")?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self { authorization: key.map(header).transpose()?, ..self })
    }

    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url()));
        self.authorization.iter().fold(request, |request, shown| request.header(AUTHORIZATION, shown))
    }

    /// # Errors
    ///
    /// When there is no answer; says which server that is, where it was looked for and how to say otherwise.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let whole = async { Answer::read(request.send().await?).await };
        whole.await.with_context(|| {
            format!("{} does not answer at {}: start it, or say where it is with {}", self.name, self.url(), self.flag)
        })
    }

    /// The body of an answer that is a success.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is none.
    pub async fn expect(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = self.send(request).await?;
        if !answer.status.is_success() {
            let problem = answer.problem();
            anyhow::bail!("{} answers {method} {path} with {}: {}", self.name, answer.status, problem.detail);
        }
        Ok(answer)
    }

    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.expect(Method::GET, "/metrics", None).await?.text)
    }
}

impl Answer {
    pub async fn read(response: Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self { status, headers, text: response.text().await? })
    }

    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).context("the answer is not JSON")
    }

    /// Empty when it is not one.
    pub fn problem(&self) -> Problem {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}
