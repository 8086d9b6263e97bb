//! What a change of the specification breaks for clients, by oasdiff.

use std::fs;

use anyhow::{Result, ensure};

use super::{SPECIFICATION, folder, tools};
use crate::run::{check, command, output, root, skipped};

/// Tells what the specification breaks that the one before did not: the last committed one, or, where that is the same,
/// the one committed before that. It only tells: whether a break is meant is for people to say.
///
/// # Errors
///
/// oasdiff cannot be installed, or cannot read a specification.
pub fn report() -> Result<()> {
    let Some(oasdiff) = tools::oasdiff()? else {
        skipped("what the specification breaks for clients", "Go is missing, which builds oasdiff");
        return Ok(());
    };
    let Some((commit, before)) = before()? else {
        skipped("what the specification breaks for clients", "the history has no earlier one; it may be shallow");
        return Ok(());
    };
    let base = folder().join("before.json");
    fs::write(&base, before)?;
    eprintln!("what {SPECIFICATION} breaks for clients since {commit}:");
    check(command(oasdiff).arg("breaking").arg(base).arg(SPECIFICATION))
}

/// The specification before this one, and the commit it is from.
fn before() -> Result<Option<(String, String)>> {
    let now = fs::read_to_string(root().join(SPECIFICATION))?;
    let log = ["log", "--max-count=2", "--format=%h", "--", SPECIFICATION];
    // Without a repository, as in an archive of the source, there is no history.
    let commits = output(command("git").args(log)).unwrap_or_default();
    for commit in commits.lines() {
        let text = output(command("git").args(["show", &format!("{commit}:{SPECIFICATION}")]))?;
        ensure!(!text.is_empty(), "{SPECIFICATION} of {commit} is empty");
        if text != now {
            return Ok(Some((commit.to_owned(), text)));
        }
    }
    Ok(None)
}
