//! A connection to an SQLite file: statements run where they are called, without a thread between.

use std::{borrow::Cow, error::Error as StdError, fmt, path::Path, sync::Arc, time::Duration};

use rusqlite::{
    CachedStatement, Connection, OpenFlags, ToSql,
    types::{ToSqlOutput, Value, ValueRef},
};
use sqlx::error::{DatabaseError, ErrorKind};

use crate::sql::{Param, Row};

/// How long another process may hold the file before a statement fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than a service has statements.
const STATEMENTS_MAX: usize = 200;

#[derive(Debug)]
pub(crate) struct Conn(Connection);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Also makes the file when it is missing.
    Write,
    Read,
}

impl Conn {
    pub(super) fn open(path: &Path, purpose: Purpose) -> sqlx::Result<Self> {
        let access = match purpose {
            Purpose::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Purpose::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let conn = Self(conn);
        if purpose == Purpose::Write {
            for sql in [
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
                // In pages, 16 MiB: carrying the log over to the file costs syncs of its own, so it should be rare.
                "PRAGMA wal_autocheckpoint = 4000",
                // In bytes: what the log's file is cut back to.
                "PRAGMA journal_size_limit = 67108864",
            ] {
                conn.run(sql)?;
            }
        }
        Ok(conn)
    }

    /// Runs a statement without parameters.
    pub(super) fn run(&self, sql: &str) -> sqlx::Result<()> {
        self.execute(sql, &[]).map(drop)
    }

    /// Runs a statement and gives the number of rows that it changed.
    pub(crate) fn execute(&self, sql: &str, params: &[Param]) -> sqlx::Result<u64> {
        let mut statement = self.statement(sql, params)?;
        let mut rows = statement.raw_query();
        while rows.next().map_err(failed)?.is_some() {}
        drop(rows);
        Ok(self.0.changes())
    }

    pub(crate) fn rows(&self, sql: &str, params: &[Param]) -> sqlx::Result<Vec<Row>> {
        let mut statement = self.statement(sql, params)?;
        let columns: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut found = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns.len()).map(|index| row.get::<_, Value>(index)).collect::<Result<_, _>>();
            found.push(Row::Sqlite { columns: columns.clone(), values: values.map_err(failed)? });
        }
        Ok(found)
    }

    fn statement(&self, sql: &str, params: &[Param]) -> sqlx::Result<CachedStatement<'_>> {
        let mut statement = self.0.prepare_cached(sql).map_err(failed)?;
        for index in 1..=statement.parameter_count() {
            // To SQLite `$1` is a name, and the names are numbered as they appear.
            let number = statement.parameter_name(index).and_then(|name| name[1..].parse::<usize>().ok());
            let param = number.and_then(|number| params.get(number.checked_sub(1)?));
            let param =
                param.ok_or_else(|| sqlx::Error::Protocol(format!("parameter {index} of `{sql}` is missing")))?;
            statement.raw_bind_parameter(index, param).map_err(failed)?;
        }
        Ok(statement)
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Text(value) => value.as_ref().map(|text| ValueRef::Text(text.as_bytes())),
            Self::Int(value) => value.map(ValueRef::Integer),
            Self::Bytes(value) => value.as_ref().map(|bytes| ValueRef::Blob(bytes)),
        };
        Ok(ToSqlOutput::Borrowed(value.unwrap_or(ValueRef::Null)))
    }
}

/// An error of SQLite as sqlx would give it: known by its extended code.
#[derive(Debug)]
struct SqliteFailure {
    code: i32,
    message: String,
}

impl fmt::Display for SqliteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(code: {}) {}", self.code, self.message)
    }
}

impl StdError for SqliteFailure {}

impl DatabaseError for SqliteFailure {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        use rusqlite::ffi;
        match self.code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
                ErrorKind::UniqueViolation
            }
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ErrorKind::ForeignKeyViolation,
            ffi::SQLITE_CONSTRAINT_NOTNULL => ErrorKind::NotNullViolation,
            ffi::SQLITE_CONSTRAINT_CHECK => ErrorKind::CheckViolation,
            _ => ErrorKind::Other,
        }
    }
}

fn failed(error: rusqlite::Error) -> sqlx::Error {
    match error {
        rusqlite::Error::SqliteFailure(cause, message) => {
            let message = message.unwrap_or_else(|| cause.to_string());
            sqlx::Error::Database(Box::new(SqliteFailure { code: cause.extended_code, message }))
        }
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
