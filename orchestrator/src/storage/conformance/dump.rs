//! All that a store holds, as text to compare.

use std::{collections::BTreeMap, fmt::Write as _};

use super::super::{
    SagaFilter, Storage, Store,
    log::{LogFilter, LogQuery},
};

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

/// The whole log by shard and position, with the heads of streams that are no sagas.
pub async fn dump_log(store: &dyn Storage) -> String {
    let mut text = String::new();
    let mut after: BTreeMap<_, _> = store.heads().await.unwrap().into_keys().map(|shard| (shard, 0)).collect();
    let mut events = Vec::new();
    loop {
        let query = LogQuery { after, until: BTreeMap::new(), limit: 1000, filter: LogFilter::default() };
        let page = store.log(&query).await.unwrap();
        events.extend(page.events);
        after = page.read_to;
        if !page.more {
            break;
        }
    }
    events.sort_by_key(|event| (event.shard, event.position));
    for event in events {
        let head = match &event.name {
            Some(name) => store.stream_head(name).await.unwrap(),
            None => None,
        };
        writeln!(text, "{event:?} of {head:?}").unwrap();
    }
    text
}
