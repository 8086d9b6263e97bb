//! Measurements, not tests: how many transitions and appended events a store takes per second, how fast the log is read,
//! what a consumer group costs.
//!
//! `cargo test --release -p skald speed -- --ignored --nocapture`; name a server with `fsync=on` in
//! `SKALD_TEST_POSTGRES_URL` for figures that mean something.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use skald_core::{
    shard::batch::{Append, Transition},
    time::{Millis, Timestamp},
};

use super::{
    super::{
        Storage,
        groups::{GroupFilter, GroupRetry, NewGroup, Poll, Settled, Settlement, Start},
        log::{LogFilter, LogQuery},
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, batch, mixed, owner},
};

const PER_SIZE: Duration = Duration::from_secs(4);

async fn measure_transitions(backend: Backend) {
    let database = Database::create(backend).await;
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut number = 0;
    for size in [1, 4, 16, 64, 256, 1024] {
        let mut sagas: Vec<Saga> = Vec::new();
        let (mut transitions, mut commits) = (0, 0);
        let mut spent = Duration::ZERO;
        while spent < PER_SIZE {
            // Each batch has sagas at every stage, as in a steady load.
            while sagas.len() < size {
                let now = store.now().await.unwrap();
                sagas.push(Saga::at(Timestamp::from_micros(now.as_micros()), number, 0, 1));
                number += 1;
            }
            let moves: Vec<Transition> = sagas.iter_mut().map(advance).collect();
            sagas.retain(|saga| saga.row.ended_at.is_none());
            let batch = batch(&owned, moves);
            let began = Instant::now();
            store.commit(&batch).await.unwrap();
            spent += began.elapsed();
            transitions += size;
            commits += 1;
        }
        let per_second = transitions as f64 / spent.as_secs_f64();
        let per_commit = spent.as_secs_f64() * 1e6 / f64::from(commits);
        println!("{backend:?} batches of {size}: {per_second:.0} transitions/s, {per_commit:.0} us per commit");
    }
}

fn advance(saga: &mut Saga) -> Transition {
    match saga.row.version {
        0 => saga.create(),
        8.. => saga.complete(),
        _ => saga.step(),
    }
}

/// Sagas and carts of as many events, in several shards.
async fn fill(store: &dyn Storage, shards: u16, events: usize) {
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut written = 0;
    while written < events {
        let mut sagas: Vec<Saga> = (0..100).map(|number| Saga::new(number % shards, shards)).collect();
        let mut carts: Vec<Named> = (0..50).map(|number| Named::new("cart", number % shards, shards)).collect();
        for round in 0..4 {
            let moves = sagas.iter_mut().map(|saga| if round == 0 { saga.create() } else { saga.step() }).collect();
            let appends = carts.iter_mut().map(|cart| cart.append(&["ItemAdded"])).collect();
            let batch = mixed(&owned, moves, appends);
            written += batch.event_count();
            store.commit(&batch).await.unwrap();
        }
    }
}

async fn measure_appends(backend: Backend) {
    let database = Database::create(backend).await;
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    for (streams, events) in [(1, 1), (16, 1), (1, 100), (4, 100)] {
        let types = vec!["ItemAdded"; events];
        let mut carts: Vec<Named> = (0..streams).map(|_| Named::new("cart", 0, 1)).collect();
        let (mut written, mut commits, mut spent) = (0, 0, Duration::ZERO);
        while spent < PER_SIZE {
            let appends: Vec<Append> = carts.iter_mut().map(|cart| cart.append(&types)).collect();
            let batch = mixed(&owned, vec![], appends);
            let began = Instant::now();
            store.commit(&batch).await.unwrap();
            spent += began.elapsed();
            written += streams * events;
            commits += 1;
        }
        let per_second = written as f64 / spent.as_secs_f64();
        let per_commit = spent.as_secs_f64() * 1e6 / f64::from(commits);
        println!("{backend:?} {streams} appends of {events}: {per_second:.0} events/s, {per_commit:.0} us per commit");
    }
}

async fn measure_reading(backend: Backend) {
    const EVENTS: usize = 200_000;
    let database = Database::create(backend).await;
    let shards: u16 = if backend == Backend::Postgres { 16 } else { 1 };
    let store = database.migrated(shards).await;
    fill(&*store, shards, EVENTS).await;
    let filters = [
        ("all", LogFilter::default()),
        ("one type", LogFilter { types: vec!["ItemAdded".to_owned()], ..LogFilter::default() }),
        ("one category", LogFilter { categories: vec!["cart".to_owned()], ..LogFilter::default() }),
        ("one definition", LogFilter { definitions: vec!["checkout".to_owned()], ..LogFilter::default() }),
    ];
    for (name, filter) in filters {
        for limit in [1000, 5000] {
            let heads = store.heads().await.unwrap();
            let passed: i64 = heads.values().sum();
            let mut after: BTreeMap<_, _> = heads.into_keys().map(|shard| (shard, 0)).collect();
            let (began, mut read) = (Instant::now(), 0);
            loop {
                let query = LogQuery { after, until: BTreeMap::new(), limit, filter: filter.clone() };
                let page = store.log(&query).await.unwrap();
                read += page.events.len();
                after = page.read_to;
                if !page.more {
                    break;
                }
            }
            let seconds = began.elapsed().as_secs_f64();
            let (read_per_second, passed_per_second) = (read as f64 / seconds, passed as f64 / seconds);
            println!(
                "{backend:?} {name} by {limit}: {read_per_second:.0} events/s of {passed_per_second:.0}/s looked at"
            );
        }
    }
}

async fn measure_groups(backend: Backend) {
    let database = Database::create(backend).await;
    let shards: u16 = if backend == Backend::Postgres { 16 } else { 1 };
    let store = database.migrated(shards).await;
    fill(&*store, shards, 40_000).await;
    let group = NewGroup {
        name: "g".to_owned(),
        filter: GroupFilter::default(),
        retry: GroupRetry::default(),
        start: Start::Beginning,
    };
    store.put_group(&group).await.unwrap();
    for limit in [10, 100, 500] {
        let poll =
            Poll { group: "g".to_owned(), consumer: "c".to_owned(), limit, lease: Millis(30_000), settle: Vec::new() };
        let (began, mut handled, mut polls) = (Instant::now(), 0, 0);
        while handled < 10_000 && began.elapsed() < PER_SIZE {
            let polled = store.poll_group(&poll).await.unwrap().unwrap();
            handled += polled.deliveries.len();
            polls += 1;
            let settled = polled.deliveries.into_iter().map(|delivery| Settlement {
                shard: delivery.event.shard,
                position: delivery.event.position,
                token: delivery.token,
                result: Settled::Done,
            });
            let settled: Vec<Settlement> = settled.collect();
            assert!(store.settle("g", &settled).await.unwrap().unwrap().is_empty());
        }
        let seconds = began.elapsed().as_secs_f64();
        let (per_second, per_poll) = (handled as f64 / seconds, seconds * 1e6 / f64::from(polls));
        println!("{backend:?} polls of {limit}: {per_second:.0} events/s, {per_poll:.0} us per poll and settlement");
    }
    let poll =
        Poll { group: "g".to_owned(), consumer: "c".to_owned(), limit: 100, lease: Millis(30_000), settle: Vec::new() };
    store.put_group(&NewGroup { name: "idle".to_owned(), start: Start::End, ..group }).await.unwrap();
    let poll = Poll { group: "idle".to_owned(), ..poll };
    let began = Instant::now();
    for _ in 0..1000 {
        assert!(store.poll_group(&poll).await.unwrap().unwrap().deliveries.is_empty());
    }
    println!("{backend:?} idle: {:.0} us per poll", began.elapsed().as_secs_f64() * 1e3);
}

/// Each of these as a measurement on each backend.
macro_rules! measurements {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] #[ignore = "a measurement"] async fn $name() { super::$name(super::Backend::Sqlite).await; })*
        }

        mod postgres {
            $(#[tokio::test] #[ignore = "a measurement"] async fn $name() { super::$name(super::Backend::Postgres).await; })*
        }
    };
}

measurements!(measure_transitions, measure_appends, measure_reading, measure_groups);
