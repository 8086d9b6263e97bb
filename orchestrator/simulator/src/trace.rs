//! What happened, as a hash that two runs of a seed must share, and as lines to read when they are asked for.

use skald_core::{ids::SagaId, time::Timestamp};

/// Where virtual time begins.
pub const BEGINNING: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

#[derive(Debug)]
pub struct Trace {
    hash: u64,
    pub happenings: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    #[must_use]
    pub fn new(readable: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, happenings: 0, lines: readable.then(Vec::new) }
    }

    /// Takes in one happening: the facts go into the hash, the text only where somebody reads.
    pub fn tell(&mut self, at: Timestamp, facts: [u64; 3], text: impl FnOnce() -> String) {
        self.happenings += 1;
        self.mix(at.as_micros().unsigned_abs());
        for fact in facts {
            self.mix(fact);
        }
        if let Some(lines) = &mut self.lines {
            let elapsed = at.as_micros() - BEGINNING.as_micros();
            lines.push(format!("{:>4}.{:06} {}", elapsed / 1_000_000, elapsed % 1_000_000, text()));
        }
    }

    /// FNV-1a over whole words, with a rotation so that high bits reach low ones.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// Enough of an id to tell the sagas of one run apart.
#[must_use]
pub fn short(saga: SagaId) -> String {
    let id = saga.as_uuid().simple().to_string();
    id[20..28].to_owned()
}

/// A saga as a number for the hash.
#[must_use]
pub fn word(saga: SagaId) -> u64 {
    let (high, low) = saga.as_uuid().as_u64_pair();
    high ^ low
}

/// A text as a number for the hash.
#[must_use]
pub fn word_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
