//! The keys that personal data is sealed under. What keeps a commit and an erasure apart is in migration 5.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{
    super::{
        StoreError,
        records::read_all,
        subjects::{
            Erased, IN_USE_MAX, InUseRecord, NamedKey, SubjectKey, SubjectRecord, SubjectRow, Subjects, erased,
            key_bytes,
        },
    },
    PostgresStore, failed,
};

/// A key that was found living may be gone when it is looked at; then the next one is made.
const TRIES_MAX: usize = 3;

#[async_trait]
impl Subjects for PostgresStore {
    async fn live_key(&self, subject: &str, fresh: &SubjectKey) -> Result<SubjectKey, StoreError> {
        self.control.ask(async |session| live_key(session, subject, fresh).await).await
    }

    async fn named_key(&self, id: &str) -> Result<Option<NamedKey>, StoreError> {
        self.readers.ask(async |session| named_key(session, id).await).await
    }

    async fn subject(&self, subject: &str) -> Result<Vec<SubjectRow>, StoreError> {
        self.readers.ask(async |session| rows(session, subject).await).await
    }

    async fn erase(&self, subject: &str, actor: &str, reason: &str) -> Result<Erased, StoreError> {
        self.control.ask(async |session| erase(session, subject, actor, reason).await).await
    }
}

async fn live_key(connection: &mut PgConnection, subject: &str, fresh: &SubjectKey) -> Result<SubjectKey, StoreError> {
    for _ in 0..TRIES_MAX {
        let living: Option<(String, Vec<u8>)> =
            sqlx::query_as("SELECT id, key FROM subject_keys WHERE subject = $1 AND key IS NOT NULL")
                .bind(subject)
                .fetch_optional(&mut *connection)
                .await
                .map_err(failed)?;
        if let Some((id, key)) = living {
            return Ok(SubjectKey { id: id.into(), bytes: key_bytes(key)? });
        }
        let inserted = sqlx::query(
            "INSERT INTO subject_keys (id, subject, key, created_at_us)
             VALUES ($1, $2, $3, skald_now_us())
             ON CONFLICT (subject) WHERE key IS NOT NULL DO NOTHING",
        )
        .bind(&*fresh.id)
        .bind(subject)
        .bind(fresh.bytes.as_slice())
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
        if inserted.rows_affected() == 1 {
            return Ok(fresh.clone());
        }
    }
    Err(StoreError::Unavailable(sqlx::Error::RowNotFound))
}

async fn named_key(connection: &mut PgConnection, id: &str) -> Result<Option<NamedKey>, StoreError> {
    let found: Option<(String, Option<Vec<u8>>)> =
        sqlx::query_as("SELECT subject, key FROM subject_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(connection)
            .await
            .map_err(failed)?;
    found.map(|(subject, key)| Ok(NamedKey { subject, bytes: key.map(key_bytes).transpose()? })).transpose()
}

async fn rows(connection: &mut PgConnection, subject: &str) -> Result<Vec<SubjectRow>, StoreError> {
    let rows: Vec<SubjectRecord> = sqlx::query_as(
        "SELECT id, created_at_us, erased_at_us, erased_by, erased_because,
                (SELECT count(*) FROM saga_subjects WHERE key_id = subject_keys.id) AS sagas
         FROM subject_keys
         WHERE subject = $1
         ORDER BY created_at_us, id",
    )
    .bind(subject)
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    read_all(rows)
}

async fn erase(connection: &mut PgConnection, subject: &str, actor: &str, reason: &str) -> Result<Erased, StoreError> {
    let in_use: Vec<InUseRecord> = sqlx::query_as("SELECT id, status FROM skald_erase_subject($1, $2, $3, $4)")
        .bind(subject)
        .bind(actor)
        .bind(reason)
        .bind(i64::from(IN_USE_MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let keys = if in_use.is_empty() { rows(connection, subject).await? } else { Vec::new() };
    erased(in_use, keys)
}
