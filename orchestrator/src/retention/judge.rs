//! What may go: pure rules over what is known of a stream.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

use crate::storage::{
    log::category,
    retention::{Need, OldStream},
};

/// Why a stream stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The saga has not ended.
    Unfinished,
    /// It ended, or was last appended to, not long enough ago.
    Young,
    /// It is no saga, and streams of its category stay.
    Category(String),
    /// A consumer group holds one of its events.
    Held,
    /// Somebody who follows the log is not past it.
    NeededBy(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("sagas that have not ended"),
            Self::Young => f.write_str("streams that are too young"),
            Self::Category(category) => {
                write!(f, "streams of the category {category}, which retention.streams does not name")
            }
            Self::Held => f.write_str("streams of which a consumer group holds an event"),
            Self::NeededBy(who) => write!(f, "streams that {who} has not read"),
        }
    }
}

/// What the rules go by.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What was over before this moment is old.
    pub cutoff: Timestamp,
    /// Of streams that go besides sagas.
    categories: BTreeSet<String>,
    /// Of each shard, who is furthest behind, and where.
    behind: BTreeMap<Shard, (i64, String)>,
    held: HashSet<SagaId>,
}

impl Rules {
    /// While nobody needs anything.
    #[must_use]
    pub fn new(cutoff: Timestamp, categories: BTreeSet<String>) -> Self {
        Self { cutoff, categories, ..Self::default() }
    }

    /// With what is needed as of now.
    #[must_use]
    pub fn with(self, needs: Vec<Need>, held: HashSet<SagaId>) -> Self {
        let mut behind: BTreeMap<Shard, (i64, String)> = BTreeMap::new();
        for Need { who, shard, position } in needs {
            match behind.get(&shard) {
                Some((furthest, _)) if *furthest <= position => {}
                _ => {
                    behind.insert(shard, (position, who));
                }
            }
        }
        Self { behind, held, ..self }
    }

    /// # Errors
    ///
    /// Why the stream stays.
    pub fn judge(&self, stream: &OldStream) -> Result<(), Kept> {
        let over_since = stream.over_since.ok_or(Kept::Unfinished)?;
        if over_since >= self.cutoff {
            return Err(Kept::Young);
        }
        let category = stream.name.as_deref().map(category);
        if let Some(category) = category.filter(|category| !self.categories.contains(*category)) {
            return Err(Kept::Category(category.to_owned()));
        }
        if self.held.contains(&stream.id) {
            return Err(Kept::Held);
        }
        match self.behind.get(&stream.shard) {
            Some((position, who)) if *position < stream.position => Err(Kept::NeededBy(who.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(who: &str, shard: u16, position: i64) -> Need {
        Need { who: who.to_owned(), shard: Shard(shard), position }
    }

    #[test]
    fn only_what_is_over_old_and_needed_by_nobody_goes() {
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let stream = |number: u8, over_since: Option<i64>, shard: u16, position: i64| OldStream {
            id: SagaId::new(at(0), [number; 10], Shard(shard), 2),
            shard: Shard(shard),
            name: None,
            version: 3,
            over_since: over_since.map(at),
            position,
        };
        let held = HashSet::from([stream(7, None, 0, 1).id]);
        let needs = vec![need("audit", 0, 20), need("relay", 0, 10), need("sales", 0, 30), need("audit", 1, 5)];
        let categories = BTreeSet::from(["cart".to_owned()]);
        let rules = Rules::new(at(100), categories);
        let named = |name: &str| OldStream { name: Some(name.to_owned()), ..stream(1, Some(99), 0, 10) };
        let nobody_follows = rules.clone();
        let rules = rules.with(needs, held);
        for (stream, expected) in [
            (stream(1, Some(99), 0, 10), Ok(())),
            (stream(1, Some(99), 1, 5), Ok(())),
            (named("cart-42"), Ok(())),
            (named("customer-42"), Err(Kept::Category("customer".to_owned()))),
            (stream(1, None, 0, 1), Err(Kept::Unfinished)),
            (stream(1, Some(100), 0, 1), Err(Kept::Young)),
            (stream(7, Some(99), 0, 1), Err(Kept::Held)),
            (stream(1, Some(99), 0, 11), Err(Kept::NeededBy("relay".to_owned()))),
            (stream(1, Some(99), 1, 6), Err(Kept::NeededBy("audit".to_owned()))),
        ] {
            assert_eq!(rules.judge(&stream), expected, "{stream:?}");
        }
        assert_eq!(nobody_follows.judge(&stream(1, Some(1), 0, 1_000_000)), Ok(()));
    }
}
