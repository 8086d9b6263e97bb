//! The end of the log as this process wrote it, in memory: who follows the log closely reads it from here.
//!
//! Nothing in here is ever wrong. An event is taken in when its commit was reported, at the position that follows from
//! where the shard's log ended when this process took it: under that epoch nobody else writes. What was committed never
//! changes, and retention leaves alone what is as young as this. But something may be missing, at either end, so that it
//! is for the database to say how far the log goes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::value::RawValue;
use skald_core::{
    ids::{Epoch, Shard},
    shard::batch::{APPENDED, Append, AppendedEvent, Batch, CommitError, NewEvent, Transition},
};
use tokio::time::Instant;

use super::{
    LogEvent, LogFilter, LogPage, LogQuery,
    rows::{self, Placed, Window},
};
use crate::storage::OwnedShard;

/// What is kept of all shards together, at most.
const EVENTS_MAX: usize = 16_384;
/// The same by the size of the events' data.
const BYTES_MAX: usize = 16 << 20;
/// Who is further behind than this reads the database.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Who looked in vain looks again after so many events, whatever they are: how far it has come is noted now and then.
const PASSED_MAX: i64 = 256;

/// Shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<Shards>>);

#[derive(Debug, Default)]
struct Shards {
    known: HashMap<Shard, Known>,
    /// Counts commits whose events are not in here.
    missed: u64,
    /// When somebody last wanted to know of what is in here.
    asked_at: Option<Instant>,
}

/// A shard that this process took.
#[derive(Debug)]
struct Known {
    epoch: Epoch,
    /// The position of its last event.
    head: i64,
    /// Whether a commit is under way. Of two at once it is not known which is first.
    writing: bool,
    /// Up to the head, without gaps.
    events: VecDeque<(Instant, Arc<LogEvent>)>,
    bytes: usize,
}

/// From where somebody has yet to look, and for what.
#[derive(Clone, Debug)]
pub struct Beyond {
    pub after: BTreeMap<Shard, i64>,
    pub filter: LogFilter,
    missed: u64,
    passed: i64,
}

impl Tail {
    pub fn taken(&self, owned: &[OwnedShard]) {
        let mut shards = self.lock();
        for OwnedShard { shard, epoch, head, .. } in owned {
            let known = Known { epoch: *epoch, head: *head, writing: false, events: VecDeque::new(), bytes: 0 };
            shards.known.insert(*shard, known);
        }
    }

    /// Before a commit.
    pub fn writing(&self, batch: &Batch) {
        let mut shards = self.lock();
        for fence in &batch.fences {
            let known = shards.known.get_mut(&fence.shard).filter(|known| known.epoch == fence.epoch && !known.writing);
            match known {
                Some(known) => known.writing = true,
                None => drop(shards.known.remove(&fence.shard)),
            }
        }
    }

    /// After it.
    pub fn written(&self, batch: &Batch, result: &Result<(), CommitError>) {
        let mut shards = self.lock();
        let is_followed = shards.asked_at.is_some_and(|at| at.elapsed() <= KEPT_FOR);
        for fence in &batch.fences {
            let shard = fence.shard;
            let Some(known) = shards.known.get_mut(&shard).filter(|known| known.epoch == fence.epoch && known.writing)
            else {
                shards.missed += 1;
                continue;
            };
            known.writing = false;
            match result {
                Ok(()) if !is_followed => known.pass_over(shard, batch),
                Ok(()) => {
                    known.take_in(shard, batch);
                    let share = shards.known.len();
                    shards.known.entry(shard).and_modify(|known| known.forget(EVENTS_MAX / share, BYTES_MAX / share));
                }
                Err(CommitError::Refused(_) | CommitError::NotApplied(_)) => {}
                Err(CommitError::Fenced(_) | CommitError::InDoubt(_)) => {
                    shards.known.remove(&shard);
                    shards.missed += 1;
                }
            }
        }
    }

    /// Forgets all events: some of them may be in the database no longer.
    pub fn forget(&self) {
        for known in self.lock().known.values_mut() {
            known.forget(0, 0);
        }
    }

    /// What [`EventLog::log`](super::EventLog::log) answers when the shards end at `heads`; None when that is not all in
    /// here.
    pub fn page(&self, query: &LogQuery, heads: &BTreeMap<Shard, i64>) -> Option<LogPage> {
        let mut asked = Vec::new();
        for (shard, after) in &query.after {
            let head = *heads.get(shard)?;
            let last = query.until.get(shard).map_or(head, |until| head.min(*until));
            asked.push((*shard, *after, last, head));
        }
        let with_more = asked.iter().filter(|(_, after, last, _)| last > after).count().max(1);
        let share = (query.limit as usize / with_more).max(1);
        let mut windows = Vec::new();
        {
            let shards = self.asked();
            for (shard, after, last, head) in asked {
                let mut records = VecDeque::new();
                if last > after {
                    // One that ends before the log does may not be of this log: somebody restored another.
                    let known = shards.known.get(&shard).filter(|known| known.head >= head)?;
                    let events = known.between(after, last)?;
                    records.extend(events.filter(|event| query.filter.takes(event)).take(share).cloned());
                }
                let stopped_at = records.get(share - 1).map(|record| record.position);
                windows.push(Window { shard, after, looked_to: stopped_at.unwrap_or(last), last, records });
            }
        }
        let (events, mut page) = rows::mix(windows, query.limit);
        page.events = events.into_iter().map(Arc::unwrap_or_clone).collect();
        Some(page)
    }

    /// To be made before the look that `after` is taken from afterwards, so that nothing falls between.
    pub fn beyond(&self) -> Beyond {
        Beyond { after: BTreeMap::new(), filter: LogFilter::default(), missed: self.asked().missed, passed: 0 }
    }

    /// Whether commits of this process may be worth a look; if not, `beyond` is moved past them.
    pub fn has_grown(&self, beyond: &mut Beyond) -> bool {
        let shards = self.asked();
        if shards.missed != beyond.missed {
            return true;
        }
        for (shard, after) in &mut beyond.after {
            let Some(known) = shards.known.get(shard) else { continue };
            let Some(mut events) = known.between(*after, known.head) else { return true };
            if events.any(|event| beyond.filter.takes(event)) {
                return true;
            }
            beyond.passed += known.head - *after;
            *after = known.head;
        }
        beyond.passed >= PASSED_MAX
    }

    fn asked(&self) -> MutexGuard<'_, Shards> {
        let mut shards = self.lock();
        shards.asked_at = Some(Instant::now());
        shards
    }

    fn lock(&self) -> MutexGuard<'_, Shards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn take_in(&mut self, shard: Shard, batch: &Batch) {
        let now = Instant::now();
        let transitions = batch.transitions.iter().filter(|of| of.shard == shard);
        let own = transitions.flat_map(|of| of.events.iter().map(move |event| of_saga(of, event)));
        let appends = batch.appends.iter().filter(|to| to.shard == shard);
        let appended = appends.flat_map(|to| to.events.iter().map(move |event| of_stream(to, event)));
        for mut event in own.chain(appended) {
            self.head += 1;
            event.position = self.head;
            self.bytes += event.data.get().len();
            self.events.push_back((now, Arc::new(event)));
        }
    }

    /// For events that nobody is there for: those before them would end in a gap.
    fn pass_over(&mut self, shard: Shard, batch: &Batch) {
        self.forget(0, 0);
        let of_sagas = batch.transitions.iter().filter(|of| of.shard == shard).map(|of| of.events.len());
        let appended = batch.appends.iter().filter(|to| to.shard == shard).map(|to| to.events.len());
        self.head += i64::try_from(of_sagas.chain(appended).sum::<usize>()).unwrap_or(i64::MAX);
    }

    /// Leaves what is young, and not too much.
    fn forget(&mut self, events_max: usize, bytes_max: usize) {
        while let Some((at, event)) = self.events.front()
            && (self.events.len() > events_max || self.bytes > bytes_max || at.elapsed() > KEPT_FOR)
        {
            self.bytes -= event.data.get().len();
            self.events.pop_front();
        }
    }

    /// The events of these positions, if all are here.
    fn between(&self, after: i64, last: i64) -> Option<impl Iterator<Item = &Arc<LogEvent>>> {
        let first = self.head - i64::try_from(self.events.len()).ok()? + 1;
        let from = usize::try_from(after + 1 - first).ok()?;
        let to = usize::try_from(last + 1 - first).ok().filter(|to| *to <= self.events.len())?;
        let young = self.events.get(from).is_none_or(|(at, _)| at.elapsed() <= KEPT_FOR);
        young.then(|| self.events.range(from.min(to)..to).map(|(_, event)| event))
    }
}

impl Placed for Arc<LogEvent> {
    fn position(&self) -> i64 {
        self.position
    }

    fn occurred_at_us(&self) -> i64 {
        self.occurred_at.as_micros()
    }
}

/// Without its position.
fn of_saga(of: &Transition, event: &NewEvent) -> LogEvent {
    LogEvent {
        shard: of.shard,
        position: 0,
        stream: of.row.id,
        name: None,
        version: event.version,
        kind: Arc::from(event.event.kind()),
        type_name: Arc::clone(&event.type_name),
        occurred_at: event.occurred_at,
        actor: event.actor.clone(),
        schema_version: event.event.schema_version(),
        event_id: event.origin.event_id.clone(),
        correlation_id: Some(Arc::clone(&of.row.correlation_id)),
        causation_id: event.origin.causation_id.clone(),
        definition: Some(Arc::clone(&of.row.definition)),
        mode: Some(of.row.mode),
        data: RawValue::from_string(event.event.data()).expect("an event's data is JSON"),
    }
}

/// Without its position.
fn of_stream(to: &Append, event: &AppendedEvent) -> LogEvent {
    LogEvent {
        shard: to.shard,
        position: 0,
        stream: to.stream,
        name: Some(Arc::clone(&to.name)),
        version: event.version,
        kind: Arc::from(APPENDED),
        type_name: Arc::clone(&event.type_name),
        occurred_at: event.occurred_at,
        actor: event.actor.clone(),
        schema_version: event.schema_version,
        event_id: Some(Arc::clone(&event.event_id)),
        correlation_id: event.correlation_id.clone(),
        causation_id: event.causation_id.clone(),
        definition: None,
        mode: None,
        data: event.data.clone(),
    }
}
