//! The keys that personal data is sealed under. One connection writes, so that a commit and an erasure come one after the
//! other.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use sqlx::{SqliteConnection, SqlitePool};

use super::{
    super::{
        StoreError,
        records::read_all,
        subjects::{
            Erased, IN_USE_MAX, InUseRecord, NamedKey, SubjectKey, SubjectRecord, SubjectRow, Subjects, erased,
            key_bytes,
        },
    },
    SqliteStore, failed, now,
    writer::Session,
};

#[async_trait]
impl Subjects for SqliteStore {
    async fn live_key(&self, subject: &str, fresh: &SubjectKey) -> Result<SubjectKey, StoreError> {
        let living: Option<(String, Vec<u8>)> =
            sqlx::query_as("SELECT id, key FROM subject_keys WHERE subject = ? AND key IS NOT NULL")
                .bind(subject)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
        if let Some((id, key)) = living {
            return Ok(SubjectKey { id: id.into(), bytes: key_bytes(key)? });
        }
        let insert = sqlx::query_as(
            "INSERT INTO subject_keys (id, subject, key, created_at_us)
             VALUES (?, ?, ?, ?)
             ON CONFLICT (subject) WHERE key IS NOT NULL DO UPDATE SET key = key
             RETURNING id, key",
        )
        .bind(fresh.id.to_string())
        .bind(subject.to_owned())
        .bind(fresh.bytes.to_vec())
        .bind(now().as_micros());
        let mut rows: Vec<(String, Vec<u8>)> = self.writer.fetch_all(insert).await?;
        let (id, key) = rows.pop().ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))?;
        Ok(SubjectKey { id: id.into(), bytes: key_bytes(key)? })
    }

    async fn named_key(&self, id: &str) -> Result<Option<NamedKey>, StoreError> {
        let found: Option<(String, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT subject, key FROM subject_keys WHERE id = ?")
                .bind(id)
                .fetch_optional(&self.readers)
                .await
                .map_err(failed)?;
        found.map(|(subject, key)| Ok(NamedKey { subject, bytes: key.map(key_bytes).transpose()? })).transpose()
    }

    async fn subject(&self, subject: &str) -> Result<Vec<SubjectRow>, StoreError> {
        rows(&self.readers, subject).await
    }

    async fn erase(&self, subject: &str, actor: &str, reason: &str) -> Result<Erased, StoreError> {
        let erasure = Erasing { subject: subject.to_owned(), actor: actor.to_owned(), reason: reason.to_owned() };
        let in_use = self.writer.run(|session| session.erase(erasure).boxed()).await?.map_err(failed)?;
        let keys = if in_use.is_empty() { rows(&self.readers, subject).await? } else { Vec::new() };
        erased(in_use, keys)
    }
}

async fn rows(pool: &SqlitePool, subject: &str) -> Result<Vec<SubjectRow>, StoreError> {
    let rows: Vec<SubjectRecord> = sqlx::query_as(
        "SELECT id, created_at_us, erased_at_us, erased_by, erased_because,
                (SELECT count(*) FROM saga_subjects WHERE key_id = subject_keys.id) AS sagas
         FROM subject_keys
         WHERE subject = ?
         ORDER BY created_at_us, id",
    )
    .bind(subject)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}

struct Erasing {
    subject: String,
    actor: String,
    reason: String,
}

impl Session {
    /// What stood against it; nothing if the key is destroyed.
    async fn erase(&mut self, erasing: Erasing) -> Result<Vec<InUseRecord>, sqlx::Error> {
        let result = destroy(self.connection().await?, &erasing).await;
        match &result {
            Ok(_) => leave_no_copy(self.connection().await?).await?,
            Err(_) => self.roll_back().await,
        }
        result
    }
}

async fn destroy(connection: &mut SqliteConnection, erasing: &Erasing) -> Result<Vec<InUseRecord>, sqlx::Error> {
    // What is overwritten is overwritten with zeros, rather than left in the page until something else needs its place.
    sqlx::raw_sql("PRAGMA secure_delete = ON; BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let in_use: Vec<InUseRecord> = sqlx::query_as(
        "SELECT sagas.id, sagas.status
         FROM subject_keys
         JOIN saga_subjects ON saga_subjects.key_id = subject_keys.id
         JOIN sagas ON sagas.id = saga_subjects.saga
         WHERE subject_keys.subject = ? AND subject_keys.key IS NOT NULL
           AND sagas.status IN ('running', 'compensating', 'parked')
         ORDER BY sagas.id
         LIMIT ?",
    )
    .bind(&erasing.subject)
    .bind(IN_USE_MAX)
    .fetch_all(&mut *connection)
    .await?;
    if in_use.is_empty() {
        sqlx::query(
            "UPDATE subject_keys
             SET key = NULL, erased_at_us = ?, erased_by = ?, erased_because = ?
             WHERE subject = ? AND key IS NOT NULL",
        )
        .bind(now().as_micros())
        .bind(&erasing.actor)
        .bind(&erasing.reason)
        .bind(&erasing.subject)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    Ok(in_use)
}

/// Carries the write-ahead log over to the file and empties it: former pages lie in it. If a reader is in the way for long,
/// that is left to a later checkpoint.
async fn leave_no_copy(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("PRAGMA secure_delete = OFF; PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await.map(drop)
}
