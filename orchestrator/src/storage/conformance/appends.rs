//! Appends to streams that are no sagas, and where events came from.

use std::sync::Arc;

use skald_core::{
    ids::{Epoch, Shard},
    shard::batch::{APPENDED, Batch, CommitError, Origin, StreamAsk, StreamHead},
    time::Millis,
};

use super::{
    super::Storage,
    dump::{dump, dump_log},
    fixture::{Backend, Database, LEASE},
    sample::{Named, START, Saga, batch, mixed, owner},
};

fn head(stream: &Named) -> StreamHead {
    StreamHead { id: stream.id, version: stream.version, updated_at: START.plus(Millis(stream.version)) }
}

/// The batch must fail, with nothing changed. Says how it failed.
async fn fails(store: &dyn Storage, batch: &Arc<Batch>) -> CommitError {
    let everything = async || dump(store, &[]).await + &dump_log(store).await;
    let before = everything().await;
    let error = store.commit(batch).await.expect_err("must fail");
    assert_eq!(everything().await, before, "after {error}");
    error
}

async fn refused(store: &dyn Storage, batch: &Arc<Batch>) {
    let error = fails(store, batch).await;
    assert!(matches!(error, CommitError::Refused(_)), "{error:?}");
}

pub async fn a_stream_is_made_and_continued(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut cart = Named::new("cart", 0, 1);
    assert_eq!(store.stream_head(&cart.name).await.unwrap(), None);
    let appends = [cart.append(&["ItemAdded"]), cart.append(&["ItemAdded", "ItemRemoved"]), cart.append(&["Emptied"])];
    for append in appends {
        store.commit(&mixed(&owned, vec![], vec![append])).await.unwrap();
    }
    assert_eq!(store.stream_head(&cart.name).await.unwrap(), Some(head(&cart)));
    let events = store.stream_log(cart.id, 0, None, 100).await.unwrap();
    let types: Vec<&str> = events.iter().map(|event| &*event.type_name).collect();
    assert_eq!(types, ["ItemAdded", "ItemAdded", "ItemRemoved", "Emptied"]);
    for (event, version) in events.iter().zip(1..) {
        assert_eq!((event.version, event.position), (version, version as i64));
        assert_eq!((&*event.kind, event.name.as_ref(), event.category()), (APPENDED, Some(&cart.name), "cart"));
        assert_eq!(event.event_id.as_deref(), Some(format!("id-{version}").as_str()));
        assert_eq!(event.correlation_id.as_deref(), Some(format!("of {}", cart.name).as_str()));
        assert_eq!((event.causation_id.as_deref(), event.actor.as_deref()), (Some("cause"), Some("ada")));
        assert_eq!((event.schema_version, &event.definition, event.mode), (3, &None, None));
        assert_eq!(event.data.get(), format!("{{ \"n\" : {version} }}"), "byte by byte");
        assert_eq!(event.occurred_at, START.plus(Millis(version)));
    }
}

pub async fn an_append_that_does_not_continue_its_stream_writes_nothing(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut cart = Named::new("cart", 0, 1);
    let mut saga = Saga::new(0, 1);
    let create = cart.append(&["ItemAdded", "ItemAdded"]);
    store.commit(&mixed(&owned, vec![saga.create()], vec![create.clone()])).await.unwrap();

    let with_saga = |append| mixed(&owned, vec![saga.clone().step(), Saga::new(0, 1).create()], vec![append]);
    // Made again, under the same id and under another.
    refused(&*store, &with_saga(create.clone())).await;
    refused(&*store, &with_saga(Named { name: Arc::clone(&cart.name), ..Named::new("x", 0, 1) }.append(&["A"]))).await;
    for version in [1, 3, 4] {
        refused(&*store, &with_saga(Named { version, ..cart.clone() }.append(&["ItemAdded"]))).await;
    }
    // The name of one with the id of another.
    let stranger = Named { id: Named::new("cart", 0, 1).id, ..cart.clone() }.append(&["ItemAdded"]);
    refused(&*store, &with_saga(stranger)).await;
    let unmade = Named { version: 2, ..Named::new("cart", 0, 1) }.append(&["ItemAdded"]);
    refused(&*store, &with_saga(unmade)).await;
    // An event id that the stream has.
    let mut twice = cart.clone().append(&["ItemAdded"]);
    twice.events[0].event_id = Arc::from("id-1");
    refused(&*store, &with_saga(twice)).await;
    let mut twins = cart.clone().append(&["ItemAdded", "ItemAdded"]);
    twins.events[0].event_id = Arc::from("id-4");
    refused(&*store, &with_saga(twins)).await;
    // Another stream may have it.
    let mut other = Named::new("cart", 0, 1);
    store.commit(&with_saga(other.append(&["ItemAdded"]))).await.unwrap();
}

pub async fn a_malformed_append_is_refused(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut cart = Named::new("cart", 0, 1);
    let good = cart.append(&["A", "B"]);
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = mixed(&owned, vec![], vec![good.clone()]);
        change(Arc::make_mut(&mut batch));
        batch
    };
    let cases = [
        ("no events", with(&|batch| batch.appends[0].events.clear())),
        ("a gap", with(&|batch| batch.appends[0].events[1].version = 3)),
        ("a version that is not next", with(&|batch| batch.appends[0].version_before = 1)),
        ("a version out of range", with(&|batch| batch.appends[0].version_before = u64::MAX)),
        ("no fence", with(&|batch| batch.fences.clear())),
        ("one stream twice", with(&|batch| batch.appends.push(good.clone()))),
        ("a NUL in the name", with(&|batch| batch.appends[0].name = Arc::from("cart-\0"))),
        ("a NUL in an event id", with(&|batch| batch.appends[0].events[0].event_id = Arc::from("\0"))),
        ("a NUL in a type", with(&|batch| batch.appends[0].events[0].type_name = Arc::from("\0"))),
        ("an endless name", with(&|batch| batch.appends[0].name = Arc::from("c".repeat(1001)))),
        ("an endless event id", with(&|batch| batch.appends[0].events[0].event_id = Arc::from("c".repeat(1001)))),
        ("a form out of range", with(&|batch| batch.appends[0].events[0].schema_version = u16::MAX)),
    ];
    for (name, malformed) in cases {
        let error = fails(&*store, &malformed).await;
        assert!(matches!(error, CommitError::Refused(_)), "{name}: {error:?}");
    }
    store.commit(&mixed(&owned, vec![], vec![good])).await.unwrap();
}

/// Invariant 9.
pub async fn an_append_under_a_wrong_epoch_writes_nothing(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut cart = Named::new("cart", 0, 1);
    store.commit(&mixed(&owned, vec![], vec![cart.append(&["A"])])).await.unwrap();
    for epoch in [0, owned[0].epoch.0 - 1, owned[0].epoch.0 + 1] {
        let appends = vec![cart.clone().append(&["B"]), Named::new("cart", 0, 1).append(&["A"])];
        let mut stale = mixed(&owned, vec![], appends);
        Arc::make_mut(&mut stale).fences[0].epoch = Epoch(epoch);
        assert_eq!(fails(&*store, &stale).await, CommitError::Fenced(vec![Shard(0)]));
    }
}

/// Invariant 7.
pub async fn appends_come_after_transitions_in_the_log_of_their_shard(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 3 } else { 1 };
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..4).map(|number| Saga::new(number % shards, shards)).collect();
    let mut carts: Vec<Named> = (0..70).map(|number| Named::new("cart", number % shards, shards)).collect();
    let mut expected = std::collections::BTreeMap::<Shard, Vec<_>>::new();
    for round in 0..3 {
        let types = &["A", "B", "C"][..=round];
        let transitions = sagas.iter_mut().map(|saga| if round == 0 { saga.create() } else { saga.step() }).collect();
        let appends = carts.iter_mut().rev().step_by(round + 1).map(|cart| cart.append(types)).collect();
        let batch = mixed(&owned, transitions, appends);
        for transition in &batch.transitions {
            let events = transition.events.iter().map(|event| (transition.row.id, event.version));
            expected.entry(transition.shard).or_default().extend(events);
        }
        for append in &batch.appends {
            let events = append.events.iter().map(|event| (append.stream, event.version));
            expected.entry(append.shard).or_default().extend(events);
        }
        store.commit(&batch).await.unwrap();
    }
    for (shard, expected) in expected {
        let positions: Vec<i64> = (1..=expected.len() as i64).collect();
        let events = store.events_at(shard, &positions).await.unwrap();
        let found: Vec<_> = events.iter().map(|event| (event.stream, event.version)).collect();
        assert_eq!(found, expected, "shard {shard}");
        assert!(events.iter().map(|event| event.position).eq(positions));
        assert_eq!(store.heads().await.unwrap()[&shard], expected.len() as i64);
    }
    for cart in &carts {
        assert_eq!(store.stream_head(&cart.name).await.unwrap(), Some(head(cart)));
    }
    for saga in &sagas {
        assert_eq!(store.row(saga.id()).await.unwrap().as_ref(), Some(&saga.row));
    }
}

pub async fn a_look_finds_heads_and_the_ids_that_are_known(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (mut cart, mut other) = (Named::new("cart", 0, 1), Named::new("cart", 0, 1));
    let appends = vec![cart.append(&["A", "B", "C"]), other.append(&["A"])];
    store.commit(&mixed(&owned, vec![], appends)).await.unwrap();
    let ask = |name: &str, ids: &[&str]| StreamAsk {
        name: Arc::from(name),
        event_ids: ids.iter().map(|id| Arc::from(*id)).collect(),
    };
    let asks = [
        ask(&other.name, &["id-1", "id-2"]),
        ask("cart-nothing", &["id-1"]),
        ask(&cart.name, &["id-3", "strange \"id\" 🗝", "id-1"]),
    ];
    let looks = store.look_up(&asks).await.unwrap();
    let names: Vec<&str> = looks.iter().map(|look| &*look.name).collect();
    assert_eq!(names, asks.iter().map(|ask| &*ask.name).collect::<Vec<_>>());
    let heads: Vec<_> = looks.iter().map(|look| look.head).collect();
    assert_eq!(heads, [Some(head(&other)), None, Some(head(&cart))]);
    let known = |look: usize| {
        let mut known: Vec<(String, u64)> = looks[look].known.iter().map(|(id, v)| (id.to_string(), *v)).collect();
        known.sort();
        known
    };
    assert_eq!(known(0), [("id-1".to_owned(), 1)]);
    assert_eq!(known(1), []);
    assert_eq!(known(2), [("id-1".to_owned(), 1), ("id-3".to_owned(), 3)]);
    assert_eq!(store.look_up(&[]).await.unwrap(), []);
}

pub async fn an_event_of_a_saga_says_where_it_came_from(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    let mut step = saga.step();
    step.events[0].origin = Origin { event_id: Some("reserve".into()), causation_id: Some("started".into()) };
    store.commit(&batch(&owned, vec![step])).await.unwrap();
    let events = store.stream_log(saga.id(), 2, None, 10).await.unwrap();
    let origins: Vec<_> =
        events.iter().map(|event| (event.event_id.as_deref(), event.causation_id.as_deref())).collect();
    assert_eq!(origins, [(Some("reserve"), Some("started")), (None, None)]);
    assert!(events.iter().all(|event| event.correlation_id.as_deref() == Some(&*saga.row.correlation_id)));
    assert!(events.iter().all(|event| event.name.is_none()));
    assert_eq!(store.events(saga.id(), 0, 10).await.unwrap().len(), 4, "the engine reads them as its own");
    // The same event once more.
    let mut again = saga.clone().step();
    again.events[0].origin.event_id = Some("reserve".into());
    refused(&*store, &batch(&owned, vec![again])).await;
}
