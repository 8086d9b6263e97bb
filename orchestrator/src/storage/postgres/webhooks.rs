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
    PostgresStore, failed,
};

#[async_trait]
impl Webhooks for PostgresStore {
    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let rows =
            async |session: &mut _| sqlx::query_as::<_, WebhookRecord>(LIST).fetch_all(session).await.map_err(failed);
        read_all(self.readers.ask(rows).await?)
    }

    async fn add_webhook(&self, webhook: &Webhook) -> Result<(), StoreError> {
        let adding = async |session: &mut _| {
            let (created_at, document) = (webhook.created_at.as_micros(), document(&webhook.terms));
            let query = sqlx::query(ADD).bind(webhook.id).bind(created_at).bind(document);
            query.execute(session).await.map_err(failed)
        };
        self.control.ask(adding).await.map(drop)
    }

    async fn change_webhook(&self, id: Uuid, terms: &Terms) -> Result<bool, StoreError> {
        let changing = async |session: &mut _| {
            sqlx::query(CHANGE).bind(id).bind(document(terms)).execute(session).await.map_err(failed)
        };
        Ok(self.control.ask(changing).await?.rows_affected() == 1)
    }

    async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        let removing = async |session: &mut sqlx::PgConnection| {
            let removed = sqlx::query(REMOVE).bind(id).execute(&mut *session).await.map_err(failed)?;
            sqlx::query(REMOVE_ATTEMPTS).bind(id).execute(session).await.map_err(failed)?;
            Ok(removed.rows_affected() == 1)
        };
        self.control.ask(removing).await
    }

    async fn note_attempt(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let noting = async |session: &mut _| {
            let Stored { number, duration_ms, http_status } = Stored::from(attempt);
            let query = sqlx::query(NOTE).bind(attempt.webhook).bind(&attempt.message).bind(&attempt.type_name);
            let query = query.bind(number).bind(attempt.at.as_micros()).bind(duration_ms).bind(http_status);
            query.bind(&attempt.error).execute(session).await.map_err(failed)
        };
        self.control.ask(noting).await.map(drop)
    }

    async fn attempts(
        &self,
        webhook: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Attempt)>, StoreError> {
        let rows = async |session: &mut _| {
            let query = sqlx::query_as::<_, AttemptRecord>(ATTEMPTS).bind(webhook).bind(before.unwrap_or(i64::MAX));
            query.bind(i64::from(limit)).fetch_all(session).await.map_err(failed)
        };
        read_all(self.readers.ask(rows).await?)
    }

    async fn forget_attempts(&self, before: Timestamp) -> Result<(), StoreError> {
        let forgetting =
            async |session: &mut _| sqlx::query(FORGET).bind(before.as_micros()).execute(session).await.map_err(failed);
        self.control.ask(forgetting).await.map(drop)
    }
}
