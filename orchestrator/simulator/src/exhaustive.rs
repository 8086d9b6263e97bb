//! Every single fault at every point of small sagas.
//!
//! For each definition (chain, fork, join, diamond; without a pivot and with one wherever it may be) and each path (all
//! goes well; each step in turn is refused, so that what came before is undone), one undisturbed run counts the points:
//! the calls, actions and compensations alike, and the commits. Then each fault is put at each point, one to a run. All of
//! it in both modes; choreographed, the points are events on their way, duties, reports and commits.
//!
//! | point | faults |
//! | --- | --- |
//! | call | request lost, reply lost, duplicated, delayed, late, refused connection, 503, 409, 202, garbled |
//! | call | the process dies before it, with it on its way, after its effect; the request on its way arrives once, never, twice, late |
//! | commit | not applied, in doubt and applied, in doubt and lost, in doubt and late, delivered twice, slow |
//! | commit | the process dies before it arrives, after it was applied |
//! | event | late, delivered twice, delivered only when it is redelivered |
//! | duty | slow, fails, refused, garbled; the participant dies before its transaction, after it |
//! | report | lost, posted twice, late, taken and its reply lost; the participant dies with it on its way |

use std::{
    fmt,
    str::FromStr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use skald_core::{
    definition::{Step, StepKind},
    event::Mode,
};

use crate::{
    campaign::guarded,
    catalog::{Enumerated, enumerated},
    faults::{Fault, Modes, Point, Script, Trouble},
    judgement::Violation,
    world::{Outcome, Plan},
};

/// One history of the enumeration. Written as `DEFINITION/REFUSED STEP/POINT/FAULTS`, with `-` for what there is none of:
/// `chain-3-pivot-1/s2/4/late+crash-during-call`. A choreographed one begins with `~`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub mode: Mode,
    pub definition: String,
    pub refuse: Option<String>,
    /// The point and what happens there.
    pub fault: Option<(usize, Trouble)>,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub definitions: u64,
    pub paths: u64,
    pub points: u64,
    pub histories: u64,
    pub happenings: u64,
    pub failures: Vec<(Case, Violation)>,
    pub took: Duration,
}

/// Runs every history of definitions with up to `steps` steps.
#[must_use]
pub fn run(steps: usize, modes: Modes, threads: usize) -> Counts {
    let definitions: Vec<Enumerated> = (1..=steps).flat_map(enumerated).collect();
    let mut paths: Vec<(&Enumerated, Case)> = Vec::new();
    for mode in modes.each() {
        for one in &definitions {
            // Choreographed, a refusal after the pivot is no outcome: the seeds have it.
            let can_be_refused = |step: &&Step| mode == Mode::Orchestrated || step.kind != StepKind::Retriable;
            let refused = one.definition.steps.iter().filter(can_be_refused).map(|step| Some(step.id.clone()));
            let path = |refuse| (one, Case { mode, definition: one.name.clone(), refuse, fault: None });
            paths.extend(core::iter::once(None).chain(refused).map(path));
        }
    }
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Counts { definitions: definitions.len() as u64, ..Counts::default() });
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((one, undisturbed)) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let path = run_path(one, undisturbed);
                    counts.lock().expect("nothing panics while it holds this lock").add(path);
                }
            });
        }
    });
    let mut counts = counts.into_inner().expect("nothing panics while it holds this lock");
    counts.took = begun.elapsed();
    counts
}

fn run_path(one: &Enumerated, undisturbed: &Case) -> Counts {
    let mut counts = Counts { paths: 1, ..Counts::default() };
    let points = counts.run_case(one, undisturbed);
    counts.points = points.len() as u64;
    for (number, point) in points.into_iter().enumerate() {
        for trouble in troubles(point) {
            let case = Case { fault: Some((number, trouble)), ..undisturbed.clone() };
            counts.run_case(one, &case);
        }
    }
    counts
}

fn troubles(point: Point) -> Vec<Trouble> {
    let each = |faults: &[Fault]| faults.iter().copied().map(Trouble::of).collect();
    match point {
        Point::Commit => each(Fault::OF_COMMITS),
        Point::Event => each(Fault::OF_EVENTS),
        Point::Duty => each(Fault::OF_DUTIES),
        Point::Post => each(Fault::OF_POSTS),
        Point::Call => {
            let on_the_way = [None, Some(Fault::RequestLost), Some(Fault::Duplicated), Some(Fault::Late)];
            let crashes = [Fault::CrashDuringCall, Fault::CrashAfterEffect];
            let both = crashes.into_iter().flat_map(|crash| {
                on_the_way.into_iter().map(move |on_the_way| Trouble { on_the_way, crash: Some(crash) })
            });
            let single = Fault::OF_CALLS
                .iter()
                .copied()
                .map(Trouble::of)
                .filter(|trouble| !crashes.map(Trouble::of).contains(trouble));
            single.chain(both).collect()
        }
    }
}

impl Counts {
    fn run_case(&mut self, one: &Enumerated, case: &Case) -> Vec<Point> {
        let outcome = guarded(case.plan(one, false));
        self.histories += 1;
        self.happenings += outcome.happenings;
        self.failures.extend(outcome.violation.map(|violation| (case.clone(), violation)));
        outcome.points
    }

    fn add(&mut self, other: Self) {
        self.paths += other.paths;
        self.points += other.points;
        self.histories += other.histories;
        self.happenings += other.happenings;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mode == Mode::Choreographed {
            f.write_str("~")?;
        }
        write!(f, "{}/{}", self.definition, self.refuse.as_deref().unwrap_or("-"))?;
        let Some((point, Trouble { on_the_way, crash })) = self.fault else { return f.write_str("/-/-") };
        let faults: Vec<String> = [on_the_way, crash].into_iter().flatten().map(Fault::slug).collect();
        write!(f, "/{point}/{}", faults.join("+"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mode, text) = match text.strip_prefix('~') {
            Some(rest) => (Mode::Choreographed, rest),
            None => (Mode::Orchestrated, text),
        };
        let parts: Vec<&str> = text.split('/').collect();
        let [definition, refuse, point, faults] = parts[..] else {
            return Err("not of the form DEFINITION/REFUSED STEP/POINT/FAULTS".to_owned());
        };
        let mut fault = None;
        if point != "-" {
            let point = point.parse().map_err(|_| format!("`{point}` is not the number of a point"))?;
            let mut trouble = Trouble::default();
            for slug in faults.split('+') {
                let one = Trouble::of(Fault::by_slug(slug).ok_or_else(|| format!("there is no fault `{slug}`"))?);
                trouble =
                    Trouble { on_the_way: trouble.on_the_way.or(one.on_the_way), crash: trouble.crash.or(one.crash) };
            }
            fault = Some((point, trouble));
        }
        let refuse = (refuse != "-").then(|| refuse.to_owned());
        Ok(Self { mode, definition: definition.to_owned(), refuse, fault })
    }
}

impl Case {
    /// Runs this history alone; None if there is no such definition.
    #[must_use]
    pub fn run(&self, readable: bool) -> Option<Outcome> {
        let one = (1..=5).flat_map(enumerated).find(|one| one.name == self.definition)?;
        Some(guarded(self.plan(&one, readable)))
    }

    #[must_use]
    pub fn plan(&self, one: &Enumerated, readable: bool) -> Plan {
        let script = Script { refuse: self.refuse.clone(), fault: self.fault, points: Vec::new() };
        let modes = match self.mode {
            Mode::Orchestrated => Modes::Orchestrated,
            Mode::Choreographed => Modes::Choreographed,
        };
        Plan::of_script(&one.definition, modes, script, readable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_fault_up_to_two_steps_keeps_the_invariants() {
        let counts = run(2, Modes::Both, 2);
        assert!(counts.failures.is_empty(), "{}: {}", counts.failures[0].0, counts.failures[0].1);
        assert_eq!((counts.definitions, counts.paths), (5, 25));
        assert!(counts.histories > 5 * counts.points, "{counts:?}");
    }

    #[test]
    fn a_case_is_known_by_its_name() {
        for name in [
            "chain-2/-/-/-",
            "~chain-2/s1/9/dies-after",
            "diamond-4-pivot-3/s1/12/late+crash-during-call",
            "join-3/-/0/commit-slow",
        ] {
            let case: Case = name.parse().unwrap();
            assert_eq!(case.to_string(), name);
            assert!(case.run(true).unwrap().lines.len() > 10);
        }
        for name in ["", "chain-2/-/x/late", "chain-2/-/1/nothing"] {
            assert!(name.parse::<Case>().is_err(), "{name}");
        }
    }
}
