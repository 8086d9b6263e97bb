//! What the two ways to start a saga have in common, for the specification.

use utoipa::{IntoParams, IntoResponses};

use super::super::{problem::problems, view::Saga};

/// The headers of a start.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes")]
pub struct StartHeaders {
    /// Names this start: the same key gives the same saga. Visible ASCII, bare or as a quoted string.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#,
        example = "order-4711"
    )]
    idempotency_key: Option<String>,
    /// `wait=N`: wait at most N seconds (at most 60) for the end. `respond-async`: do not wait.
    #[param(rename = "Prefer", nullable = false, example = "wait=5")]
    prefer: Option<String>,
    /// W3C trace context; the saga's calls become its children.
    #[param(
        rename = "traceparent",
        nullable = false,
        example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )]
    traceparent: Option<String>,
}

/// How a start is answered.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub enum Started {
    /// The saga has ended; `status` says how.
    #[response(status = 201, headers(
        ("Location" = String, description = "Where the saga is"),
        ("ETag" = String, description = "Its revision"),
        ("Preference-Applied" = String, description = "What of `Prefer` was followed"),
        ("Idempotent-Replayed" = String, description = "`true` when the key was used before"),
    ))]
    Ended(Saga),
    /// The saga goes on, or is parked.
    #[response(status = 202, headers(
        ("Location" = String, description = "Where to look for it"),
        ("ETag" = String, description = "Its revision"),
        ("Preference-Applied" = String, description = "What of `Prefer` was followed"),
        ("Idempotent-Replayed" = String, description = "`true` when the key was used before"),
    ))]
    GoesOn(Saga),
}

problems!(
    /// How a start is refused.
    pub StartProblems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    DefinitionNotFound,
    StreamNotFound,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidInput,
    NotChoreographable,
    KeyReused,
    Overloaded,
    DefinitionPaused,
    NoOwner,
    InDoubt,
    DatabaseUnavailable,
);
