//! Invariant 10 for one start key: the saga that it names exists, in the shard and of the definition that it says.

use skald_core::ids::SagaId;

use super::report::{Findings, Violation};
use crate::storage::audit::FoundKey;

pub fn check(key: &FoundKey, findings: &mut Findings) {
    let FoundKey { definition, shard, saga, saga_definition, saga_shard, .. } = key;
    let named = format!("the start key `{}` of {definition}", key.key);
    let saga = SagaId::from_uuid(*saga);
    let mut wrong = |expected: String, found: String| findings.add(Violation::new(10, expected, found).of(saga));
    let Some((of, lies_in)) = saga_definition.as_ref().zip(*saga_shard) else {
        return wrong(format!("the saga that {named} names"), "no such saga".to_owned());
    };
    if of != definition {
        wrong(format!("a saga of {definition}, as {named} says"), format!("one of {of}"));
    }
    if lies_in != *shard {
        wrong(format!("a saga in shard {shard}, as {named} says"), format!("one in shard {lies_in}"));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_must_lead_to_a_saga_of_its_definition_and_shard() {
        let key = |of: Option<(&str, i32)>| FoundKey {
            definition: "checkout".to_owned(),
            key: "k".to_owned(),
            shard: 1,
            saga: Uuid::from_u128(7),
            saga_definition: of.map(|(definition, _)| definition.to_owned()),
            saga_shard: of.map(|(_, shard)| shard),
        };
        for (key, words) in [
            (key(Some(("checkout", 1))), ""),
            (key(None), "no such saga"),
            (key(Some(("trip", 1))), "one of trip"),
            (key(Some(("checkout", 2))), "one in shard 2"),
        ] {
            let mut findings = Findings::new(10);
            check(&key, &mut findings);
            let found: Vec<_> = findings.told().iter().map(ToString::to_string).collect();
            assert_eq!(found.is_empty(), words.is_empty(), "{found:?}");
            assert!(found.iter().all(|text| text.contains(words) && text.contains("-000000000007")), "{found:?}");
        }
    }
}
