//! Sagas, as handlers ask for them.

use std::sync::Arc;

use skald_core::{
    definition::Definition,
    event::{Event, Fact, Recorded},
    ids::SagaId,
    state::SagaRow,
};

use super::App;
use crate::{
    api::{
        problem::{Code, Problem},
        view::Saga,
    },
    engine::History,
};

impl App {
    /// A saga as it is now.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub async fn saga(&self, id: SagaId) -> Result<Saga, Problem> {
        let (definition, stream) = self.saga_stream(id).await?;
        self.shown(&definition, stream.iter().map(Fact::from)).await
    }

    /// A saga whose whole stream is at hand.
    ///
    /// # Errors
    ///
    /// As [`App::saga`].
    pub async fn saga_of(&self, id: SagaId, history: &History) -> Result<Saga, Problem> {
        let definition = self.pinned(id, history.facts().next()).await?;
        self.shown(&definition, history.facts()).await
    }

    /// A saga's whole stream, and what it is pinned to.
    ///
    /// # Errors
    ///
    /// When there is no such saga, or it cannot be read.
    pub async fn saga_stream(&self, id: SagaId) -> Result<(Arc<Definition>, Vec<Recorded>), Problem> {
        let stream = self.read(|store| async move { store.streams(&[id]).await }).await?.pop();
        let Some(stream) = stream else { return Err(self.no_saga(id).await) };
        Ok((self.pinned(id, stream.first().map(Fact::from)).await?, stream))
    }

    async fn pinned(&self, id: SagaId, first: Option<Fact<'_>>) -> Result<Arc<Definition>, Problem> {
        let Some(Event::SagaStarted(started)) = first.map(|first| first.event) else {
            return Err(Problem::internal(format_args!("the stream of {id} does not begin with SagaStarted")));
        };
        let definition = self.definition(&started.definition, Some(started.definition_version)).await;
        definition.map_err(|problem| match problem.code() {
            Code::DefinitionNotFound => Problem::internal(format_args!("of {id}: {}", problem.detail())),
            _ => problem,
        })
    }

    /// A saga's row as it is now.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub async fn row(&self, id: SagaId) -> Result<SagaRow, Problem> {
        let row = self.read(|store| async move { store.row(id).await }).await?;
        match row {
            Some(row) => Ok(row),
            None => Err(self.no_saga(id).await),
        }
    }

    /// Why there is nothing of a saga: there is none, or retention removed it.
    pub async fn no_saga(&self, id: SagaId) -> Problem {
        match self.is_removed(id).await {
            Ok(false) => Problem::new(Code::SagaNotFound, format!("There is no saga {id}.")),
            Ok(true) => saga_removed(id),
            Err(problem) => problem,
        }
    }

    /// Whether a saga of which there is nothing may have been removed by retention.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn is_removed(&self, id: SagaId) -> Result<bool, Problem> {
        let retention = Arc::clone(&self.parts.retention);
        self.ask(async move { retention.is_removed(id).await }).await
    }
}

/// What clients are told of a saga that is in the archive.
#[must_use]
pub fn saga_removed(id: SagaId) -> Problem {
    let detail = format!("If there was a saga {id}, it ended long ago and was moved to the archive.");
    Problem::new(Code::SagaRemoved, detail)
}
