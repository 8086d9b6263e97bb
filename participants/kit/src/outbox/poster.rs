//! Posting: the requests of the [relay](super::relay), and what an answer means for an event.

use std::{sync::Arc, time::Instant};

use super::{Outgoing, Refusals, Refused, refuse};
use crate::{
    db::Db,
    events::{Appended, Client, ClientError, Expected, Refusal},
    observer::Observer,
};

/// What became of an event.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The store has it, or nobody needs it any more.
    Done,
    /// The store refuses it for good; what follows is still to be decided.
    Refused(Refusal),
    /// The store refuses it for good. It stays in the table, which says so unless it could not be `noted`.
    Kept { noted: bool },
    /// To be posted again, after a pause.
    Later,
    /// To be posted now.
    Due,
}

#[derive(Debug)]
pub(super) struct Poster {
    pub(super) client: Client,
    pub(super) refusals: Arc<dyn Refusals>,
    pub(super) observer: Arc<dyn Observer>,
}

impl Poster {
    /// Posts events of different streams in one request.
    pub(super) async fn post(&self, events: &[Arc<Outgoing>]) -> Vec<Outcome> {
        let begun = Instant::now();
        let results = match events {
            // The most usual request while there is little to do, which every version of the store understands.
            [event] => vec![self.post_alone(event).await],
            events => match self.client.append_each(events).await {
                Ok(results) if results.len() == events.len() => results,
                Err(ClientError::Refused(refusal)) => {
                    tracing::debug!(%refusal, "events are refused together, so they are posted one by one");
                    let mut results = Vec::with_capacity(events.len());
                    for event in events {
                        results.push(self.post_alone(event).await);
                    }
                    results
                }
                Ok(_) => return self.later(events, "fewer events were answered than were posted"),
                Err(error) => return self.later(events, &error.to_string()),
            },
        };
        let failed = results.iter().filter(|result| result.is_err()).count();
        if failed < results.len() {
            self.observer.posted(begun.elapsed());
        }
        if failed > 0 {
            self.observer.not_posted(failed);
        }
        let outcome = |(event, result): (&Arc<Outgoing>, Result<Appended, ClientError>)| match result {
            Ok(Appended { replayed, .. }) => {
                self.observer.published(event, replayed);
                Outcome::Done
            }
            Err(ClientError::Refused(refusal)) => Outcome::Refused(refusal),
            Err(error) => {
                let reason = error.to_string();
                tracing::debug!(reason, stream = event.stream, "an event can't be posted now");
                Outcome::Later
            }
        };
        events.iter().zip(results).map(outcome).collect()
    }

    /// All of them to be posted again.
    fn later(&self, events: &[Arc<Outgoing>], reason: &str) -> Vec<Outcome> {
        tracing::debug!(reason, events = events.len(), "events can't be posted now");
        self.observer.not_posted(events.len());
        events.iter().map(|_| Outcome::Later).collect()
    }

    async fn post_alone(&self, event: &Outgoing) -> Result<Appended, ClientError> {
        self.client.append(&event.stream, Expected::Any, std::slice::from_ref(event)).await
    }

    /// Decides about an event that the store refuses for good.
    pub(super) async fn refused(&self, db: &Db, id: i64, event: &Outgoing, refusal: Refusal) -> Outcome {
        match self.refusals.refused(event, &refusal).await {
            Refused::Drop => Outcome::Done,
            Refused::Later(reason) => {
                tracing::debug!(reason, stream = event.stream, "a refused event can't be settled now");
                Outcome::Later
            }
            Refused::Keep => {
                let (stream, event_id, reason) = (&event.stream, &event.event_id, refusal.to_string());
                tracing::error!(stream, event_id, reason, "the event store refuses an event; it stays in the outbox");
                let noted = refuse(db, id, reason).await;
                if let Err(error) = &noted {
                    tracing::warn!(%error, event_id, "a refusal can't be noted; a restart posts again");
                }
                Outcome::Kept { noted: noted.is_ok() }
            }
        }
    }
}
