//! Keys of clients, and the audit log.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use skald_core::time::Timestamp;
use sqlx::{QueryBuilder, SqliteConnection};

use super::{
    super::{
        StoreError,
        access::{AccessRecords, ApiKey, ApiKeyRecord, AuditEntry, AuditFilter, AuditRecord, push_audit_list},
        records::read_all,
    },
    SqliteStore, failed,
};

#[async_trait]
impl AccessRecords for SqliteStore {
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<ApiKeyRecord> = sqlx::query_as(
            "SELECT id, hash, name, role, created_at_us, expires_at_us, revoked_at_us
             FROM api_keys
             ORDER BY created_at_us, id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        read_all(rows)
    }

    async fn add_api_key(&self, key: &ApiKey, entry: &AuditEntry) -> Result<bool, StoreError> {
        let (key, entry) = (key.clone(), entry.clone());
        self.writer
            .durably(move |connection| {
                async move {
                    let added = add(connection, &key).await?;
                    record_if(connection, added, &entry).await
                }
                .boxed()
            })
            .await
    }

    async fn revoke_api_key(&self, id: &str, entry: &AuditEntry) -> Result<bool, StoreError> {
        let (id, entry) = (id.to_owned(), entry.clone());
        self.writer
            .durably(move |connection| {
                async move {
                    let revoked = revoke(connection, &id, entry.at).await?;
                    record_if(connection, revoked, &entry).await
                }
                .boxed()
            })
            .await
    }

    async fn rotate_api_key(
        &self,
        id: &str,
        expires_at: Timestamp,
        successor: &ApiKey,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let (id, successor, entry) = (id.to_owned(), successor.clone(), entry.clone());
        self.writer
            .durably(move |connection| {
                async move {
                    let good = let_expire(connection, &id, entry.at, expires_at).await?;
                    let rotated = good && add(connection, &successor).await?;
                    record_if(connection, rotated, &entry).await
                }
                .boxed()
            })
            .await
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.writer.durably(move |connection| async move { record(connection, &entry).await }.boxed()).await
    }

    async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = QueryBuilder::new("");
        push_audit_list(&mut query, filter);
        let rows: Vec<AuditRecord> = query.build_query_as().fetch_all(&self.readers).await.map_err(failed)?;
        read_all(rows)
    }
}

async fn add(connection: &mut SqliteConnection, key: &ApiKey) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO api_keys (id, hash, name, role, created_at_us, expires_at_us, revoked_at_us)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&key.id)
    .bind(&key.hash[..])
    .bind(&key.name)
    .bind(&key.role)
    .bind(key.created_at.as_micros())
    .bind(key.expires_at.map(Timestamp::as_micros))
    .bind(key.revoked_at.map(Timestamp::as_micros))
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(inserted.rows_affected() == 1)
}

async fn revoke(connection: &mut SqliteConnection, id: &str, at: Timestamp) -> Result<bool, StoreError> {
    let revoked = sqlx::query("UPDATE api_keys SET revoked_at_us = ? WHERE id = ? AND revoked_at_us IS NULL")
        .bind(at.as_micros())
        .bind(id)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(revoked.rows_affected() == 1)
}

async fn let_expire(
    connection: &mut SqliteConnection,
    id: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let changed = sqlx::query(
        "UPDATE api_keys
         SET expires_at_us = min(coalesce(expires_at_us, ?1), ?1)
         WHERE id = ?2 AND revoked_at_us IS NULL AND (expires_at_us IS NULL OR expires_at_us > ?3)",
    )
    .bind(expires_at.as_micros())
    .bind(id)
    .bind(now.as_micros())
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(changed.rows_affected() == 1)
}

async fn record_if(connection: &mut SqliteConnection, changed: bool, entry: &AuditEntry) -> Result<bool, StoreError> {
    if changed {
        record(connection, entry).await?;
    }
    Ok(changed)
}

async fn record(connection: &mut SqliteConnection, entry: &AuditEntry) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_log (id, at_us, actor, credential, action, target, reason, request_id, correlation_id,
                                outcome, code, times)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(entry.id)
    .bind(entry.at.as_micros())
    .bind(&entry.actor)
    .bind(&entry.credential)
    .bind(&entry.action)
    .bind(&entry.target)
    .bind(&entry.reason)
    .bind(&entry.request_id)
    .bind(&entry.correlation_id)
    .bind(entry.outcome.as_str())
    .bind(&entry.code)
    .bind(i64::from(entry.times))
    .execute(connection)
    .await
    .map_err(failed)?;
    Ok(())
}
