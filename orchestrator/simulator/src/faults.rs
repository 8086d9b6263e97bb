//! What can go wrong, and who decides that it does: the weather of a seed, or a script with one fault.

use std::str::FromStr;

use skald_core::{
    choreography::Duty,
    decide::Invoke,
    event::Mode,
    ids::{Operation, SagaId},
};

use crate::chance::Chance;

/// Declares [`Fault`] with its name in reports and traces.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident $name:literal)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $fault),* }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$fault),*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name),* }
            }

            const fn identifier(self) -> &'static str {
                match self { $(Self::$fault => stringify!($fault)),* }
            }
        }
    };
}

faults! {
    RequestLost "request lost"
    ReplyLost "effect, then reply lost"
    Duplicated "request duplicated"
    /// Slow enough to be overtaken by others.
    Delayed "request delayed and overtaken"
    /// It arrives after everybody gave up on it.
    Late "request late, after its time-out"
    NotSent "connection refused"
    Deferred "call deferred, circuit open"
    Refused "refused"
    Busy "503"
    InFlight "409, still in flight"
    Accepted "202, ended later"
    Misconfigured "404"
    Garbled "effect, then garbled body"
    CallbackLost "callback lost"
    CallbackRepeated "callback repeated"
    CallbackLate "callback late"
    CommitNotApplied "commit not applied"
    CommitAppliedInDoubt "commit applied, reported failed"
    CommitLostInDoubt "commit lost, fate unknown"
    /// Reported as unknown; it reaches the database when the shard may long be another's.
    CommitLateInDoubt "commit in doubt, arrives late"
    CommitRepeated "commit delivered twice"
    CommitSlow "commit slow"
    ReadFailed "read failed"
    LeaseRequestLost "lease request lost"
    LeaseReplyLost "lease reply lost"
    CrashBeforeCommit "crash before the commit arrives"
    CrashAfterCommit "crash after commit, before its report"
    CrashBeforeCall "crash before the call"
    CrashDuringCall "crash with the call on its way"
    CrashAfterEffect "crash after effect, before reply"
    /// Each call of one saga takes the process down, until the faults stop.
    Poison "crash at each call of one saga"
    Crash "crash at any time"
    Pause "process stopped for a while"
    Partition "cut off from the database"
    Terminate "told to stop"
    ClientReplyLost "reply to a client lost"
    StartRepeated "start asked for twice at once"
    OperatorCommand "operator command at any time"
    OutOfStock "refused, out of stock"
    Skew "clock off by more than 100 ms"
    // Of choreographed sagas.
    EventLate "event late and overtaken"
    EventRepeated "event delivered twice"
    EventLost "event delivered only when it is redelivered"
    HandlerSlow "handler slow"
    HandlerFails "handler fails, tried again"
    /// Nothing of what it was doing is durable.
    DiesBefore "participant dies before its transaction"
    DiesAfter "participant dies after its transaction, before its report"
    PostLost "report lost"
    PostRepeated "report posted twice"
    PostLate "report late, after it was given up"
    PostReplyLost "report taken, reply lost"
    DiesPosting "participant dies with its report on its way"
    Dies "participant dies at any time"
    Silent "participant gone for long"
    // What follows from the others.
    CommitFenced "commit fenced"
    LeaseLost "lease lost"
    Takeover "shard taken over from the dead"
    Handover "shards drained for another"
    CallbackTooLate "callback for what is over"
    Suspected "parked, as its processes died"
    TimedOut "timed out"
    FoundSilent "parked, as its participant was silent"
    EventGap "event before others: the stream is read"
    Cancelled "cancelled by its owner"
    LateSuccess "success after the first failure"
    ReportRefused "effect closed without, undone by its owner"
}

/// Which modes a run is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    Orchestrated,
    Choreographed,
    /// Seeds of either kind, and of sagas of both side by side.
    #[default]
    Both,
}

impl Fault {
    /// What may be done to a call.
    pub const OF_CALLS: &'static [Self] = &[
        Self::RequestLost,
        Self::ReplyLost,
        Self::Duplicated,
        Self::Delayed,
        Self::Late,
        Self::NotSent,
        Self::Deferred,
        Self::Refused,
        Self::Busy,
        Self::InFlight,
        Self::Accepted,
        Self::Misconfigured,
        Self::Garbled,
        Self::CrashBeforeCall,
        Self::CrashDuringCall,
        Self::CrashAfterEffect,
    ];

    pub const OF_COMMITS: &'static [Self] = &[
        Self::CommitNotApplied,
        Self::CommitAppliedInDoubt,
        Self::CommitLostInDoubt,
        Self::CommitLateInDoubt,
        Self::CommitRepeated,
        Self::CommitSlow,
        Self::CrashBeforeCommit,
        Self::CrashAfterCommit,
    ];

    /// What may be done to an event on its way to a participant.
    pub const OF_EVENTS: &'static [Self] = &[Self::EventLate, Self::EventRepeated, Self::EventLost];

    /// What may befall a participant's local transaction.
    pub const OF_DUTIES: &'static [Self] =
        &[Self::HandlerSlow, Self::HandlerFails, Self::Refused, Self::Garbled, Self::DiesBefore, Self::DiesAfter];

    /// What may be done to a report on its way to the stream.
    pub const OF_POSTS: &'static [Self] =
        &[Self::PostLost, Self::PostRepeated, Self::PostLate, Self::PostReplyLost, Self::DiesPosting];

    /// What happens to a whole participant.
    pub const OF_PARTICIPANTS: &'static [Self] = &[Self::Dies, Self::Silent];

    /// What happens to a whole process.
    pub const OF_REPLICAS: &'static [Self] = &[Self::Crash, Self::Pause, Self::Partition, Self::Terminate];

    /// Its name on the command line: `CrashDuringCall` is `crash-during-call`.
    #[must_use]
    pub fn slug(self) -> String {
        let mut slug = String::new();
        for letter in self.identifier().chars() {
            if letter.is_ascii_uppercase() && !slug.is_empty() {
                slug.push('-');
            }
            slug.push(letter.to_ascii_lowercase());
        }
        slug
    }

    #[must_use]
    pub fn by_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.slug() == slug)
    }

    const fn is_crash(self) -> bool {
        matches!(
            self,
            Self::CrashBeforeCommit
                | Self::CrashAfterCommit
                | Self::CrashBeforeCall
                | Self::CrashDuringCall
                | Self::CrashAfterEffect
                | Self::Poison
                | Self::DiesBefore
                | Self::DiesAfter
                | Self::DiesPosting
        )
    }

    /// Whether it can happen to sagas of these modes.
    #[must_use]
    pub fn happens_in(self, modes: Modes) -> bool {
        let of_events = Self::EventLate..=Self::Silent;
        let of_choreography = of_events.contains(&self) || self >= Self::TimedOut;
        let of_calls = Self::OF_CALLS.contains(&self) && !Self::OF_DUTIES.contains(&self);
        let of_accepted = (Self::CallbackLost..=Self::CallbackLate).contains(&self);
        let called = of_calls || of_accepted || matches!(self, Self::Poison | Self::Suspected | Self::CallbackTooLate);
        match modes {
            Modes::Orchestrated => !of_choreography,
            Modes::Choreographed => !called,
            Modes::Both => true,
        }
    }
}

impl Modes {
    pub fn each(self) -> impl Iterator<Item = Mode> {
        [Mode::Orchestrated, Mode::Choreographed].into_iter().filter(move |mode| match self {
            Self::Orchestrated => *mode == Mode::Orchestrated,
            Self::Choreographed => *mode == Mode::Choreographed,
            Self::Both => true,
        })
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orchestrated => "orchestrated",
            Self::Choreographed => "choreographed",
            Self::Both => "both",
        }
    }
}

impl FromStr for Modes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Orchestrated, Self::Choreographed, Self::Both];
        known.into_iter().find(|modes| modes.name() == text).ok_or("not one of: orchestrated, choreographed, both")
    }
}

/// How often each fault was injected.
#[derive(Clone, Debug)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Tally {
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub fn never(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.of(*fault) == 0)
    }
}

/// What befalls one call or one commit: something on its way, a crash, both or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    pub on_the_way: Option<Fault>,
    pub crash: Option<Fault>,
}

impl Trouble {
    #[must_use]
    pub const fn of(fault: Fault) -> Self {
        if fault.is_crash() {
            Self { on_the_way: None, crash: Some(fault) }
        } else {
            Self { on_the_way: Some(fault), crash: None }
        }
    }

    #[must_use]
    pub fn is(self, fault: Fault) -> bool {
        self.on_the_way == Some(fault) || self.crash == Some(fault)
    }
}

/// Faults at random. Each seed has kinds of its own and its own rates: a fault seldom shows what it can do while
/// twenty others keep every saga from getting anywhere.
#[derive(Debug)]
pub struct Weather {
    calls: Vec<Fault>,
    commits: Vec<Fault>,
    events: Vec<Fault>,
    duties: Vec<Fault>,
    posts: Vec<Fault>,
    call_share: u64,
    report_share: u64,
    commit_share: u64,
    store_share: u64,
    /// Whether the first saga that is called takes every process down that calls it.
    pub poisonous: bool,
    poison: Option<SagaId>,
}

impl Weather {
    #[must_use]
    pub fn draw(chance: &mut Chance) -> Self {
        let mut some = |all: &[Fault]| {
            let odds = chance.pick(&[2, 3, 6]);
            all.iter().copied().filter(|_| chance.one_in(odds)).collect::<Vec<_>>()
        };
        let (calls, commits) = (some(Fault::OF_CALLS), some(Fault::OF_COMMITS));
        let (events, duties, posts) = (some(Fault::OF_EVENTS), some(Fault::OF_DUTIES), some(Fault::OF_POSTS));
        Self {
            calls,
            commits,
            events,
            duties,
            posts,
            report_share: chance.pick(&[0, 100, 250, 500]),
            call_share: chance.pick(&[0, 200, 400, 700]),
            commit_share: chance.pick(&[0, 50, 150, 300]),
            store_share: chance.pick(&[0, 0, 100, 300]),
            poisonous: chance.one_in(25),
            poison: None,
        }
    }

    fn call(&mut self, invoke: &Invoke, chance: &mut Chance) -> Trouble {
        if self.poisonous && *self.poison.get_or_insert(invoke.saga) == invoke.saga {
            Trouble::of(Fault::Poison)
        } else if chance.per_mille(self.call_share) {
            pick(&self.calls, chance)
        } else {
            Trouble::default()
        }
    }
}

/// One fault at one point of an otherwise undisturbed run, and what forces the path it is to meet.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The step whose action is refused, so that the saga goes backward.
    pub refuse: Option<String>,
    /// The point, counted from 0 over calls and commits, and what happens there.
    pub fault: Option<(usize, Trouble)>,
    pub points: Vec<Point>,
}

/// Where a fault can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Call,
    Commit,
    /// An event goes to a participant.
    Event,
    /// A participant carries out a duty.
    Duty,
    /// A participant posts a report.
    Post,
}

#[derive(Debug)]
pub enum Director {
    Weather(Weather),
    Script(Script),
}

impl Director {
    pub fn call(&mut self, invoke: &Invoke, chance: &mut Chance, calm: bool) -> Trouble {
        match self {
            Self::Script(script) => {
                let trouble = script.meet(Point::Call);
                let refused = script.refuse.as_deref() == Some(&*invoke.step) && invoke.operation == Operation::Action;
                let on_the_way = trouble.on_the_way.or(refused.then_some(Fault::Refused));
                Trouble { on_the_way, ..trouble }
            }
            Self::Weather(_) if calm => Trouble::default(),
            Self::Weather(weather) => weather.call(invoke, chance),
        }
    }

    pub fn commit(&mut self, chance: &mut Chance, calm: bool) -> Trouble {
        match self {
            Self::Script(script) => script.meet(Point::Commit),
            Self::Weather(weather) if !calm && chance.per_mille(weather.commit_share) => pick(&weather.commits, chance),
            Self::Weather(_) => Trouble::default(),
        }
    }

    pub fn event(&mut self, chance: &mut Chance, calm: bool) -> Trouble {
        match self {
            Self::Script(script) => script.meet(Point::Event),
            Self::Weather(weather) if !calm && chance.per_mille(weather.report_share) => pick(&weather.events, chance),
            Self::Weather(_) => Trouble::default(),
        }
    }

    pub fn duty(&mut self, duty: &Duty, chance: &mut Chance, calm: bool) -> Trouble {
        match self {
            Self::Script(script) => {
                let trouble = script.meet(Point::Duty);
                let refused = script.refuse.as_deref() == Some(duty.step()) && matches!(duty, Duty::Act { .. });
                let on_the_way = trouble.on_the_way.or(refused.then_some(Fault::Refused));
                Trouble { on_the_way, ..trouble }
            }
            Self::Weather(weather) if !calm && chance.per_mille(weather.report_share) => pick(&weather.duties, chance),
            Self::Weather(_) => Trouble::default(),
        }
    }

    pub fn post(&mut self, chance: &mut Chance, calm: bool) -> Trouble {
        match self {
            Self::Script(script) => script.meet(Point::Post),
            Self::Weather(weather) if !calm && chance.per_mille(weather.report_share) => pick(&weather.posts, chance),
            Self::Weather(_) => Trouble::default(),
        }
    }

    /// Whether a request of another kind to the database, or its answer, goes astray.
    pub fn store_request_fails(&mut self, chance: &mut Chance, calm: bool) -> bool {
        match self {
            Self::Script(_) => false,
            Self::Weather(weather) => !calm && chance.per_mille(weather.store_share),
        }
    }
}

fn pick(from: &[Fault], chance: &mut Chance) -> Trouble {
    if from.is_empty() { Trouble::default() } else { Trouble::of(chance.pick(from)) }
}

impl Script {
    fn meet(&mut self, point: Point) -> Trouble {
        let number = self.points.len();
        self.points.push(point);
        self.fault.filter(|(at, _)| *at == number).map(|(_, trouble)| trouble).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_by_their_names_on_the_command_line() {
        for fault in Fault::ALL {
            assert_eq!(Fault::by_slug(&fault.slug()), Some(*fault));
        }
        assert_eq!(Fault::CrashDuringCall.slug(), "crash-during-call");
    }
}
