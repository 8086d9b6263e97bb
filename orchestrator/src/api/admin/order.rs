//! Who acts and why: part of every action of an operator.

use std::fmt;

use actix_web::HttpRequest;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::{
    body::given,
    endpoint, headers,
    problem::{Code, Problem},
    request::RequestContext,
};
use crate::audit::Act;

const REASON_CHARS_MAX: usize = 500;

/// Why an operator acts: 1 to 500 characters in one line.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Reason(String);

/// Who acts: 1 to 128 characters in one line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Actor(String);

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        line(text, REASON_CHARS_MAX).map(Self)
    }
}

impl TryFrom<String> for Actor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        line(text, headers::ACTOR_CHARS_MAX).map(Self)
    }
}

fn line(text: String, chars_max: usize) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= chars_max && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(format!("must be 1 to {chars_max} characters in one line")) }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who acts and why.
#[derive(Clone, Debug)]
pub struct Order {
    pub actor: String,
    /// What showed who it is, if anything did.
    pub credential: Option<String>,
    pub reason: String,
    /// The client's idempotency key, or one made here: under it the command is recorded, and known again.
    pub request_id: String,
}

/// An action that needs nothing but who and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500, example = "customer called")]
    pub reason: Reason,
    /// Who acts; the header `X-Actor` does as well.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 128, example = "jane")]
    pub actor: Option<Actor>,
}

/// The headers of an action on one saga.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes")]
pub struct OrderHeaders {
    /// Who acts: whoever shows a key or a token; without one required here or as `actor` in the body.
    #[param(rename = "X-Actor", nullable = false, pattern = "^[!-~]([ -~]{0,126}[!-~])?$", example = "jane")]
    actor: Option<String>,
    /// Only if the saga is still at this revision: its `ETag`.
    #[param(rename = "If-Match", nullable = false, pattern = r#"^(\*|"[0-9]{1,18}")$"#, example = "\"12\"")]
    if_match: Option<String>,
}

/// The header under which an action on sagas can be repeated.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes")]
pub struct RepeatHeader {
    /// Names this action: a repetition under the same key has no further effect, and is answered with the saga as it is
    /// by then. A saga knows the keys of its last 16 actions.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#,
        example = "ticket-815"
    )]
    idempotency_key: Option<String>,
}

/// The header of an action on several sagas, or on none.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes")]
pub struct ActorHeader {
    /// Who acts: whoever shows a key or a token; without one required here or as `actor` in the body.
    #[param(rename = "X-Actor", nullable = false, pattern = "^[!-~]([ -~]{0,126}[!-~])?$", example = "jane")]
    actor: Option<String>,
}

impl Order {
    /// Who acts is who shows a key or a token; else it is said in the header or in the body.
    ///
    /// # Errors
    ///
    /// When it is known from nowhere, or said differently in two places.
    pub fn given(req: &HttpRequest, reason: &Reason, actor: Option<Actor>) -> Result<Self, Problem> {
        let in_header = headers::actor(req.headers())?;
        let caller = endpoint::caller(req);
        let actor = match (actor, in_header) {
            (Some(Actor(in_body)), Some(in_header)) if in_body != in_header => {
                return Err(Problem::in_field(Code::InvalidBody, "/actor", "is not who the header X-Actor says"));
            }
            (Some(Actor(said)), _) | (None, Some(said)) => match &caller {
                Some(caller) if caller.name != said => {
                    let reason = format!("is not who the key or token says, {}: leave it out", caller.name);
                    return Err(Problem::in_field(Code::Forbidden, "/actor", reason));
                }
                _ => said,
            },
            (None, None) if let Some(caller) = &caller => caller.name.clone(),
            (None, None) => {
                let reason = "is required, here or as the header X-Actor, and missing";
                return Err(Problem::in_field(Code::InvalidBody, "/actor", reason));
            }
        };
        let key = headers::idempotency_key(req.headers())?;
        let request_id = key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let credential = caller.map(|caller| caller.credential.clone());
        Ok(Self { actor, credential, reason: reason.to_string(), request_id })
    }

    /// What the audit log is to say of it. The target is a path, but never with a person's name in it.
    #[must_use]
    pub fn act(&self, req: &HttpRequest, action: &str, target: String) -> Act {
        Act {
            actor: Some(self.actor.clone()),
            credential: self.credential.clone(),
            action: action.to_owned(),
            target,
            reason: Some(self.reason.clone()),
            request_id: self.request_id.clone(),
            correlation_id: RequestContext::correlation_id(req),
        }
    }
}
