//! Where a process's CPU time goes, as a flame graph: what `perf` saw of its stacks, drawn.

mod svg;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::svg::svg;

const SAMPLES_PER_S: &str = "199";
/// Programs are built without frame pointers, so `perf` copies as much of the stack with each sample and walks it later.
const CALL_GRAPH: &str = "dwarf,16384";

/// `perf` at work.
#[derive(Debug)]
pub struct Recording {
    perf: Child,
    file: PathBuf,
}

/// A function as called by those above it, and what it called.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// In which it or something it called was running.
    samples: u64,
    called: BTreeMap<String, Frame>,
}

impl Recording {
    /// Watches the process for as long as this.
    ///
    /// # Errors
    ///
    /// When `perf` cannot be started.
    pub fn start(pid: u32, lasts: Duration, folder: &Path) -> Result<Self> {
        let file = folder.join("perf.data");
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "-F", SAMPLES_PER_S, "--call-graph", CALL_GRAPH, "-p", &pid.to_string(), "-o"]);
        perf.arg(&file).args(["--", "sleep", &lasts.as_secs_f64().to_string()]);
        let perf = perf.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self { perf: perf.context("a flame graph needs the program `perf`")?, file })
    }

    /// Waits until it has watched, and reads what it saw.
    ///
    /// # Errors
    ///
    /// When `perf` may not watch, or saw nothing.
    pub fn finish(mut self) -> Result<Frame> {
        let status = self.perf.wait()?;
        ensure!(status.success(), "perf record failed: {status}");
        // Which functions were inlined would take minutes to find out.
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"])
            .arg(&self.file)
            .output()
            .context("perf script cannot be started")?;
        ensure!(script.status.success(), "perf script failed: {}", String::from_utf8_lossy(&script.stderr));
        fs::remove_file(&self.file)?;
        let whole = folded(&String::from_utf8_lossy(&script.stdout));
        ensure!(whole.samples > 0, "perf saw nothing");
        Ok(whole)
    }
}

/// Reads samples apart by blank lines: the thread's name, then a line per function, the innermost first, of its address and
/// its name.
fn folded(script: &str) -> Frame {
    let mut whole = Frame::default();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let functions = lines.map(|line| line.trim().split_once(' ').map_or("[unknown]", |(_, name)| name.trim()));
        let mut stack: Vec<&str> = functions.collect();
        stack.push(thread.trim());
        whole.add(stack.iter().rev().copied());
    }
    whole
}

impl Frame {
    /// A sample, from the outermost function to the innermost.
    fn add<'a>(&mut self, mut stack: impl Iterator<Item = &'a str>) {
        self.samples += 1;
        if let Some(name) = stack.next() {
            self.called.entry(name.to_owned()).or_default().add(stack);
        }
    }

    fn depth(&self) -> usize {
        1 + self.called.values().map(Self::depth).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "engine \n\t    7f01 write\n\t    5501 commit<T, U>\n\t    5500 main\n\nengine \n\t    5502 parse\n\t    5500 main\n\n\
                          http \n\t    9900 [unknown]\n\n";

    #[test]
    fn samples_are_added_up_from_the_outermost_function_inwards() {
        let whole = folded(SCRIPT);
        assert_eq!((whole.samples, whole.depth()), (3, 5));
        let main = &whole.called["engine"].called["main"];
        assert_eq!(main.samples, 2);
        assert_eq!(main.called["commit<T, U>"].called["write"].samples, 1);
        assert_eq!(main.called["parse"], Frame { samples: 1, called: BTreeMap::new() });
        assert_eq!(whole.called["http"].called["[unknown]"].samples, 1);
    }

    #[test]
    fn every_function_is_drawn_with_its_name() {
        let drawn = svg(&folded(SCRIPT), "a < b");
        assert_eq!(drawn.matches("<rect").count(), 8, "{drawn}");
        assert!(drawn.contains("commit&lt;T, U&gt;: 33.3 %") && drawn.contains("a &lt; b"), "{drawn}");
    }
}
