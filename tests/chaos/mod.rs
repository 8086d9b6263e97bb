//! Real processes under everything that breaks them: replicas killed and stopped in the middle of commits, PostgreSQL
//! crashing, a network that loses, delays and swallows, participants that die and lie. A third of the sagas is
//! choreographed: the participants take part in them through whichever replica answers. Then everything is healed, and what
//! the database and the ledgers hold must satisfy every invariant.
//!
//! [`plan`] makes the faults from a seed; [`servers`] and [`spells`] carry them out, side by side, while [`load`] starts
//! sagas; [`observer`] watches the database; [`judge`] has the last word; [`report`] tells. [`sqlite`] is the run of the
//! embedded database, which has no replicas and no network to lose.

mod judge;
mod load;
mod observer;
mod plan;
mod report;
mod servers;
mod silence;
mod spells;
mod sqlite;
mod world;

use std::{
    env, fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, watch};

use self::{
    load::Load,
    observer::Observer,
    plan::{Fault, Order, Plan},
    report::{Findings, Report},
    world::World,
};
use crate::harness::{eventually, met};

/// For as many starts to be over as the next fault waits for.
const PROGRESS_WITHIN: Duration = Duration::from_secs(240);

/// Where a lane is: the starts after which its next fault comes.
struct Progress<'a> {
    faults: &'a [Fault],
    next: AtomicUsize,
    begun: Instant,
}

impl Progress<'_> {
    fn next(&self) -> Option<&Fault> {
        self.faults.get(self.next.load(Ordering::Relaxed))
    }

    /// How many starts may be let in before the next fault is over: those until the one after it.
    fn limit(&self) -> usize {
        self.faults.get(self.next.load(Ordering::Relaxed) + 1).map_or(usize::MAX, |fault| fault.after + 1)
    }

    /// Carries out the faults of the lane, each when its time has come.
    async fn walk(&self, load: &Load, findings: &Findings, mut make: impl AsyncFnMut(&Fault) -> Result<(), String>) {
        while let Some(fault) = self.next() {
            eventually(&format!("{} starts are over", fault.after), PROGRESS_WITHIN, async || {
                let over = load.over();
                met(over >= fault.after, || over.to_string())
            })
            .await;
            let since = Instant::now();
            let result = make(fault).await;
            let (at, took) = (since.duration_since(self.begun).as_secs_f64(), since.elapsed());
            println!("{at:>6.1} s, {:>5} starts: {:?}, {took:.1?}", fault.after, fault.kind);
            findings.made(fault.kind, result);
            self.next.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Carries out a plan, heals everything, and judges.
async fn run(plan: &Plan) -> Report {
    let Order { seed, sagas, .. } = plan.order;
    println!("chaos: {}", plan.order.command());
    let begun = Instant::now();
    let mut world = World::start(sagas).await;
    let replicas = world.clients();
    let observer = Observer::start(&world.database).await;
    let (load, findings, admission) = (Load::default(), Findings::default(), Semaphore::new(0));
    let (done_sender, done) = watch::channel(false);
    let lane = |faults| Progress { faults, next: AtomicUsize::new(0), begun };
    let (servers, spells) = (lane(&plan.servers), lane(&plan.spells));
    let pace = sagas as f64 / plan.duration().as_secs_f64();

    let World { servers: fleet, network, shop, cluster, .. } = &mut world;
    let network = &*network;
    let mut on_servers = servers::Lane { servers: fleet, cluster, network, observer: &observer, findings: &findings };
    let mut on_network = spells::Lane { shop, network, observer: &observer, replicas: &replicas };
    let starting = async {
        let limit = || servers.limit().min(spells.limit());
        let admitting = load::admit(&admission, sagas, pace, limit);
        tokio::join!(admitting, load.run(seed, &replicas, sagas, &admission));
        done_sender.send_replace(true);
    };
    tokio::join!(
        starting,
        load.operate(seed, &replicas, done),
        servers.walk(&load, &findings, async |fault| on_servers.make(fault).await),
        spells.walk(&load, &findings, async |fault| on_network.make(fault).await),
    );
    println!("all faults are over after {:.0?}", begun.elapsed());

    world.shop.heal().await;
    let parked = judge::settle(&world.database, &world.shop, &replicas).await;
    println!("all sagas have ended after {:.0?}", begun.elapsed());
    let followed = observer.stop().await;
    let mut judged = judge::judge(&world.database, &world.shop, &load, Some(followed)).await;
    judged.violations.extend(judge::panics(world.folder.path()));
    judged.violations.extend(judge::verify(&world.database, world.servers.0[0].setup()).await);
    let report = findings.report(plan, judged, parked, begun.elapsed());
    println!("{report}");
    if !report.judged.violations.is_empty() {
        keep(world.folder.path(), &plan.order);
    }
    report
}

/// Keeps what the servers wrote of a run that went wrong.
fn keep(folder: &Path, order: &Order) {
    let Some(kept) = env::var_os("SKALD_CHAOS_KEEP") else {
        return println!("SKALD_CHAOS_KEEP=FOLDER keeps what the servers wrote");
    };
    let kept = Path::new(&kept).join(format!("seed-{}", order.seed));
    let copied = std::process::Command::new("cp").arg("-r").arg(folder).arg(&kept).status();
    println!("what the servers wrote is in {}: {copied:?}", kept.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_little_chaos_violates_nothing_in_either_mode_1_to_13() {
    let plan = Plan::make(Order { seed: 1, sagas: 300, kills: 3, restarts: 1, stops: 2 });
    run(&plan).await.check();
}

/// As long as it is told to be; `cargo xtask chaos` runs it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes as long as it is told to: run `cargo xtask chaos`"]
async fn chaos_as_ordered() {
    let number = |name: &str, default: usize| {
        env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
    };
    let order = Order {
        seed: number("SKALD_CHAOS_SEED", rand::random_range(1..1_000_000)) as u64,
        sagas: number("SKALD_CHAOS_SAGAS", 2_000),
        kills: number("SKALD_CHAOS_KILLS", 10),
        restarts: number("SKALD_CHAOS_RESTARTS", 3),
        stops: number("SKALD_CHAOS_STOPS", 3),
    };
    let report = run(&Plan::make(order)).await;
    if let Some(path) = env::var_os("SKALD_CHAOS_REPORT") {
        let text = serde_json::to_string_pretty(&report).expect("a report is JSON");
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
    report.check();
}
