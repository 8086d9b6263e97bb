//! The end of the log in memory: the same as in the database, or not at all.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use skald_core::{
    event::Mode,
    ids::Shard,
    shard::batch::{Append, Transition},
};

use super::{
    super::{
        Storage,
        log::{LogFilter, LogPage, LogQuery},
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, mixed, owner},
};

/// What is written, and who is asked for how much after it.
#[derive(Clone, Debug)]
struct Round {
    sagas: Vec<usize>,
    streams: Vec<usize>,
    filter: usize,
    behind: Vec<i64>,
    limit: u32,
}

const SAGAS: usize = 6;
const STREAMS: [&str; 4] = ["cart", "cart", "complaint", "saga"];

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (
        prop::collection::btree_set(0..SAGAS, 0..4),
        prop::collection::btree_set(0..STREAMS.len(), 0..4),
        0..filters().len(),
        prop::collection::vec(0..30_i64, 3),
        1..20_u32,
    );
    let round = round.prop_map(|(sagas, streams, filter, behind, limit)| Round {
        sagas: sagas.into_iter().collect(),
        streams: streams.into_iter().collect(),
        filter,
        behind,
        limit,
    });
    prop::collection::vec(round, 1..20)
}

fn filters() -> Vec<LogFilter> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let any = LogFilter::default;
    vec![
        any(),
        any(),
        LogFilter { types: words(&["ItemAdded", "StepStarted"]), ..any() },
        LogFilter { kinds: words(&["Appended"]), ..any() },
        LogFilter { definitions: words(&["refund"]), ..any() },
        LogFilter { mode: Some(Mode::Choreographed), ..any() },
        LogFilter { categories: words(&["saga"]), ..any() },
        LogFilter { categories: words(&["saga", "complaint"]), ..any() },
        LogFilter { actor: Some("ada".to_owned()), ..any() },
        LogFilter { types: words(&["Emptied"]), categories: words(&["cart"]), ..any() },
    ]
}

fn text(page: &LogPage) -> String {
    format!("{page:#?}")
}

async fn reads_the_same(backend: Backend, rounds: &[Round]) {
    let shards: u16 = if backend == Backend::Postgres { 3 } else { 1 };
    let database = Database::create(backend).await;
    let store = database.migrated(shards).await;
    // It wrote nothing itself.
    let stranger = database.open(shards).await;
    // Only for those who ask is anything kept.
    store.tail().beyond();
    stranger.tail().beyond();
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Option<Saga>> = (0..SAGAS).map(|_| None).collect();
    let mut streams: Vec<Named> =
        STREAMS.iter().zip(0..).map(|(category, number)| Named::new(category, number % shards, shards)).collect();
    for round in rounds {
        let transitions: Vec<Transition> =
            round.sagas.iter().map(|number| go_on(&mut sagas, *number, shards)).collect();
        let appends: Vec<Append> =
            round.streams.iter().map(|number| streams[*number].append(&["ItemAdded", "Emptied"])).collect();
        store.commit(&mixed(&owned, transitions, appends)).await.unwrap();
        let heads = stranger.heads().await.unwrap();
        let after =
            heads.iter().zip(&round.behind).map(|((shard, head), behind)| (*shard, (head - behind).max(0))).collect();
        let filter = filters().swap_remove(round.filter);
        let query = LogQuery { after, until: BTreeMap::new(), limit: round.limit, filter };
        let expected = stranger.log(&query).await.unwrap();
        let page = store.tail().page(&query, &heads).expect("all of it was committed here");
        assert_eq!(text(&page), text(&expected), "{query:?}");
        assert_eq!(text(&store.log(&query).await.unwrap()), text(&expected), "{query:?}");
        assert!(stranger.tail().page(&query, &heads).is_none_or(|page| page.events.is_empty()));
    }
}

fn go_on(sagas: &mut [Option<Saga>], number: usize, shards: u16) -> Transition {
    if let Some(saga) = &mut sagas[number] {
        return saga.step();
    }
    let mut saga = Saga::new(u16::try_from(number).unwrap() % shards, shards);
    saga.row.definition = if number.is_multiple_of(3) { "refund" } else { "checkout" }.into();
    saga.row.mode = if number.is_multiple_of(2) { Mode::Choreographed } else { Mode::Orchestrated };
    let created = saga.create();
    sagas[number] = Some(saga);
    created
}

#[test]
fn a_tail_answers_as_the_database_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let config = Config { cases, max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    for backend in [Backend::Sqlite, Backend::Postgres] {
        TestRunner::new(config.clone())
            .run(&rounds(), |rounds| {
                runtime.block_on(reads_the_same(backend, &rounds));
                Ok(())
            })
            .unwrap();
    }
}

/// What came after it, and for what.
fn page_after(store: &dyn Storage, after: i64, head: i64) -> Option<Vec<i64>> {
    let after = BTreeMap::from([(Shard(0), after)]);
    let query = LogQuery { after, until: BTreeMap::new(), limit: 100, filter: LogFilter::default() };
    let page = store.tail().page(&query, &BTreeMap::from([(Shard(0), head)]))?;
    Some(page.events.iter().map(|event| event.position).collect())
}

pub async fn a_tail_says_nothing_of_what_others_wrote(database: &Database) {
    let first = database.migrated(1).await;
    let second = database.open(1).await;
    first.tail().beyond();
    second.tail().beyond();
    let mut stream = Named::new("cart", 0, 1);
    let lease = skald_core::time::Millis(1);
    let owned = first.take_shards(&owner("a"), None, lease).await.unwrap();
    first.commit(&mixed(&owned, vec![], vec![stream.append(&["A"])])).await.unwrap();
    assert_eq!(page_after(&*first, 0, 1), Some(vec![1]));
    let taken = loop {
        let taken = second.take_shards(&owner("b"), None, LEASE).await.unwrap();
        if !taken.is_empty() {
            break taken;
        }
        tokio::task::yield_now().await;
    };
    let mut others = Named::new("cart", 0, 1);
    second.commit(&mixed(&taken, vec![], vec![others.append(&["A"])])).await.unwrap();
    assert_eq!(page_after(&*first, 0, 2), None, "the log goes on beyond it");
    assert_eq!(page_after(&*second, 0, 2), None, "the log begins before it");
    assert_eq!(page_after(&*second, 1, 2), Some(vec![2]));
    // What is refused for a lost shard is in no tail.
    first.commit(&mixed(&owned, vec![], vec![stream.append(&["A"])])).await.unwrap_err();
    assert_eq!(page_after(&*first, 1, 2), None);
}

pub async fn what_is_not_wanted_is_no_reason_to_look(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut stream = Named::new("cart", 0, 1);
    let tail = store.tail();
    let mut beyond = tail.beyond();
    beyond.filter = LogFilter { types: vec!["Wanted".to_owned()], ..LogFilter::default() };
    beyond.after = BTreeMap::from([(Shard(0), 0)]);
    for round in 1..=3 {
        store.commit(&mixed(&owned, vec![], vec![stream.append(&["Noise", "Noise"])])).await.unwrap();
        assert!(!tail.has_grown(&mut beyond));
        assert_eq!(beyond.after[&Shard(0)], 2 * round, "it is passed over");
    }
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["Noise", "Wanted"])])).await.unwrap();
    assert!(tail.has_grown(&mut beyond.clone()));
    beyond.after.insert(Shard(0), 8);
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["Noise"; 300])])).await.unwrap();
    assert!(tail.has_grown(&mut beyond), "how far it has come is to be noted");
}

pub async fn what_a_tail_has_missed_is_a_reason_to_look(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let tail = store.tail();
    let mut beyond = tail.beyond();
    beyond.filter = LogFilter { types: vec!["Wanted".to_owned()], ..LogFilter::default() };
    beyond.after = BTreeMap::from([(Shard(0), 0)]);
    let (mut one, mut other) = (Named::new("cart", 0, 1), Named::new("cart", 0, 1));
    let [one, other] = [&mut one, &mut other].map(|stream| mixed(&owned, vec![], vec![stream.append(&["Noise"])]));
    // Which of the two is first, their caller does not learn.
    let (one, other) = tokio::join!(store.commit(&one), store.commit(&other));
    one.unwrap();
    other.unwrap();
    assert!(tail.has_grown(&mut beyond));
    assert_eq!(page_after(&*store, 0, 2), None);
}

pub async fn what_nobody_asks_for_is_not_taken_in(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (mut saga, mut stream) = (Saga::new(0, 1), Named::new("cart", 0, 1));
    let created = saga.create();
    let before = i64::try_from(created.events.len()).unwrap() + 2;
    store.commit(&mixed(&owned, vec![created], vec![stream.append(&["A", "B"])])).await.unwrap();
    assert_eq!(page_after(&*store, 0, before), None);
    // Now it was asked for, and goes on from where the log is.
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["A"])])).await.unwrap();
    assert_eq!(page_after(&*store, 0, before + 1), None);
    assert_eq!(page_after(&*store, before, before + 1), Some(vec![before + 1]));
}
