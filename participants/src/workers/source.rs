//! Where a worker that belongs to a consumer group takes its events from.

use std::sync::Arc;

use skald_kit::{
    bus::{Filter, GroupOptions, HttpGroup, RedisGroup, RedisOptions, Source, SourceError},
    events::Client,
};

/// Where the service takes part in choreographed sagas.
#[derive(Debug, Clone)]
pub struct SkaldOptions {
    /// Skald's own URL, e.g. `http://127.0.0.1:7070`.
    pub url: String,
    /// The Redis to take events from; without it they come from Skald, by a consumer group over HTTP.
    pub bus: Option<String>,
}

/// A member of `group`; processes with the same group share its events.
pub(super) fn of_group(
    options: &SkaldOptions,
    client: &Client,
    group: &str,
    filter: Filter,
) -> Result<Arc<dyn Source>, SourceError> {
    let consumer = format!("{group}-{:016x}", rand::random::<u64>());
    Ok(match &options.bus {
        None => Arc::new(HttpGroup::new(client.clone(), GroupOptions { filter, ..GroupOptions::new(group, consumer) })),
        Some(url) => Arc::new(RedisGroup::new(RedisOptions { filter, ..RedisOptions::new(url, group, consumer) })?),
    })
}
