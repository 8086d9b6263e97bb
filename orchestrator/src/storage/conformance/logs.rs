//! Reading the log: complete, in order, while it grows.

use std::collections::BTreeMap;

use skald_core::{
    event::Mode,
    ids::Shard,
    shard::batch::{Append, Transition},
    time::Timestamp,
};

use super::{
    super::{
        OwnedShard, Storage,
        groups::{GroupFilter, GroupRetry, NewGroup, Poll, Start},
        log::{EventCount, LogEvent, LogFilter, LogPage, LogQuery, SCAN_MAX},
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, START, Saga, batch, mixed, owner},
};

fn shards(database: &Database) -> u16 {
    if database.backend == Backend::Postgres { 3 } else { 1 }
}

async fn beginning(store: &dyn Storage) -> BTreeMap<Shard, i64> {
    store.heads().await.unwrap().into_keys().map(|shard| (shard, 0)).collect()
}

async fn look(store: &dyn Storage, after: &BTreeMap<Shard, i64>, limit: u32, filter: &LogFilter) -> LogPage {
    let query = LogQuery { after: after.clone(), until: BTreeMap::new(), limit, filter: filter.clone() };
    let page = store.log(&query).await.unwrap();
    assert!(page.events.len() <= limit as usize);
    assert!(page.read_to.keys().eq(after.keys()));
    for (shard, read_to) in &page.read_to {
        let events = page.events.iter().filter(|event| event.shard == *shard).map(|event| event.position);
        let last = events.inspect(|position| assert!(*position > after[shard] && position <= read_to)).max();
        assert!(*read_to >= last.unwrap_or(after[shard]));
    }
    page
}

/// Page after page until there is no more.
async fn read(store: &dyn Storage, limit: u32, filter: &LogFilter) -> Vec<LogEvent> {
    let mut after = beginning(store).await;
    let mut events = Vec::new();
    loop {
        let page = look(store, &after, limit, filter).await;
        assert!(page.more || store.heads().await.unwrap() == page.read_to);
        events.extend(page.events);
        after = page.read_to;
        if !page.more {
            return events;
        }
    }
}

/// Sagas of two definitions and modes, carts and a complaint, in several commits.
async fn fill(store: &dyn Storage, owned: &[OwnedShard], shards: u16) -> (Vec<Saga>, Vec<Named>) {
    let mut sagas: Vec<Saga> = (0..12).map(|number| Saga::new(number % shards, shards)).collect();
    for (number, saga) in sagas.iter_mut().enumerate() {
        saga.row.definition = if number % 3 == 0 { "refund" } else { "checkout" }.into();
        saga.row.mode = if number % 4 == 0 { Mode::Choreographed } else { Mode::Orchestrated };
    }
    let mut named: Vec<Named> = (0..6).map(|number| Named::new("cart", number % shards, shards)).collect();
    named.push(Named::new("complaint", 0, shards));
    for round in 0..3 {
        let move_on = |saga: &mut Saga| if round == 0 { saga.create() } else { saga.step() };
        let transitions: Vec<Transition> = sagas.iter_mut().map(move_on).collect();
        let appends: Vec<Append> = named.iter_mut().map(|stream| stream.append(&["ItemAdded", "Emptied"])).collect();
        store.commit(&mixed(owned, transitions, appends)).await.unwrap();
    }
    (sagas, named)
}

/// Invariant 7.
pub async fn every_event_is_read_once_and_in_order_whatever_the_page(database: &Database) {
    let shards = shards(database);
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    assert!(read(&*store, 10, &LogFilter::default()).await.is_empty());
    let (sagas, named) = fill(&*store, &owned, shards).await;
    let heads = store.heads().await.unwrap();
    for limit in [1, 2, 7, 50, 1000] {
        let events = read(&*store, limit, &LogFilter::default()).await;
        for (shard, head) in &heads {
            let of_shard = events.iter().filter(|event| event.shard == *shard).map(|event| event.position);
            assert!(of_shard.eq(1..=*head), "shard {shard} by {limit}");
        }
        for event in &events {
            let saga = sagas.iter().find(|saga| saga.id() == event.stream);
            let name = named.iter().find(|named| named.id == event.stream).map(|named| &named.name);
            assert_eq!(event.name.as_ref(), name);
            assert_eq!(event.definition.as_deref(), saga.map(|saga| &*saga.row.definition));
            assert_eq!(event.mode, saga.map(|saga| saga.row.mode));
            assert_eq!(saga.is_some(), event.category() == "saga");
            if let Some(saga) = saga {
                assert_eq!(event.correlation_id.as_deref(), Some(&*saga.row.correlation_id));
            }
        }
    }
}

pub async fn each_filter_of_the_log_selects(database: &Database) {
    let shards = shards(database);
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (sagas, named) = fill(&*store, &owned, shards).await;
    let all = read(&*store, 1000, &LogFilter::default()).await;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let any = LogFilter::default;
    let saga = &sagas[1].row;
    let middle = Timestamp::from_micros(START.as_micros() + 3000);
    type Wanted<'a> = Box<dyn Fn(&LogEvent) -> bool + 'a>;
    let cases: Vec<(LogFilter, Wanted<'_>)> = vec![
        (
            LogFilter { types: words(&["ItemAdded", "StepStarted"]), ..any() },
            Box::new(|event| ["ItemAdded", "StepStarted"].contains(&&*event.type_name)),
        ),
        (LogFilter { kinds: words(&["Appended"]), ..any() }, Box::new(|event| &*event.kind == "Appended")),
        (
            LogFilter { definitions: words(&["refund"]), ..any() },
            Box::new(|event| event.definition.as_deref() == Some("refund")),
        ),
        (
            LogFilter { mode: Some(Mode::Choreographed), ..any() },
            Box::new(|event| event.mode == Some(Mode::Choreographed)),
        ),
        (LogFilter { categories: words(&["saga"]), ..any() }, Box::new(|event| event.name.is_none())),
        (LogFilter { categories: words(&["cart"]), ..any() }, Box::new(|event| event.category() == "cart")),
        (
            LogFilter { categories: words(&["saga", "complaint"]), ..any() },
            Box::new(|event| event.category() != "cart"),
        ),
        (LogFilter { stream: Some(named[2].id), ..any() }, Box::new(|event| event.stream == named[2].id)),
        (
            LogFilter { correlation_id: Some(saga.correlation_id.to_string()), ..any() },
            Box::new(|event| event.stream == saga.id),
        ),
        (
            LogFilter { correlation_id: Some(format!("of {}", named[0].name)), ..any() },
            Box::new(|event| event.stream == named[0].id),
        ),
        (LogFilter { actor: Some("ada".to_owned()), ..any() }, Box::new(|event| event.name.is_some())),
        (LogFilter { since: Some(middle), ..any() }, Box::new(|event| event.occurred_at >= middle)),
        (LogFilter { until: Some(middle), ..any() }, Box::new(|event| event.occurred_at < middle)),
        (
            LogFilter { types: words(&["Emptied"]), categories: words(&["complaint"]), ..any() },
            Box::new(|event| &*event.type_name == "Emptied" && event.category() == "complaint"),
        ),
        (LogFilter { types: words(&["'; DROP TABLE events"]), ..any() }, Box::new(|_| false)),
    ];
    let places = |events: &[LogEvent]| {
        let mut places: Vec<_> = events.iter().map(|event| (event.shard, event.position)).collect();
        places.sort();
        places
    };
    for (filter, wanted) in cases {
        let expected: Vec<LogEvent> = all.iter().filter(|event| wanted(event)).cloned().collect();
        for limit in [1, 5, 1000] {
            assert_eq!(places(&read(&*store, limit, &filter).await), places(&expected), "{filter:?}");
        }
    }
}

/// A filter that passes most events over is not a reason to look at all of them in one call.
pub async fn a_look_with_a_filter_ends_in_time(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let types = vec!["Noise"; 3000];
    let mut stream = Named::new("cart", 0, 1);
    for _ in 0..SCAN_MAX / 3000 + 2 {
        store.commit(&mixed(&owned, vec![], vec![stream.append(&types)])).await.unwrap();
    }
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["Signal"])])).await.unwrap();
    let filter = LogFilter { types: vec!["Signal".to_owned()], ..LogFilter::default() };
    let first = look(&*store, &beginning(&*store).await, 10, &filter).await;
    assert!(first.events.is_empty() && first.more);
    assert_eq!(first.read_to[&Shard(0)], SCAN_MAX);
    assert_eq!(read(&*store, 10, &filter).await.len(), 1);
}

/// However long the hole is that retention left, from wherever in it the look begins.
pub async fn a_look_goes_on_behind_a_hole(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let end = 3 * SCAN_MAX;
    let hole =
        format!("INSERT INTO log_holes (shard, first, last) VALUES (0, 3, {end}); UPDATE shards SET head = {end}");
    let mut stream = Named::new("cart", 0, 1);
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["Noise", "Signal"])])).await.unwrap();
    database.execute(&hole).await.unwrap();
    store.commit(&mixed(&owned, vec![], vec![stream.append(&["Noise", "Signal"])])).await.unwrap();
    let signals = LogFilter { types: vec!["Signal".to_owned()], ..LogFilter::default() };
    for filter in [signals, LogFilter::default()] {
        for after in [2, 3, end / 2, end] {
            let page = look(&*store, &BTreeMap::from([(Shard(0), after)]), 1, &filter).await;
            let first = if filter.is_any() { end + 1 } else { end + 2 };
            assert!(page.events.iter().map(|event| event.position).eq([first]), "{after}: {page:?}");
        }
        let until = BTreeMap::from([(Shard(0), end / 2)]);
        let query = LogQuery { after: BTreeMap::from([(Shard(0), 2)]), until, limit: 1, filter };
        let page = store.log(&query).await.unwrap();
        assert_eq!((page.events.len(), page.read_to[&Shard(0)], page.more), (0, end / 2, false));
    }
    let group = NewGroup {
        name: "audit".to_owned(),
        filter: GroupFilter { types: vec!["Signal".to_owned()], ..GroupFilter::default() },
        retry: GroupRetry::default(),
        start: Start::Beginning,
    };
    store.put_group(&group).await.unwrap();
    let poll =
        Poll { group: "audit".to_owned(), consumer: "one".to_owned(), limit: 10, lease: LEASE, settle: Vec::new() };
    let mut given = Vec::new();
    for _ in 0..3 {
        let polled = store.poll_group(&poll).await.unwrap().unwrap();
        given.extend(polled.deliveries.iter().map(|delivery| delivery.event.position));
    }
    assert_eq!(given, [2, end + 2]);
}

pub async fn a_look_ends_where_it_was_told_to(database: &Database) {
    let shards = shards(database);
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    fill(&*store, &owned, shards).await;
    let after = BTreeMap::from([(Shard(0), 2)]);
    let until = BTreeMap::from([(Shard(0), 6)]);
    let query = LogQuery { after, until, limit: 100, filter: LogFilter::default() };
    let page = store.log(&query).await.unwrap();
    assert!(page.events.iter().map(|event| (event.shard, event.position)).eq((3..=6).map(|at| (Shard(0), at))));
    assert_eq!((page.read_to, page.more), (BTreeMap::from([(Shard(0), 6)]), false));
    // A cursor from another time stays where it is.
    let beyond = BTreeMap::from([(Shard(0), 1_000_000)]);
    let page = look(&*store, &beyond, 10, &LogFilter::default()).await;
    assert!(page.events.is_empty() && !page.more && page.read_to == beyond);
}

/// Invariant 7: a reader at a position never later sees a new event at or below it.
pub async fn a_follower_skips_nothing_while_commits_go_on(database: &Database) {
    const EACH: usize = 40;
    let shards = shards(database);
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    // A writer per shard, as replicas have.
    let writers = owned.iter().map(|owned| {
        let (shard, owned) = (owned.shard, *owned);
        async move {
            let store = database.open(shards).await;
            let mut stream = Named::new("cart", shard.0, shards);
            for round in 0..EACH {
                let mut sagas: Vec<Saga> = (0..round % 4).map(|_| Saga::new(shard.0, shards)).collect();
                let transitions = sagas.iter_mut().map(Saga::create).collect();
                store.commit(&mixed(&[owned], transitions, vec![stream.append(&["A", "B"])])).await.unwrap();
            }
        }
    });
    let done = std::cell::Cell::new(false);
    let follow = async |limit: u32, filter: LogFilter| {
        let mut after = beginning(&*store).await;
        let mut seen = Vec::new();
        loop {
            let was_done = done.get();
            let page = look(&*store, &after, limit, &filter).await;
            seen.extend(page.events.iter().map(|event| (event.shard, event.position)));
            after = page.read_to;
            if was_done && !page.more {
                return seen;
            }
        }
    };
    let write = async {
        futures_util::future::join_all(writers).await;
        done.set(true);
    };
    let carts = LogFilter { categories: vec!["cart".to_owned()], ..LogFilter::default() };
    let (_, all, of_carts) = tokio::join!(write, follow(7, LogFilter::default()), follow(3, carts));
    for (shard, head) in store.heads().await.unwrap() {
        assert!(all.iter().filter(|(of, _)| *of == shard).map(|(_, position)| *position).eq(1..=head));
        let of_carts: Vec<_> = of_carts.iter().filter(|(of, _)| *of == shard).collect();
        assert!(of_carts.len() == 2 * EACH && of_carts.is_sorted(), "{of_carts:?}");
    }
}

pub async fn a_stream_is_read_by_versions(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut cart = Named::new("cart", 0, 1);
    store.commit(&mixed(&owned, vec![Saga::new(0, 1).create()], vec![cart.append(&["A"; 9])])).await.unwrap();
    for (after, until, limit, expected) in [
        (0, None, 100, 1..10),
        (3, None, 2, 4..6),
        (3, Some(4), 100, 4..5),
        (9, None, 100, 0..0),
        (u64::MAX, Some(u64::MAX), 100, 0..0),
    ] {
        let events = store.stream_log(cart.id, after, until, limit).await.unwrap();
        assert!(events.iter().map(|event| event.version).eq(expected), "after {after}");
    }
    assert!(store.stream_log(Named::new("cart", 0, 1).id, 0, None, 10).await.unwrap().is_empty());
    let at = |events: Vec<LogEvent>| events.iter().map(|event| event.position).collect::<Vec<_>>();
    assert_eq!(at(store.events_at(Shard(0), &[3, 5, 99]).await.unwrap()), [3, 5]);
    assert!(store.events_at(Shard(9), &[3]).await.unwrap().is_empty());
}

pub async fn events_are_counted_once_by_category_and_type(database: &Database) {
    let shards = shards(database);
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    fill(&*store, &owned, shards).await;
    let (one, two) = tokio::join!(store.event_stats(), store.event_stats());
    let (mut one, two) = (one.unwrap(), two.unwrap());
    for more in 0..3 {
        let mut expected = BTreeMap::<(String, String), u64>::new();
        for event in read(&*store, 1000, &LogFilter::default()).await {
            *expected.entry((event.category().to_owned(), event.type_name.to_string())).or_default() += 1;
        }
        let count = |((category, type_name), events)| EventCount { category, type_name, events };
        let last = store.event_stats().await.unwrap();
        assert_eq!(last.counts, expected.into_iter().map(count).collect::<Vec<_>>(), "after {more}: {one:?} {two:?}");
        assert_eq!((last.uncounted, &last.heads), (0, &store.heads().await.unwrap()));
        assert!(last.bytes > 8192);
        one = last;
        store.commit(&batch(&owned, vec![Saga::new(0, shards).create()])).await.unwrap();
    }
}

pub async fn what_was_relayed_never_goes_back(database: &Database) {
    let shards = shards(database);
    let store = database.migrated(shards).await;
    assert_eq!(store.relayed("redis").await.unwrap(), BTreeMap::new());
    let last = Shard(shards - 1);
    for (position, expected) in [(5, 5), (3, 5), (9, 9)] {
        store.note_relayed("redis", &BTreeMap::from([(last, position)])).await.unwrap();
        assert_eq!(store.relayed("redis").await.unwrap(), BTreeMap::from([(last, expected)]));
    }
    assert_eq!(store.relayed("other").await.unwrap(), BTreeMap::new());
}
