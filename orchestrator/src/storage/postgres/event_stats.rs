//! Counting events, and how far they were relayed. What is written here may be lost in a crash: it is made again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skald_core::ids::Shard;

use super::{
    super::{
        StoreError,
        log::stats::{CountRecord, CountRows, CountedRecord, Range, RowsRecord},
    },
    PostgresStore, failed,
    sessions::Sessions,
};

#[async_trait]
impl CountRows for PostgresStore {
    async fn counted(&self) -> Result<Vec<CountedRecord>, StoreError> {
        self.log
            .fetch(sqlx::query_as(
                "SELECT s.shard, s.head, coalesce(c.position, 0) AS position
                 FROM shards AS s
                 LEFT JOIN event_count_cursors AS c ON c.shard = s.shard
                 ORDER BY s.shard",
            ))
            .await
    }

    async fn count(&self, range: Range) -> Result<Vec<RowsRecord>, StoreError> {
        let counting = sqlx::query_as(
            "SELECT category, events, kind, type, count(*) AS rows
             FROM (SELECT e.events, e.kind, e.type,
                          CASE WHEN e.kind = 'Appended' THEN (SELECT n.category FROM streams AS n WHERE n.id = e.stream)
                               ELSE 'saga' END AS category
                   FROM events AS e
                   WHERE e.shard = $1 AND e.position > $2 AND e.position <= $3) AS e
             WHERE category IS NOT NULL
             GROUP BY category, events, kind, type",
        );
        let counting = counting.bind(i32::from(range.shard.0)).bind(range.after).bind(range.until);
        self.log.fetch(counting).await
    }

    async fn add(&self, range: Range, counts: Vec<CountRecord>) -> Result<(), StoreError> {
        let categories: Vec<String> = counts.iter().map(|count| count.category().to_owned()).collect();
        let types: Vec<String> = counts.iter().map(|count| count.type_name().to_owned()).collect();
        let events: Vec<i64> = counts.iter().map(CountRecord::events).collect();
        let adding = sqlx::query_as::<_, (i64,)>(
            "WITH moved AS (
                 INSERT INTO event_count_cursors AS c (shard, position)
                 VALUES ($1, $3)
                 ON CONFLICT (shard) DO UPDATE SET position = excluded.position WHERE c.position = $2
                 RETURNING 1
             ), added AS (
                 INSERT INTO event_counts AS c (category, type, events)
                 SELECT n.category, n.type, n.events
                 FROM moved, unnest($4::text[], $5::text[], $6::bigint[]) AS n (category, type, events)
                 ORDER BY n.category, n.type
                 ON CONFLICT (category, type) DO UPDATE SET events = c.events + excluded.events
             )
             SELECT count(*) FROM moved",
        );
        let adding = adding
            .bind(i32::from(range.shard.0))
            .bind(range.after)
            .bind(range.until)
            .bind(categories)
            .bind(types)
            .bind(events);
        self.groups.fetch(adding).await.map(drop)
    }

    async fn sums(&self) -> Result<Vec<CountRecord>, StoreError> {
        self.log.fetch(sqlx::query_as("SELECT category, type, events FROM event_counts")).await
    }

    async fn bytes(&self) -> Result<i64, StoreError> {
        let asking = sqlx::query_as::<_, (i64,)>(
            "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
             FROM pg_inherits
             WHERE inhparent = 'events'::regclass",
        );
        Ok(self.log.fetch(asking).await?.first().map_or(0, |(bytes,)| *bytes))
    }
}

#[cfg(test)]
pub async fn relayed(sessions: &Sessions, bus: &str) -> Result<BTreeMap<Shard, i64>, StoreError> {
    let asking = sqlx::query_as::<_, (i32, i64)>("SELECT shard, position FROM relay_cursors WHERE bus = $1");
    let rows = sessions.fetch(asking.bind(bus.to_owned())).await?;
    rows.into_iter().map(|(shard, position)| Ok((super::super::records::shard(shard)?, position))).collect()
}

pub async fn note_relayed(sessions: &Sessions, bus: &str, positions: &BTreeMap<Shard, i64>) -> Result<(), StoreError> {
    let shards: Vec<i32> = positions.keys().map(|shard| i32::from(shard.0)).collect();
    let positions: Vec<i64> = positions.values().copied().collect();
    sessions
        .ask(async |session| {
            sqlx::query(
                "INSERT INTO relay_cursors AS c (bus, shard, position)
                 SELECT $1, n.shard, n.position
                 FROM unnest($2::integer[], $3::bigint[]) AS n (shard, position)
                 ORDER BY n.shard
                 ON CONFLICT (bus, shard) DO UPDATE SET position = excluded.position
                 WHERE c.position < excluded.position",
            )
            .bind(bus)
            .bind(shards)
            .bind(positions)
            .execute(session)
            .await
            .map_err(failed)
        })
        .await
        .map(drop)
}
