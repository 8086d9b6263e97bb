//! Reading a whole database for a check: complete, in order, of one moment per page, and without a way to write.

use skald_core::{
    ids::{SagaId, Shard},
    shard::batch::Transition,
};
use sqlx::types::Uuid;

use super::{
    super::{
        StoreError,
        audit::{self, Audit, Found, FoundEvent, FoundKey, FoundSaga, Place},
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, batch, mixed, owner},
};

const NIL: SagaId = SagaId::from_uuid(Uuid::nil());

/// Rows and events, as many pages as it takes.
async fn all_sagas(audit: &dyn Audit, limit: u32) -> (Vec<FoundSaga>, Vec<FoundEvent>) {
    let (mut rows, mut events) = (Vec::new(), Vec::new());
    let mut from = Some(NIL);
    while let Some(page) = from {
        let mut keep = |found| match found {
            Found::Sagas(found) => rows.extend(found),
            Found::Event(event) => events.push(*event),
            Found::Removing(stream) => panic!("nobody removes {stream}"),
        };
        from = audit.sagas(page, limit, &mut keep).await.unwrap();
    }
    (rows, events)
}

async fn log(audit: &dyn Audit, shard: Shard, until: i64, limit: u32) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    loop {
        let page = audit.places(shard, places.last().copied(), until, limit).await.unwrap().places;
        assert!(page.len() <= 2 * limit as usize, "each row here holds two events");
        if page.is_empty() {
            return places;
        }
        places.extend(page);
    }
}

pub async fn an_audit_sees_everything_page_by_page(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 3 } else { 1 };
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..11).map(|number| Saga::new(number % shards, shards)).collect();
    let mut create: Vec<Transition> = sagas.iter_mut().map(Saga::create).collect();
    let mut keyed = Saga::new(0, shards);
    create.push(keyed.create_keyed("key-1"));
    store.commit(&batch(&owned, create)).await.unwrap();
    store.commit(&batch(&owned, sagas.iter_mut().skip(3).map(Saga::step).collect())).await.unwrap();
    sagas.push(keyed);

    let audit = audit::open(&database.url).await.unwrap();
    audit.check_schema().await.unwrap();
    for limit in [1, 5, 12, 100] {
        let (rows, events) = all_sagas(&*audit, limit).await;
        let found: Vec<_> = rows.iter().map(|found| (found.shard, found.row.clone().unwrap())).collect();
        let expected: Vec<_> = sagas.iter().map(|saga| (i32::from(saga.shard.0), saga.row.clone())).collect();
        assert_eq!(found, expected);
        let found: Vec<_> = events.iter().map(|event| (event.place.stream, event.place.version)).collect();
        let expected = sagas.iter().flat_map(|saga| (1..=saga.row.version as i64).map(|version| (saga.id(), version)));
        assert_eq!(found, expected.collect::<Vec<_>>());
        for event in &events {
            let recorded = event.recorded.as_ref().unwrap().as_ref().unwrap();
            assert_eq!((recorded.stream, recorded.position), (event.place.stream, event.place.position));
        }
    }
    for bounds in audit.shards().await.unwrap() {
        assert_eq!(bounds.found, Some((1, bounds.head)));
        for limit in [1, 3, 100] {
            let places = log(&*audit, bounds.shard, bounds.head, limit).await;
            assert!(places.iter().map(|place| place.position).eq(1..=bounds.head), "{places:?}");
            assert!(places.iter().all(|place| place.shard == i32::from(bounds.shard.0)), "{places:?}");
        }
        assert_eq!(log(&*audit, bounds.shard, 2, 100).await.len(), 2);
    }
    let keys = audit.start_keys(("", ""), 10).await.unwrap();
    let key = FoundKey {
        definition: "checkout".to_owned(),
        key: "key-1".to_owned(),
        shard: 0,
        saga: sagas[11].id().as_uuid(),
        saga_definition: Some("checkout".to_owned()),
        saga_shard: Some(0),
    };
    assert_eq!(keys, [key]);
    assert!(audit.start_keys(("checkout", "key-1"), 10).await.unwrap().is_empty());
}

/// They lie in the same log, and are no saga's.
pub async fn an_audit_sees_appended_events_too(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (mut saga, mut cart) = (Saga::new(0, 1), Named::new("cart", 0, 1));
    let batch = mixed(&owned, vec![saga.create()], vec![cart.append(&["ItemAdded", "Emptied"])]);
    store.commit(&batch).await.unwrap();
    let audit = audit::open(&database.url).await.unwrap();
    for limit in [1, 100] {
        let (rows, events) = all_sagas(&*audit, limit).await;
        assert_eq!(rows.len(), 1);
        let found: Vec<_> =
            events.iter().map(|event| (event.place.stream, event.place.version, event.recorded.is_some())).collect();
        assert_eq!(found, [(saga.id(), 1, true), (saga.id(), 2, true), (cart.id, 1, false), (cart.id, 2, false)]);
    }
    assert_eq!(log(&*audit, Shard(0), 100, 100).await.len(), 4);
}

/// What a check is for: it must come through what should not be.
pub async fn an_audit_hands_over_what_should_not_be(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..4).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let id = |saga: &Saga| match database.backend {
        Backend::Sqlite => format!("x'{}'", saga.id().as_uuid().simple()),
        Backend::Postgres => format!("'{}'", saga.id()),
    };
    // A row without a readable status, no row at the end, an event that nothing can read.
    database.execute(&format!("UPDATE sagas SET status = 'lost' WHERE id = {}", id(&sagas[1]))).await.unwrap();
    database.execute(&format!("DELETE FROM sagas WHERE id = {}", id(&sagas[3]))).await.unwrap();
    let columns = "position, shard, stream, version, epoch, kind, occurred_at_us, data";
    let values = format!("9, 0, {}, 3, 1, 'SagaTeleported', 0, '{{}}'", id(&sagas[0]));
    database.execute(&format!("INSERT INTO events ({columns}) VALUES ({values})")).await.unwrap();
    for limit in [1, 2, 3, 100] {
        let audit = audit::open(&database.url).await.unwrap();
        let (rows, events) = all_sagas(&*audit, limit).await;
        assert_eq!(rows.iter().map(|row| row.row.is_ok()).collect::<Vec<_>>(), [true, false, true]);
        let streams: Vec<SagaId> = events.iter().map(|event| event.place.stream).collect();
        let expected = [0, 0, 0, 1, 1, 2, 2, 3, 3].map(|index: usize| sagas[index].id());
        assert_eq!(streams, expected, "with {limit} rows per page");
        let unreadable: Vec<_> = events.iter().filter(|event| matches!(event.recorded, Some(Err(_)))).collect();
        assert!(matches!(&*unreadable, [event] if event.place.version == 3), "{unreadable:?}");
        assert_eq!(audit.shards().await.unwrap()[0].found, Some((1, 9)));
    }
}

pub async fn an_audit_refuses_a_database_that_is_not_migrated(database: &Database) {
    if database.backend == Backend::Sqlite {
        let missing = audit::open(&database.url).await;
        assert!(matches!(missing, Err(StoreError::Open(_))), "it must not be created: {missing:?}");
        drop(database.open(1).await);
    }
    let audit = audit::open(&database.url).await.unwrap();
    let refused = audit.check_schema().await;
    assert!(matches!(&refused, Err(StoreError::NotMigrated(_))), "{refused:?}");
}

/// One page at a time holds a snapshot, and no page holds up a writer.
pub async fn writers_go_on_while_an_audit_reads(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..6).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let audit = audit::open(&database.url).await.unwrap();
    let mut from = Some(NIL);
    while let Some(page) = from {
        let mut versions = std::collections::BTreeMap::new();
        let (mut rows, mut events) = (Vec::new(), 0);
        let mut keep = |found| match found {
            Found::Sagas(found) => rows.extend(found),
            Found::Event(event) => {
                events += 1;
                versions.insert(event.place.stream, event.place.version);
            }
            Found::Removing(stream) => panic!("nobody removes {stream}"),
        };
        let steps = batch(&owned, sagas.iter_mut().map(Saga::step).collect());
        let (read, written) = tokio::join!(audit.sagas(page, 2, &mut keep), store.commit(&steps));
        written.unwrap();
        from = read.unwrap();
        assert!(events >= rows.len());
        for row in rows {
            let version = row.row.unwrap().version as i64;
            assert_eq!(versions.get(&row.id), Some(&version), "row and events are of one moment");
        }
    }
}
