//! All that a store holds, as text to compare.

use std::fmt::Write as _;

use super::super::{SagaFilter, Store};

/// Shards, rows, events with their positions, and start keys. Sagas by ascending id.
pub async fn dump(store: &dyn Store, keys: &[&str]) -> String {
    let mut text = String::new();
    for shard in store.shards().await.unwrap() {
        writeln!(text, "shard {} epoch {} owner {:?} head {}", shard.shard, shard.epoch, shard.owner, shard.head)
            .unwrap();
    }
    let mut rows = store.list(&SagaFilter { limit: 100_000, ..SagaFilter::default() }).await.unwrap();
    rows.reverse();
    for row in rows {
        writeln!(text, "{row:?}").unwrap();
        for event in store.events(row.id, 0, 100_000).await.unwrap() {
            let (kind, data) = (event.event.kind(), event.event.data());
            writeln!(
                text,
                "  {} at {}/{} epoch {} {:?} {kind} {:?} {:?} {data}",
                event.version,
                event.shard,
                event.position,
                event.epoch,
                event.occurred_at,
                event.type_name,
                event.actor
            )
            .unwrap();
        }
    }
    for key in keys {
        writeln!(text, "key {key}: {:?}", store.keyed_saga("checkout", key).await.unwrap()).unwrap();
    }
    text
}
