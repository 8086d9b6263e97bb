//! What a webhook is told: which saga, and what became of it. Not its input or output, which may be personal: whoever wants
//! those asks for the saga.

use serde::Serialize;
use serde_json::Value;
use skald_core::event::Mode;

use crate::{
    api::Moment,
    storage::{log::LogEvent, webhooks::SagaNews},
};

#[derive(Debug, Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    type_name: &'static str,
    timestamp: Moment,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    saga_id: String,
    definition: Option<&'a str>,
    mode: Option<&'static str>,
    status: &'static str,
    correlation_id: Option<&'a str>,
    /// Of the saga when this became so.
    revision: u64,
    /// Of what is parked: step, operation, code, reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<Value>,
}

/// Names the message, the same at every attempt.
#[must_use]
pub fn id(event: &LogEvent) -> String {
    format!("{}-{}", event.stream, event.version)
}

#[must_use]
pub const fn type_name(news: SagaNews) -> &'static str {
    match news {
        SagaNews::Completed => "saga.completed",
        SagaNews::Compensated => "saga.compensated",
        SagaNews::Abandoned => "saga.abandoned",
        SagaNews::Parked => "saga.parked",
    }
}

/// What the event says; None if that is no news.
#[must_use]
pub fn news(event: &LogEvent) -> Option<SagaNews> {
    SagaNews::ALL.into_iter().find(|news| news.kind() == &*event.kind)
}

/// The message's body.
#[must_use]
pub fn body(event: &LogEvent, news: SagaNews) -> Vec<u8> {
    let type_name = type_name(news);
    let data = Data {
        saga_id: event.stream.to_string(),
        definition: event.definition.as_deref(),
        mode: event.mode.map(Mode::as_str),
        status: type_name.trim_start_matches("saga."),
        correlation_id: event.correlation_id.as_deref(),
        revision: event.version,
        parked: (news == SagaNews::Parked).then(|| parked(event.data.get())),
    };
    let message = Message { type_name, timestamp: event.occurred_at.into(), data };
    serde_json::to_vec(&message).expect("it has string keys")
}

fn parked(data: &str) -> Value {
    let mut data: Value = serde_json::from_str(data).unwrap_or_default();
    let names = ["step", "operation", "code", "reason"];
    names.into_iter().map(|name| (name.to_owned(), data[name].take())).collect::<serde_json::Map<_, _>>().into()
}
