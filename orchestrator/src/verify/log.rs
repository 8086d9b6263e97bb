//! Invariants 7 and 9 along one shard's log: positions without a gap up to the head, epochs that never go back, streams
//! that lie where their ids say.

use super::report::{Findings, LogSummary, Violation};
use crate::storage::audit::{LogBounds, Place};

/// Takes the places of a shard's events in the order of the log.
#[derive(Debug)]
pub struct LogCheck {
    bounds: LogBounds,
    shards: u16,
    previous: Option<Place>,
    events: u64,
    /// A shard whose row was set back is one violation, not one for each event.
    epoch_too_high: bool,
}

impl LogCheck {
    pub const fn new(bounds: LogBounds, shards: u16) -> Self {
        Self { bounds, shards, previous: None, events: 0, epoch_too_high: false }
    }

    pub fn next(&mut self, place: Place, findings: &mut Findings) {
        self.events += 1;
        let shard = i32::from(self.bounds.shard.0);
        let violation = |invariant: u8, expected: String, found: String| {
            Violation::new(invariant, expected, found).of(place.stream).at(shard, place.position)
        };
        // What retention removed at the beginning of the log is gone with its sagas.
        let expected = self.previous.map_or(place.position.max(1), |previous| previous.position.saturating_add(1));
        if place.position != expected {
            let found = format!("position {} (version {})", place.position, place.version);
            findings.add(violation(7, format!("position {expected} next"), found));
        }
        if place.shard != shard || place.stream.shard(self.shards) != self.bounds.shard {
            let expected = format!("shard {} by the saga's id", place.stream.shard(self.shards));
            findings.add(violation(7, expected, format!("shard {}", place.shard)));
        }
        if let Some(previous) = self.previous.filter(|previous| previous.epoch > place.epoch) {
            findings.add(violation(9, format!("epoch {} or a later one", previous.epoch), place.epoch.to_string()));
        }
        if place.epoch > self.bounds.epoch.0 && !self.epoch_too_high {
            self.epoch_too_high = true;
            let expected = format!("at most epoch {}, which the shard's row has", self.bounds.epoch);
            findings.add(violation(9, expected, format!("epoch {}", place.epoch)));
        }
        self.previous = Some(place);
    }

    pub fn end(self, findings: &mut Findings) -> LogSummary {
        let LogBounds { shard, head, found, .. } = self.bounds;
        let last = found.map_or(0, |(_, last)| last);
        if last != head {
            let expected = format!("the last event at the head, position {head}");
            let found = if last == 0 { "no event".to_owned() } else { format!("it at position {last}") };
            findings.add(Violation::new(7, expected, found).at(i32::from(shard.0), last));
        }
        LogSummary { shard: shard.0, first: found.map(|(first, _)| first), head, events: self.events }
    }
}

#[cfg(test)]
mod tests {
    use skald_core::{
        ids::{Epoch, SagaId, Shard},
        time::Timestamp,
    };

    use super::*;

    fn place(position: i64, epoch: i64) -> Place {
        let stream = SagaId::new(Timestamp::from_micros(1), [position as u8; 10], Shard(1), 2);
        Place { shard: 1, position, stream, version: 1, epoch }
    }

    fn judged(head: i64, found: (i64, i64), places: &[Place]) -> Vec<String> {
        let mut findings = Findings::new(100);
        let mut check = LogCheck::new(LogBounds { shard: Shard(1), epoch: Epoch(3), head, found: Some(found) }, 2);
        for place in places {
            check.next(*place, &mut findings);
        }
        assert_eq!(check.end(&mut findings).events, places.len() as u64);
        findings.told().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_log_is_fine_also_where_its_beginning_is_gone() {
        assert!(judged(3, (1, 3), &[place(1, 1), place(2, 1), place(3, 3)]).is_empty());
        assert!(judged(9, (8, 9), &[place(8, 2), place(9, 2)]).is_empty());
    }

    #[test]
    fn each_kind_of_wrong_is_told_once_with_its_place() {
        let stranger = Place { stream: SagaId::new(Timestamp::from_micros(1), [0; 10], Shard(0), 2), ..place(2, 1) };
        for (words, found) in [
            ("invariant 7, saga", judged(4, (1, 4), &[place(1, 1), place(2, 1), place(4, 1)])),
            ("position 2: expected position 3 next", judged(2, (1, 2), &[place(1, 1), place(2, 1), place(2, 1)])),
            ("position 0: expected position 1", judged(1, (0, 1), &[place(0, 1), place(1, 1)])),
            ("the last event at the head, position 5", judged(5, (1, 2), &[place(1, 1), place(2, 1)])),
            ("it at position 3", judged(2, (1, 3), &[place(1, 1), place(2, 1)])),
            ("expected shard 0 by the saga's id, found shard 1", judged(2, (1, 2), &[place(1, 1), stranger])),
            ("invariant 9, saga", judged(2, (1, 2), &[place(1, 2), place(2, 1)])),
            ("at most epoch 3", judged(2, (1, 2), &[place(1, 4), place(2, 4)])),
        ] {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(words), "`{words}` is not in {found:?}");
        }
    }
}
