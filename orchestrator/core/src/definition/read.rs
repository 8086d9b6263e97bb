//! From the JSON document to a [`Draft`], leniently: what has the wrong form is told once and replaced by a placeholder,
//! so that the rules between steps can be checked all the same. A draft with any problem never becomes a definition.

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde_json::Value;

use super::{
    Call, Compensation, Definition, InputSchema, Method, SagaEmits, SagaStates, StatusCall, Step, StepEmits, StepKind,
    StepStates, ahead,
    check::Findings,
    document,
    parse::Problem,
    personal::DraftPersonal,
    reader::{Cursor, Reader},
};
use crate::{
    classify::Class,
    expr::{Expr, Template},
    retry::RetryPolicy,
    time::Millis,
};

const TIMEOUT: Millis = Millis(3000);
const POLL: Millis = Millis(1000);
const RETRY: RetryPolicy = RetryPolicy { max_attempts: 4, initial: Millis(200), factor: 2.0, max: Millis(5000) };
const COMPENSATION_RETRY: RetryPolicy =
    RetryPolicy { max_attempts: 12, initial: Millis(200), factor: 2.0, max: Millis(60_000) };

/// A definition whose steps are not yet related to each other.
pub(super) struct Draft {
    name: String,
    version: u32,
    description: Option<String>,
    pub(super) input: InputSchema,
    deadline: Option<Millis>,
    states: SagaStates,
    pub(super) steps: Vec<DraftStep>,
    pub(super) output: Option<Template>,
    pub(super) emits: SagaEmits,
    pub(super) personal: Option<DraftPersonal>,
}

pub(super) struct DraftStep {
    pub(super) place: String,
    /// As written; `None` for the default, the step before.
    pub(super) needs: Option<Vec<String>>,
    pub(super) pivot: bool,
    pub(super) retriable: bool,
    /// `needs`, `dependents`, `kind`, `output_is_referenced` and `ahead_after` are not filled in yet. An unreadable id is empty.
    pub(super) step: Step,
}

impl Draft {
    /// Orders the steps and relates them.
    pub(super) fn finish(self, findings: Findings, document: Value) -> Definition {
        let Findings { graph, outputs_read, personal } = findings;
        let order = graph.topological();
        let mut position = Vec::from_iter(core::iter::repeat_n(0, order.len()));
        for (new, old) in order.iter().enumerate() {
            position[*old] = new;
        }
        let mut drafts: Vec<Option<DraftStep>> = self.steps.into_iter().map(Some).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(order.len());
        for old in order {
            let DraftStep { pivot, retriable, mut step, .. } =
                drafts[old].take().expect("an order names each step once");
            step.needs = graph.needs[old].iter().map(|need| position[*need]).collect();
            step.needs.sort_unstable();
            step.output_is_referenced = outputs_read.contains(&old);
            step.kind = match (pivot, retriable) {
                (true, _) => StepKind::Pivot,
                (false, true) => StepKind::Retriable,
                (false, false) => StepKind::Compensable,
            };
            let index = steps.len();
            for need in &step.needs {
                steps[*need].dependents.push(index);
            }
            steps.push(step);
        }
        ahead::relate(&mut steps);
        Definition {
            name: self.name,
            version: self.version,
            hash: document::hash(&document),
            document: Arc::new(document),
            description: self.description,
            input: self.input,
            deadline: self.deadline,
            states: self.states,
            steps,
            output: self.output,
            emits: self.emits,
            personal,
        }
    }
}

pub(super) fn draft(document: &Value, problems: &mut Vec<Problem>) -> Draft {
    let root = Cursor { place: String::new(), value: document };
    let mut reader = Reader { problems };
    let defaults = reader.defaults(root.get("defaults"));
    let steps = root.get("steps").map(|steps| steps.items()).unwrap_or_default();
    Draft {
        name: reader.required_text(&root, "name"),
        version: reader.version(&root),
        description: root.get("description").and_then(|text| reader.text(&text)),
        input: reader.input(root.get("input").and_then(|input| input.get("schema"))),
        deadline: reader.span(root.get("deadline")),
        states: reader.saga_states(root.get("states"), steps.last()),
        steps: steps.iter().map(|step| reader.step(step, &defaults)).collect(),
        output: reader.template(root.get("output")),
        emits: reader.typed(root.get("emits")).unwrap_or_default(),
        personal: root.get("personal").map(|personal| reader.personal(&personal)),
    }
}

struct Defaults {
    timeout: Millis,
    retry: RetryPolicy,
    compensation_timeout: Millis,
    compensation_retry: RetryPolicy,
}

impl Reader<'_> {
    fn defaults(&mut self, defaults: Option<Cursor<'_>>) -> Defaults {
        let defaults = defaults.as_ref();
        let compensation = defaults.and_then(|defaults| defaults.get("compensation"));
        let compensation = compensation.as_ref();
        let timeout = self.span(defaults.and_then(|defaults| defaults.get("timeout"))).unwrap_or(TIMEOUT);
        Defaults {
            timeout,
            retry: self.retry(defaults.and_then(|defaults| defaults.get("retry")), &RETRY),
            compensation_timeout: self.span(compensation.and_then(|undo| undo.get("timeout"))).unwrap_or(timeout),
            compensation_retry: self.retry(compensation.and_then(|undo| undo.get("retry")), &COMPENSATION_RETRY),
        }
    }

    /// A policy whose keys left out are those of `base`.
    fn retry(&mut self, cursor: Option<Cursor<'_>>, base: &RetryPolicy) -> RetryPolicy {
        let Some(cursor) = cursor else { return base.clone() };
        let max_attempts = match cursor.get("max_attempts") {
            None => base.max_attempts,
            Some(attempts) => match attempts.value.as_u64() {
                Some(count @ 1..=1000) => count as u32,
                _ => {
                    self.unreadable(attempts.place, "must be a whole number from 1 to 1000");
                    base.max_attempts
                }
            },
        };
        let factor = match cursor.get("factor") {
            None => base.factor,
            Some(factor) => match factor.value.as_f64() {
                Some(number) if (1.0..=10.0).contains(&number) => number,
                _ => {
                    self.unreadable(factor.place, "must be a number from 1 to 10");
                    base.factor
                }
            },
        };
        let initial = self.wait(cursor.get("initial")).unwrap_or(base.initial);
        let max = self.wait(cursor.get("max")).unwrap_or(base.max);
        if initial > max {
            let reason = format!("`initial` ({initial}) must not be longer than `max` ({max})");
            self.report(cursor.place.clone(), reason);
        }
        RetryPolicy { max_attempts, initial, factor, max }
    }

    fn input(&mut self, schema: Option<Cursor<'_>>) -> InputSchema {
        let Some(cursor) = schema else { return InputSchema::default() };
        InputSchema::compile(cursor.value).unwrap_or_else(|problems| {
            for problem in problems {
                let mut place = cursor.place.clone();
                if !problem.place.is_empty() && !problem.place.starts_with('[') {
                    place.push('.');
                }
                self.report(place + &problem.place, problem.reason);
            }
            InputSchema::default()
        })
    }

    pub(super) fn template(&mut self, cursor: Option<Cursor<'_>>) -> Option<Template> {
        let cursor = cursor?;
        match Template::compile(cursor.value) {
            Ok(template) => Some(template),
            Err(problems) => {
                for problem in problems {
                    let mut place = cursor.place.clone();
                    if !problem.place.is_empty() && !problem.place.starts_with('[') {
                        place.push('.');
                    }
                    self.report(place + &problem.place, problem.error.to_string());
                }
                None
            }
        }
    }

    /// A template that is a text; a placeholder is the empty text.
    fn text_template(&mut self, cursor: Option<Cursor<'_>>) -> Template {
        if let Some(cursor) = cursor {
            if cursor.value.is_string() {
                if let Some(template) = self.template(Some(cursor)) {
                    return template;
                }
            } else {
                self.unreadable(cursor.place, "must be a string");
            }
        }
        Template::compile(&Value::String(String::new())).expect("a text without expressions compiles")
    }

    fn call(&mut self, parent: &Cursor<'_>) -> Call {
        let missing = Cursor { place: parent.below("call"), value: &Value::Null };
        let call = parent.get("call").unwrap_or(missing);
        let method = self.typed(call.get("method"));
        let path = call.get("path");
        if method.is_none() || path.is_none() || !call.value.is_object() {
            self.unreadable(call.place.clone(), "must name service, method and path");
        }
        let headers = call.get("headers").map(|headers| headers.fields()).unwrap_or_default();
        Call {
            service: self.required_text(&call, "service"),
            method: method.unwrap_or(Method::Post),
            path: self.text_template(path),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), self.text_template(Some(value))))
                .collect(),
            body: self.template(call.get("body")),
        }
    }

    fn step(&mut self, cursor: &Cursor<'_>, defaults: &Defaults) -> DraftStep {
        let id = self.required_text(cursor, "id");
        let timeout = self.span(cursor.get("timeout")).unwrap_or(defaults.timeout);
        let poll = self.span(cursor.get("poll")).unwrap_or(POLL);
        let step = Step {
            needs: Vec::new(),
            dependents: Vec::new(),
            states: self.step_states(&id, cursor.get("states")),
            condition: self.condition(cursor.get("if")),
            call: self.call(cursor),
            has_effect: cursor.get("effect").is_none(),
            output: self.template(cursor.get("output")),
            output_is_referenced: false,
            ahead_after: None,
            compensation: cursor.get("compensate").map(|undo| self.compensation(&undo, defaults, poll)),
            status_call: cursor.get("status").map(|status| StatusCall {
                call: self.call(&status),
                timeout: self.span(status.get("timeout")).unwrap_or(timeout),
            }),
            kind: StepKind::Compensable,
            timeout,
            deadline: self.span(cursor.get("deadline")),
            retry: self.retry(cursor.get("retry"), &defaults.retry),
            poll,
            classify: self.classify(cursor.get("classify")),
            emits: self.typed::<StepEmits>(cursor.get("emits")).unwrap_or_default(),
            id,
        };
        DraftStep {
            place: cursor.place.clone(),
            needs: self.typed(cursor.get("needs")),
            pivot: self.flag(cursor.get("pivot")),
            retriable: self.flag(cursor.get("retriable")),
            step,
        }
    }

    fn compensation(&mut self, undo: &Cursor<'_>, defaults: &Defaults, poll: Millis) -> Compensation {
        Compensation {
            call: self.call(undo),
            timeout: self.span(undo.get("timeout")).unwrap_or(defaults.compensation_timeout),
            retry: self.retry(undo.get("retry"), &defaults.compensation_retry),
            poll: self.span(undo.get("poll")).unwrap_or(poll),
        }
    }

    fn condition(&mut self, cursor: Option<Cursor<'_>>) -> Option<Expr> {
        let cursor = cursor?;
        let text = self.text(&cursor)?;
        match Expr::compile_condition(&text) {
            Ok(expr) => Some(expr),
            Err(error) => {
                self.report(cursor.place, error.to_string());
                None
            }
        }
    }

    fn classify(&mut self, cursor: Option<Cursor<'_>>) -> BTreeMap<u16, Class> {
        let mut classes = BTreeMap::new();
        for (status, class) in cursor.map(|cursor| cursor.fields()).unwrap_or_default() {
            let place = class.place.clone();
            match status.parse::<u16>() {
                Ok(202) => self.report(place, "202 always means that the service is still at it"),
                Ok(status @ 200..=599) => {
                    classes.extend(self.typed::<Class>(Some(class)).map(|class| (status, class)));
                }
                _ => self.unreadable(place, "must be an HTTP status from 200 to 599"),
            }
        }
        classes
    }

    /// A completed saga is where its last step says it is done, if that has a name and the saga's own has not.
    fn saga_states(&mut self, states: Option<Cursor<'_>>, last_step: Option<&Cursor<'_>>) -> SagaStates {
        let last_done = last_step.and_then(|step| self.text(&step.get("states")?.get("done")?));
        let mut named = |key: &str| {
            let named = states.as_ref().and_then(|states| states.get(key)).and_then(|name| self.text(&name));
            named
                .or_else(|| last_done.clone().filter(|_| key == "completed"))
                .unwrap_or_else(|| key.to_ascii_uppercase())
        };
        SagaStates {
            pending: named("pending"),
            completed: named("completed"),
            compensating: named("compensating"),
            compensated: named("compensated"),
            parked: named("parked"),
        }
    }

    fn step_states(&mut self, id: &str, states: Option<Cursor<'_>>) -> StepStates {
        let mut named = |key: &str| {
            let named = states.as_ref().and_then(|states| states.get(key)).and_then(|name| self.text(&name));
            named.unwrap_or_else(|| format!("{id}_{key}").to_ascii_uppercase())
        };
        StepStates { doing: named("doing"), done: named("done"), failed: named("failed"), undoing: named("undoing") }
    }
}
