//! Counting events, and how far they were relayed. What is written here may be lost in a crash: it is made again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use skald_core::ids::Shard;
use sqlx::SqliteConnection;

use super::{
    super::{
        StoreError,
        log::stats::{CountRecord, CountRows, CountedRecord, Range, RowsRecord},
    },
    SHARD, SqliteStore, failed,
    writer::Writer,
};

#[async_trait]
impl CountRows for SqliteStore {
    async fn counted(&self) -> Result<Vec<CountedRecord>, StoreError> {
        sqlx::query_as(
            "SELECT s.shard, s.head, coalesce(c.position, 0) AS position
             FROM shards AS s
             LEFT JOIN event_count_cursors AS c ON c.shard = s.shard
             ORDER BY s.shard",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)
    }

    async fn count(&self, range: Range) -> Result<Vec<RowsRecord>, StoreError> {
        sqlx::query_as(
            "SELECT category, events, kind, type, count(*) AS rows
             FROM (SELECT e.events, e.kind, e.type,
                          CASE WHEN e.kind = 'Appended' THEN (SELECT n.category FROM streams AS n WHERE n.id = e.stream)
                               ELSE 'saga' END AS category
                   FROM events AS e
                   WHERE e.position > ?1 AND e.position <= ?2) AS e
             WHERE category IS NOT NULL
             GROUP BY category, events, kind, type",
        )
        .bind(range.after)
        .bind(range.until)
        .fetch_all(&self.readers)
        .await
        .map_err(failed)
    }

    async fn add(&self, range: Range, counts: Vec<CountRecord>) -> Result<(), StoreError> {
        self.writer.lazily(move |connection| add(connection, range, counts).boxed()).await
    }

    async fn sums(&self) -> Result<Vec<CountRecord>, StoreError> {
        sqlx::query_as("SELECT category, type, events FROM event_counts").fetch_all(&self.readers).await.map_err(failed)
    }

    async fn bytes(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
            .fetch_one(&self.readers)
            .await
            .map_err(failed)
    }
}

async fn add(connection: &mut SqliteConnection, range: Range, counts: Vec<CountRecord>) -> Result<(), sqlx::Error> {
    let moved = sqlx::query(
        "INSERT INTO event_count_cursors (shard, position) VALUES (?1, ?3)
         ON CONFLICT (shard) DO UPDATE SET position = excluded.position WHERE position = ?2",
    )
    .bind(range.shard.0)
    .bind(range.after)
    .bind(range.until)
    .execute(&mut *connection)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(());
    }
    for count in counts {
        sqlx::query(
            "INSERT INTO event_counts (category, type, events) VALUES (?, ?, ?)
             ON CONFLICT (category, type) DO UPDATE SET events = events + excluded.events",
        )
        .bind(count.category())
        .bind(count.type_name())
        .bind(count.events())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
pub async fn relayed(pool: &sqlx::SqlitePool, bus: &str) -> Result<BTreeMap<Shard, i64>, StoreError> {
    let position: Option<i64> = sqlx::query_scalar("SELECT position FROM relay_cursors WHERE bus = ?1 AND shard = 0")
        .bind(bus)
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    Ok(position.map(|position| (SHARD, position)).into_iter().collect())
}

pub async fn note_relayed(writer: &Writer, bus: &str, positions: &BTreeMap<Shard, i64>) -> Result<(), StoreError> {
    let Some(position) = positions.get(&SHARD).copied() else { return Ok(()) };
    let noting = sqlx::query(
        "INSERT INTO relay_cursors (bus, shard, position) VALUES (?1, 0, ?2)
         ON CONFLICT (bus, shard) DO UPDATE SET position = excluded.position WHERE position < excluded.position",
    )
    .bind(bus.to_owned())
    .bind(position);
    writer.lazily(|connection| async move { noting.execute(connection).await.map(drop) }.boxed()).await
}
