//! What only PostgreSQL has: sessions that die, plans, partitions, replicas.

mod plans;

use std::{pin::Pin, time::Duration};

use skald_core::{ids::Shard, shard::batch::CommitError, time::Millis};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use super::{
    super::{
        Store, StoreOptions,
        conformance::{
            dump::dump,
            fixture::{Backend, Database, LEASE},
            sample::{Saga, batch, fences, owner},
        },
    },
    CONNECT_TIMEOUT, PostgresStore, Sessions,
};

async fn store(database: &Database, shards: u16, lease: Millis) -> PostgresStore {
    let options = StoreOptions { readers: 2, shards, lease };
    let store = PostgresStore::open(&database.url, &options).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn connect(database: &Database) -> PgConnection {
    PgConnection::connect(&database.url).await.unwrap()
}

/// Ends the writer's session, and says whether there was one.
async fn kill_writer(database: &Database) -> bool {
    let killed = database
        .query(
            "SELECT count(pg_terminate_backend(pid))::text
             FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'skald-writer'",
        )
        .await;
    killed != "0"
}

/// Waits until the writer waits for a lock.
async fn writer_is_blocked(database: &Database) {
    let waiting = "SELECT count(*)::text
                   FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'skald-writer'
                     AND wait_event_type = 'Lock'";
    while database.query(waiting).await == "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_killed_while_idle_costs_one_commit() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(5000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    assert!(kill_writer(&database).await);
    let before = saga.clone();
    let error = store.commit(&batch(&owned, vec![saga.step()])).await.unwrap_err();
    assert!(matches!(error, CommitError::NotApplied(_) | CommitError::InDoubt(_)), "{error:?}");
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let version = store.row(saga.id()).await.unwrap().unwrap().version;
    assert_eq!(version, before.row.version, "an idle session had nothing to commit");
    saga = before;
    store.commit(&batch(&owned, vec![saga.step()])).await.unwrap();
}

#[tokio::test]
async fn a_session_killed_within_a_commit_has_written_nothing() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(60_000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    let before = dump(&store, &[]).await;

    let mut other = connect(&database).await;
    sqlx::raw_sql("BEGIN; SELECT FROM shards FOR UPDATE").execute(&mut other).await.unwrap();
    let step = batch(&owned, vec![saga.step()]);
    let (result, ()) = tokio::join!(store.commit(&step), async {
        writer_is_blocked(&database).await;
        kill_writer(&database).await;
    });
    assert!(matches!(result, Err(CommitError::NotApplied(_))), "{result:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(dump(&store, &[]).await, before);
    store.commit(&step).await.unwrap();
}

#[tokio::test]
async fn a_lock_held_too_long_is_not_waited_for() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(1000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut other = connect(&database).await;
    sqlx::raw_sql("BEGIN; SELECT FROM shards FOR UPDATE").execute(&mut other).await.unwrap();
    let create = batch(&owned, vec![Saga::new(0, 1).create()]);
    let result = store.commit(&create).await;
    assert!(matches!(&result, Err(CommitError::NotApplied(text)) if text.contains("55P03")), "{result:?}");
    assert!(store.take_shards(&owner("a"), None, LEASE).await.is_err());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store.commit(&create).await.unwrap();
}

/// What an in-doubt commit left behind is settled by the time its shard is taken again.
#[tokio::test]
async fn taking_a_shard_waits_for_the_commit_under_way() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 2, Millis(60_000)).await;
    store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut old = connect(&database).await;
    let commit = "BEGIN; UPDATE shards SET head = head + 5 WHERE shard = 1 AND epoch = 1";
    sqlx::raw_sql(commit).execute(&mut old).await.unwrap();
    let again = owner("a");
    let (taken, ()) = tokio::join!(store.take_shards(&again, None, LEASE), async {
        let waiting = "SELECT count(*)::text FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'skald-leases'
                         AND wait_event_type = 'Lock'";
        while database.query(waiting).await == "0" {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut old).await.unwrap();
    });
    let seen: Vec<_> = taken.unwrap().iter().map(|owned| (owned.shard.0, owned.epoch.0, owned.head)).collect();
    assert_eq!(seen, [(0, 2, 0), (1, 2, 5)]);
    let late = "UPDATE shards SET head = head + 5 WHERE shard = 1 AND epoch = 1";
    let late = sqlx::raw_sql(late).execute(&mut old).await.unwrap();
    assert_eq!(late.rows_affected(), 0);
}

/// Invariants 6 to 9 through any number of deaths: nothing doubled, nothing lost, no gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_at_any_moment_leave_no_gap_and_no_double() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 2, Millis(60_000)).await;
    let mut owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..40).map(|number| Saga::new(number % 2, 2)).collect();
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let (mut failed, mut survived) = (0, 0);
    for round in 0..60_u64 {
        let before = sagas.clone();
        let step = batch(&owned, sagas.iter_mut().map(Saga::step).collect());
        let (result, _) = tokio::join!(store.commit(&step), async {
            tokio::time::sleep(Duration::from_micros(round * 97 % 3000)).await;
            kill_writer(&database).await
        });
        let Err(error) = result else { continue };
        failed += 1;
        assert!(matches!(error, CommitError::NotApplied(_) | CommitError::InDoubt(_)), "{error:?}");
        owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
        let version = store.row(sagas[0].id()).await.unwrap().unwrap().version;
        if version == before[0].row.version {
            sagas = before;
        } else {
            assert!(matches!(error, CommitError::InDoubt(_)), "written, although {error:?}");
            survived += 1;
        }
    }
    println!("{failed} of 60 commits failed, {survived} of them had been written");
    for saga in &sagas {
        assert_eq!(store.row(saga.id()).await.unwrap().as_ref(), Some(&saga.row));
    }
    let broken = "SELECT count(*)::text
                  FROM (SELECT shard, position, row_number() OVER (PARTITION BY shard ORDER BY position) AS expected
                        FROM event_log) AS log
                  WHERE position <> expected";
    assert_eq!(database.query(broken).await, "0");
    let heads = "SELECT string_agg(head::text, ',' ORDER BY shard) FROM shards";
    let counts = "SELECT string_agg(n::text, ',' ORDER BY shard)
                  FROM (SELECT shard, count(*) AS n FROM event_log GROUP BY shard) AS counted";
    assert_eq!(database.query(heads).await, database.query(counts).await);
}

#[tokio::test]
async fn reads_survive_the_death_of_their_sessions() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(5000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    store.row(saga.id()).await.unwrap();
    database
        .query(
            "SELECT count(pg_terminate_backend(pid))::text
             FROM pg_stat_activity
             WHERE datname = current_database() AND application_name IN ('skald-reader', 'skald-control', 'skald-leases')",
        )
        .await;
    assert!(store.row(saga.id()).await.unwrap().is_some());
    assert_eq!(store.renew(&owner("a"), &fences(&owned), LEASE).await.unwrap(), [Shard(0)]);
}

/// A port before the tests' server. When it is told so, the connections that it then has stay open and nothing passes
/// over them any more.
async fn silenceable(url: &str) -> (PgConnectOptions, watch::Sender<()>) {
    let server: PgConnectOptions = url.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = match server.get_socket() {
        Some(_) => PgConnectOptions::new_without_pgpass()
            .username(server.get_username())
            .database(server.get_database().unwrap()),
        None => server.clone(),
    };
    let through = through.host("127.0.0.1").port(listener.local_addr().unwrap().port());
    let (silence, silent) = watch::channel(());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut silent = silent.clone();
            silent.mark_unchanged();
            let relay: Pin<Box<dyn Future<Output = ()> + Send>> = match server.get_socket() {
                Some(folder) => {
                    let socket = folder.join(format!(".s.PGSQL.{}", server.get_port()));
                    Box::pin(relay(client, UnixStream::connect(socket).await.unwrap(), silent))
                }
                None => {
                    let address = (server.get_host(), server.get_port());
                    Box::pin(relay(client, TcpStream::connect(address).await.unwrap(), silent))
                }
            };
            tokio::spawn(relay);
        }
    });
    (through, silence)
}

async fn relay(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    mut silent: watch::Receiver<()>,
) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = silent.changed() => std::future::pending().await,
    }
}

#[tokio::test]
async fn a_session_that_falls_silent_after_its_answer_leaves_its_place() {
    let database = Database::create(Backend::Postgres).await;
    let (through, silence) = silenceable(&database.url).await;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(through);
    let sessions = Sessions { pool, patience: CONNECT_TIMEOUT };
    let answered = sessions.ask(async |connection| {
        sqlx::query("SELECT 1").execute(connection).await.unwrap();
        silence.send_replace(());
        Ok(())
    });
    answered.await.unwrap();
    let begun = tokio::time::Instant::now();
    while let Err(error) = sessions.fetch::<(i32,)>(sqlx::query_as("SELECT 1")).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "its place is not given back: {error}");
    }
}

#[tokio::test]
async fn a_reader_cannot_write_and_a_dropped_read_poisons_nothing() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(5000)).await;
    let refused = sqlx::query("DELETE FROM pauses").execute(&store.readers.pool).await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
    for wait_us in 0..200 {
        let _ = tokio::time::timeout(Duration::from_micros(wait_us * 10), store.shards()).await;
    }
    let idle = "SELECT count(*)::text FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(database.query(idle).await, "0");
    assert_eq!(store.shards().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_database_that_takes_no_writes_fails_the_ping() {
    let database = Database::create(Backend::Postgres).await;
    let first = store(&database, 1, Millis(5000)).await;
    first.ping().await.unwrap();
    let name = database.query("SELECT current_database()").await;
    database.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    let options = StoreOptions { readers: 1, shards: 1, lease: Millis(5000) };
    let second = PostgresStore::open(&database.url, &options).await.unwrap();
    assert!(second.ping().await.is_err());
    let result = second.commit(&batch(&[], vec![Saga::new(0, 1).create()])).await;
    assert!(matches!(&result, Err(CommitError::NotApplied(text)) if text.contains("25006")), "{result:?}");
}

#[tokio::test]
async fn months_have_partitions_ahead_of_time() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(5000)).await;
    let partitions = "SELECT string_agg(inhrelid::regclass::text, ',' ORDER BY inhrelid::regclass::text)
                      FROM pg_inherits WHERE inhparent IN ('sagas'::regclass, 'events'::regclass)";
    let expected = database
        .query(
            "SELECT string_agg(name, ',' ORDER BY name)
             FROM (SELECT t || '_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC')
                                              + ahead * interval '1 month', 'YYYYMM') AS name
                   FROM unnest(ARRAY['sagas', 'events']) AS t, generate_series(0, 2) AS ahead
                   UNION VALUES ('sagas_default'), ('events_default')) AS names",
        )
        .await;
    assert_eq!(database.query(partitions).await, expected);
    database.execute("SELECT skald_create_months(); SELECT skald_create_months()").await.unwrap();
    assert_eq!(database.query(partitions).await, expected);

    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut today = Saga::at(store.now().await.unwrap(), 1, 0, 1);
    let mut old = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![today.create(), old.create()])).await.unwrap();
    store.commit(&batch(&owned, vec![today.step(), old.step()])).await.unwrap();
    let homes =
        "SELECT string_agg(id || ' ' || regexp_replace(tableoid::regclass::text, '\\d+', 'month'), ',' ORDER BY id)
                 FROM (SELECT id, tableoid FROM sagas UNION SELECT stream, tableoid FROM events) AS all_rows";
    let [first, second] = [old.id(), today.id()];
    let (default, month) = (format!("{first} events_default,{first} sagas_default"), format!("{second} events_month"));
    let homes = database.query(homes).await;
    assert!(homes.contains(&format!("{second} sagas_month")) && homes.contains(&month), "{homes}");
    assert!(homes.contains("sagas_default") && homes.contains("events_default"), "{homes} {default}");
}

/// When a month's partition was not there in time, its sagas are in the default partition and stay there.
#[tokio::test]
async fn a_month_that_began_in_the_default_partition_stays_there() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 1, Millis(5000)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut old = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![old.create()])).await.unwrap();
    let month = "to_timestamp(1760000000) AT TIME ZONE 'UTC'";
    assert_eq!(
        database.query(&format!("SELECT skald_create_month(date_trunc('month', {month}))::text")).await,
        "false"
    );
    assert_eq!(database.query("SELECT skald_create_month('2020-01-01')::text").await, "true");
    store.commit(&batch(&owned, vec![old.step()])).await.unwrap();
    assert_eq!(store.events(old.id(), 0, 10).await.unwrap().len(), 4);
}
