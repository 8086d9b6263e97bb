//! The service's part in choreographed sagas: the outbox's relay, and the reactor over the service's operations.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::web;
use async_trait::async_trait;
use skald_kit::{
    Answer, IntakeOptions,
    bus::{Filter, GroupOptions, HttpGroup, RedisGroup, RedisOptions, Source, SourceError},
    events::{ApiKey, Client, ClientError},
    outbox::{Relay, RelayOptions},
    reactor::{LocalCall, Operations, Reacting, Reactor, ReactorOptions, Teller},
};
use thiserror::Error;
use uuid::Uuid;

use crate::{
    http::Shared,
    offer::{Asked, Offer},
};

/// Where the service takes part in choreographed sagas.
#[derive(Debug, Clone)]
pub struct SkaldOptions {
    /// Skald's own URL, e.g. `http://127.0.0.1:7070`, or those of several replicas, separated by commas.
    pub url: String,
    /// What shows Skald who asks; none while it needs none.
    pub api_key: Option<ApiKey>,
    /// The Redis to take events from; without it they come from Skald, by a consumer group over HTTP.
    pub bus: Option<String>,
    /// What this process has taken and not settled goes to another one of the service after so long.
    pub lease: Duration,
}

impl SkaldOptions {
    /// Events from Skald itself, with a lease of 10 s.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), api_key: None, bus: None, lease: Duration::from_secs(10) }
    }

    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let client = Client::new(&self.url)?;
        Ok(match &self.api_key {
            Some(key) => client.with_key(key.clone()),
            None => client,
        })
    }
}

/// Why a service cannot take part in choreographed sagas.
#[derive(Debug, Error)]
pub enum ChoreographyError {
    #[error(transparent)]
    Skald(#[from] ClientError),
    #[error("the bus: {0}")]
    Bus(#[from] SourceError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// At work; dropped, it stops at once.
#[derive(Debug)]
pub(crate) struct Choreography {
    reacting: Reacting,
    relay: Relay,
}

impl Choreography {
    /// Starts whether or not Skald and the bus can be reached yet: they are tried until they can.
    pub(crate) async fn start(
        options: &SkaldOptions,
        offer: Arc<Offer>,
        shared: Arc<Shared>,
    ) -> Result<Self, ChoreographyError> {
        let client = options.client()?;
        let source = source(options, &client, &format!("reactor-{}", shared.service), Reactor::filter())?;
        let (barrier, observer) = (shared.barrier.clone(), Arc::new(shared.metrics.clone()));
        let reactor = Reactor::new(ReactorOptions {
            service: shared.service.to_owned(),
            barrier: barrier.clone(),
            client: client.clone(),
            operations: Arc::new(InProcess { offer, shared }),
            observer: observer.clone(),
            intake: IntakeOptions::default(),
        })
        .await?;
        let relay =
            Relay::start(barrier.db().clone(), client, reactor.refusals(), observer, RelayOptions::default()).await?;
        Ok(Self { reacting: reactor.start(source), relay })
    }

    /// First what makes events, then what sends them.
    pub(crate) async fn stop(self) {
        self.reacting.stop().await;
        self.relay.stop().await;
    }
}

/// A member of a consumer group, wherever the events are to come from. Processes with the same group share them.
pub(crate) fn source(
    options: &SkaldOptions,
    client: &Client,
    group: &str,
    filter: Filter,
) -> Result<Arc<dyn Source>, SourceError> {
    let (consumer, lease) = (format!("{group}-{}", Uuid::new_v4()), options.lease);
    Ok(match &options.bus {
        None => {
            let options = GroupOptions { filter, lease, ..GroupOptions::new(group, consumer) };
            Arc::new(HttpGroup::new(client.clone(), options))
        }
        Some(url) => {
            let options = RedisOptions { filter, claim_after: lease, ..RedisOptions::new(url, group, consumer) };
            Arc::new(RedisGroup::new(options)?)
        }
    })
}

/// The service's operations without HTTP between.
struct InProcess {
    offer: Arc<Offer>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Operations for InProcess {
    async fn carry_out(&self, call: LocalCall, tell: Teller) -> Answer {
        let LocalCall { context, method, path, body } = call;
        let path = path.split('?').next().unwrap_or_default();
        let (operation, path_id) = match self.offer.find(method, path) {
            Ok(found) => found,
            Err(problem) => return problem.into(),
        };
        let started = Instant::now();
        let asked = Asked { call: context, path_id, body: web::Bytes::from(body), tell, connection: None };
        let answer = operation.run(self.shared.clone(), asked).await;
        self.shared.metrics.called(operation.name(), answer.status, started.elapsed());
        answer
    }
}
