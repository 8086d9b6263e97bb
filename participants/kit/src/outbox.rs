//! The outbox: events that leave in the same local transaction as the effect they tell of.
//!
//! A handler [emits](Tx::emit) an event into `saga_outbox`; when its transaction has committed, a [`Relay`] posts it to
//! Skald's event store and removes the row. A crash before the commit leaves neither effect nor event; a crash after it
//! leaves the row, which the next relay posts. An event may so be posted twice, which its id makes harmless: the store
//! knows it. Events of one stream are posted in the order in which they were emitted.
//!
//! What the store refuses for good (the saga has ended, or an operator decided otherwise) stays in the table with the
//! reason, for people to look at, and holds nothing back.

mod poster;
mod relay;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;

pub use self::relay::{KeepRefused, Refusals, Refused, Relay, RelayOptions};
use crate::{db::Db, params, sql::Row, tx::Tx};

/// More than this many committed events are left to the table, until the relay has caught up.
const FRESH_MAX: usize = 10_000;

/// An event on its way to the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outgoing {
    #[serde(skip)]
    pub stream: String,
    /// Names the event for good: the store takes it once.
    pub event_id: String,
    /// The domain name; for a saga's own events left out, since the definition names them.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub type_name: Option<String>,
    pub data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub correlation_id: Option<String>,
    /// The id of the event that led to this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub causation_id: Option<String>,
}

/// An event in the table.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) event: Arc<Outgoing>,
}

/// What was committed in this process and not yet taken by its relay: spares it from asking the table.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    entries: Mutex<VecDeque<Entry>>,
    /// Whether a relay runs; without one nobody would take what is put here.
    relayed: AtomicBool,
    /// Whether something was left to the table.
    overflowed: AtomicBool,
    arrived: Notify,
}

impl Fresh {
    pub(crate) fn put(&self, committed: Vec<Entry>) {
        if committed.is_empty() || !self.relayed.load(Ordering::SeqCst) {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() + committed.len() > FRESH_MAX {
            self.overflowed.store(true, Ordering::SeqCst);
        } else {
            entries.extend(committed);
        }
        drop(entries);
        self.arrived.notify_one();
    }

    fn take(&self) -> VecDeque<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const TABLES_SQLITE: &[&str] = &["CREATE TABLE IF NOT EXISTS saga_outbox (
         id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, event_id TEXT NOT NULL UNIQUE, event TEXT NOT NULL,
         put_at_us BIGINT NOT NULL, refused TEXT
     )"];

const TABLES_POSTGRES: &[&str] = &["CREATE TABLE IF NOT EXISTS saga_outbox (
         id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream TEXT NOT NULL, event_id TEXT NOT NULL UNIQUE,
         event TEXT NOT NULL, put_at_us BIGINT NOT NULL, refused TEXT
     )"];

pub(crate) async fn create_tables(db: &Db) -> sqlx::Result<()> {
    db.create(if db.is_postgres() { TABLES_POSTGRES } else { TABLES_SQLITE }).await
}

/// Writes an event into the table; `None` when one with its id waits there already.
pub(crate) async fn insert(tx: &mut Tx, event: &Outgoing) -> sqlx::Result<Option<i64>> {
    let sql = "INSERT INTO saga_outbox (stream, event_id, event, put_at_us) VALUES ($1, $2, $3, $4)
               ON CONFLICT (event_id) DO NOTHING RETURNING id";
    let text = serde_json::to_string(event).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let params = params![&event.stream, &event.event_id, text, Utc::now().timestamp_micros()];
    tx.row(sql, params).await?.map(|row| row.get("id")).transpose()
}

/// An event that the store refused for good.
#[derive(Debug, Clone)]
pub struct RefusedEvent {
    pub event: Outgoing,
    /// What the store answered.
    pub reason: String,
}

/// The events that the store has refused, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn refused(db: &Db, limit: i64) -> sqlx::Result<Vec<RefusedEvent>> {
    let sql = "SELECT id, stream, event, refused FROM saga_outbox WHERE refused IS NOT NULL ORDER BY id LIMIT $1";
    let rows = db.rows(sql, params![limit]).await?;
    rows.iter().map(|row| Ok(RefusedEvent { event: outgoing(row)?, reason: row.get("refused")? })).collect()
}

/// How many events wait to be posted.
///
/// # Errors
/// The database's.
pub async fn waiting(db: &Db) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) AS waiting FROM saga_outbox WHERE refused IS NULL";
    db.row(sql, params![]).await?.map_or(Ok(0), |row| row.get("waiting"))
}

/// The events after `id` that were put before `before_us`, in order.
async fn page(db: &Db, after: i64, before_us: i64, limit: i64) -> sqlx::Result<Vec<Entry>> {
    let sql = "SELECT id, stream, event FROM saga_outbox
               WHERE id > $1 AND refused IS NULL AND put_at_us <= $2 ORDER BY id LIMIT $3";
    let rows = db.rows(sql, params![after, before_us, limit]).await?;
    rows.iter().map(|row| Ok(Entry { id: row.get("id")?, event: Arc::new(outgoing(row)?) })).collect()
}

fn outgoing(row: &Row) -> sqlx::Result<Outgoing> {
    let text: String = row.get("event")?;
    let event: Outgoing = serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Outgoing { stream: row.get("stream")?, ..event })
}

/// Removes what was posted.
async fn remove(db: &Db, ids: &[i64]) -> Result<(), crate::Failure> {
    let sql = if db.is_postgres() {
        "DELETE FROM saga_outbox WHERE id IN (SELECT value::bigint FROM json_array_elements_text($1::json))"
    } else {
        "DELETE FROM saga_outbox WHERE id IN (SELECT value FROM json_each($1))"
    };
    let ids = serde_json::Value::from(ids).to_string();
    db.transaction(move |tx| Box::pin(async move { Ok(tx.execute(sql, params![ids]).await.map(drop)?) })).await
}

/// Notes why the store wants an event never.
async fn refuse(db: &Db, id: i64, reason: String) -> Result<(), crate::Failure> {
    let sql = "UPDATE saga_outbox SET refused = $2 WHERE id = $1";
    db.transaction(move |tx| Box::pin(async move { Ok(tx.execute(sql, params![id, reason]).await.map(drop)?) })).await
}
