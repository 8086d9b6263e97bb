//! What is wrong with a configuration, said so that it can be put right: the key, where it is, the remedy.

use std::{fmt, path::PathBuf};

/// One thing that is wrong. Never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `database.readers`; empty when it is about the text as a whole.
    pub key: String,
    pub problem: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.problem) } else { write!(f, "`{}` {}", self.key, self.problem) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the configuration {}, line {line}, column {column}: {problem}", path.display())]
    File { path: PathBuf, line: usize, column: usize, problem: Problem },
    #[error("the environment variable {variable}: {problem}")]
    Environment { variable: String, problem: Problem },
    #[error("the configuration is not usable:{}", list(.0))]
    Values(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
