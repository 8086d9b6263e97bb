//! Requests that one replica must carry out, and what each is like when it is repeated.

use std::{future::Future, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use skald_core::{
    ids::SagaId,
    shard::{
        appends::{AppendRequest, Appended},
        writer::{Refusal, StartRequest},
    },
    state::SagaRow,
};
use tokio::time::Instant;

use super::{
    message::{APPENDS, Answer, InputMessage, STARTS, StartMessage, inputs_of},
    wire::Parcel,
};
use crate::{
    engine::{Engine, Started},
    metrics::ForwardedKind,
};

pub(super) trait Errand: Sync {
    /// What it brings back.
    type Done: DeserializeOwned + Send;

    fn kind(&self) -> ForwardedKind;

    /// Whether it may be repeated when nobody knows if it was carried out.
    fn bears_doubt(&self) -> bool;

    /// How long the answer may take, beyond what it takes to commit.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    /// Has this replica's engine carry it out.
    fn carry_out(&self, engine: &Engine) -> impl Future<Output = Result<Self::Done, Refusal>> + Send;

    /// What is sent; None for what cannot be repeated.
    fn parcel(&self, time_max: Duration) -> Option<Parcel>;
}

#[derive(Debug)]
pub(super) struct Start {
    pub request: StartRequest,
    pub wait_until: Option<Instant>,
}

/// Something that a saga is told.
#[derive(Debug)]
pub(super) struct SagaInput {
    pub saga: SagaId,
    pub input: InputMessage,
}

impl Errand for Start {
    type Done = Started;

    fn kind(&self) -> ForwardedKind {
        ForwardedKind::Start
    }

    /// It is looked for instead.
    fn bears_doubt(&self) -> bool {
        false
    }

    fn wait(&self) -> Duration {
        remaining(self.wait_until).unwrap_or_default()
    }

    async fn carry_out(&self, engine: &Engine) -> Result<Started, Refusal> {
        engine.start(self.request.clone(), remaining(self.wait_until)).await
    }

    fn parcel(&self, time_max: Duration) -> Option<Parcel> {
        let wait_ms = u64::try_from(self.wait().as_millis()).unwrap_or(u64::MAX);
        let body = json(&StartMessage::of(&self.request, wait_ms)?);
        let correlation_id = Some(self.request.correlation_id.clone());
        Some(Parcel { path: STARTS.to_owned(), body, correlation_id, time_max })
    }
}

impl Errand for SagaInput {
    type Done = SagaRow;

    fn kind(&self) -> ForwardedKind {
        match &self.input {
            InputMessage::Operator(_) => ForwardedKind::Operator,
            InputMessage::Callback(_) => ForwardedKind::Callback,
            InputMessage::Reported(_) => ForwardedKind::Report,
        }
    }

    fn bears_doubt(&self) -> bool {
        match &self.input {
            InputMessage::Operator(command) => command.request_id.is_some(),
            InputMessage::Callback(_) | InputMessage::Reported(_) => true,
        }
    }

    async fn carry_out(&self, engine: &Engine) -> Answer {
        match &self.input {
            InputMessage::Operator(command) => engine.operate(self.saga, command.clone()).await,
            InputMessage::Callback(callback) => engine.callback(self.saga, callback.clone()).await,
            InputMessage::Reported(reported) => engine.report(self.saga, reported.clone()).await,
        }
    }

    fn parcel(&self, time_max: Duration) -> Option<Parcel> {
        let correlation_id = match &self.input {
            InputMessage::Operator(command) if command.request_id.is_none() => return None,
            InputMessage::Operator(command) => command.correlation_id.clone(),
            InputMessage::Callback(_) | InputMessage::Reported(_) => None,
        };
        Some(Parcel { path: inputs_of(self.saga), body: json(&self.input), correlation_id, time_max })
    }
}

impl Errand for AppendRequest {
    type Done = Appended;

    fn kind(&self) -> ForwardedKind {
        ForwardedKind::Append
    }

    fn bears_doubt(&self) -> bool {
        true
    }

    async fn carry_out(&self, engine: &Engine) -> Result<Appended, Refusal> {
        engine.append(self.clone()).await
    }

    fn parcel(&self, time_max: Duration) -> Option<Parcel> {
        Some(Parcel { path: APPENDS.to_owned(), body: json(self), correlation_id: None, time_max })
    }
}

/// How much of a time to wait is left.
pub(super) fn remaining(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have string keys only")
}
