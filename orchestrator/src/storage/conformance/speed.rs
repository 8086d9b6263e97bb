//! A measurement, not a test: how many transitions a store takes per second.
//!
//! `cargo test --release -p skald speed -- --ignored --nocapture`; name a server with `fsync=on` in
//! `SKALD_TEST_POSTGRES_URL` for figures that mean something.

use std::time::{Duration, Instant};

use skald_core::{shard::batch::Transition, time::Timestamp};

use super::{
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner},
};

const PER_SIZE: Duration = Duration::from_secs(4);

async fn measure(backend: Backend) {
    let database = Database::create(backend).await;
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut number = 0;
    for size in [1, 4, 16, 64, 256, 1024] {
        let mut sagas: Vec<Saga> = Vec::new();
        let (mut transitions, mut commits) = (0, 0);
        let mut spent = Duration::ZERO;
        while spent < PER_SIZE {
            // Each batch has sagas at every stage, as in a steady load.
            while sagas.len() < size {
                let now = store.now().await.unwrap();
                sagas.push(Saga::at(Timestamp::from_micros(now.as_micros()), number, 0, 1));
                number += 1;
            }
            let moves: Vec<Transition> = sagas.iter_mut().map(advance).collect();
            sagas.retain(|saga| saga.row.ended_at.is_none());
            let batch = batch(&owned, moves);
            let began = Instant::now();
            store.commit(&batch).await.unwrap();
            spent += began.elapsed();
            transitions += size;
            commits += 1;
        }
        let per_second = transitions as f64 / spent.as_secs_f64();
        let per_commit = spent.as_secs_f64() * 1e6 / f64::from(commits);
        println!("{backend:?} batches of {size}: {per_second:.0} transitions/s, {per_commit:.0} us per commit");
    }
}

fn advance(saga: &mut Saga) -> Transition {
    match saga.row.version {
        0 => saga.create(),
        8.. => saga.complete(),
        _ => saga.step(),
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn sqlite() {
    measure(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "a measurement"]
async fn postgres() {
    measure(Backend::Postgres).await;
}
