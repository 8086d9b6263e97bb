//! The W3C trace context of a call: a child of the saga's span.

use skald_core::ids::SagaId;

/// `00-<trace id>-<span id>-<flags>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent([u8; LEN]);

const LEN: usize = 55;
const TRACE_ID: std::ops::Range<usize> = 3..35;
const SPAN_ID: std::ops::Range<usize> = 36..52;

impl TraceParent {
    /// A new span in the saga's trace. A saga without a (valid) `traceparent` has the trace whose id is the saga's, so
    /// that all its calls belong together, and it is marked as sampled.
    #[must_use]
    pub fn child(parent: Option<&str>, saga: SagaId, span: u64) -> Self {
        let mut text = parent.and_then(valid).unwrap_or_else(|| {
            let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
            write_hex(&mut text[TRACE_ID], &saga.as_uuid().into_bytes());
            text
        });
        // All zeros would be no span at all.
        write_hex(&mut text[SPAN_ID], &span.max(1).to_be_bytes());
        Self(text)
    }

    /// The span that a `traceparent` names; None if it is not valid.
    #[must_use]
    pub fn span_of(parent: &str) -> Option<u64> {
        let text = valid(parent)?;
        u64::from_str_radix(std::str::from_utf8(&text[SPAN_ID]).ok()?, 16).ok()
    }

    /// Whether whoever began the trace wants its spans.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0[LEN - 1] & 1 == 1
    }

    /// The same with another wish.
    #[must_use]
    pub const fn sampled(mut self, wanted: bool) -> Self {
        self.0[LEN - 1] = if wanted { b'1' } else { b'0' };
        self
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of ASCII")
    }

    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.as_str()[TRACE_ID]
    }
}

/// Version 00 as specified; of a later version, the fields that 00 has.
fn valid(parent: &str) -> Option<[u8; LEN]> {
    let (head, rest) = parent.as_bytes().split_at_checked(LEN)?;
    let mut text: [u8; LEN] = head.try_into().ok()?;
    let hex = |range: std::ops::Range<usize>| {
        text[range].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let zero = |range: std::ops::Range<usize>| text[range].iter().all(|byte| *byte == b'0');
    let dashes = [2, 35, 52].iter().all(|place| text[*place] == b'-');
    let digits = hex(0..2) && hex(TRACE_ID) && hex(SPAN_ID) && hex(53..55);
    let later = &text[0..2] != b"00";
    let ends = rest.is_empty() || (later && rest[0] == b'-');
    if !dashes || !digits || !ends || zero(TRACE_ID) || zero(SPAN_ID) || &text[0..2] == b"ff" {
        return None;
    }
    text[0..2].copy_from_slice(b"00");
    Some(text)
}

fn write_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAGA: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn child(parent: Option<&str>) -> String {
        TraceParent::child(parent, SAGA.parse().unwrap(), 0xab).as_str().to_owned()
    }

    #[test]
    fn a_child_has_its_parents_trace_and_flags_and_a_span_of_its_own() {
        assert_eq!(child(Some(PARENT)), "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01");
        let later = PARENT.replacen("00", "01", 1) + "-more";
        assert_eq!(child(Some(&later)), "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01");
        assert_eq!(
            TraceParent::child(Some(PARENT), SAGA.parse().unwrap(), 0).trace_id(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
    }

    #[test]
    fn without_a_valid_parent_the_trace_is_the_sagas() {
        let derived = "00-01890a5dac96774bbcceb302099a8057-00000000000000ab-01";
        let zero_trace = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        for bad in [
            "",
            "00-abc",
            &PARENT.to_uppercase(),
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.replacen("00", "ff", 1),
            &zero_trace,
            &zero_span,
            &PARENT.replace('-', "_"),
        ] {
            assert_eq!(child(Some(bad)), derived, "{bad}");
        }
        assert_eq!(child(None), derived);
    }
}
