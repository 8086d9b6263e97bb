//! Reports that the store refuses: the stream's order, or an operator, decided otherwise.

use async_trait::async_trait;
use serde::Deserialize;
use skald_core::{choreography::undo_of, ids::Operation};

use super::{Core, NotNow, duty};
use crate::{
    events::Refusal,
    outbox::{Outgoing, Refusals, Refused},
};

/// The codes of refusals that say: the saga goes on, or has ended, without this operation.
const DECIDED_OTHERWISE: [&str; 2] = ["step_not_enabled", "saga_ended"];

/// As much of a report as matters here.
#[derive(Deserialize)]
struct Report {
    step: String,
    operation: Operation,
    outcome: String,
}

#[async_trait]
impl Refusals for Core {
    /// An action that took effect without its saga is undone; everything else left nothing behind.
    async fn refused(&self, event: &Outgoing, refusal: &Refusal) -> Refused {
        let Ok(report) = serde_json::from_str::<Report>(event.data.get()) else { return Refused::Keep };
        if !DECIDED_OTHERWISE.contains(&refusal.code.as_str()) {
            return Refused::Keep;
        }
        let took_effect = matches!(report.outcome.as_str(), "succeeded" | "output_invalid");
        if !took_effect || report.operation != Operation::Action {
            return Refused::Drop;
        }
        tracing::warn!(stream = event.stream, report.step, %refusal, "a saga goes on without an effect; undoing it");
        self.undo_unheard(&event.stream, &report.step)
            .await
            .unwrap_or_else(|NotNow { reason, .. }| Refused::Later(reason))
    }
}

impl Core {
    async fn undo_unheard(&self, stream: &str, step: &str) -> Result<Refused, NotNow> {
        let known = self.sagas.read(stream).await?;
        let (definition, state) = (known.saga.definition(), known.saga.state()?);
        if definition.step(step).is_none_or(|(_, step)| !step.has_effect) {
            return Ok(Refused::Drop);
        }
        let Some(target) = undo_of(definition, state, step) else { return Ok(Refused::Keep) };
        duty::undo_unheard(&self.means, &known.saga, step, target).await?;
        Ok(Refused::Drop)
    }
}
