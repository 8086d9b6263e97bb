//! Archiving, removing and restoring what is old.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use skald_core::{
    ids::{SagaId, Shard},
    shard::batch::Transition,
    time::Millis,
};

mod fixture;

use self::fixture::{DAY, Fixture, OLD};
use super::{
    super::{
        audit,
        groups::{GroupFilter, GroupRetry, NewGroup, Poll, Settled, Settlement, Start},
        log::{LogFilter, LogQuery},
        retention::{Leaving, Part, PartState, RetentionError, Unit},
        subjects::SubjectKey,
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, batch, mixed, owner},
};
use crate::retention::{Error, Report, Retain, restore};

pub async fn what_is_old_and_unneeded_goes_to_the_archive_and_comes_back(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    fixture.month(31).await;
    let mut gone = Vec::new();
    for day in [0, 1, 40] {
        gone.push(fixture.ended(day, Some(&format!("key \"{day}\""))).await);
    }
    let mut cart = fixture.stream(2);
    fixture.append(cart.append(&["CartItemAdded", "CartItemRemoved"])).await;
    let young = Saga::new(0, fixture.shards);
    let mut younger = young.clone();
    fixture.store.commit(&batch(&fixture.owned, vec![younger.create()])).await.unwrap();
    let before = fixture.all().await;

    let foretold = Retain { dry_run: true, ..fixture.retain() }.run().await.unwrap();
    assert_eq!((foretold.sagas, foretold.streams, foretold.events), (3, 1, 20), "{foretold}");
    assert_eq!(fixture.all().await, before, "a dry run changes nothing");
    assert!(fixture.files().is_empty());

    let report = fixture.run().await;
    assert_eq!((report.sagas, report.streams, report.events), (3, 1, 20), "{report}");
    assert_eq!(report.parts, ["2023-11.0001", "2023-12.0001"]);
    for id in &gone {
        assert!(!fixture.has(*id).await);
        assert!(fixture.store.is_removed(*id).await.unwrap());
    }
    assert_eq!(fixture.store.stream_head(&cart.name).await.unwrap(), None);
    assert_eq!(fixture.store.keyed_saga("checkout", "key \"0\"").await.unwrap(), None);
    assert!(fixture.has(young.id()).await);
    assert!(!fixture.store.is_removed(young.id()).await.unwrap());
    let elsewhere = SagaId::new(OLD.plus(Millis(100 * DAY.0)), [9; 10], Shard(0), fixture.shards);
    assert!(!fixture.store.is_removed(elsewhere).await.unwrap(), "no such streams were removed");
    fixture.assert_accounted_for().await;
    if database.backend == Backend::Postgres {
        let partitions = "SELECT count(*)::text FROM pg_class WHERE relname ~ '^(sagas|events)_2023(11|12)$'";
        assert_eq!(database.query(partitions).await, "0");
    }
    // Whoever reads from the beginning begins where something is.
    let after = (0..fixture.shards).map(|shard| (Shard(shard), 0)).collect();
    let query = LogQuery { after, until: Default::default(), limit: 10, filter: LogFilter::default() };
    let page = fixture.store.log(&query).await.unwrap();
    assert!(page.events.iter().all(|event| event.stream == young.id()) && page.events.len() == 2, "{page:?}");

    let again = fixture.run().await;
    assert_eq!((again.sagas, again.parts.len()), (0, 0), "{again}");

    let files = fixture.files();
    let report = restore(&fixture.store, "b", &files).await.unwrap();
    assert_eq!((report.restored, report.present), (4, 0));
    assert_eq!(fixture.all().await, before, "all is as it was, in every column");
    fixture.assert_accounted_for().await;
    assert!(!fixture.store.is_removed(gone[0]).await.unwrap());
    assert_eq!(restore(&fixture.store, "b", &files).await.unwrap().present, 4, "restoring again changes nothing");
    assert_eq!(fixture.all().await, before);
    let report = fixture.run().await;
    assert_eq!(report.parts, ["2023-11.0002", "2023-12.0002"], "no file is written over");
}

pub async fn what_is_removed_counts_no_more_as_held_of_a_person(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    fixture.month(31).await;
    fixture.store.live_key("s", &SubjectKey { id: "k1".into(), bytes: [7; 32] }).await.unwrap();
    let (mut ended, mut unfinished) = (fixture.saga(0), fixture.saga(31));
    for saga in [&mut ended, &mut unfinished] {
        let create = Transition { sealed_under: Some("k1".into()), ..saga.create() };
        fixture.store.commit(&batch(&fixture.owned, vec![create])).await.unwrap();
    }
    fixture.store.commit(&batch(&fixture.owned, vec![ended.complete()])).await.unwrap();
    assert_eq!(fixture.store.subject("s").await.unwrap()[0].sagas, 2);
    assert_eq!(fixture.run().await.sagas, 1);
    assert!(!fixture.has(ended.id()).await && fixture.has(unfinished.id()).await);
    assert_eq!(fixture.store.subject("s").await.unwrap()[0].sagas, 1);
}

pub async fn what_somebody_needs_stays(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    for day in [0, 31, 62] {
        fixture.month(day).await;
    }
    let (first, second) = (fixture.ended(0, None).await, fixture.ended(31, None).await);
    let mut unfinished = fixture.saga(62);
    fixture.store.commit(&batch(&fixture.owned, vec![unfinished.create()])).await.unwrap();
    let group = NewGroup {
        name: "audit".to_owned(),
        filter: GroupFilter { kinds: vec!["SagaStarted".to_owned()], ..GroupFilter::default() },
        retry: GroupRetry::default(),
        start: Start::Beginning,
    };
    fixture.store.put_group(&group).await.unwrap();
    let report = fixture.run().await;
    assert_eq!(report.sagas, 0, "the group has read nothing yet");
    let reason = "streams that consumer group audit has not read";
    assert_eq!(report.kept.get(reason), Some(&2), "{report}");
    assert_eq!(report.kept.get("sagas that have not ended"), Some(&1), "{report}");

    // One is handled, one parked, the third is of an unfinished saga.
    let poll = Poll {
        group: "audit".to_owned(),
        consumer: "one".to_owned(),
        limit: 10,
        lease: Millis(60_000),
        settle: Vec::new(),
    };
    let mut settled = 0;
    while settled < 3 {
        let polled = fixture.store.poll_group(&poll).await.unwrap().unwrap();
        if settled == 0 && !polled.deliveries.is_empty() {
            let report = fixture.run().await;
            assert_eq!(report.sagas, 0, "what is in somebody's hands is needed: {report}");
        }
        for delivery in polled.deliveries {
            let result = if delivery.event.stream == second {
                Settled::Failed { error: "no".to_owned(), poison: true }
            } else {
                Settled::Done
            };
            let (shard, position, token) = (delivery.event.shard, delivery.event.position, delivery.token);
            let settlement = Settlement { shard, position, token, result };
            assert!(fixture.store.settle("audit", &[settlement]).await.unwrap().unwrap().is_empty());
            settled += 1;
        }
    }
    fixture.store.poll_group(&poll).await.unwrap();
    let report = fixture.run().await;
    assert_eq!((report.sagas, report.parts.len()), (1, 1), "{report}");
    assert!(!fixture.has(first).await && fixture.has(second).await && fixture.has(unfinished.id()).await);
    assert_eq!(report.kept.get("streams of which a consumer group holds an event"), Some(&1), "{report}");
    fixture.assert_accounted_for().await;

    fixture.store.drop_group("audit").await.unwrap();
    assert_eq!(fixture.run().await.sagas, 1);
    assert!(!fixture.has(second).await && fixture.has(unfinished.id()).await);
    fixture.assert_accounted_for().await;
}

/// Everything of a part that was written: what a run would hand over next.
async fn written(fixture: &Fixture<'_>, ids: &[SagaId]) -> Vec<Leaving> {
    let rows = fixture.store.copy_rows(ids).await.unwrap();
    let part = Part {
        name: "2023-11.0001".to_owned(),
        state: PartState::Written,
        first_id: ids[0],
        last_id: ids[ids.len() - 1],
        sagas: 0,
        streams: 0,
        events: 0,
        sha256: [0; 32],
        archived_at: OLD,
    };
    fixture.store.add_part(&part).await.unwrap();
    fixture.store.begin_removing(&part.name).await.unwrap();
    rows.iter().map(|row| Leaving { id: row.id(), version: row.version(), is_saga: false }).collect()
}

pub async fn a_long_stream_goes_step_by_step_and_a_crash_in_between_is_ended(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    let (mut long, mut short) = (fixture.stream(0), fixture.stream(0));
    for _ in 0..10 {
        fixture.append(long.append(&["Grown"; 100])).await;
    }
    fixture.append(short.append(&["Born"])).await;
    if fixture.store.unit() == Unit::Month {
        assert_eq!(fixture.run().await.events, 1001);
        fixture.assert_accounted_for().await;
        return;
    }
    // A process that dies after its first step leaves a part whose file is needed to go on.
    let report = fixture.run().await;
    assert_eq!((report.streams, report.events), (2, 1001));
    restore(&fixture.store, "b", &fixture.files()).await.unwrap();
    let leaving = written(&fixture, &[long.id, short.id]).await;
    fixture.store.hold_retention("a", LEASE).await.unwrap();
    assert_eq!(
        fixture.store.remove_some("a", "2023-11.0001", &leaving).await.unwrap(),
        0,
        "it is too long for one step"
    );
    assert_eq!(fixture.store.stream_head(&long.name).await.unwrap(), None, "the row goes first");
    assert!(!fixture.store.stream_log(long.id, 0, None, 10).await.unwrap().is_empty());
    assert_eq!(fixture.removing().await, Some(long.id));
    fixture.assert_accounted_for().await;

    let refused = fixture.retain().run().await;
    assert!(matches!(&refused, Err(Error::HalfRemoved { name, .. }) if name == "2023-11.0001"), "{refused:?}");
    let digest = "UPDATE archive_parts SET sha256 = x'DIGEST'";
    let manifest = std::fs::read(fixture.folder.path().join("2023-11.0001.manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    database.execute(&digest.replace("DIGEST", manifest["file"]["sha256"].as_str().unwrap())).await.unwrap();
    let report = fixture.run().await;
    assert_eq!(report.parts, ["2023-11.0001"], "the next run goes on with it");
    assert!(fixture.store.stream_log(long.id, 0, None, 10).await.unwrap().is_empty());
    assert_eq!(fixture.removing().await, None);
    fixture.assert_accounted_for().await;
}

pub async fn whoever_lost_the_lease_removes_nothing(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    let saga = fixture.ended(0, None).await;
    let store = Arc::clone(&fixture.store);
    assert!(store.hold_retention("b", LEASE).await.unwrap());
    assert!(store.hold_retention("b", LEASE).await.unwrap(), "a holder extends its lease");
    assert!(!store.hold_retention("a", LEASE).await.unwrap());
    let busy = |done: Result<Report, Error>| matches!(done, Err(Error::Database(RetentionError::Busy)));
    assert!(busy(fixture.retain().run().await));
    let leaving = written(&fixture, &[saga]).await;
    let refused = match store.unit() {
        Unit::Stream => store.remove_some("a", "2023-11.0001", &leaving).await.map(drop),
        Unit::Month => store.drop_month("a", "2023-11-01T00:00:00Z".parse().unwrap(), &[], 0).await,
    };
    assert!(matches!(refused, Err(RetentionError::Busy)), "{refused:?}");
    assert!(fixture.has(saga).await);
    store.let_retention_go("a").await.unwrap();
    assert!(busy(fixture.retain().run().await), "nobody lets go of another one's lease");
    store.let_retention_go("b").await.unwrap();
    store.forget_part("2023-11.0001").await.unwrap();
    assert_eq!(fixture.run().await.sagas, 1);
}

pub async fn a_stream_that_grew_since_it_was_archived_stays(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    let (saga, mut cart) = (fixture.ended(0, None).await, fixture.stream(0));
    fixture.append(cart.append(&["Born"])).await;
    let leaving = written(&fixture, &[saga, cart.id]).await;
    fixture.append(cart.append(&["Grown"])).await;
    let store = Arc::clone(&fixture.store);
    assert!(store.hold_retention("a", LEASE).await.unwrap());
    match store.unit() {
        Unit::Stream => {
            let saga = Leaving { is_saga: true, ..leaving[0] };
            assert_eq!(store.remove_some("a", "2023-11.0001", &[saga, leaving[1]]).await.unwrap(), 2);
        }
        Unit::Month => {
            let parts = ["2023-11.0001".to_owned()];
            let refused = store.drop_month("a", "2023-11-01T00:00:00Z".parse().unwrap(), &parts, 1).await;
            assert!(matches!(refused, Err(RetentionError::Changed(_))), "{refused:?}");
            assert!(fixture.has(saga).await);
        }
    }
    assert_eq!(store.stream_head(&cart.name).await.unwrap().unwrap().version, 2);
    assert_eq!(store.stream_log(cart.id, 0, None, 10).await.unwrap().len(), 2);
    fixture.assert_accounted_for().await;
}

pub async fn an_archive_that_contradicts_the_database_is_refused(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    let saga = fixture.ended(0, Some("key")).await;
    let mut cart = fixture.stream(0);
    fixture.append(cart.append(&["Born"])).await;
    fixture.run().await;
    let files = fixture.files();

    // The key and the name were given anew meanwhile.
    let mut other = Saga::new(0, fixture.shards);
    fixture.store.commit(&batch(&fixture.owned, vec![other.create_keyed("key")])).await.unwrap();
    let mut again = Named { name: Arc::clone(&cart.name), ..Named::new("cart", cart.shard.0, fixture.shards) };
    fixture.store.commit(&mixed(&fixture.owned, vec![], vec![again.append(&["BornAgain"])])).await.unwrap();
    let before = fixture.all().await;
    let refused = restore(&fixture.store, "a", &files).await;
    let Err(Error::Database(RetentionError::Differs(text))) = &refused else { panic!("{refused:?}") };
    assert!(text.contains(&cart.id.to_string()) && text.contains("name"), "{text}");
    assert_eq!(fixture.all().await, before, "nothing of the batch was written");

    let other_store = Database::create(database.backend).await;
    let one = other_store.migrated(1).await;
    let refused = restore(&one, "a", &files).await;
    if database.backend == Backend::Postgres {
        assert!(matches!(refused, Err(Error::Database(RetentionError::Differs(_)))), "other shards: {refused:?}");
    }

    // A file that was touched is not read at all.
    let (_, manifest) = (&files[0], files[0].with_file_name("2023-11.0001.manifest.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"events\": 7", "\"events\": 8")).unwrap();
    assert!(matches!(restore(&one, "a", &files).await, Err(Error::Archive(_))));
    std::fs::write(&manifest, &text).unwrap();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    assert!(matches!(restore(&one, "a", &files).await, Err(Error::Archive(_))));
    assert!(!fixture.has(saga).await);
}

pub async fn an_archive_is_restored_into_an_empty_database(database: &Database) {
    let mut fixture = Fixture::new(database).await;
    fixture.month(0).await;
    // So that the first positions are not in the archive.
    let mut young = Saga::new(0, fixture.shards);
    fixture.store.commit(&batch(&fixture.owned, vec![young.create()])).await.unwrap();
    let sagas = [fixture.ended(0, Some("a key")).await, fixture.ended(1, None).await];
    fixture.run().await;

    let empty = Database::create(database.backend).await;
    let store = empty.migrated(fixture.shards).await;
    let report = restore(&store, "a", &fixture.files()).await.unwrap();
    assert_eq!(report.restored, 2);
    let folder = tempfile::tempdir().unwrap();
    let restored = Fixture { database: &empty, store, owned: vec![], folder, ..fixture };
    for saga in sagas {
        assert!(restored.has(saga).await);
    }
    assert_eq!(restored.store.keyed_saga("checkout", "a key").await.unwrap().unwrap().saga, sagas[0]);
    restored.assert_accounted_for().await;
    let taken = restored.store.take_shards(&owner("b"), None, LEASE).await.unwrap();
    let epochs: Vec<i64> = taken.iter().map(|owned| owned.epoch.0).collect();
    assert!(epochs.iter().all(|epoch| *epoch >= 1), "{epochs:?}");
    let mut next = Saga::new(0, restored.shards);
    restored.store.commit(&batch(&taken, vec![next.create()])).await.unwrap();
    restored.assert_accounted_for().await;
}

/// Against a set of positions.
pub async fn holes_are_as_if_noted_one_by_one(database: &Database) {
    let store = database.migrated(1).await;
    let audit = audit::open(&database.url).await.unwrap();
    let Backend::Postgres = database.backend else {
        // On SQLite removing and restoring are the only ways there; the suite's other tests go them.
        return;
    };
    let ranges = prop::collection::vec((1_i64..40, 1_i64..6, prop::bool::ANY), 1..25);
    let mut runner = TestRunner::new(Config { cases: 30, failure_persistence: None, ..Config::default() });
    let histories: Vec<Vec<(i64, i64, bool)>> =
        (0..30).map(|_| prop::strategy::ValueTree::current(&ranges.new_tree(&mut runner).unwrap())).collect();
    for history in histories {
        let mut expected = BTreeSet::new();
        let mut sql = "DELETE FROM log_holes;".to_owned();
        for (first, count, fill) in &history {
            if *fill {
                expected.remove(first);
                sql += &format!("SELECT skald_fill_hole(0, {first});");
            } else {
                expected.extend(*first..first + count);
                sql += &format!("SELECT skald_add_hole(0, {first}, {});", first + count - 1);
            }
        }
        sql += "UPDATE shards SET head = 100;";
        database.execute(&sql).await.unwrap();
        let holes = audit.places(Shard(0), None, 100, 10).await.unwrap().holes;
        let ranges = super::super::retention::ranges(expected);
        assert_eq!(holes, ranges, "{history:?}");
    }
    drop(store);
}
