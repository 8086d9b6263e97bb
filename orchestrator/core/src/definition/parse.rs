//! From text to definition, with every problem told at once.

use alloc::{string::String, vec::Vec};
use core::fmt;

use super::{Definition, check, document, lines, read, schema};

/// What is wrong with a definition, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As `steps[2].call.path`; empty for the document itself.
    pub place: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// The line of the text, from 1, where the place could be found in it.
    pub line: Option<u64>,
}

impl Problem {
    pub(super) fn new(place: String, reason: impl Into<String>) -> Self {
        Self { place, reason: reason.into(), line: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            f.write_str(&self.place)?;
            if let Some(line) = self.line {
                write!(f, " (line {line})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Every problem of a definition; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} problem(s){}", .0.len(), .0.first().map(|first| alloc::format!(", the first: {first}")).unwrap_or_default())]
pub struct Problems(pub Vec<Problem>);

impl Definition {
    /// Reads YAML or JSON, at most 256 KiB and 32 levels deep.
    ///
    /// `services` are the participants that the server's configuration names; without them any name is accepted.
    ///
    /// # Errors
    ///
    /// Every problem that can be found at once: where the text is not YAML, only that; else all differences to the
    /// format together with all broken rules between steps.
    pub fn parse(text: &str, services: Option<&[String]>) -> Result<Definition, Problems> {
        let document = document::read(text).map_err(|problem| Problems(Vec::from([problem])))?;
        let mut problems = schema::format_problems(&document);
        let draft = read::draft(&document, &mut problems);
        let findings = check::check(&draft, services, &mut problems);
        if problems.is_empty() {
            return Ok(draft.finish(findings, document));
        }
        Err(Problems(with_lines(problems, text)))
    }
}

/// The problems without repetitions, in the order of the text.
fn with_lines(problems: Vec<Problem>, text: &str) -> Vec<Problem> {
    let lines = lines::of(text);
    let mut told: Vec<Problem> = Vec::with_capacity(problems.len());
    for mut problem in problems {
        problem.line = lines::find(&lines, &problem.place);
        if !told.contains(&problem) {
            told.push(problem);
        }
    }
    told.sort_by_key(|problem| problem.line);
    told
}
