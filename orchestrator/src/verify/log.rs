//! Invariants 7 and 9 along one shard's log: positions without a gap up to the head, but for the holes that retention
//! noted; epochs that never go back; streams that lie where their ids say.

use super::report::{Findings, LogSummary, Violation};
use crate::storage::{
    audit::{LogBounds, Place, Stretch},
    retention::Hole,
};

/// Takes the places of a shard's events in the order of the log.
#[derive(Debug)]
pub struct LogCheck {
    bounds: LogBounds,
    shards: u16,
    previous: Option<Place>,
    /// Every position before this one is accounted for.
    next: i64,
    events: u64,
    removed: u64,
    /// A shard whose row was set back is one violation, not one for each event.
    epoch_too_high: bool,
}

impl LogCheck {
    pub const fn new(bounds: LogBounds, shards: u16) -> Self {
        Self { bounds, shards, previous: None, next: 1, events: 0, removed: 0, epoch_too_high: false }
    }

    /// The next part of the log; the last one has no places.
    pub fn next(&mut self, stretch: &Stretch, findings: &mut Findings) {
        for place in &stretch.places {
            self.place(*place, &stretch.holes, findings);
        }
        if stretch.places.is_empty() {
            let (shard, head) = (i32::from(self.bounds.shard.0), self.bounds.head);
            if let Some(missing) = self.skip(head + 1, &stretch.holes) {
                let expected = format!("an event at every position up to the head, {head}, or a hole");
                let found = format!("neither at position {missing}");
                findings.add(Violation::new(7, expected, found).at(shard, missing));
            }
        }
    }

    /// Goes on to a position; answers the first one on the way that is not in a hole.
    fn skip(&mut self, to: i64, holes: &[Hole]) -> Option<i64> {
        let mut missing = None;
        let behind = holes.partition_point(|hole| hole.last < self.next);
        for Hole { first, last } in holes[behind..].iter().take_while(|hole| hole.first < to) {
            if *first > self.next {
                missing.get_or_insert(self.next);
            }
            let end = (last + 1).min(to);
            self.removed += u64::try_from(end - self.next.max(*first)).unwrap_or(0);
            self.next = end;
        }
        if self.next < to {
            missing.get_or_insert(self.next);
        }
        self.next = self.next.max(to);
        missing
    }

    fn place(&mut self, place: Place, holes: &[Hole], findings: &mut Findings) {
        self.events += 1;
        let shard = i32::from(self.bounds.shard.0);
        let violation = |invariant: u8, expected: String, found: String| {
            Violation::new(invariant, expected, found).of(place.stream).at(shard, place.position)
        };
        let found = format!("position {} (version {})", place.position, place.version);
        if place.position < self.next {
            findings.add(violation(7, format!("position {} next", self.next), found));
        } else if let Some(missing) = self.skip(place.position, holes) {
            findings.add(violation(7, format!("position {missing} next"), found));
        } else if holes.iter().any(|hole| (hole.first..=hole.last).contains(&place.position)) {
            findings.add(violation(7, "nothing in a hole that retention left".to_owned(), found));
        }
        self.next = self.next.max(place.position.saturating_add(1));
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
        if let Some((_, last)) = found.filter(|(_, last)| *last > head) {
            let expected = format!("no event after the head, position {head}");
            findings.add(Violation::new(7, expected, format!("one at position {last}")).at(i32::from(shard.0), last));
        }
        let first = found.map(|(first, _)| first);
        LogSummary { shard: shard.0, first, head, events: self.events, removed: self.removed }
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
        judged_with_holes(head, found, places, &[], 100)
    }

    /// In pages of so many places.
    fn judged_with_holes(
        head: i64,
        found: (i64, i64),
        places: &[Place],
        holes: &[(i64, i64)],
        page: usize,
    ) -> Vec<String> {
        let mut findings = Findings::new(100);
        let mut check = LogCheck::new(LogBounds { shard: Shard(1), epoch: Epoch(3), head, found: Some(found) }, 2);
        let holes: Vec<Hole> = holes.iter().map(|(first, last)| Hole { first: *first, last: *last }).collect();
        for places in places.chunks(page) {
            check.next(&Stretch { places: places.to_vec(), holes: holes.clone() }, &mut findings);
        }
        check.next(&Stretch { places: Vec::new(), holes: holes.clone() }, &mut findings);
        let summary = check.end(&mut findings);
        assert_eq!(summary.events, places.len() as u64);
        if findings.told().is_empty() {
            assert_eq!(summary.removed, holes.iter().map(|hole| (hole.last - hole.first + 1) as u64).sum::<u64>());
        }
        findings.told().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_log_is_fine_also_where_retention_left_holes() {
        assert!(judged(3, (1, 3), &[place(1, 1), place(2, 1), place(3, 3)]).is_empty());
        let places = [place(3, 1), place(4, 1), place(8, 2), place(9, 2)];
        for page in [1, 2, 3, 4] {
            assert!(judged_with_holes(9, (3, 9), &places, &[(1, 2), (5, 7)], page).is_empty());
            assert!(judged_with_holes(12, (3, 9), &places, &[(1, 2), (5, 7), (10, 12)], page).is_empty());
            let told = judged_with_holes(12, (3, 9), &places, &[(1, 2), (5, 7), (10, 11)], page);
            assert!(told.len() == 1 && told[0].contains("neither at position 12"), "{told:?}");
            let told = judged_with_holes(9, (3, 9), &places, &[(1, 2), (5, 6)], page);
            assert!(told.len() == 1 && told[0].contains("expected position 7 next"), "{told:?}");
            let told = judged_with_holes(9, (3, 9), &places, &[(1, 2), (6, 7)], page);
            assert!(told.len() == 1 && told[0].contains("expected position 5 next"), "{told:?}");
            let told = judged_with_holes(9, (3, 9), &places, &[(1, 3), (5, 7)], page);
            assert!(told.len() == 1 && told[0].contains("nothing in a hole"), "{told:?}");
            assert_eq!(judged_with_holes(9, (3, 9), &places, &[(5, 7)], page).len(), 1, "nobody noted the beginning");
        }
        assert!(judged_with_holes(4, (0, 0), &[], &[(1, 4)], 1).is_empty(), "all of it is gone");
    }

    #[test]
    fn each_kind_of_wrong_is_told_once_with_its_place() {
        let stranger = Place { stream: SagaId::new(Timestamp::from_micros(1), [0; 10], Shard(0), 2), ..place(2, 1) };
        for (words, found) in [
            ("invariant 7, saga", judged(4, (1, 4), &[place(1, 1), place(2, 1), place(4, 1)])),
            ("position 2: expected position 3 next", judged(2, (1, 2), &[place(1, 1), place(2, 1), place(2, 1)])),
            ("position 0: expected position 1", judged(1, (0, 1), &[place(0, 1), place(1, 1)])),
            (
                "up to the head, 5, or a hole, found neither at position 3",
                judged(5, (1, 2), &[place(1, 1), place(2, 1)]),
            ),
            ("one at position 3", judged(2, (1, 3), &[place(1, 1), place(2, 1)])),
            ("expected shard 0 by the saga's id, found shard 1", judged(2, (1, 2), &[place(1, 1), stranger])),
            ("invariant 9, saga", judged(2, (1, 2), &[place(1, 2), place(2, 1)])),
            ("at most epoch 3", judged(2, (1, 2), &[place(1, 4), place(2, 4)])),
        ] {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(words), "`{words}` is not in {found:?}");
        }
    }
}
