//! Choreographed sagas between the log and their participants: events go out, duties are carried out, reports come back.
//!
//! The bus delivers at least once and in no order: an event comes again until the participant owes the saga nothing any
//! more that it could do. A participant's process loses what it knew and what its workers were at; its books and its
//! outbox stay.

use std::{ops::RangeInclusive, sync::Arc};

use skald_core::{
    choreography::{Duty, Followed, report_of},
    decide::{IllegalInput, Input, Report, Reported, ReportedOutcome},
    ids::{Operation, SagaId, call_key},
    shard::writer::Refusal,
    state::{SagaRow, Status},
    time::Timestamp,
};

use super::{Happening, World, clients::Purpose, replica::Ask};
use crate::{
    catalog::SERVICES,
    faults::{Fault, Trouble},
    judgement::Rule,
    participants::{Carried, Treatment},
    reactors::{Entry, Told, task},
    trace::{short, word, word_of},
};

/// A duty in the hands of one of a participant's workers.
#[derive(Debug)]
pub struct AtWork {
    reactor: usize,
    run: u64,
    saga: SagaId,
    duty: Duty,
    trouble: Trouble,
}

/// What happens between the log and the participants.
#[derive(Debug)]
pub enum Step {
    Told(Told),
    /// A participant reads a stream.
    Fetch {
        reactor: usize,
        run: u64,
        saga: SagaId,
    },
    Duty(Box<AtWork>),
    Post {
        reactor: usize,
        run: u64,
        entry: u64,
    },
    /// Something befalls a participant's process.
    Accident(Fault),
    Boot {
        reactor: usize,
    },
}

impl World {
    pub(super) fn choreograph(&mut self, step: Step) {
        match step {
            Step::Told(told) => self.told(told),
            Step::Fetch { reactor, run, saga } => self.fetch(reactor, run, saga),
            Step::Duty(work) => self.carry_out_duty(*work),
            Step::Post { reactor, run, entry } => self.post(reactor, run, entry),
            Step::Accident(fault) => self.participant_accident(fault),
            Step::Boot { reactor } => self.boot_participant(reactor),
        }
    }

    fn put(&mut self, at: Timestamp, step: Step) {
        self.agenda.put(at, Happening::Choreography(step));
    }

    /// New events of a choreographed saga go to each of its participants.
    pub(super) fn publish(&mut self, saga: SagaId, versions: RangeInclusive<u64>) {
        let steps = &self.watch.sagas[&saga].definition.steps;
        let takes_part = |reactor: &usize| steps.iter().any(|step| step.call.service == SERVICES[*reactor]);
        let reactors: Vec<usize> = (0..SERVICES.len()).filter(takes_part).collect();
        for version in versions {
            for reactor in reactors.clone() {
                let trouble = self.director.event(&mut self.chance, self.calm);
                if let Some(fault) = trouble.on_the_way {
                    self.faults.count(fault);
                    self.reactors[reactor].troubled_at = self.now;
                }
                let told = Told { reactor, saga, version };
                let at = match trouble.on_the_way {
                    Some(Fault::EventLate) => self.after(30, 1200),
                    Some(Fault::EventLost) => self.after(800, 4000),
                    _ => self.after(1, 15),
                };
                self.on_the_way += 1;
                self.put(at, Step::Told(told));
                if trouble.is(Fault::EventRepeated) {
                    let again = self.after(1, 3000);
                    self.on_the_way += 1;
                    self.put(again, Step::Told(told));
                }
            }
        }
    }

    fn told(&mut self, told: Told) {
        let Told { reactor: index, saga, version } = told;
        if !self.reactors[index].runs {
            return self.tell_again(told);
        }
        let definition = Arc::clone(&self.watch.sagas[&saga].definition);
        let position = usize::try_from(version - 1).expect("a stream is short");
        let followed = self.reactors[index].follow(&definition, &self.store.stream(saga)[position]);
        self.tell([60, word(saga), version], || {
            format!("{} is told of {} version {version}: {followed:?}", SERVICES[index], short(saga))
        });
        let followed = match followed {
            Ok(followed) => followed,
            Err(error) => return self.watch.require(false, Rule::Invariant(8), || error),
        };
        if matches!(followed, Followed::Gap { .. }) {
            self.faults.count(Fault::EventGap);
            let (at, run) = (self.after(1, 8), self.reactors[index].run);
            self.put(at, Step::Fetch { reactor: index, run, saga });
            return self.tell_again(told);
        }
        self.pursue(index, saga);
        if self.owes(index, saga) {
            self.tell_again(told);
        } else {
            self.on_the_way -= 1;
        }
    }

    /// The bus does not lose sight of what is not dealt with, but for a saga that everybody has given up.
    fn tell_again(&mut self, told: Told) {
        let parked = self.watch.sagas[&told.saga].state.status == Status::Parked;
        if self.calm && parked && self.is_left_parked(told.saga) {
            self.on_the_way -= 1;
            return;
        }
        let at = self.after(300, 1500);
        self.put(at, Step::Told(told));
    }

    /// Reads the stream on from where it is known.
    fn fetch(&mut self, index: usize, run: u64, saga: SagaId) {
        if self.reactors[index].run != run || !self.reactors[index].runs {
            return;
        }
        if self.director.store_request_fails(&mut self.chance, self.calm) {
            self.reactors[index].troubled_at = self.now;
            return self.faults.count(Fault::ReadFailed);
        }
        let definition = Arc::clone(&self.watch.sagas[&saga].definition);
        let known = usize::try_from(self.reactors[index].version(saga)).expect("a stream is short");
        for recorded in self.store.stream(saga).iter().skip(known) {
            let followed = self.reactors[index].follow(&definition, recorded);
            self.watch.require(followed == Ok(Followed::Applied), Rule::Invariant(8), || format!("{followed:?}"));
        }
        let version = self.reactors[index].version(saga);
        self.tell([61, word(saga), version], || {
            format!("{} has read {} up to version {version}", SERVICES[index], short(saga))
        });
        self.pursue(index, saga);
    }

    /// Whether a duty stands that is neither carried out nor given up.
    fn owes(&self, index: usize, saga: SagaId) -> bool {
        let reactor = &self.reactors[index];
        reactor.duties(saga).iter().any(|duty| !self.participants.is_told(saga, duty))
    }

    /// Sets workers to what is owed; reports once more what the stream asks for after it took the report.
    fn pursue(&mut self, index: usize, saga: SagaId) {
        let run = self.reactors[index].run;
        for duty in self.reactors[index].duties(saga) {
            if self.participants.is_told(saga, &duty) {
                let version = self.reactors[index].version(saga);
                if let Some(outcome) = self.participants.told_and_asked_again(saga, &duty, version) {
                    self.keep(index, saga, &duty, outcome);
                }
                continue;
            }
            if !self.reactors[index].at_work.insert(task(saga, &duty)) {
                continue;
            }
            let trouble = self.director.duty(&duty, &mut self.chance, self.calm);
            for fault in [trouble.on_the_way, trouble.crash].into_iter().flatten() {
                self.faults.count(fault);
            }
            let at = match trouble.on_the_way {
                Some(Fault::HandlerSlow) => self.after(500, 6000),
                _ => self.after(1, 20),
            };
            self.on_the_way += 1;
            self.put(at, Step::Duty(Box::new(AtWork { reactor: index, run, saga, duty, trouble })));
        }
    }

    /// Effect, answer and report in one transaction.
    fn carry_out_duty(&mut self, work: AtWork) {
        self.on_the_way -= 1;
        let AtWork { reactor: index, run, saga, duty, trouble } = work;
        if self.reactors[index].run != run || !self.reactors[index].runs {
            return;
        }
        self.reactors[index].at_work.remove(&task(saga, &duty));
        if trouble.is(Fault::DiesBefore) {
            return self.participant_dies(index, "before its transaction");
        }
        let Some(follower) = self.reactors[index].follower(saga) else { return };
        let (definition, state) = (follower.definition(), follower.state());
        let step = definition.step(duty.step()).map(|(_, step)| step);
        let has_effect = step.is_some_and(|step| step.has_effect);
        let treatment = Treatment { fault: trouble.on_the_way, has_effect };
        let carried = self.participants.carry_out(saga, &duty, treatment, |status, body| {
            report_of(definition, state?, duty.step(), Operation::Action, status, body)
        });
        self.tell([62, word(saga) ^ word_of(duty.step()), duty.operation() as u64], || {
            format!("{} carries out {duty:?} of {}: {carried:?}", SERVICES[index], short(saga))
        });
        self.read_books();
        match carried {
            Carried::Told(outcome) => {
                if matches!(&outcome, ReportedOutcome::Rejected { code, .. } if code == "out_of_stock") {
                    self.faults.count(Fault::OutOfStock);
                }
                let entry = self.keep(index, saga, &duty, outcome);
                if trouble.is(Fault::DiesAfter) {
                    self.participant_dies(index, &format!("after its transaction, before it posted {entry}"));
                }
            }
            Carried::Known => {}
            Carried::Failed => self.reactors[index].troubled_at = self.now,
        }
    }

    /// Puts a report into the outbox, from where it is posted.
    fn keep(&mut self, index: usize, saga: SagaId, duty: &Duty, outcome: ReportedOutcome) -> u64 {
        let report = Report {
            event_id: Arc::from(call_key(saga, duty.step(), duty.operation())),
            causation_id: None,
            step: duty.step().to_owned(),
            operation: duty.operation(),
            outcome,
            started_at: Some(self.now),
            duration: None,
        };
        let entry = self.reactors[index].keep(Entry { saga, report });
        self.on_the_way += 1;
        let (at, run) = (self.after(1, 10), self.reactors[index].run);
        self.put(at, Step::Post { reactor: index, run, entry });
        entry
    }

    fn post(&mut self, index: usize, run: u64, entry: u64) {
        let reactor = &self.reactors[index];
        if reactor.run != run || !reactor.runs || !reactor.outbox.contains_key(&entry) {
            return;
        }
        let trouble = self.director.post(&mut self.chance, self.calm);
        for fault in [trouble.on_the_way, trouble.crash].into_iter().flatten() {
            self.faults.count(fault);
            self.reactors[index].troubled_at = self.now;
        }
        let code = trouble.on_the_way.or(trouble.crash).map_or(0, |fault| fault as u64 + 1);
        self.tell([63, entry, code], || {
            let faults: Vec<&str> =
                [trouble.on_the_way, trouble.crash].into_iter().flatten().map(Fault::name).collect();
            format!("{} posts {entry} {faults:?}", SERVICES[index])
        });
        if trouble.is(Fault::PostLost) {
            return self.post_again(index, run, entry);
        }
        self.send_report(index, run, entry, trouble);
        if trouble.is(Fault::PostRepeated) {
            self.send_report(index, run, entry, Trouble::default());
        }
        if trouble.is(Fault::DiesPosting) {
            self.participant_dies(index, "with its report on its way");
        }
    }

    fn send_report(&mut self, index: usize, run: u64, entry: u64, trouble: Trouble) {
        let Entry { saga, report } = self.reactors[index].outbox[&entry].clone();
        let reported = Reported { reports: vec![report], expected: None };
        let ask = Ask::Input { saga, input: Box::new(Input::Reported(reported)) };
        let at = if trouble.is(Fault::PostLate) { self.after(1000, 7000) } else { self.after(1, 10) };
        self.ask_at(at, Purpose::Report { reactor: index, run, entry }, ask, trouble.is(Fault::PostReplyLost));
    }

    pub(super) fn post_again(&mut self, index: usize, run: u64, entry: u64) {
        let at = self.after(300, 1200);
        self.put(at, Step::Post { reactor: index, run, entry });
    }

    /// What a replica says to a report. Only the run that posted it hears it.
    pub(super) fn report_answered(&mut self, index: usize, run: u64, entry: u64, answer: Result<SagaRow, Refusal>) {
        let reactor = &mut self.reactors[index];
        if reactor.run != run || !reactor.runs {
            return;
        }
        let Some(Entry { saga, report }) = reactor.outbox.get(&entry).cloned() else { return };
        let taken = match answer {
            Ok(row) => Ok(row.version),
            Err(Refusal::Known { version }) => Ok(version),
            Err(refusal) => Err(refusal),
        };
        match taken {
            Ok(version) => {
                self.watch.report_acknowledged(saga, &report);
                self.participants.was_taken(saga, &report, version);
            }
            Err(Refusal::Illegal(IllegalInput::NotUnderWay { .. } | IllegalInput::Ended(_))) => {
                self.take_back(saga, &report);
            }
            Err(refusal @ (Refusal::Illegal(_) | Refusal::NoSuchSaga)) => {
                return self
                    .watch
                    .require(false, Rule::Contract, || format!("{} is refused for good: {refusal}", report.event_id));
            }
            Err(_) => return self.post_again(index, run, entry),
        }
        self.reactors[index].outbox.remove(&entry);
        self.on_the_way -= 1;
    }

    /// The stream has closed the step otherwise: what it does not know of must not stand.
    fn take_back(&mut self, saga: SagaId, report: &Report) {
        let said_effect = match report.outcome {
            ReportedOutcome::Succeeded { .. } | ReportedOutcome::OutputInvalid { .. } => true,
            ReportedOutcome::Rejected { .. }
            | ReportedOutcome::Cancelled
            | ReportedOutcome::Skipped
            | ReportedOutcome::Compensated => false,
        };
        let step = self.watch.sagas[&saga].definition.step(&report.step).map(|(_, step)| step);
        if said_effect && step.is_some_and(|step| step.compensation.is_some()) {
            self.faults.count(Fault::ReportRefused);
            self.tell([64, word(saga), word_of(&report.step)], || {
                format!("{} is refused: its owner undoes it", report.event_id)
            });
            self.participants.take_back_quietly(saga, &report.step);
            self.read_books();
        }
    }

    fn participant_accident(&mut self, fault: Fault) {
        let up: Vec<usize> = (0..self.reactors.len()).filter(|index| self.reactors[*index].runs).collect();
        if up.is_empty() || self.calm {
            return;
        }
        let index = self.chance.pick(&up);
        self.faults.count(fault);
        self.participant_dies(index, fault.name());
        if fault == Fault::Silent {
            self.reactors[index].gone_for_long = true;
        }
    }

    fn participant_dies(&mut self, index: usize, when: &str) {
        self.tell([65, index as u64, self.reactors[index].run], || format!("{} dies {when}", SERVICES[index]));
        let lost = self.reactors[index].die(self.now, self.mutant);
        self.on_the_way -= lost;
        let at = self.after(100, 2500);
        self.put(at, Step::Boot { reactor: index });
    }

    /// One that is gone for long stays away for longer, and for ever until the faults stop.
    fn boot_participant(&mut self, index: usize) {
        if self.reactors[index].runs {
            return;
        }
        if self.reactors[index].gone_for_long && !self.calm {
            let at = self.after(500, 4000);
            return self.put(at, Step::Boot { reactor: index });
        }
        self.tell([66, index as u64, self.reactors[index].run], || format!("{} starts", SERVICES[index]));
        let reactor = &mut self.reactors[index];
        reactor.runs = true;
        reactor.gone_for_long = false;
        reactor.troubled_at = self.now;
        let run = reactor.run;
        for entry in reactor.outbox.keys().copied().collect::<Vec<_>>() {
            let at = self.after(1, 50);
            self.put(at, Step::Post { reactor: index, run, entry });
        }
    }

    pub(super) fn heal_participants(&mut self) {
        for index in 0..self.reactors.len() {
            self.boot_participant(index);
        }
    }
}
