//! The facts of a saga. A stream of them, versions 1..n, is the saga; everything else is folded from it.
//!
//! An event has a *kind* (the variant's name: the engine's word and all that a fold reads) and a *type* (the domain name
//! that the definition's `emits` gives it, else the kind). It is stored as `kind`, `type`, `data` (the variant's fields as
//! JSON) and the version of the form that those have; [`upcast`] reads former ones.

pub mod upcast;

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{Epoch, Operation, SagaId, Shard},
    json::Document,
    time::{Millis, Timestamp},
};

/// How a saga is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Orchestrated,
    Choreographed,
}

impl Mode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrated => "orchestrated",
            Self::Choreographed => "choreographed",
        }
    }
}

/// An event as committed.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub stream: SagaId,
    /// 1 for the first event of the stream.
    pub version: u64,
    pub shard: Shard,
    /// Gapless within the shard, in commit order.
    pub position: i64,
    pub epoch: Epoch,
    pub occurred_at: Timestamp,
    /// The domain name; equal to the kind when the definition names none.
    pub type_name: Arc<str>,
    /// Who caused it, when it was an operator.
    pub actor: Option<String>,
    pub event: Event,
}

/// An event as whoever folds a stream needs it, read back or still in the commit that wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Fact<'s> {
    pub stream: SagaId,
    pub version: u64,
    pub epoch: Epoch,
    pub occurred_at: Timestamp,
    pub event: &'s Event,
}

impl<'s> From<&'s Recorded> for Fact<'s> {
    fn from(recorded: &'s Recorded) -> Self {
        let Recorded { stream, version, epoch, occurred_at, ref event, .. } = *recorded;
        Self { stream, version, epoch, occurred_at, event }
    }
}

/// Declares [`Event`] with one struct per kind, so that a kind's name is written once.
macro_rules! events {
    ($($(#[$doc:meta])* $kind:ident { $($(#[$attr:meta])* $field:ident : $type:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $kind { $($(#[$attr])* pub $field: $type),* })*

        /// One durable fact; see the struct of each kind.
        #[derive(Clone, Debug)]
        pub enum Event { $($kind($kind)),* }

        impl Event {
            /// The engine's name of this fact.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => stringify!($kind)),* }
            }

            /// Every kind.
            pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

            /// The fields as JSON text, for storage, in the form [`Event::schema_version`].
            #[must_use]
            pub fn data(&self) -> String {
                let mut text = Vec::new();
                self.write_data(&mut text);
                String::from_utf8(text).expect("JSON is text")
            }

            /// Writes [`Event::data`] behind what is there.
            pub fn write_data(&self, text: &mut Vec<u8>) {
                match self { $(Self::$kind(fields) => serde_json::to_writer(text, fields)),* }
                    .expect("events have string keys and finite numbers only");
            }

            /// Reads a stored event, in whichever form it was written.
            ///
            /// # Errors
            ///
            /// When the kind or the form is not known to this version of the engine, or the data is not of that form.
            /// The stream must then not be folded.
            pub fn parse(kind: &str, schema_version: u16, data: &str) -> Result<Self, UnreadableEvent> {
                let unreadable = |error: serde_json::Error| UnreadableEvent::Data { kind: kind.to_owned(), error: error.to_string() };
                match kind {
                    $(stringify!($kind) => {
                        let data = upcast::upcast(kind, schema_version, data)?;
                        serde_json::from_str(&data).map(Self::$kind).map_err(unreadable)
                    })*
                    _ => Err(UnreadableEvent::Kind(kind.to_owned())),
                }
            }
        }

        $(impl From<$kind> for Event {
            fn from(fields: $kind) -> Self { Self::$kind(fields) }
        })*
    };
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEvent {
    #[error("event kind `{0}` is not known to this version of Skald")]
    Kind(String),
    #[error("form {version} of event kind `{kind}` is not known to this version of Skald")]
    Version { kind: String, version: u16 },
    #[error("the data of a `{kind}` event is not readable: {error}")]
    Data { kind: String, error: String },
}

events! {
    /// A saga exists. Always version 1.
    SagaStarted {
        definition: String,
        definition_version: u32,
        definition_hash: String,
        mode: Mode,
        input: Document,
        correlation_id: String,
        /// Whose personal data the saga holds, as a keyed hash; only where the definition says that it holds some. Since
        /// version 2.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        subject: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        traceparent: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline_at: Option<Timestamp>,
    }

    /// The process that drove the saga died while something of it was in progress, and another one carries on.
    SagaTakenOver {
        /// How often that has happened since the saga last moved on.
        takeovers: u32,
    }

    /// An operation of a step may be called from now on: the intent. It covers every attempt.
    StepStarted {
        step: Arc<str>,
        operation: Operation,
        /// Steps behind it that are announced with it: each may be called as soon as what it needs has succeeded, before
        /// that is durable. Since version 2.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        ahead: Vec<Arc<str>>,
    }

    /// An attempt ended without an outcome, and another will follow.
    AttemptFailed {
        step: Arc<str>,
        operation: Operation,
        attempt: u32,
        #[serde(flatten)]
        call: CallNote,
        /// False when the participant was still at it (409): the attempt does not count.
        counted: bool,
        /// Whether the call was misconfigured (404, 401, ..), of which few are worth retrying.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        misconfigured: bool,
        /// Whether anything may have reached the participant.
        reached: bool,
        next_at: Timestamp,
    }

    /// The participant accepted the operation and is still at it (202): a callback or a poll will tell.
    StepAccepted {
        step: Arc<str>,
        operation: Operation,
        attempt: u32,
        #[serde(flatten)]
        call: CallNote,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        location: Option<String>,
        /// None when only a callback can tell.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        poll_at: Option<Timestamp>,
    }

    /// The action may have taken effect and no further attempt will be made; the status call is asked.
    StepDoubted { step: Arc<str>, attempt: u32, #[serde(flatten)] call: CallNote, code: String, reason: String }

    /// The action took effect.
    StepSucceeded {
        step: Arc<str>,
        attempt: u32,
        #[serde(flatten)]
        call: CallNote,
        output: Arc<Value>,
    }

    /// The action took effect, but its answer cannot be used: it will be undone as succeeded.
    StepOutputInvalid { step: Arc<str>, attempt: u32, #[serde(flatten)] call: CallNote, reason: String }

    /// The action had no effect.
    StepRejected { step: Arc<str>, attempt: u32, #[serde(flatten)] call: CallNote, code: String, reason: String }

    /// The action may have taken effect, and nothing more can be learned.
    StepUnknown { step: Arc<str>, attempt: u32, #[serde(flatten)] call: CallNote, code: String, reason: String }

    /// The step was left out: its condition was false, or an operator said so.
    StepSkipped {
        step: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        output: Option<Arc<Value>>,
        by_operator: bool,
    }

    /// The action was undone.
    StepCompensated { step: Arc<str>, attempt: u32, #[serde(flatten)] call: CallNote }

    /// An operator closed a compensation that was not carried out.
    CompensationSkipped { step: Arc<str> }

    /// An operation cannot go on by itself: the saga is parked until an operator acts.
    StepParked {
        step: Arc<str>,
        operation: Operation,
        attempt: u32,
        #[serde(flatten)]
        call: CallNote,
        code: String,
        reason: String,
        /// Whether anything may have reached the participant.
        reached: bool,
    }

    /// An operator gave an operation that waited or was parked a fresh policy; the next attempt may follow at once.
    StepRetried { step: Arc<str>, operation: Operation }

    /// The deadline of a choreographed saga passed: in the stream's order, its first failure.
    SagaTimedOut {}

    /// Forward progress ended for good; what took effect will be undone.
    SagaFailed {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        step: Option<String>,
        code: String,
        reason: String,
    }

    /// Every step ended well. Final.
    SagaCompleted {
        output: Arc<Value>,
        /// Why the output is null, when the definition's output expression failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        output_error: Option<String>,
    }

    /// Every effect was undone. Final.
    SagaCompensated {}

    /// Closed by an operator, or with a compensation skipped by one. Final.
    SagaAbandoned {}

    /// An operator did something; the events after it in the same commit say what it changed.
    OperatorActed {
        action: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        step: Option<String>,
        reason: String,
        /// Names the command: one that comes again under the same name has no further effect.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        request_id: Option<String>,
        /// Of the HTTP request that brought it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        correlation_id: Option<String>,
    }
}

/// What is known of the request that led to an event; empty when none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallNote {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub called_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl CallNote {
    #[must_use]
    pub fn new(called_at: Timestamp, duration: Millis, http_status: Option<u16>, error: Option<String>) -> Self {
        Self { called_at: Some(called_at), duration_ms: Some(duration.0), http_status, error }
    }
}

impl Event {
    /// The form in which [`Event::data`] writes this kind.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        upcast::newest(self.kind())
    }

    /// The steps whose calls this event announces: none is made before such an event is durable.
    pub fn intents(&self) -> impl Iterator<Item = &str> {
        let (step, ahead) = match self {
            Self::StepStarted(event) => (Some(&event.step), &*event.ahead),
            Self::StepRetried(event) => (Some(&event.step), &[][..]),
            _ => (None, &[][..]),
        };
        step.into_iter().chain(ahead).map(|step| &**step)
    }

    /// The domain name of this event: what the definition's `emits` says, else its kind.
    #[must_use]
    pub fn type_name<'a>(&self, definition: &'a crate::definition::Definition) -> &'a str
    where
        'static: 'a,
    {
        use crate::definition::StepEmits;
        let saga = &definition.emits;
        let of_step = |step: &str, pick: fn(&StepEmits) -> &Option<String>| {
            definition.step(step).and_then(|(_, step)| pick(&step.emits).as_deref())
        };
        let named = match self {
            Self::SagaStarted(_) => saga.started.as_deref(),
            Self::SagaFailed(_) => saga.failed.as_deref(),
            Self::SagaCompleted(_) => saga.completed.as_deref(),
            Self::SagaCompensated(_) => saga.compensated.as_deref(),
            Self::SagaAbandoned(_) => saga.abandoned.as_deref(),
            Self::StepParked(_) => saga.parked.as_deref(),
            Self::StepStarted(started) => of_step(
                &started.step,
                match started.operation {
                    Operation::Action => |emits| &emits.started,
                    Operation::Compensation => |emits| &emits.compensating,
                },
            ),
            Self::StepSucceeded(event) => of_step(&event.step, |emits| &emits.succeeded),
            Self::StepRejected(event) => of_step(&event.step, |emits| &emits.rejected),
            Self::StepUnknown(event) => of_step(&event.step, |emits| &emits.unknown),
            Self::StepSkipped(event) => of_step(&event.step, |emits| &emits.skipped),
            Self::StepCompensated(event) => of_step(&event.step, |emits| &emits.compensated),
            Self::SagaTakenOver(_)
            | Self::AttemptFailed(_)
            | Self::StepAccepted(_)
            | Self::StepDoubted(_)
            | Self::StepOutputInvalid(_)
            | Self::CompensationSkipped(_)
            | Self::StepRetried(_)
            | Self::SagaTimedOut(_)
            | Self::OperatorActed(_) => None,
        };
        named.unwrap_or_else(|| self.kind())
    }
}
