//! Idempotency keys: saga, step, and whether it is done or undone.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use thiserror::Error;
use uuid::Uuid;

const STEP_BYTES_MAX: usize = 128;

/// The id of a saga, a UUID. Version 7 tells when the saga was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(Uuid);

impl SagaId {
    /// When the saga was created; `None` when the id is not a UUIDv7.
    #[must_use]
    pub fn created_at(self) -> Option<DateTime<Utc>> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // `Uuid` also reads braces, URNs and missing hyphens; one spelling per saga is enough.
        if text.len() != 36 {
            return Err(KeyError::Saga);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| KeyError::Saga)
    }
}

/// What a call does: the action of a step, or the compensation that undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Action,
    Compensation,
}

impl Operation {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "action" => Ok(Self::Action),
            "compensation" => Ok(Self::Compensation),
            _ => Err(KeyError::Operation),
        }
    }
}

/// An idempotency key, `<saga>:<step>:<action|compensation>`: the same on every attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub saga_id: SagaId,
    pub step: String,
    pub operation: Operation,
}

impl Key {
    /// The key of the action of the same step: the row that serialises action and compensation.
    #[must_use]
    pub fn of_action(&self) -> Self {
        Self { operation: Operation::Action, ..self.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.saga_id, self.step, self.operation)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.split(':');
        let (Some(saga), Some(step), Some(operation), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError::Shape);
        };
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if step.is_empty() || step.len() > STEP_BYTES_MAX || !step.bytes().all(visible) {
            return Err(KeyError::Step);
        }
        Ok(Self { saga_id: saga.parse()?, step: step.to_owned(), operation: operation.parse()? })
    }
}

/// Why a text is not a [`Key`].
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    #[error("a key is `<saga id>:<step>:<action|compensation>`")]
    Shape,
    #[error("the saga id is not a UUID in its hyphenated form")]
    Saga,
    #[error("the step is empty, longer than {STEP_BYTES_MAX} bytes, or not visible ASCII")]
    Step,
    #[error("the operation is neither `action` nor `compensation`")]
    Operation,
}
