//! Requests to the database: what happens to them on the way, and to their answers on the way back.

use std::sync::Arc;

use skald_core::{
    event::{Event, Mode},
    ids::SagaId,
    shard::{
        batch::{Batch, CommitError},
        leases::{LeaseRequest, TakenShard},
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};

/// So long after the faults stopped every shard has an owner again.
const RECOVERY: Millis = Millis(12_000);

use super::{
    Happening, World,
    replica::{LEASE, Message},
};
use crate::{
    faults::Fault,
    store::Process,
    trace::{short, word},
};

/// What reaches the database.
#[derive(Debug)]
pub enum StoreRequest {
    Commit {
        from: Process,
        batch: Arc<Batch>,
        report: Report,
    },
    Read {
        from: Process,
        read: u64,
        sagas: Vec<SagaId>,
    },
    Leases {
        from: Process,
        request: LeaseRequest,
        /// Done, and the answer is lost.
        in_vain: bool,
    },
    Unfinished {
        from: Process,
        taken: TakenShard,
    },
}

/// What the replica learns of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    AsItWas,
    InDoubt,
    /// It has been told already, or there is nobody to tell.
    Nothing,
    /// The process dies at the moment of the commit.
    Crash,
}

impl World {
    pub(super) fn commit(&mut self, index: usize, batch: Arc<Batch>) {
        let from = self.replicas[index].process;
        let trouble = self.director.commit(&mut self.chance, self.calm);
        let cut_off = self.replicas[index].is_cut_off(self.now);
        let fault = match trouble.on_the_way {
            None if cut_off => Some(self.chance.pick(&[Fault::CommitLostInDoubt, Fault::CommitAppliedInDoubt])),
            fault => fault,
        };
        for fault in [fault, trouble.crash].into_iter().flatten() {
            self.faults.count(fault);
        }
        let code = fault.map_or(0, |fault| fault as u64 + 1);
        self.tell([20, from.replica as u64, code], || {
            let sagas: Vec<String> = batch.transitions.iter().map(|transition| short(transition.row.id)).collect();
            format!("{from} commits {sagas:?}{}", fault.map_or(String::new(), |fault| format!(" ({})", fault.name())))
        });
        if trouble.is(Fault::CrashBeforeCommit) {
            return self.crash(index, "before its commit");
        }
        let soon = self.after(1, 5);
        let patience = self.after(600, 1500);
        let doubt = || Message::CommitEnded(Err(CommitError::InDoubt("the connection was lost".to_owned())));
        let commit = |report| Happening::Store(StoreRequest::Commit { from, batch: Arc::clone(&batch), report });
        match fault {
            _ if trouble.is(Fault::CrashAfterCommit) => self.agenda.put(soon, commit(Report::Crash)),
            Some(Fault::CommitNotApplied) => {
                self.commits.not_applied += 1;
                let message = Message::CommitEnded(Err(CommitError::NotApplied("disk full".to_owned())));
                self.agenda.put(soon, Happening::Deliver { to: from, message });
            }
            Some(Fault::CommitAppliedInDoubt) => self.agenda.put(soon, commit(Report::InDoubt)),
            Some(Fault::CommitLostInDoubt) => {
                self.commits.in_doubt += 1;
                self.agenda.put(patience, Happening::Deliver { to: from, message: doubt() });
            }
            Some(Fault::CommitLateInDoubt) => {
                self.commits.in_doubt += 1;
                self.agenda.put(patience, Happening::Deliver { to: from, message: doubt() });
                let late = self.after(1500, 9000);
                self.agenda.put(late, commit(Report::Nothing));
            }
            Some(Fault::CommitRepeated) => {
                self.agenda.put(soon, commit(Report::AsItWas));
                let again = self.after(5, 2000);
                self.agenda.put(again, commit(Report::Nothing));
            }
            Some(Fault::CommitSlow) => {
                let late = self.after(300, 7000);
                self.agenda.put(late, commit(Report::AsItWas));
            }
            _ => self.agenda.put(soon, commit(Report::AsItWas)),
        }
    }

    pub(super) fn read_streams(&mut self, index: usize, read: u64, sagas: Vec<SagaId>) {
        let from = self.replicas[index].process;
        let at = self.after(1, 5);
        self.agenda.put(at, Happening::Store(StoreRequest::Read { from, read, sagas }));
    }

    pub(super) fn ask_for_leases(&mut self, from: Process, request: LeaseRequest) {
        let cut_off = self.replicas[from.replica].is_cut_off(self.now);
        let fails = cut_off || self.director.store_request_fails(&mut self.chance, self.calm);
        let reply_lost = fails && self.chance.one_in(2);
        let at = self.after(1, 5);
        if fails && !reply_lost {
            self.faults.count(Fault::LeaseRequestLost);
            let at = self.after(100, 900);
            return self.agenda.put(at, Happening::Deliver { to: from, message: Message::Leases(None) });
        }
        if reply_lost {
            self.faults.count(Fault::LeaseReplyLost);
        }
        self.agenda.put(at, Happening::Store(StoreRequest::Leases { from, request, in_vain: reply_lost }));
    }

    pub(super) fn reach_store(&mut self, request: StoreRequest) {
        match request {
            StoreRequest::Commit { from, batch, report } => self.apply(from, &batch, report),
            StoreRequest::Read { from, read, sagas } => {
                let fails = self.director.store_request_fails(&mut self.chance, self.calm);
                if fails {
                    self.faults.count(Fault::ReadFailed);
                }
                let stream = |saga: SagaId| (saga, (!fails).then(|| self.store.stream(saga).to_vec()));
                let streams = sagas.into_iter().map(stream).collect();
                let at = self.after(1, 5);
                self.agenda.put(at, Happening::Deliver { to: from, message: Message::Read { read, streams } });
            }
            StoreRequest::Leases { from, request, in_vain } => {
                let report = self.store.keep_leases(from, &request, self.now, LEASE);
                self.tell([21, from.replica as u64, report.taken.len() as u64], || {
                    let renewed = report.renewed.len();
                    format!("{from} renews {renewed}, releases {}, takes {:?}", request.release.len(), report.taken)
                });
                let at = if in_vain { self.after(100, 900) } else { self.after(1, 5) };
                let message = Message::Leases((!in_vain).then_some(report));
                self.agenda.put(at, Happening::Deliver { to: from, message });
            }
            StoreRequest::Unfinished { from, taken } => {
                let rows = self.store.unfinished(taken.shard);
                let found = Some(rows.map(|row| (row.id, row.wake_at)).collect());
                let at = self.after(1, 5);
                self.agenda.put(at, Happening::Deliver { to: from, message: Message::Unfinished { taken, found } });
            }
        }
    }

    fn apply(&mut self, from: Process, batch: &Batch, report: Report) {
        let result = self.store.commit(batch);
        let code = result.as_ref().map_or(2, |()| 1);
        self.tell([22, word(batch.transitions[0].row.id), code], || {
            format!(
                "the database answers a commit of {from} with {result:?} (report: {report:?})\n{}",
                described(batch)
            )
        });
        match &result {
            Ok(()) => {
                self.commits.applied += 1;
                self.witness(batch);
            }
            Err(CommitError::Fenced(_)) => {
                self.commits.fenced += 1;
                self.faults.count(Fault::CommitFenced);
            }
            Err(_) => self.commits.refused += 1,
        }
        let at = self.after(1, 5);
        let result = match report {
            Report::AsItWas => result,
            Report::InDoubt => {
                self.commits.in_doubt += 1;
                Err(CommitError::InDoubt("the connection was lost".to_owned()))
            }
            Report::Nothing => return,
            Report::Crash => return self.crash_process(from, "after its commit"),
        };
        self.agenda.put(at, Happening::Deliver { to: from, message: Message::CommitEnded(result) });
    }

    fn witness(&mut self, batch: &Batch) {
        for transition in &batch.transitions {
            let epoch = self.store.shard(transition.shard).epoch;
            let stream = self.store.stream(transition.row.id);
            let new = &stream[stream.len() - transition.events.len()..];
            self.watch.quiet_since = self.quiet_since();
            self.watch.committed(new, &transition.row, epoch);
            for fault in transition.events.iter().filter_map(|event| consequence(&transition.row, &event.event)) {
                self.faults.count(fault);
            }
            if transition.row.mode == Mode::Choreographed && self.watch.violation.is_none() {
                let first = transition.row.version + 1 - transition.events.len() as u64;
                self.publish(transition.row.id, first..=transition.row.version);
            }
        }
    }

    /// Since when each participant has been there and nothing has failed; None while things do.
    fn quiet_since(&self) -> Option<Vec<Timestamp>> {
        let healed_at = self.healed_at.plus(RECOVERY);
        self.calm.then(|| self.reactors.iter().map(|reactor| reactor.troubled_at.max(healed_at)).collect())
    }
}

/// Which of the things that follow from faults this event tells of.
fn consequence(row: &SagaRow, event: &Event) -> Option<Fault> {
    let choreographed = row.mode == Mode::Choreographed;
    match event {
        Event::StepParked(parked) if parked.code == "process_died" => Some(Fault::Suspected),
        Event::StepParked(parked) if parked.code == "participant_silent" => Some(Fault::FoundSilent),
        Event::SagaTimedOut(_) => Some(Fault::TimedOut),
        Event::StepRejected(rejected) if choreographed && rejected.code == "cancelled" => Some(Fault::Cancelled),
        // No report both succeeds and fails the saga.
        Event::StepSucceeded(_) if choreographed && row.failure.is_some() => Some(Fault::LateSuccess),
        _ => None,
    }
}

impl Message {
    /// What a process that lost its connection gets instead of an answer; None if the answer is not the database's.
    pub fn failed(&self) -> Option<Self> {
        match self {
            Self::CommitEnded(_) => {
                Some(Self::CommitEnded(Err(CommitError::InDoubt("the connection was lost".to_owned()))))
            }
            Self::Read { read, streams } => {
                Some(Self::Read { read: *read, streams: streams.iter().map(|(saga, _)| (*saga, None)).collect() })
            }
            Self::Leases(_) => Some(Self::Leases(None)),
            Self::Unfinished { taken, .. } => Some(Self::Unfinished { taken: *taken, found: None }),
            Self::CallEnded { .. } | Self::Asked { .. } => None,
        }
    }
}

fn described(batch: &Batch) -> String {
    let lines = batch.transitions.iter().map(|transition| {
        let kinds: Vec<String> = transition.events.iter().map(|event| described_event(&event.event)).collect();
        let first = transition.events.first().map_or(0, |event| event.version);
        format!("            {} from {first}: {}", short(transition.row.id), kinds.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn described_event(event: &Event) -> String {
    let step = serde_json::from_str::<serde_json::Value>(&event.data()).ok().and_then(|data| {
        let operation = data.get("operation").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        data.get("step").and_then(serde_json::Value::as_str).map(|step| format!(" {step} {operation}"))
    });
    format!("{}{}", event.kind(), step.unwrap_or_default().trim_end())
}
