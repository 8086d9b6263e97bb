//! The participant's own database: an SQLite file or a PostgreSQL database, used in the same way.
//!
//! All work runs in tasks of the database's own (of its thread with SQLite, else of the runtime on which
//! [`Db::connect`] was called), never in the caller's: a caller that goes away (web frameworks drop a handler when its
//! client leaves) would otherwise leave a pooled PostgreSQL connection in the middle of `BEGIN`.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::{
    answer::Failure,
    outbox::Fresh,
    sql::{Param, Row, postgres_query},
    sqlite::Sqlite,
    tx::{Inner, Tx, TxFuture},
};

/// How long a PostgreSQL connection may lie idle without being tested before its next use.
const IDLE_UNTESTED_MAX: Duration = Duration::from_secs(5);

/// Sizes and patience of a [`Db`].
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// PostgreSQL connections, and SQLite's readers (its writer is always one).
    pub connections_max: u32,
    /// How long to wait for a free connection.
    pub acquire_timeout: Duration,
    /// PostgreSQL: how long a statement waits for a row that another transaction holds.
    pub lock_timeout: Duration,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self { connections_max: 16, acquire_timeout: Duration::from_secs(5), lock_timeout: Duration::from_secs(1) }
    }
}

/// Why a database cannot be opened.
#[derive(Debug, Error)]
pub enum DbError {
    #[error("database URL must begin with sqlite: or postgres://")]
    UnknownKind,
    #[error("database URL names no file: an SQLite participant needs one, e.g. sqlite:catalog.db")]
    NoFile,
    #[error("database URL is malformed: {reason}")]
    Malformed { reason: String },
    #[error("cannot open the database {name}: {reason}")]
    Open { name: String, reason: String },
}

/// One line for people: the database's own words where there are some.
fn reason(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// A database. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct Db {
    engine: Engine,
    runtime: Handle,
    fresh: Arc<Fresh>,
}

#[derive(Debug, Clone)]
enum Engine {
    Sqlite(Arc<Sqlite>),
    Postgres(PgPool),
}

impl Db {
    /// Opens `sqlite:PATH` (created when missing; WAL, `synchronous=FULL`) or `postgres://...`.
    ///
    /// # Errors
    /// The URL is not understood, or the database cannot be reached, opened or written.
    pub async fn connect(url: &str, options: &DbOptions) -> Result<Self, DbError> {
        let engine = if let Some(path) = url.strip_prefix("sqlite:") {
            open_sqlite(path.strip_prefix("//").unwrap_or(path), options).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            open_postgres(url, options).await?
        } else {
            return Err(DbError::UnknownKind);
        };
        let runtime = match &engine {
            Engine::Sqlite(sqlite) => sqlite.runtime().clone(),
            Engine::Postgres(_) => Handle::current(),
        };
        Ok(Self { engine, runtime, fresh: Arc::default() })
    }

    /// Runs statements that create what is missing (`CREATE TABLE IF NOT EXISTS ..`), as one
    /// transaction; several processes may do so at once.
    ///
    /// # Errors
    /// The database's.
    pub async fn create(&self, statements: &'static [&'static str]) -> sqlx::Result<()> {
        self.in_task(move |db| async move {
            let mut tx = db.begin().await?;
            if db.is_postgres() {
                // Another process may be at work on the tables, or at the same. `IF NOT EXISTS` alone races with itself.
                tx.execute("SET LOCAL lock_timeout = '30s'", Vec::new()).await?;
                tx.execute("SELECT pg_advisory_xact_lock(7283491027)", Vec::new()).await?;
            }
            for statement in statements {
                tx.execute(statement, Vec::new()).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Runs `work` in a transaction, committed when it gives `Ok` and rolled back otherwise. For what
    /// is not a saga's call: seeds, management, sweepers. A caller that goes away doesn't stop it.
    ///
    /// # Errors
    /// What `work` gives, or the database's.
    pub async fn transaction<T, W>(&self, work: W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, T> + Send + 'static,
    {
        self.in_task(move |db| async move {
            let mut tx = db.begin().await?;
            match work(&mut tx).await {
                Ok(value) => {
                    tx.commit().await?;
                    Ok(value)
                }
                Err(failure) => {
                    tx.rollback().await;
                    Err(failure)
                }
            }
        })
        .await
    }

    /// Reads outside a transaction.
    ///
    /// # Errors
    /// The database's.
    pub async fn rows(&self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Vec<Row>> {
        let pool = match &self.engine {
            Engine::Sqlite(sqlite) => return sqlite.rows(sql, params).await,
            Engine::Postgres(pool) => pool.clone(),
        };
        let read = async move |_| {
            let rows = postgres_query(sql, params).fetch_all(&pool).await?;
            Ok(rows.into_iter().map(Row::Postgres).collect())
        };
        self.in_task(read).await
    }

    /// Like [`Db::rows`], the first row only.
    ///
    /// # Errors
    /// The database's.
    pub async fn row(&self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Option<Row>> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn ping(&self) -> sqlx::Result<()> {
        self.rows("SELECT 1", Vec::new()).await?;
        self.in_task(|db| async move {
            if let Engine::Sqlite(sqlite) = &db.engine {
                sqlite.ping().await;
            }
            Ok(())
        })
        .await
    }

    /// Closes the connections, after which every use fails.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(pool) => pool.close().await,
        }
    }

    /// For statements that the two databases spell differently.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Only for tasks that nobody cancels; see the module.
    pub(crate) async fn begin(&self) -> sqlx::Result<Tx> {
        match &self.engine {
            Engine::Sqlite(sqlite) => Ok(self.tx(Inner::Sqlite(sqlite.begin().await?))),
            Engine::Postgres(pool) => Ok(self.tx(Inner::Postgres(pool.begin().await?))),
        }
    }

    fn tx(&self, inner: Inner) -> Tx {
        Tx::new(inner, self.fresh.clone())
    }

    /// What was committed to the outbox in this process.
    pub(crate) fn fresh(&self) -> &Arc<Fresh> {
        &self.fresh
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    async fn in_task<T, E, F, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        W: FnOnce(Self) -> F,
    {
        match self.runtime.spawn(work(self.clone())).await {
            Ok(result) => result,
            Err(_) => Err(E::from(sqlx::Error::WorkerCrashed)),
        }
    }
}

async fn open_sqlite(path: &str, options: &DbOptions) -> Result<Engine, DbError> {
    if path.is_empty() || path == ":memory:" || path.contains('?') {
        return Err(DbError::NoFile);
    }
    let open_failed = |error: sqlx::Error| DbError::Open { name: path.to_owned(), reason: reason(&error) };
    Ok(Engine::Sqlite(Arc::new(Sqlite::open(PathBuf::from(path), options).await.map_err(open_failed)?)))
}

async fn open_postgres(url: &str, options: &DbOptions) -> Result<Engine, DbError> {
    let connect = PgConnectOptions::from_str(url).map_err(|error| DbError::Malformed { reason: error.to_string() })?;
    let name = format!("{} on {}", connect.get_database().unwrap_or("(default)"), connect.get_host());
    let connect = connect.options([
        ("lock_timeout", options.lock_timeout.as_millis().to_string()),
        ("statement_timeout", "10000".to_owned()),
        ("idle_in_transaction_session_timeout", "15000".to_owned()),
    ]);
    let open_failed = |error: sqlx::Error| DbError::Open { name, reason: reason(&error) };
    // The pool would repeat a refused connection until it times out, and then not say why.
    match connect.connect().await {
        // What matters was to get it; an error at its end changes nothing.
        Ok(conn) => drop(conn.close().await),
        Err(error) => return Err(open_failed(error)),
    }
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        // The pool's own test costs a round trip per transaction; a busy connection needs none.
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > IDLE_UNTESTED_MAX {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(connect)
        .await
        .map_err(open_failed)?;
    Ok(Engine::Postgres(pool))
}
