//! Plans go by indexes, whatever the tables hold and held when they were made.

use std::collections::BTreeMap;

use skald_core::{
    event::Mode,
    shard::batch::Transition,
    state::Status,
    time::{Millis, Timestamp},
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Postgres, QueryBuilder, postgres::PgConnectOptions};

use super::{
    super::{
        super::{
            SagaFilter, Store as _,
            conformance::{
                fixture::{Backend, Database, LEASE},
                sample::{Saga, batch, owner},
            },
            listing::push_list,
            log::{LogFilter, LogQuery},
        },
        PostgresStore,
        commit::{COMMIT, COMMIT_WITH_ALL, writer_session},
        groups, log, look_up, reader_session, reads,
    },
    store,
};

/// Fills the database with ended sagas, of which few are not `completed`, and some unfinished ones.
async fn fill(store: &PostgresStore, sagas: usize) -> Vec<Saga> {
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let now = store.now().await.unwrap();
    let mut all: Vec<Saga> = (0..sagas as u64)
        .map(|number| {
            let at = Timestamp::from_micros(now.as_micros() + i64::try_from(number).unwrap() * 1000);
            let mut saga = Saga::at(at, number, u16::try_from(number % 2).unwrap(), 2);
            saga.row.definition = if number % 500 == 0 { "rare" } else { "checkout" }.into();
            saga
        })
        .collect();
    for chunk in all.chunks_mut(1000) {
        store.commit(&batch(&owned, chunk.iter_mut().map(Saga::create).collect())).await.unwrap();
        let ended = chunk.iter_mut().enumerate().filter_map(|(number, saga)| match number % 100 {
            0 => Some(saga.park()),
            1 => Some(saga.end(Status::Compensated)),
            2 => None,
            _ => Some(saga.complete()),
        });
        let ended: Vec<Transition> = ended.collect();
        store.commit(&batch(&owned, ended)).await.unwrap();
    }
    all
}

/// Streams that are no sagas, groups that hold much, and what a relay noted, beside the sagas.
async fn fill_the_rest(database: &Database) {
    let statements = [
        "INSERT INTO streams
         SELECT 'cart-' || n, gen_random_uuid(), n % 2, 'cart', 1, 0, 0 FROM generate_series(1, 20000) AS n",
        "INSERT INTO consumer_groups SELECT 'group-' || n, '{}', 1, 1, 1, 0 FROM generate_series(1, 200) AS n",
        "INSERT INTO consumer_cursors (group_name, shard, looked_to, token, moved_at_us)
         SELECT g.name, s.shard, 0, 0, 0 FROM consumer_groups AS g, shards AS s",
        "INSERT INTO consumer_members
         SELECT g.name, 'consumer-' || n, 0 FROM consumer_groups AS g, generate_series(1, 20) AS n",
        "INSERT INTO consumer_held
         SELECT 'group-' || n % 200, n % 2, n, gen_random_uuid(),
                CASE n % 3 WHEN 0 THEN 'retry' WHEN 1 THEN 'waiting' ELSE 'parked' END, 1, n, NULL, 0
         FROM generate_series(1, 30000) AS n",
    ];
    for statement in statements {
        database.execute(statement).await.unwrap();
    }
}

/// The plan of a prepared statement. With values, so that what they rule out at once is not told of.
async fn plan_of(session: &mut PgConnection, name: &str, parameters: usize) -> String {
    let nulls = vec!["NULL"; parameters].join(", ");
    let call = if parameters == 0 { String::new() } else { format!(" ({nulls})") };
    let lines: Vec<(String,)> = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE {name}{call}")))
        .fetch_all(session)
        .await
        .unwrap()
        .iter()
        .map(|row| sqlx::FromRow::from_row(row).unwrap())
        .collect();
    lines.into_iter().map(|(line,)| line + "\n").collect()
}

/// How many parameters a statement takes.
fn parameters(sql: &str) -> usize {
    (1..).take_while(|number| sql.contains(&format!("${number}"))).count()
}

/// The plans of statements, prepared in this session while the tables are empty: then, when they have filled, and when
/// that is known, which is told with each. Until then the server may make a plan anew at any time, on a guess.
async fn plans(
    database: &Database,
    session: PgConnectOptions,
    statements: &[(&'static str, String)],
) -> Vec<(&'static str, String, bool)> {
    let store = store(database, 2, Millis(60_000)).await;
    let mut session = session.connect().await.unwrap();
    for (name, sql) in statements {
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).execute(&mut session).await.unwrap();
    }
    let mut plans = Vec::new();
    for stage in 0..3 {
        for (name, sql) in statements {
            plans.push((*name, plan_of(&mut session, name, parameters(sql)).await, stage == 2));
        }
        match stage {
            0 => {
                fill(&store, 20_000).await;
                fill_the_rest(database).await;
            }
            1 => database.execute("ANALYZE").await.unwrap(),
            _ => {}
        }
    }
    plans
}

fn goes_by_indexes(name: &str, plan: &str) {
    for bad in ["Seq Scan", "Hash Join", "Merge Join", "Bitmap", "hashed SubPlan"] {
        assert!(!plan.contains(bad), "{name}: {bad} in\n{plan}");
    }
}

/// A plan made while the tables were empty must not scan them once they are not.
#[tokio::test]
async fn the_commits_plans_go_by_indexes_whatever_the_tables_hold() {
    let database = Database::create(Backend::Postgres).await;
    let statements = [("own", COMMIT.to_owned()), ("with_all", COMMIT_WITH_ALL.to_owned())];
    let session = writer_session(&database.url.parse().unwrap(), LEASE);
    for (name, plan, _) in plans(&database, session, &statements).await {
        goes_by_indexes(name, &plan);
        assert!(plan.contains("Index Scan using sagas_default_pkey"), "{plan}");
        assert!(plan.contains("Index Scan using shards_pkey"), "{plan}");
        let on_sagas = plan.lines().filter(|line| line.contains(" on sagas_") && line.contains("Scan"));
        for scan in on_sagas {
            assert!(scan.contains("_pkey on sagas_"), "{scan} in\n{plan}");
        }
        let of_streams =
            plan.contains("Index Scan using streams_pkey") || plan.contains("Index Scan using streams_by_id");
        assert_eq!(of_streams, name == "with_all", "{plan}");
    }
}

/// Whoever follows the log asks the same again and again: the plans are made once.
#[tokio::test]
async fn the_logs_plans_go_by_indexes_whatever_the_tables_hold() {
    let database = Database::create(Backend::Postgres).await;
    let words = vec!["a".to_owned(), "b".to_owned()];
    let filters = [
        ("any_event", LogFilter::default()),
        ("by_type", LogFilter { types: words.clone(), kinds: words.clone(), ..LogFilter::default() }),
        ("by_saga", LogFilter { definitions: words.clone(), mode: Some(Mode::Choreographed), ..LogFilter::default() }),
        ("by_category", LogFilter { categories: words.clone(), ..LogFilter::default() }),
        ("by_correlation", LogFilter { correlation_id: Some("c".to_owned()), ..LogFilter::default() }),
    ];
    let mut statements = vec![
        ("facts", log::FACTS.to_owned()),
        ("look_up", look_up::LOOK_UP.to_owned()),
        ("events_at", log::events_at_sql()),
        ("view", groups::VIEW.to_owned()),
        ("due", groups::DUE.to_owned()),
        ("held", groups::HELD.to_owned()),
        ("held_streams", groups::HELD_STREAMS.to_owned()),
        ("parked", groups::PARKED.to_owned()),
        ("change", groups::CHANGE.to_owned()),
    ];
    for (name, filter) in filters {
        let mut sql = QueryBuilder::new("");
        let query = LogQuery { after: BTreeMap::new(), until: BTreeMap::new(), limit: 1, filter };
        log::push_windows(&mut sql, &query);
        statements.push((name, sql.sql().as_str().to_owned()));
    }
    let session = groups::session(&database.url.parse().unwrap(), LEASE);
    for (name, plan, analyzed) in plans(&database, session, &statements).await {
        goes_by_indexes(name, &plan);
        for line in plan.lines().filter(|line| line.contains("Scan using")) {
            let by = |index: &str| line.contains(index);
            let fits = match name {
                "facts" => by("_pkey") || by("streams_by_id"),
                "look_up" => by("streams_pkey") || by("_stream_event_id_idx") || by("events_default_stream"),
                "any_event" | "by_type" | "events_at" => by("shard_position_idx") || by("shards_pkey"),
                "due" => by("consumer_held_due"),
                // A guess takes a group to hold next to nothing in a shard.
                "held" | "held_streams" => by("consumer_held_by_stream") || (!analyzed && by("consumer_held_pkey")),
                "parked" => by("consumer_held_parked"),
                "view" => {
                    !by("on consumer_held") || by("consumer_held_due") || by("consumer_held_pkey on consumer_held h")
                }
                _ => true,
            };
            assert!(fits, "{name}: {line} in\n{plan}");
        }
    }
}

#[tokio::test]
async fn counting_what_is_unfinished_looks_at_nothing_else() {
    let database = Database::create(Backend::Postgres).await;
    let statements = [("tally", reads::TALLY.to_owned())];
    let session = reader_session(&database.url.parse().unwrap());
    for (_, plan, _) in plans(&database, session, &statements).await {
        assert!(!plan.contains("Seq Scan"), "{plan}");
        for scan in plan.lines().filter(|line| line.contains("Index Scan")) {
            assert!(scan.contains("shard_id_idx"), "{scan} in\n{plan}");
        }
    }
}

#[tokio::test]
async fn lists_go_by_indexes() {
    let database = Database::create(Backend::Postgres).await;
    let store = store(&database, 2, Millis(60_000)).await;
    let sagas = fill(&store, 20_000).await;
    database.execute("ANALYZE").await.unwrap();
    let any = || SagaFilter { limit: 50, ..SagaFilter::default() };
    let middle = sagas[10_000].row.clone();
    let filters = [
        any(),
        SagaFilter { before: Some(middle.id), ..any() },
        SagaFilter { statuses: vec![Status::Completed], ..any() },
        SagaFilter { statuses: vec![Status::Parked], ..any() },
        SagaFilter { statuses: Status::ALL.to_vec(), before: Some(middle.id), ..any() },
        SagaFilter { definition: Some("rare".to_owned()), ..any() },
        SagaFilter { definition: Some("nothing".to_owned()), ..any() },
        SagaFilter { correlation_id: Some(middle.correlation_id.to_string()), ..any() },
        SagaFilter { state: Some("PARKED".to_owned()), ..any() },
        SagaFilter { created_after: Some(middle.created_at), ..any() },
        SagaFilter { created_before: Some(middle.created_at), ..any() },
        SagaFilter { mode: Some(skald_core::event::Mode::Choreographed), ..any() },
    ];
    let mut session = reader_session(&database.url.parse().unwrap()).connect().await.unwrap();
    for filter in filters {
        let mut query = QueryBuilder::<Postgres>::new("EXPLAIN (ANALYZE, TIMING OFF) ");
        assert!(push_list(&mut query, &filter));
        let lines: Vec<(String,)> = query.build_query_as().fetch_all(&mut session).await.unwrap();
        let plan: String = lines.into_iter().map(|(line,)| line + "\n").collect();
        assert!(!plan.contains("Seq Scan"), "{filter:?}\n{plan}");
        let filtered: usize = plan
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Rows Removed by Filter: ")?.parse::<usize>().ok())
            .sum();
        assert!(filtered < 2000, "{filter:?} looks at {filtered} rows in vain\n{plan}");
    }
}
