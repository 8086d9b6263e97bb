//! A row of stages, timed, up to the first that fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// One thing to get right.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub name: &'static str,
    pub run: fn() -> Result<()>,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    name: &'static str,
    took: Duration,
    verdict: &'static str,
}

/// Runs the stages in order and prints how long each took.
///
/// # Errors
///
/// That of the first stage that fails; the ones after it do not run.
pub fn run(stages: &[Stage]) -> Result<()> {
    let mut done: Vec<Done> = Vec::with_capacity(stages.len());
    let mut result = Ok(());
    for stage in stages {
        if result.is_err() {
            done.push(Done { name: stage.name, took: Duration::ZERO, verdict: "not run" });
            continue;
        }
        eprintln!("== {}", stage.name);
        let begun = Instant::now();
        result = (stage.run)().context(stage.name);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let took = begun.elapsed();
        eprintln!("== {}: {verdict} after {:.1} s", stage.name, took.as_secs_f64());
        done.push(Done { name: stage.name, took, verdict });
    }
    print(&done);
    result
}

fn print(stages: &[Done]) {
    let total: Duration = stages.iter().map(|stage| stage.took).sum();
    eprintln!("\n{:<16} {:>9}  verdict", "stage", "seconds");
    for stage in stages {
        eprintln!("{:<16} {:>9.1}  {}", stage.name, stage.took.as_secs_f64(), stage.verdict);
    }
    eprintln!("{:<16} {:>9.1}", "all", total.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn nothing_runs_after_the_first_failure() {
        let stages = [
            Stage { name: "first", run: || Ok(()) },
            Stage { name: "second", run: || bail!("broken") },
            Stage { name: "third", run: || panic!("must not run") },
        ];
        let error = run(&stages).unwrap_err();
        assert_eq!(format!("{error:#}"), "second: broken");
    }
}
