//! The keys that personal data is sealed under.
//!
//! A subject has at most one key that lives. Destroying it is erasure: nothing that was sealed under it can be opened again,
//! wherever it was copied to. Whoever seals something for the same subject afterwards gets a new key.
//!
//! A key is not destroyed while an unfinished saga holds data under it, and no saga begins under a key that was destroyed:
//! a commit of a saga's first events is refused if its [`Transition::sealed_under`] lives no more. The two exclude each
//! other in the database, so it does not matter through which replica they come.
//!
//! [`Transition::sealed_under`]: skald_core::shard::batch::Transition::sealed_under

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use skald_core::{ids::SagaId, state::Status, time::Timestamp};
use sqlx::{FromRow, types::Uuid};

use super::{StoreError, records};

/// An erasure names at most so many sagas that stand against it.
pub const IN_USE_MAX: u32 = 100;

/// A key that lives.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    /// Its name; part of every token that was made with it.
    pub id: Arc<str>,
    pub bytes: [u8; 32],
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedKey {
    pub subject: String,
    /// None: it was destroyed.
    pub bytes: Option<[u8; 32]>,
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedKey").field("subject", &self.subject).field("lives", &self.bytes.is_some()).finish()
    }
}

/// What became of a key of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRow {
    pub key: String,
    pub created_at: Timestamp,
    /// Sagas that began under it and that retention has not removed.
    pub sagas: u64,
    /// None: it lives.
    pub erasure: Option<Erasure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub at: Timestamp,
    pub actor: String,
    pub reason: String,
}

/// How an erasure ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erased {
    /// Nothing was ever sealed for this subject.
    Unknown,
    /// These unfinished sagas, or more than [`IN_USE_MAX`] of which these are the oldest, need the key.
    InUse(Vec<(SagaId, Status)>),
    /// It was destroyed, now or earlier.
    Done(SubjectRow),
}

/// See the module. Every method is safe to drop at any await.
#[async_trait]
pub trait Subjects {
    /// The subject's key; `fresh` from now on, if none lives.
    async fn live_key(&self, subject: &str, fresh: &SubjectKey) -> Result<SubjectKey, StoreError>;

    async fn named_key(&self, id: &str) -> Result<Option<NamedKey>, StoreError>;

    /// Every key that the subject has had; the oldest first.
    async fn subject(&self, subject: &str) -> Result<Vec<SubjectRow>, StoreError>;

    /// Destroys the subject's key, if one lives and no unfinished saga needs it.
    async fn erase(&self, subject: &str, actor: &str, reason: &str) -> Result<Erased, StoreError>;
}

/// How an erasure ended that found these unfinished sagas, and after which the subject has had these keys.
pub(super) fn erased(in_use: Vec<InUseRecord>, mut keys: Vec<SubjectRow>) -> Result<Erased, StoreError> {
    if !in_use.is_empty() {
        return records::read_all(in_use).map(Erased::InUse);
    }
    // A key that came after the erasure is another's business.
    keys.retain(|key| key.erasure.is_some());
    Ok(keys.pop().map_or(Erased::Unknown, Erased::Done))
}

pub(super) fn key_bytes(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Unreadable("a subject's key is not 32 bytes long".to_owned()))
}

#[derive(Debug, FromRow)]
pub(super) struct InUseRecord {
    id: Uuid,
    status: String,
}

impl TryFrom<InUseRecord> for (SagaId, Status) {
    type Error = StoreError;

    fn try_from(record: InUseRecord) -> Result<Self, StoreError> {
        let id = SagaId::from_uuid(record.id);
        let status = records::status(&record.status);
        let status = status.ok_or_else(|| StoreError::Unreadable(format!("saga {id}: its status")))?;
        Ok((id, status))
    }
}

#[derive(Debug, FromRow)]
pub(super) struct SubjectRecord {
    id: String,
    created_at_us: i64,
    erased_at_us: Option<i64>,
    erased_by: Option<String>,
    erased_because: Option<String>,
    sagas: i64,
}

impl TryFrom<SubjectRecord> for SubjectRow {
    type Error = StoreError;

    fn try_from(record: SubjectRecord) -> Result<Self, StoreError> {
        let erasure = record.erased_at_us.map(|at| Erasure {
            at: Timestamp::from_micros(at),
            actor: record.erased_by.unwrap_or_default(),
            reason: record.erased_because.unwrap_or_default(),
        });
        let sagas = u64::try_from(record.sagas)
            .map_err(|_| StoreError::Unreadable(format!("key {}: its count of sagas", record.id)))?;
        Ok(Self { key: record.id, created_at: Timestamp::from_micros(record.created_at_us), sagas, erasure })
    }
}
