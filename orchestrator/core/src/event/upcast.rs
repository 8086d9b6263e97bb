//! Old forms of events, brought up to the newest.
//!
//! Each kind counts its forms on its own, from 1. What is stored is never rewritten: an event is read in the form in
//! which it was written and passes through one small function per form since. A form that is newer than this Skald is
//! refused, for nobody can say what it means.
//!
//! To change a kind's form: change its fields in the parent module, add a function here, and add a stream with the new
//! form to `tests/golden/events/`. The streams of former forms stay as they are, for as long as there are logs.

use alloc::{borrow::Cow, borrow::ToOwned, boxed::Box, collections::BTreeMap, string::String, string::ToString};

use serde_json::value::RawValue;

use super::UnreadableEvent;

/// An event's data, each field as the bytes that were stored: numbers keep their digits.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Makes of one form the next.
type Upcast = fn(&mut Fields);

/// What leads from each form of a kind to the next, beginning with the first.
fn upcasts(kind: &str) -> &'static [Upcast] {
    match kind {
        "SagaStarted" => &[subject_was_not_known],
        "StepStarted" => &[nothing_was_ahead],
        _ => &[],
    }
}

/// Version 2 of `SagaStarted` names the person whom the saga is about; in version 1 nothing was known of one.
fn subject_was_not_known(fields: &mut Fields) {
    fields.remove("subject");
}

/// Version 2 of `StepStarted` announces steps behind it; in version 1 each step was announced by its own alone.
fn nothing_was_ahead(fields: &mut Fields) {
    fields.remove("ahead");
}

/// The newest form of a kind, in which it is written.
#[must_use]
pub fn newest(kind: &str) -> u16 {
    u16::try_from(upcasts(kind).len() + 1).expect("a kind has few forms")
}

/// The data of an event in its kind's newest form.
///
/// # Errors
///
/// When the form is newer than that, or the data is no JSON object.
pub fn upcast<'a>(kind: &str, version: u16, data: &'a str) -> Result<Cow<'a, str>, UnreadableEvent> {
    through(upcasts(kind), kind, version, data)
}

fn through<'a>(upcasts: &[Upcast], kind: &str, version: u16, data: &'a str) -> Result<Cow<'a, str>, UnreadableEvent> {
    let unknown = || UnreadableEvent::Version { kind: kind.to_owned(), version };
    let steps = version.checked_sub(1).and_then(|done| upcasts.get(usize::from(done)..)).ok_or_else(unknown)?;
    if steps.is_empty() {
        return Ok(Cow::Borrowed(data));
    }
    let unreadable =
        |error: serde_json::Error| UnreadableEvent::Data { kind: kind.to_owned(), error: error.to_string() };
    let mut fields: Fields = serde_json::from_str(data).map_err(unreadable)?;
    for step in steps {
        step(&mut fields);
    }
    serde_json::to_string(&fields).map(Cow::Owned).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn an_old_form_passes_through_every_step_since_and_keeps_its_bytes() {
        let steps: [Upcast; 2] = [
            |fields| {
                let total = fields.remove("sum").unwrap();
                fields.insert("total".to_owned(), total);
            },
            |fields| {
                fields.insert("currency".to_owned(), raw("\"EUR\""));
            },
        ];
        let newest = r#"{"currency":"EUR","total":1.50e400}"#;
        assert_eq!(through(&steps, "Paid", 1, r#"{"sum": 1.50e400}"#).unwrap(), newest);
        assert_eq!(through(&steps, "Paid", 2, r#"{"total":1.50e400}"#).unwrap(), newest);
        assert!(matches!(through(&steps, "Paid", 3, newest), Ok(Cow::Borrowed(same)) if same == newest));
        assert!(matches!(through(&steps, "Paid", 1, "[]"), Err(UnreadableEvent::Data { .. })));
    }

    #[test]
    fn a_form_that_this_skald_does_not_know_is_refused() {
        for (kind, version) in [("SagaStarted", 0), ("SagaStarted", 3), ("StepStarted", 3), ("StepStarted", u16::MAX)] {
            let refused = upcast(kind, version, "{}");
            assert_eq!(refused, Err(UnreadableEvent::Version { kind: kind.to_owned(), version }));
        }
    }
}
