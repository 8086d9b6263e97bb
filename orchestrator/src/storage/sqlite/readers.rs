//! Read-only connections for what is read all the time.
//!
//! A pool asks each connection whether it lives before it hands it out and when it gets it back, and each of these is a
//! trip to the connection's thread as long as the read itself. Here one that failed is closed, and that is all.

use std::sync::{Mutex, PoisonError};

use sqlx::{
    ConnectOptions as _, FromRow, Sqlite, SqliteConnection,
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow},
};
use tokio::sync::Semaphore;

use super::{super::StoreError, failed};

#[derive(Debug)]
pub struct Readers {
    options: SqliteConnectOptions,
    places: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl Readers {
    /// Connections are opened as they are needed, at most so many.
    pub fn new(options: SqliteConnectOptions, connections: u32) -> Self {
        Self { options, places: Semaphore::new(connections as usize), idle: Mutex::default() }
    }

    /// Asks one thing. A connection whose use was given up, or failed, is not used again.
    pub async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _place = self.places.acquire().await.expect("nobody closes it");
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(failed)?,
        };
        let answer = ask(&mut connection).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }

    /// Runs one statement.
    pub async fn fetch<R>(&self, statement: QueryAs<'_, Sqlite, R, SqliteArguments>) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        self.ask(async |connection| statement.fetch_all(connection).await.map_err(failed)).await
    }
}
