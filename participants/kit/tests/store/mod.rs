//! A small event store that keeps to Skald's HTTP contract, in this process: streams, consumer groups, and, when a test
//! wants them, faults. With a Redis it publishes there too, as Skald's relay does.

#![allow(dead_code, reason = "two test crates share this, and each uses a part of it")]
#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

pub mod groups;
mod http;
pub mod sagas;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use chrono::Utc;
use serde_json::{Value, json};
use skald_core::definition::Definition;
use tokio::sync::watch;

use self::groups::Group;

pub const SHARDS: u16 = 2;

/// The store, and the server that shows it.
#[derive(Debug, Clone)]
pub struct Store {
    pub inner: Arc<Inner>,
    pub url: String,
}

#[derive(Debug)]
pub struct Inner {
    pub data: Mutex<Data>,
    /// Ticks after each append.
    pub committed: watch::Sender<u64>,
    /// Of so many of the next requests the answer breaks off, after they were carried out.
    pub lost_answers: AtomicU32,
    /// So many of the next requests are answered 503, without effect.
    pub refusals: AtomicU32,
    pub requests: AtomicU32,
}

#[derive(Debug, Default)]
pub struct Data {
    /// CloudEvents, in the order of their commits.
    pub log: Vec<Value>,
    pub streams: HashMap<String, Vec<usize>>,
    pub groups: HashMap<String, Group>,
    /// Event types that are refused with 409.
    pub refused_types: HashSet<String>,
    pub definitions: Vec<Arc<Definition>>,
    pub sagas: HashMap<String, sagas::Saga>,
    /// What tokens stand for whose keys live.
    pub opened: HashMap<String, String>,
    redis: Option<redis::aio::MultiplexedConnection>,
}

/// A refusal: status and code.
pub type Refused = (u16, &'static str);

impl Store {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            data: Mutex::default(),
            committed: watch::Sender::new(0),
            lost_answers: AtomicU32::new(0),
            refusals: AtomicU32::new(0),
            requests: AtomicU32::new(0),
        });
        let url = http::serve(inner.clone());
        Self { inner, url }
    }

    pub fn client(&self) -> skald_kit::events::Client {
        skald_kit::events::Client::new(&self.url).unwrap()
    }

    pub fn data(&self) -> MutexGuard<'_, Data> {
        self.inner.data.lock().unwrap()
    }

    /// Appends one event of a type to a stream.
    pub fn append(&self, stream: &str, type_name: &str, data: Value) {
        let version = self.data().streams.get(stream).map_or(0, Vec::len);
        let event = json!({"event_id": format!("{stream}:{}", version + 1), "type": type_name, "data": data});
        self.inner.append(stream, &json!("any"), &[event]).unwrap();
    }

    pub fn types(&self, stream: &str) -> Vec<String> {
        let data = self.data();
        let events = data.streams.get(stream).into_iter().flatten().map(|index| &data.log[*index]);
        events.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    pub fn fail_next(&self, requests: u32) {
        self.inner.refusals.store(requests, Ordering::SeqCst);
    }

    pub fn lose_next_answers(&self, requests: u32) {
        self.inner.lost_answers.store(requests, Ordering::SeqCst);
    }

    /// From now on everything is published to this Redis too, and what there is already.
    pub async fn publish_to(&self, url: &str) {
        let connect = redis::Client::open(url).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection = connect.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let () = redis::cmd("SET").arg("skald:shards").arg(SHARDS).query_async(&mut connection).await.unwrap();
        self.data().redis = Some(connection);
        let inner = self.inner.clone();
        tokio::spawn(async move { inner.relay().await });
    }
}

impl Inner {
    /// All events or none; the version, and whether they were there already.
    pub fn append(&self, stream: &str, expected: &Value, events: &[Value]) -> Result<(u64, bool), Refused> {
        let mut data = self.data.lock().unwrap();
        let indexes = data.streams.get(stream).cloned().unwrap_or_default();
        let known = |event: &&Value| indexes.iter().any(|index| data.log[*index]["id"] == event["event_id"]);
        if events.iter().filter(known).count() == events.len() {
            return Ok((u64::try_from(indexes.len()).unwrap(), true));
        }
        if events.iter().any(|event| event["type"].as_str().is_some_and(|name| data.refused_types.contains(name))) {
            return Err((409, "saga_ended"));
        }
        if expected != "any" && expected.as_u64() != Some(indexes.len() as u64) {
            return Err((409, "version_conflict"));
        }
        if data.sagas.contains_key(stream) {
            data.report(stream, events)?;
        } else {
            for event in events {
                let mut shown = event.clone();
                shown["id"] = event["event_id"].clone();
                data.push(stream, shown);
            }
        }
        let version = data.streams[stream].len() as u64;
        drop(data);
        self.committed.send_modify(|commits| *commits += 1);
        Ok((version, false))
    }

    async fn relay(&self) {
        let mut commits = self.committed.subscribe();
        let mut next = 0;
        loop {
            let (mut connection, entries) = {
                let data = self.data.lock().unwrap();
                (data.redis.clone().unwrap(), data.log[next..].to_vec())
            };
            next += entries.len();
            for entry in entries {
                let mut add = redis::cmd("XADD");
                add.arg(format!("skald:events:{}", entry["shard"])).arg("*").arg("event").arg(entry.to_string());
                let _: String = add.query_async(&mut connection).await.unwrap();
            }
            if commits.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Data {
    /// Events from an index of the log on, and the index to go on from.
    pub fn page(&self, start: usize, limit: usize, category: Option<&str>) -> (Vec<Value>, usize) {
        let mut items = Vec::new();
        for (index, event) in self.log.iter().enumerate().skip(start) {
            if items.len() == limit {
                return (items, index);
            }
            if category.is_none_or(|category| event["category"] == category) {
                items.push(event.clone());
            }
        }
        (items, self.log.len().max(start))
    }

    /// Puts an event with `id`, `type` and `data` at the end of its stream.
    pub fn push(&mut self, stream: &str, mut event: Value) {
        let shard =
            stream.bytes().fold(0_u16, |hash, byte| hash.wrapping_mul(31).wrapping_add(u16::from(byte))) % SHARDS;
        let position = self.log.iter().filter(|event| event["shard"] == shard).count() + 1;
        let indexes = self.streams.entry(stream.to_owned()).or_default();
        let saga = uuid::Uuid::try_parse(stream).is_ok();
        let defaults = json!({
            "specversion": "1.0", "source": "skald", "subject": stream, "stream": stream,
            "version": indexes.len() + 1, "shard": shard, "position": position, "datacontenttype": "application/json",
            "time": Utc::now(), "category": if saga { "saga" } else { stream.split('-').next().unwrap() },
            "kind": "Appended", "schemaversion": 1,
        });
        for (name, value) in defaults.as_object().unwrap() {
            if event.get(name).is_none() {
                event[name] = value.clone();
            }
        }
        indexes.push(self.log.len());
        self.log.push(event);
    }
}
