//! Events as Skald's event store gives them out, and the client that reads and appends them.

mod append;
mod client;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
pub use skald_core::personal::{ERASED, HIDDEN};

pub(crate) use self::{append::APPENDS_MAX, client::segment};
pub use self::{
    append::{Appended, Expected},
    client::{ApiKey, Client, ClientError, EventPage, EventQuery, Refusal},
};

/// One event, a CloudEvent 1.0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub id: String,
    /// The domain's name of what happened.
    #[serde(rename = "type")]
    pub type_name: String,
    /// A saga's id, or the name of another stream.
    pub stream: String,
    /// From 1, without gaps within the stream.
    pub version: u64,
    /// The part of the log in which it lies, and its place there.
    pub shard: u16,
    pub position: i64,
    /// The engine's name of what happened.
    pub kind: String,
    pub category: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub definition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    #[serde(rename = "correlationid", skip_serializing_if = "Option::is_none", default)]
    pub correlation_id: Option<String>,
    #[serde(rename = "causationid", skip_serializing_if = "Option::is_none", default)]
    pub causation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    #[serde(rename = "schemaversion", default = "first_schema")]
    pub schema_version: u16,
    /// When it was committed.
    pub time: DateTime<Utc>,
    pub data: Box<RawValue>,
}

const fn first_schema() -> u16 {
    1
}

impl Event {
    /// Reads the data, e.g. `event.data::<OrderPlaced>()?`.
    ///
    /// # Errors
    /// The data is not of this form.
    pub fn data<'e, T: Deserialize<'e>>(&'e self) -> serde_json::Result<T> {
        serde_json::from_str(self.data.get())
    }
}

/// Whether a text of an event holds personal data: the log has tokens in its place, [`Client::saga`] shows what they are.
#[must_use]
pub fn is_sealed(text: &str) -> bool {
    !skald_core::personal::tokens_in(text).is_empty()
}
