//! The engine on a store in memory, with participants that never answer.

mod appends;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::json;
use skald_core::{
    classify::CallReport,
    decide::Invoke,
    event::Mode,
    ids::{SagaId, Shard},
    shard::{
        batch::Fence,
        writer::{Limits, StartRequest, shard_of_key},
    },
    state::Status,
    time::{Millis, Timestamp},
};

use super::{EXIT_ENGINE_FAILED, Engine, Parts, Refusal, Started, definitions::Definitions, end_on_panic};
use crate::{
    clock::{Clock, DatabaseClock},
    dispatch::{Participants, Term},
    metrics::Metrics,
    storage::{Owner, Store, memory::MemoryStore},
};

const SHARDS: u16 = 2;
const LEASE: Millis = Millis(1500);

/// One call that nobody answers.
const CALL: &str = r#"
apiVersion: skald/v1
name: call
version: 1
input: { schema: { type: object } }
deadline: 1h
steps:
  - id: wait
    effect: none
    timeout: 30m
    call: { service: svc, method: POST, path: /, body: {} }
"#;

/// Remembers which calls were made and which of them were ended by the caller.
#[derive(Debug, Default)]
struct Mute {
    made: Mutex<Vec<SagaId>>,
    cut: Arc<Mutex<Vec<SagaId>>>,
}

struct Cut {
    saga: SagaId,
    cut: Arc<Mutex<Vec<SagaId>>>,
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.cut.lock().unwrap().push(self.saga);
    }
}

impl Participants for Mute {
    fn call<'a>(&'a self, invoke: &'a Invoke, _: &'a Term) -> BoxFuture<'a, CallReport> {
        self.made.lock().unwrap().push(invoke.saga);
        let cut = Cut { saga: invoke.saga, cut: Arc::clone(&self.cut) };
        Box::pin(async move {
            let _cut = cut;
            std::future::pending().await
        })
    }
}

impl Mute {
    fn cut(&self) -> Vec<SagaId> {
        self.cut.lock().unwrap().clone()
    }

    fn made(&self) -> Vec<SagaId> {
        self.made.lock().unwrap().clone()
    }
}

struct Running {
    engine: Engine,
    store: Arc<MemoryStore>,
    participants: Arc<Mute>,
    definitions: Arc<Definitions>,
    metrics: Arc<Metrics>,
    owner: Owner,
    started: u8,
}

impl Running {
    async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(DatabaseClock::starting_at(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = Arc::new(MemoryStore::new(Arc::clone(&clock), SHARDS));
        let participants = Arc::new(Mute::default());
        let services = vec!["svc".to_owned()];
        let definitions =
            Arc::new(Definitions::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock), services));
        definitions.register(CALL).await.unwrap();
        let owner = Owner { id: "a".to_owned(), url: None };
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::run(Parts {
            spans: crate::spans::Spans::default(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            participants: Arc::clone(&participants) as Arc<dyn Participants>,
            clock,
            definitions: Arc::clone(&definitions),
            metrics: Arc::clone(&metrics),
            owner: owner.clone(),
            limits: Limits {
                shards: SHARDS,
                resident_max: 100,
                batch_max: 100,
                queue_max: 100,
                load_max: 10,
                idle_max: Millis(1000),
                recovery_ramp: Millis(0),
                takeovers_max: 3,
            },
            lease: LEASE,
            grace: Millis(60_000),
            requests_max: 100,
        });
        let running = Self { engine, store, participants, definitions, metrics, owner, started: 0 };
        running.until("it owns all", |running| running.engine.health().load.shards == usize::from(SHARDS)).await;
        running
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
    }

    async fn begin(&mut self) -> Result<SagaId, Refusal> {
        self.begin_under(None).await
    }

    async fn begin_under(&mut self, key: Option<String>) -> Result<SagaId, Refusal> {
        self.begin_and_wait(key, None).await.map(|started| started.row.id)
    }

    async fn begin_and_wait(&mut self, key: Option<String>, wait: Option<Duration>) -> Result<Started, Refusal> {
        self.started += 1;
        let request = StartRequest {
            definition: self.definitions.get("call", None).unwrap(),
            mode: Mode::Orchestrated,
            input: json!({}).into(),
            key: key.map(|key| (key, [0; 32])),
            correlation_id: String::new(),
            traceparent: None,
            subject: None,
            entropy: [self.started; 10],
        };
        self.engine.start(request, wait).await
    }

    /// A saga in each shard, each with a call in flight.
    async fn one_in_each_shard(&mut self) -> BTreeMap<Shard, SagaId> {
        let mut sagas = BTreeMap::new();
        for shard in (0..SHARDS).map(Shard) {
            let key = (0..).map(|number| number.to_string()).find(|key| shard_of_key("call", key, SHARDS) == shard);
            sagas.insert(shard, self.begin_under(key).await.unwrap());
        }
        self.until("both are called", |running| running.participants.made().len() == 2).await;
        sagas
    }

    async fn fence(&self, shard: Shard) -> Fence {
        let rows = self.store.shards().await.unwrap();
        let row = rows.iter().find(|row| row.shard == shard).unwrap();
        Fence { shard, epoch: row.epoch }
    }
}

#[tokio::test]
async fn the_calls_of_a_lost_shard_end_and_those_of_the_others_go_on() {
    let mut running = Running::start().await;
    let sagas = running.one_in_each_shard().await;
    let usurper = Owner { id: "b".to_owned(), url: None };
    let fence = running.fence(Shard(0)).await;
    running.store.release_shards(&running.owner, &[fence]).await.unwrap();
    running.store.take_shards(&usurper, Some(&[Shard(0)]), Millis(3_600_000)).await.unwrap();
    running.until("the call is ended", |running| !running.participants.cut().is_empty()).await;
    assert_eq!(running.participants.cut(), [sagas[&Shard(0)]]);
    running.until("the shard is gone", |running| running.engine.health().load.shards == 1).await;
    assert_eq!(running.metrics.shards.lost.get(), 1);
    assert_eq!(running.begin().await.unwrap().shard(SHARDS), Shard(1));
}

#[tokio::test]
async fn whoever_cannot_renew_ends_its_calls_and_makes_them_again_when_it_can() {
    let mut running = Running::start().await;
    let sagas = running.one_in_each_shard().await;
    running.store.set_down(true);
    running.until("all calls are ended", |running| running.participants.cut().len() == 2).await;
    assert!(running.metrics.shards.renewal_failures.get() > 0);
    running.until("nothing is owned", |running| running.engine.health().load.shards == 0).await;
    assert_eq!(running.begin().await, Err(Refusal::NotOwner));
    running.store.set_down(false);
    running.until("both are called again", |running| running.participants.made().len() == 4).await;
    let mut again = running.participants.made().split_off(2);
    again.sort_by_key(|saga| saga.shard(SHARDS));
    assert_eq!(again, sagas.into_values().collect::<Vec<_>>());
    assert_eq!(running.fence(Shard(0)).await.epoch.0, 2);
}

#[tokio::test]
async fn a_stop_waits_for_calls_no_longer_than_its_grace_and_frees_what_is_idle_at_once() {
    let mut running = Running::start().await;
    let saga = running.begin().await.unwrap();
    running.until("it is called", |running| running.participants.made().len() == 1).await;
    let (busy, idle) = (saga.shard(SHARDS), Shard(1 - saga.shard(SHARDS).0));
    let engine = running.engine.clone();
    let stopping = tokio::spawn(async move { engine.stop(Duration::from_secs(3)).await });
    let mut owners = BTreeMap::new();
    while owners.get(&idle) != Some(&None) {
        owners = running.store.shards().await.unwrap().into_iter().map(|row| (row.shard, row.owner)).collect();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(owners[&busy].as_deref(), Some("a"), "it waits for the call");
    assert_eq!(running.participants.cut(), []);
    assert!(running.store.replicas().await.unwrap().is_empty(), "it does not count any more");
    stopping.await.unwrap();
    assert_eq!(running.participants.cut(), [saga]);
    assert!(running.store.shards().await.unwrap().iter().all(|row| row.owner.is_none()));
    assert_eq!(running.metrics.shards.released.get(), 2);
}

#[tokio::test]
async fn who_waits_for_the_end_hears_of_a_refusal_at_once_and_of_the_beginning_when_the_time_is_over() {
    let mut running = Running::start().await;
    let key = || Some("key".to_owned());
    let begun = running.begin_and_wait(key(), Some(Duration::from_millis(1))).await.unwrap();
    assert_eq!(begun.row.status, Status::Running);
    let hour = Duration::from_secs(3600);
    let again = tokio::time::timeout(Duration::from_secs(30), running.begin_and_wait(key(), Some(hour))).await;
    assert!(again.expect("not after an hour").is_err());
}

#[tokio::test]
async fn a_process_ends_when_its_engine_panics_and_only_then() {
    let mut codes: Vec<i32> = Vec::new();
    end_on_panic(tokio::spawn(async {}).await, |code| codes.push(code));
    let pending = tokio::spawn(std::future::pending());
    pending.abort();
    end_on_panic(pending.await, |code| codes.push(code));
    assert_eq!(codes, [0_i32; 0]);
    end_on_panic(tokio::spawn(async { panic!("a bug") }).await, |code| codes.push(code));
    assert_eq!(codes, [EXIT_ENGINE_FAILED]);
}
