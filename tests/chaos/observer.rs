//! Watches the database past everything that a run breaks: who owns which shard, and the log as a reader follows it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, Row};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::harness::{database::Database, eventually};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many looks at the shards go with one at the log.
const LOOKS_PER_READ: u32 = 5;
const QUERY_MAX: Duration = Duration::from_secs(10);

/// Who owns a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub epoch: i64,
    pub owner: Option<String>,
    pub url: Option<String>,
}

pub type Shards = BTreeMap<i32, Holding>;

/// The shards of one replica at a moment.
#[derive(Clone, Debug)]
pub struct Owned {
    pub owner: String,
    /// Shard and epoch.
    pub shards: BTreeMap<i32, i64>,
}

/// Ends with its owner.
#[derive(Debug)]
pub struct Observer {
    shards: watch::Receiver<Shards>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<Followed>>,
}

/// What a reader of the log saw, in order.
#[derive(Debug, Default)]
pub struct Followed {
    /// Per shard, the event at each position from 1: its stream and version.
    seen: BTreeMap<i32, Vec<(Uuid, i64)>>,
    pub violations: Vec<String>,
}

impl Observer {
    /// The shards must exist.
    pub async fn start(database: &Database) -> Self {
        let (sender, shards) = watch::channel(Shards::new());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(observe(database.url(), sender, stopped));
        let observer = Self { shards, stop, task: Some(task) };
        let what = "the observer sees the shards";
        eventually(
            what,
            QUERY_MAX,
            async || {
                if observer.shards.borrow().is_empty() { Err("none".to_owned()) } else { Ok(()) }
            },
        )
        .await;
        observer
    }

    /// What the replica at this URL owns at the last look.
    pub fn owned_by(&self, url: &str) -> Option<Owned> {
        let shards = self.shards.borrow();
        let of_replica = shards.iter().filter(|(_, holding)| holding.url.as_deref() == Some(url));
        let owner = of_replica.clone().next()?.1.owner.clone()?;
        Some(Owned { owner, shards: of_replica.map(|(shard, holding)| (*shard, holding.epoch)).collect() })
    }

    /// Waits until each of the shards has another owner; gives how long after `since` the last one had.
    ///
    /// # Errors
    ///
    /// Says what was seen last, when that is not so within `within`.
    pub async fn taken_over(&self, from: &Owned, since: Instant, within: Duration) -> Result<Duration, String> {
        let is_anothers = |shards: &Shards| {
            from.shards.iter().all(|(shard, epoch)| {
                shards.get(shard).is_some_and(|holding| {
                    holding.epoch > *epoch && holding.owner.as_ref().is_some_and(|owner| *owner != from.owner)
                })
            })
        };
        let mut shards = self.shards.clone();
        let taken = timeout(within, shards.wait_for(is_anothers)).await;
        match taken {
            Ok(_) => Ok(since.elapsed()),
            Err(_) => Err(format!("not taken over within {within:?}; seen last: {:?}", self.shards.borrow())),
        }
    }

    /// Stops, and gives what a reader of the log has seen by then.
    pub async fn stop(mut self) -> Followed {
        self.stop.send_replace(true);
        let task = self.task.take().expect("it is taken here only");
        task.await.expect("observing does not panic")
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Followed {
    /// Invariant 7 for a reader: each position comes once, in order, and is what it was afterwards too.
    pub fn still_stands(mut self, log: &BTreeMap<i32, Vec<(Uuid, i64)>>) -> Vec<String> {
        for (shard, seen) in &self.seen {
            let now = log.get(shard).map_or(&[][..], Vec::as_slice);
            if let Some(index) = (0..seen.len()).find(|index| now.get(*index) != Some(&seen[*index])) {
                let (position, was) = (index + 1, seen[index]);
                self.violations.push(format!(
                    "7: at position {position} of shard {shard} a reader saw version {} of saga {}; now there is {:?}",
                    was.1,
                    was.0,
                    now.get(index)
                ));
            }
        }
        self.violations
    }

    pub fn events(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }

    async fn read_on(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let (shards, after): (Vec<i32>, Vec<i64>) =
            self.seen.iter().map(|(shard, seen)| (*shard, seen.len() as i64)).unzip();
        let rows = sqlx::query(
            "SELECT e.shard, e.position - behind AS position, e.stream, e.version - behind
             FROM unnest($1::integer[], $2::bigint[]) AS r (shard, after)
             JOIN events AS e ON e.shard = r.shard AND e.position > r.after
             CROSS JOIN LATERAL generate_series(0, e.events - 1) AS behind
             ORDER BY e.shard, position",
        )
        .bind(shards)
        .bind(after)
        .fetch_all(connection)
        .await?;
        for row in rows {
            let (shard, position): (i32, i64) = (row.get(0), row.get(1));
            let seen = self.seen.get_mut(&shard).expect("only known shards were asked for");
            if position != seen.len() as i64 + 1 {
                let last = seen.len();
                let text = format!("7: a reader at position {last} of shard {shard} found {position} next");
                self.violations.push(text);
            }
            seen.push((row.get(2), row.get(3)));
        }
        Ok(())
    }
}

async fn observe(url: String, shards: watch::Sender<Shards>, stopped: watch::Receiver<bool>) -> Followed {
    let mut followed = Followed::default();
    let mut connection = None;
    for look in 0.. {
        if *stopped.borrow() {
            break;
        }
        let looking = look_once(&url, &mut connection, &shards, &mut followed, look % LOOKS_PER_READ == 0);
        if !matches!(timeout(QUERY_MAX, looking).await, Ok(Ok(()))) {
            // The database is being restarted: connect anew.
            connection = None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    followed
}

async fn look_once(
    url: &str,
    connection: &mut Option<PgConnection>,
    shards: &watch::Sender<Shards>,
    followed: &mut Followed,
    reads: bool,
) -> sqlx::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(PgConnection::connect(url).await?),
    };
    let rows = sqlx::query("SELECT shard, epoch, owner, owner_url FROM shards").fetch_all(&mut *connection).await?;
    let holding = |row: &sqlx::postgres::PgRow| Holding { epoch: row.get(1), owner: row.get(2), url: row.get(3) };
    let now: Shards = rows.iter().map(|row| (row.get(0), holding(row))).collect();
    for shard in now.keys() {
        followed.seen.entry(*shard).or_default();
    }
    shards.send_if_modified(|last| {
        let changed = *last != now;
        *last = now;
        changed
    });
    if reads { followed.read_on(connection).await } else { Ok(()) }
}
