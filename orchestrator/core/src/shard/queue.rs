//! What waits for a commit, what is being committed, and what is to be tried again.

use alloc::{
    collections::{BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};

use super::{
    appends::Asked,
    batch::{Append, Batch, StartKey, Transition},
    unhurried::Unhurried,
};
use crate::{
    decide::{Command, Decision},
    ids::Shard,
    state::{Flight, SagaState, Status},
    time::Timestamp,
};

/// What the appends of one commit may hold together; a single one may hold more.
const APPENDED_EVENTS_MAX: usize = 5_000;
const APPENDED_BYTES_MAX: usize = 8 << 20;

/// A decision that waits to become durable.
#[derive(Debug)]
pub(super) struct Pending<R> {
    pub transition: Transition,
    pub next: SagaState,
    pub commands: Vec<Command>,
    pub reply: Option<R>,
}

impl<R> Pending<R> {
    pub fn new(transition: Transition, decision: Decision, reply: Option<R>) -> Self {
        Self { transition, next: decision.next, commands: decision.commands, reply }
    }

    /// Whether something waits for it to be durable: an answer, a call, whoever looks at a saga that does not simply go
    /// forward, or the saga itself, when nothing of it is in flight that would bring the next decision.
    pub fn is_waited_for(&self) -> bool {
        let calls = self.commands.iter().any(|command| matches!(command, Command::Invoke(_)));
        let in_flight = self.next.steps.iter().any(|step| matches!(step.flight, Flight::Airborne(_)));
        self.reply.is_some() || calls || !in_flight || self.next.status != Status::Running
    }

    /// Takes in what was decided on top of it, while nothing waited for it.
    pub fn followed_by(&mut self, later: Self) {
        self.transition.events.extend(later.transition.events);
        self.transition.row = later.transition.row;
        (self.next, self.commands, self.reply) = (later.next, later.commands, later.reply);
    }
}

/// An append that waits to become durable.
#[derive(Debug)]
pub(super) struct PendingAppend<A> {
    pub append: Append,
    /// Whose events it holds, in this order.
    pub asked: Vec<Asked<A>>,
}

/// What follows a transition once it is durable.
#[derive(Debug)]
pub(super) struct Aftermath<R> {
    pub next: SagaState,
    pub commands: Vec<Command>,
    pub reply: Option<R>,
}

#[derive(Debug)]
pub(super) struct UnderWay<R, A> {
    pub batch: Arc<Batch>,
    /// By index of the batch's transitions.
    pub aftermaths: Vec<Aftermath<R>>,
    /// By index of the batch's appends.
    pub asked: Vec<Vec<Asked<A>>>,
    /// How many sagas it creates.
    pub beginning: usize,
}

#[derive(Debug)]
pub(super) struct Commits<R, A> {
    pub queue: VecDeque<Pending<R>>,
    pub unhurried: Unhurried<R>,
    pub appends: VecDeque<PendingAppend<A>>,
    /// Batches to be tried again before anything from the queues.
    pub again: VecDeque<UnderWay<R, A>>,
    pub under_way: Option<UnderWay<R, A>>,
    pub retry_at: Option<Timestamp>,
    pub stalled: Option<String>,
    /// Keys of starts that are queued or being committed.
    keys: BTreeSet<(Arc<str>, String)>,
}

impl<R, A> Default for Commits<R, A> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            unhurried: Unhurried::default(),
            appends: VecDeque::new(),
            again: VecDeque::new(),
            under_way: None,
            retry_at: None,
            stalled: None,
            keys: BTreeSet::new(),
        }
    }
}

impl<R, A> Commits<R, A> {
    pub fn queued(&self) -> usize {
        self.queue.len()
            + self.unhurried.len()
            + self.appends.len()
            + self.again.iter().map(UnderWay::len).sum::<usize>()
    }

    /// Sagas whose first commit is under way.
    pub fn beginning(&self) -> usize {
        self.under_way.as_ref().map_or(0, |under_way| under_way.beginning)
    }

    /// When the next commit can begin that does not follow from an input or the end of another.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let idle = self.retry_at.is_none() && self.under_way.is_none();
        self.retry_at.or_else(|| self.unhurried.next_due().filter(|_| idle))
    }

    pub fn stalled(&self) -> Option<&str> {
        self.stalled.as_deref()
    }

    /// Whether something of this shard, one of so many, is queued or being committed.
    pub fn concern(&self, shard: Shard, shards: u16) -> bool {
        let mut batches = self.again.iter().chain(&self.under_way);
        self.queue.iter().any(|pending| pending.transition.shard == shard)
            || self.unhurried.sagas().any(|saga| saga.shard(shards) == shard)
            || self.appends.iter().any(|pending| pending.append.shard == shard)
            || batches.any(|under_way| under_way.batch.fences.iter().any(|fence| fence.shard == shard))
    }

    pub fn holds_key(&self, key: &StartKey) -> bool {
        self.keys.contains(&(Arc::clone(&key.definition), key.key.clone()))
    }

    pub fn push(&mut self, pending: Pending<R>) {
        if let Some(key) = &pending.transition.start_key {
            self.keys.insert((Arc::clone(&key.definition), key.key.clone()));
        }
        self.queue.push_back(pending);
    }

    pub fn push_append(&mut self, pending: PendingAppend<A>) {
        self.appends.push_back(pending);
    }

    /// How many of the queued appends go into the next commit.
    pub fn appends_that_fit(&self, count_max: usize) -> usize {
        let (mut events, mut bytes) = (0, 0);
        let fits = |(index, pending): &(usize, &PendingAppend<A>)| {
            events += pending.append.events.len();
            bytes += pending.append.events.iter().map(|event| event.data.get().len()).sum::<usize>();
            *index == 0 || (events <= APPENDED_EVENTS_MAX && bytes <= APPENDED_BYTES_MAX)
        };
        self.appends.iter().take(count_max).enumerate().take_while(fits).count()
    }

    /// With nothing left to be tried again, no commit would ever show that they get through after all. What is queued
    /// still goes at the time that was set.
    pub fn forget_stall(&mut self) {
        if self.again.is_empty() && self.under_way.is_none() {
            self.stalled = None;
            if self.queue.is_empty() && self.appends.is_empty() {
                self.retry_at = None;
            }
        }
    }

    pub fn settle_key(&mut self, transition: &Transition) {
        if let Some(key) = &transition.start_key {
            self.keys.remove(&(Arc::clone(&key.definition), key.key.clone()));
        }
    }
}

impl<R, A> UnderWay<R, A> {
    pub fn new(batch: Batch, aftermaths: Vec<Aftermath<R>>, asked: Vec<Vec<Asked<A>>>) -> Self {
        let beginning = batch.transitions.iter().filter(|transition| transition.creates()).count();
        Self { batch: Arc::new(batch), aftermaths, asked, beginning }
    }

    pub fn len(&self) -> usize {
        self.aftermaths.len() + self.asked.len()
    }
}
