//! Consumers: each event once, whatever the source repeats, loses or shuffles; the same on HTTP and on Redis.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    fixture::{Backend, REFUSED, TestDatabase, eventually},
    redis_server::RedisServer,
    store::{SHARDS, Store},
};
use rstest::rstest;
use serde_json::json;
use skald_kit::{
    Consumer, ConsumerOptions, Db, DbOptions, Failure, IntakeOptions, Tx, TxFuture, Unobserved,
    bus::{Filter, GroupOptions, HttpGroup, RedisGroup, RedisOptions, Settled, Settlement, Source},
    events::Event,
    params,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bus {
    Http,
    Redis,
}

/// A store, a bus, and a consumer's database.
struct World {
    store: Store,
    redis: Option<RedisServer>,
    db: Db,
    _database: TestDatabase,
}

impl World {
    async fn new(bus: Bus, backend: Backend) -> Self {
        let (store, database) = (Store::start().await, TestDatabase::create(backend).await);
        let redis = match bus {
            Bus::Http => None,
            Bus::Redis => {
                let redis = RedisServer::start().await;
                store.publish_to(&redis.url()).await;
                Some(redis)
            }
        };
        let db = Db::connect(&database.url, &DbOptions::default()).await.unwrap();
        let tables: &[&str] = if backend == Backend::Sqlite {
            &["CREATE TABLE applied (id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT, version BIGINT, type TEXT)"]
        } else {
            &["CREATE TABLE applied (id BIGINT GENERATED ALWAYS AS IDENTITY, stream TEXT, version BIGINT, type TEXT)"]
        };
        db.create(tables).await.unwrap();
        Self { store, redis, db, _database: database }
    }

    fn source(&self, consumer: &str, filter: Filter) -> Arc<dyn Source> {
        match &self.redis {
            None => {
                let lease = Duration::from_millis(500);
                let options = GroupOptions { filter, lease, ..GroupOptions::new("applied", consumer) };
                Arc::new(HttpGroup::new(self.store.client(), options))
            }
            Some(redis) => {
                let claim_after = Duration::from_millis(500);
                let options =
                    RedisOptions { filter, claim_after, ..RedisOptions::new(redis.url(), "applied", consumer) };
                Arc::new(RedisGroup::new(options).unwrap())
            }
        }
    }

    async fn consume<H>(&self, consumer: &str, filter: Filter, handler: H) -> Consumer
    where
        H: for<'a> Fn(&'a mut Tx, Arc<Event>) -> TxFuture<'a, ()> + Send + Sync + 'static,
    {
        let options = ConsumerOptions {
            name: "applied".to_owned(),
            db: self.db.clone(),
            source: self.source(consumer, filter),
            client: self.store.client(),
            observer: Arc::new(Unobserved),
            intake: IntakeOptions::default(),
        };
        Consumer::start(options, handler).await.unwrap()
    }

    /// The versions of a stream that were applied, in the order in which they were.
    async fn applied(&self, stream: &str) -> Vec<i64> {
        let rows = self.db.rows("SELECT version FROM applied WHERE stream = $1 ORDER BY id", params![stream]).await;
        rows.unwrap().iter().map(|row| row.get("version").unwrap()).collect()
    }

    async fn dead_letters(&self) -> usize {
        match &self.redis {
            None => self.store.data().parked("applied").len(),
            Some(redis) => {
                let length = redis::cmd("XLEN").arg("skald:dead:applied").query_async(&mut redis.connect().await).await;
                length.unwrap()
            }
        }
    }
}

fn note(tx: &mut Tx, event: Arc<Event>) -> TxFuture<'_, ()> {
    Box::pin(async move {
        let sql = "INSERT INTO applied (stream, version, type) VALUES ($1, $2, $3)";
        let version = i64::try_from(event.version).unwrap();
        Ok(tx.execute(sql, params![&event.stream, version, &event.type_name]).await.map(drop)?)
    })
}

fn up_to(last: i64) -> Vec<i64> {
    (1..=last).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_applied_once_and_streams_keep_their_order(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::new(bus, backend).await;
    let streams: Vec<String> = (0..8).map(|number| format!("cart-{number}")).collect();
    let append_all = || streams.iter().for_each(|stream| world.store.append(stream, "Added", json!({})));
    (0..5).for_each(|_| append_all());
    let first = world.consume("first", Filter::default(), note).await;
    world.store.lose_next_answers(2);
    (0..5).for_each(|_| append_all());
    eventually("something is applied", async || !world.applied("cart-0").await.is_empty()).await;
    // Dies in the middle of its work: what it had is handed to the second.
    drop(first);
    let second = world.consume("second", Filter::default(), note).await;
    (0..5).for_each(|_| append_all());
    for stream in &streams {
        eventually("all is applied", async || world.applied(stream).await.len() >= 15).await;
        assert_eq!(world.applied(stream).await, up_to(15));
    }
    second.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_event_is_tried_again_and_holds_back_its_own_stream_only(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let world = World::new(bus, Backend::Sqlite).await;
    let consumer = world
        .consume("only", Filter::default(), |tx, event| {
            Box::pin(async move {
                let sql = "SELECT 1 AS one FROM applied WHERE stream = 'cart-good' AND version = 3";
                if event.stream == "cart-bad" && tx.row(sql, params![]).await?.is_none() {
                    let detail = "waits for the other stream".to_owned();
                    return Err(Failure::Unavailable { detail, retry_after: Duration::ZERO });
                }
                note(tx, event).await
            })
        })
        .await;
    for stream in ["cart-bad", "cart-bad", "cart-good", "cart-good", "cart-good", "cart-bad"] {
        world.store.append(stream, "Added", json!({}));
    }
    eventually("the good stream goes on", async || world.applied("cart-good").await == up_to(3)).await;
    eventually("the bad one follows", async || world.applied("cart-bad").await == up_to(3)).await;
    assert_eq!(world.dead_letters().await, 0);
    consumer.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_goes_to_the_dead_letters_at_once_and_its_stream_waits(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let world = World::new(bus, Backend::Sqlite).await;
    let consumer = world
        .consume("only", Filter::default(), |tx, event| {
            Box::pin(async move {
                match event.type_name.as_str() {
                    "Poison" => Err(Failure::rejected(REFUSED, "nobody can read this")),
                    _ => note(tx, event).await,
                }
            })
        })
        .await;
    world.store.append("cart-bad", "Added", json!({}));
    world.store.append("cart-bad", "Poison", json!({}));
    world.store.append("cart-good", "Added", json!({}));
    eventually("the poison is put aside", async || world.dead_letters().await == 1).await;
    eventually("others go on", async || world.applied("cart-good").await == up_to(1)).await;
    assert_eq!(world.applied("cart-bad").await, up_to(1));
    consumer.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_leaves_events_out_without_making_gaps(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let world = World::new(bus, Backend::Sqlite).await;
    for _ in 0..3 {
        for type_name in ["Added", "Removed"] {
            world.store.append("cart-1", type_name, json!({}));
        }
    }
    let filter = Filter { types: vec!["Removed".to_owned()], ..Filter::default() };
    let consumer = world.consume("only", filter, note).await;
    eventually("what is wanted is applied", async || world.applied("cart-1").await.len() == 3).await;
    assert_eq!(world.applied("cart-1").await, [2, 4, 6]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_or_shuffled_is_read_from_the_store() {
    let mut world = World::new(Bus::Redis, Backend::Sqlite).await;
    let consumer = world.consume("only", Filter::default(), note).await;
    world.store.append("cart-1", "Added", json!({}));
    eventually("the first is applied", async || world.applied("cart-1").await == up_to(1)).await;
    // Two events that Redis never hears of, and one of theirs that comes late and twice.
    let mut redis = world.redis.as_ref().unwrap().connect().await;
    let late = {
        let mut data = world.store.data();
        data.push("cart-1", json!({"id": "cart-1:2", "type": "Added", "data": {}}));
        data.push("cart-1", json!({"id": "cart-1:3", "type": "Added", "data": {}}));
        data.log[1].clone()
    };
    let shard = late["shard"].clone();
    let mut four = late.clone();
    four["version"] = json!(4);
    world.store.data().push("cart-1", json!({"id": "cart-1:4", "type": "Added", "data": {}}));
    for event in [&four, &late, &late] {
        let mut add = redis::cmd("XADD");
        add.arg(format!("skald:events:{shard}")).arg("*").arg("event").arg(event.to_string());
        let _: String = add.query_async(&mut redis).await.unwrap();
    }
    eventually("the gap is closed", async || world.applied("cart-1").await == up_to(4)).await;
    // Redis dies and comes back with nothing but new events.
    let redis = world.redis.as_mut().unwrap();
    redis.restart().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis.connect().await).await.unwrap();
    let url = redis.url();
    world.store.publish_to(&url).await;
    world.store.append("cart-1", "Added", json!({}));
    eventually("the consumer goes on", async || world.applied("cart-1").await == up_to(5)).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_goes_to_the_dead_letters() {
    let world = World::new(Bus::Redis, Backend::Sqlite).await;
    let mut redis = world.redis.as_ref().unwrap().connect().await;
    let mut add = redis::cmd("XADD");
    let _: String = add.arg("skald:events:0").arg("*").arg("event").arg("{").query_async(&mut redis).await.unwrap();
    let consumer = world.consume("only", Filter::default(), note).await;
    eventually("it is put aside", async || world.dead_letters().await == 1).await;
    world.store.append("cart-1", "Added", json!({}));
    eventually("others go on", async || world.applied("cart-1").await == up_to(1)).await;
    consumer.stop().await;
}

/// Names of a group's consumers, of all shards.
async fn consumers(redis: &RedisServer) -> BTreeSet<String> {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut names = BTreeSet::new();
    for shard in 0..SHARDS {
        let key = format!("skald:events:{shard}");
        let reply: redis::streams::StreamInfoConsumersReply =
            redis::cmd("XINFO").arg("CONSUMERS").arg(key).arg("applied").query_async(&mut connection).await.unwrap();
        names.extend(reply.consumers.into_iter().map(|consumer| consumer.name));
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_from_redis_is_forgotten_once_nothing_of_it_is_left() {
    let world = World::new(Bus::Redis, Backend::Sqlite).await;
    let redis = world.redis.as_ref().unwrap();
    let member = |consumer: &str| {
        let forget_after = Duration::ZERO;
        RedisGroup::new(RedisOptions { forget_after, ..RedisOptions::new(redis.url(), "applied", consumer) }).unwrap()
    };
    let take_one = async |member: &RedisGroup, stream: &str| {
        member.open().await.unwrap();
        world.store.append(stream, "Written", json!({}));
        let taken = Mutex::new(Vec::new());
        eventually("one is handed out", async || {
            let deliveries = member.poll(&[], 10, Duration::from_millis(100)).await.unwrap();
            let receipts = deliveries.into_iter().map(|delivery| delivery.receipt);
            taken.lock().unwrap().extend(receipts);
            !taken.lock().unwrap().is_empty()
        })
        .await;
        taken.into_inner().unwrap()
    };
    let (holding, done) = (member("holding"), member("done"));
    take_one(&holding, "note-1").await;
    let receipts = take_one(&done, "note-2").await;
    assert_eq!(consumers(redis).await, ["done", "holding"].map(str::to_owned).into());
    let settled = receipts.into_iter().map(|receipt| Settlement { receipt, settled: Settled::Done });
    done.settle(&settled.collect::<Vec<_>>()).await.unwrap();
    member("next").open().await.unwrap();
    assert_eq!(consumers(redis).await, ["holding".to_owned()].into(), "what it holds is for others to take over");
}
