//! The database of one server: where it is, and reading it past the server.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::postgres::OwnDatabase;

/// Which of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// A new, empty database that goes with the test.
#[derive(Debug)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(OwnDatabase),
}

impl Database {
    pub async fn create(backend: Backend, folder: &Path, purpose: &str) -> Self {
        match backend {
            Backend::Sqlite => Self::Sqlite(folder.join(format!("{purpose}.db"))),
            Backend::Postgres => Self::Postgres(OwnDatabase::create(purpose).await),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(database) => database.url(),
        }
    }

    /// An id column as text that [`uuid::Uuid`] can parse.
    pub fn id_text(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("lower(hex({column}))"),
            Self::Postgres(_) => format!("{column}::text"),
        }
    }

    /// Runs statements as someone could who has all rights, past every rule. On PostgreSQL no trigger strikes; on SQLite
    /// those that are in the way must be dropped first.
    pub async fn tamper(&self, sql: &str) {
        let failed = |error: sqlx::Error| -> ! { panic!("{sql}: {error}") };
        let done = match self {
            Self::Sqlite(path) => {
                let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await;
                let connection = connection.as_mut().expect("the file is there");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
            }
            Self::Postgres(database) => {
                let mut connection =
                    PgConnection::connect(&database.url()).await.expect("the server takes connections");
                let sql = format!("SET session_replication_role = replica; {sql}");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map(drop)
            }
        };
        done.unwrap_or_else(|error| failed(error));
    }

    /// A saga's id as a literal of SQL.
    pub fn id_literal(&self, id: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("x'{}'", id.replace('-', "")),
            Self::Postgres(_) => format!("'{id}'::uuid"),
        }
    }

    /// Runs a query whose every column is text.
    pub async fn texts<const N: usize>(&self, sql: String) -> Vec<[Option<String>; N]> {
        let failed = |error: sqlx::Error| -> ! { panic!("{sql}: {error}") };
        macro_rules! rows {
            ($connection:expr) => {{
                let mut connection = $connection.await.unwrap_or_else(|error| failed(error));
                let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut connection).await;
                let rows = rows.unwrap_or_else(|error| failed(error));
                rows.iter().map(|row| std::array::from_fn(|column| row.get(column))).collect()
            }};
        }
        match self {
            Self::Sqlite(path) => {
                let url = format!("sqlite:{}?mode=ro", path.display());
                rows!(SqliteConnection::connect(&url))
            }
            Self::Postgres(database) => rows!(PgConnection::connect(&database.url())),
        }
    }
}
