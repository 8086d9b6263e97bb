//! The one statement that every delivery and every settlement writes.

use skald_core::{ids::Shard, time::Timestamp};
use sqlx::types::Uuid;

use super::super::{
    super::{
        StoreError,
        groups::rows::{Change, Seen, number},
        records,
    },
    sessions::Sessions,
};

/// Locks the cursors whose revision is still the one that was read, in ascending order; all else hangs on them.
pub(in super::super) const CHANGE: &str = "
    WITH new AS MATERIALIZED (
        SELECT *
        FROM unnest($2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                    $9::bigint[], $10::bigint[], $11::integer[], $12::bigint[])
            AS new (shard, revision, looked_to, in_hand, owed, consumer, token, lease_ms, lease_until_us, losses,
                    moved_at_us)
    ), locked AS MATERIALIZED (
        SELECT c.shard
        FROM new
        JOIN consumer_cursors AS c ON c.shard = new.shard AND c.revision = new.revision
        WHERE c.group_name = $1
        ORDER BY c.shard
        FOR UPDATE OF c
    ), moved AS (
        UPDATE consumer_cursors AS c
        SET looked_to = new.looked_to,
            in_hand = new.in_hand,
            owed = new.owed,
            consumer = new.consumer,
            token = new.token,
            lease_ms = new.lease_ms,
            lease_until_us = new.lease_until_us,
            losses = new.losses,
            moved_at_us = new.moved_at_us,
            revision = c.revision + 1
        FROM locked
        JOIN new ON new.shard = locked.shard
        WHERE c.group_name = $1 AND c.shard = locked.shard
        RETURNING c.shard
    ), held AS (
        INSERT INTO consumer_held AS h
            (group_name, shard, position, stream, status, tries, next_at_us, error, held_at_us)
        SELECT $1, n.shard, n.position, n.stream, n.status, n.tries, n.next_at_us, n.error, n.held_at_us
        FROM unnest($13::integer[], $14::bigint[], $15::uuid[], $16::text[], $17::integer[], $18::bigint[],
                    $19::text[], $20::bigint[])
            AS n (shard, position, stream, status, tries, next_at_us, error, held_at_us)
        WHERE n.shard IN (SELECT shard FROM moved)
        ON CONFLICT (group_name, shard, position) DO UPDATE
        SET status = excluded.status, tries = excluded.tries, next_at_us = excluded.next_at_us,
            error = excluded.error, held_at_us = excluded.held_at_us
    ), released AS (
        DELETE FROM consumer_held AS h
        USING unnest($21::integer[], $22::bigint[]) AS n (shard, position)
        WHERE h.group_name = $1
          AND h.shard = n.shard
          AND h.position = n.position
          AND n.shard IN (SELECT shard FROM moved)
    ), seen AS (
        INSERT INTO consumer_members AS m (group_name, consumer, seen_until_us)
        SELECT g.name, $23, $24
        FROM consumer_groups AS g
        WHERE g.name = $1 AND $23::text IS NOT NULL
        ON CONFLICT (group_name, consumer) DO UPDATE SET seen_until_us = excluded.seen_until_us
    ), forgotten AS (
        DELETE FROM consumer_members
        WHERE group_name = $1 AND seen_until_us < $25 AND consumer <> $23
    )
    SELECT shard FROM moved";

pub async fn change(
    sessions: &Sessions,
    group: &str,
    seen: Option<Seen>,
    changes: Vec<Change>,
) -> Result<Vec<Shard>, StoreError> {
    let cursors = || changes.iter().map(|change| &change.cursor);
    let held = || changes.iter().flat_map(|change| &change.hold);
    let released =
        changes.iter().flat_map(|of| of.release.iter().map(|position| (i32::from(of.cursor.shard.0), *position)));
    let (released_shards, released): (Vec<i32>, Vec<i64>) = released.unzip();
    let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let changing = sqlx::query_as::<_, (i32,)>(CHANGE)
        .bind(group.to_owned())
        .bind(cursors().map(|cursor| i32::from(cursor.shard.0)).collect::<Vec<i32>>())
        .bind(cursors().map(|cursor| cursor.revision).collect::<Vec<i64>>())
        .bind(cursors().map(|cursor| cursor.looked_to).collect::<Vec<i64>>())
        .bind(cursors().map(|cursor| cursor.in_hand.to_text()).collect::<Vec<String>>())
        .bind(cursors().map(|cursor| cursor.owed.to_text()).collect::<Vec<String>>())
        .bind(cursors().map(|cursor| cursor.consumer.clone()).collect::<Vec<Option<String>>>())
        .bind(cursors().map(|cursor| cursor.token).collect::<Vec<i64>>())
        .bind(cursors().map(|cursor| number(cursor.lease)).collect::<Vec<i64>>())
        .bind(cursors().map(|cursor| cursor.lease_until.as_micros()).collect::<Vec<i64>>())
        .bind(cursors().map(|cursor| small(cursor.losses)).collect::<Vec<i32>>())
        .bind(cursors().map(|cursor| cursor.moved_at.as_micros()).collect::<Vec<i64>>())
        .bind(held().map(|held| i32::from(held.shard.0)).collect::<Vec<i32>>())
        .bind(held().map(|held| held.position).collect::<Vec<i64>>())
        .bind(held().map(|held| held.stream.as_uuid()).collect::<Vec<Uuid>>())
        .bind(held().map(|held| held.status.as_str()).collect::<Vec<&str>>())
        .bind(held().map(|held| small(held.tries)).collect::<Vec<i32>>())
        .bind(held().map(|held| held.next_at.as_micros()).collect::<Vec<i64>>())
        .bind(held().map(|held| held.error.clone()).collect::<Vec<Option<String>>>())
        .bind(held().map(|held| held.held_at.as_micros()).collect::<Vec<i64>>())
        .bind(released_shards)
        .bind(released)
        .bind(seen.as_ref().map(|seen| seen.consumer.clone()))
        .bind(seen.as_ref().map(|seen| seen.until.as_micros()))
        .bind(seen.as_ref().map(|seen| Timestamp::as_micros(seen.forget_before)));
    let moved = sessions.fetch(changing).await?;
    moved.into_iter().map(|(shard,)| records::shard(shard)).collect()
}
