//! What never changes of a stream and is not in its events, remembered for those who follow the log.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex},
};

use skald_core::{event::Mode, ids::SagaId};
use sqlx::{FromRow, types::Uuid};

use super::super::{StoreError, records};

/// Streams of one generation; two are remembered.
const GENERATION: usize = 8192;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of a stream that is no saga.
    pub name: Option<Arc<str>>,
    pub definition: Option<Arc<str>>,
    pub mode: Option<Mode>,
    pub correlation_id: Option<Arc<str>>,
}

/// Facts that were asked for lately. When a generation is full, the one before it is forgotten.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<SagaId, Facts>,
    old: HashMap<SagaId, Facts>,
}

impl Remembered {
    /// What is known of these streams.
    pub fn of(&self, streams: impl Iterator<Item = SagaId>) -> HashMap<SagaId, Facts> {
        let mut generations = self.0.lock().expect("nothing panics while it holds this lock");
        let mut known = HashMap::new();
        for stream in streams {
            if known.contains_key(&stream) {
                continue;
            }
            if let Some(facts) = generations.recall(stream) {
                known.insert(stream, facts);
            }
        }
        known
    }

    pub fn learn(&self, facts: impl IntoIterator<Item = (SagaId, Facts)>) {
        let mut generations = self.0.lock().expect("nothing panics while it holds this lock");
        for (stream, facts) in facts {
            generations.keep(stream, facts);
        }
    }
}

impl Generations {
    fn recall(&mut self, stream: SagaId) -> Option<Facts> {
        if let Some(facts) = self.young.get(&stream) {
            return Some(facts.clone());
        }
        let facts = self.old.remove(&stream)?;
        self.keep(stream, facts.clone());
        Some(facts)
    }

    fn keep(&mut self, stream: SagaId, facts: Facts) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(stream, facts);
    }
}

/// A row of `sagas` or of `streams`, as far as it is facts.
#[derive(Debug, FromRow)]
pub struct FactsRecord {
    id: Uuid,
    name: Option<String>,
    definition: Option<String>,
    mode: Option<String>,
    correlation_id: Option<String>,
}

impl TryFrom<FactsRecord> for (SagaId, Facts) {
    type Error = StoreError;

    fn try_from(record: FactsRecord) -> Result<Self, StoreError> {
        let id = SagaId::from_uuid(record.id);
        let read_mode =
            |word: String| records::mode(&word).ok_or_else(|| StoreError::Unreadable(format!("saga {id}: its mode")));
        let facts = Facts {
            name: record.name.map(Arc::from),
            definition: record.definition.map(Arc::from),
            mode: record.mode.map(read_mode).transpose()?,
            correlation_id: record.correlation_id.map(Arc::from),
        };
        Ok((id, facts))
    }
}

#[cfg(test)]
mod tests {
    use skald_core::{ids::Shard, time::Timestamp};

    use super::*;

    #[test]
    fn what_is_asked_for_is_remembered_and_the_rest_forgotten() {
        let id = |number: usize| {
            let mut entropy = [0; 10];
            entropy[..8].copy_from_slice(&number.to_be_bytes());
            SagaId::new(Timestamp::from_micros(1), entropy, Shard(0), 1)
        };
        let facts = |number: usize| Facts { name: Some(number.to_string().into()), ..Facts::default() };
        let remembered = Remembered::default();
        for number in 0..GENERATION * 5 {
            remembered.learn([(id(number), facts(number))]);
            assert_eq!(remembered.of([id(0)].into_iter()).get(&id(0)), Some(&facts(0)), "after {number}");
        }
        assert!(remembered.of([id(1)].into_iter()).is_empty());
        let generations = remembered.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
