//! A local transaction on either database.

use std::{pin::Pin, sync::Arc};

use sqlx::{Postgres, Transaction};

use crate::{
    answer::Failure,
    outbox::{self, Entry, Fresh, Outgoing},
    sql::{Param, Row, postgres_query},
    sqlite::Turn,
};

/// What work in a transaction is, e.g. `|tx| Box::pin(async move { .. })`.
pub type TxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A transaction. Dropping it rolls back.
///
/// On PostgreSQL it is `READ COMMITTED`: make a change conditional in its `WHERE` and look at the
/// number of rows, rather than reading first. On SQLite it is the only writer.
pub struct Tx {
    inner: Inner,
    touched: bool,
    /// What the outbox gets with this transaction.
    emitted: Vec<Entry>,
    fresh: Arc<Fresh>,
}

pub(crate) enum Inner {
    Sqlite(Turn),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(crate) fn new(inner: Inner, fresh: Arc<Fresh>) -> Self {
        Self { inner, touched: false, emitted: Vec::new(), fresh }
    }

    /// Runs a statement and gives the number of rows that it changed.
    ///
    /// # Errors
    /// The database's. On PostgreSQL the transaction is then unusable: return the error.
    pub async fn execute(&mut self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<u64> {
        self.touched = true;
        match &mut self.inner {
            Inner::Sqlite(turn) => turn.conn().execute(sql, &params),
            Inner::Postgres(tx) => Ok(postgres_query(sql, params).execute(&mut **tx).await?.rows_affected()),
        }
    }

    /// Runs a query (or a statement with `RETURNING`) and gives all its rows.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn rows(&mut self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Vec<Row>> {
        self.touched = true;
        match &mut self.inner {
            Inner::Sqlite(turn) => turn.conn().rows(sql, &params),
            Inner::Postgres(tx) => {
                let rows = postgres_query(sql, params).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Like [`Tx::rows`], the first row only.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn row(&mut self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Option<Row>> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Puts an event into the outbox: it goes to the event store once this transaction has committed, by the service's
    /// [`Relay`](crate::outbox::Relay). One whose id waits there already is left out.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn emit(&mut self, event: Outgoing) -> sqlx::Result<()> {
        if let Some(id) = outbox::insert(self, &event).await? {
            self.emitted.push(Entry { id, event: event.into() });
        }
        Ok(())
    }

    /// Whether anything ran since [`Tx::forget_touches`].
    pub(crate) fn touched(&self) -> bool {
        self.touched
    }

    pub(crate) fn forget_touches(&mut self) {
        self.touched = false;
    }

    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        match self.inner {
            Inner::Sqlite(turn) => turn.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
        }
        self.fresh.put(self.emitted);
        Ok(())
    }

    pub(crate) async fn rollback(self) {
        match self.inner {
            Inner::Sqlite(turn) => drop(turn),
            Inner::Postgres(tx) => {
                if let Err(error) = tx.rollback().await {
                    // The server rolls back a connection that is gone.
                    tracing::warn!(%error, "postgres rollback failed");
                }
            }
        }
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("touched", &self.touched).finish_non_exhaustive()
    }
}
