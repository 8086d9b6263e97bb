//! Whether an append may be written to a stream as it is.
//!
//! | its event ids | what follows |
//! | --- | --- |
//! | all in the stream, in this order | it was written before |
//! | some in the stream, or all in another order, or one twice in the request | refused |
//! | none in the stream | written, if the stream has the expected version |

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use super::words::{AppendRequest, ExpectedVersion};
use crate::shard::writer::Refusal;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    /// It is there already; this is the version of its last event.
    Known(u64),
    Refuse(Refusal),
}

/// `version` is the stream's, `known` has the versions of those of the request's events that are in it.
pub(super) fn judge(request: &AppendRequest, version: u64, known: &BTreeMap<Arc<str>, u64>) -> Verdict {
    let ids = || request.events.iter().map(|event| &event.event_id);
    if let Some(taken) = ids().find(|id| known.contains_key(*id)) {
        let versions: Option<Vec<u64>> = ids().map(|id| known.get(id).copied()).collect();
        return match versions.as_deref() {
            Some(all @ [.., last]) if all.is_sorted_by(|a, b| a < b) => Verdict::Known(*last),
            Some(_) | None => Verdict::Refuse(Refusal::EventIdTaken { event_id: Arc::clone(taken) }),
        };
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = ids().find(|id| !seen.insert(*id)) {
        return Verdict::Refuse(Refusal::EventIdTaken { event_id: Arc::clone(twice) });
    }
    match request.expected {
        ExpectedVersion::Exactly(expected) if expected != version => {
            Verdict::Refuse(Refusal::WrongVersion { expected, actual: version })
        }
        ExpectedVersion::Any | ExpectedVersion::Exactly(_) => Verdict::Write,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use serde_json::value::RawValue;

    use super::*;
    use crate::shard::appends::words::ToAppend;

    fn request(ids: &str, expected: ExpectedVersion) -> AppendRequest {
        let event = |id: &str| ToAppend {
            event_id: Arc::from(id),
            type_name: Arc::from("CartOpened"),
            schema_version: 1,
            actor: None,
            correlation_id: None,
            causation_id: None,
            data: RawValue::from_string("{}".to_string()).unwrap(),
        };
        let events = ids.split(' ').map(event).collect();
        AppendRequest { stream: Arc::from("cart-1"), expected, events, entropy: [0; 10] }
    }

    #[test]
    fn a_repetition_is_known_by_its_ids_and_only_then_the_version_counts() {
        use ExpectedVersion::{Any, Exactly};
        let known: BTreeMap<Arc<str>, u64> =
            ["a", "b", "c"].into_iter().zip(4..).map(|(id, version)| (Arc::from(id), version)).collect();
        let taken = |id: &str| Verdict::Refuse(Refusal::EventIdTaken { event_id: Arc::from(id) });
        let wrong = |expected| Verdict::Refuse(Refusal::WrongVersion { expected, actual: 6 });
        for (ids, expected, verdict) in [
            ("x", Any, Verdict::Write),
            ("x y", Exactly(6), Verdict::Write),
            ("x", Exactly(5), wrong(5)),
            ("x", Exactly(7), wrong(7)),
            ("x", Exactly(0), wrong(0)),
            ("a b c", Any, Verdict::Known(6)),
            ("a b", Exactly(3), Verdict::Known(5)),
            ("a c", Exactly(9), Verdict::Known(6)),
            ("b a", Any, taken("b")),
            ("a a", Any, taken("a")),
            ("a x", Any, taken("a")),
            ("x c", Exactly(6), taken("c")),
            ("x c y", Any, taken("c")),
            ("x y x", Any, taken("x")),
            ("x x", Exactly(5), taken("x")),
        ] {
            assert_eq!(judge(&request(ids, expected), 6, &known), verdict, "{ids}, {expected:?}");
        }
        let empty = BTreeMap::new();
        let new: Vec<Verdict> =
            [Any, Exactly(0), Exactly(1)].map(|expected| judge(&request("x", expected), 0, &empty)).into();
        let wrong = Verdict::Refuse(Refusal::WrongVersion { expected: 1, actual: 0 });
        assert_eq!(new, [Verdict::Write, Verdict::Write, wrong], "of a stream that does not exist");
    }
}
