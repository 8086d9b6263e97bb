//! One request to another replica, sealed; and what was heard of it.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Client, StatusCode, header, redirect, retry};
use serde::de::DeserializeOwned;
use skald_core::shard::writer::Refusal;

use super::{
    owners::Peer,
    seal::{HEADER, Seals, Target},
};
use crate::{clock::Clock, http_client, storage::Owner};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Below the time for which the receiver keeps idle connections.
const IDLE_MAX: Duration = Duration::from_secs(30);
const IDLE_PER_REPLICA_MAX: usize = 64;
/// An answer is a saga's row, or a sentence.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The way to other replicas; connections are kept.
#[derive(Debug)]
pub struct Wire {
    http: Client,
    seals: Seals,
    own_id: String,
}

/// A request as it is sent.
#[derive(Debug)]
pub struct Parcel {
    pub path: String,
    pub body: Vec<u8>,
    pub correlation_id: Option<String>,
    /// For how long to wait for the answer.
    pub time_max: Duration,
}

/// What came of a request.
#[derive(Debug)]
pub enum Heard<T> {
    Answer(Box<Result<T, Refusal>>),
    /// It was not carried out.
    Unreached,
    /// It may have been carried out.
    Unknown,
}

impl Wire {
    /// `secret` is the database's, `own` this replica. Other replicas are reached as it is: by TLS, or without.
    ///
    /// # Errors
    ///
    /// When the machine's certificates cannot be read.
    pub fn new(secret: &[u8], own: &Owner) -> Result<Self, reqwest::Error> {
        let mut builder = http_client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .tcp_nodelay(true)
            .tcp_keepalive(IDLE_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_REPLICA_MAX)
            .connect_timeout(CONNECT_TIME_MAX);
        if !own.url.as_ref().is_some_and(|url| url.starts_with("https:")) {
            // Spares reading the machine's certificates, and needs none.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { http: builder.build()?, seals: Seals::new(secret), own_id: own.id.clone() })
    }

    #[must_use]
    pub const fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Sends it, once.
    pub async fn send<T: DeserializeOwned>(&self, peer: &Peer, parcel: Parcel, clock: &dyn Clock) -> Heard<T> {
        let Parcel { path, body, correlation_id, time_max } = parcel;
        let seal = self.seals.seal(Target { method: "POST", path: &path }, &self.own_id, clock.now(), &body);
        let mut request = self.http.post(format!("{}{path}", peer.url)).timeout(time_max);
        request = request.header(HEADER, seal).header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(id) = correlation_id {
            request = request.header("x-correlation-id", id);
        }
        match request.send().await {
            Ok(response) => read(peer, response).await,
            Err(error) => {
                tracing::debug!(replica = peer.id, url = peer.url, %error, "a forwarded request was not answered");
                if error.is_connect() || error.is_builder() { Heard::Unreached } else { Heard::Unknown }
            }
        }
    }
}

async fn read<T: DeserializeOwned>(peer: &Peer, mut response: reqwest::Response) -> Heard<T> {
    let status = response.status();
    if status != StatusCode::OK {
        tracing::warn!(replica = peer.id, url = peer.url, %status, "another replica refused a forwarded request");
        return if status.is_server_error() { Heard::Unknown } else { Heard::Unreached };
    }
    let mut text = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if text.len() + chunk.len() <= ANSWER_BYTES_MAX => text.extend_from_slice(&chunk),
            Ok(Some(_)) | Err(_) => return Heard::Unknown,
            Ok(None) => break,
        }
    }
    serde_json::from_slice(&text).map_or_else(
        |error| {
            tracing::warn!(replica = peer.id, url = peer.url, %error, "another replica's answer cannot be read");
            Heard::Unknown
        },
        |answer| Heard::Answer(Box::new(answer)),
    )
}
