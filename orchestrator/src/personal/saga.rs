//! Sealing what comes from outside for one saga: callbacks and operators' commands.

use std::{collections::BTreeSet, sync::Arc};

use skald_core::{
    decide::{Callback, CallbackOutcome, OperatorAction, OperatorCommand, Resolution},
    definition::Definition,
    event::Recorded,
    ids::Operation,
    personal::{Path, tokens_in},
};

use super::{Sealing, echo::Echo};
use crate::storage::StoreError;

/// What it takes to seal something for a saga.
#[derive(Debug)]
pub struct SagaSealing {
    definition: Arc<Definition>,
    echo: Echo,
}

impl SagaSealing {
    /// Of the saga with these events, which holds this subject's data.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub async fn of(
        sealing: &Sealing,
        definition: Arc<Definition>,
        subject: &str,
        stream: &[Recorded],
    ) -> Result<Self, StoreError> {
        let mut tokens = BTreeSet::new();
        for recorded in stream {
            let data = recorded.event.data();
            tokens.extend(tokens_in(&data).into_iter().map(|range| data[range].to_owned()));
        }
        let opened = sealing.open(&tokens, subject).await?;
        Ok(Self { definition, echo: sealing.echo(&opened, subject).await? })
    }

    pub fn seal_callback(&self, callback: &mut Callback) {
        let paths = match (&self.definition.personal, callback.operation) {
            (Some(personal), Operation::Action) => personal.answer(&callback.step),
            _ => Arc::default(),
        };
        match &mut callback.outcome {
            CallbackOutcome::Succeeded { output } => self.echo.seal(output, &paths),
            CallbackOutcome::Rejected { code, reason } => {
                self.echo.seal_text(code);
                self.echo.seal_text(reason);
            }
        }
    }

    pub fn seal_command(&self, command: &mut OperatorCommand) {
        self.echo.seal_text(&mut command.reason);
        match &mut command.action {
            OperatorAction::Resolve { step, resolution: Resolution::Succeeded { output: Some(output) } }
            | OperatorAction::Skip { step, output: Some(output) } => {
                let personal = self.definition.personal.iter();
                let paths: Vec<Path> = personal.flat_map(|personal| personal.output(step)).cloned().collect();
                self.echo.seal(output, &paths);
            }
            OperatorAction::Resolve { .. }
            | OperatorAction::Skip { .. }
            | OperatorAction::Retry { .. }
            | OperatorAction::Compensate
            | OperatorAction::Abandon => {}
        }
    }
}
