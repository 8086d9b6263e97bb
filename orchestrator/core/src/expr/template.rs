//! JSON with expressions in its strings, and texts (paths, headers) with expressions in them.
//!
//! A string that is exactly one `${...}` becomes the value of its expression, with its type. Around other text a string
//! is put in as it is, numbers and bools in their JSON form; null, lists and objects are errors there. `$${` is a literal
//! `${`.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt::Write as _;

use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use super::{Expr, ExprError, References, Scope, eval::Evaluation, lex, output::Written, value::Val};
use crate::{
    json::{DEPTH_MAX, push_index, push_key},
    personal::Segment,
};

/// The longest rendered path or header value, in bytes.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    root: Part,
}

/// An expression of a template that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateProblem {
    /// Where in the template's document, as `.items[0].id`; empty for the whole document.
    pub place: String,
    pub error: ExprError,
}

#[derive(Debug)]
enum Part {
    Constant(Value),
    Expr(Expr),
    Text(Vec<Piece>),
    List(Vec<Part>),
    Object(Vec<(String, Part)>),
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Expr(Expr),
}

impl Template {
    /// Compiles every string of the document.
    ///
    /// # Errors
    ///
    /// All that does not compile, each with its place.
    pub fn compile(document: &Value) -> Result<Self, Vec<TemplateProblem>> {
        let mut problems = Vec::new();
        let root = compile(document, &mut String::new(), &mut problems);
        if problems.is_empty() { Ok(Self { root }) } else { Err(problems) }
    }

    /// Renders to JSON. Fields keep the order in which they are written.
    ///
    /// # Errors
    ///
    /// That of the first expression that fails; see [`Expr::eval`]. All expressions share one purse of work.
    pub fn render(&self, scope: Scope<'_>) -> Result<Value, ExprError> {
        self.write(scope, |rendering| serde_json::to_value(rendering))
    }

    /// Renders to the text of that JSON.
    ///
    /// # Errors
    ///
    /// As [`Template::render`].
    pub fn render_json(&self, scope: Scope<'_>) -> Result<String, ExprError> {
        self.write(scope, |rendering| serde_json::to_string(rendering))
    }

    /// Renders a path, with each expression's value percent-encoded (all but RFC 3986 unreserved characters), so that a
    /// value stays within its segment.
    ///
    /// # Errors
    ///
    /// As [`Template::render`]; and when a segment with an expression comes out empty, as `.` or as `..`, which would
    /// name another resource.
    pub fn render_path(&self, scope: Scope<'_>) -> Result<String, ExprError> {
        let evaluation = Evaluation::new(scope);
        let mut path = String::new();
        // Where each expression's value begins, to check its segment once the whole path is known.
        let mut values: Vec<(usize, &Expr)> = Vec::new();
        self.for_each_piece(&evaluation, |piece| {
            match piece {
                Rendered::Literal(text) => path.push_str(text),
                Rendered::Value(text, expr) => {
                    values.push((path.len(), expr));
                    percent_encode(&text, &mut path);
                }
            }
            fits(path.len())
        })?;
        for (at, expr) in values {
            check_segment(&path, at).map_err(|reason| ExprError::new(expr.source(), reason))?;
        }
        Ok(path)
    }

    /// Renders a header's value.
    ///
    /// # Errors
    ///
    /// As [`Template::render`]; and when a value holds anything but visible ASCII characters and blanks.
    pub fn render_text(&self, scope: Scope<'_>) -> Result<String, ExprError> {
        let evaluation = Evaluation::new(scope);
        let mut line = String::new();
        self.for_each_piece(&evaluation, |piece| {
            let text = match &piece {
                Rendered::Literal(text) => text,
                Rendered::Value(text, _) => text.as_str(),
            };
            if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err("a header's value can only hold visible ASCII characters and blanks");
            }
            line.push_str(text);
            fits(line.len())
        })?;
        Ok(line)
    }

    /// Every expression with its place in the document, as in [`TemplateProblem::place`].
    #[must_use]
    pub fn expressions(&self) -> Vec<(String, &Expr)> {
        let mut found = Vec::new();
        collect(&self.root, &mut String::new(), &mut found);
        found
    }

    /// Every expression with the path at which its value stands, or as a piece of a text is, in what is rendered.
    #[must_use]
    pub fn placed(&self) -> Vec<Placed<'_>> {
        let mut placed = Vec::new();
        place(&self.root, &mut Vec::new(), &mut placed);
        placed
    }

    /// What all expressions of the template read.
    #[must_use]
    pub fn references(&self) -> References {
        let mut references = References::default();
        for (_, expr) in self.expressions() {
            references.merge(expr.references());
        }
        references
    }

    /// The text with every expression's place taken by `hole`; `None` when the template is not a text.
    pub(crate) fn text_with(&self, hole: &str) -> Option<String> {
        match &self.root {
            Part::Constant(Value::String(text)) => Some(text.clone()),
            Part::Expr(_) => Some(hole.to_owned()),
            Part::Text(pieces) => Some(
                pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Literal(text) => text.as_str(),
                        Piece::Expr(_) => hole,
                    })
                    .collect(),
            ),
            Part::Constant(_) | Part::List(_) | Part::Object(_) => None,
        }
    }

    fn write<T>(
        &self,
        scope: Scope<'_>,
        write: impl FnOnce(&Rendering<'_, '_>) -> serde_json::Result<T>,
    ) -> Result<T, ExprError> {
        let evaluation = Evaluation::new(scope);
        evaluation.finish(write(&Rendering { part: &self.root, evaluation: &evaluation, depth: 0 }))
    }

    fn for_each_piece<'t>(
        &'t self,
        evaluation: &Evaluation<'t>,
        mut take: impl FnMut(Rendered<'t>) -> Result<(), &'static str>,
    ) -> Result<(), ExprError> {
        let whole = |text: &str, reason| ExprError::new(text, reason);
        match &self.root {
            Part::Constant(Value::String(text)) => take(Rendered::Literal(text)).map_err(|reason| whole(text, reason)),
            Part::Expr(expr) => {
                take(Rendered::Value(as_text(expr, evaluation)?, expr)).map_err(|reason| whole(expr.source(), reason))
            }
            Part::Text(pieces) => pieces.iter().try_for_each(|piece| match piece {
                Piece::Literal(text) => take(Rendered::Literal(text)).map_err(|reason| whole(text, reason)),
                Piece::Expr(expr) => take(Rendered::Value(as_text(expr, evaluation)?, expr))
                    .map_err(|reason| whole(expr.source(), reason)),
            }),
            Part::Constant(_) | Part::List(_) | Part::Object(_) => {
                Err(ExprError::new("", "a path or a header must be a text"))
            }
        }
    }
}

/// An expression of a template, where its value will stand.
#[derive(Debug)]
pub struct Placed<'t> {
    pub path: Vec<Segment>,
    pub expr: &'t Expr,
    /// Whether its value stands there with its type, rather than as a piece of a text.
    pub is_whole: bool,
}

enum Rendered<'t> {
    Literal(&'t str),
    Value(String, &'t Expr),
}

fn fits(bytes: usize) -> Result<(), &'static str> {
    if bytes > TEXT_BYTES_MAX { Err("the text would be longer than 8 KiB") } else { Ok(()) }
}

fn compile(document: &Value, place: &mut String, problems: &mut Vec<TemplateProblem>) -> Part {
    let start = place.len();
    match document {
        Value::String(text) => compile_text(text, place, problems),
        Value::Array(items) => {
            let mut parts = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                push_index(place, index);
                parts.push(compile(item, place, problems));
                place.truncate(start);
            }
            Part::List(parts)
        }
        Value::Object(fields) => {
            let mut parts = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                push_key(place, key);
                if key.contains("${") {
                    let error = ExprError::new(key, "expressions are not evaluated in keys");
                    problems.push(TemplateProblem { place: place.clone(), error });
                }
                parts.push((key.clone(), compile(value, place, problems)));
                place.truncate(start);
            }
            Part::Object(parts)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Part::Constant(document.clone()),
    }
}

fn compile_text(text: &str, place: &str, problems: &mut Vec<TemplateProblem>) -> Part {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("$${") {
            literal.push_str("${");
            rest = after;
        } else if let Some(after) = from.strip_prefix("${") {
            let end = match lex::closing_brace(after) {
                Ok(end) => end,
                Err(reason) => {
                    problems.push(TemplateProblem { place: place.to_owned(), error: ExprError::new(from, reason) });
                    return Part::Constant(Value::Null);
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(core::mem::take(&mut literal)));
            }
            match Expr::compile(&after[..end]) {
                Ok(expr) => pieces.push(Piece::Expr(expr)),
                Err(error) => problems.push(TemplateProblem { place: place.to_owned(), error }),
            }
            rest = &after[end + 1..];
        } else {
            literal.push('$');
            rest = &from[1..];
        }
    }
    literal.push_str(rest);
    if pieces.is_empty() {
        return Part::Constant(Value::String(literal));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    match pieces.pop() {
        Some(Piece::Expr(only)) if pieces.is_empty() => Part::Expr(only),
        last => {
            pieces.extend(last);
            Part::Text(pieces)
        }
    }
}

/// A part of a template, `depth` levels down, on its way into JSON.
struct Rendering<'e, 't> {
    part: &'t Part,
    evaluation: &'e Evaluation<'t>,
    depth: usize,
}

impl<'e, 't> Rendering<'e, 't> {
    fn below(&self, part: &'t Part) -> Rendering<'e, 't> {
        Rendering { part, evaluation: self.evaluation, depth: self.depth + 1 }
    }

    fn text(&self, pieces: &'t [Piece]) -> Result<String, ExprError> {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Expr(expr) => text.push_str(&as_text(expr, self.evaluation)?),
            }
        }
        Ok(text)
    }
}

impl Serialize for Rendering<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { part, evaluation, depth } = *self;
        let fail = |error| evaluation.fail(error);
        match part {
            Part::Constant(value) => value.serialize(serializer),
            Part::Expr(expr) => {
                let value = evaluation.value_of(expr).map_err(fail)?;
                Written { evaluation, expr, value, depth }.serialize(serializer)
            }
            Part::Text(pieces) => serializer.serialize_str(&self.text(pieces).map_err(fail)?),
            Part::List(_) | Part::Object(_) if depth >= DEPTH_MAX => {
                Err(fail(ExprError::new("", format!("the document nests deeper than {DEPTH_MAX} levels"))))
            }
            Part::List(parts) => serializer.collect_seq(parts.iter().map(|part| self.below(part))),
            Part::Object(parts) => serializer.collect_map(parts.iter().map(|(key, part)| (key, self.below(part)))),
        }
    }
}

/// An expression's value as text.
fn as_text<'t>(expr: &'t Expr, evaluation: &Evaluation<'t>) -> Result<String, ExprError> {
    let value = evaluation.value_of(expr)?;
    let failed = |reason: String| ExprError::new(expr.source(), reason);
    match &value {
        Val::Text(_) | Val::OwnText(_) => {
            let text = value.as_text().unwrap_or_default();
            evaluation.pay(text.len() / 8).map_err(failed)?;
            Ok(text.to_owned())
        }
        Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) => {
            evaluation.finish(serde_json::to_string(&Written { evaluation, expr, value, depth: 0 }))
        }
        Val::Null | Val::List(_) | Val::OwnList(_) | Val::Object(_) | Val::Saga(_) | Val::OwnObject(_) => {
            Err(failed(format!(
                "within text an expression must be a string, a number or a bool, and this is {}",
                value.type_name()
            )))
        }
    }
}

fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(into, "%{byte:02X}");
            }
        }
    }
}

/// Checks the path segment in which a value begins at `at`. Behind `?` there are no segments.
fn check_segment(path: &str, at: usize) -> Result<(), &'static str> {
    let path_end = path.find('?').unwrap_or(path.len());
    if at > path_end {
        return Ok(());
    }
    let start = path[..at].rfind('/').map_or(0, |slash| slash + 1);
    let end = path[at..path_end].find('/').map_or(path_end, |slash| at + slash);
    match path[start..end].to_ascii_lowercase().replace("%2e", ".").as_str() {
        "" => Err("a segment of the path would be empty"),
        "." | ".." => Err("a segment of the path would be `.` or `..`"),
        _ => Ok(()),
    }
}

fn place<'t>(part: &'t Part, path: &mut Vec<Segment>, placed: &mut Vec<Placed<'t>>) {
    match part {
        Part::Constant(_) => {}
        Part::Expr(expr) => placed.push(Placed { path: path.clone(), expr, is_whole: true }),
        Part::Text(pieces) => placed.extend(pieces.iter().filter_map(|piece| match piece {
            Piece::Expr(expr) => Some(Placed { path: path.clone(), expr, is_whole: false }),
            Piece::Literal(_) => None,
        })),
        Part::List(parts) => {
            path.push(Segment::Items);
            parts.iter().for_each(|part| place(part, path, placed));
            path.pop();
        }
        Part::Object(parts) => {
            for (key, part) in parts {
                path.push(Segment::Key(key.clone()));
                place(part, path, placed);
                path.pop();
            }
        }
    }
}

fn collect<'t>(part: &'t Part, place: &mut String, found: &mut Vec<(String, &'t Expr)>) {
    let start = place.len();
    match part {
        Part::Constant(_) => {}
        Part::Expr(expr) => found.push((place.clone(), expr)),
        Part::Text(pieces) => found.extend(pieces.iter().filter_map(|piece| match piece {
            Piece::Expr(expr) => Some((place.clone(), expr)),
            Piece::Literal(_) => None,
        })),
        Part::List(parts) => {
            for (index, part) in parts.iter().enumerate() {
                push_index(place, index);
                collect(part, place, found);
                place.truncate(start);
            }
        }
        Part::Object(parts) => {
            for (key, part) in parts {
                push_key(place, key);
                collect(part, place, found);
                place.truncate(start);
            }
        }
    }
}
