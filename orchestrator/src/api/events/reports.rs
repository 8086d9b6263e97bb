//! What participants of a choreographed saga append to its stream: how their operations ended.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use skald_core::{
    decide::{IllegalInput, Report, Reported, ReportedOutcome},
    ids::SagaId,
    shard::{
        appends::{Appended, ExpectedVersion},
        writer::Refusal,
    },
    time::Millis,
};

use super::{
    super::{
        body::{form, given},
        params::TimeParam,
        problem::{Code, FieldProblem, Problem},
        refusal,
        words::StepOperation,
    },
    append::AppendEventsRequest,
    query,
};
use crate::app::App;

const CODE_CHARS_MAX: usize = 128;
const REASON_CHARS_MAX: usize = 2000;

/// The data of a report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportData {
    step: String,
    operation: StepOperation,
    outcome: Word,
    #[serde(default, deserialize_with = "given")]
    output: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    code: Option<String>,
    #[serde(default, deserialize_with = "given")]
    reason: Option<String>,
    #[serde(default, deserialize_with = "given")]
    started_at: Option<TimeParam>,
    #[serde(default, deserialize_with = "given")]
    duration_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Succeeded,
    OutputInvalid,
    Rejected,
    Cancelled,
    Skipped,
    Compensated,
}

impl ReportData {
    fn outcome(&mut self) -> Result<ReportedOutcome, FieldProblem> {
        let output = self.output.take();
        let text = |name: &str, given: Option<String>, chars_max: usize| match given {
            Some(text) if text.chars().count() <= chars_max && !text.contains('\0') => Ok(text),
            Some(_) => Err(FieldProblem::new(name, format!("must be at most {chars_max} characters"))),
            None => Err(FieldProblem::new(name, "is required with this outcome, and missing")),
        };
        let (code, reason) = (self.code.take(), self.reason.take());
        let superfluous = |name: &str, there: bool| match there {
            true => Err(FieldProblem::new(name, "does not belong to this outcome")),
            false => Ok(()),
        };
        if self.outcome != Word::Succeeded {
            superfluous("/output", output.is_some())?;
        }
        if self.outcome != Word::Rejected {
            superfluous("/code", code.is_some())?;
        }
        if !matches!(self.outcome, Word::Rejected | Word::OutputInvalid) {
            superfluous("/reason", reason.is_some())?;
        }
        Ok(match self.outcome {
            Word::Succeeded => ReportedOutcome::Succeeded { output: output.unwrap_or_default() },
            Word::OutputInvalid => {
                ReportedOutcome::OutputInvalid { reason: text("/reason", reason, REASON_CHARS_MAX)? }
            }
            Word::Rejected => ReportedOutcome::Rejected {
                code: text("/code", code, CODE_CHARS_MAX)?,
                reason: text("/reason", reason, REASON_CHARS_MAX)?,
            },
            Word::Cancelled => ReportedOutcome::Cancelled,
            Word::Skipped => ReportedOutcome::Skipped,
            Word::Compensated => ReportedOutcome::Compensated,
        })
    }
}

/// Appends reports to the stream of a choreographed saga.
///
/// # Errors
///
/// When one is not a report, or none that the saga's state allows.
pub(super) async fn append(app: &App, saga: SagaId, asked: AppendEventsRequest) -> Result<Appended, Problem> {
    let expected = match asked.expected() {
        ExpectedVersion::Any => None,
        ExpectedVersion::Exactly(version) => Some(version),
    };
    let mut reports = Vec::new();
    for (index, (event_id, causation_id, data)) in asked.into_events().into_iter().enumerate() {
        let place = |problem: FieldProblem| problem.under(&format!("/events/{index}/data"));
        let mut data: ReportData =
            form(Value::Object(data)).map_err(|problem| problem.under(&format!("/events/{index}/data")))?;
        let outcome = data.outcome().map_err(|problem| Problem::at(Code::InvalidBody, vec![place(problem)]))?;
        reports.push(Report {
            event_id: Arc::from(event_id),
            causation_id: query::shared(causation_id),
            step: data.step,
            operation: data.operation.into(),
            outcome,
            started_at: data.started_at.map(|time| time.0),
            duration: data.duration_ms.map(Millis),
        });
    }
    let appended = |version, replayed| Appended { stream: Arc::from(saga.to_string()), version, replayed };
    match app.router().report(saga, Reported { reports, expected }).await {
        Ok(row) => Ok(appended(row.version, false)),
        Err(Refusal::Known { version }) => Ok(appended(version, true)),
        Err(Refusal::Illegal(illegal @ IllegalInput::NotUnderWay { .. })) => {
            Err(Problem::new(Code::StepNotEnabled, refusal::sentence(&illegal.to_string())))
        }
        Err(refused) => Err(refusal::of_saga(app, saga, refused).await),
    }
}
