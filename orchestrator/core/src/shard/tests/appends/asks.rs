//! Who appends, what they are told, and what must be true of it.

use alloc::{format, string::ToString, sync::Arc, vec, vec::Vec};

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::{
    Happening,
    replica::Replica,
    store::{Store, UNWRITABLE},
};
use crate::{
    ids::{Epoch, Shard},
    shard::{
        appends::{AppendRequest, Appended, ExpectedVersion, ToAppend},
        batch::{Append, AppendedEvent},
        writer::Refusal,
    },
    time::Timestamp,
};

/// Somebody appends.
#[derive(Clone, Debug)]
pub struct AppendAsk {
    pub stream: u8,
    pub expected: ExpectedVersion,
    pub ids: Vec<u8>,
    pub type_name: &'static str,
}

/// An append that was asked for, and what came of it.
#[derive(Debug)]
pub struct Asking {
    pub ask: AppendAsk,
    pub answer: Option<Result<Appended, Refusal>>,
    /// Whether the process died before it answered.
    crashed: bool,
}

impl Asking {
    pub fn crash(&mut self) {
        self.crashed = self.answer.is_none();
    }
}

/// Few streams and few ids, so that they meet.
pub fn ask() -> impl Strategy<Value = AppendAsk> {
    let expected = prop_oneof![
        2 => Just(ExpectedVersion::Any),
        1 => (0_u64..6).prop_map(ExpectedVersion::Exactly),
    ];
    let type_name = prop_oneof![15 => Just("ItemAdded"), 1 => Just(UNWRITABLE)];
    let ids = prop_oneof![
        3 => (0_u8..100).prop_map(|id| vec![id]),
        2 => (0_u8..100, 1_u8..4).prop_map(|(id, count)| (id..id + count).collect()),
        1 => proptest::collection::vec(0_u8..20, 1..4),
    ];
    (0_u8..4, expected, ids, type_name).prop_map(|(stream, expected, ids, type_name)| AppendAsk {
        stream,
        expected,
        ids,
        type_name,
    })
}

pub fn name(stream: u8) -> Arc<str> {
    Arc::from(format!("cart-{stream}"))
}

/// What the one who usurped a shard appends to each stream in it.
pub fn foreign(store: &mut Store, shard: Shard, epoch: Epoch, now: Timestamp) {
    let here = store.named.iter().filter(|(_, named)| named.shard == shard);
    let appends: Vec<Append> = here
        .map(|(name, named)| {
            let version = named.events.len() as u64 + 1;
            let event = AppendedEvent {
                version,
                event_id: Arc::from(format!("foreign-{version}")),
                type_name: Arc::from("ItemAdded"),
                schema_version: 1,
                occurred_at: now,
                actor: None,
                correlation_id: None,
                causation_id: None,
                data: RawValue::from_string("null".to_string()).unwrap(),
            };
            let (stream, name) = (named.id, Arc::clone(name));
            Append { shard, stream, name, version_before: version - 1, events: vec![event] }
        })
        .collect();
    appends.iter().for_each(|append| store.append(append, epoch));
}

impl Replica {
    /// Each event's data is the number of the request that brought it.
    pub fn append(&mut self, ask: &AppendAsk) {
        self.requests += 1;
        let event = |id: &u8| ToAppend {
            event_id: Arc::from(id.to_string()),
            type_name: Arc::from(ask.type_name),
            schema_version: 1,
            actor: None,
            correlation_id: None,
            causation_id: None,
            data: RawValue::from_string(self.requests.to_string()).unwrap(),
        };
        let request = AppendRequest {
            stream: name(ask.stream),
            expected: ask.expected,
            events: ask.ids.iter().map(event).collect(),
            entropy: core::array::from_fn(|index| (self.requests >> (index % 4 * 8)) as u8),
        };
        self.appends.insert(self.requests, Asking { ask: ask.clone(), answer: None, crashed: false });
        self.writer.append(request, self.requests, self.now);
    }

    pub fn end_look_up(&mut self, failed: bool) {
        let Some((read, asks)) = self.look_ups.pop() else { return };
        if failed {
            return self.writer.not_looked_up(read);
        }
        let looks = asks.iter().map(|ask| self.store.look_up(ask)).collect();
        self.writer.looked_up(read, looks, self.now);
    }

    pub fn appended(&mut self, request: u32, answer: Result<Appended, Refusal>) {
        let asking = self.appends.get_mut(&request).expect("it was asked for");
        if let Err(Refusal::WrongVersion { actual, .. }) = answer {
            assert_eq!(actual, self.store.version_of(&name(asking.ask.stream)), "it is told from the database");
        }
        assert_eq!(asking.answer.replace(answer), None, "one answer per request");
    }

    /// Appends an event of that id, expecting any version.
    pub fn any(&mut self, stream: u8, ids: &[u8]) {
        self.ask_for(stream, ExpectedVersion::Any, ids);
    }

    pub fn exactly(&mut self, stream: u8, version: u64, ids: &[u8]) {
        self.ask_for(stream, ExpectedVersion::Exactly(version), ids);
    }

    fn ask_for(&mut self, stream: u8, expected: ExpectedVersion, ids: &[u8]) {
        self.happen(&Happening::Append(AppendAsk { stream, expected, ids: ids.to_vec(), type_name: "ItemAdded" }));
    }

    /// Of all appends so far: the version, with `true` for a repetition; None while there is no answer.
    pub fn answers(&self) -> Vec<Option<Result<(u64, bool), Refusal>>> {
        let brief = |appended: Appended| (appended.version, appended.replayed);
        self.appends.values().map(|asking| asking.answer.clone().map(|answer| answer.map(brief))).collect()
    }

    pub fn ids(&self, stream: u8) -> Vec<u8> {
        let named = self.store.named.get(&name(stream));
        let events = named.map_or(&[][..], |named| &named.events);
        events.iter().map(|placed| placed.event.event_id.parse().unwrap()).collect()
    }
}

pub fn written(version: u64) -> Option<Result<(u64, bool), Refusal>> {
    Some(Ok((version, false)))
}

pub fn known(version: u64) -> Option<Result<(u64, bool), Refusal>> {
    Some(Ok((version, true)))
}

pub fn refused(refusal: Refusal) -> Option<Result<(u64, bool), Refusal>> {
    Some(Err(refusal))
}

/// What was acknowledged is there, what was refused is not, and nothing is there twice or in another order.
pub fn check(replica: &Replica) {
    let mut last: [u64; 4] = [0; 4];
    for (request, asking) in &replica.appends {
        let Asking { ask, answer, crashed } = asking;
        let named = replica.store.named.get(&name(ask.stream));
        let events = named.map_or(&[][..], |named| &named.events);
        let at = |id: &u8| events.iter().position(|placed| *placed.event.event_id == *id.to_string());
        let brought = events.iter().filter(|placed| placed.event.data.get() == request.to_string());
        let brought: Vec<u64> = brought.map(|placed| placed.event.version).collect();
        match answer {
            Some(Ok(Appended { version, replayed: false, .. })) => {
                let first = version + 1 - ask.ids.len() as u64;
                assert_eq!(brought, (first..=*version).collect::<Vec<u64>>(), "{request}: {asking:?}");
                let before = core::mem::replace(&mut last[usize::from(ask.stream)], *version);
                assert!(before < first, "{request}: a stream's appends are written in their order");
                if let ExpectedVersion::Exactly(expected) = ask.expected {
                    assert_eq!(first, expected + 1, "{request}: {asking:?}");
                }
            }
            Some(Ok(Appended { version, replayed: true, .. })) => {
                assert!(brought.is_empty(), "{request}: {asking:?}");
                let places: Vec<usize> = ask.ids.iter().map(|id| at(id).expect("it is known")).collect();
                assert!(places.is_sorted_by(|a, b| a < b), "{request}: {asking:?}");
                assert_eq!(places.last().map(|place| *place as u64 + 1), Some(*version));
            }
            Some(Err(Refusal::InDoubt)) => assert!(brought.is_empty() || brought.len() == ask.ids.len()),
            Some(Err(_)) => assert!(brought.is_empty(), "{request}: {asking:?}"),
            None => {
                assert!(crashed, "request {request} was never answered: {asking:?}");
                assert!(brought.is_empty() || brought.len() == ask.ids.len());
            }
        }
        let harmless = ask.type_name != UNWRITABLE && !matches!(answer, Some(Err(Refusal::Unwritable(_))));
        assert!(harmless || brought.is_empty(), "{request}: {asking:?}");
        assert!(ask.type_name == UNWRITABLE || harmless, "{request}: an offender takes nobody with it");
    }
}
