//! Positions of a shard's log, as a cursor keeps them: `17-19,23`.

use std::{collections::BTreeSet, fmt::Write as _};

use super::super::StoreError;

/// A few positions out of many, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeSet<i64>);

impl Positions {
    pub fn contains(&self, position: i64) -> bool {
        self.0.contains(&position)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn first(&self) -> Option<i64> {
        self.0.first().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = i64> {
        self.0.iter().copied()
    }

    pub fn insert(&mut self, position: i64) {
        self.0.insert(position);
    }

    pub fn remove(&mut self, position: i64) -> bool {
        self.0.remove(&position)
    }

    /// Moves all of the others here.
    pub fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut rest = self.iter().peekable();
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            let comma = if text.is_empty() { "" } else { "," };
            let written =
                if first == last { write!(text, "{comma}{first}") } else { write!(text, "{comma}{first}-{last}") };
            written.expect("writing to a string cannot fail");
        }
        text
    }

    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let unreadable = || StoreError::Unreadable(format!("the positions `{text}`"));
        let mut positions = BTreeSet::new();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let first: i64 = first.parse().map_err(|_| unreadable())?;
            let last: i64 = last.parse().map_err(|_| unreadable())?;
            positions.extend(first..=last);
        }
        Ok(Self(positions))
    }
}

impl FromIterator<i64> for Positions {
    fn from_iter<I: IntoIterator<Item = i64>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_written_short() {
        for (positions, text) in
            [(vec![], ""), (vec![7], "7"), (vec![1, 2, 3], "1-3"), (vec![19, 17, 18, 23, 25, 26], "17-19,23,25-26")]
        {
            assert_eq!(positions.into_iter().collect::<Positions>().to_text(), text);
        }
        for broken in ["x", "1-", "-1", "1-2-3"] {
            assert!(Positions::parse(broken).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(positions: BTreeSet<u16>) {
            let positions: Positions = positions.into_iter().map(i64::from).collect();
            prop_assert_eq!(Positions::parse(&positions.to_text()).unwrap(), positions);
        }
    }
}
