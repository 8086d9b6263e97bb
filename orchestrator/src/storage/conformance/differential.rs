//! The same history into both stores: the same answers, and the same content in the end.

use std::sync::Arc;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use skald_core::{
    ids::{Epoch, Shard},
    shard::batch::{Append, Batch, CommitError, Transition},
    state::Status,
};

use super::{
    super::{OwnedShard, SagaFilter, Store},
    dump::{dump, dump_log},
    fixture::{Backend, Database, LEASE},
    sample::{Named, START, Saga, batch, fences, mixed, owner},
};

const SAGAS: usize = 6;
const STREAMS: usize = 2;
const KEYS: [&str; 3] = ["one", "two", "three"];

/// What one saga of a batch attempts; whether that is legal depends on what came before.
#[derive(Clone, Debug)]
enum Move {
    Create,
    CreateKeyed(usize),
    Step,
    Fail,
    Park,
    Complete,
    Abandon,
    /// Continues a version that is not the saga's.
    Skip,
    Malformed(Flaw),
}

#[derive(Clone, Copy, Debug)]
enum Flaw {
    Gap,
    NoEvents,
    Nul,
    TooLong,
}

#[derive(Clone, Debug)]
enum Act {
    Commit(Vec<(usize, Move)>),
    /// So many events to a stream, with what may be wrong about it.
    Append(usize, usize, Option<Wrong>),
    /// Under an epoch that is off by this.
    CommitStale(Vec<(usize, Move)>, i64),
    Take(&'static str),
    Renew(&'static str),
    Release(&'static str),
    Bury(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Version,
    EventId,
    Name,
}

fn moves() -> impl Strategy<Value = Move> {
    let flaw = prop_oneof![Just(Flaw::Gap), Just(Flaw::NoEvents), Just(Flaw::Nul), Just(Flaw::TooLong)];
    prop_oneof![
        6 => Just(Move::Create),
        3 => (0..KEYS.len()).prop_map(Move::CreateKeyed),
        12 => Just(Move::Step),
        3 => Just(Move::Fail),
        2 => Just(Move::Park),
        2 => Just(Move::Complete),
        1 => Just(Move::Abandon),
        1 => Just(Move::Skip),
        1 => flaw.prop_map(Move::Malformed),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    // Mostly sagas that differ; sometimes the same one twice.
    let several = prop::collection::vec((0..SAGAS, moves()), 1..5);
    let single = (0..SAGAS, moves()).prop_map(|one| vec![one]);
    let some = prop_oneof![3 => single, 2 => several];
    let who = prop_oneof![Just("a"), Just("b")];
    let wrong = prop::option::weighted(0.2, prop_oneof![Just(Wrong::Version), Just(Wrong::EventId), Just(Wrong::Name)]);
    prop_oneof![
        24 => some.clone().prop_map(Act::Commit),
        12 => (0..STREAMS, 1..4_usize, wrong).prop_map(|(stream, events, wrong)| Act::Append(stream, events, wrong)),
        1 => (some, prop_oneof![Just(-1), Just(1)]).prop_map(|(moves, off)| Act::CommitStale(moves, off)),
        1 => who.clone().prop_map(Act::Take),
        1 => who.clone().prop_map(Act::Renew),
        1 => who.clone().prop_map(Act::Release),
        1 => who.prop_map(Act::Bury),
    ]
}

/// What the writer believes.
struct World {
    sagas: Vec<Saga>,
    streams: Vec<Named>,
    owned: Vec<OwnedShard>,
}

impl World {
    fn new() -> Self {
        let sagas = (0..SAGAS as u64).map(|number| Saga::at(START, number, 0, 1)).collect();
        let stream = |number| {
            let name = Arc::from(format!("cart-{number}"));
            Named { shard: Shard(0), id: Saga::at(START, 100 + number, 0, 1).id(), name, version: 0 }
        };
        let streams = (0..STREAMS as u64).map(stream).collect();
        Self { sagas, streams, owned: vec![OwnedShard { shard: Shard(0), epoch: Epoch(1), head: 0, died: false }] }
    }

    /// The batch that the moves make, and the sagas as they will be if it succeeds.
    fn batch(&self, moves: &[(usize, Move)]) -> (Arc<Batch>, Vec<Saga>) {
        let mut after = self.sagas.clone();
        let transitions = moves.iter().map(|(saga, attempt)| transition(&mut after[*saga], attempt)).collect();
        (batch(&self.owned, transitions), after)
    }
}

/// The append, and the stream as it will be if it succeeds.
fn append(stream: &Named, events: usize, wrong: Option<Wrong>) -> (Append, Named) {
    let mut after = stream.clone();
    after.version += u64::from(matches!(wrong, Some(Wrong::Version)));
    let mut append = after.append(&["ItemAdded", "ItemRemoved", "Emptied"][..events]);
    match wrong {
        Some(Wrong::EventId) => append.events[0].event_id = Arc::from("id-1"),
        Some(Wrong::Name) => append.name = Arc::from("cart-0"),
        Some(Wrong::Version) | None => {}
    }
    (append, after)
}

fn transition(saga: &mut Saga, attempt: &Move) -> Transition {
    match attempt {
        // Creating what exists: version 1 again.
        Move::Create => restarted(saga).create(),
        Move::CreateKeyed(key) => restarted(saga).create_keyed(KEYS[*key]),
        Move::Step => saga.step(),
        Move::Fail => saga.fail(),
        Move::Park => saga.park(),
        Move::Complete => saga.complete(),
        Move::Abandon => saga.end(Status::Abandoned),
        Move::Skip => {
            saga.row.version += 1;
            saga.step()
        }
        Move::Malformed(flaw) => flawed(saga.step(), *flaw),
    }
}

fn restarted(saga: &mut Saga) -> &mut Saga {
    saga.row.version = 0;
    saga
}

fn flawed(mut transition: Transition, flaw: Flaw) -> Transition {
    match flaw {
        Flaw::Gap => transition.events[1].version += 1,
        Flaw::NoEvents => transition.events.clear(),
        Flaw::Nul => transition.row.state.push('\0'),
        Flaw::TooLong => transition.row.correlation_id = "x".repeat(3000).into(),
    }
    transition
}

/// An answer without what each database says in its own words.
fn plain(result: &Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(_)) => "refused".to_owned(),
        Err(CommitError::NotApplied(_) | CommitError::InDoubt(_)) => panic!("{result:?}"),
        other => format!("{other:?}"),
    }
}

async fn act(store: &dyn Store, world: &mut World, act: &Act) -> String {
    match act {
        Act::Commit(moves) => {
            let (batch, after) = world.batch(moves);
            let result = store.commit(&batch).await;
            if result.is_ok() {
                world.sagas = after;
            }
            plain(&result)
        }
        Act::Append(stream, events, wrong) => {
            let (append, after) = append(&world.streams[*stream], *events, *wrong);
            let result = store.commit(&mixed(&world.owned, vec![], vec![append])).await;
            if result.is_ok() {
                world.streams[*stream] = after;
            }
            plain(&result)
        }
        Act::CommitStale(moves, off) => {
            let (mut batch, _) = world.batch(moves);
            for fence in &mut Arc::make_mut(&mut batch).fences {
                fence.epoch.0 += off;
            }
            plain(&store.commit(&batch).await)
        }
        Act::Take(who) => {
            let taken = store.take_shards(&owner(who), None, LEASE).await.unwrap();
            // One writer holds whatever was taken last, under whichever name.
            if !taken.is_empty() {
                world.owned.clone_from(&taken);
            }
            format!("{taken:?}")
        }
        Act::Renew(who) => format!("{:?}", store.renew(&owner(who), &fences(&world.owned), LEASE).await.unwrap()),
        Act::Release(who) => format!("{:?}", store.release(&owner(who)).await.unwrap()),
        Act::Bury(who) => format!("{:?}", store.bury(who).await.unwrap()),
    }
}

/// Runs a history; says all that could be seen of it.
async fn live(backend: Backend, history: &[Act]) -> String {
    let database = Database::create(backend).await;
    let store = database.migrated(1).await;
    let mut world = World::new();
    let mut seen = act(&*store, &mut world, &Act::Take("a")).await;
    for (number, next) in history.iter().enumerate() {
        let answer = act(&*store, &mut world, next).await;
        seen.push_str(&format!("\n{number}: {answer}"));
    }
    seen.push('\n');
    seen.push_str(&dump(&*store, &KEYS).await);
    seen.push_str(&dump_log(&*store).await);
    seen.push_str(&format!("{:?}\n", store.event_stats().await.unwrap().counts));
    seen.push_str(&format!("{:?}\n", store.unfinished(Shard(0), None, 100).await.unwrap()));
    for status in Status::ALL {
        let listed = store.list(&SagaFilter { statuses: vec![status], limit: 3, ..SagaFilter::default() }).await;
        seen.push_str(&format!("{:?}\n", listed.unwrap()));
    }
    seen
}

#[test]
fn both_stores_tell_the_same_story() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(acts(), 1..60), |history| {
            let sqlite = runtime.block_on(live(Backend::Sqlite, &history));
            let postgres = runtime.block_on(live(Backend::Postgres, &history));
            prop_assert_eq!(sqlite, postgres);
            Ok(())
        })
        .unwrap();
}
