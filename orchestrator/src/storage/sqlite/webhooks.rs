//! Webhooks, and what came of telling them.

use async_trait::async_trait;
use skald_core::time::Timestamp;
use sqlx::types::Uuid;

use super::{
    super::{
        StoreError,
        records::read_all,
        webhooks::{
            ADD, ATTEMPTS, Attempt, AttemptRecord, CHANGE, FORGET, LIST, NOTE, REMOVE, REMOVE_ATTEMPTS, Stored, Terms,
            Webhook, WebhookRecord, Webhooks, document,
        },
    },
    SqliteStore, failed,
};

#[async_trait]
impl Webhooks for SqliteStore {
    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        read_all(sqlx::query_as::<_, WebhookRecord>(LIST).fetch_all(&self.readers).await.map_err(failed)?)
    }

    async fn add_webhook(&self, webhook: &Webhook) -> Result<(), StoreError> {
        let (created_at, document) = (webhook.created_at.as_micros(), document(&webhook.terms));
        self.writer.execute(sqlx::query(ADD).bind(webhook.id).bind(created_at).bind(document)).await.map(drop)
    }

    async fn change_webhook(&self, id: Uuid, terms: &Terms) -> Result<bool, StoreError> {
        let changed = self.writer.execute(sqlx::query(CHANGE).bind(id).bind(document(terms))).await?;
        Ok(changed.rows_affected() == 1)
    }

    async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        let removed = self.writer.execute(sqlx::query(REMOVE).bind(id)).await?;
        self.writer.execute(sqlx::query(REMOVE_ATTEMPTS).bind(id)).await?;
        Ok(removed.rows_affected() == 1)
    }

    async fn note_attempt(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let Stored { number, duration_ms, http_status } = Stored::from(attempt);
        let query = sqlx::query(NOTE).bind(attempt.webhook).bind(attempt.message.clone());
        let query = query.bind(attempt.type_name.clone()).bind(number).bind(attempt.at.as_micros());
        let query = query.bind(duration_ms).bind(http_status).bind(attempt.error.clone());
        self.writer.execute(query).await.map(drop)
    }

    async fn attempts(
        &self,
        webhook: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Attempt)>, StoreError> {
        let query = sqlx::query_as::<_, AttemptRecord>(ATTEMPTS).bind(webhook).bind(before.unwrap_or(i64::MAX));
        read_all(query.bind(limit).fetch_all(&self.readers).await.map_err(failed)?)
    }

    async fn forget_attempts(&self, before: Timestamp) -> Result<(), StoreError> {
        self.writer.execute(sqlx::query(FORGET).bind(before.as_micros())).await.map(drop)
    }
}
