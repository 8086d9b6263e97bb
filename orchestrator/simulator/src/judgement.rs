//! The rules by number, how often each was judged, and the first one that was found broken.

use std::fmt;

use crate::faults::Modes;

/// What must hold. The numbers are those of the invariants that all tests of this workspace go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Invariant(u8),
    Intent,
    Contract,
    /// The engine itself stopped on an assertion.
    Panic,
}

impl Rule {
    /// Those that every longer campaign must have judged.
    pub const JUDGED: [Self; 14] = [
        Self::Invariant(1),
        Self::Invariant(2),
        Self::Invariant(3),
        Self::Invariant(4),
        Self::Invariant(5),
        Self::Invariant(6),
        Self::Invariant(7),
        Self::Invariant(8),
        Self::Invariant(9),
        Self::Invariant(10),
        Self::Invariant(12),
        Self::Invariant(13),
        Self::Intent,
        Self::Contract,
    ];

    /// Whether anything of it is judged where sagas run in these modes.
    #[must_use]
    pub fn is_of(self, modes: Modes) -> bool {
        match self {
            Self::Invariant(12) => modes != Modes::Choreographed,
            Self::Invariant(13) => modes != Modes::Orchestrated,
            _ => true,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Invariant(number) => number as usize,
            Self::Intent => 14,
            Self::Contract => 15,
            Self::Panic => 16,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(number) => write!(f, "invariant {number}"),
            Self::Intent => f.write_str("intent before effect"),
            Self::Contract => f.write_str("one key, one request"),
            Self::Panic => f.write_str("panic"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// How often each rule was judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judgements([u64; 17]);

impl Judgements {
    pub fn count(&mut self, rule: Rule) {
        self.0[rule.index()] += 1;
    }

    #[must_use]
    pub fn of(&self, rule: Rule) -> u64 {
        self.0[rule.index()]
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
