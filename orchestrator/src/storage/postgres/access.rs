//! Keys of clients, and the audit log. A change and its entry are one statement.

use async_trait::async_trait;
use skald_core::time::Timestamp;
use sqlx::{Postgres, QueryBuilder, postgres::PgArguments, query::Query};

use super::{
    super::{
        StoreError,
        access::{AccessRecords, ApiKey, ApiKeyRecord, AuditEntry, AuditFilter, AuditRecord, push_audit_list},
        records::read_all,
    },
    PostgresStore, failed,
};

/// The text of a statement that makes a change, the last of which is called `changed`, and records it. The entry's values
/// are the parameters 1 to 12.
macro_rules! recorded {
    ($changes:literal) => {
        concat!(
            "WITH ",
            $changes,
            " INSERT INTO audit_log (id, at_us, actor, credential, action, target, reason, request_id, correlation_id,
                                     outcome, code, times)
              SELECT $1::uuid, $2::bigint, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::text,
                     $10::text, $11::text, $12::bigint
              FROM changed"
        )
    };
}

#[async_trait]
impl AccessRecords for PostgresStore {
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<ApiKeyRecord> = self
            .readers
            .fetch(sqlx::query_as(
                "SELECT id, hash, name, role, created_at_us, expires_at_us, revoked_at_us
                 FROM api_keys
                 ORDER BY created_at_us, id",
            ))
            .await?;
        read_all(rows)
    }

    async fn add_api_key(&self, key: &ApiKey, entry: &AuditEntry) -> Result<bool, StoreError> {
        let statement = recorded!(
            "changed AS (
                 INSERT INTO api_keys (id, hash, name, role, created_at_us, expires_at_us, revoked_at_us)
                 VALUES ($13, $14, $15, $16, $17, $18, $19)
                 ON CONFLICT (id) DO NOTHING
                 RETURNING id
             )"
        );
        self.change(bind_key(bind_entry(sqlx::query(statement), entry), key)).await
    }

    async fn revoke_api_key(&self, id: &str, entry: &AuditEntry) -> Result<bool, StoreError> {
        let statement = recorded!(
            "changed AS (
                 UPDATE api_keys
                 SET revoked_at_us = $2
                 WHERE id = $13 AND revoked_at_us IS NULL
                 RETURNING id
             )"
        );
        self.change(bind_entry(sqlx::query(statement), entry).bind(id.to_owned())).await
    }

    async fn rotate_api_key(
        &self,
        id: &str,
        expires_at: Timestamp,
        successor: &ApiKey,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let statement = recorded!(
            "good AS (
                 UPDATE api_keys
                 SET expires_at_us = least(expires_at_us, $21)
                 WHERE id = $20 AND revoked_at_us IS NULL AND (expires_at_us IS NULL OR expires_at_us > $2)
                 RETURNING id
             ),
             changed AS (
                 INSERT INTO api_keys (id, hash, name, role, created_at_us, expires_at_us, revoked_at_us)
                 SELECT $13, $14, $15, $16, $17, $18, $19
                 FROM good
                 RETURNING id
             )"
        );
        let statement = bind_key(bind_entry(sqlx::query(statement), entry), successor);
        self.change(statement.bind(id.to_owned()).bind(expires_at.as_micros())).await
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let statement = recorded!("changed AS (SELECT 1)");
        self.change(bind_entry(sqlx::query(statement), entry)).await.map(drop)
    }

    async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = QueryBuilder::new("");
        push_audit_list(&mut query, filter);
        let rows: Vec<AuditRecord> =
            self.readers.ask(async |session| query.build_query_as().fetch_all(session).await.map_err(failed)).await?;
        read_all(rows)
    }
}

type Statement = Query<'static, Postgres, PgArguments>;

impl PostgresStore {
    /// Whether there was something to change, and to record.
    async fn change(&self, statement: Statement) -> Result<bool, StoreError> {
        let made = self.control.ask(async |session| statement.execute(session).await.map_err(failed)).await?;
        Ok(made.rows_affected() == 1)
    }
}

fn bind_entry(statement: Statement, entry: &AuditEntry) -> Statement {
    statement
        .bind(entry.id)
        .bind(entry.at.as_micros())
        .bind(entry.actor.clone())
        .bind(entry.credential.clone())
        .bind(entry.action.clone())
        .bind(entry.target.clone())
        .bind(entry.reason.clone())
        .bind(entry.request_id.clone())
        .bind(entry.correlation_id.clone())
        .bind(entry.outcome.as_str())
        .bind(entry.code.clone())
        .bind(i64::from(entry.times))
}

fn bind_key(statement: Statement, key: &ApiKey) -> Statement {
    statement
        .bind(key.id.clone())
        .bind(key.hash.to_vec())
        .bind(key.name.clone())
        .bind(key.role.clone())
        .bind(key.created_at.as_micros())
        .bind(key.expires_at.map(Timestamp::as_micros))
        .bind(key.revoked_at.map(Timestamp::as_micros))
}
