//! Rows of `events`. A row holds a *run*: consecutive events of one stream that were written together, with one time and
//! one actor. Its position and its version are those of its last event; what else the events differ in lies in it in their
//! order.
//!
//! A step of a saga writes several events at once, and what a database does for a row (the row's head, an entry in each
//! index, the bytes of both in the log) costs it more than what an event says.

use std::{borrow::Cow, str::SplitN};

use skald_core::shard::batch::{NewEvent, Origin, Transition};

/// The most events of a run. Whoever looks for the run of a position need not look further behind it.
pub const EVENTS_MAX: i64 = 32;

/// No run has more bytes of data unless they are one event's: PostgreSQL keeps longer rows in two tables.
const BYTES_MAX: usize = 1500;

/// Between two events' values: the record separator, which JSON text has only as an escape.
pub const SEPARATOR: char = '\u{1e}';

/// A run as it is written.
#[derive(Debug)]
pub struct Run<'a> {
    pub events: &'a [NewEvent],
    pub kind: Cow<'a, str>,
    /// None: each event's kind.
    pub type_name: Option<Cow<'a, str>>,
    /// Of the last event.
    pub schema_version: u16,
    /// None: the last event's is that of each.
    pub schema_versions: Option<String>,
    pub data: String,
}

/// The runs of a transition, in order.
pub fn runs(transition: &Transition) -> impl Iterator<Item = Run<'_>> {
    let mut rest = &*transition.events;
    // Of the event that did not fit.
    let mut ahead = None;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut data = ahead.take().unwrap_or_else(|| {
            let mut data = Vec::with_capacity(BYTES_MAX);
            first.event.write_data(&mut data);
            data
        });
        let alike = rest
            .iter()
            .take_while(|next| joins(next) && next.occurred_at == first.occurred_at && next.actor == first.actor);
        let mut count = 1;
        for (next, _) in alike.skip(1).zip(1..EVENTS_MAX) {
            let before = data.len();
            data.push(SEPARATOR as u8);
            next.event.write_data(&mut data);
            if data.len() > BYTES_MAX {
                ahead = Some(data.split_off(before + 1));
                data.truncate(before);
                break;
            }
            count += 1;
        }
        let (events, behind) = rest.split_at(count);
        rest = behind;
        Some(Run::new(events, String::from_utf8(data).expect("JSON is text")))
    })
}

/// Whether an event may share its row.
fn joins(event: &NewEvent) -> bool {
    event.origin == Origin::default() && !event.type_name.is_empty() && !event.type_name.contains(char::is_control)
}

impl<'a> Run<'a> {
    pub fn last(&self) -> &'a NewEvent {
        self.events.last().expect("a run has events")
    }

    fn new(events: &'a [NewEvent], data: String) -> Self {
        let own_type = |event: &'a NewEvent| Some(&*event.type_name).filter(|name| *name != event.event.kind());
        let schema_version = |event: &NewEvent| event.event.schema_version();
        let last = events.last().expect("a run has events");
        let form = schema_version(last);
        let is_typed = events.iter().any(|event| own_type(event).is_some());
        Self {
            events,
            kind: joined(events.iter().map(|event| event.event.kind())),
            type_name: is_typed.then(|| joined(events.iter().map(|event| own_type(event).unwrap_or("")))),
            schema_version: form,
            schema_versions: events.iter().any(|event| schema_version(event) != form).then(|| {
                let each: Vec<String> = events.iter().map(|event| schema_version(event).to_string()).collect();
                joined(each.iter().map(String::as_str)).into_owned()
            }),
            data,
        }
    }
}

/// What a row says of its events, as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub events: i16,
    pub kind: &'a str,
    pub type_name: Option<&'a str>,
    pub schema_version: i16,
    pub schema_versions: Option<&'a str>,
    pub data: &'a str,
}

/// One event of a row.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// How many events follow it in its row: so far are its position and its version from the row's.
    pub behind: i64,
    pub kind: &'a str,
    pub type_name: Option<&'a str>,
    pub schema_version: i16,
    pub data: &'a str,
}

/// The types of a row's events.
pub fn type_names<'a>(events: i16, kind: &'a str, type_name: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let mut type_names = type_name.map(split(events));
    split(events)(kind).map(move |kind| {
        let type_name = type_names.as_mut().and_then(Iterator::next);
        type_name.filter(|name| !name.is_empty()).unwrap_or(kind)
    })
}

/// Takes a row's text apart: the events' values in their order, fewer if there are fewer. Of one event it is the text.
fn split<'a>(events: i16) -> impl Fn(&'a str) -> SplitN<'a, char> + Copy {
    move |text| text.splitn(usize::try_from(events).unwrap_or(1).max(1), SEPARATOR)
}

impl<'a> Packed<'a> {
    /// The events in their order; None for one that is not where the others are.
    pub fn parts(self) -> impl Iterator<Item = Option<Part<'a>>> {
        let count = self.events.max(1);
        let split = split(count);
        let mut kinds = split(self.kind);
        let mut type_names = self.type_name.map(split);
        let mut schema_versions = self.schema_versions.map(split);
        let mut data = split(self.data);
        let is_whole = move |part: &&str| count == 1 || !part.contains(SEPARATOR);
        (0..count).rev().map(move |behind| {
            let kind = kinds.next().filter(is_whole);
            let type_name = type_names.as_mut().map(|names| names.next().filter(is_whole));
            let schema_version = match &mut schema_versions {
                Some(versions) => versions.next().and_then(|version| version.parse().ok()),
                None => Some(self.schema_version),
            };
            let data = data.next().filter(is_whole);
            Some(Part {
                behind: behind.into(),
                kind: kind?,
                type_name: type_name
                    .map_or(Some(None), |name| name.map(|name| Some(name).filter(|name| !name.is_empty())))?,
                schema_version: schema_version?,
                data: data?,
            })
        })
    }
}

fn joined<'a>(mut words: impl ExactSizeIterator<Item = &'a str>) -> Cow<'a, str> {
    let (count, first) = (words.len(), words.next().unwrap_or(""));
    if count < 2 {
        return first.into();
    }
    let mut text = String::with_capacity(16 * count);
    text.push_str(first);
    for word in words {
        text.push(SEPARATOR);
        text.push_str(word);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skald_core::time::Millis;

    use super::{
        super::conformance::sample::{Saga, step_started, step_succeeded},
        *,
    };

    /// A transition of so many events, each changed in some way.
    fn transition(count: usize, change: impl Fn(usize, &mut NewEvent)) -> Transition {
        let steps = (0..count).map(|_| step_started("a")).collect();
        let mut transition = Saga::new(0, 1).transition(steps, |_| {});
        for (index, event) in transition.events.iter_mut().enumerate() {
            change(index, event);
        }
        transition
    }

    /// How many events each run holds, each of which comes back as it was written.
    fn written(transition: &Transition) -> Vec<usize> {
        let mut counts = Vec::new();
        for run in runs(transition) {
            let packed = Packed {
                events: i16::try_from(run.events.len()).unwrap(),
                kind: &run.kind,
                type_name: run.type_name.as_deref(),
                schema_version: i16::try_from(run.schema_version).unwrap(),
                schema_versions: run.schema_versions.as_deref(),
                data: &run.data,
            };
            let types = type_names(packed.events, packed.kind, packed.type_name);
            let parts: Vec<Part<'_>> = packed.parts().map(|part| part.expect("it was written so")).collect();
            for (index, ((event, type_name), part)) in run.events.iter().zip(types).zip(&parts).enumerate() {
                let behind = run.events.len() - 1 - index;
                let its_type = part.type_name.unwrap_or(part.kind);
                assert_eq!((part.behind, part.kind), (i64::try_from(behind).unwrap(), event.event.kind()));
                assert_eq!((its_type, type_name), (&*event.type_name, &*event.type_name));
                assert_eq!(part.schema_version, i16::try_from(event.event.schema_version()).unwrap());
                assert_eq!(part.data, event.event.data());
            }
            assert_eq!(run.last().version, run.events[0].version + run.events.len() as u64 - 1);
            counts.push(parts.len());
        }
        assert_eq!(counts.iter().sum::<usize>(), transition.events.len());
        counts
    }

    #[test]
    fn what_is_written_together_shares_a_row() {
        assert_eq!(written(&transition(1, |_, _| {})), [1]);
        assert_eq!(written(&transition(5, |_, _| {})), [5]);
        assert_eq!(written(&transition(40, |_, _| {})), [32, 8], "no more than whoever looks for one expects");
        assert_eq!(written(&Saga::new(0, 1).create()), [2]);
        let every_form = transition(3, |index, event| {
            if index == 1 {
                event.event = step_succeeded("a");
            }
        });
        assert_eq!(written(&every_form), [3]);
    }

    #[test]
    fn what_differs_in_time_actor_or_origin_does_not() {
        let at = |index, event: &mut NewEvent| {
            if index > 1 {
                event.occurred_at = event.occurred_at.plus(Millis(1));
            }
        };
        assert_eq!(written(&transition(4, at)), [2, 2]);
        let by = |index, event: &mut NewEvent| event.actor = (index == 2).then(|| Arc::from("ann"));
        assert_eq!(written(&transition(4, by)), [2, 1, 1]);
        let from =
            |index, event: &mut NewEvent| event.origin.event_id = (index < 2).then(|| Arc::from(format!("e{index}")));
        assert_eq!(written(&transition(4, from)), [1, 1, 2]);
    }

    #[test]
    fn types_come_back_whatever_they_are_called() {
        for (name, expected) in [
            ("OrderPlaced", vec![3]),
            ("with \"quotes\", \\u001e and \\", vec![3]),
            ("", vec![1, 1, 1]),
            ("a\u{1e}b", vec![1, 1, 1]),
        ] {
            let of_the_second = |index, event: &mut NewEvent| {
                if index == 1 {
                    event.type_name = Arc::from(name);
                }
            };
            let transition = transition(3, of_the_second);
            if expected.len() == 1 {
                assert_eq!(written(&transition), expected, "{name:?}");
            } else {
                let counts: Vec<usize> = runs(&transition).map(|run| run.events.len()).collect();
                assert_eq!(counts, expected, "{name:?}");
            }
        }
    }

    #[test]
    fn long_data_lies_alone() {
        let long = |name: &str| -> NewEvent {
            let mut event = transition(1, |_, _| {}).events.remove(0);
            event.event = step_started(name);
            event
        };
        let (small, large) = ("a".repeat(400), "a".repeat(5000));
        let events = [&small, &small, &small, &small, &large, &small].map(|name| long(name));
        let transition = transition(6, |index, event| event.event = events[index].event.clone());
        assert_eq!(written(&transition), [3, 1, 1, 1]);
    }

    #[test]
    fn a_row_that_does_not_hold_what_it_says_is_told() {
        let packed = |events, kind, type_name, schema_versions, data| {
            let schema_version = 1;
            Packed { events, kind, type_name, schema_version, schema_versions, data }.parts().map(|part| part.is_some())
        };
        let told = |parts: &mut dyn Iterator<Item = bool>| parts.collect::<Vec<bool>>();
        assert_eq!(told(&mut packed(2, "A\u{1e}B", None, None, "{}\u{1e}{}")), [true, true]);
        assert_eq!(told(&mut packed(1, "A", Some("x\u{1e}y"), None, "{}")), [true]);
        assert_eq!(told(&mut packed(2, "A", None, None, "{}\u{1e}{}")), [true, false]);
        assert_eq!(told(&mut packed(2, "A\u{1e}B", None, None, "{}")), [true, false]);
        assert_eq!(told(&mut packed(2, "A\u{1e}B", Some("x"), None, "{}\u{1e}{}")), [true, false]);
        assert_eq!(told(&mut packed(2, "A\u{1e}B", None, Some("1\u{1e}x"), "{}\u{1e}{}")), [true, false]);
        assert_eq!(told(&mut packed(2, "A\u{1e}B\u{1e}C", None, None, "{}\u{1e}{}")), [true, false]);
        assert_eq!(told(&mut packed(0, "A", None, None, "{}")), [true]);
        assert_eq!(told(&mut packed(-3, "A", None, None, "{}")), [true]);
    }
}
