//! A sorted heap of ledger entries that need not fit the memory: a throwaway SQLite file.
//!
//! Ledgers come in the order in which services wrote them, one service after the other; whoever reconciles wants them
//! saga by saga. The file goes with the value; a crash leaves it to the system's cleaning of temporary files.

use futures_util::TryStreamExt as _;
use sqlx::{
    ConnectOptions as _, Connection as _, FromRow, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::StoreError;

/// What the file's own cache may take.
const CACHE_KIB: &str = "-16384";

#[derive(Debug)]
pub struct Scratch {
    connection: SqliteConnection,
    _folder: tempfile::TempDir,
}

/// One entry of a service's ledger.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Effect {
    /// As the service wrote it; of a saga's id, in its usual form.
    pub saga: String,
    pub service: String,
    /// In the order of the service's ledger.
    pub id: i64,
    pub at_us: i64,
    pub step: String,
    pub operation: String,
    pub effect: String,
    /// JSON text; empty when it was too large to keep.
    pub detail: String,
}

impl Scratch {
    pub async fn create() -> Result<Self, StoreError> {
        let no_room = |error: &dyn std::fmt::Display| StoreError::Open(format!("a temporary file: {error}"));
        let folder = tempfile::Builder::new().prefix("skald-verify-").tempdir().map_err(|error| no_room(&error))?;
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("ledgers.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", CACHE_KIB)
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(|error| no_room(&error))?;
        sqlx::raw_sql(
            "CREATE TABLE effects (
                saga      TEXT NOT NULL,
                service   TEXT NOT NULL,
                id        INTEGER NOT NULL,
                at_us     INTEGER NOT NULL,
                step      TEXT NOT NULL,
                operation TEXT NOT NULL,
                effect    TEXT NOT NULL,
                detail    TEXT NOT NULL,
                PRIMARY KEY (saga, service, id)
             ) WITHOUT ROWID",
        )
        .execute(&mut connection)
        .await
        .map_err(|error| no_room(&error))?;
        Ok(Self { connection, _folder: folder })
    }

    pub async fn add(&mut self, effects: &[Effect]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await.map_err(failed)?;
        for effect in effects {
            sqlx::query(
                "INSERT INTO effects (saga, service, id, at_us, step, operation, effect, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .bind(&effect.saga)
            .bind(&effect.service)
            .bind(effect.id)
            .bind(effect.at_us)
            .bind(&effect.step)
            .bind(&effect.operation)
            .bind(&effect.effect)
            .bind(&effect.detail)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Visits the entries of sagas after `after` up to `through` (None: to the last one), by saga, service and id.
    pub async fn visit(
        &mut self,
        after: &str,
        through: Option<&str>,
        mut visit: impl FnMut(Effect) + Send,
    ) -> Result<(), StoreError> {
        let mut effects = sqlx::query_as::<_, Effect>(
            "SELECT saga, service, id, at_us, step, operation, effect, detail
             FROM effects
             WHERE saga > ?1 AND (?2 IS NULL OR saga <= ?2)
             ORDER BY saga, service, id",
        )
        .bind(after)
        .bind(through)
        .fetch(&mut self.connection);
        while let Some(effect) = effects.try_next().await.map_err(failed)? {
            visit(effect);
        }
        Ok(())
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(saga: &str, service: &str, id: i64) -> Effect {
        let text = str::to_owned;
        let (saga, service) = (text(saga), text(service));
        let (step, operation, effect, detail) = (text("pay"), text("action"), text("paid"), text("{}"));
        Effect { saga, service, id, at_us: id, step, operation, effect, detail }
    }

    #[tokio::test]
    async fn entries_come_back_by_saga_within_the_bounds() {
        let mut scratch = Scratch::create().await.unwrap();
        let entries = [effect("b", "sales", 1), effect("a", "sales", 2), effect("c", "sales", 3)];
        scratch.add(&entries).await.unwrap();
        scratch.add(&[effect("b", "catalog", 9), effect("b", "catalog", 7)]).await.unwrap();
        let mut seen = Vec::new();
        for (after, through) in [("", Some("a")), ("a", Some("b")), ("b", None)] {
            scratch.visit(after, through, |effect| seen.push((effect.saga, effect.service, effect.id))).await.unwrap();
        }
        let seen: Vec<_> = seen.iter().map(|(saga, service, id)| (saga.as_str(), service.as_str(), *id)).collect();
        assert_eq!(
            seen,
            [("a", "sales", 2), ("b", "catalog", 7), ("b", "catalog", 9), ("b", "sales", 1), ("c", "sales", 3)]
        );
        assert!(scratch.add(&[effect("b", "sales", 1)]).await.is_err(), "a ledger gives each entry once");
    }
}
