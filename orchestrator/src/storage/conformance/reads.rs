//! Reading what was written.

use super::{
    super::Unfinished,
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner},
};

pub async fn events_are_read_from_a_version_on(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (mut saga, mut other) = (Saga::new(0, 1), Saga::new(0, 1));
    for _ in 0..2 {
        let (one, two) =
            if saga.row.version == 0 { (saga.create(), other.create()) } else { (saga.step(), other.step()) };
        store.commit(&batch(&owned, vec![one, two])).await.unwrap();
    }
    for (after, limit, expected) in
        [(0, 10, vec![1, 2, 3, 4]), (0, 2, vec![1, 2]), (2, 1, vec![3]), (4, 10, vec![]), (u64::MAX, 10, vec![])]
    {
        let events = store.events(saga.id(), after, limit).await.unwrap();
        assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), expected, "after {after}");
        assert!(events.iter().all(|event| event.stream == saga.id()));
    }
    assert!(store.events(Saga::new(0, 1).id(), 0, 10).await.unwrap().is_empty());
}

pub async fn streams_come_in_the_order_asked_for(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..5).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    store.commit(&batch(&owned, vec![sagas[3].step()])).await.unwrap();
    let missing = Saga::new(0, 1).id();
    let asked = [sagas[3].id(), missing, sagas[0].id(), sagas[4].id()];
    let streams = store.streams(&asked).await.unwrap();
    let found: Vec<_> = streams.iter().map(|stream| (stream[0].stream, stream.len())).collect();
    assert_eq!(found, [(asked[0], 4), (asked[2], 2), (asked[3], 2)]);
    for stream in streams {
        assert!(stream.iter().map(|event| event.version).eq(1..=stream.len() as u64));
    }
    assert!(store.streams(&[]).await.unwrap().is_empty());
    assert!(store.streams(&[missing]).await.unwrap().is_empty());
    assert_eq!(store.row(missing).await.unwrap(), None);
}

pub async fn unfinished_sagas_are_paged_by_id(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 2 } else { 1 };
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..20).map(|number| Saga::new(number % shards, shards)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let changes = sagas.iter_mut().enumerate().filter_map(|(number, saga)| match number % 4 {
        0 => Some(saga.complete()),
        1 => Some(saga.step()),
        2 => Some(saga.park()),
        _ => None,
    });
    store.commit(&batch(&owned, changes.collect())).await.unwrap();
    for shard in owned.iter().map(|owned| owned.shard) {
        let unfinished = |saga: &Saga| saga.shard == shard && saga.row.ended_at.is_none();
        let mut expected: Vec<Unfinished> = sagas
            .iter()
            .filter(|saga| unfinished(saga))
            .map(|saga| Unfinished {
                id: saga.id(),
                mode: saga.row.mode,
                status: saga.row.status,
                wake_at: saga.row.wake_at,
            })
            .collect();
        expected.sort_by_key(|saga| saga.id);
        assert_eq!(store.unfinished(shard, None, 100).await.unwrap(), expected);
        let mut paged = Vec::new();
        loop {
            let page = store.unfinished(shard, paged.last().map(|last: &Unfinished| last.id), 3).await.unwrap();
            assert!(page.len() <= 3);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, expected);
    }
}

pub async fn a_start_key_finds_its_saga(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    let key = "order 4711 – \"ünïcode\" 🗝";
    store.commit(&batch(&owned, vec![saga.create_keyed(key)])).await.unwrap();
    let found = store.keyed_saga("checkout", key).await.unwrap().unwrap();
    assert_eq!((found.saga, found.fingerprint), (saga.id(), [7; 32]));
    assert_eq!(store.keyed_saga("refund", key).await.unwrap(), None);
    assert_eq!(store.keyed_saga("checkout", "").await.unwrap(), None);
}

pub async fn the_step_log_reads_like_a_log(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    store.commit(&batch(&owned, vec![saga.step()])).await.unwrap();
    store.commit(&batch(&owned, vec![saga.fail()])).await.unwrap();
    let occurred_at = match database.backend {
        Backend::Sqlite => "occurred_at",
        Backend::Postgres => r#"to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#,
    };
    let log = database
        .query(&format!(
            "SELECT CAST(saga AS text) || ' ' || definition || ' ' || CAST(definition_version AS text) || ' '
                    || CAST(version AS text) || ' ' || step || ' ' || operation || ' ' || type || ' '
                    || coalesce(CAST(attempt AS text), '-') || ' ' || coalesce(CAST(http_status AS text), '-') || ' '
                    || coalesce(CAST(duration_ms AS text), '-') || ' ' || coalesce(error, '-') || ' '
                    || substr({occurred_at}, 1, 10) || ' ' || CAST(length({occurred_at}) AS text)
             FROM saga_step_log
             ORDER BY version"
        ))
        .await;
    let id = saga.id();
    let expected = [
        format!("{id} checkout 1 2 verify_stock action StepStarted - - - - 2025-10-09 24"),
        format!("{id} checkout 1 3 verify_stock action StepSucceeded 1 200 12 - 2025-10-09 24"),
        format!("{id} checkout 1 4 reserve_stock action StepStarted - - - - 2025-10-09 24"),
    ];
    assert_eq!(log, expected.join("\n"));
}
