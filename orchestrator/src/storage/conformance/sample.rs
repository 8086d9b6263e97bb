//! Sagas by hand: rows and events of the shape that the engine makes, without a definition.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::value::RawValue;
use skald_core::{
    event::{CallNote, Event, Mode, SagaCompleted, SagaFailed, SagaStarted, StepStarted, StepSucceeded},
    ids::{Epoch, Operation, SagaId, Shard},
    shard::batch::{Append, AppendedEvent, Batch, Fence, NewEvent, Origin, StartKey, Transition},
    state::{Failure, SagaRow, Status},
    time::{Millis, Timestamp},
};

use super::super::{OwnedShard, Owner};

/// When sagas of tests are created.
pub const START: Timestamp = Timestamp::from_micros(1_760_000_000_000_000);

/// A saga in the making: what it has come to, and the transition that leads on.
#[derive(Clone, Debug)]
pub struct Saga {
    pub shard: Shard,
    pub row: SagaRow,
}

impl Saga {
    /// A new id in `shard` of `shards`, created at [`START`] plus as many milliseconds as there were sagas before.
    pub fn new(shard: u16, shards: u16) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(START.plus(Millis(count)), count, shard, shards)
    }

    pub fn at(created_at: Timestamp, number: u64, shard: u16, shards: u16) -> Self {
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&number.to_be_bytes());
        let id = SagaId::new(created_at, entropy, Shard(shard), shards);
        let row = SagaRow {
            id,
            definition: Arc::from("checkout"),
            definition_version: 1,
            mode: Mode::Orchestrated,
            status: Status::Running,
            state: "STOCK_VERIFYING".to_owned(),
            version: 0,
            correlation_id: Arc::from(format!("correlation-{number}")),
            failure: None,
            created_at,
            updated_at: created_at,
            ended_at: None,
            deadline_at: Some(created_at.plus(Millis(120_000))),
            wake_at: None,
        };
        Self { shard: Shard(shard), row }
    }

    pub fn id(&self) -> SagaId {
        self.row.id
    }

    /// The transition that appends these events and leaves the row as `change` makes it.
    pub fn transition(&mut self, events: Vec<Event>, change: impl FnOnce(&mut SagaRow)) -> Transition {
        let first = self.row.version + 1;
        self.row.version += events.len() as u64;
        self.row.updated_at = self.row.updated_at.plus(Millis(10));
        change(&mut self.row);
        let events = events
            .into_iter()
            .zip(first..)
            .map(|(event, version)| NewEvent {
                version,
                type_name: Arc::from(event.kind()),
                occurred_at: self.row.updated_at,
                actor: None,
                origin: Origin::default(),
                event,
            })
            .collect();
        Transition { shard: self.shard, row: self.row.clone(), events, start_key: None, sealed_under: None }
    }

    pub fn create(&mut self) -> Transition {
        self.create_with(r#"{"customer_id":"c-1"}"#)
    }

    pub fn create_with(&mut self, input: &str) -> Transition {
        let started = SagaStarted {
            definition: self.row.definition.to_string(),
            definition_version: self.row.definition_version,
            definition_hash: "hash".to_owned(),
            mode: self.row.mode,
            input: serde_json::from_str(input).unwrap(),
            correlation_id: self.row.correlation_id.to_string(),
            subject: None,
            traceparent: None,
            deadline_at: self.row.deadline_at,
        };
        self.transition(vec![started.into(), step_started("verify_stock")], |_| {})
    }

    pub fn create_keyed(&mut self, key: &str) -> Transition {
        let definition = Arc::clone(&self.row.definition);
        let start_key = Some(StartKey { definition, key: key.to_owned(), fingerprint: [7; 32] });
        Transition { start_key, ..self.create() }
    }

    /// One step ends and the next begins.
    pub fn step(&mut self) -> Transition {
        let wake_at = self.row.updated_at.plus(Millis(3000));
        self.transition(vec![step_succeeded("verify_stock"), step_started("reserve_stock")], |row| {
            row.state = "STOCK_RESERVING".to_owned();
            row.wake_at = Some(wake_at);
        })
    }

    pub fn fail(&mut self) -> Transition {
        let (code, reason) = ("payment_declined".to_owned(), "the card was \"declined\" \u{1F4B3}".to_owned());
        let failed =
            SagaFailed { step: Some("process_payment".to_owned()), code: code.clone(), reason: reason.clone() };
        self.transition(vec![failed.into()], |row| {
            row.status = Status::Compensating;
            row.state = "COMPENSATING".to_owned();
            row.failure = Some(Failure { step: Some("process_payment".to_owned()), code, reason });
        })
    }

    pub fn park(&mut self) -> Transition {
        self.transition(vec![step_started("reserve_stock")], |row| {
            row.status = Status::Parked;
            row.state = "PARKED".to_owned();
        })
    }

    pub fn complete(&mut self) -> Transition {
        let completed = SagaCompleted { output: Arc::new(serde_json::json!({"total": 1200})), output_error: None };
        self.transition(vec![step_succeeded("reserve_stock"), completed.into()], |row| {
            row.status = Status::Completed;
            row.state = "COMPLETED".to_owned();
            row.ended_at = Some(row.updated_at);
            row.wake_at = None;
        })
    }

    /// Any end, for lists.
    pub fn end(&mut self, status: Status) -> Transition {
        let ended = Event::SagaAbandoned(skald_core::event::SagaAbandoned {});
        self.transition(vec![ended], |row| {
            row.status = status;
            row.state = status.as_str().to_uppercase();
            row.ended_at = Some(row.updated_at);
        })
    }
}

pub fn step_started(step: &str) -> Event {
    StepStarted { step: step.into(), operation: Operation::Action, ahead: Vec::new() }.into()
}

pub fn step_succeeded(step: &str) -> Event {
    let call = CallNote::new(START, Millis(12), Some(200), None);
    let output = Arc::new(serde_json::json!({"total": 1200}));
    StepSucceeded { step: step.into(), attempt: 1, call, output }.into()
}

/// A batch of these transitions under the epochs of `owned`.
pub fn batch(owned: &[OwnedShard], transitions: Vec<Transition>) -> Arc<Batch> {
    mixed(owned, transitions, Vec::new())
}

pub fn fences(owned: &[OwnedShard]) -> Vec<Fence> {
    owned.iter().map(|owned| Fence { shard: owned.shard, epoch: owned.epoch }).collect()
}

pub fn owner(id: &str) -> Owner {
    Owner { id: id.to_owned(), url: Some(format!("http://{id}:8080")) }
}

/// A stream that is no saga, in the making.
#[derive(Clone, Debug)]
pub struct Named {
    pub shard: Shard,
    pub id: SagaId,
    pub name: Arc<str>,
    pub version: u64,
}

impl Named {
    /// A stream `category-number` in `shard` of `shards`.
    pub fn new(category: &str, shard: u16, shards: u16) -> Self {
        let saga = Saga::new(shard, shards);
        let name = format!("{category}-{}", saga.row.correlation_id);
        Self { shard: saga.shard, id: saga.id(), name: Arc::from(name), version: 0 }
    }

    /// The append of events of these types, whose ids are their versions.
    pub fn append(&mut self, types: &[&str]) -> Append {
        let version_before = self.version;
        let events = types.iter().map(|type_name| {
            self.version += 1;
            AppendedEvent {
                version: self.version,
                event_id: Arc::from(format!("id-{}", self.version)),
                type_name: Arc::from(*type_name),
                schema_version: 3,
                occurred_at: START.plus(Millis(self.version)),
                actor: Some(Arc::from("ada")),
                correlation_id: Some(Arc::from(format!("of {}", self.name))),
                causation_id: Some(Arc::from("cause")),
                data: RawValue::from_string(format!("{{ \"n\" : {} }}", self.version)).unwrap(),
            }
        });
        let events = events.collect();
        Append { shard: self.shard, stream: self.id, name: Arc::clone(&self.name), version_before, events }
    }
}

/// As [`batch`], with appends.
pub fn mixed(owned: &[OwnedShard], transitions: Vec<Transition>, appends: Vec<Append>) -> Arc<Batch> {
    let mut shards: Vec<Shard> = transitions.iter().map(|transition| transition.shard).collect();
    shards.extend(appends.iter().map(|append| append.shard));
    shards.sort();
    shards.dedup();
    let epoch = |shard| owned.iter().find(|owned| owned.shard == shard).map_or(Epoch(1), |owned| owned.epoch);
    let fences = shards.into_iter().map(|shard| Fence { shard, epoch: epoch(shard) }).collect();
    Arc::new(Batch { fences, transitions, appends })
}
