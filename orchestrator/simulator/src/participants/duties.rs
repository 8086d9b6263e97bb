//! What a participant of choreographed sagas writes in one local transaction: the key's row, the effect, the answer. The
//! report of it is the caller's to keep in the same transaction.
//!
//! | key of the action | act, skip, reject | cancel | undo |
//! | --- | --- | --- | --- |
//! | unseen | effect, or no effect for good | tombstone | tombstone, told as undone |
//! | done | nothing: it was told | nothing | undone |
//! | refused | nothing | nothing | told as undone |
//! | tombstone | nothing: cancelled | nothing | told as undone |
//! | undone | nothing | nothing | nothing: it was told |

use serde_json::json;
use skald_core::{
    choreography::Duty,
    classify::Body,
    decide::{Report, ReportedOutcome, Target},
    ids::{Operation, SagaId},
};

use super::{Key, Mark, Participants, Progress, Treatment, step_index};
use crate::{catalog::SERVICES, faults::Fault, mutants::Mutant};

/// What came of carrying out a duty.
#[derive(Debug, PartialEq)]
pub enum Carried {
    /// It was carried out, and this is to be told.
    Told(ReportedOutcome),
    /// There was nothing to do: the key has its answer.
    Known,
    /// Nothing was written; it is to be tried again.
    Failed,
}

impl Participants {
    /// Carries out a duty as one transaction. `interpret` says what the handler's answer means; what is no outcome is
    /// not kept.
    pub fn carry_out(
        &mut self,
        saga: SagaId,
        duty: &Duty,
        treatment: Treatment,
        interpret: impl FnOnce(u16, Body) -> Option<ReportedOutcome>,
    ) -> Carried {
        let key = key_of(saga, duty.step());
        match duty {
            Duty::Undo { target, .. } => return self.carry_out_undo(key, target),
            _ if self.progress(key) != Progress::Unseen => return Carried::Known,
            Duty::Act { target, .. } => _ = self.is_the_same(key, Operation::Action, target),
            Duty::Skip { .. } | Duty::Reject { .. } | Duty::Cancel { .. } => {}
        }
        let told = match duty {
            Duty::Act { .. } => return self.carry_out_action(key, treatment, interpret),
            Duty::Skip { .. } => ReportedOutcome::Skipped,
            Duty::Reject { code, reason, .. } => {
                ReportedOutcome::Rejected { code: code.clone(), reason: reason.clone() }
            }
            Duty::Cancel { .. } | Duty::Undo { .. } => {
                self.write(key, Mark::Tombstone);
                if self.mutant != Some(Mutant::CancelTombstone) {
                    self.set(key, Progress::Tombstone);
                }
                return self.tell(key, Operation::Action, ReportedOutcome::Cancelled);
            }
        };
        self.set(key, Progress::Refused);
        self.tell(key, Operation::Action, told)
    }

    fn carry_out_action(
        &mut self,
        key: Key,
        treatment: Treatment,
        interpret: impl FnOnce(u16, Body) -> Option<ReportedOutcome>,
    ) -> Carried {
        let sold_out = treatment.has_effect && self.stocks[key.step % SERVICES.len()].available == 0;
        let refusal = |code: &str| (422, Body::Json(json!({ "code": code, "detail": "no" })));
        let (status, body) = match treatment.fault {
            Some(Fault::HandlerFails) => (503, Body::Empty),
            Some(Fault::Refused) => refusal("no"),
            _ if sold_out => refusal("out_of_stock"),
            Some(Fault::Garbled) => (200, Body::Unusable("not JSON".to_owned())),
            _ => (200, Body::Json(json!({ "number": key.step }))),
        };
        let Some(outcome) = interpret(status, body) else { return Carried::Failed };
        if status == 200 {
            self.take_effect(key, treatment.has_effect);
        } else {
            self.set(key, Progress::Refused);
        }
        self.tell(key, Operation::Action, outcome)
    }

    fn carry_out_undo(&mut self, key: Key, target: &Target) -> Carried {
        self.is_the_same(key, Operation::Compensation, target);
        if self.told(key, Operation::Compensation).is_some() {
            return Carried::Known;
        }
        self.take_back(key);
        self.tell(key, Operation::Compensation, ReportedOutcome::Compensated)
    }

    /// Keeps what is told, for when it is asked for again.
    fn tell(&mut self, key: Key, operation: Operation, outcome: ReportedOutcome) -> Carried {
        self.records.entry(key).or_default().told[operation as usize] = Some((outcome.clone(), None));
        Carried::Told(outcome)
    }

    fn told(&self, key: Key, operation: Operation) -> Option<&(ReportedOutcome, Option<u64>)> {
        self.records.get(&key)?.told[operation as usize].as_ref()
    }

    /// Whether it was told how the operation of this duty ended.
    #[must_use]
    pub fn is_told(&self, saga: SagaId, duty: &Duty) -> bool {
        self.told(key_of(saga, duty.step()), duty.operation()).is_some()
    }

    /// The stream took this report as of this version.
    pub fn was_taken(&mut self, saga: SagaId, report: &Report, version: u64) {
        let record = self.records.entry(key_of(saga, &report.step)).or_default();
        if let Some((_, taken)) = &mut record.told[report.operation as usize] {
            *taken = Some(version);
        }
    }

    /// What was told of a duty that stands although the stream, which goes on to `version`, took the report before: it
    /// is to be told once more, and then not again before the stream has gone on.
    pub fn told_and_asked_again(&mut self, saga: SagaId, duty: &Duty, version: u64) -> Option<ReportedOutcome> {
        let record = self.records.get_mut(&key_of(saga, duty.step()))?;
        let (outcome, taken) = record.told[duty.operation() as usize].as_mut()?;
        taken.take_if(|taken| version > *taken).map(|_| outcome.clone())
    }

    /// The stream has closed the step without this effect: it is undone, and nobody is told.
    pub fn take_back_quietly(&mut self, saga: SagaId, step: &str) {
        if self.mutant != Some(Mutant::RefusedUndo) {
            self.take_back(key_of(saga, step));
        }
    }
}

fn key_of(saga: SagaId, step: &str) -> Key {
    Key { saga, step: step_index(step), attempt: 0 }
}
