//! The rules between the parts of a definition. Each broken rule is told with its place and what would mend it.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};

use super::{
    Call, Method, Personal, SagaEmits, StepEmits,
    order::{Graph, STEPS_MAX},
    parse::Problem,
    personal,
    read::{Draft, DraftStep},
    references,
};
use crate::event::Event;

/// What the checks learn about the steps, for the definition made of them.
pub(super) struct Findings {
    pub(super) graph: Graph,
    /// Steps, by written index, whose output something other than their own compensation counts on.
    pub(super) outputs_read: BTreeSet<usize>,
    pub(super) personal: Option<Personal>,
}

pub(super) fn check(draft: &Draft, services: Option<&[String]>, problems: &mut Vec<Problem>) -> Findings {
    // More steps than the format allows have been told, and would not fit the sets used here.
    let steps = draft.steps.get(..STEPS_MAX).unwrap_or(&draft.steps);
    let graph = Graph::new(steps, problems);
    check_pivot(steps, &graph, problems);
    for step in steps {
        check_compensation(step, problems);
        let place = &step.place;
        check_call(&step.step.call, &format!("{place}.call"), services, problems);
        if let Some(undo) = &step.step.compensation {
            check_call(&undo.call, &format!("{place}.compensate.call"), services, problems);
        }
        if let Some(status) = &step.step.status_call {
            check_call(&status.call, &format!("{place}.status.call"), services, problems);
            if status.call.method != Method::Get {
                tell(problems, format!("{place}.status.call.method"), "must be GET: a status call only looks");
            }
        }
    }
    check_must_compensate(steps, &graph, problems);
    let outputs_read = references::check(draft, steps, &graph, problems);
    let personal = personal::check(draft, steps, &graph, problems);
    check_event_names(draft, steps, problems);
    Findings { graph, outputs_read, personal }
}

pub(super) fn tell(problems: &mut Vec<Problem>, place: String, reason: impl Into<String>) {
    problems.push(Problem::new(place, reason.into()));
}

fn the_pivot(steps: &[DraftStep]) -> Option<usize> {
    steps.iter().position(|step| step.pivot)
}

fn check_pivot(steps: &[DraftStep], graph: &Graph, problems: &mut Vec<Problem>) {
    let pivot = the_pivot(steps);
    for (at, step) in steps.iter().enumerate() {
        let id = &step.step.id;
        let retriable = || format!("{}.retriable", step.place);
        let Some(pivot) = pivot else {
            if step.retriable {
                tell(problems, retriable(), "only steps after a pivot are retriable, and this saga has no pivot");
            }
            continue;
        };
        let pivot_id = &steps[pivot].step.id;
        if at == pivot {
            if step.retriable {
                tell(problems, retriable(), "the pivot itself can be refused: take `retriable` out");
            }
            continue;
        }
        if step.pivot {
            let reason = format!("`{pivot_id}` is the pivot already: a saga has at most one");
            tell(problems, format!("{}.pivot", step.place), reason);
            continue;
        }
        if graph.in_cycle(at) || graph.in_cycle(pivot) {
            continue;
        }
        let (before, after) = (graph.is_upstream(at, pivot), graph.is_upstream(pivot, at));
        match (before, after, step.retriable) {
            (false, false, _) => {
                let reason = format!(
                    "`{id}` is neither before nor after the pivot `{pivot_id}`: relate them with `needs`, so that it is \
                     clear whether it can still be undone"
                );
                tell(problems, step.place.clone(), reason);
            }
            (true, _, true) => {
                let reason = format!("`{id}` comes before the pivot `{pivot_id}`: only steps after it are retriable");
                tell(problems, retriable(), reason);
            }
            (false, true, false) => {
                let reason = format!("`{id}` comes after the pivot `{pivot_id}` and must say `retriable: true`");
                tell(problems, retriable(), reason);
            }
            (true, _, false) | (false, true, true) => {}
        }
    }
}

fn check_compensation(step: &DraftStep, problems: &mut Vec<Problem>) {
    if !step.step.has_effect && step.step.compensation.is_some() {
        let reason = "the step has `effect: none`, so there is nothing to undo: take one of the two out";
        tell(problems, format!("{}.compensate", step.place), reason);
    }
}

/// What has an effect before the pivot must be undoable.
fn check_must_compensate(steps: &[DraftStep], graph: &Graph, problems: &mut Vec<Problem>) {
    let pivot = the_pivot(steps);
    for (at, step) in steps.iter().enumerate() {
        let after = pivot.is_some_and(|pivot| pivot == at || graph.is_upstream(pivot, at));
        if step.step.has_effect && step.step.compensation.is_none() && !after && !step.pivot {
            let reason = format!(
                "`{}` has an effect that may have to be undone: add `compensate`, or `effect: none` if it changes nothing",
                step.step.id
            );
            tell(problems, format!("{}.compensate", step.place), reason);
        }
    }
}

fn check_call(call: &Call, place: &str, services: Option<&[String]>, problems: &mut Vec<Problem>) {
    if let Some(services) = services
        && !call.service.is_empty()
        && !services.contains(&call.service)
    {
        let known = if services.is_empty() { "none".to_owned() } else { services.join(", ") };
        let reason = format!("the configuration has no service `{}`; it has: {known}", call.service);
        tell(problems, format!("{place}.service"), reason);
    }
    if call.method == Method::Get && call.body.is_some() {
        tell(problems, format!("{place}.body"), "a GET has no body: use the path's query, or another method");
    }
    if let Some(path) = call.path.text_with("x").filter(|path| !path.is_empty())
        && let Some(reason) = path_problem(&path)
    {
        tell(problems, format!("{place}.path"), reason);
    }
    let mut names = BTreeMap::new();
    for (name, value) in &call.headers {
        let mut at = format!("{place}.headers");
        crate::json::push_key(&mut at, name);
        let lower = name.to_ascii_lowercase();
        if let Some(reason) = header_problem(&lower) {
            tell(problems, at.clone(), reason);
        }
        if let Some(other) = names.insert(lower, name) {
            tell(
                problems,
                at.clone(),
                format!("`{other}` is the same header: names do not tell upper from lower case"),
            );
        }
        let visible = |text: String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !value.text_with("x").is_none_or(visible) {
            tell(problems, at, "a header's value can only hold visible ASCII characters and blanks");
        }
    }
}

/// What is wrong with a path whose expressions are replaced by a letter.
fn path_problem(path: &str) -> Option<&'static str> {
    let (segments, _query) = path.split_once('?').unwrap_or((path, ""));
    if !path.starts_with('/') {
        return Some("must start with `/`: it is a path below the service's base URL");
    }
    if path.starts_with("//") {
        return Some("must not start with `//`, which would name another host");
    }
    if path.contains('#') {
        return Some("must not hold `#`: fragments are never sent");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    if !path.bytes().all(allowed) {
        return Some("holds a character that a URL cannot: percent-encode it");
    }
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if segments.split('/').any(dots) {
        return Some("must not hold the segments `.` or `..`");
    }
    None
}

/// What is wrong with a header's name, given in lower case.
fn header_problem(name: &str) -> Option<String> {
    const TAKEN: [&str; 19] = [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-correlation-id",
    ];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Some("is not a header's name".to_owned());
    }
    if TAKEN.contains(&name) || name.starts_with("saga-") {
        return Some("is set by Skald itself and cannot be set here".to_owned());
    }
    None
}

/// Each domain event must mean one thing.
fn check_event_names(draft: &Draft, steps: &[DraftStep], problems: &mut Vec<Problem>) {
    let saga = saga_events(&draft.emits).map(|(event, name)| (format!("emits.{event}"), name));
    let steps = steps.iter().flat_map(|step| {
        step_events(&step.step.emits).map(|(event, name)| (format!("{}.emits.{event}", step.place), name))
    });
    let mut meanings: BTreeMap<&str, String> = BTreeMap::new();
    for (place, name) in saga.into_iter().chain(steps) {
        let Some(name) = name else { continue };
        if Event::KINDS.contains(&name.as_str()) {
            tell(problems, place, format!("`{name}` is the engine's own name of an event: choose another"));
        } else if let Some(first) = meanings.get(name.as_str()) {
            tell(problems, place, format!("`{name}` is the event of {first} already: a name means one thing"));
        } else {
            meanings.insert(name, place);
        }
    }
}

fn saga_events(emits: &SagaEmits) -> [(&'static str, &Option<String>); 6] {
    let SagaEmits { started, completed, failed, compensated, abandoned, parked } = emits;
    [
        ("started", started),
        ("completed", completed),
        ("failed", failed),
        ("compensated", compensated),
        ("abandoned", abandoned),
        ("parked", parked),
    ]
}

fn step_events(emits: &StepEmits) -> [(&'static str, &Option<String>); 7] {
    let StepEmits { started, succeeded, rejected, unknown, skipped, compensating, compensated } = emits;
    [
        ("started", started),
        ("succeeded", succeeded),
        ("rejected", rejected),
        ("unknown", unknown),
        ("skipped", skipped),
        ("compensating", compensating),
        ("compensated", compensated),
    ]
}
