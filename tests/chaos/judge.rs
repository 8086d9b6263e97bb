//! After a run: ends what is parked, waits until all is settled, and judges by the database and the ledgers alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use serde::Serialize;
use skald_core::ids::SagaId;

use super::{
    load::{self, Load},
    observer::Followed,
};
use crate::harness::{
    Checker, Client,
    database::Database,
    effects::Effects,
    eventually,
    log::Log,
    met,
    participants::Shop,
    process::Process,
    skald::{Setup, program},
};

/// Retries of a compensation are up to five minutes apart.
const SETTLED_WITHIN: Duration = Duration::from_secs(420);
const VERIFIED_WITHIN: Duration = Duration::from_secs(300);
const COMMANDED_WITHIN: Duration = Duration::from_secs(60);
/// Groups of consumers, one of each participant.
const REACTORS: usize = 3;
/// A retry; what was refused for good is undone; what cannot be undone is retried again.
const REPAIRS: [&str; 4] = ["retry", "compensate", "retry", "abandon"];
/// Sagas whose whole story is printed.
const TOLD_MAX: usize = 5;

/// Waits until all sagas have ended or are parked, and has the parked ones repaired until none is left; then until the
/// participants have done all that follows. Gives how many were parked.
pub async fn settle(database: &Database, shop: &Shop, replicas: &[Client]) -> usize {
    settled(database).await;
    let mut parked = 0;
    for repair in REPAIRS {
        let sagas = with_status(database, "status = 'parked'").await;
        if sagas.is_empty() {
            break;
        }
        if repair == REPAIRS[0] {
            parked = sagas.len();
        }
        println!("{} sagas are parked: {repair}", sagas.len());
        for saga in sagas {
            command(replicas, &saga, repair).await;
        }
        settled(database).await;
    }
    eventually("participants owe nothing", SETTLED_WITHIN, async || nothing_is_owed(shop).await).await;
    eventually("groups have every event", SETTLED_WITHIN, async || all_is_handled(&replicas[0]).await).await;
    parked
}

/// A saga may end before its participants do: what they told too late, they undo by themselves.
async fn nothing_is_owed(shop: &Shop) -> Result<(), String> {
    for service in shop.services() {
        for table in ["saga_outbox", "saga_unfinished"] {
            let sql = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}");
            let rows = service.database().texts::<1>(sql).await;
            let none = [[Some("0".to_owned())]];
            met(rows == none, || format!("{table} of {}: {rows:?}", service.url()))?;
        }
    }
    Ok(())
}

/// Invariant 11: the participants' groups have handled every event, and parked none.
async fn all_is_handled(replica: &Client) -> Result<(), String> {
    let groups = replica.try_get("/groups").await.map_err(|error| error.to_string())?;
    let items = groups.body["items"].as_array().filter(|items| items.len() == REACTORS);
    let items = items.ok_or_else(|| groups.text.clone())?;
    let open = ["ahead", "in_hand", "retrying", "waiting", "parked"];
    let is_through = |group: &serde_json::Value| open.iter().all(|count| group["lag"][*count] == 0);
    met(items.iter().all(is_through), || groups.text.clone())
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

/// What is found when all is quiet.
#[derive(Debug, Default, Serialize)]
pub struct Judged {
    pub sagas_per_end: BTreeMap<String, usize>,
    pub sagas_per_mode: BTreeMap<String, usize>,
    pub starts_acknowledged: usize,
    /// Starts without a key that nobody can know about.
    pub starts_unknown: usize,
    /// Answers to starts by status; `none` when there was none.
    pub answers: BTreeMap<String, usize>,
    pub operators_compensated: usize,
    pub longest_silence_ms: u64,
    /// Events that a reader saw as they came.
    pub events_followed: usize,
    pub violations: Vec<String>,
}

/// Judges by the database and the ledgers what the clients were told and a reader saw.
pub async fn judge(database: &Database, shop: &Shop, load: &Load, followed: Option<Followed>) -> Judged {
    let (log, effects) = tokio::join!(Log::read(database), Effects::read(shop));
    let told = load.told();
    let mut violations = log.violations_of_commands("compensate", &told.compensated);
    violations.extend(told.violations);
    violations.extend(log.violations_of_outcomes(&told.doomed));
    violations.extend(log.violations_of_strangers(&told.acknowledged, told.unknown));
    let events_followed = followed.as_ref().map_or(0, Followed::events);
    violations.extend(followed.map(|followed| followed.still_stands(&log.by_position())).unwrap_or_default());
    let starts_acknowledged = told.acknowledged.iter().map(|start| &start.saga).collect::<BTreeSet<_>>().len();
    let sagas_per_mode = log.modes();
    let checker = Checker::of(log, effects).acknowledged(told.acknowledged);
    violations.extend(checker.violations());
    for saga in sagas_in(&violations).iter().take(TOLD_MAX) {
        println!("{}", checker.story(saga));
    }
    Judged {
        sagas_per_end: checker.ends(),
        sagas_per_mode,
        starts_acknowledged,
        starts_unknown: told.unknown,
        answers: told.answers,
        operators_compensated: told.compensated.len(),
        longest_silence_ms: u64::try_from(told.silence.longest.as_millis()).unwrap_or(u64::MAX),
        events_followed,
        violations,
    }
}

/// The sagas that violations name.
fn sagas_in(violations: &[String]) -> BTreeSet<SagaId> {
    let words = violations.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_hexdigit() && c != '-'));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// What Skald's own verification finds, by the same database and ledgers.
pub async fn verify(database: &Database, setup: &Setup) -> Option<String> {
    let mut verify = program();
    verify.args(["verify", "--participants", "--database-url", &database.url()]);
    verify.arg("--config").arg(setup.folder.join("skald.toml"));
    let mut verify = Process::start("verify", &mut verify, &setup.folder);
    let status = verify.ended(VERIFIED_WITHIN).await;
    (!status.success()).then(|| format!("skald verify ended with {status}: {}", verify.log()))
}

/// A server may die of a signal; it never ends by a mistake of its own.
pub fn panics(folder: &Path) -> Vec<String> {
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
