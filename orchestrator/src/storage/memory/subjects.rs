//! Subjects' keys, in memory.

use async_trait::async_trait;

use super::{
    super::subjects::{Erased, Erasure, NamedKey, SubjectKey, SubjectRow, Subjects},
    Kept, MemoryStore, StoreError,
};

/// A key, living or destroyed, and the sagas under it.
#[derive(Debug)]
pub(super) struct KeptKey {
    subject: String,
    bytes: Option<[u8; 32]>,
    row: SubjectRow,
    sagas: Vec<skald_core::ids::SagaId>,
}

impl Kept {
    fn living(&self, subject: &str) -> Option<&KeptKey> {
        self.subject_keys.iter().find(|key| key.subject == subject && key.bytes.is_some())
    }

    /// Notes that a saga begins under a key. None: it was destroyed.
    pub(super) fn under_key(&mut self, id: &str) -> Option<&mut Vec<skald_core::ids::SagaId>> {
        let key = self.subject_keys.iter_mut().find(|key| key.row.key == id && key.bytes.is_some())?;
        Some(&mut key.sagas)
    }
}

#[async_trait]
impl Subjects for MemoryStore {
    async fn live_key(&self, subject: &str, fresh: &SubjectKey) -> Result<SubjectKey, StoreError> {
        let created_at = self.clock.now();
        let mut kept = self.up()?;
        if let Some(key) = kept.living(subject) {
            return Ok(SubjectKey { id: key.row.key.as_str().into(), bytes: key.bytes.unwrap_or_default() });
        }
        let row = SubjectRow { key: fresh.id.to_string(), created_at, sagas: 0, erasure: None };
        let bytes = Some(fresh.bytes);
        kept.subject_keys.push(KeptKey { subject: subject.to_owned(), bytes, row, sagas: Vec::new() });
        Ok(fresh.clone())
    }

    async fn named_key(&self, id: &str) -> Result<Option<NamedKey>, StoreError> {
        let kept = self.up()?;
        let key = kept.subject_keys.iter().find(|key| key.row.key == id);
        Ok(key.map(|key| NamedKey { subject: key.subject.clone(), bytes: key.bytes }))
    }

    async fn subject(&self, subject: &str) -> Result<Vec<SubjectRow>, StoreError> {
        let kept = self.up()?;
        let of_subject = kept.subject_keys.iter().filter(|key| key.subject == subject);
        Ok(of_subject.map(|key| SubjectRow { sagas: key.sagas.len() as u64, ..key.row.clone() }).collect())
    }

    async fn erase(&self, subject: &str, actor: &str, reason: &str) -> Result<Erased, StoreError> {
        let at = self.clock.now();
        {
            let mut kept = self.up()?;
            let sagas = kept.living(subject).map(|key| key.sagas.clone()).unwrap_or_default();
            let rows = sagas.iter().filter_map(|saga| kept.rows.get(saga));
            let in_use: Vec<_> = rows.filter(|row| !row.status.is_ended()).map(|row| (row.id, row.status)).collect();
            if !in_use.is_empty() {
                return Ok(Erased::InUse(in_use));
            }
            for key in kept.subject_keys.iter_mut().filter(|key| key.subject == subject && key.bytes.is_some()) {
                key.bytes = None;
                key.row.erasure = Some(Erasure { at, actor: actor.to_owned(), reason: reason.to_owned() });
            }
        }
        let mut rows = self.subject(subject).await?;
        rows.retain(|row| row.erasure.is_some());
        Ok(rows.pop().map_or(Erased::Unknown, Erased::Done))
    }
}
