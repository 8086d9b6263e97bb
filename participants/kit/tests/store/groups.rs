//! Consumer groups: what was handed out, what failed, and which streams wait for it.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Data;

#[derive(Debug, Default)]
pub struct Group {
    types: Vec<String>,
    kinds: Vec<String>,
    mode: Option<String>,
    /// By the event's index in the log.
    states: HashMap<usize, State>,
    tokens: u64,
}

#[derive(Debug)]
enum State {
    Out { token: u64, consumer: String, until: Instant, tries: u32 },
    Retry { at: Instant, tries: u32 },
    Done,
    Parked(String),
}

/// Quick, for tests: 20 ms and doubling.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES_MAX: u32 = 5;

impl Data {
    pub fn put_group(&mut self, name: &str, body: &Value) {
        let group = self.groups.entry(name.to_owned()).or_default();
        let names = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        group.types = names(&body["filter"]["types"]);
        group.kinds = names(&body["filter"]["kinds"]);
        group.mode = body["filter"]["mode"].as_str().map(str::to_owned);
    }

    pub fn poll(&mut self, name: &str, body: &Value) -> Vec<Value> {
        let limit = usize::try_from(body["limit"].as_u64().unwrap()).unwrap();
        let lease: u64 = body["lease"].as_str().unwrap().strip_suffix("ms").unwrap().parse().unwrap();
        let consumer = body["consumer"].as_str().unwrap();
        let Some(group) = self.groups.get_mut(name) else { return Vec::new() };
        let mut waiting: HashSet<&str> = HashSet::new();
        let mut deliveries = Vec::new();
        for (index, event) in self.log.iter().enumerate() {
            let stream = event["stream"].as_str().unwrap();
            let named = |names: &[String], name: &Value| names.is_empty() || names.iter().any(|wanted| name == wanted);
            let wanted = named(&group.types, &event["type"]) && named(&group.kinds, &event["kind"]);
            let wanted = wanted && group.mode.as_ref().is_none_or(|mode| event["mode"] == **mode);
            if !wanted || waiting.contains(stream) || deliveries.len() >= limit {
                continue;
            }
            let tries = match group.states.get(&index) {
                None => 1,
                Some(State::Done) => continue,
                Some(State::Out { until, tries, .. }) if *until <= Instant::now() => tries + 1,
                Some(State::Retry { at, tries }) if *at <= Instant::now() => tries + 1,
                Some(State::Out { consumer: holder, .. }) if holder == consumer => continue,
                Some(State::Out { .. } | State::Retry { .. } | State::Parked(_)) => {
                    waiting.insert(stream);
                    continue;
                }
            };
            group.tokens += 1;
            let until = Instant::now() + Duration::from_millis(lease);
            let (token, consumer) = (group.tokens, consumer.to_owned());
            group.states.insert(index, State::Out { token, consumer, until, tries });
            deliveries.push(json!({
                "event": event, "shard": event["shard"], "position": event["position"],
                "token": group.tokens, "try": tries,
            }));
        }
        deliveries
    }

    /// Gives what was refused.
    pub fn settle(&mut self, name: &str, settlements: &Value) -> Vec<Value> {
        let mut refused = Vec::new();
        for settlement in settlements.as_array().into_iter().flatten() {
            let place = |event: &Value| (event["shard"].as_u64(), event["position"].as_i64());
            let index = self.log.iter().position(|event| place(event) == place(settlement)).unwrap();
            let group = self.groups.get_mut(name).unwrap();
            let tries = match group.states.get(&index) {
                Some(State::Out { token, tries, .. }) if settlement["token"] == *token => *tries,
                _ => {
                    refused.push(json!({"shard": settlement["shard"], "position": settlement["position"]}));
                    continue;
                }
            };
            let error = || settlement["error"].as_str().unwrap().to_owned();
            let state = match settlement["outcome"].as_str().unwrap() {
                "done" => State::Done,
                "failed" if tries < TRIES_MAX => State::Retry { at: Instant::now() + PAUSE * 2_u32.pow(tries), tries },
                _ => State::Parked(error()),
            };
            group.states.insert(index, state);
        }
        refused
    }

    pub fn parked(&self, name: &str) -> Vec<String> {
        let states = self.groups.get(name).into_iter().flat_map(|group| group.states.values());
        states.filter_map(|state| if let State::Parked(error) = state { Some(error.clone()) } else { None }).collect()
    }
}
