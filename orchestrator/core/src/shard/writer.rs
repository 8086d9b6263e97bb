//! The single writer of the shards that a replica owns, as a state machine without IO.
//!
//! The shell feeds it what happened (a request, a finished call, a finished commit, time) and carries out the
//! [`Effect`]s it asks for. What holds at every moment:
//!
//! - At most one commit is under way. Transitions decided meanwhile wait in a queue and go in the next one together.
//! - A saga has at most one transition queued or under way; it is decided on committed state only, except that what
//!   nothing waits for yet is decided on and becomes one transition. A stream has one append, decided on committed state.
//! - A call is asked for only after the commit that announced it, which may be an earlier one than that of the decision
//!   to make it.
//! - A shard that is lost, or whose last commit is in doubt, is forgotten at once, with every saga in it: nobody is
//!   answered from memory that may be wrong, and nothing is called for it until it is owned again.
//!
//! A crash leaves what was committed; taking the shard again and loading its unfinished sagas carries on from there.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    admission::Admission,
    appends::{Appended, Lines},
    batch::{Batch, StartKey, StreamAsk},
    leases::TakenShard,
    queue::Commits,
    recovery::Recovery,
    residence::Residence,
    timers::Timers,
};
use crate::{
    classify::CallReport,
    decide::{IllegalInput, Input, Invoke},
    definition::Definition,
    event::{Mode, Recorded},
    ids::{Epoch, SagaId, Shard},
    json::Document,
    state::SagaRow,
    time::{Millis, Timestamp},
};

/// So many starts without a key go to one shard before the next one has its turn: sagas of a time then lie together, and
/// a commit moves few fences.
const UNKEYED_IN_A_ROW: usize = 32;

/// Bounds of one replica.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Shards of the database.
    pub shards: u16,
    /// Unfinished sagas in memory beyond which no start is accepted and no waiting saga is loaded.
    pub resident_max: usize,
    /// Transitions in one commit, and appends in one.
    pub batch_max: usize,
    /// Transitions and appends waiting for a commit beyond which no start and no append is accepted.
    pub queue_max: usize,
    /// Sagas loaded by one read.
    pub load_max: usize,
    /// A saga that has nothing to do for longer than this leaves the memory.
    pub idle_max: Millis,
    /// Over at most this time the sagas that are due when shards are taken begin.
    pub recovery_ramp: Millis,
    /// A saga is parked when so many processes in a row died with something of it in progress.
    pub takeovers_max: u32,
}

/// What the shell must do. `R` and `A` are its handles for the answers to what sagas and streams are told.
#[derive(Debug)]
pub enum Effect<R, A = R> {
    /// Write this; answer with [`Writer::committed`]. Never asked for while another one is under way.
    Commit(Arc<Batch>),
    /// Call the participant; answer with [`Writer::call_finished`].
    Invoke(Box<Invoke>),
    /// Read these streams; answer for each with [`Writer::loaded`], [`Writer::not_loaded`] or [`Writer::unreadable`].
    Load {
        read: u64,
        sagas: Vec<SagaId>,
    },
    /// Read where these streams end; answer with [`Writer::looked_up`] or [`Writer::not_looked_up`].
    LookUp {
        read: u64,
        asks: Vec<StreamAsk>,
    },
    Reply(R, Result<SagaRow, Refusal>),
    AppendReply(A, Result<Appended, Refusal>),
    /// A transition is durable. For whoever watches, and for the metrics.
    Committed {
        shard: Shard,
        batch: Arc<Batch>,
        index: usize,
        definition: Arc<Definition>,
        /// Of whoever started the saga.
        traceparent: Option<Arc<str>>,
    },
    /// These shards were forgotten: another replica owns them, or nobody knows how their last commit ended. Take them
    /// again if they can be had.
    Forgotten(Vec<Shard>),
    /// A saga that cannot be carried on by this process; it stays as it is in the database.
    Stuck {
        saga: SagaId,
        reason: String,
    },
}

/// Why a request was not carried out. Nothing was written, except perhaps for `InDoubt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("too many sagas are running")]
    Overloaded,
    #[error("this replica does not own the saga's shard")]
    NotOwner,
    #[error("the saga does not exist")]
    NoSuchSaga,
    #[error("a saga with this key exists already")]
    KeyExists,
    #[error(transparent)]
    Illegal(#[from] IllegalInput),
    #[error("the database could not say whether the change was written")]
    InDoubt,
    #[error("the saga cannot be carried on: {0}")]
    Stuck(String),
    #[error("the stream has version {actual}, not {expected}")]
    WrongVersion { expected: u64, actual: u64 },
    /// Or comes twice in one append, or some of an append's events are known and others not.
    #[error("the stream has another event {event_id:?}")]
    EventIdTaken { event_id: Arc<str> },
    /// Of a report: the saga, at this version, has taken all of it in before.
    #[error("the saga's stream tells that already")]
    Known { version: u64 },
    #[error("the database refused the data: {0}")]
    Unwritable(String),
}

/// Whose personal data an input holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A keyed hash of their name.
    pub hash: Arc<str>,
    /// The name of the key that their data is sealed under.
    pub key: Arc<str>,
}

/// A saga to begin.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub definition: Arc<Definition>,
    pub mode: Mode,
    pub input: Document,
    /// The key and the fingerprint of what was asked for under it.
    pub key: Option<(String, [u8; 32])>,
    pub correlation_id: String,
    pub traceparent: Option<String>,
    /// Of a definition with personal data; the input is sealed already.
    pub subject: Option<Subject>,
    /// Fresh random bytes for the id.
    pub entropy: [u8; 10],
}

/// How much there is of what, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub unfinished: usize,
    pub resident: usize,
    pub timers: usize,
    pub queued: usize,
    pub shards: usize,
}

/// See the module. `R` is the shell's handle for an answer, `A` for that to an append.
#[derive(Debug)]
pub struct Writer<R, A = R> {
    pub(super) limits: Limits,
    pub(super) owned: BTreeMap<Shard, Owned>,
    pub(super) definitions: BTreeMap<(String, u32), Arc<Definition>>,
    pub(super) residence: Residence<R>,
    pub(super) admission: Admission,
    pub(super) lines: Lines<A>,
    pub(super) timers: Timers,
    recovery: Recovery,
    /// Calls of all owned shards.
    pub(super) in_flight: usize,
    /// Sagas of all owned shards with calls in flight.
    pub(super) sagas_calling: usize,
    /// Up to which epoch the owners of a shard are known to have died over it, or before. Kept when the shard is lost, as
    /// it may be before anything was carried on.
    pub(super) died: BTreeMap<Shard, Epoch>,
    pub(super) commits: Commits<R, A>,
    pub(super) effects: VecDeque<Effect<R, A>>,
    /// Starts without a key so far, which go over the owned shards in turn.
    unkeyed: usize,
}

#[derive(Debug)]
pub(super) struct Owned {
    pub epoch: Epoch,
    pub unfinished: usize,
    /// Sagas that were due when the shard was taken, after an owner died, and have not been loaded since.
    pub suspects: BTreeSet<SagaId>,
    /// Nothing new begins here: the shard is being given up.
    pub draining: bool,
    /// The calls in flight, with numbers that no two calls share.
    pub calls: BTreeSet<(SagaId, u64)>,
}

impl Owned {
    pub fn is_calling(&self, saga: SagaId) -> bool {
        self.calls.range((saga, u64::MIN)..=(saga, u64::MAX)).next().is_some()
    }

    /// Sagas with calls in flight.
    pub fn sagas_calling(&self) -> usize {
        self.calls.iter().map(|(saga, _)| saga).collect::<BTreeSet<_>>().len()
    }
}

/// The shard in which a keyed start lives.
#[must_use]
pub fn shard_of_key(definition: &str, key: &str, shards: u16) -> Shard {
    let digest = Sha256::new().chain_update(definition).chain_update([0]).chain_update(key).finalize();
    Shard(u16::from_be_bytes([digest[0], digest[1]]) % shards)
}

impl<R, A> Writer<R, A> {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            owned: BTreeMap::new(),
            definitions: BTreeMap::new(),
            residence: Residence::default(),
            admission: Admission::default(),
            lines: Lines::default(),
            timers: Timers::default(),
            recovery: Recovery::default(),
            in_flight: 0,
            sagas_calling: 0,
            died: BTreeMap::new(),
            commits: Commits::default(),
            effects: VecDeque::new(),
            unkeyed: 0,
        }
    }

    /// The next thing to do, oldest first. Call until None after every input.
    pub fn next_effect(&mut self) -> Option<Effect<R, A>> {
        self.effects.pop_front()
    }

    /// When [`Writer::tick`] is next needed.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.next().into_iter().chain(self.commits.next_wake()).min()
    }

    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            unfinished: self.owned.values().map(|owned| owned.unfinished).sum(),
            resident: self.residence.len(),
            timers: self.timers.len(),
            queued: self.commits.queued(),
            shards: self.owned.len(),
        }
    }

    /// Calls that were asked for and have not ended.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Why commits are not getting through at the moment, if they are not.
    #[must_use]
    pub fn stalled(&self) -> Option<&str> {
        self.commits.stalled()
    }

    /// Makes a definition known; sagas pinned to one that is not known cannot be loaded.
    pub fn define(&mut self, definition: Arc<Definition>) {
        self.definitions.insert((definition.name.clone(), definition.version), definition);
    }

    /// The shard is this replica's from now on, with these unfinished sagas and when each must be looked at. They are
    /// loaded as their times come and as there is room; those that are due already, one after another.
    pub fn own(&mut self, taken: TakenShard, unfinished: &[(SagaId, Option<Timestamp>)], now: Timestamp) {
        let TakenShard { shard, epoch, died } = taken;
        self.forget(&[shard]);
        let is_due = |wake_at: Option<Timestamp>| wake_at.is_some_and(|at| at <= now);
        let due = || unfinished.iter().filter(|(_, wake_at)| is_due(*wake_at)).map(|(saga, _)| *saga);
        let window = self.recovery.widen(due().count(), self.limits.recovery_ramp, now);
        for (saga, wake_at) in unfinished {
            let wake_at = if is_due(*wake_at) { Some(window.place(*saga, epoch)) } else { *wake_at };
            self.timers.set(*saga, wake_at);
        }
        if died {
            self.died.insert(shard, Epoch(epoch.0 - 1));
        }
        let suspects = if self.died.contains_key(&shard) { due().collect() } else { BTreeSet::new() };
        let unfinished = unfinished.len();
        self.owned.insert(shard, Owned { epoch, unfinished, suspects, draining: false, calls: BTreeSet::new() });
    }

    /// The shards are another's now, or in doubt. Everything in memory about them goes.
    pub fn lose(&mut self, shards: &[Shard]) {
        self.forget(shards);
    }

    #[must_use]
    pub fn owns(&self, shard: Shard) -> Option<Epoch> {
        self.owned.get(&shard).map(|owned| owned.epoch)
    }

    /// Whether a start would be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.residence.len() < self.limits.resident_max
            && self.admission.admits(self.active())
            && self.commits.queued() < self.limits.queue_max
            && self.commits.stalled().is_none()
    }

    /// Sagas with calls in flight, what waits for a commit while nothing of it is called, and sagas that are being begun: those
    /// that wait for something else are no load.
    pub(super) fn active(&self) -> usize {
        self.sagas_calling + self.commits.queued() - self.commits.unhurried.len() + self.commits.beginning()
    }

    /// Begins a saga. `reply` is answered when its first events are durable.
    pub fn start(&mut self, request: StartRequest, reply: R, now: Timestamp) {
        if !self.has_room() {
            return self.effects.push_back(Effect::Reply(reply, Err(Refusal::Overloaded)));
        }
        let shard = match &request.key {
            Some((key, _)) => Some(shard_of_key(&request.definition.name, key, self.limits.shards)),
            None => self.next_shard(),
        };
        let Some(shard) = shard.filter(|shard| self.accepts(*shard)) else {
            return self.effects.push_back(Effect::Reply(reply, Err(Refusal::NotOwner)));
        };
        let key = request.key.as_ref().map(|(key, fingerprint)| StartKey {
            definition: Arc::from(request.definition.name.as_str()),
            key: key.clone(),
            fingerprint: *fingerprint,
        });
        self.begin(request, shard, key, reply, now);
        self.commit_if_idle(now);
    }

    /// Feeds an operator's command or a callback to a saga, loading it if it sleeps.
    pub fn input(&mut self, saga: SagaId, input: Input, reply: R, now: Timestamp) {
        if !self.accepts(saga.shard(self.limits.shards)) {
            return self.effects.push_back(Effect::Reply(reply, Err(Refusal::NotOwner)));
        }
        self.deliver(saga, input, Some(reply), now);
        self.load_wanted();
        self.commit_if_idle(now);
    }

    /// A call ended. Ignored when its saga is not in memory any more: whoever owns it now calls again.
    pub fn call_finished(&mut self, saga: SagaId, step: Arc<str>, call: u64, report: CallReport, now: Timestamp) {
        self.call_ended(saga, call);
        if self.residence.is_resident(saga) {
            self.deliver(saga, Input::CallFinished { step, call, report }, None, now);
            self.commit_if_idle(now);
        }
    }

    /// A stream was read; empty when there is none. Folds it and feeds what waited for it.
    pub fn loaded(&mut self, read: u64, saga: SagaId, stream: &[Recorded], now: Timestamp) {
        self.settle_in(read, saga, stream, now);
        self.load_wanted();
        self.commit_if_idle(now);
    }

    /// The read of a stream failed; it is tried again a little later.
    pub fn not_loaded(&mut self, read: u64, saga: SagaId, now: Timestamp) {
        self.put_off(read, saga, now);
        self.load_wanted();
    }

    /// The stream holds what this version of the engine cannot read: the saga is left as it is.
    pub fn unreadable(&mut self, read: u64, saga: SagaId, reason: &str) {
        self.leave(read, saga, &Refusal::Stuck(String::from(reason)));
        self.load_wanted();
    }

    /// Time went on.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some(saga) = self.timers.pop_due(now) {
            self.deliver_tick(saga, now);
        }
        self.load_wanted();
        self.commit_if_idle(now);
    }

    /// The shard of the next start without a key.
    fn next_shard(&mut self) -> Option<Shard> {
        self.unkeyed = self.unkeyed.wrapping_add(1);
        let open = || self.owned.iter().filter(|(_, owned)| !owned.draining).map(|(shard, _)| *shard);
        open().nth(self.unkeyed / UNKEYED_IN_A_ROW % open().count().max(1))
    }
}
