//! What only SQLite has: a disk that fills up under it, one file for several processes, plans without a server.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use skald_core::{
    ids::Shard,
    shard::batch::{CommitError, Transition},
    state::Status,
    time::Millis,
};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{
    super::{
        SagaFilter, Store, StoreError, StoreOptions,
        conformance::{
            dump::dump,
            fixture::{Backend, Database, LEASE},
            sample::{Saga, batch, owner},
        },
        listing::push_list,
    },
    SqliteStore,
    rows::{CONTINUE_STREAM, FENCE, GO_ON, SEAL},
};

async fn store(database: &Database, lease: Millis) -> SqliteStore {
    let options = StoreOptions { readers: 2, shards: 1, lease };
    let store = SqliteStore::open(&database.url, &options).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// Runs SQL on the connection for all writes but commits.
async fn on_writer(store: &SqliteStore, sql: &'static str) -> String {
    store.writer.run(move |session| session_query(session, sql).boxed()).await.unwrap()
}

async fn session_query(session: &mut super::writer::Session, sql: &'static str) -> String {
    let rows = sqlx::raw_sql(sql).fetch_all(session.connection().await.unwrap()).await.unwrap();
    rows.iter().map(|row| row.get_unchecked::<String, _>(0)).collect()
}

/// Runs SQL on the connection for commits.
async fn on_committer(store: &SqliteStore, sql: &'static str) -> String {
    let query = |session: &mut super::writer::Session| {
        session
            .committer
            .connection()
            .unwrap()
            .query_one(sql, [], |row| row.get_ref(0).map(|value| value.as_str().unwrap_or_default().to_owned()))
            .unwrap()
    };
    store.writer.run(move |session| std::future::ready(query(session)).boxed()).await.unwrap()
}

/// A full disk, as SQLite sees it: it may not grow the file any further.
#[tokio::test]
async fn a_full_disk_writes_nothing_and_heals() {
    let database = Database::create(Backend::Sqlite).await;
    let store = store(&database, Millis(5000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    let before = dump(&store, &[]).await;

    on_committer(&store, "PRAGMA max_page_count = 1").await;
    let large = format!("\"{}\"", "x".repeat(512 * 1024));
    let create = batch(&owned, vec![saga.clone().step(), Saga::new(0, 1).create_with(&large)]);
    for _ in 0..3 {
        let result = store.commit(&create).await;
        assert!(matches!(&result, Err(CommitError::NotApplied(text)) if text.contains("full")), "{result:?}");
        assert_eq!(dump(&store, &[]).await, before);
    }
    on_committer(&store, "PRAGMA max_page_count = 1000000").await;
    store.ping().await.unwrap();
    store.commit(&create).await.unwrap();
    store.commit(&batch(&owned, vec![Saga::new(0, 1).create()])).await.unwrap();
}

#[tokio::test]
async fn another_process_writing_is_waited_for_but_not_for_long() {
    let database = Database::create(Backend::Sqlite).await;
    let store = store(&database, Millis(300)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let create = batch(&owned, vec![Saga::new(0, 1).create()]);
    let result = store.commit(&create).await;
    assert!(matches!(&result, Err(CommitError::NotApplied(text)) if text.contains("locked")), "{result:?}");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(store.shards().await.is_ok(), "reads go on");
    let (result, _) = tokio::join!(store.commit(&create), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    });
    result.unwrap();
    store.ping().await.unwrap();
}

/// Two processes on one file: the second finds the lease, and the file's lock keeps writes apart.
#[tokio::test]
async fn a_second_process_cannot_take_what_is_held() {
    let database = Database::create(Backend::Sqlite).await;
    let (first, second) = (store(&database, Millis(5000)).await, store(&database, Millis(5000)).await);
    let owned = first.take_shards(&owner("a"), None, LEASE).await.unwrap();
    assert_eq!(second.take_shards(&owner("b"), None, LEASE).await.unwrap(), []);
    let mut saga = Saga::new(0, 1);
    first.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    let mut stranger = batch(&owned, vec![Saga::new(0, 1).create()]);
    Arc::make_mut(&mut stranger).fences[0].epoch.0 += 1;
    assert_eq!(second.commit(&stranger).await, Err(CommitError::Fenced(vec![Shard(0)])));
    assert_eq!(second.row(saga.id()).await.unwrap(), Some(saga.row));
}

#[tokio::test]
async fn what_is_not_a_file_is_refused() {
    let options = StoreOptions { readers: 1, shards: 1, lease: Millis(5000) };
    for url in ["sqlite:", "sqlite::memory:", "sqlite:/no/such/folder/skald.db", "sqlite:/"] {
        let opened = SqliteStore::open(url, &options).await;
        assert!(matches!(opened, Err(StoreError::Open(_))), "{url}: {opened:?}");
    }
}

#[tokio::test]
async fn a_commit_is_durable_before_it_is_reported() {
    let database = Database::create(Backend::Sqlite).await;
    let store = store(&database, Millis(5000)).await;
    let synchronous = "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous";
    assert_eq!(on_writer(&store, synchronous).await, "2");
    assert_eq!(on_committer(&store, synchronous).await, "2");
    assert_eq!(on_writer(&store, "PRAGMA journal_mode").await, "wal");
}

async fn explain(connection: &mut SqliteConnection, mut query: QueryBuilder<Sqlite>) -> String {
    let rows = query.build().fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail") + "\n").collect()
}

#[tokio::test]
async fn lists_and_commits_go_by_indexes() {
    let database = Database::create(Backend::Sqlite).await;
    let store = store(&database, Millis(5000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..2000).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let ended: Vec<Transition> = sagas.iter_mut().skip(20).map(Saga::complete).collect();
    store.commit(&batch(&owned, ended)).await.unwrap();

    let any = || SagaFilter { limit: 50, ..SagaFilter::default() };
    let middle = &sagas[1000].row;
    let filters = [
        (any(), "SCAN sagas"),
        (SagaFilter { before: Some(middle.id), ..any() }, "PRIMARY KEY (id<?)"),
        (SagaFilter { statuses: vec![Status::Parked], ..any() }, "sagas_by_status (status=?)"),
        (SagaFilter { statuses: Status::ALL.to_vec(), before: Some(middle.id), ..any() }, "sagas_by_status (status=?"),
        (SagaFilter { state: Some("PARKED".to_owned()), ..any() }, "sagas_by_status (status=?)"),
        (SagaFilter { definition: Some("checkout".to_owned()), ..any() }, "sagas_by_definition (definition=?)"),
        (SagaFilter { correlation_id: Some("c".to_owned()), ..any() }, "sagas_by_correlation (correlation_id=?)"),
        (SagaFilter { created_after: Some(middle.created_at), ..any() }, "PRIMARY KEY (id>?)"),
        (SagaFilter { created_before: Some(middle.created_at), ..any() }, "PRIMARY KEY (id<?)"),
    ];
    for (filter, wanted) in filters {
        let mut query = QueryBuilder::new("EXPLAIN QUERY PLAN ");
        assert!(push_list(&mut query, &filter));
        let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
        let plan = explain(&mut connection, query).await;
        assert!(plan.contains(wanted), "{filter:?}\n{plan}");
        let lines: Vec<&str> = plan.lines().collect();
        let of_whole_table = lines.windows(2).any(|two| two[1].contains("TEMP B-TREE") && two[0] != "SCAN part");
        assert!(!of_whole_table, "only parts that ended at the limit are sorted\n{plan}");
    }
    let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
    for statement in [FENCE, GO_ON, SEAL, CONTINUE_STREAM] {
        let plan = explain(&mut connection, QueryBuilder::new(format!("EXPLAIN QUERY PLAN {statement}"))).await;
        for table in ["sagas", "streams", "shards", "subject_keys"] {
            assert!(!plan.contains(&format!("SCAN {table}")), "{statement}\n{plan}");
        }
    }
}
