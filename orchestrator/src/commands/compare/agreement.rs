//! Whether both modes end the same orders in the same final state (invariant 13).
//!
//! An order's business outcome is planted: its payment is accepted or declined. A saga that ended by that outcome is held
//! against what the order must come to, and against its twin in the other mode. One that ended for want of time or of an
//! answer (its failure's code is one of the engine's own) had another outcome, by a fault and not by a mode: it is counted
//! and not compared.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use skald_core::event::Mode;

use super::{
    leg::{End, Ended, Sample},
    workload::Outcome,
};
use crate::metrics::is_engine_code;

/// What the demo sales says to a declined payment.
const DECLINED: &str = "payment_declined";
/// So many are told; all are counted.
const TOLD_MAX: usize = 20;

/// What the comparison of final states came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Orders that ended by their business outcome in every mode that was measured.
    pub compared: u64,
    /// Of those, the ones that ended the same, and as they must.
    pub same: u64,
    /// Orders that a fault or a time limit decided in some mode.
    pub decided_by_faults: u64,
    /// Orders that had not ended in some mode: parked, too slow, or never heard of.
    pub not_ended: u64,
    /// Orders that only some modes got to, when a run is limited by time.
    pub unpaired: u64,
    pub difference_count: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// An order that did not end as it must.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub order: u64,
    pub expected: String,
    /// By mode.
    pub found: BTreeMap<&'static str, Final>,
}

/// How a saga ended, without what is its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Final {
    pub saga: String,
    pub status: String,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

impl Agreement {
    pub const fn holds(&self) -> bool {
        self.difference_count == 0
    }
}

/// Compares what the modes made of the same orders.
pub fn compare<'a>(modes: &[(Mode, Vec<&'a Sample>)]) -> Agreement {
    let mut orders: BTreeMap<u64, Vec<(Mode, &'a Sample)>> = BTreeMap::new();
    for (mode, samples) in modes {
        for sample in samples {
            orders.entry(sample.order).or_default().push((*mode, *sample));
        }
    }
    let mut agreement = Agreement::default();
    for (order, runs) in orders {
        if runs.len() < modes.len() {
            agreement.unpaired += 1;
        } else {
            agreement.judge(order, &runs);
        }
    }
    agreement
}

impl Agreement {
    fn judge(&mut self, order: u64, runs: &[(Mode, &Sample)]) {
        let mut found = BTreeMap::new();
        for (mode, sample) in runs {
            match &sample.end {
                End::Parked | End::Unfinished | End::Unanswered(_) => return self.not_ended += 1,
                End::Ended(ended) if decided_by_fault(ended) => return self.decided_by_faults += 1,
                End::Ended(ended) => found.insert(mode.as_str(), Final::of(ended)),
            };
        }
        self.compared += 1;
        let planted = runs[0].1.planted;
        let mut finals = found.values();
        let first = finals.next().expect("an order was run in some mode");
        if is_as_planted(planted, first) && finals.all(|other| other.is_like(first)) {
            self.same += 1;
            return;
        }
        self.difference_count += 1;
        if self.differences.len() < TOLD_MAX {
            let expected = match planted {
                Outcome::Accepted => "completed".to_owned(),
                Outcome::Declined => format!("compensated for {DECLINED}"),
            };
            self.differences.push(Difference { order, expected, found });
        }
    }
}

fn decided_by_fault(ended: &Ended) -> bool {
    ended.failure.as_ref().is_some_and(|(_, code)| is_engine_code(code))
}

fn is_as_planted(planted: Outcome, found: &Final) -> bool {
    match planted {
        Outcome::Accepted => found.status == "completed",
        Outcome::Declined => found.status == "compensated" && found.failure_code.as_deref() == Some(DECLINED),
    }
}

impl Final {
    fn of(ended: &Ended) -> Self {
        let (failed_step, failure_code) = match &ended.failure {
            Some((step, code)) => (step.clone(), Some(code.clone())),
            None => (None, None),
        };
        let output = ended.output.clone();
        let (status, state) = (ended.status.clone(), ended.state.clone());
        Self { saga: ended.id.clone(), status, state, failed_step, failure_code, output }
    }

    /// The same but for the saga's id, which also appears in outputs.
    fn is_like(&self, other: &Self) -> bool {
        let anonymous = |it: &Self| Self {
            saga: String::new(),
            output: it.output.as_ref().map(|output| Value::from(output.to_string().replace(&it.saga, ""))),
            ..it.clone()
        };
        anonymous(self) == anonymous(other)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn ended(id: &str, status: &str, code: Option<&str>) -> Ended {
        Ended {
            id: id.to_owned(),
            status: status.to_owned(),
            state: status.to_uppercase(),
            failure: code.map(|code| (Some("pay".to_owned()), code.to_owned())),
            output: (status == "completed").then(|| json!({"order_id": id, "total": 100})),
            by_server: Duration::ZERO,
            undoing: None,
            events: 12,
            attempts: 5,
        }
    }

    fn sample(order: u64, planted: Outcome, end: End) -> Sample {
        Sample { order, planted, end, took: Duration::ZERO }
    }

    fn accepted(order: u64, ended: Ended) -> Sample {
        sample(order, Outcome::Accepted, End::Ended(Box::new(ended)))
    }

    fn declined(order: u64, ended: Ended) -> Sample {
        sample(order, Outcome::Declined, End::Ended(Box::new(ended)))
    }

    fn both(orchestrated: &[Sample], choreographed: &[Sample]) -> Agreement {
        let [one, two] = [orchestrated, choreographed].map(|samples| samples.iter().collect());
        compare(&[(Mode::Orchestrated, one), (Mode::Choreographed, two)])
    }

    #[test]
    fn the_same_orders_that_end_the_same_agree_13() {
        let one = [
            accepted(1, ended("id-a", "completed", None)),
            declined(2, ended("id-b", "compensated", Some(DECLINED))),
            accepted(3, ended("id-c", "completed", None)),
        ];
        let two =
            [accepted(1, ended("id-x", "completed", None)), declined(2, ended("id-y", "compensated", Some(DECLINED)))];
        let agreement = both(&one, &two);
        assert!(agreement.holds());
        assert_eq!((agreement.compared, agreement.same, agreement.unpaired), (2, 2, 1));
    }

    #[test]
    fn every_difference_of_the_final_state_is_told_13() {
        let completed = || ended("id-a", "completed", None);
        let changed: [(&str, Ended); 4] = [
            ("status", Ended { status: "abandoned".to_owned(), ..completed() }),
            ("state", Ended { state: "OTHER".to_owned(), ..completed() }),
            ("output", Ended { output: Some(json!({"order_id": "id-a", "total": 99})), ..completed() }),
            ("failure", ended("id-a", "compensated", Some("out_of_stock"))),
        ];
        for (what, other) in changed {
            let agreement = both(&[accepted(1, completed())], &[accepted(1, other.clone())]);
            assert_eq!((agreement.difference_count, agreement.same), (1, 0), "{what}");
            let told = &agreement.differences[0];
            assert_eq!((told.order, told.found["choreographed"].status.as_str()), (1, other.status.as_str()));
        }
        let step = Ended { failure: Some((None, DECLINED.to_owned())), ..ended("id-a", "compensated", Some(DECLINED)) };
        let agreement = both(&[declined(1, ended("id-b", "compensated", Some(DECLINED)))], &[declined(1, step)]);
        assert!(!agreement.holds(), "another step failed");
    }

    #[test]
    fn agreeing_on_the_wrong_end_is_no_agreement_13() {
        let refused = || accepted(1, ended("id-a", "compensated", Some("out_of_stock")));
        assert_eq!(both(&[refused()], &[refused()]).difference_count, 1);
        let paid = || declined(1, ended("id-a", "completed", None));
        assert_eq!(compare(&[(Mode::Orchestrated, vec![&paid()])]).difference_count, 1, "also with one mode alone");
    }

    #[test]
    fn what_a_fault_decided_or_has_not_ended_is_counted_and_not_compared() {
        let completed = || accepted(1, ended("id-a", "completed", None));
        let agreement = both(&[completed()], &[accepted(1, ended("id-b", "compensated", Some("deadline_exceeded")))]);
        assert_eq!((agreement.decided_by_faults, agreement.compared, agreement.holds()), (1, 0, true));
        for end in [End::Parked, End::Unfinished, End::Unanswered("reset".to_owned())] {
            let agreement = both(&[completed()], &[sample(1, Outcome::Accepted, end)]);
            assert_eq!((agreement.not_ended, agreement.compared, agreement.holds()), (1, 0, true));
        }
    }

    #[test]
    fn differences_are_all_counted_and_some_told() {
        let wrong: Vec<Sample> = (0..50).map(|order| declined(order, ended("id-a", "completed", None))).collect();
        let agreement = compare(&[(Mode::Orchestrated, wrong.iter().collect())]);
        assert_eq!((agreement.difference_count, agreement.differences.len()), (50, TOLD_MAX));
    }
}
