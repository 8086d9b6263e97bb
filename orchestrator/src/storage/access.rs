//! Who may ask for what, and the record of who did.
//!
//! Keys are kept as digests, and for good: a key that was revoked or has expired still says that keys are in use. Every
//! change of a key and its entry in the audit log are one transaction. The log takes entries and gives them back; nothing
//! changes or removes one.

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use skald_core::time::Timestamp;
use sqlx::{Database, Encode, FromRow, QueryBuilder, Type, types::Uuid};

use super::StoreError;

/// A key of a client, without the key itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    pub name: String,
    /// As its word: this Skald may be older than who wrote it.
    pub role: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// How something that was asked for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It is about to be done. How it ended is another entry, unless the process died meanwhile.
    Begun,
    Done,
    Failed,
    /// Whoever asked may not.
    Refused,
    /// Nobody was there any more to see the end.
    Unknown,
}

impl AuditOutcome {
    pub const ALL: [Self; 5] = [Self::Begun, Self::Done, Self::Failed, Self::Refused, Self::Unknown];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The text is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be begun, done, failed, refused or unknown")]
pub struct NoOutcome;

impl FromStr for AuditOutcome {
    type Err = NoOutcome;

    fn from_str(word: &str) -> Result<Self, NoOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word).ok_or(NoOutcome)
    }
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: Uuid,
    /// By the database's clock.
    pub at: Timestamp,
    /// None: nobody said who.
    pub actor: Option<String>,
    /// What showed who it is. None: nothing did.
    pub credential: Option<String>,
    /// Such as `saga.retry`.
    pub action: String,
    /// What it was done to, or asked of. Never a person's name.
    pub target: String,
    pub reason: Option<String>,
    pub request_id: String,
    pub correlation_id: Option<String>,
    pub outcome: AuditOutcome,
    /// Of the problem that it ended with.
    pub code: Option<String>,
    /// How often, where the like was put together.
    pub times: u32,
}

/// Which entries to list, newest first. None means "any".
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub target: Option<String>,
    pub request_id: Option<String>,
    pub outcome: Option<AuditOutcome>,
    pub recorded_after: Option<Timestamp>,
    pub recorded_before: Option<Timestamp>,
    /// Only entries with a smaller id: the last one of the page before.
    pub before: Option<Uuid>,
    pub limit: u32,
}

/// See the module. Every method is safe to drop at any await; a write may then have been made.
#[async_trait]
pub trait AccessRecords {
    /// All of them, also those that are good no more; the oldest first.
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    /// Adds a key, unless its id is taken; says whether it did.
    async fn add_api_key(&self, key: &ApiKey, entry: &AuditEntry) -> Result<bool, StoreError>;

    /// Revokes a key at the entry's time; says whether there was one to revoke.
    async fn revoke_api_key(&self, id: &str, entry: &AuditEntry) -> Result<bool, StoreError>;

    /// Lets a key that is good at the entry's time expire at `expires_at`, if it would not sooner, and adds its successor;
    /// says whether there was one.
    async fn rotate_api_key(
        &self,
        id: &str,
        expires_at: Timestamp,
        successor: &ApiKey,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Adds an entry, durably.
    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError>;

    async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError>;
}

/// Appends the query that `filter` means, the same on both databases.
pub(super) fn push_audit_list<DB>(query: &mut QueryBuilder<DB>, filter: &AuditFilter)
where
    DB: Database,
    i64: Encode<'static, DB> + Type<DB>,
    Uuid: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
{
    query.push(
        "SELECT id, at_us, actor, credential, action, target, reason, request_id, correlation_id, outcome, code, times
         FROM audit_log
         WHERE true",
    );
    let texts = [
        (" AND actor = ", filter.actor.clone()),
        (" AND action = ", filter.action.clone()),
        (" AND target = ", filter.target.clone()),
        (" AND request_id = ", filter.request_id.clone()),
        (" AND outcome = ", filter.outcome.map(|outcome| outcome.as_str().to_owned())),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text);
        }
    }
    if let Some(after) = filter.recorded_after {
        query.push(" AND at_us > ").push_bind(after.as_micros());
    }
    if let Some(before) = filter.recorded_before {
        query.push(" AND at_us < ").push_bind(before.as_micros());
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
}

#[derive(Debug, FromRow)]
pub(super) struct ApiKeyRecord {
    id: String,
    hash: Vec<u8>,
    name: String,
    role: String,
    created_at_us: i64,
    expires_at_us: Option<i64>,
    revoked_at_us: Option<i64>,
}

impl TryFrom<ApiKeyRecord> for ApiKey {
    type Error = StoreError;

    fn try_from(record: ApiKeyRecord) -> Result<Self, StoreError> {
        let hash = record
            .hash
            .try_into()
            .map_err(|_| StoreError::Unreadable(format!("key {}: its hash is not 32 bytes long", record.id)))?;
        Ok(Self {
            id: record.id,
            hash,
            name: record.name,
            role: record.role,
            created_at: Timestamp::from_micros(record.created_at_us),
            expires_at: record.expires_at_us.map(Timestamp::from_micros),
            revoked_at: record.revoked_at_us.map(Timestamp::from_micros),
        })
    }
}

#[derive(Debug, FromRow)]
pub(super) struct AuditRecord {
    id: Uuid,
    at_us: i64,
    actor: Option<String>,
    credential: Option<String>,
    action: String,
    target: String,
    reason: Option<String>,
    request_id: String,
    correlation_id: Option<String>,
    outcome: String,
    code: Option<String>,
    times: i64,
}

impl TryFrom<AuditRecord> for AuditEntry {
    type Error = StoreError;

    fn try_from(record: AuditRecord) -> Result<Self, StoreError> {
        let unreadable = |_| StoreError::Unreadable(format!("entry {} of the audit log: its outcome", record.id));
        let outcome = record.outcome.parse().map_err(unreadable)?;
        Ok(Self {
            id: record.id,
            at: Timestamp::from_micros(record.at_us),
            actor: record.actor,
            credential: record.credential,
            action: record.action,
            target: record.target,
            reason: record.reason,
            request_id: record.request_id,
            correlation_id: record.correlation_id,
            outcome,
            code: record.code,
            times: u32::try_from(record.times).unwrap_or(u32::MAX),
        })
    }
}
