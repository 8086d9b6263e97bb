//! After a run: ends what is parked, waits until all is settled, and judges by the database and the ledgers alone.

use std::{collections::BTreeSet, fs, path::Path, sync::atomic::Ordering, time::Duration};

use skald_core::ids::SagaId;

use super::{
    load::{self, Load},
    observer::Followed,
    report::Report,
    world::World,
};
use crate::harness::{Checker, Client, database::Database, effects::Effects, eventually, log::Log, met};

/// Retries of a compensation are up to five minutes apart.
const SETTLED_WITHIN: Duration = Duration::from_secs(420);
const COMMANDED_WITHIN: Duration = Duration::from_secs(60);
/// A retry; what was refused for good is undone; what cannot be undone is retried again.
const REPAIRS: [&str; 4] = ["retry", "compensate", "retry", "abandon"];
/// Sagas whose whole story is printed.
const TOLD_MAX: usize = 5;

/// Waits until all sagas have ended or are parked, and has the parked ones repaired until none is left. Gives how many
/// there were.
pub async fn settle(world: &World) -> usize {
    let replicas = world.clients();
    settled(&world.database).await;
    let mut parked = 0;
    for repair in REPAIRS {
        let sagas = with_status(&world.database, "status = 'parked'").await;
        if sagas.is_empty() {
            break;
        }
        if repair == REPAIRS[0] {
            parked = sagas.len();
        }
        println!("{} sagas are parked: {repair}", sagas.len());
        for saga in sagas {
            command(&replicas, &saga, repair).await;
        }
        settled(&world.database).await;
    }
    parked
}

async fn settled(database: &Database) {
    eventually("all sagas have ended or are parked", SETTLED_WITHIN, async || {
        let running = with_status(database, "ended_at_us IS NULL AND status <> 'parked'").await;
        met(running.is_empty(), || {
            format!("{} are on their way, e.g. {:?}", running.len(), &running[..running.len().min(3)])
        })
    })
    .await;
}

async fn with_status(database: &Database, condition: &str) -> Vec<String> {
    let sql = format!("SELECT {} FROM sagas WHERE {condition}", database.id_text("id"));
    let rows = database.texts::<1>(sql).await;
    rows.into_iter().map(|[id]| id.expect("an id is never NULL")).collect()
}

/// Gives a command to whichever replica takes it. It may be refused: then it was not for this saga.
async fn command(replicas: &[Client], saga: &str, name: &str) {
    eventually(&format!("a replica takes {name} for saga {saga}"), COMMANDED_WITHIN, async || {
        let mut seen = Vec::new();
        for replica in replicas {
            match load::command(replica, saga, name).await {
                Some(200 | 409) => return Ok(()),
                other => seen.push(other),
            }
        }
        Err(format!("{seen:?}"))
    })
    .await;
}

/// Completes the report with everything that can be found out now that all is quiet.
pub async fn judge(world: &World, load: &Load, followed: Followed, report: &mut Report) {
    let (log, effects) = tokio::join!(Log::read(&world.database), Effects::read(&world.shop));
    let starts = load.acknowledged.lock().expect("nothing panics while it holds this lock").clone();
    let compensated = load.compensated.lock().expect("nothing panics while it holds this lock").clone();
    report.events_followed = followed.events();
    let mut violations = log.violations_of_commands("compensate", &compensated);
    violations.extend(load.violations.lock().expect("nothing panics while it holds this lock").drain(..));
    violations.extend(followed.still_stands(&log.by_position()));
    let unknown = load.unknown.load(Ordering::Relaxed);
    violations.extend(log.violations_of_strangers(&starts, unknown));
    violations.extend(panics(world.folder.path()));
    let checker = Checker::of(log, effects).acknowledged(starts.iter().cloned());
    violations.extend(checker.violations());
    for saga in sagas_in(&violations).iter().take(TOLD_MAX) {
        println!("{}", checker.story(saga));
    }
    report.sagas_per_end = checker.ends();
    report.starts_acknowledged = starts.iter().map(|start| &start.saga).collect::<BTreeSet<_>>().len();
    report.starts_unknown = unknown;
    report.operators_compensated = compensated.len();
    report.answers = load.answers.lock().expect("nothing panics while it holds this lock").clone();
    let silence = load.silence.lock().expect("nothing panics while it holds this lock").longest;
    report.longest_silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
    report.violations.extend(violations);
}

/// The sagas that violations name.
fn sagas_in(violations: &[String]) -> BTreeSet<SagaId> {
    let words = violations.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_hexdigit() && c != '-'));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A server may die of a signal; it never ends by a mistake of its own.
fn panics(folder: &Path) -> Vec<String> {
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = files(folder).flat_map(|path| if path.is_dir() { files(&path).collect() } else { vec![path] });
    let errors = all.filter(|path| path.extension().is_some_and(|end| end == "err"));
    let panics = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lines = text.lines().filter(|line| line.contains("panicked at"));
        lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    };
    errors.flat_map(panics).collect()
}
