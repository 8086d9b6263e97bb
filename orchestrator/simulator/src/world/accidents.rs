//! What happens to whole processes: they die, are stopped and go on, are cut off from the database, are told to stop.
//!
//! A process that dies loses its memory. What it sent stays on its way; what is answered to it finds nobody.

use super::{Happening, World, replica::Replica};
use crate::{faults::Fault, store::Process};

impl World {
    /// Something befalls a replica that runs.
    pub(super) fn accident(&mut self, fault: Fault) {
        let up: Vec<usize> = (0..self.replicas.len()).filter(|index| self.replicas[*index].is_up()).collect();
        if up.is_empty() {
            return;
        }
        let index = self.chance.pick(&up);
        let process = self.replicas[index].process;
        self.faults.count(fault);
        self.tell([50, index as u64, fault as u64], || format!("{process}: {}", fault.name()));
        match fault {
            Fault::Pause => {
                let until = self.after(200, 9000);
                self.replicas[index].stopped_until = Some(until);
                self.agenda.put(until, Happening::GoOn { process });
            }
            Fault::Partition => self.replicas[index].cut_off_until = Some(self.after(300, 9000)),
            Fault::Terminate => self.terminate(index),
            _ => self.crash(index, "at any time"),
        }
    }

    pub(super) fn crash_process(&mut self, process: Process, when: &str) {
        let replica = &self.replicas[process.replica];
        if replica.process == process && replica.runs {
            self.crash(process.replica, when);
        }
    }

    pub(super) fn crash(&mut self, index: usize, when: &str) {
        let process = self.replicas[index].process;
        self.tell([51, index as u64, process.run], || format!("{process} dies {when}"));
        self.end_process(index);
    }

    /// Nothing of the process remains; another will be started in its place.
    pub(super) fn end_process(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        replica.runs = false;
        replica.stopped_until = None;
        replica.held_back.clear();
        let at = self.after(50, 6000);
        self.agenda.put(at, Happening::Boot { replica: index });
    }

    pub(super) fn boot(&mut self, index: usize) {
        if self.replicas[index].runs {
            return;
        }
        let before = self.replicas[index].process;
        let process = Process { run: before.run + 1, ..before };
        self.tell([52, index as u64, process.run], || format!("{process} starts"));
        self.replicas[index] = Replica::new(process, self.limits, &mut self.chance, self.skew_ms_max, self.now);
        self.begin_process(index);
    }

    /// A stopped process goes on where it was and finds everything that came meanwhile.
    pub(super) fn go_on(&mut self, process: Process) {
        let replica = &mut self.replicas[process.replica];
        if replica.process != process || !replica.runs || replica.stopped_until.take().is_none() {
            return;
        }
        let waiting = core::mem::take(&mut replica.held_back);
        self.tell([53, process.replica as u64, process.run], || {
            format!("{process} goes on, {} messages waited", waiting.len())
        });
        for message in waiting {
            self.deliver(process, message);
        }
        self.look_around(process.replica);
    }

    /// From now on nothing fails any more.
    pub(super) fn heal(&mut self) {
        self.calm = true;
        self.tell([54, 0, 0], || "the faults stop".to_owned());
        for index in 0..self.replicas.len() {
            self.replicas[index].cut_off_until = None;
            let process = self.replicas[index].process;
            self.go_on(process);
        }
        self.heal_participants();
        self.agenda.put(self.now.plus(super::LOOK_EVERY), Happening::Look);
    }
}
