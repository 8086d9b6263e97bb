//! A place in the log: how far each shard has been read.
//!
//! Within a shard the order is total, across shards there is none, so a place is a vector. To clients it is an opaque
//! text: the shards' positions, in order, as variable-length integers in hexadecimal digits.

use std::{collections::BTreeMap, fmt, str::FromStr};

use skald_core::ids::Shard;

/// Up to which position, inclusive, each shard has been read. A shard that is not there has been read not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub BTreeMap<Shard, i64>);

impl Place {
    /// The same place, with every shard named.
    #[must_use]
    pub fn over(self, shards: u16) -> Self {
        Self((0..shards).map(Shard).map(|shard| (shard, self.of(shard))).collect())
    }

    #[must_use]
    pub fn of(&self, shard: Shard) -> i64 {
        self.0.get(&shard).copied().unwrap_or(0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.0.keys().next_back().map_or(0, |last| last.0 + 1);
        // Never empty, so that a parameter without a value is a mistake.
        f.write_str("p")?;
        for shard in 0..shards {
            let mut rest = self.of(Shard(shard)).unsigned_abs();
            loop {
                let more = rest > 0x7f;
                write!(f, "{:02x}", (rest & 0x7f) | if more { 0x80 } else { 0 })?;
                rest >>= 7;
                if !more {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = "must be the next_cursor of a page of events, or the id of an event of the tail";
        let digits = text.strip_prefix('p').filter(|digits| digits.is_ascii() && digits.len().is_multiple_of(2));
        let digits = digits.ok_or(refused)?.as_bytes();
        let mut positions = BTreeMap::new();
        let (mut shard, mut position, mut shift) = (0_u16, 0_u64, 0_u32);
        for pair in digits.chunks_exact(2) {
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(refused);
            let byte = digit(pair[0])? << 4 | digit(pair[1])?;
            if shift > 56 {
                return Err(refused);
            }
            position |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                positions.insert(Shard(shard), i64::try_from(position).map_err(|_| refused)?);
                shard = shard.checked_add(1).ok_or(refused)?;
                (position, shift) = (0, 0);
            }
        }
        if shift == 0 { Ok(Self(positions)) } else { Err(refused) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "0", "p0", "pgg", "p80", "pffffffffffffffffffff01", "p00ü", "x00"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!("p".parse(), Ok(Place::default()));
    }

    proptest! {
        #[test]
        fn a_place_reads_back_as_it_was_written(positions in prop::collection::vec(0..i64::MAX, 0..20)) {
            let shards = (0..).map(Shard);
            let place = Place(shards.zip(positions).collect());
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }
    }
}
