//! Databases with what is old, and the folder that it goes to.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use skald_core::{
    ids::SagaId,
    shard::batch::Append,
    time::{Millis, Timestamp},
};
use sqlx::types::Uuid;

use super::super::{
    super::{
        OwnedShard, Storage, StoredDefinition,
        audit::{self, Found},
        retention::Hole,
    },
    dump,
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, batch, mixed, owner},
};
use crate::{
    metrics::Metrics,
    retention::{Report, Retain},
};

/// Long before any test runs; samples without a time of their own are younger than what begins here.
pub const OLD: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
pub const DAY: Millis = Millis(24 * 3600 * 1000);

/// A database with sagas and streams of several months, and where their archive goes.
pub struct Fixture<'a> {
    pub database: &'a Database,
    pub store: Arc<dyn Storage>,
    pub owned: Vec<OwnedShard>,
    pub shards: u16,
    pub folder: tempfile::TempDir,
    pub number: u64,
}

impl<'a> Fixture<'a> {
    pub async fn new(database: &'a Database) -> Self {
        let shards = if database.backend == Backend::Postgres { 2 } else { 1 };
        let store = database.migrated(shards).await;
        let definition = StoredDefinition {
            name: "checkout".to_owned(),
            version: 1,
            hash: "hash".to_owned(),
            document: "{\n \"name\": \"checkout\"}".to_owned(),
            registered_at: OLD,
        };
        store.register(&definition).await.unwrap();
        let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
        Self { database, store, owned, shards, folder: tempfile::tempdir().unwrap(), number: 0 }
    }

    /// A month whose streams may leave: on PostgreSQL it must have its partitions before its rows.
    pub async fn month(&self, day: u64) {
        if self.database.backend == Backend::Postgres {
            let first_us = OLD.plus(Millis(day * DAY.0)).as_micros();
            let month = format!("date_trunc('month', to_timestamp({first_us} / 1000000.0) AT TIME ZONE 'UTC')");
            self.database.execute(&format!("SELECT skald_create_month({month})")).await.unwrap();
        }
    }

    /// A saga that began so many days after [`OLD`].
    pub fn saga(&mut self, day: u64) -> Saga {
        self.number += 1;
        let at = OLD.plus(Millis(day * DAY.0 + self.number));
        Saga::at(at, self.number, (self.number % u64::from(self.shards)) as u16, self.shards)
    }

    /// A stream that began so many days after [`OLD`].
    pub fn stream(&mut self, day: u64) -> Named {
        let saga = self.saga(day);
        let name = format!("cart-{}", saga.row.correlation_id);
        Named { shard: saga.shard, id: saga.id(), name: Arc::from(name), version: 0 }
    }

    pub async fn ended(&mut self, day: u64, key: Option<&str>) -> SagaId {
        let mut saga = self.saga(day);
        let create = key.map_or_else(|| saga.clone().create(), |key| saga.clone().create_keyed(key));
        saga.row.version = 2;
        saga.row = create.row.clone();
        self.store.commit(&batch(&self.owned, vec![create])).await.unwrap();
        let (step, complete) = (saga.step(), saga.complete());
        self.store.commit(&batch(&self.owned, vec![step])).await.unwrap();
        self.store.commit(&batch(&self.owned, vec![complete])).await.unwrap();
        saga.id()
    }

    pub async fn append(&self, append: Append) {
        self.store.commit(&mixed(&self.owned, vec![], vec![old(append)])).await.unwrap();
    }

    pub fn retain(&self) -> Retain {
        Retain {
            store: Arc::clone(&self.store),
            folder: self.folder.path().to_owned(),
            age: Millis(30 * DAY.0),
            categories: BTreeSet::from(["cart".to_owned()]),
            holder: "a".to_owned(),
            dry_run: false,
            metrics: Arc::new(Metrics::new()),
        }
    }

    pub async fn run(&self) -> Report {
        self.retain().run().await.unwrap()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "gz")).collect()
    }

    pub async fn has(&self, id: SagaId) -> bool {
        let has_row = self.store.row(id).await.unwrap().is_some();
        let events = self.store.events(id, 0, 10).await.unwrap().len();
        assert_eq!(has_row, events > 0, "a stream is there whole or not at all");
        has_row
    }

    /// All there is.
    pub async fn all(&self) -> String {
        let keys = ["key \"0\"", "key \"1\"", "key \"40\"", "key"];
        dump::dump(&*self.store, &keys).await + &dump::dump_log(&*self.store).await
    }

    /// The stream that is being removed, if the check of a database is told of one.
    pub async fn removing(&self) -> Option<SagaId> {
        let mut removing = None;
        let audit = audit::open(&self.database.url).await.unwrap();
        let mut visit = |found| {
            if let Found::Removing(stream) = found {
                removing = Some(stream);
            }
        };
        audit.sagas(SagaId::from_uuid(Uuid::nil()), 100, &mut visit).await.unwrap();
        removing
    }

    /// Every position of every shard is an event's or in a hole, and no position is both.
    pub async fn assert_accounted_for(&self) {
        let audit = audit::open(&self.database.url).await.unwrap();
        for bounds in audit.shards().await.unwrap() {
            let places = audit.places(bounds.shard, None, bounds.head, 100_000).await.unwrap();
            let mut found: BTreeSet<i64> = places.places.iter().map(|place| place.position).collect();
            for Hole { first, last } in places.holes {
                for position in first..=last {
                    assert!(found.insert(position), "position {position} of shard {} is there", bounds.shard);
                }
            }
            assert!(found.into_iter().eq(1..=bounds.head), "shard {}", bounds.shard);
        }
    }
}

/// Events of a stream happened when it began, so that it is old.
fn old(mut append: Append) -> Append {
    for event in &mut append.events {
        event.occurred_at = OLD;
    }
    append
}
