//! The witness: sees every commit as it is applied, every call as it is sent and every line of the participants' books
//! as it is written, and knows what must hold.
//!
//! | rule | what must hold | looked at |
//! | --- | --- | --- |
//! | 1 | initial = available + reserved, and reserved is what stands in the books | at the end |
//! | 2 | once the faults stop, every saga ends or is parked | at the end |
//! | 3 | completed: each step took effect exactly once | each effect, at the end |
//! | 4 | compensated: each effect undone once, after what depends on it | each undoing, at the end |
//! | 5 | no effect after its compensation | each effect |
//! | 6 | ended is final | each commit |
//! | 7 | versions are 1..n, positions gapless | each commit |
//! | 8 | folding the events gives the row | each commit, at the end |
//! | 9 | epochs never go back; who lost a shard writes nothing and calls nobody for it | each commit, each call |
//! | 10 | an acknowledged start exists; one saga per key | each answer, at the end |
//! | 12 | attempts stay within their policy | each call |
//! | 13 | a choreographed saga ends as its orchestrated twin does | at the end |
//! | intent | a call is announced in the log before it is sent; choreographed: the log enabled a step, before its first failure, before it took effect | each call, each effect |
//! | contract | one key, one request; an honest report is not refused for good | each request, each report |
//!
//! Steps that an operator skipped or resolved are his: their effects are not judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skald_core::{
    decide::{Invoke, Purpose, Report, ReportedOutcome},
    definition::{Definition, Step},
    event::{Event, Mode, Recorded},
    ids::{Epoch, Operation, SagaId},
    state::{SagaRow, SagaState, Status, StepStatus},
    time::Timestamp,
};

use crate::{
    judgement::{Judgements, Rule, Violation},
    participants::{Entry, Key, Mark, Participants, step_index},
    store::{Process, Store},
    trace::short,
    twin,
};

/// How often a status call may be asked.
const STATUS_ATTEMPTS_MAX: u32 = 3;

/// A saga as its committed events tell it.
#[derive(Debug)]
pub struct Observed {
    pub definition: Arc<Definition>,
    pub state: SagaState,
    /// Steps whose outcome an operator took upon himself.
    by_operator: BTreeSet<usize>,
    /// The books, by step.
    marks: Vec<Vec<Mark>>,
    enabled: Enabled,
}

/// What the log of a choreographed saga enables, told from its events alone and not by the engine's fold.
#[derive(Debug, Default)]
struct Enabled {
    steps: BTreeSet<usize>,
    passed: BTreeSet<usize>,
    failed: bool,
    /// Steps that are known to have taken effect although the log does not say that they succeeded.
    garbled: BTreeSet<usize>,
}

impl Enabled {
    fn see(&mut self, definition: &Definition, event: &Event) {
        match event {
            Event::StepSucceeded(event) => {
                self.passed.insert(step_index(&event.step));
            }
            Event::StepSkipped(event) => {
                self.passed.insert(step_index(&event.step));
            }
            Event::StepParked(event) if event.code == "output_invalid" => {
                self.garbled.insert(step_index(&event.step));
            }
            Event::StepRejected(_) | Event::StepOutputInvalid(_) | Event::SagaTimedOut(_) | Event::SagaFailed(_) => {
                self.failed = true;
            }
            _ => {}
        }
        if !self.failed {
            let index = |at: &usize| step_index(&definition.steps[*at].id);
            let ready = |step: &&Step| step.needs.iter().all(|need| self.passed.contains(&index(need)));
            self.steps.extend(definition.steps.iter().filter(ready).map(|step| step_index(&step.id)));
        }
    }
}

impl Observed {
    fn count(&self, step: usize, mark: Mark) -> usize {
        self.marks[step].iter().filter(|written| **written == mark).count()
    }

    fn stands(&self, step: usize) -> bool {
        self.count(step, Mark::Effect) > self.count(step, Mark::Undo)
    }
}

#[derive(Debug)]
pub struct Watch {
    definitions: Vec<Arc<Definition>>,
    heads: Vec<i64>,
    epochs: Vec<Epoch>,
    pub sagas: BTreeMap<SagaId, Observed>,
    /// The saga that each start key made, by the log.
    keys: BTreeMap<String, SagaId>,
    acknowledged: BTreeSet<SagaId>,
    /// Since when each participant had nothing to be silent for.
    pub quiet_since: Option<Vec<Timestamp>>,
    pub violation: Option<Violation>,
    pub judgements: Judgements,
}

impl Watch {
    #[must_use]
    pub fn new(definitions: Vec<Arc<Definition>>, shards: u16) -> Self {
        Self {
            definitions,
            heads: vec![0; usize::from(shards)],
            epochs: vec![Epoch(0); usize::from(shards)],
            sagas: BTreeMap::new(),
            keys: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            quiet_since: None,
            violation: None,
            judgements: Judgements::default(),
        }
    }

    /// Only the first violation counts: what follows may follow from it.
    pub fn require(&mut self, holds: bool, rule: Rule, what: impl FnOnce() -> String) {
        self.judgements.count(rule);
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { rule, what: what() });
        }
    }

    /// One transition was written.
    pub fn committed(&mut self, new: &[Recorded], row: &SagaRow, epoch_now: Epoch) {
        for recorded in new {
            self.check_place(recorded, epoch_now);
            self.fold(recorded);
            if self.violation.is_some() {
                return;
            }
        }
        let Some(observed) = self.sagas.get(&row.id) else { return };
        let folded = observed.state.row(&observed.definition);
        self.require(folded == *row, Rule::Invariant(8), || format!("the fold gives {folded:?}, the row is {row:?}"));
    }

    fn check_place(&mut self, recorded: &Recorded, epoch_now: Epoch) {
        let shard = usize::from(recorded.shard.0);
        let expected = self.heads[shard] + 1;
        self.heads[shard] = recorded.position;
        self.require(recorded.position == expected, Rule::Invariant(7), || {
            format!("position {} of shard {shard} where {expected} was expected", recorded.position)
        });
        let last = self.epochs[shard];
        self.epochs[shard] = recorded.epoch;
        self.require(recorded.epoch >= last && recorded.epoch == epoch_now, Rule::Invariant(9), || {
            format!(
                "{} wrote {} to shard {shard} under epoch {}, after {last}, while {epoch_now} is in force",
                short(recorded.stream),
                recorded.event.kind(),
                recorded.epoch
            )
        });
    }

    fn fold(&mut self, recorded: &Recorded) {
        let saga = recorded.stream;
        let Some(observed) = self.sagas.get_mut(&saga) else { return self.begin(recorded) };
        let (version, status) = (observed.state.version, observed.state.status);
        let silent = silent_without_cause(observed, self.quiet_since.as_deref(), &recorded.event);
        let definition = Arc::clone(&observed.definition);
        observed.enabled.see(&definition, &recorded.event);
        let evolved = observed.state.evolve(&observed.definition, &recorded.event, recorded.occurred_at);
        if let Event::OperatorActed(acted) = &recorded.event
            && matches!(acted.action.as_str(), "skip" | "resolve")
        {
            observed.by_operator.extend(acted.step.as_deref().map(step_index));
        }
        let kind = recorded.event.kind();
        self.require(recorded.version == version + 1, Rule::Invariant(7), || {
            format!("{}: version {} ({kind}) follows {version}", short(saga), recorded.version)
        });
        self.require(!status.is_ended(), Rule::Invariant(6), || format!("{}: {kind} after {status}", short(saga)));
        self.require(evolved.is_ok(), Rule::Invariant(8), || format!("{}: {evolved:?}", short(saga)));
        self.require(!silent, Rule::Invariant(2), || {
            format!("{}: {:?} although its participant was there", short(saga), recorded.event)
        });
    }

    fn begin(&mut self, recorded: &Recorded) {
        let saga = recorded.stream;
        let kind = recorded.event.kind();
        let Event::SagaStarted(started) = &recorded.event else {
            return self.require(false, Rule::Invariant(7), || format!("{} begins with {kind}", short(saga)));
        };
        self.require(recorded.version == 1, Rule::Invariant(7), || {
            format!("{} begins with version {}", short(saga), recorded.version)
        });
        if let Some(key) = started.correlation_id.strip_prefix("key:") {
            let first = *self.keys.entry(key.to_owned()).or_insert(saga);
            self.require(first == saga, Rule::Invariant(10), || {
                format!("key {key} made {} and {}", short(first), short(saga))
            });
        }
        let definition = self.definitions.iter().find(|definition| definition.name == started.definition);
        let definition = Arc::clone(definition.expect("only known definitions are started"));
        match SagaState::started(&definition, saga, started, recorded.occurred_at) {
            Ok(state) => {
                let marks = vec![Vec::new(); definition.steps.len()];
                let mut enabled = Enabled::default();
                enabled.see(&definition, &recorded.event);
                let by_operator = BTreeSet::new();
                self.sagas.insert(saga, Observed { definition, state, by_operator, marks, enabled });
            }
            Err(error) => self.require(false, Rule::Invariant(8), || error.to_string()),
        }
    }

    /// A call leaves a replica.
    pub fn called(&mut self, invoke: &Invoke, by: Process, store: &Store, now: Timestamp) {
        let row = store.shard(invoke.saga.shard(store.shard_count()));
        let (owner, until) = (row.owner, row.lease_until);
        self.require(owner == Some(by) && until > now, Rule::Invariant(9), || {
            format!(
                "replica {} calls {} of {} although the lease is of {owner:?} until {} us",
                by.replica,
                invoke.step,
                short(invoke.saga),
                until.as_micros() - now.as_micros()
            )
        });
        let announced =
            self.sagas.get(&invoke.saga).and_then(|saga| saga.state.step(&invoke.step).map(|step| (saga, step)));
        let Some((observed, step)) = announced else {
            return self.require(false, Rule::Intent, || format!("{} of an unknown saga", invoke.key));
        };
        let (status, mode) = (step.status, observed.state.mode);
        let (tries, attempts) = (step.work.tries, step.work.attempts);
        let tries_max = tries_max(&observed.definition.steps[step_index(&invoke.step)], invoke);
        let begun = status.operation() == Some(invoke.operation);
        let ahead = step.is_ahead && invoke.operation == Operation::Action;
        let announced = (begun || ahead) && mode == Mode::Orchestrated;
        self.require(announced, Rule::Intent, || {
            format!("{} is called while the log says {}", invoke.key, status.as_str())
        });
        let within = match invoke.purpose {
            Purpose::Poll => true,
            Purpose::Status => tries < tries_max,
            Purpose::Attempt => tries < tries_max && invoke.attempt == attempts + 1,
        };
        self.require(within, Rule::Invariant(12), || {
            format!("{} attempt {} after {attempts}, {tries} of {tries_max}", invoke.key, invoke.attempt)
        });
    }

    /// A participant wrote a line into its books.
    pub fn booked(&mut self, entry: Entry) {
        let Some(observed) = self.sagas.get_mut(&entry.saga) else {
            return self.require(false, Rule::Intent, || format!("{entry:?} of an unknown saga"));
        };
        let name = format_args!("{} s{}", short(entry.saga), entry.step).to_string();
        let before = observed.marks[entry.step].clone();
        let enabled = observed.state.mode == Mode::Orchestrated || observed.enabled.steps.contains(&entry.step);
        let by_operator = observed.by_operator.contains(&entry.step);
        observed.marks[entry.step].push(entry.mark);
        let had = |mark: Mark| before.contains(&mark);
        match entry.mark {
            Mark::Effect => {
                let again = had(Mark::Effect);
                let late = had(Mark::Undo) || had(Mark::Tombstone);
                self.require(!late, Rule::Invariant(5), || format!("{name} took effect after its compensation"));
                self.require(!again, Rule::Invariant(3), || format!("{name} took effect twice"));
                self.require(enabled, Rule::Intent, || format!("{name} took effect and was never enabled"));
            }
            Mark::Undo => {
                let standing = standing_dependents(observed, entry.step);
                self.require(had(Mark::Effect) && !had(Mark::Undo), Rule::Invariant(4), || {
                    format!("{name} was undone after {before:?}")
                });
                self.require(standing.is_empty() || by_operator, Rule::Invariant(4), || {
                    format!("{name} was undone while {standing:?}, which depend on it, stood")
                });
            }
            Mark::Tombstone => {}
        }
    }

    /// A key came with another request than before. An operator who says himself what a step put out, where the next one
    /// was called ahead on what its participant had answered, does that.
    pub fn came_otherwise(&mut self, key: Key) {
        let by_operator = self.sagas.get(&key.saga).is_some_and(|observed| !observed.by_operator.is_empty());
        self.require(by_operator, Rule::Contract, || format!("{key:?} came with two requests"));
    }

    /// A client was told that its saga exists.
    pub fn acknowledged(&mut self, saga: SagaId, key: Option<&str>) {
        let exists = self.sagas.contains_key(&saga);
        self.acknowledged.insert(saga);
        self.require(exists, Rule::Invariant(10), || format!("{} was acknowledged and is not there", short(saga)));
        if let Some(key) = key {
            let known = self.keys.get(key).copied();
            self.require(known == Some(saga), Rule::Invariant(10), || {
                format!("key {key} was acknowledged as {}, the log says {known:?}", short(saga))
            });
        }
    }

    /// A participant was told that its report is in the stream.
    pub fn report_acknowledged(&mut self, saga: SagaId, report: &Report) {
        let step = self.sagas.get(&saga).and_then(|observed| observed.state.step(&report.step));
        let ended = step.is_some_and(|step| match report.outcome {
            // It may have been parked for that, and be tried again by now.
            ReportedOutcome::OutputInvalid { .. } => true,
            ReportedOutcome::Compensated => step.status == StepStatus::Compensated,
            ReportedOutcome::Succeeded { .. }
            | ReportedOutcome::Rejected { .. }
            | ReportedOutcome::Cancelled
            | ReportedOutcome::Skipped => step.status != StepStatus::Running,
        });
        self.require(ended, Rule::Invariant(10), || format!("{} was taken and is not in the log", report.event_id));
    }

    /// What must hold once everything has come to rest.
    pub fn check_end(&mut self, store: &Store, participants: &Participants) {
        for saga in self.acknowledged.clone() {
            let exists = store.sagas.contains_key(&saga);
            self.require(exists, Rule::Invariant(10), || format!("{} was acknowledged and is gone", short(saga)));
        }
        for saga in store.sagas.keys().copied().collect::<Vec<_>>() {
            self.check_fold(saga, store);
            self.check_books(saga);
            self.check_twin(saga, store);
        }
        self.check_stocks(participants);
    }

    fn check_fold(&mut self, saga: SagaId, store: &Store) {
        let (Some(observed), Some(stored)) = (self.sagas.get(&saga), store.sagas.get(&saga)) else { return };
        let folded = SagaState::fold(&observed.definition, &stored.stream, None);
        let row = folded.map(|state| state.row(&observed.definition));
        let status = stored.row.status;
        self.require(row.as_ref() == Ok(&stored.row), Rule::Invariant(8), || {
            format!("{row:?} is not {:?}", stored.row)
        });
        self.require(status.is_ended() || status == Status::Parked, Rule::Invariant(2), || {
            format!("{} is {status} ({}) long after the faults stopped", short(saga), stored.row.state)
        });
    }

    fn check_books(&mut self, saga: SagaId) {
        let Some(observed) = self.sagas.get(&saga) else { return };
        let status = observed.state.status;
        let judge = |(index, step): (usize, &Step)| {
            let books = (observed.count(index, Mark::Effect), observed.count(index, Mark::Undo));
            let succeeded = observed.state.steps[index].status == StepStatus::Succeeded;
            let verdict = match status {
                _ if observed.by_operator.contains(&index) || !step.has_effect => None,
                Status::Completed => Some((Rule::Invariant(3), books == (usize::from(succeeded), 0))),
                Status::Compensated => Some((Rule::Invariant(4), books.0 == books.1)),
                Status::Running | Status::Compensating | Status::Parked | Status::Abandoned => None,
            };
            verdict.map(|(rule, holds)| (rule, holds, step.id.clone(), books))
        };
        let verdicts: Vec<_> = observed.definition.steps.iter().enumerate().filter_map(judge).collect();
        let kept = kept_effects(observed);
        self.require(kept.is_empty(), Rule::Invariant(4), || {
            format!("{} is {status}, and {kept:?}, which the log closed without effect, have one", short(saga))
        });
        for (rule, holds, step, (effects, undone)) in verdicts {
            self.require(holds, rule, || {
                format!("{} is {status}, and {step} took effect {effects} times, undone {undone} times", short(saga))
            });
        }
    }

    fn check_twin(&mut self, saga: SagaId, store: &Store) {
        let Some(observed) = self.sagas.get(&saga) else { return };
        if observed.state.mode == Mode::Orchestrated || !observed.state.status.is_ended() {
            return;
        }
        let definition = Arc::clone(&observed.definition);
        let Some(twin) = twin::of(&definition, store.stream(saga)) else { return };
        let twin = twin.map(|twin| twin::essence(&definition, &twin));
        let own = twin::essence(&definition, &observed.state);
        self.require(twin.as_ref() == Ok(&own), Rule::Invariant(13), || {
            format!("{} came to {own}, orchestrated it comes to {twin:?}", short(saga))
        });
    }

    fn check_stocks(&mut self, participants: &Participants) {
        for (service, stock) in participants.stocks.iter().enumerate() {
            let of_service = |step: &usize| step % participants.stocks.len() == service;
            let standing =
                |saga: &Observed| (0..saga.marks.len()).filter(of_service).filter(|step| saga.stands(*step)).count();
            let standing: usize = self.sagas.values().map(standing).sum();
            let holds = stock.initial == stock.available + stock.reserved && stock.reserved == standing as u64;
            self.require(holds, Rule::Invariant(1), || format!("{stock:?}, and {standing} effects stand in the books"));
        }
    }
}

/// Steps of an ended choreographed saga whose effects stand although the log says that they have none: their owners must
/// have undone them, also where an operator decided.
fn kept_effects(observed: &Observed) -> Vec<usize> {
    if observed.state.mode == Mode::Orchestrated || !observed.state.status.is_ended() {
        return Vec::new();
    }
    let closed = |index: &usize| {
        let status = observed.state.steps[*index].status;
        let without = matches!(status, StepStatus::Pending | StepStatus::Rejected | StepStatus::Skipped);
        without && !observed.enabled.garbled.contains(index)
    };
    let steps = observed.definition.steps.iter().enumerate().filter(|(_, step)| step.compensation.is_some());
    steps.map(|(index, _)| index).filter(closed).filter(|index| observed.stands(*index)).collect()
}

/// Whether the event parks a step for the silence of a participant that had no cause for it.
fn silent_without_cause(observed: &Observed, quiet_since: Option<&[Timestamp]>, event: &Event) -> bool {
    let (Event::StepParked(parked), Some(quiet_since)) = (event, quiet_since) else { return false };
    let Some(step) = observed.state.step(&parked.step).filter(|_| parked.code == "participant_silent") else {
        return false;
    };
    let service = step_index(&parked.step) % quiet_since.len();
    step.work.started_at >= quiet_since[service]
}

fn tries_max(step: &Step, invoke: &Invoke) -> u32 {
    match (invoke.purpose, invoke.operation, &step.compensation) {
        (Purpose::Status, _, _) => STATUS_ATTEMPTS_MAX.min(step.retry.max_attempts),
        (_, Operation::Compensation, Some(compensation)) => compensation.retry.max_attempts,
        (_, _, _) => step.retry.max_attempts,
    }
}

/// Steps that depend on `step`, directly or through others, whose effects stand and are nobody's but the engine's.
fn standing_dependents(observed: &Observed, step: usize) -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut open = observed.definition.steps[step].dependents.clone();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(&observed.definition.steps[next].dependents);
        }
    }
    found.into_iter().filter(|step| observed.stands(*step) && !observed.by_operator.contains(step)).collect()
}
