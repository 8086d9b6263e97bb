//! Pooled sessions, of which each answers in time or is not used again.
//!
//! The server bounds what it does, but not how long its answer takes: a network that forgets a connection tells nobody,
//! and what waits for that answer would wait for ever, and keep one of the pool's few places with it.

use std::time::Duration;

use sqlx::{
    Connection as _, FromRow, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgPoolOptions, PgRow},
    query::QueryAs,
};
use tokio::time::Instant;

use super::{super::StoreError, CONNECT_TIMEOUT, failed};

/// A session that was in use so lately is taken to be alive.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// For statements that are made all the time: to ask first whether a session lives would take as long as they do. One
/// that died since costs an answer.
pub fn trusting() -> PgPoolOptions {
    PgPoolOptions::new().test_before_acquire(false).before_acquire(|session, last| {
        Box::pin(async move {
            if last.idle_for > TRUSTED_FOR {
                session.ping().await?;
            }
            Ok(true)
        })
    })
}

#[derive(Clone, Debug)]
pub struct Sessions {
    pub pool: PgPool,
    /// How long to wait for an answer, counted from before a session was to be had.
    pub patience: Duration,
}

/// A session in use. Dropped without an answer, it is closed: the answer to what was asked may yet come. The pool asks
/// one that answered once more before it takes it back, and would wait for that answer without bound.
struct Session {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Sessions {
    /// Asks one thing, in one or several statements.
    pub async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.patience;
        let connection = self.pool.acquire().await.map_err(failed)?;
        let mut session = Session { connection, answered: false };
        let answer = tokio::time::timeout_at(deadline, ask(&mut session.connection)).await;
        session.answered = answer.is_ok();
        answer.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
    }

    /// Runs one statement, its own transaction.
    pub async fn fetch<R>(&self, statement: QueryAs<'static, Postgres, R, PgArguments>) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.ask(async |connection| statement.fetch_all(connection).await.map_err(failed)).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.answered {
            tokio::spawn(tokio::time::timeout(CONNECT_TIMEOUT, self.connection.return_to_pool()));
        } else {
            self.connection.close_on_drop();
        }
    }
}
