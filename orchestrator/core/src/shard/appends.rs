//! Appends to streams that are no sagas.
//!
//! The requests for one stream stand in a line and are decided in their order, on what the database says:
//!
//! | a line | until |
//! | --- | --- |
//! | waits for its look-up | the one under way has ended: one at a time, of many streams |
//! | is looked up | the stream's head is here, and which of the events are in it already |
//! | is queued or being committed | the commit has ended; what came meanwhile is looked up next |
//!
//! Whatever is answered was read from the database or committed to it: of the requests that were looked up together,
//! those that can be written are written as one append, up to the first whose answer would depend on them. A line never
//! outlives the ownership of its shard: when that ends, or begins to, who waits is refused.

mod judge;
mod words;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};

use self::judge::{Verdict, judge};
pub use self::words::{AppendRequest, Appended, ExpectedVersion, ToAppend, shard_of_stream};
use super::{
    batch::{Append, AppendedEvent, StreamAsk, StreamLook},
    queue::PendingAppend,
    writer::{Effect, Refusal, Writer},
};
use crate::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

/// Events that are looked up by one read, and of one stream at most; a single request may have more.
const LOOKED_UP_EVENTS_MAX: usize = 2_000;

/// Every line, by its stream's name.
#[derive(Debug)]
pub(super) struct Lines<A> {
    lines: BTreeMap<Arc<str>, Line<A>>,
    /// Those to be looked up, in order.
    wanted: VecDeque<Arc<str>>,
    /// Asked for by the last read and not here yet. What an earlier read brings is outdated.
    asked: BTreeSet<Arc<str>>,
    reads: u64,
    /// Requests that are not answered yet.
    open: usize,
}

#[derive(Debug)]
struct Line<A> {
    shard: Shard,
    /// Of those who wait, so many from the front are being looked up.
    looked_up: usize,
    waiting: VecDeque<Waiting<A>>,
}

#[derive(Debug)]
struct Waiting<A> {
    request: AppendRequest,
    reply: A,
    /// The database refused it together with others: it is not written together with any again.
    alone: bool,
}

/// A request whose events are in an append that waits to become durable.
#[derive(Debug)]
pub(super) struct Asked<A> {
    expected: ExpectedVersion,
    entropy: [u8; 10],
    events: usize,
    reply: A,
}

impl<A> Default for Lines<A> {
    fn default() -> Self {
        Self { lines: BTreeMap::new(), wanted: VecDeque::new(), asked: BTreeSet::new(), reads: 0, open: 0 }
    }
}

impl<A> Lines<A> {
    /// Removes the lines of every shard for which `keep` is false and returns the answers they owed.
    fn retain(&mut self, keep: impl Fn(Shard) -> bool) -> Vec<A> {
        let mut owed = Vec::new();
        self.lines.retain(|_, line| {
            let stays = keep(line.shard);
            if !stays {
                owed.extend(line.waiting.drain(..).map(|waiting| waiting.reply));
            }
            stays
        });
        self.wanted.retain(|name| self.lines.contains_key(name));
        self.asked.retain(|name| self.lines.contains_key(name));
        owed
    }
}

impl<A> Line<A> {
    /// How many from the front may be decided together, with at most so many events if it is more than one.
    fn together(&self, events_max: usize) -> usize {
        let mut events = 0;
        let fits = |(index, waiting): &(usize, &Waiting<A>)| {
            events += waiting.request.events.len();
            *index == 0 || (events <= events_max && !waiting.alone && !self.waiting[0].alone)
        };
        self.waiting.iter().enumerate().take_while(fits).count()
    }

    fn ask(&self, name: &Arc<str>) -> StreamAsk {
        let events = self.waiting.iter().take(self.looked_up).flat_map(|waiting| &waiting.request.events);
        let event_ids: BTreeSet<Arc<str>> = events.map(|event| Arc::clone(&event.event_id)).collect();
        StreamAsk { name: Arc::clone(name), event_ids: event_ids.into_iter().collect() }
    }
}

impl<R, A> Writer<R, A> {
    /// Appends to a stream that is no saga. `reply` is answered when the events are durable.
    pub fn append(&mut self, request: AppendRequest, reply: A, now: Timestamp) {
        self.lines.open += 1;
        let shard = shard_of_stream(&request.stream, self.limits.shards);
        if !self.accepts(shard) {
            return self.answer_append(reply, Err(Refusal::NotOwner));
        }
        let queue_max = self.limits.queue_max;
        if self.lines.open > queue_max || self.commits.queued() >= queue_max || self.commits.stalled().is_some() {
            return self.answer_append(reply, Err(Refusal::Overloaded));
        }
        let name = Arc::clone(&request.stream);
        let waiting = Waiting { request, reply, alone: false };
        match self.lines.lines.get_mut(&name) {
            Some(line) => line.waiting.push_back(waiting),
            None => {
                let line = Line { shard, looked_up: 0, waiting: VecDeque::from([waiting]) };
                self.lines.lines.insert(Arc::clone(&name), line);
                self.lines.wanted.push_back(name);
            }
        }
        self.look_up_wanted();
        self.commit_if_idle(now);
    }

    /// The answer to an [`Effect::LookUp`]; a stream that it leaves out counts as not looked up.
    pub fn looked_up(&mut self, read: u64, looks: Vec<StreamLook>, now: Timestamp) {
        for look in looks {
            if read == self.lines.reads && self.lines.asked.remove(&look.name) {
                self.decide_line(look, now);
            }
        }
        self.not_looked_up(read);
        self.commit_if_idle(now);
    }

    /// The read failed: who was looked up is refused, and can come again.
    pub fn not_looked_up(&mut self, read: u64) {
        if read == self.lines.reads {
            for name in core::mem::take(&mut self.lines.asked) {
                let Some(line) = self.lines.lines.get_mut(&name) else { continue };
                let owed: Vec<A> = line.waiting.drain(..line.looked_up).map(|waiting| waiting.reply).collect();
                owed.into_iter().for_each(|reply| self.answer_append(reply, Err(Refusal::Overloaded)));
                self.advance_line(&name);
            }
        }
        self.look_up_wanted();
    }

    /// Asks for the next streams, one read at a time.
    pub(super) fn look_up_wanted(&mut self) {
        if !self.lines.asked.is_empty() || self.lines.wanted.is_empty() {
            return;
        }
        let (mut asks, mut events) = (Vec::new(), 0);
        while asks.len() < self.limits.load_max
            && events < LOOKED_UP_EVENTS_MAX
            && let Some(name) = self.lines.wanted.pop_front()
        {
            let line = self.lines.lines.get_mut(&name).expect("a wanted line is there");
            line.looked_up = line.together(LOOKED_UP_EVENTS_MAX);
            let ask = line.ask(&name);
            events += ask.event_ids.len();
            asks.push(ask);
            self.lines.asked.insert(name);
        }
        self.lines.reads += 1;
        self.effects.push_back(Effect::LookUp { read: self.lines.reads, asks });
    }

    /// Decides those of a line who were looked up, up to the first whose answer depends on what is not durable yet.
    fn decide_line(&mut self, look: StreamLook, now: Timestamp) {
        let StreamLook { name, head, known } = look;
        let mut known: BTreeMap<Arc<str>, u64> = known.into_iter().collect();
        let version_before = head.map_or(0, |head| head.version);
        let occurred_at = head.map_or(now, |head| head.updated_at.max(now));
        let (mut events, mut asked) = (Vec::new(), Vec::new());
        let mut version = version_before;
        for _ in 0..core::mem::take(&mut self.line(&name).looked_up) {
            let line = self.line(&name);
            let verdict = judge(&line.waiting[0].request, version, &known);
            if verdict != Verdict::Write && !asked.is_empty() {
                break;
            }
            let Waiting { request, reply, .. } = line.waiting.pop_front().expect("it was just judged");
            match verdict {
                Verdict::Write => {
                    asked.push(Asked {
                        expected: request.expected,
                        entropy: request.entropy,
                        events: request.events.len(),
                        reply,
                    });
                    for event in request.events {
                        version += 1;
                        known.insert(Arc::clone(&event.event_id), version);
                        events.push(event.at(version, occurred_at));
                    }
                }
                Verdict::Known(version) => {
                    let appended = Appended { stream: Arc::clone(&name), version, replayed: true };
                    self.answer_append(reply, Ok(appended));
                }
                Verdict::Refuse(refusal) => self.answer_append(reply, Err(refusal)),
            }
        }
        let Some(first) = asked.first() else { return self.advance_line(&name) };
        let shard = self.line(&name).shard;
        let stream = head.map_or_else(|| SagaId::new(now, first.entropy, shard, self.limits.shards), |head| head.id);
        let append = Append { shard, stream, name, version_before, events };
        self.commits.push_append(PendingAppend { append, asked });
    }

    fn line(&mut self, name: &str) -> &mut Line<A> {
        self.lines.lines.get_mut(name).expect("a line that is looked up is there")
    }

    /// Nothing of the line is looked up, queued or being committed any more: its next ones are wanted.
    pub(super) fn advance_line(&mut self, name: &Arc<str>) {
        let Some(line) = self.lines.lines.get_mut(name) else { return };
        line.looked_up = 0;
        let shard = line.shard;
        if line.waiting.is_empty() {
            self.lines.lines.remove(name);
        } else if self.accepts(shard) {
            self.lines.wanted.push_back(Arc::clone(name));
        } else if let Some(line) = self.lines.lines.remove(name) {
            line.waiting.into_iter().for_each(|waiting| self.answer_append(waiting.reply, Err(Refusal::NotOwner)));
        }
    }

    /// The append is durable.
    pub(super) fn answer_appended(&mut self, append: &Append, asked: Vec<Asked<A>>) {
        let mut version = append.version_before;
        for Asked { events, reply, .. } in asked {
            version += events as u64;
            let appended = Appended { stream: Arc::clone(&append.name), version, replayed: false };
            self.answer_append(reply, Ok(appended));
        }
    }

    /// The database refused this append, which was alone in its batch. If it was of several requests, they are decided
    /// again, one by one.
    pub(super) fn refuse_append(&mut self, append: &Append, asked: Vec<Asked<A>>, refusal: Refusal) {
        match self.lines.lines.get_mut(&append.name) {
            _ if asked.len() == 1 => self.refuse_asked(asked, &refusal),
            Some(line) => {
                let mut events = append.events.iter();
                let again = asked.into_iter().map(|asked| asked.again(&append.name, &mut events));
                let later = core::mem::take(&mut line.waiting);
                line.waiting = again.chain(later).collect();
            }
            // Its shard is being given up.
            None => self.refuse_asked(asked, &Refusal::NotOwner),
        }
        self.advance_line(&append.name);
        self.look_up_wanted();
    }

    pub(super) fn refuse_asked(&mut self, asked: Vec<Asked<A>>, refusal: &Refusal) {
        asked.into_iter().for_each(|asked| self.answer_append(asked.reply, Err(refusal.clone())));
    }

    /// Forgets the lines of every shard for which `keep` is false, except what is queued or being committed.
    pub(super) fn retain_lines(&mut self, keep: impl Fn(Shard) -> bool) {
        for reply in self.lines.retain(keep) {
            self.answer_append(reply, Err(Refusal::NotOwner));
        }
        self.look_up_wanted();
    }

    fn answer_append(&mut self, reply: A, answer: Result<Appended, Refusal>) {
        self.lines.open -= 1;
        self.effects.push_back(Effect::AppendReply(reply, answer));
    }
}

impl ToAppend {
    fn at(self, version: u64, occurred_at: Timestamp) -> AppendedEvent {
        AppendedEvent {
            version,
            event_id: self.event_id,
            type_name: self.type_name,
            schema_version: self.schema_version,
            occurred_at,
            actor: self.actor,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            data: self.data,
        }
    }

    fn of(event: &AppendedEvent) -> Self {
        Self {
            event_id: Arc::clone(&event.event_id),
            type_name: Arc::clone(&event.type_name),
            schema_version: event.schema_version,
            actor: event.actor.clone(),
            correlation_id: event.correlation_id.clone(),
            causation_id: event.causation_id.clone(),
            data: event.data.clone(),
        }
    }
}

impl<A> Asked<A> {
    /// The request as it was, taking its events from the append's.
    fn again<'a>(self, stream: &Arc<str>, events: &mut impl Iterator<Item = &'a AppendedEvent>) -> Waiting<A> {
        let events = events.take(self.events).map(ToAppend::of).collect();
        let request =
            AppendRequest { stream: Arc::clone(stream), expected: self.expected, events, entropy: self.entropy };
        Waiting { request, reply: self.reply, alone: true }
    }
}
