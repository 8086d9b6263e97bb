//! An event of any stream as clients see it: CloudEvents 1.0, JSON format, structured mode. What CloudEvents has no
//! attribute for are extension attributes, whose names are lower case letters and digits.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use skald_core::shard::batch::APPENDED;
use utoipa::ToSchema;

use super::super::{
    problem::Problem,
    view,
    words::{Moment, SagaMode},
};
use crate::storage::log::LogEvent;

/// One event. It never changes.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudEvent {
    #[schema(example = "1.0")]
    pub specversion: &'static str,
    /// Unique within the stream: what whoever appended it gave it, else the stream and the version.
    #[schema(value_type = String, example = "01890a5d-ac96-774b-bcce-b302099a8057:3")]
    pub id: Arc<str>,
    #[schema(example = "skald")]
    pub source: &'static str,
    /// What happened, in the domain's words.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "StockReserved")]
    pub type_name: Arc<str>,
    /// The stream.
    #[schema(value_type = String, example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub subject: Arc<str>,
    pub time: Moment,
    #[schema(example = "application/json")]
    pub datacontenttype: &'static str,
    /// A saga's id, or a category and a name.
    #[schema(value_type = String, example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub stream: Arc<str>,
    /// From 1, without gaps within the stream.
    #[schema(example = 3)]
    pub version: u64,
    /// The part of the log in which it lies.
    #[schema(example = 0)]
    pub shard: u16,
    /// Its place there, without gaps within the shard.
    #[schema(example = 4711)]
    pub position: i64,
    /// The engine's word for what happened; `Appended` for what others append.
    #[schema(value_type = String, example = "StepSucceeded")]
    pub kind: Arc<str>,
    /// `saga`, or what the stream's name begins with.
    #[schema(example = "saga")]
    pub category: String,
    /// Of a saga.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false, example = "checkout")]
    pub definition: Option<Arc<str>>,
    /// Of a saga.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mode: Option<SagaMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    pub correlationid: Option<Arc<str>>,
    /// The event that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    pub causationid: Option<Arc<str>>,
    /// Who caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    pub actor: Option<Arc<str>>,
    /// The form of the data, counted by whoever writes it.
    #[schema(example = 1)]
    pub schemaversion: u16,
    /// Personal data in it is sealed: read the saga to see it.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

impl TryFrom<LogEvent> for CloudEvent {
    type Error = Problem;

    fn try_from(event: LogEvent) -> Result<Self, Problem> {
        let stream: Arc<str> = event.name.clone().unwrap_or_else(|| Arc::from(event.stream.to_string()));
        let category = event.category().to_owned();
        let data = if &*event.kind == APPENDED {
            event.data
        } else {
            let fields = view::shown(event.data.get()).map_err(Problem::internal)?;
            to_raw_value(&fields).map_err(Problem::internal)?
        };
        Ok(Self {
            specversion: "1.0",
            id: event.event_id.unwrap_or_else(|| Arc::from(format!("{stream}:{}", event.version))),
            source: "skald",
            type_name: event.type_name,
            subject: Arc::clone(&stream),
            time: event.occurred_at.into(),
            datacontenttype: "application/json",
            stream,
            version: event.version,
            shard: event.shard.0,
            position: event.position,
            kind: event.kind,
            category,
            definition: event.definition,
            mode: event.mode.map(SagaMode::from),
            correlationid: event.correlation_id,
            causationid: event.causation_id,
            actor: event.actor,
            schemaversion: event.schema_version,
            data,
        })
    }
}
