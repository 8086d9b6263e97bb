//! The connections that write, one for commits and one for all else, and the task that owns them.
//!
//! Jobs run one after the other, each to its end, whether or not anyone still waits: a caller that goes away leaves no
//! transaction open.

use std::fmt;

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::{
    ConnectOptions as _, Connection as _, FromRow, Sqlite, SqliteConnection,
    query::{Query, QueryAs},
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteQueryResult, SqliteRow},
};
use tokio::sync::{mpsc, oneshot};

use super::{super::StoreError, commit::Committer, failed};

/// The text for [`Writer::lazily_at_once`] of statements.
macro_rules! lazily {
    ($statements:expr) => {
        concat!("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; ", $statements, "; COMMIT; PRAGMA synchronous = FULL")
    };
}
pub(super) use lazily;

/// Jobs waiting for the connection.
const QUEUE: usize = 64;

type Job = Box<dyn for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, ()> + Send>;

pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// The job could not be taken on, or its end was not seen.
#[derive(Clone, Copy, Debug)]
pub enum Abandoned {
    BeforeStart,
    Meanwhile,
}

impl From<Abandoned> for StoreError {
    fn from(_: Abandoned) -> Self {
        Self::Unavailable(sqlx::Error::WorkerCrashed)
    }
}

impl Writer {
    /// Opens the connection and starts the task, which ends when the handle is dropped.
    pub async fn spawn(options: SqliteConnectOptions, committer: Committer) -> Result<Self, StoreError> {
        let connection = options.connect().await.map_err(|error| StoreError::Open(error.to_string()))?;
        let mut session = Session { options, connection: Some(connection), committer, suspect: false };
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        tokio::spawn(async move {
            while let Some(job) = queue.recv().await {
                job(&mut session).await;
            }
            drop(session.committer);
            if let Some(connection) = session.connection.take() {
                // Carries the log over to the file; what is not carried over now will be at the next open.
                let _ = connection.close().await;
            }
        });
        Ok(Self { jobs })
    }

    /// Runs a job in its turn.
    pub async fn run<T, F>(&self, job: F) -> Result<T, Abandoned>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            Box::pin(async move {
                // Nobody may be waiting any more, which changes nothing.
                let _ = answer.send(job(session).await);
            })
        });
        self.jobs.send(job).await.map_err(|_| Abandoned::BeforeStart)?;
        answered.await.map_err(|_| Abandoned::Meanwhile)
    }

    /// Runs statements in their turn as one transaction that needs not be on the disk when it is reported: in a crash it
    /// may be lost, as a whole, with those after it that were written this way. The next durable commit carries it along.
    pub async fn lazily<T, F>(&self, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        self.run(|session| session.lazily(write).boxed()).await?.map_err(failed)
    }

    /// As [`Writer::lazily`], with statements of one text, made by [`lazily!`], in one trip to the connection's thread.
    /// Answers their rows.
    pub async fn lazily_at_once<R>(
        &self,
        statements: QueryAs<'static, Sqlite, R, SqliteArguments>,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        self.run(|session| session.lazily_at_once(statements).boxed()).await?.map_err(failed)
    }

    /// Runs statements in their turn as one transaction, which is on the disk when it is reported.
    pub async fn durably<T, E, F>(&self, write: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        self.run(|session| session.durably(write).boxed()).await.map_err(StoreError::from)?
    }

    /// Runs one statement, its own transaction, in its turn.
    pub async fn execute(
        &self,
        statement: Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<SqliteQueryResult, StoreError> {
        self.run(|session| session.execute(statement).boxed()).await?.map_err(failed)
    }

    /// Runs one statement, its own transaction, in its turn, for the rows that it returns.
    pub async fn fetch_all<R>(
        &self,
        statement: QueryAs<'static, Sqlite, R, SqliteArguments>,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        self.run(|session| session.fetch_all(statement).boxed()).await?.map_err(failed)
    }
}

pub struct Session {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    pub committer: Committer,
    /// Whether the last write failed for a reason that lies in the disk or the file rather than in the data.
    pub suspect: bool,
}

impl Session {
    /// The connection; a new one if the last was given up.
    pub async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(self.connection.insert(connection))
    }

    async fn execute(
        &mut self,
        statement: Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<SqliteQueryResult, sqlx::Error> {
        statement.execute(self.connection().await?).await
    }

    async fn fetch_all<R>(
        &mut self,
        statement: QueryAs<'static, Sqlite, R, SqliteArguments>,
    ) -> Result<Vec<R>, sqlx::Error>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        statement.fetch_all(self.connection().await?).await
    }

    async fn durably<T, E, F>(&mut self, write: F) -> Result<T, E>
    where
        E: From<StoreError>,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send,
    {
        let result = self.try_durably(write).await;
        if result.is_err() {
            self.roll_back().await;
        }
        result
    }

    async fn try_durably<T, E, F>(&mut self, write: F) -> Result<T, E>
    where
        E: From<StoreError>,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, E>> + Send,
    {
        let connection = self.connection().await.map_err(failed)?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(failed)?;
        let written = write(connection).await?;
        sqlx::raw_sql("COMMIT").execute(connection).await.map_err(failed)?;
        Ok(written)
    }

    async fn lazily<T, F>(&mut self, write: F) -> Result<T, sqlx::Error>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    {
        let result = self.try_lazily(write).await;
        if result.is_err() {
            self.roll_back().await;
        }
        self.write_through_again().await;
        result
    }

    async fn lazily_at_once<R>(
        &mut self,
        statements: QueryAs<'static, Sqlite, R, SqliteArguments>,
    ) -> Result<Vec<R>, sqlx::Error>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        // A PRAGMA has its effect when it is compiled: a statement that is kept would have it once.
        let result = statements.persistent(false).fetch_all(self.connection().await?).await;
        if result.is_err() {
            self.roll_back().await;
            self.write_through_again().await;
        }
        result
    }

    /// After this commits are on the disk when they are reported.
    async fn write_through_again(&mut self) {
        let durable_again = match &mut self.connection {
            Some(connection) => sqlx::raw_sql("PRAGMA synchronous = FULL").execute(connection).await.map(drop),
            None => Ok(()),
        };
        if let Some(connection) = self.connection.take_if(|_| durable_again.is_err()) {
            drop(connection.close_hard().await);
        }
    }

    async fn try_lazily<T, F>(&mut self, write: F) -> Result<T, sqlx::Error>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    {
        let connection = self.connection().await?;
        sqlx::raw_sql("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let written = write(connection).await?;
        sqlx::raw_sql("COMMIT").execute(connection).await?;
        Ok(written)
    }

    /// Ends whatever transaction is open. SQLite has ended it by itself after some errors; a connection that cannot be
    /// brought back to rest is closed, which undoes what it had not committed.
    pub async fn roll_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match sqlx::query("ROLLBACK").execute(&mut connection).await {
            Ok(_) => self.connection = Some(connection),
            Err(sqlx::Error::Database(error)) if error.message().contains("no transaction is active") => {
                self.connection = Some(connection);
            }
            // A failing close still lets go of the file.
            Err(_) => drop(connection.close_hard().await),
        }
    }
}
