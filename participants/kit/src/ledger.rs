//! The ledger: every effect, with the key that caused it, written in the effect's own transaction.
//!
//! A checker reads it to know what really happened, without trusting the orchestrator. Rejections,
//! tombstones and undos that found nothing to undo are no effects and are not in it. Entries are
//! never changed or removed. On PostgreSQL ids are given out before commits, so an entry with a lower
//! id may appear after one with a higher: a reader that follows a live ledger should read again from
//! a little earlier; one that reads after the work has ended sees everything.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::{call::CallContext, db::Db, params, sql::Row, tx::Tx};

/// An effect to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    pub key: &'a str,
    pub saga_id: &'a str,
    pub step: &'a str,
    /// `action`, `compensation`, or what the service did by itself, e.g. `expiry`.
    pub operation: &'a str,
    pub effect: &'a str,
    pub detail: &'a Value,
}

/// An effect as recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recorded {
    pub id: i64,
    /// RFC 3339, UTC.
    pub at: String,
    pub key: String,
    pub saga_id: String,
    pub step: String,
    pub operation: String,
    pub effect: String,
    pub detail: Value,
}

/// Which entries to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only entries with a higher id.
    pub after: i64,
    pub saga_id: Option<String>,
    pub limit: i64,
}

/// Records an effect. The barrier does so for what a [`Reply`](crate::Reply) states; use this for
/// what a service does by itself.
///
/// # Errors
/// The database's.
pub async fn append(tx: &mut Tx, entry: Entry<'_>) -> sqlx::Result<()> {
    tx.execute(
        "INSERT INTO saga_ledger (at_us, key, saga_id, step, operation, effect, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            Utc::now().timestamp_micros(),
            entry.key,
            entry.saga_id,
            entry.step,
            entry.operation,
            entry.effect,
            entry.detail.to_string(),
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn append_effect(tx: &mut Tx, call: &CallContext, effect: &str, detail: &Value) -> sqlx::Result<()> {
    let entry = Entry {
        key: &call.key.to_string(),
        saga_id: &call.saga_id().to_string(),
        step: call.step(),
        operation: call.operation().as_str(),
        effect,
        detail,
    };
    append(tx, entry).await
}

/// Reads entries in the order of their ids.
///
/// # Errors
/// The database's.
pub async fn read(db: &Db, query: Query) -> sqlx::Result<Vec<Recorded>> {
    let rows = match query.saga_id {
        None => {
            let sql = "SELECT id, at_us, key, saga_id, step, operation, effect, detail FROM saga_ledger
                       WHERE id > $1 ORDER BY id LIMIT $2";
            db.rows(sql, params![query.after, query.limit]).await?
        }
        Some(saga_id) => {
            let sql = "SELECT id, at_us, key, saga_id, step, operation, effect, detail FROM saga_ledger
                       WHERE saga_id = $3 AND id > $1 ORDER BY id LIMIT $2";
            db.rows(sql, params![query.after, query.limit, saga_id]).await?
        }
    };
    rows.iter().map(recorded).collect()
}

fn recorded(row: &Row) -> sqlx::Result<Recorded> {
    let at = DateTime::from_timestamp_micros(row.get("at_us")?).unwrap_or_default();
    let detail: String = row.get("detail")?;
    Ok(Recorded {
        id: row.get("id")?,
        at: at.to_rfc3339_opts(SecondsFormat::Micros, true),
        key: row.get("key")?,
        saga_id: row.get("saga_id")?,
        step: row.get("step")?,
        operation: row.get("operation")?,
        effect: row.get("effect")?,
        detail: serde_json::from_str(&detail).unwrap_or(Value::String(detail)),
    })
}
