//! One run: a database, participants, at least three replicas, clients and an operator, in virtual time.
//!
//! | phase | what happens |
//! | --- | --- |
//! | faults | sagas start; calls, commits, processes and clients meet what the seed says |
//! | healed | nothing fails any more; what is on its way arrives, operators see to what is parked |
//! | settled | nothing is on its way and every saga has ended or is left to its operator: the end is judged |
//!
//! A run depends on its plan alone: no clock, no thread, no map without an order has a say in it.

mod accidents;
mod choreography;
mod clients;
mod database;
mod network;
mod replica;
mod shell;

use std::sync::Arc;

use skald_core::{
    definition::Definition,
    event::Mode,
    ids::{SagaId, Shard},
    shard::writer::Limits,
    state::Status,
    time::{Millis, Timestamp},
};

use self::{
    clients::{Clients, Errand},
    database::StoreRequest,
    network::Request,
    replica::{Answered, Message, Replica},
};
use crate::{
    agenda::Agenda,
    catalog::{Catalog, SERVICES},
    chance::Chance,
    faults::{Director, Fault, Modes, Point, Script, Tally, Weather},
    judgement::{Judgements, Rule, Violation},
    mutants::Mutant,
    participants::Participants,
    reactors::Reactor,
    store::{Process, Store},
    trace::{BEGINNING, Trace, short},
    watch::Watch,
};

/// Healed this long and still not settled: it never will be.
const PATIENCE: Millis = Millis(300_000);
const LOOK_EVERY: Millis = Millis(500);
/// A saga is parked when this many processes in a row died over it.
const TAKEOVERS_MAX: u32 = 3;

/// What determines the run of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    pub number: u64,
    pub modes: Modes,
    pub mutant: Option<Mutant>,
}

/// Everything that determines a run.
#[derive(Debug)]
pub struct Plan {
    pub chance: Chance,
    pub director: Director,
    pub definitions: Vec<Arc<Definition>>,
    /// What sagas are started in, if their definition can be.
    pub modes: Modes,
    pub replicas: usize,
    pub shards: u16,
    pub sagas: usize,
    /// How long faults last.
    pub faults_for: Millis,
    pub accidents: u64,
    /// Of participants.
    pub deaths: u64,
    pub operations: u64,
    pub skew_ms_max: u64,
    pub stock: u64,
    /// Sagas that a replica keeps in memory.
    pub resident_max: usize,
    /// Whether an operator sees to parked sagas once the faults are over.
    pub attended: bool,
    pub mutant: Option<Mutant>,
    pub readable: bool,
}

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn of_seed(seed: Seed, catalog: &Catalog, readable: bool) -> Self {
        let Seed { number, modes, mutant } = seed;
        let mut chance = Chance::new(number);
        let modes = match modes {
            Modes::Both => chance.pick(&[Modes::Orchestrated, Modes::Choreographed, Modes::Both]),
            modes => modes,
        };
        let definitions = (0..chance.between(1, 3))
            .map(|_| match modes {
                Modes::Orchestrated => catalog.pick(&mut chance),
                Modes::Choreographed | Modes::Both => catalog.pick_choreographable(&mut chance),
            })
            .collect();
        let weather = Weather::draw(&mut chance);
        // Each death costs a lease; there must be time for as many as it takes to be noticed.
        let faults_for = if weather.poisonous { Millis(22_000) } else { chance.millis(3000, 9000) };
        Self {
            director: Director::Weather(weather),
            definitions,
            modes,
            replicas: if chance.one_in(5) { 4 } else { 3 },
            shards: chance.pick(&[1, 2, 3, 5]),
            sagas: chance.index(8) + 3,
            faults_for,
            accidents: chance.pick(&[0, 1, 2, 3, 5]),
            deaths: chance.pick(&[0, 0, 1, 3]),
            operations: chance.pick(&[0, 0, 1, 4]),
            skew_ms_max: chance.pick(&[0, 20, 300]),
            stock: chance.pick(&[2, 5, 100, 100]),
            resident_max: chance.pick(&[2, 100, 100]),
            attended: !chance.one_in(6),
            mutant,
            readable,
            chance,
        }
    }

    /// One saga of this definition, undisturbed but for what the script says.
    #[must_use]
    pub fn of_script(definition: &Arc<Definition>, modes: Modes, script: Script, readable: bool) -> Self {
        Self {
            chance: Chance::new(1),
            director: Director::Script(script),
            definitions: vec![Arc::clone(definition)],
            modes,
            replicas: 3,
            shards: 1,
            sagas: 1,
            faults_for: Millis(0),
            accidents: 0,
            deaths: 0,
            operations: 0,
            skew_ms_max: 0,
            stock: 100,
            resident_max: 100,
            attended: true,
            mutant: None,
            readable,
        }
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    pub hash: u64,
    pub violation: Option<Violation>,
    pub happenings: u64,
    pub judgements: Judgements,
    pub faults: Tally,
    pub ends: Ends,
    pub commits: Commits,
    /// Points that a script met.
    pub points: Vec<Point>,
    pub lines: Vec<String>,
}

/// Sagas by how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    pub completed: u64,
    pub compensated: u64,
    pub abandoned: u64,
    pub parked: u64,
}

/// Commits by fate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commits {
    pub applied: u64,
    pub fenced: u64,
    pub refused: u64,
    pub not_applied: u64,
    pub in_doubt: u64,
}

/// What lies ahead.
#[derive(Debug)]
enum Happening {
    Deliver {
        to: Process,
        message: Message,
    },
    Wake {
        to: Process,
    },
    /// A request reaches the database.
    Store(StoreRequest),
    /// A request reaches a participant.
    Call(Box<Request>),
    /// An accepted operation comes to its end.
    Work(Box<Request>),
    Errand(Errand),
    Choreography(choreography::Step),
    Answer {
        request: u64,
        answer: Box<Answered>,
    },
    Accident(Fault),
    GoOn {
        process: Process,
    },
    Boot {
        replica: usize,
    },
    Heal,
    Look,
}

#[derive(Debug)]
struct World {
    now: Timestamp,
    agenda: Agenda<Happening>,
    chance: Chance,
    director: Director,
    store: Store,
    participants: Participants,
    reactors: Vec<Reactor>,
    replicas: Vec<Replica>,
    clients: Clients,
    watch: Watch,
    trace: Trace,
    faults: Tally,
    commits: Commits,
    limits: Limits,
    definitions: Vec<Arc<Definition>>,
    modes: Modes,
    mutant: Option<Mutant>,
    skew_ms_max: u64,
    attended: bool,
    /// Whether nothing fails any more.
    calm: bool,
    healed_at: Timestamp,
    /// Requests, accepted work and callbacks that will still have an effect somewhere; events that are not dealt with,
    /// duties in hand and reports that are not taken.
    on_the_way: u64,
}

/// Runs the plan to its end, or to the first violation.
#[must_use]
pub fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    while world.watch.violation.is_none() {
        let Some((at, happening)) = world.agenda.pop() else { break };
        debug_assert!(at >= world.now, "time does not run backward");
        world.now = at;
        if world.happen(happening) {
            world.watch.check_end(&world.store, &world.participants);
            break;
        }
    }
    world.outcome()
}

impl World {
    fn new(plan: Plan) -> Self {
        let Plan { mut chance, shards, resident_max, skew_ms_max, .. } = plan;
        let limits = Limits {
            shards,
            resident_max,
            batch_max: chance.pick(&[1, 3, 50]),
            queue_max: 100,
            load_max: chance.pick(&[1, 5]),
            idle_max: Millis(chance.pick(&[20, 60_000])),
            recovery_ramp: Millis(200),
            takeovers_max: TAKEOVERS_MAX,
        };
        let now = BEGINNING;
        let replicas = (0..plan.replicas)
            .map(|replica| Replica::new(Process { replica, run: 0 }, limits, &mut chance, skew_ms_max, now))
            .collect();
        let as_text = chance.one_in(8);
        let mut world = Self {
            now,
            agenda: Agenda::default(),
            store: Store::new(shards, as_text, plan.mutant),
            participants: Participants::new(plan.stock, plan.mutant),
            reactors: SERVICES.map(|service| Reactor::new(service, now)).into(),
            replicas,
            clients: Clients::default(),
            watch: Watch::new(plan.definitions.clone(), shards),
            trace: Trace::new(plan.readable),
            faults: Tally::default(),
            commits: Commits::default(),
            limits,
            definitions: plan.definitions,
            modes: plan.modes,
            mutant: plan.mutant,
            skew_ms_max,
            attended: plan.attended,
            calm: false,
            healed_at: now.plus(plan.faults_for),
            on_the_way: 0,
            chance,
            director: plan.director,
        };
        for _ in 0..plan.deaths {
            let at = world.now.plus(world.chance.millis(100, plan.faults_for.0));
            let fault = world.chance.pick(Fault::OF_PARTICIPANTS);
            world.agenda.put(at, Happening::Choreography(choreography::Step::Accident(fault)));
        }
        world.prepare(plan.sagas, plan.accidents, plan.operations, plan.faults_for);
        world
    }

    /// Puts down what will happen of itself.
    fn prepare(&mut self, sagas: usize, accidents: u64, operations: u64, faults_for: Millis) {
        for replica in 0..self.replicas.len() {
            self.begin_process(replica);
        }
        for _ in 0..sagas {
            let at = self.now.plus(Millis(50)).plus(self.chance.millis(0, faults_for.0 * 2 / 3));
            self.plan_start(at);
        }
        for _ in 0..accidents {
            let at = self.now.plus(self.chance.millis(100, faults_for.0));
            let fault = self.chance.pick(Fault::OF_REPLICAS);
            self.agenda.put(at, Happening::Accident(fault));
        }
        for _ in 0..operations {
            let at = self.now.plus(self.chance.millis(100, faults_for.0));
            self.agenda.put(at, Happening::Errand(Errand::OperateAtRandom));
        }
        self.agenda.put(self.healed_at, Happening::Heal);
    }

    /// True when everything has come to rest.
    fn happen(&mut self, happening: Happening) -> bool {
        match happening {
            Happening::Deliver { to, message } => self.deliver(to, message),
            Happening::Wake { to } => self.wake(to),
            Happening::Store(request) => self.reach_store(request),
            Happening::Call(request) => self.reach_participant(*request),
            Happening::Work(request) => self.finish_work(*request),
            Happening::Errand(errand) => self.run_errand(errand),
            Happening::Choreography(step) => self.choreograph(step),
            Happening::Answer { request, answer } => self.answer(request, *answer),
            Happening::Accident(fault) => self.accident(fault),
            Happening::GoOn { process } => self.go_on(process),
            Happening::Boot { replica } => self.boot(replica),
            Happening::Heal => self.heal(),
            Happening::Look => return self.look(),
        }
        false
    }

    /// The operator's round; true when everything has come to rest.
    fn look(&mut self) -> bool {
        if self.is_settled() {
            return true;
        }
        let late = self.healed_at.plus(PATIENCE) < self.now;
        if late {
            let why = self.unsettled();
            self.watch.require(false, Rule::Invariant(2), || why);
        }
        self.attend();
        self.agenda.put(self.now.plus(LOOK_EVERY), Happening::Look);
        false
    }

    fn is_settled(&self) -> bool {
        self.on_the_way == 0
            && self.clients.is_settled()
            && self.watch.sagas.iter().all(|(saga, observed)| {
                let status = observed.state.status;
                status.is_ended() || status == Status::Parked && self.is_left_parked(*saga)
            })
    }

    fn unsettled(&self) -> String {
        let open = self.watch.sagas.iter().filter(|(_, observed)| !observed.state.status.is_ended());
        let open: Vec<String> =
            open.map(|(saga, observed)| format!("{} is {}", short(*saga), observed.state.status)).collect();
        let owners: Vec<_> = self.store.shards.iter().map(|row| row.owner.map(|owner| owner.to_string())).collect();
        format!(
            "not at rest {PATIENCE} after the faults stopped: {open:?}, {} on the way, clients settled: {}, owners {owners:?}",
            self.on_the_way,
            self.clients.is_settled()
        )
    }

    fn outcome(self) -> Outcome {
        let mut ends = Ends::default();
        for observed in self.watch.sagas.values() {
            match observed.state.status {
                Status::Completed => ends.completed += 1,
                Status::Compensated => ends.compensated += 1,
                Status::Abandoned => ends.abandoned += 1,
                Status::Parked => ends.parked += 1,
                Status::Running | Status::Compensating => {}
            }
        }
        Outcome {
            hash: self.trace.hash(),
            happenings: self.trace.happenings,
            judgements: self.watch.judgements,
            violation: self.watch.violation,
            faults: self.faults,
            ends,
            commits: self.commits,
            points: match self.director {
                Director::Script(script) => script.points,
                Director::Weather(_) => Vec::new(),
            },
            lines: self.trace.into_lines(),
        }
    }

    /// The mode in which a saga of this definition is started.
    fn draw_mode(&mut self, definition: &Definition) -> Mode {
        match self.modes {
            Modes::Orchestrated => Mode::Orchestrated,
            Modes::Choreographed | Modes::Both if !definition.not_choreographable().is_empty() => Mode::Orchestrated,
            Modes::Choreographed => Mode::Choreographed,
            Modes::Both => self.chance.pick(&[Mode::Orchestrated, Mode::Choreographed]),
        }
    }

    fn tell(&mut self, facts: [u64; 3], text: impl FnOnce() -> String) {
        self.trace.tell(self.now, facts, text);
    }

    fn after(&mut self, low_ms: u64, high_ms: u64) -> Timestamp {
        let micros = self.chance.between(low_ms * 1000, high_ms * 1000);
        Timestamp::from_micros(self.now.as_micros() + i64::try_from(micros).expect("a delay is short"))
    }

    fn shard_of(&self, saga: SagaId) -> Shard {
        saga.shard(self.limits.shards)
    }
}
