//! Keys in memory, for a short while, so that not every call of a participant asks the database.
//!
//! A replica that destroys a key forgets it at once; another one may go on opening what was sealed with it until its own
//! entry has aged out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::storage::{
    Store, StoreError,
    subjects::{NamedKey, SubjectKey},
};

/// So long, and no longer, other replicas may open what is erased.
pub const AGE_MAX: Duration = Duration::from_secs(5);
/// Entries of each kind; with more, all are forgotten and read again.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Keys {
    store: Arc<dyn Store>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    named: HashMap<String, (Option<NamedKey>, Instant)>,
    live: HashMap<String, (SubjectKey, Instant)>,
}

impl Keys {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// The subject's key; a new one, if none lives. Up to [`AGE_MAX`] old: it may be destroyed by now.
    pub async fn live(&self, subject: &str) -> Result<SubjectKey, StoreError> {
        if let Some((key, at)) = self.known().live.get(subject)
            && at.elapsed() < AGE_MAX
        {
            return Ok(key.clone());
        }
        let asked_at = Instant::now();
        let key = self.store.live_key(subject, &super::token::fresh_key()).await?;
        let mut known = self.known();
        bound(&mut known.live);
        known.live.insert(subject.to_owned(), (key.clone(), asked_at));
        Ok(key)
    }

    /// The key of this name; None if there never was one.
    pub async fn named(&self, id: &str) -> Result<Option<NamedKey>, StoreError> {
        if let Some((key, at)) = self.known().named.get(id)
            && at.elapsed() < AGE_MAX
        {
            return Ok(key.clone());
        }
        let asked_at = Instant::now();
        let key = self.store.named_key(id).await?;
        let mut known = self.known();
        bound(&mut known.named);
        known.named.insert(id.to_owned(), (key.clone(), asked_at));
        Ok(key)
    }

    /// Asks the database anew from now on for everything about the subject.
    pub fn forget(&self, subject: &str) {
        let mut known = self.known();
        known.live.remove(subject);
        known.named.retain(|_, (key, _)| key.as_ref().is_some_and(|key| key.subject != subject));
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds this lock")
    }
}

fn bound<T>(entries: &mut HashMap<String, (T, Instant)>) {
    if entries.len() >= ENTRIES_MAX {
        entries.retain(|_, (_, at)| at.elapsed() < AGE_MAX);
    }
    if entries.len() >= ENTRIES_MAX {
        entries.clear();
    }
}
