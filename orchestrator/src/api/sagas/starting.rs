//! What both ways to start a saga share: from a checked request to the answer.
//!
//! Nothing is accepted before everything was checked. A start without a key is tried once; one with a key can be
//! repeated whatever happened, see [`super::keyed`].

use std::{sync::Arc, time::Duration};

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::header, web};
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use sha2::{Digest, Sha256};
use skald_core::{
    definition::Definition,
    event::Mode,
    ids::SagaId,
    json::Document,
    shard::writer::{Refusal, StartRequest, Subject},
};
use tokio::time::Instant;

use super::{
    super::{
        body::Received,
        headers::{self, Prefer},
        problem::{Code, FieldProblem, Problem},
        refusal,
        request::RequestContext,
        view::Saga,
    },
    filled_in, keyed, settled,
};
use crate::{
    app::{App, store_problem},
    engine::{Started, is_settled},
    events::stream_name::StreamName,
    personal::{CannotSeal, SealedInput},
    storage::PauseKind,
};

/// A start that was asked for.
#[derive(Debug)]
pub struct Ask {
    pub definition: String,
    pub version: Option<u32>,
    pub mode: Mode,
    pub input: Document,
    /// The stream whose state fills in what the input lacks.
    pub from: Option<StreamName>,
    pub key: Option<String>,
    pub prefer: Prefer,
}

/// The body of a start. While there is no room for one, it is not even read for what it says, so that those who are refused
/// take next to nothing from those who are not. A start with a key may have been carried out before, and is looked at.
#[derive(Debug)]
pub struct StartBody(pub Document);

impl FromRequest for StartBody {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let received = Received::from_request(req, payload);
        let app = req.app_data::<web::Data<App>>().cloned();
        let is_keyed = headers::has_idempotency_key(req.headers());
        Box::pin(async move {
            let received = received.await?;
            if !is_keyed && app.is_some_and(|app| app.engine().is_full()) {
                return Err(refusal::of_start(Refusal::Overloaded).into());
            }
            Ok(Self(received.json()?))
        })
    }
}

/// How a start was answered for.
#[derive(Debug)]
pub enum Begun {
    /// By this request, here or at another replica, with this input.
    Now(Box<Started>, Document),
    /// By an earlier request with the same key, or by this one when nobody could say so at first.
    Before(SagaId),
}

/// Starts a saga, or finds the one that the key started, and answers.
///
/// # Errors
///
/// When the request is wrong, or nothing could be started.
pub async fn start(app: &App, context: &RequestContext, ask: Ask) -> Result<HttpResponse, Problem> {
    let asked_at = Instant::now();
    let begun = match &ask.key {
        Some(key) => keyed::begin(app, context, &ask, key).await?,
        None => begin(app, context, &ask).await?,
    };
    match begun {
        Begun::Now(begun, input) => {
            // Whoever carried it out has waited, unless that one stopped or was lost sight of.
            if let Some(rest) = wait(app, &ask).and_then(|wait| wait.checked_sub(asked_at.elapsed()))
                && !is_settled(begun.row.status)
            {
                settled::wait(app, begun.row.id, rest).await;
            }
            Ok(started(app, *begun, input, &ask).await)
        }
        Begun::Before(saga) => replayed(app, saga, &ask).await,
    }
}

/// The preferences and the key of a start.
///
/// # Errors
///
/// When the key cannot be accepted.
pub fn asked_in_headers(req: &HttpRequest) -> Result<(Option<String>, Prefer), Problem> {
    Ok((headers::idempotency_key(req.headers())?, headers::prefer(req.headers())))
}

async fn begin(app: &App, context: &RequestContext, ask: &Ask) -> Result<Begun, Problem> {
    let mut sealed_before = None;
    loop {
        let request = request(app, context, ask).await?;
        let (input, subject) = (request.input.clone(), request.subject.clone());
        match app.router().start(request, wait(app, ask)).await {
            Ok(started) => return Ok(Begun::Now(Box::new(started), input)),
            // Once more, and under another key: an erasure came between.
            Err(Refusal::Unwritable(_)) if subject != sealed_before && is_outdated(app, subject.as_ref()).await? => {
                sealed_before = subject;
            }
            Err(refusal) => return Err(refusal::of_start(refusal)),
        }
    }
}

/// A checked request to the engine.
///
/// # Errors
///
/// When there is no such definition, it is paused, or the input does not fit it.
pub async fn request(app: &App, context: &RequestContext, ask: &Ask) -> Result<StartRequest, Problem> {
    let definition = app.definition(&ask.definition, ask.version).await?;
    check_mode(&definition, ask.mode)?;
    let input = match &ask.from {
        None => ask.input.clone(),
        Some(stream) => filled_in::from_stream(app, &definition, stream, &ask.input).await?,
    };
    check_input(&definition, input.value())?;
    if app.pauses().is_paused(PauseKind::Definition, &definition.name) {
        let detail = format!("Definition {} is paused by an operator.", definition.name);
        return Err(Problem::new(Code::DefinitionPaused, detail).retry_after(30));
    }
    let (input, subject) = match seal_input(app, &definition, &input).await? {
        Some(SealedInput { input, subject }) => (input, Some(subject)),
        None => (input, None),
    };
    let key = ask.key.clone().map(|key| match &subject {
        Some(_) => (key, app.sealing().fingerprint(&fingerprint(ask))),
        None => (key, fingerprint(ask)),
    });
    Ok(StartRequest {
        definition,
        mode: ask.mode,
        input,
        key,
        correlation_id: context.correlation_id.to_string(),
        traceparent: context.traceparent.clone(),
        subject,
        entropy: rand::random(),
    })
}

async fn seal_input(app: &App, definition: &Arc<Definition>, input: &Document) -> Result<Option<SealedInput>, Problem> {
    if definition.personal.is_none() {
        return Ok(None);
    }
    let (sealing, definition, input) = (Arc::clone(app.sealing()), Arc::clone(definition), input.clone());
    let sealed = app.detached(async move { sealing.seal_input(&definition, input.value()).await }).await?;
    sealed.map_err(|error| match error {
        CannotSeal::Subject(_) | CannotSeal::Token => Problem::in_field(Code::InvalidInput, "", error.to_string()),
        CannotSeal::Store(error) => store_problem(&error),
    })
}

/// Whether what was sealed for this subject must be sealed anew, because its key was destroyed meanwhile.
///
/// # Errors
///
/// When the store cannot be asked.
pub async fn is_outdated(app: &App, subject: Option<&Subject>) -> Result<bool, Problem> {
    let Some(subject) = subject.cloned() else { return Ok(false) };
    let sealing = Arc::clone(app.sealing());
    app.read(|_| async move { sealing.is_outdated(&subject).await }).await
}

fn check_mode(definition: &Definition, mode: Mode) -> Result<(), Problem> {
    let reasons = match mode {
        Mode::Orchestrated => return Ok(()),
        Mode::Choreographed => definition.not_choreographable(),
    };
    if reasons.is_empty() {
        return Ok(());
    }
    let errors = reasons.into_iter().map(|problem| FieldProblem::new(problem.place, problem.reason)).collect();
    Err(Problem::at(Code::NotChoreographable, errors))
}

fn check_input(definition: &Definition, input: &Value) -> Result<(), Problem> {
    let violations = definition.input.violations(input);
    if violations.is_empty() {
        return Ok(());
    }
    let errors = violations.into_iter().map(|(place, reason)| FieldProblem::new(place, reason)).collect();
    Err(Problem::at(Code::InvalidInput, errors))
}

/// How long to wait for the end; not at all while the server stops. A choreographed saga is only waited for when that was
/// asked for.
#[must_use]
pub fn wait(app: &App, ask: &Ask) -> Option<Duration> {
    let wait = match ask.prefer {
        Prefer { wait: Some(wait), .. } => wait,
        Prefer { respond_async: true, .. } => Duration::ZERO,
        Prefer { .. } => match ask.mode {
            Mode::Orchestrated => app.wait(),
            Mode::Choreographed => Duration::ZERO,
        },
    };
    (!wait.is_zero() && !*app.closing().borrow()).then_some(wait)
}

/// What a key stands for: the input's meaning, the mode and the version as they were asked for.
#[must_use]
pub fn fingerprint(ask: &Ask) -> [u8; 32] {
    let version = ask.version.map_or_else(String::new, |version| version.to_string());
    let mut digest = Sha256::new();
    digest.update(ask.mode.as_str());
    digest.update([0]);
    digest.update(version);
    digest.update([0]);
    digest.update(canonical(ask.input.value()));
    if let Some(stream) = &ask.from {
        // Its name and not its state: a repeated start is the same one though the stream went on.
        digest.update([0]);
        digest.update(stream.to_string());
    }
    digest.finalize().into()
}

/// The value's JSON with sorted keys and no blanks. Its depth was checked.
fn canonical(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(",");
    match value {
        Value::Array(items) => format!("[{}]", joined(items.iter().map(canonical).collect())),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            let field = |(key, value): (&String, &Value)| format!("{}:{}", Value::from(key.as_str()), canonical(value));
            format!("{{{}}}", joined(fields.into_iter().map(field).collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// The answer to a start that was carried out. It is durable, so this does not fail: a saga that cannot be read now is
/// told of by what is known here.
async fn started(app: &App, started: Started, input: Document, ask: &Ask) -> HttpResponse {
    let Started { row, history } = started;
    let saga = match history {
        Some(history) => app.saga_of(row.id, &history).await,
        None => app.saga(row.id).await,
    };
    match saga {
        Ok(saga) => answer(saga, ask, Replayed::No),
        Err(problem) => {
            tracing::warn!(saga_id = %row.id, cause = problem.cause(), "a started saga could not be read");
            answer(Saga::without_steps(row, input.text().to_owned()), ask, Replayed::No)
        }
    }
}

/// The answer to a start whose key was used before: as the first one would be answered now.
async fn replayed(app: &App, saga: SagaId, ask: &Ask) -> Result<HttpResponse, Problem> {
    if let Some(wait) = wait(app, ask) {
        settled::wait(app, saga, wait).await;
    }
    Ok(answer(app.saga(saga).await?, ask, Replayed::Yes))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replayed {
    Yes,
    No,
}

fn answer(saga: Saga, ask: &Ask, replayed: Replayed) -> HttpResponse {
    let mut response = if saga.is_ended() { HttpResponse::Created() } else { HttpResponse::Accepted() };
    response.insert_header((header::LOCATION, format!("/sagas/{}", saga.id)));
    response.insert_header((header::ETAG, headers::etag(saga.revision)));
    if replayed == Replayed::Yes {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    match ask.prefer {
        Prefer { wait: Some(wait), .. } => {
            response.insert_header(("Preference-Applied", format!("wait={}", wait.as_secs())));
        }
        Prefer { respond_async: true, .. } => {
            response.insert_header(("Preference-Applied", "respond-async"));
        }
        Prefer { .. } => {}
    }
    response.json(saga)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(value: Value, version: Option<u32>) -> Ask {
        Ask {
            definition: "checkout".to_owned(),
            version,
            mode: Mode::Orchestrated,
            input: value.into(),
            from: None,
            key: None,
            prefer: Prefer::default(),
        }
    }

    #[test]
    fn a_fingerprint_is_of_what_was_meant_and_not_of_how_it_was_written() {
        let one = fingerprint(&ask(json!({"a": 1, "b": [1, {"d": 1, "c": 2}]}), None));
        assert_eq!(one, fingerprint(&ask(json!({"b": [1, {"c": 2, "d": 1}], "a": 1}), None)));
        for (value, version) in [
            (json!({"a": 1, "b": [{"d": 1, "c": 2}, 1]}), None),
            (json!({"a": 1, "b": [1, {"d": 1, "c": 2}]}), Some(1)),
            (json!({"a": "1", "b": [1, {"d": 1, "c": 2}]}), None),
        ] {
            assert_ne!(one, fingerprint(&ask(value, version)));
        }
        let from = Some("cart-1".parse().unwrap());
        let from_cart = Ask { from, ..ask(json!({"a": 1, "b": [1, {"d": 1, "c": 2}]}), None) };
        assert_ne!(one, fingerprint(&from_cart));
    }
}
