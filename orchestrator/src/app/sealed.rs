//! Personal data of one saga: opened for who reads it, sealed from who says something of it.

use std::sync::Arc;

use skald_core::{
    definition::Definition,
    event::{Event, Fact, Recorded},
    ids::SagaId,
};

use super::App;
use crate::{
    api::{
        problem::{Code, Problem},
        view::{self, Saga, saga_view},
    },
    personal::SagaSealing,
};

impl App {
    /// What a saga's stream, or its beginning, comes to for a reader: with personal data opened.
    ///
    /// # Errors
    ///
    /// When the stream cannot be folded, or the keys cannot be read.
    pub async fn shown<'s>(
        &self,
        definition: &Definition,
        stream: impl IntoIterator<Item = Fact<'s>>,
    ) -> Result<Saga, Problem> {
        let (mut saga, subject) = saga_view(definition, stream).map_err(Problem::internal)?;
        if let Some(subject) = subject {
            let (sealing, tokens) = (Arc::clone(&self.parts.sealing), view::tokens(&saga));
            let opened = self.read(|_| async move { sealing.open(&tokens, &subject).await }).await?;
            view::show(&mut saga, &opened);
        }
        Ok(saga)
    }

    /// What seals what comes from outside for a saga; None if it holds no personal data, or is not there.
    ///
    /// # Errors
    ///
    /// When the saga cannot be read.
    pub async fn sealing_of(&self, id: SagaId) -> Result<Option<SagaSealing>, Problem> {
        if !self.definitions().any_personal() {
            return Ok(None);
        }
        let (definition, stream) = match self.saga_stream(id).await {
            Err(problem) if problem.code() == Code::SagaNotFound => return Ok(None),
            found => found?,
        };
        let Some(subject) = subject(&stream) else { return Ok(None) };
        let sealing = Arc::clone(&self.parts.sealing);
        self.read(|_| async move { SagaSealing::of(&sealing, definition, &subject, &stream).await.map(Some) }).await
    }
}

/// Whose personal data is sealed in a saga.
fn subject(stream: &[Recorded]) -> Option<String> {
    match &stream.first()?.event {
        Event::SagaStarted(started) => started.subject.clone(),
        _ => None,
    }
}
