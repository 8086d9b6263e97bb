//! The commands that a consumer group on Redis needs, on one connection.

use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
    cmd, pipe,
    streams::{StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadReply},
};

use super::{End, RedisOptions};
use crate::bus::{SourceError, Start};

/// What Skald's relay publishes to, but for the shard's number.
const EVENTS: &str = "skald:events:";
/// Where the relay says how many shards there are.
const SHARDS: &str = "skald:shards";
const DEAD: &str = "skald:dead:";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For an answer, beyond the time that a read may block.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const DEAD_MAX: usize = 100_000;
/// In one piece, for what a consumer takes between the look and its removal would be lost with it.
const FORGET_CONSUMERS: &str = "
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
    if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    end
end";

/// An entry of a shard's stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shard: u16,
    pub(super) id: String,
    /// The event's text; None when the entry was trimmed.
    pub(super) event: Option<Vec<u8>>,
    /// How often it was handed out, this time included.
    pub(super) tries: u32,
}

pub(super) struct Connection {
    redis: MultiplexedConnection,
    group: String,
    consumer: String,
    shards: u16,
}

pub(super) fn check(url: &str) -> Result<(), RedisError> {
    Client::open(url).map(drop)
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("group", &self.group).field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn open(options: &RedisOptions) -> Result<Self, SourceError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        let mut redis =
            Client::open(options.url.as_str())?.get_multiplexed_async_connection_with_config(&config).await?;
        let shards: Option<u16> = within(Duration::ZERO, cmd("GET").arg(SHARDS).query_async(&mut redis)).await?;
        let shards = shards.filter(|shards| *shards > 0).ok_or(SourceError::NotPublished)?;
        Ok(Self { redis, group: options.group.clone(), consumer: options.consumer.clone(), shards })
    }

    /// Makes the group on every shard's stream where it is missing.
    pub(super) async fn create_groups(&mut self, start: Start) -> RedisResult<()> {
        let from = if start == Start::Beginning { "0" } else { "$" };
        for shard in 0..self.shards {
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(key(shard)).arg(&self.group).arg(from).arg("MKSTREAM");
            match within(Duration::ZERO, create.query_async::<()>(&mut self.redis)).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes consumers that have nothing and were not heard of for `idle`.
    pub(super) async fn forget_consumers(&mut self, idle: Duration) -> RedisResult<()> {
        for shard in 0..self.shards {
            let mut forget = cmd("EVAL");
            forget.arg(FORGET_CONSUMERS).arg(1).arg(key(shard)).arg(&self.group).arg(idle.as_millis().to_string());
            within(Duration::ZERO, forget.query_async::<Value>(&mut self.redis)).await?;
        }
        Ok(())
    }

    /// Waits up to `block` for entries that nobody has had.
    pub(super) async fn read(&mut self, limit: usize, block: Duration) -> RedisResult<Vec<Entry>> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer);
        // Redis counts per stream, and blocks for ever at zero.
        read.arg("COUNT").arg(limit.div_ceil(usize::from(self.shards)).max(1));
        read.arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS");
        read.arg((0..self.shards).map(key).collect::<Vec<_>>());
        read.arg(vec![">"; usize::from(self.shards)]);
        let reply: Option<StreamReadReply> = within(block, read.query_async(&mut self.redis)).await?;
        let keys = reply.into_iter().flat_map(|reply| reply.keys);
        let entries = keys.filter_map(|stream| Some((shard_of(&stream.key)?, stream.ids)));
        Ok(entries.flat_map(|(shard, ids)| ids.into_iter().map(move |id| entry(shard, id, 1))).collect())
    }

    /// Takes over entries that nobody has settled for `idle`.
    pub(super) async fn claim(&mut self, idle: Duration, limit: usize) -> RedisResult<Vec<Entry>> {
        let mut entries = Vec::new();
        for shard in 0..self.shards {
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(key(shard)).arg(&self.group).arg(&self.consumer).arg(idle.as_millis().to_string());
            claim.arg("0").arg("COUNT").arg(limit.max(1));
            let reply: StreamAutoClaimReply = within(Duration::ZERO, claim.query_async(&mut self.redis)).await?;
            for id in reply.claimed {
                let tries = self.tries(shard, &id.id).await?;
                entries.push(entry(shard, id, tries));
            }
        }
        Ok(entries)
    }

    /// How often an entry was handed out.
    async fn tries(&mut self, shard: u16, id: &str) -> RedisResult<u32> {
        let mut pending = cmd("XPENDING");
        pending.arg(key(shard)).arg(&self.group).arg(id).arg(id).arg(1);
        let reply: StreamPendingCountReply = within(Duration::ZERO, pending.query_async(&mut self.redis)).await?;
        let tries = reply.ids.first().map_or(1, |pending| pending.times_delivered);
        Ok(u32::try_from(tries).unwrap_or(u32::MAX).max(1))
    }

    /// Says that entries are still being handled here.
    pub(super) async fn keep(&mut self, entries: &[(u16, String)]) -> RedisResult<()> {
        let mut keep = pipe();
        for (shard, id) in entries {
            keep.cmd("XCLAIM")
                .arg(key(*shard))
                .arg(&self.group)
                .arg(&self.consumer)
                .arg(0)
                .arg(id)
                .arg("JUSTID")
                .ignore();
        }
        self.run(&keep, entries.len()).await
    }

    /// Ends entries, those that are dead by way of the dead letters.
    pub(super) async fn end(&mut self, ends: &[End]) -> RedisResult<()> {
        let mut end = pipe();
        end.atomic();
        for End { shard, id, dead } in ends {
            if let Some((event, error, tries)) = dead {
                end.cmd("XADD").arg(format!("{DEAD}{}", self.group)).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
                end.arg("event").arg(event).arg("error").arg(error).arg("tries").arg(*tries);
                end.arg("shard").arg(*shard).arg("entry").arg(id).ignore();
            }
            end.cmd("XACK").arg(key(*shard)).arg(&self.group).arg(id).ignore();
        }
        self.run(&end, ends.len()).await
    }

    async fn run(&mut self, pipeline: &Pipeline, length: usize) -> RedisResult<()> {
        if length == 0 {
            return Ok(());
        }
        within(Duration::ZERO, pipeline.query_async::<Value>(&mut self.redis)).await.map(drop)
    }
}

/// An answer that does not come is an error like any other.
async fn within<T>(block: Duration, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match tokio::time::timeout(block + ANSWER_TIMEOUT, answer).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

fn key(shard: u16) -> String {
    format!("{EVENTS}{shard}")
}

fn shard_of(key: &str) -> Option<u16> {
    key.strip_prefix(EVENTS)?.parse().ok()
}

fn entry(shard: u16, id: StreamId, tries: u32) -> Entry {
    Entry { shard, event: id.get("event"), id: id.id, tries }
}
