//! SQL that is written once for SQLite and PostgreSQL: parameters as `$1`, `$2`, rows by column name.
//!
//! Keep to `TEXT`, `BIGINT` and (in the kit's own tables) bytes: they mean the same on both.

use std::sync::Arc;

use rusqlite::types::{FromSql, Value, ValueRef};
use sqlx::{
    Decode, Postgres, Type,
    postgres::{PgArguments, PgRow},
    query::Query,
};

/// A value bound to a statement. Build lists of them with [`params!`](crate::params).
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Param {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Param {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&String> for Param {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<String> for Param {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Param {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<Option<&str>> for Param {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Vec<u8>> for Param {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

/// The parameters of a statement, in order: `params!["c-1", 500_i64]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { ::std::vec![$($crate::Param::from($value)),*] };
}

pub(crate) fn postgres_query(sql: &'static str, params: Vec<Param>) -> Query<'static, Postgres, PgArguments> {
    params.into_iter().fold(sqlx::query(sql), |query, param| match param {
        Param::Text(value) => query.bind(value),
        Param::Int(value) => query.bind(value),
        Param::Bytes(value) => query.bind(value),
    })
}

/// A row of either database.
pub enum Row {
    Sqlite { columns: Arc<[String]>, values: Vec<Value> },
    Postgres(PgRow),
}

impl Row {
    /// The value of a column, e.g. `row.get::<i64>("total")?` or `row.get::<Option<String>>("reason")?`.
    ///
    /// # Errors
    /// The column does not exist or holds another type.
    pub fn get<T>(&self, column: &str) -> Result<T, sqlx::Error>
    where
        T: FromSql + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite { columns, values } => {
                let index = columns.iter().position(|name| name == column);
                let value = index.and_then(|index| values.get(index));
                let value = value.ok_or_else(|| sqlx::Error::ColumnNotFound(column.to_owned()))?;
                T::column_result(ValueRef::from(value))
                    .map_err(|error| sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() })
            }
            Self::Postgres(row) => sqlx::Row::try_get(row, column),
        }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").finish_non_exhaustive()
    }
}
