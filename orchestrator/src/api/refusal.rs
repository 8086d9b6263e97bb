//! What the engine's refusals mean to a client.

use skald_core::{decide::IllegalInput, ids::SagaId, shard::writer::Refusal};

use super::problem::{Code, Problem};
use crate::app::App;

/// Of a start. Nothing was started, except perhaps when it is in doubt.
#[must_use]
pub fn of_start(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::InDoubt => Problem::new(
            Code::InDoubt,
            "Nobody could say whether the saga was started. With an idempotency key, repeat the request; \
             without one, look for it: GET /sagas?correlation_id=..",
        )
        .retry_after(1),
        Refusal::NotOwner => {
            Problem::new(Code::NoOwner, "No replica could take the start in time. Nothing was started.").retry_after(1)
        }
        refusal => of_input(refusal),
    }
}

/// Of an operator's command or a callback for a saga. A replica that does not own the saga's shard cannot know whether
/// the saga exists: the store does.
pub async fn of_saga(app: &App, saga: SagaId, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NoSuchSaga => app.no_saga(saga).await,
        Refusal::NotOwner => match app.row(saga).await {
            Ok(_) => of_input(refusal),
            Err(problem) => problem,
        },
        refusal => of_input(refusal),
    }
}

/// Of an operator's command, a callback or a start. Nothing changed, except perhaps when it is in doubt.
#[must_use]
pub fn of_input(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Overloaded => {
            Problem::new(Code::Overloaded, "Too much is going on. Nothing was accepted.").retry_after(1)
        }
        Refusal::NotOwner => Problem::new(
            Code::NoOwner,
            "The replica that had the saga is gone, and no other took over in time. Nothing was changed.",
        )
        .retry_after(1),
        Refusal::NoSuchSaga => Problem::new(Code::SagaNotFound, "There is no such saga."),
        Refusal::Illegal(illegal) => of_illegal(&illegal),
        Refusal::InDoubt => {
            let detail = "Nobody could say whether the change was made. Look at the saga before repeating it; with the same \
                 idempotency key, an operator's command can be repeated as it is.";
            Problem::new(Code::InDoubt, detail).retry_after(1)
        }
        // A key belongs to a start, and starts look the key up.
        Refusal::KeyExists => Problem::internal("a start key was refused outside a keyed start"),
        // Nothing but an append or a report is refused like this, and a report that is known succeeds.
        refusal @ (Refusal::WrongVersion { .. }
        | Refusal::EventIdTaken { .. }
        | Refusal::Known { .. }
        | Refusal::Unwritable(_)) => Problem::internal(refusal),
        Refusal::Stuck(reason) => Problem::internal(reason),
    }
}

/// Of an append to a stream that is no saga. Nothing was appended, except perhaps when it is in doubt.
#[must_use]
pub fn of_append(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::WrongVersion { expected, actual } => {
            let detail = format!("The stream is at version {actual}, not {expected}.");
            Problem::new(Code::VersionConflict, detail).with_actual_version(actual)
        }
        Refusal::EventIdTaken { event_id } => Problem::in_field(
            Code::EventIdReused,
            "/events",
            format!("event id {event_id} is in the stream already, but not as in this request"),
        ),
        Refusal::InDoubt => {
            let detail = "Nobody could say whether the events were appended. Repeat the request: the same event ids have no \
                 further effect.";
            Problem::new(Code::InDoubt, detail).retry_after(1)
        }
        Refusal::NotOwner => {
            Problem::new(Code::NoOwner, "No replica could take the events in time. Nothing was appended.")
                .retry_after(1)
        }
        refusal => of_input(refusal),
    }
}

fn of_illegal(illegal: &IllegalInput) -> Problem {
    let code = match illegal {
        IllegalInput::Ended(_) => Code::SagaEnded,
        IllegalInput::NoSuchStep(_) => Code::StepNotFound,
        IllegalInput::RevisionMismatch { .. } => Code::RevisionMismatch,
        IllegalInput::NotUnderWay { .. } => Code::NotUnderWay,
        IllegalInput::RequestIdTaken(action) => {
            let reason = format!("was used for another command on this saga ({action}), or with another reason");
            return Problem::in_field(Code::KeyReused, "Idempotency-Key", reason);
        }
        IllegalInput::BadReport(_) => Code::InvalidBody,
        IllegalInput::NotNow(_) => Code::NotPossible,
        IllegalInput::MissingOutput(_) => {
            return Problem::in_field(Code::OutputRequired, "/output", illegal.to_string());
        }
        IllegalInput::Broken(broken) => return Problem::internal(broken),
    };
    Problem::new(code, sentence(&illegal.to_string()))
}

/// The engine's message as a sentence.
pub(super) fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
