//! Every error of the API: `application/problem+json` (RFC 9457), from one table of codes.
//!
//! A [`Problem`] says what the client did wrong and where, or that it may try again. What went wrong inside goes to the
//! log, once, with the correlation id that the answer carries too.

use std::{collections::BTreeMap, fmt};

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue, RETRY_AFTER},
    },
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{Content, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type},
};

/// Declares [`Code`]: name, text, status and title of every error, once.
macro_rules! codes {
    ($($code:ident = $text:literal, $status:literal, $title:literal;)+) => {
        /// What went wrong, for programs. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($code),+ }

        impl Code {
            #[cfg(test)]
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$code),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text),+ }
            }

            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$code => $status),+ }
            }

            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$code => $title),+ }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", 400, "The request cannot be understood";
    InvalidJson = "invalid_json", 400, "The body is not JSON that can be accepted";
    InvalidBody = "invalid_body", 400, "The body does not have the form of this call";
    InvalidHeader = "invalid_header", 400, "A header has a value that cannot be accepted";
    InvalidParameter = "invalid_parameter", 400, "A parameter is unknown or has a value that cannot be accepted";
    InvalidCursor = "invalid_cursor", 400, "The cursor is not one that this list gave out";
    MissingToken = "missing_token", 401, "A callback needs the token of its call";
    Unauthenticated = "unauthenticated", 401, "The request needs a key or a token";
    InvalidCredentials = "invalid_credentials", 401, "The key or token is not good";
    WrongToken = "wrong_token", 403, "The token is not that of this call";
    NotAReplica = "not_a_replica", 403, "Only another replica of this database may ask that";
    Forbidden = "forbidden", 403, "The key or token is not for that";
    NotFound = "not_found", 404, "There is nothing at this path";
    SagaNotFound = "saga_not_found", 404, "There is no such saga";
    StreamNotFound = "stream_not_found", 404, "There is no such stream";
    GroupNotFound = "group_not_found", 404, "There is no such consumer group";
    ParkedEventNotFound = "parked_event_not_found", 404, "No such event is parked";
    WebhookNotFound = "webhook_not_found", 404, "There is no such webhook";
    StepNotFound = "step_not_found", 404, "The saga has no such step";
    DefinitionNotFound = "definition_not_found", 404, "There is no such definition";
    ParticipantNotFound = "participant_not_found", 404, "There is no such participant";
    SubjectNotFound = "subject_not_found", 404, "No personal data of this subject was ever held";
    MethodNotAllowed = "method_not_allowed", 405, "The path does not have this method";
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    SagaEnded = "saga_ended", 409, "The saga has ended";
    NotPossible = "not_possible", 409, "That cannot be done with the saga as it is";
    NotUnderWay = "not_under_way", 409, "The operation is not under way";
    StepNotEnabled = "step_not_enabled", 409, "The stream's order leaves no room for that report";
    SubjectInUse = "subject_in_use", 409, "An unfinished saga needs the subject's data";
    TooManyWebhooks = "too_many_webhooks", 409, "There are as many webhooks as there can be";
    VersionConflict = "version_conflict", 409, "The stream is at another version";
    DefinitionConflict = "definition_conflict", 409, "This version is registered with other content";
    SagaRemoved = "saga_removed", 410, "The saga ended long ago and was moved to the archive";
    RevisionMismatch = "revision_mismatch", 412, "The saga is at another revision";
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body is of a type that cannot be read";
    InvalidInput = "invalid_input", 422, "The input does not satisfy the definition's schema";
    NotChoreographable = "not_choreographable", 422, "Sagas of this definition cannot be choreographed";
    InvalidDefinition = "invalid_definition", 422, "The definition is not valid";
    KeyReused = "idempotency_key_reused", 422, "The idempotency key was used for another request";
    EventIdReused = "event_id_reused", 422, "An event id was used for another event of the stream";
    OutputRequired = "output_required", 422, "The step needs an output";
    RateLimited = "rate_limited", 429, "The key or token is used too often";
    Internal = "internal_error", 500, "Something is wrong inside Skald";
    Overloaded = "overloaded", 503, "Too much is going on; nothing was accepted";
    DefinitionPaused = "definition_paused", 503, "No saga of this definition is started at the moment";
    NoOwner = "no_owner", 503, "No replica can take this at the moment";
    InDoubt = "in_doubt", 503, "It is not known whether the change was made";
    DatabaseUnavailable = "database_unavailable", 503, "The database does not answer";
}

/// Declares which problems an endpoint can answer, for the specification. Those that any endpoint can answer are added.
macro_rules! problems {
    ($(#[$doc:meta])* $visibility:vis $name:ident $(, $code:ident)* $(,)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        $visibility struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses()
            -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::response::Response>> {
                $crate::api::problem::responses(&[$($crate::api::problem::Code::$code),*])
            }
        }
    };
}
pub(crate) use problems;

/// What any endpoint can answer.
const ANYWHERE: [Code; 3] = [Code::BadRequest, Code::InvalidHeader, Code::Internal];

/// One response per status, which tells what codes it comes with.
#[must_use]
pub fn responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().chain(&ANYWHERE) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    let described = |(status, codes): (u16, Vec<Code>)| {
        let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(lines.join(" ")).content(CONTENT_TYPE, content);
        let response = match status {
            429 | 503 => response.header("Retry-After", retry_after_header()),
            _ => response,
        };
        (status.to_string(), RefOr::T(response.build()))
    };
    by_status.into_iter().map(described).collect()
}

fn retry_after_header() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
    HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds after which to try again")).build()
}

/// A place in the request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// A JSON pointer into the body (`/items/0/quantity`), a place in a definition (`steps[2].call.path`), or the name
    /// of a parameter or header. Empty for the body as a whole.
    #[schema(example = "/items/0/quantity")]
    pub place: String,
    #[schema(example = "must be at least 1")]
    pub reason: String,
}

impl FieldProblem {
    pub fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }

    /// The same within something that lies at `place`.
    #[must_use]
    pub fn under(mut self, place: &str) -> Self {
        self.place.insert_str(0, place);
        self
    }
}

/// An error as it is answered.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: Box<str>,
    errors: Vec<FieldProblem>,
    headers: Vec<(HeaderName, HeaderValue)>,
    correlation_id: Option<Box<str>>,
    actual_version: Option<u64>,
    /// For the log only.
    cause: Option<Box<str>>,
}

/// The body of an error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Names the kind of problem: `urn:skald:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:skald:problem:invalid_input")]
    kind: String,
    #[schema(example = "The input does not satisfy the definition's schema")]
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What went wrong this time, for people.
    #[schema(example = "/items/0/quantity: must be at least 1")]
    detail: &'a str,
    /// What went wrong, for programs.
    #[schema(example = "invalid_input")]
    code: &'a str,
    /// Every place that is wrong, when the request has some.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldProblem],
    /// Finds this request in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    correlation_id: Option<&'a str>,
    /// Of the stream, when it is at another version than was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    actual_version: Option<u64>,
}

pub const CONTENT_TYPE: &str = "application/problem+json";

pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into().into_boxed_str(),
            errors: Vec::new(),
            headers: Vec::new(),
            correlation_id: None,
            actual_version: None,
            cause: None,
        }
    }

    /// A problem with places; the detail is the first of them.
    pub fn at(code: Code, errors: Vec<FieldProblem>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| match &*first.place {
            "" => first.reason.clone(),
            place => format!("{place}: {}", first.reason),
        });
        Self { errors, ..Self::new(code, detail) }
    }

    /// A problem with one place.
    pub fn in_field(code: Code, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::at(code, vec![FieldProblem::new(place, reason)])
    }

    /// The same places within something that lies at `place`.
    #[must_use]
    pub fn under(self, place: &str) -> Self {
        Self::at(self.code, self.errors.into_iter().map(|error| error.under(place)).collect())
    }

    /// Our fault. The client learns only that; `cause` goes to the log.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(Code::Internal, "The request could not be completed. The log has the details.")
            .caused_by(cause.to_string())
    }

    /// Worth trying again after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What went wrong inside, for the log only.
    #[must_use]
    pub fn caused_by(mut self, cause: String) -> Self {
        self.cause = Some(cause.into_boxed_str());
        self
    }

    #[must_use]
    pub fn with_correlation_id(mut self, id: &str) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Of the stream, which is at another version than was expected.
    #[must_use]
    pub const fn with_actual_version(mut self, version: u64) -> Self {
        self.actual_version = Some(version);
        self
    }

    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    #[must_use]
    pub fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            kind: format!("urn:skald:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.as_str(),
            errors: &self.errors,
            correlation_id: self.correlation_id.as_deref(),
            actual_version: self.actual_version,
        }
    }

    /// The answer.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(CONTENT_TYPE);
        if let Some(id) = &self.correlation_id {
            response.insert_header((CORRELATION_ID, &**id));
        }
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.body(serde_json::to_string(&self.body()).expect("a problem has string keys and no floats"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).expect("the table has valid statuses")
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_has_an_error_status() {
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(StatusCode::from_u16(code.status()).is_ok());
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code:?}");
        }
    }

    #[test]
    fn a_cause_never_reaches_the_client() {
        let response = Problem::internal("password=hunter2").response();
        assert_eq!(response.status(), 500);
        let body = actix_web::body::to_bytes(response.into_body());
        let body = futures_util::FutureExt::now_or_never(body).unwrap().unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains(r#""code":"internal_error""#), "{text}");
    }
}
