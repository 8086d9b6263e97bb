//! A consumer group on Redis Streams: one stream per shard, `skald:events:<shard>`, filled by Skald's relay.
//!
//! | what | how |
//! | --- | --- |
//! | how many shards there are | the key `skald:shards`, which the relay sets before it publishes |
//! | new entries | `XREADGROUP`, one blocking read over all shards |
//! | entries of consumers that died | `XAUTOCLAIM` of what was idle for [`RedisOptions::claim_after`] |
//! | done | `XACK` |
//! | consumers that are gone | removed when another one begins, once others have taken over what they left |
//! | failed | kept here and delivered again after a pause, 1 s doubling to 60 s |
//! | failed [`RedisOptions::tries_max`] times, or poison | `XADD skald:dead:<group>` and `XACK`, in one transaction |
//!
//! Redelivery breaks the order of a stream, so a consumer applies a stream by version and reads what is missing from
//! Skald ([`Source::in_order`] is false). Redis may lose or repeat entries; the event store stays the truth.

mod connection;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ::redis::RedisError;
use async_trait::async_trait;

use self::connection::{Connection, Entry};
use super::{Delivery, Filter, Receipt, Settled, Settlement, Source, SourceError, Start};
use crate::events::Event;

const PAUSE_INITIAL: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A read blocks no longer, so that what becomes due meanwhile is not late.
const BLOCK_MAX: Duration = Duration::from_secs(1);

/// A consumer's part in a group on Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://[:PASSWORD@]HOST[:PORT][/DATABASE]`
    pub url: String,
    pub group: String,
    /// Of this process, unique.
    pub consumer: String,
    pub filter: Filter,
    pub start: Start,
    /// Entries that a consumer has not settled for so long go to another one.
    pub claim_after: Duration,
    /// Consumers that have not been heard of for so long, and have left nothing, are removed when another one begins.
    pub forget_after: Duration,
    pub tries_max: u32,
}

impl RedisOptions {
    /// All events from the beginning of what Redis still has; five tries; entries change hands after 30 s, and who is
    /// gone for an hour is forgotten.
    #[must_use]
    pub fn new(url: impl Into<String>, group: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            group: group.into(),
            consumer: consumer.into(),
            filter: Filter::default(),
            start: Start::Beginning,
            claim_after: Duration::from_secs(30),
            forget_after: Duration::from_secs(3600),
            tries_max: 5,
        }
    }
}

/// A consumer of a group on Redis.
#[derive(Debug)]
pub struct RedisGroup {
    options: RedisOptions,
    /// Only one poll runs at a time; settling goes on beside it.
    reading: tokio::sync::Mutex<Option<Connection>>,
    writing: tokio::sync::Mutex<Option<Connection>>,
    out: Mutex<Out>,
}

/// What this consumer has of the group, by shard and entry.
#[derive(Debug, Default)]
struct Out {
    entries: HashMap<(u16, String), Held>,
    claimed_at: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    event: Arc<Event>,
    tries: u32,
    /// When it is to be delivered again; None while it is being handled.
    due: Option<Instant>,
}

impl RedisGroup {
    /// # Errors
    /// The URL is not one of Redis.
    pub fn new(options: RedisOptions) -> Result<Self, SourceError> {
        connection::check(&options.url)?;
        let (reading, writing) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { options, reading, writing, out: Mutex::default() })
    }

    fn out(&self) -> std::sync::MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in entries that Redis gave, and makes deliveries of those that are wanted; the others are at their end.
    fn hand_out(&self, entries: Vec<Entry>) -> (Vec<Delivery>, Vec<End>) {
        let mut deliveries = Vec::with_capacity(entries.len());
        let mut ends = Vec::new();
        let mut out = self.out();
        for Entry { shard, id, event, tries } in entries {
            let parsed = match event.as_deref().map(serde_json::from_slice::<Event>) {
                Some(Ok(parsed)) if self.options.filter.takes_stream_of(&parsed) => parsed,
                // Not wanted, or trimmed before it was read: the consumer will find the gap.
                Some(Ok(_)) | None => {
                    ends.push(End { shard, id, dead: None });
                    continue;
                }
                Some(Err(error)) => {
                    let text = String::from_utf8_lossy(event.as_deref().unwrap_or_default()).into_owned();
                    ends.push(End { shard, id, dead: Some((text, format!("not an event: {error}"), tries)) });
                    continue;
                }
            };
            let event = Arc::new(parsed);
            if tries > self.options.tries_max {
                // It has taken with it every consumer that tried.
                let error = "nobody who tried came to an end".to_owned();
                ends.push(End { shard, id, dead: Some((text_of(&event), error, tries - 1)) });
                continue;
            }
            out.entries.insert((shard, id.clone()), Held { event: event.clone(), tries, due: None });
            deliveries.push(Delivery { event, receipt: Receipt::Redis { shard, id }, tries });
        }
        (deliveries, ends)
    }

    /// What failed and is to be tried again by now.
    fn due(&self) -> Vec<Delivery> {
        let now = Instant::now();
        let mut due: Vec<Delivery> = Vec::new();
        for ((shard, id), held) in &mut self.out().entries {
            if held.due.take_if(|due| *due <= now).is_some() {
                held.tries += 1;
                let receipt = Receipt::Redis { shard: *shard, id: id.clone() };
                due.push(Delivery { event: held.event.clone(), receipt, tries: held.tries });
            }
        }
        due.sort_by_key(|delivery| delivery.event.version);
        due
    }

    /// How long a read may block: until something is due again, or others' entries are to be looked for.
    fn patience(&self, wait: Duration) -> Duration {
        let out = self.out();
        let next_due = out.entries.values().filter_map(|held| held.due).min();
        let next_claim = out.claimed_at.map(|at| at + self.options.claim_after / 2);
        let until = [next_due, next_claim].into_iter().flatten().min();
        until.map_or(wait, |until| wait.min(until.saturating_duration_since(Instant::now())))
    }

    /// What others left, or else what is new.
    async fn take_in(
        &self,
        connection: &mut Connection,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, RedisError> {
        let claimed = self.claim(connection, limit).await?;
        if claimed.is_empty() {
            return connection.read(limit, self.patience(wait.min(BLOCK_MAX))).await;
        }
        Ok(claimed)
    }

    /// Takes over what others left, and keeps what is its own.
    async fn claim(&self, connection: &mut Connection, limit: usize) -> Result<Vec<Entry>, RedisError> {
        let now = Instant::now();
        let own: Vec<(u16, String)> = {
            let mut out = self.out();
            if out.claimed_at.is_some_and(|at| now < at + self.options.claim_after / 2) {
                return Ok(Vec::new());
            }
            out.claimed_at = Some(now);
            out.entries.keys().cloned().collect()
        };
        connection.keep(&own).await?;
        connection.claim(self.options.claim_after, limit).await
    }

    /// Turns settlements into the entries' ends; what failed and may be tried again is put aside.
    fn ends(&self, settlements: &[Settlement]) -> Vec<End> {
        let mut ends = Vec::with_capacity(settlements.len());
        let mut out = self.out();
        for Settlement { receipt, settled } in settlements {
            let Receipt::Redis { shard, id } = receipt else { continue };
            let Some(held) = out.entries.get_mut(&(*shard, id.clone())) else { continue };
            let dead = match settled {
                Settled::Done => None,
                Settled::Failed(_) if held.tries < self.options.tries_max => {
                    let pause = PAUSE_INITIAL.saturating_mul(1 << (held.tries - 1).min(6)).min(PAUSE_MAX);
                    held.due = Some(Instant::now() + pause);
                    continue;
                }
                Settled::Failed(error) | Settled::Poison(error) => {
                    Some((text_of(&held.event), error.clone(), held.tries))
                }
            };
            ends.push(End { shard: *shard, id: id.clone(), dead });
        }
        ends
    }

    async fn end(&self, ends: &[End]) -> Result<(), SourceError> {
        if ends.is_empty() {
            return Ok(());
        }
        let mut slot = self.writing.lock().await;
        let mut connection = self.connected(&mut slot).await?;
        connection.end(ends).await?;
        *slot = Some(connection);
        let mut out = self.out();
        for End { shard, id, .. } in ends {
            out.entries.remove(&(*shard, id.clone()));
        }
        Ok(())
    }

    /// Takes the connection out of its slot, or makes one: whoever fails does not put it back.
    async fn connected(&self, slot: &mut Option<Connection>) -> Result<Connection, SourceError> {
        match slot.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.options).await,
        }
    }
}

/// An entry that nobody need see again; `dead`: its text, the error and the tries, for the dead letters.
#[derive(Debug)]
struct End {
    shard: u16,
    id: String,
    dead: Option<(String, String, u32)>,
}

fn text_of(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

#[async_trait]
impl Source for RedisGroup {
    fn in_order(&self) -> bool {
        false
    }

    fn filter(&self) -> &Filter {
        &self.options.filter
    }

    async fn open(&self) -> Result<(), SourceError> {
        let mut slot = self.reading.lock().await;
        let mut connection = Connection::open(&self.options).await?;
        connection.create_groups(self.options.start).await?;
        connection.forget_consumers(self.options.forget_after).await?;
        *slot = Some(connection);
        Ok(())
    }

    async fn poll(
        &self,
        settlements: &[Settlement],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, SourceError> {
        self.settle(settlements).await?;
        let mut deliveries = self.due();
        if !deliveries.is_empty() {
            return Ok(deliveries);
        }
        let mut slot = self.reading.lock().await;
        let mut connection = self.connected(&mut slot).await?;
        let entries = match self.take_in(&mut connection, limit, wait).await {
            // Redis was emptied: the groups are made again.
            Err(error) if error.code() == Some("NOGROUP") => {
                connection.create_groups(Start::Beginning).await?;
                Vec::new()
            }
            other => other?,
        };
        *slot = Some(connection);
        drop(slot);
        let (fresh, ends) = self.hand_out(entries);
        deliveries.extend(fresh);
        self.end(&ends).await?;
        Ok(deliveries)
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), SourceError> {
        let ends = self.ends(settlements);
        self.end(&ends).await
    }
}
