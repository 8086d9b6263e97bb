//! The tables of the read models, and statements for many rows at once: a page of events is a few round trips.

use std::{collections::BTreeMap, sync::LazyLock};

use skald_kit::{Param, Tx, params};

use super::projection::RowKey;

pub(super) const TABLES: &[&str] = &[
    // Which generation is read.
    "CREATE TABLE IF NOT EXISTS view_projections (
         name TEXT NOT NULL PRIMARY KEY,
         generation BIGINT NOT NULL,
         generations BIGINT NOT NULL,
         built_at_us BIGINT NOT NULL
     )",
    // How far a generation has come. A revision is one page.
    "CREATE TABLE IF NOT EXISTS view_generations (
         projection TEXT NOT NULL,
         generation BIGINT NOT NULL,
         revision BIGINT NOT NULL,
         log_cursor TEXT,
         reached TEXT NOT NULL,
         events BIGINT NOT NULL,
         last_event_us BIGINT,
         PRIMARY KEY (projection, generation)
     )",
    "CREATE TABLE IF NOT EXISTS view_rows (
         projection TEXT NOT NULL,
         generation BIGINT NOT NULL,
         key TEXT NOT NULL,
         item TEXT NOT NULL,
         value TEXT NOT NULL,
         PRIMARY KEY (projection, generation, key, item)
     )",
    "CREATE INDEX IF NOT EXISTS view_summaries ON view_rows (projection, generation, key) WHERE item = ''",
    // What a fold keeps of a stream.
    "CREATE TABLE IF NOT EXISTS view_streams (
         projection TEXT NOT NULL,
         generation BIGINT NOT NULL,
         stream TEXT NOT NULL,
         state TEXT NOT NULL,
         PRIMARY KEY (projection, generation, stream)
     )",
];

/// Rows of one statement. Smaller ones make up the rest.
const SIZES: [usize; 3] = [32, 8, 1];

/// A statement in each of the sizes.
struct Sized([LazyLock<String>; 3]);

impl Sized {
    /// The largest that `rows` rows fill: its size and text.
    fn for_rows(&'static self, rows: usize) -> (usize, &'static str) {
        let index = SIZES.iter().position(|size| *size <= rows).unwrap_or(SIZES.len() - 1);
        (SIZES[index], &self.0[index])
    }
}

macro_rules! sized {
    ($text:expr) => {
        Sized([
            LazyLock::new(|| ($text)(SIZES[0])),
            LazyLock::new(|| ($text)(SIZES[1])),
            LazyLock::new(|| ($text)(SIZES[2])),
        ])
    };
}

/// Rows of `$1, $2` (projection and generation) and `columns` parameters each: `($1,$2,$3,$4), ($1,$2,$5,$6)`.
fn rows_of(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let params: Vec<String> = (0..columns).map(|column| format!("${}", 3 + row * columns + column)).collect();
        format!("($1, $2, {})", params.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$3, $4, ..`
fn list_of(count: usize) -> String {
    (3..3 + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

static PUT_ROWS: Sized = sized!(|rows| format!(
    "INSERT INTO view_rows (projection, generation, key, item, value) VALUES {}
     ON CONFLICT (projection, generation, key, item) DO UPDATE SET value = excluded.value",
    rows_of(rows, 3)
));

static DROP_ROWS: Sized = sized!(|rows: usize| {
    let pairs: Vec<String> = (0..rows).map(|row| format!("(${}, ${})", 3 + 2 * row, 4 + 2 * row)).collect();
    format!(
        "DELETE FROM view_rows WHERE projection = $1 AND generation = $2 AND (key, item) IN (VALUES {})",
        pairs.join(", ")
    )
});

static PUT_STATES: Sized = sized!(|rows| format!(
    "INSERT INTO view_streams (projection, generation, stream, state) VALUES {}
     ON CONFLICT (projection, generation, stream) DO UPDATE SET state = excluded.state",
    rows_of(rows, 2)
));

static DROP_STATES: Sized = sized!(|rows| format!(
    "DELETE FROM view_streams WHERE projection = $1 AND generation = $2 AND stream IN ({})",
    list_of(rows)
));

static STATES: Sized = sized!(|rows| format!(
    "SELECT stream AS name, state AS value FROM view_streams
     WHERE projection = $1 AND generation = $2 AND stream IN ({})",
    list_of(rows)
));

static SUMMARIES: Sized = sized!(|rows| format!(
    "SELECT key AS name, value FROM view_rows
     WHERE projection = $1 AND generation = $2 AND item = '' AND key IN ({})",
    list_of(rows)
));

/// The rows of one generation, in a transaction.
pub(super) struct Rows<'t> {
    pub(super) tx: &'t mut Tx,
    pub(super) projection: &'static str,
    pub(super) generation: i64,
}

impl Rows<'_> {
    pub(super) async fn states(&mut self, streams: Vec<String>) -> sqlx::Result<BTreeMap<String, String>> {
        self.read(&STATES, streams).await
    }

    pub(super) async fn summaries(&mut self, keys: Vec<String>) -> sqlx::Result<BTreeMap<String, String>> {
        self.read(&SUMMARIES, keys).await
    }

    /// None: the row goes.
    pub(super) async fn write(&mut self, rows: BTreeMap<RowKey, Option<String>>) -> sqlx::Result<()> {
        let (mut put, mut drop) = (Vec::new(), Vec::new());
        for ((key, item), value) in rows {
            match value {
                Some(value) => put.push(params![key, item, value]),
                None => drop.push(params![key, item]),
            }
        }
        self.execute(&PUT_ROWS, put).await?;
        self.execute(&DROP_ROWS, drop).await
    }

    /// None: the state is not needed any more.
    pub(super) async fn keep(&mut self, states: BTreeMap<String, Option<String>>) -> sqlx::Result<()> {
        let (mut put, mut drop) = (Vec::new(), Vec::new());
        for (stream, state) in states {
            match state {
                Some(state) => put.push(params![stream, state]),
                None => drop.push(params![stream]),
            }
        }
        self.execute(&PUT_STATES, put).await?;
        self.execute(&DROP_STATES, drop).await
    }

    async fn read(&mut self, statement: &'static Sized, names: Vec<String>) -> sqlx::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let mut rest = names.as_slice();
        while !rest.is_empty() {
            let (size, sql) = statement.for_rows(rest.len());
            let (now, later) = rest.split_at(size);
            rest = later;
            for row in self.tx.rows(sql, self.params(now.iter().map(|name| params![name]))).await? {
                found.insert(row.get("name")?, row.get("value")?);
            }
        }
        Ok(found)
    }

    async fn execute(&mut self, statement: &'static Sized, rows: Vec<Vec<Param>>) -> sqlx::Result<()> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let (size, sql) = statement.for_rows(rows.len());
            let params = self.params(rows.by_ref().take(size));
            self.tx.execute(sql, params).await?;
        }
        Ok(())
    }

    fn params(&self, rows: impl Iterator<Item = Vec<Param>>) -> Vec<Param> {
        params![self.projection, self.generation].into_iter().chain(rows.flatten()).collect()
    }
}
