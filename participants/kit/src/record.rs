//! The row of an action key: what was answered to the action and to its compensation, and what that
//! means for the next call. One row for both is what serialises them.
//!
//! | action answered | compensation answered | a new action        | a new compensation          |
//! | --------------- | --------------------- | ------------------- | --------------------------- |
//! | no              | no                    | runs                | tombstone: succeeds, no run |
//! | succeeded       | no                    | stored answer       | runs the undo               |
//! | refused         | no                    | stored answer       | succeeds, no run            |
//! | no              | yes                   | 409 `cancelled`     | stored answer               |
//! | yes             | yes                   | stored answer       | stored answer               |
//!
//! A stored answer goes only to the same request again; a different one under the same key is 400. A tombstone that was
//! planted without a compensation's request answers any.

use crate::{answer::Answer, call::CallContext, db::Db, key::Operation, params, sql::Row, tx::Tx};

const TABLES_SQLITE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS saga_calls (
         action_key TEXT NOT NULL PRIMARY KEY,
         action_hash BLOB, action_status BIGINT, action_type TEXT, action_body BLOB,
         undo_hash BLOB, undo_status BIGINT, undo_type TEXT, undo_body BLOB
     ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS saga_ledger (
         id INTEGER PRIMARY KEY AUTOINCREMENT, at_us BIGINT NOT NULL, key TEXT NOT NULL, saga_id TEXT NOT NULL,
         step TEXT NOT NULL, operation TEXT NOT NULL, effect TEXT NOT NULL, detail TEXT NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS saga_ledger_saga ON saga_ledger (saga_id, id)",
];

// The "C" collation makes the order of the keys the order of the sagas' times, as in SQLite.
const TABLES_POSTGRES: &[&str] = &[
    r#"CREATE TABLE IF NOT EXISTS saga_calls (
         action_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
         action_hash BYTEA, action_status BIGINT, action_type TEXT, action_body BYTEA,
         undo_hash BYTEA, undo_status BIGINT, undo_type TEXT, undo_body BYTEA
     ) WITH (fillfactor = 70)"#,
    "CREATE TABLE IF NOT EXISTS saga_ledger (
         id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us BIGINT NOT NULL, key TEXT NOT NULL,
         saga_id TEXT NOT NULL, step TEXT NOT NULL, operation TEXT NOT NULL, effect TEXT NOT NULL, detail TEXT NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS saga_ledger_saga ON saga_ledger (saga_id, id)",
];

/// The fingerprint of an answer that fits every request.
const OF_ANY_REQUEST: &[u8] = &[];

pub(crate) async fn create_tables(db: &Db) -> sqlx::Result<()> {
    db.create(if db.is_postgres() { TABLES_POSTGRES } else { TABLES_SQLITE }).await
}

/// An answer given before, and the fingerprint of the request that it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) answer: Answer,
}

impl Stored {
    fn took_effect(&self) -> bool {
        (200..300).contains(&self.answer.status)
    }
}

/// What is known about a step.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) action: Option<Stored>,
    pub(crate) undo: Option<Stored>,
}

/// What to do with a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Run the handler.
    Run,
    /// Give the stored answer again.
    Replay(Answer),
    /// The key belongs to another request.
    KeyReused,
    /// An action whose compensation came first.
    Cancelled,
    /// A compensation that has nothing to undo.
    NothingToUndo,
}

impl Record {
    pub(crate) fn judge(&self, call: &CallContext) -> Verdict {
        let own = match call.operation() {
            Operation::Action => &self.action,
            Operation::Compensation => &self.undo,
        };
        match own {
            Some(stored) if stored.fingerprint == call.fingerprint || stored.fingerprint == OF_ANY_REQUEST => {
                Verdict::Replay(stored.answer.clone())
            }
            Some(_) => Verdict::KeyReused,
            None => match call.operation() {
                Operation::Action if self.undo.is_some() => Verdict::Cancelled,
                Operation::Action => Verdict::Run,
                Operation::Compensation if self.action.as_ref().is_some_and(Stored::took_effect) => Verdict::Run,
                Operation::Compensation => Verdict::NothingToUndo,
            },
        }
    }
}

/// Inserts the action key's row, or waits for and locks the one that exists.
pub(crate) async fn lock(tx: &mut Tx, call: &CallContext) -> sqlx::Result<Record> {
    let sql = "INSERT INTO saga_calls (action_key) VALUES ($1)
               ON CONFLICT (action_key) DO UPDATE SET action_key = excluded.action_key
               RETURNING action_hash, action_status, action_type, action_body,
                         undo_hash, undo_status, undo_type, undo_body";
    let row = tx.row(sql, params![call.key.of_action().to_string()]).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(Record {
        action: stored(&row, ["action_hash", "action_status", "action_type", "action_body"])?,
        undo: stored(&row, ["undo_hash", "undo_status", "undo_type", "undo_body"])?,
    })
}

fn stored(row: &Row, [hash, status, content_type, body]: [&str; 4]) -> sqlx::Result<Option<Stored>> {
    let Some(fingerprint) = row.get::<Option<Vec<u8>>>(hash)? else { return Ok(None) };
    let status: i64 = row.get(status)?;
    let answer = Answer {
        status: u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))?,
        content_type: row.get(content_type)?,
        headers: Vec::new(),
        body: row.get(body)?,
    };
    Ok(Some(Stored { fingerprint, answer }))
}

/// Stores the answer in the row that [`lock`] holds.
pub(crate) async fn store(tx: &mut Tx, call: &CallContext, answer: &Answer) -> sqlx::Result<()> {
    let sql = match call.operation() {
        Operation::Action => {
            "UPDATE saga_calls SET action_hash = $2, action_status = $3, action_type = $4, action_body = $5
             WHERE action_key = $1"
        }
        Operation::Compensation => {
            "UPDATE saga_calls SET undo_hash = $2, undo_status = $3, undo_type = $4, undo_body = $5
             WHERE action_key = $1"
        }
    };
    let params = params![
        call.key.of_action().to_string(),
        call.fingerprint.to_vec(),
        i64::from(answer.status),
        answer.content_type.clone(),
        answer.body.clone(),
    ];
    match tx.execute(sql, params).await? {
        1 => Ok(()),
        _ => Err(sqlx::Error::RowNotFound),
    }
}

/// Stores the answer of a compensation that was never called, for whatever request may come.
pub(crate) async fn plant_tombstone(tx: &mut Tx, call: &CallContext, answer: &Answer) -> sqlx::Result<()> {
    let sql = "UPDATE saga_calls SET undo_hash = $2, undo_status = $3, undo_type = $4, undo_body = $5
               WHERE action_key = $1";
    let params = params![
        call.key.of_action().to_string(),
        OF_ANY_REQUEST.to_vec(),
        i64::from(answer.status),
        answer.content_type.clone(),
        answer.body.clone(),
    ];
    tx.execute(sql, params).await.map(drop)
}

/// Removes the rows of sagas created before `time_ms` (Unix time). Keys begin with a UUIDv7, whose
/// text begins with its time.
pub(crate) async fn purge(tx: &mut Tx, time_ms: u64) -> sqlx::Result<u64> {
    let bound = format!("{:08x}-{:04x}", time_ms >> 16, time_ms & 0xffff);
    tx.execute("DELETE FROM saga_calls WHERE action_key < $1", params![bound]).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(operation: &str, body: &str) -> CallContext {
        let saga = "0190163d-8694-739b-aea5-966c26f8ad91";
        let key = format!("\"{saga}:s:{operation}\"");
        let action = format!("{saga}:s:action");
        let mut headers = vec![("Idempotency-Key", key.as_str())];
        if operation == "compensation" {
            headers.extend([("Saga-Compensates", action.as_str()), ("Saga-Outcome", "unknown")]);
        }
        CallContext::parse("POST", "/", headers, body.as_bytes()).unwrap()
    }

    fn answered(operation: &str, status: u16) -> Option<Stored> {
        let fingerprint = call(operation, "{}").fingerprint.to_vec();
        Some(Stored { fingerprint, answer: Answer::json(status, &json!(status)) })
    }

    #[test]
    fn the_table_of_verdicts_holds() {
        let replay = |status| Verdict::Replay(Answer::json(status, &json!(status)));
        let table = [
            (None, None, Verdict::Run, Verdict::NothingToUndo),
            (Some(200), None, replay(200), Verdict::Run),
            (Some(422), None, replay(422), Verdict::NothingToUndo),
            (None, Some(200), Verdict::Cancelled, replay(200)),
            (Some(409), Some(201), replay(409), replay(201)),
            (Some(200), Some(201), replay(200), replay(201)),
        ];
        for (action, undo, to_action, to_undo) in table {
            let record = Record {
                action: action.and_then(|status| answered("action", status)),
                undo: undo.and_then(|status| answered("compensation", status)),
            };
            assert_eq!(record.judge(&call("action", "{}")), to_action, "{record:?}");
            assert_eq!(record.judge(&call("compensation", "{}")), to_undo, "{record:?}");
            if record.action.is_some() {
                assert_eq!(record.judge(&call("action", "{ }")), Verdict::KeyReused);
            }
            if record.undo.is_some() {
                assert_eq!(record.judge(&call("compensation", "{ }")), Verdict::KeyReused);
            }
        }
    }
}
