//! How an event changes a saga: the table of the parent, as one total function.

use alloc::sync::Arc;

use super::{
    BadStream, CarriedOut, Failure, Flight, Outcome, Phase, SagaState, Status, StepState, StepStatus, Wait, Work,
    step::in_operation,
};
use crate::{
    definition::Definition,
    event::{Event, Mode, OperatorActed},
    time::Timestamp,
};

/// Of an operator's commands so many are known by their request ids, the last ones.
const CARRIED_OUT_MAX: usize = 16;

impl SagaState {
    /// Applies the next event of the stream. Total for every event that `decide` yields; the same function live, in
    /// recovery and in replay.
    ///
    /// # Errors
    ///
    /// When the event names a step that the definition lacks.
    pub fn evolve(&mut self, definition: &Definition, event: &Event, at: Timestamp) -> Result<(), BadStream> {
        self.takeovers = match event {
            Event::SagaTakenOver(event) => event.takeovers,
            _ => 0,
        };
        match event {
            Event::SagaStarted(_) => return Err(BadStream::Gap { expected: self.version + 1, found: 1 }),
            Event::SagaTakenOver(_) => {}
            Event::StepStarted(event) => {
                let step = self.step_mut(&event.step)?;
                let reached = step.is_ahead && step.work.reached;
                step.work = Work { started_at: at, reached, ..Work::default() };
                step.status = in_operation(event.operation);
                step.is_ahead = false;
                for ahead in &event.ahead {
                    self.step_mut(ahead)?.is_ahead = true;
                }
            }
            Event::AttemptFailed(event) => {
                let step = self.step_mut(&event.step)?;
                step.flight = Flight::Landed;
                step.work.reached |= event.reached;
                step.work.attempts += u32::from(event.counted && step.status != StepStatus::Checking);
                step.work.tries += u32::from(event.counted);
                step.work.in_flight_answers += u32::from(!event.counted);
                step.work.misconfigured += u32::from(event.misconfigured);
                step.work.wait = Wait::Until(event.next_at);
            }
            Event::StepAccepted(event) => {
                let step = self.step_mut(&event.step)?;
                step.flight = Flight::Landed;
                step.work.reached = true;
                step.work.attempts += 1;
                step.work.wait = Wait::Accepted { since: at, location: event.location.clone(), poll_at: event.poll_at };
            }
            Event::StepDoubted(event) => {
                let step = self.step_mut(&event.step)?;
                step.flight = Flight::Landed;
                step.status = StepStatus::Checking;
                step.work.attempts = step.work.attempts.max(event.attempt);
                step.work.tries = 0;
                step.work.wait = Wait::Call;
            }
            Event::StepSucceeded(event) => {
                let output = Some(Arc::clone(&event.output));
                self.step_mut(&event.step)?.end(StepStatus::Succeeded, Some(Outcome::Succeeded), output, event.attempt);
            }
            Event::StepOutputInvalid(event) => {
                self.step_mut(&event.step)?.end(StepStatus::Succeeded, Some(Outcome::Succeeded), None, event.attempt);
            }
            Event::StepRejected(event) => {
                self.step_mut(&event.step)?.end(StepStatus::Rejected, Some(Outcome::Rejected), None, event.attempt);
            }
            Event::StepUnknown(event) => {
                self.step_mut(&event.step)?.end(StepStatus::Unknown, Some(Outcome::Unknown), None, event.attempt);
            }
            Event::StepSkipped(event) => {
                let step = self.step_mut(&event.step)?;
                let attempts = step.work.attempts;
                step.end(StepStatus::Skipped, None, event.output.clone(), attempts);
            }
            Event::StepCompensated(event) => {
                let step = self.step_mut(&event.step)?;
                let (outcome, output) = (step.outcome, step.output.take());
                step.end(StepStatus::Compensated, outcome, output, event.attempt);
            }
            Event::CompensationSkipped(event) => {
                let step = self.step_mut(&event.step)?;
                let (outcome, output, attempts) = (step.outcome, step.output.take(), step.work.attempts);
                step.end(StepStatus::CompensationSkipped, outcome, output, attempts);
            }
            Event::StepParked(event) => {
                let step = self.step_mut(&event.step)?;
                if step.status.operation() != Some(event.operation) {
                    step.work = Work { started_at: at, ..Work::default() };
                }
                step.flight = Flight::Landed;
                step.status = in_operation(event.operation);
                step.work.attempts = step.work.attempts.max(event.attempt);
                step.work.reached |= event.reached;
                step.work.wait = Wait::Parked { code: event.code.clone(), reason: event.reason.clone() };
            }
            Event::StepRetried(event) => {
                let step = self.step_mut(&event.step)?;
                step.flight = Flight::Landed;
                step.status = in_operation(event.operation);
                step.work = Work {
                    started_at: at,
                    attempts: step.work.attempts,
                    reached: step.work.reached,
                    ..Work::default()
                };
            }
            // The failure itself is told by the `SagaFailed` in the same commit.
            Event::SagaTimedOut(_) => {}
            Event::SagaFailed(event) => {
                self.phase = Phase::Backward;
                for step in self.steps.iter_mut().filter(|step| step.is_ahead) {
                    (step.is_ahead, step.work.reached) = (false, false);
                }
                self.failure =
                    Some(Failure { step: event.step.clone(), code: event.code.clone(), reason: event.reason.clone() });
            }
            Event::SagaCompleted(event) => {
                self.output = Some(Arc::clone(&event.output));
                self.end(Status::Completed, at);
            }
            Event::SagaCompensated(_) => self.end(Status::Compensated, at),
            Event::SagaAbandoned(_) => self.end(Status::Abandoned, at),
            Event::OperatorActed(event) => self.remember(event),
        }
        if self.mode == Mode::Choreographed {
            self.turn_back(event, at);
            self.enable(definition, at);
        }
        self.version += 1;
        self.updated_at = at;
        if !self.status.is_ended() {
            self.status = match self.phase {
                _ if self.steps.iter().any(StepState::is_parked) => Status::Parked,
                Phase::Forward => Status::Running,
                Phase::Backward => Status::Compensating,
            };
        }
        Ok(())
    }

    fn end(&mut self, status: Status, at: Timestamp) {
        self.status = status;
        self.ended_at = Some(at);
    }

    fn remember(&mut self, acted: &OperatorActed) {
        let Some(request_id) = acted.request_id.clone() else { return };
        if self.commands.len() == CARRIED_OUT_MAX {
            self.commands.remove(0);
        }
        let (action, step, reason) = (acted.action.clone(), acted.step.clone(), acted.reason.clone());
        self.commands.push(CarriedOut { request_id, action, step, reason });
    }
}
