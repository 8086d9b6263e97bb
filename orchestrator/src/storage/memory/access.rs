//! Keys of clients and the audit log, in memory.

use async_trait::async_trait;
use skald_core::time::Timestamp;

use super::{
    super::access::{AccessRecords, ApiKey, AuditEntry, AuditFilter},
    MemoryStore, StoreError,
};

#[async_trait]
impl AccessRecords for MemoryStore {
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        Ok(self.up()?.api_keys.clone())
    }

    async fn add_api_key(&self, key: &ApiKey, entry: &AuditEntry) -> Result<bool, StoreError> {
        let mut kept = self.up()?;
        let free = kept.api_keys.iter().all(|other| other.id != key.id);
        if free {
            kept.api_keys.push(key.clone());
            kept.audit_log.push(entry.clone());
        }
        Ok(free)
    }

    async fn revoke_api_key(&self, id: &str, entry: &AuditEntry) -> Result<bool, StoreError> {
        let mut kept = self.up()?;
        let Some(key) = kept.api_keys.iter_mut().find(|key| key.id == id && key.revoked_at.is_none()) else {
            return Ok(false);
        };
        key.revoked_at = Some(entry.at);
        kept.audit_log.push(entry.clone());
        Ok(true)
    }

    async fn rotate_api_key(
        &self,
        id: &str,
        expires_at: Timestamp,
        successor: &ApiKey,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut kept = self.up()?;
        let good = |key: &&mut ApiKey| {
            key.id == id && key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > entry.at)
        };
        let Some(key) = kept.api_keys.iter_mut().find(good) else { return Ok(false) };
        key.expires_at = Some(key.expires_at.map_or(expires_at, |at| at.min(expires_at)));
        kept.api_keys.push(successor.clone());
        kept.audit_log.push(entry.clone());
        Ok(true)
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.up()?.audit_log.push(entry.clone());
        Ok(())
    }

    async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let is = |asked: &Option<String>, found: Option<&String>| asked.is_none() || asked.as_ref() == found;
        let kept = self.up()?;
        let matches = |entry: &&AuditEntry| {
            is(&filter.actor, entry.actor.as_ref())
                && is(&filter.action, Some(&entry.action))
                && is(&filter.target, Some(&entry.target))
                && is(&filter.request_id, Some(&entry.request_id))
                && filter.outcome.is_none_or(|outcome| outcome == entry.outcome)
                && filter.recorded_after.is_none_or(|after| entry.at > after)
                && filter.recorded_before.is_none_or(|before| entry.at < before)
                && filter.before.is_none_or(|before| entry.id < before)
        };
        let mut found: Vec<AuditEntry> = kept.audit_log.iter().filter(matches).cloned().collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        found.truncate(filter.limit as usize);
        Ok(found)
    }
}
