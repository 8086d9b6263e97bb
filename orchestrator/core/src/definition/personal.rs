//! What of a saga is a person's: which fields are sealed, and that nothing computes with them.
//!
//! A sealed field holds a token, which is a text, instead of its value. So it can be passed on, whole or within a text, and
//! tested with `has()`; an operator or a function would see the token. That goes for every place to which a definition
//! itself passes a sealed field: a step's output that holds one is sealed there too.
//!
//! Personal data in a step's output is sealed in the answer, before the engine sees it. So each such field must be passed
//! from the answer's body as it is.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde_json::Value;

use super::{
    check::tell,
    order::Graph,
    parse::Problem,
    read::{Draft, DraftStep},
    reader::{Cursor, Reader},
    references::{Role, uses},
};
use crate::{
    expr::{Hop, Origin, Placed, Purpose, Read, Saga, Scope, Template},
    personal::{Path, Segment},
};

/// The longest name of a subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 256;

/// What of a saga is a person's, and whose.
#[derive(Debug)]
pub struct Personal {
    subject: Arc<Template>,
    input: Vec<Path>,
    outputs: BTreeMap<String, Fields>,
}

/// Personal data of one step.
#[derive(Debug, Default)]
struct Fields {
    /// In its output.
    output: BTreeSet<Path>,
    /// In the body of the answer to its action.
    answer: Arc<[Path]>,
}

/// Why it cannot be told whose data it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSubject {
    #[error("{0}")]
    Expression(String),
    #[error("the subject must be a text of 1 to {SUBJECT_BYTES_MAX} bytes or a whole number")]
    NotAName,
}

impl Personal {
    /// Whose data an input holds.
    ///
    /// # Errors
    ///
    /// When the expression fails, or gives no name.
    pub fn subject(&self, input: &Value) -> Result<String, NoSubject> {
        let scope = Scope { saga: &Saga::default(), input, outputs: &[], response: None };
        let subject = self.subject.render(scope).map_err(|error| NoSubject::Expression(error.to_string()))?;
        let name = match subject {
            Value::String(name) => name,
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => return Err(NoSubject::NotAName),
        };
        let is_name = !name.trim().is_empty() && name.len() <= SUBJECT_BYTES_MAX && !name.chars().any(char::is_control);
        if is_name { Ok(name) } else { Err(NoSubject::NotAName) }
    }

    /// Where it lies in the input.
    #[must_use]
    pub fn input(&self) -> &[Path] {
        &self.input
    }

    /// Where it lies in the output of a step.
    pub fn output(&self, step: &str) -> impl Iterator<Item = &Path> {
        self.outputs.get(step).into_iter().flat_map(|fields| &fields.output)
    }

    /// Where it lies in the body of the answer to a step's action.
    #[must_use]
    pub fn answer(&self, step: &str) -> Arc<[Path]> {
        self.outputs.get(step).map(|fields| Arc::clone(&fields.answer)).unwrap_or_default()
    }
}

/// `personal` as written.
pub(super) struct DraftPersonal {
    place: String,
    subject: Option<Arc<Template>>,
    fields: Vec<Field>,
}

/// An item of `fields`.
struct Field {
    place: String,
    text: String,
    of: FieldOf,
    path: Path,
}

enum FieldOf {
    Input,
    Step(String),
}

impl Reader<'_> {
    pub(super) fn personal(&mut self, cursor: &Cursor<'_>) -> DraftPersonal {
        let subject = self.template(cursor.get("subject")).map(Arc::new);
        let items = cursor.get("fields").map(|fields| fields.items()).unwrap_or_default();
        let mut fields = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = self.text(&item) else { continue };
            match field_of(&text) {
                Ok((of, path)) => fields.push(Field { place: item.place, text, of, path }),
                Err(reason) => self.report(item.place, reason),
            }
        }
        DraftPersonal { place: cursor.place.clone(), subject, fields }
    }
}

fn field_of(text: &str) -> Result<(FieldOf, Path), String> {
    let found = match text.split_once('.') {
        Some(("input", path)) => Some((FieldOf::Input, path)),
        Some(("steps", rest)) => match rest.split_once('.') {
            Some((step, "output")) => return Ok((FieldOf::Step(String::from(step)), Path::default())),
            Some((step, rest)) => rest.strip_prefix("output.").map(|path| (FieldOf::Step(String::from(step)), path)),
            None => None,
        },
        _ => None,
    };
    match found {
        Some((of, path)) if !path.is_empty() => Ok((of, path.parse()?)),
        _ => Err(format!("`{text}` must name a field of `input` or of `steps.<id>.output`")),
    }
}

/// A place where a token may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sealed {
    origin: Origin,
    /// Whose answer it is, for `response`.
    step: Option<usize>,
    path: Path,
    /// The field that makes it so.
    field: String,
}

/// How what is read lies to what is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Apart,
    /// It holds what is sealed.
    Above,
    Same,
    /// It would lie within what is sealed.
    Below,
}

pub(super) fn check(
    draft: &Draft,
    steps: &[DraftStep],
    graph: &Graph,
    problems: &mut Vec<Problem>,
) -> Option<Personal> {
    let personal = draft.personal.as_ref()?;
    check_subject(personal, problems);
    let mut sealed = Vec::new();
    let mut answers: BTreeMap<usize, BTreeSet<Path>> = BTreeMap::new();
    for field in &personal.fields {
        let (origin, step) = match &field.of {
            FieldOf::Input => (Origin::Input, None),
            FieldOf::Step(id) => match graph.find(id) {
                Some(step) => (Origin::Output(id.clone()), Some(step)),
                None => {
                    tell(problems, field.place.clone(), format!("`steps.{id}`: there is no step `{id}`"));
                    continue;
                }
            },
        };
        sealed.push(Sealed { origin, step: None, path: field.path.clone(), field: field.text.clone() });
        let Some(step) = step else { continue };
        match in_answer(&steps[step], &field.path, &sealed) {
            Ok(paths) => {
                for path in paths {
                    let body = Path(alloc::vec![Segment::Key(String::from("body"))]).then(&path.0);
                    let field = field.text.clone();
                    sealed.push(Sealed { origin: Origin::Response, step: Some(step), path: body, field });
                    answers.entry(step).or_default().insert(path);
                }
            }
            Err(reason) => tell(problems, field.place.clone(), format!("`{}` {reason}", field.text)),
        }
    }
    passed_on(steps, &mut sealed);
    check_uses(draft, steps, &sealed, problems);
    finish(personal, steps, &sealed, answers)
}

fn check_subject(personal: &DraftPersonal, problems: &mut Vec<Problem>) {
    let Some(subject) = &personal.subject else { return };
    let place = format!("{}.subject", personal.place);
    let expressions = subject.expressions();
    if expressions.is_empty() {
        tell(problems, place.clone(), "must be an expression over the input, such as `${input.customer_id}`");
    }
    for (_, expr) in expressions {
        if expr.reads().iter().any(|read| read.origin != Origin::Input) || !expr.references().steps.is_empty() {
            let reason = format!("`{}`: only `input` can be read here: it is asked before the saga is", expr.source());
            tell(problems, place.clone(), reason);
        }
    }
}

/// Where in the body of a step's answer the output's field at `path` comes from.
fn in_answer(step: &DraftStep, path: &Path, sealed: &[Sealed]) -> Result<Vec<Path>, String> {
    let Some(template) = &step.step.output else { return Ok(Vec::from([path.clone()])) };
    let mut found = Vec::new();
    let mut is_there = false;
    for placed in template.placed() {
        let rest = match relate(&placed.path, &hops(path)) {
            // The template names the field, or something in it.
            Relation::Same | Relation::Above => &[][..],
            Relation::Below => &path.0[placed.path.len()..],
            Relation::Apart => continue,
        };
        is_there = true;
        let source = placed.expr.source();
        for read in placed.expr.reads() {
            if read.purpose == Purpose::Tested {
                continue;
            }
            let from_body = match (&read.origin, read.path.split_first()) {
                (Origin::Response, Some((Hop::Key(body), below))) if body == "body" => segments(below),
                _ => None,
            };
            match from_body {
                Some(below) if read.purpose == Purpose::Passed => found.push(Path(below).then(rest)),
                _ if is_sealed(&read, sealed) => {}
                _ => {
                    return Err(format!(
                        "comes from `{source}`: it can be sealed only where it is passed from `response.body` as it is"
                    ));
                }
            }
        }
    }
    if is_there { Ok(found) } else { Err(String::from("is not in the step's `output`")) }
}

fn is_sealed(read: &Read, sealed: &[Sealed]) -> bool {
    let same = |sealed: &&Sealed| sealed.origin == read.origin && relate(&sealed.path.0, &read.path) == Relation::Same;
    sealed.iter().any(|one| same(&one))
}

/// Adds where tokens come to stand in outputs because the definition passes them there.
fn passed_on(steps: &[DraftStep], sealed: &mut Vec<Sealed>) {
    loop {
        let mut more = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            for placed in step.step.output.iter().flat_map(Template::placed) {
                for one in sealed.iter() {
                    let origin = Origin::Output(step.step.id.clone());
                    let paths = arrivals(&placed, at, one).into_iter();
                    more.extend(paths.map(|path| Sealed { origin: origin.clone(), step: None, path, ..one.clone() }));
                }
            }
        }
        more.retain(|one| !sealed.iter().any(|known| known.origin == one.origin && known.path == one.path));
        match more.pop() {
            Some(one) => sealed.push(one),
            None => return,
        }
    }
}

/// Where in the output of step `at` a token of `sealed` comes to stand by this expression.
fn arrivals(placed: &Placed<'_>, at: usize, sealed: &Sealed) -> Vec<Path> {
    let here = Path(placed.path.clone());
    let mut arrivals = Vec::new();
    for read in placed.expr.reads() {
        if read.purpose != Purpose::Passed || !is_of(&read, at, sealed) {
            continue;
        }
        match relate(&sealed.path.0, &read.path) {
            Relation::Above if placed.expr.is_chain() => arrivals.push(here.then(&sealed.path.0[read.path.len()..])),
            Relation::Above | Relation::Same => arrivals.push(here.clone()),
            Relation::Apart | Relation::Below => {}
        }
    }
    arrivals
}

/// Whether what is read in an expression of step `at` has the origin of what is sealed.
fn is_of(read: &Read, at: usize, sealed: &Sealed) -> bool {
    read.origin == sealed.origin && sealed.step.is_none_or(|step| step == at)
}

fn check_uses(draft: &Draft, steps: &[DraftStep], sealed: &[Sealed], problems: &mut Vec<Problem>) {
    for found in uses(draft, steps) {
        let broken = found.expr.reads().into_iter().find_map(|read| {
            let purpose = match (found.role, read.purpose) {
                (Role::Condition, Purpose::Passed) => Purpose::Computed,
                (_, purpose) => purpose,
            };
            let of_this = |one: &&Sealed| found.step.map_or(read.origin == one.origin, |at| is_of(&read, at, one));
            let rule = |one: &Sealed| broken_rule(relate(&one.path.0, &read.path), purpose);
            sealed.iter().filter(of_this).find_map(|one| Some((&one.field, rule(one)?)))
        });
        if let Some((field, rule)) = broken {
            let reason = format!("`{}`: `{field}` is personal and sealed: {rule}", found.expr.source());
            tell(problems, found.place, reason);
        }
    }
}

fn broken_rule(relation: Relation, purpose: Purpose) -> Option<&'static str> {
    match (relation, purpose) {
        (Relation::Apart, _)
        | (Relation::Above | Relation::Same, Purpose::Passed | Purpose::Tested)
        | (Relation::Above, Purpose::Walked) => None,
        (Relation::Below, _) => Some("nothing within it can be read"),
        (Relation::Above | Relation::Same, Purpose::Computed) | (Relation::Same, Purpose::Walked) => {
            Some("it can be passed on, whole or within a text, and tested with has(), but not computed with")
        }
    }
}

/// How `read` lies to `sealed`.
fn relate(sealed: &[Segment], read: &[Hop]) -> Relation {
    let meets = |(segment, hop): (&Segment, &Hop)| match (segment, hop) {
        (Segment::Key(key), Hop::Key(read)) => key == read,
        (Segment::Items, Hop::Item) | (_, Hop::Unknown) => true,
        (Segment::Items, Hop::Key(_)) | (Segment::Key(_), Hop::Item) => false,
    };
    if !sealed.iter().zip(read).all(meets) {
        return Relation::Apart;
    }
    match sealed.len().cmp(&read.len()) {
        core::cmp::Ordering::Less => Relation::Below,
        core::cmp::Ordering::Equal => Relation::Same,
        core::cmp::Ordering::Greater => Relation::Above,
    }
}

fn hops(path: &Path) -> Vec<Hop> {
    let hop = |segment: &Segment| match segment {
        Segment::Key(key) => Hop::Key(key.clone()),
        Segment::Items => Hop::Item,
    };
    path.0.iter().map(hop).collect()
}

/// None when it is not known where the hops lead.
fn segments(hops: &[Hop]) -> Option<Vec<Segment>> {
    let segment = |hop: &Hop| match hop {
        Hop::Key(key) => Some(Segment::Key(key.clone())),
        Hop::Item => Some(Segment::Items),
        Hop::Unknown => None,
    };
    hops.iter().map(segment).collect()
}

fn finish(
    personal: &DraftPersonal,
    steps: &[DraftStep],
    sealed: &[Sealed],
    mut answers: BTreeMap<usize, BTreeSet<Path>>,
) -> Option<Personal> {
    let mut outputs: BTreeMap<String, Fields> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let of_step = |one: &&Sealed| matches!(&one.origin, Origin::Output(id) if *id == step.step.id);
        let output: BTreeSet<Path> = sealed.iter().filter(of_step).map(|one| one.path.clone()).collect();
        let answer: Vec<Path> = answers.remove(&at).unwrap_or_default().into_iter().collect();
        if !output.is_empty() {
            outputs.insert(step.step.id.clone(), Fields { output, answer: Arc::from(answer) });
        }
    }
    let input = personal.fields.iter().filter(|field| matches!(field.of, FieldOf::Input));
    let input = input.map(|field| field.path.clone()).collect();
    Some(Personal { subject: Arc::clone(personal.subject.as_ref()?), input, outputs })
}
