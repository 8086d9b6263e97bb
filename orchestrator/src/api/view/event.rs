//! Events as clients see them: flat, with times as text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use skald_core::{event::Recorded, time::Timestamp};
use utoipa::ToSchema;

use super::super::{problem::Problem, words::Moment};

/// One fact in a saga's history. It never changes.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaEvent {
    /// Unique: the stream and the version.
    #[schema(example = "01890a5d-ac96-774b-bcce-b302099a8057:3")]
    pub id: String,
    /// The saga.
    #[schema(format = "uuid", example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub stream: String,
    /// From 1, without gaps within the stream.
    #[schema(example = 3)]
    pub version: u64,
    /// The part of the log in which it lies.
    #[schema(example = 0)]
    pub shard: u16,
    /// Its place there, without gaps within the shard.
    #[schema(example = 4711)]
    pub position: i64,
    /// The domain's name: what the definition's `emits` says, else the kind.
    #[serde(rename = "type")]
    #[schema(example = "StockReserved")]
    pub type_name: String,
    /// The engine's name.
    #[schema(example = "StepSucceeded")]
    pub kind: &'static str,
    pub occurred_at: Moment,
    /// Who caused it, when it was an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "reserve_stock")]
    pub step: Option<String>,
    /// `action` or `compensation`, for events of one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "action")]
    pub operation: Option<String>,
    /// What belongs to events of this kind. Personal data in it is sealed: read the saga to see it.
    #[schema(value_type = Object)]
    pub data: BTreeMap<String, Box<RawValue>>,
}

/// A page of a saga's events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaEventPage {
    pub items: Vec<SagaEvent>,
    /// Give it as `after` to go on; absent when there were no more events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "50")]
    pub next_cursor: Option<String>,
}

/// Fields of events that hold a time.
const TIMES: [&str; 4] = ["called_at", "deadline_at", "next_at", "poll_at"];

impl TryFrom<Recorded> for SagaEvent {
    type Error = Problem;

    fn try_from(recorded: Recorded) -> Result<Self, Problem> {
        let data = shown(&recorded.event.data()).map_err(Problem::internal)?;
        let word = |name: &str| data.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok());
        Ok(Self {
            id: format!("{}:{}", recorded.stream, recorded.version),
            stream: recorded.stream.to_string(),
            version: recorded.version,
            shard: recorded.shard.0,
            position: recorded.position,
            type_name: recorded.type_name.to_string(),
            kind: recorded.event.kind(),
            occurred_at: recorded.occurred_at.into(),
            actor: recorded.actor,
            step: word("step"),
            operation: word("operation"),
            data,
        })
    }
}

/// The fields of a saga's event, with times as text.
///
/// # Errors
///
/// When the data is not a JSON object.
pub fn shown(data: &str) -> serde_json::Result<BTreeMap<String, Box<RawValue>>> {
    // Not through a tree: inputs and outputs keep their text.
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(data)?;
    for name in TIMES {
        if let Some(value) = fields.get_mut(name)
            && let Ok(micros) = value.get().parse()
        {
            *value = to_raw_value(&Moment(Timestamp::from_micros(micros)))?;
        }
    }
    Ok(fields)
}
