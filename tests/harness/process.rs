//! A program under test: started, watched, stopped. Its output goes to files that a failed test prints.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{eventually, guard};

const START_MAX: Duration = Duration::from_secs(30);
/// Enough to see why; not so much that the reason drowns.
const LINES_SHOWN: usize = 60;

/// Kills its process when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a program ended that ran to its end.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts it; its output goes to files in `folder` named after it and its number.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let file = |number: u32, end: &str| folder.join(format!("{name}.{number}.{end}"));
        let number = (1..).find(|number| !file(*number, "out").exists()).expect("numbers do not run out");
        let (stdout, stderr) = (file(number, "out"), file(number, "err"));
        let create = |path: &Path| File::create(path).expect("the test's folder is writable");
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        guard::watch("KILL", child.id());
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// Runs it to its end.
    pub async fn run(name: &str, command: &mut Command, folder: &Path) -> Ended {
        let mut process = Self::start(name, command, folder);
        let status = process.ended(START_MAX).await;
        Ended { status, stdout: read(&process.stdout), stderr: read(&process.stderr) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, standard output first.
    pub fn log(&self) -> String {
        read(&self.stdout) + &read(&self.stderr)
    }

    /// The URL of its line `NAME listening on URL`, once it has written that.
    pub async fn url(&mut self) -> String {
        let name = self.name.clone();
        let begin = format!("{name} listening on ");
        eventually(&format!("{name} is listening"), START_MAX, async || {
            let log = self.log();
            let line = log.lines().find_map(|line| line.strip_prefix(&begin));
            if let Some(url) = line.and_then(|rest| rest.split_whitespace().next()) {
                return Ok(url.trim_end_matches('/').to_owned());
            }
            if let Some(status) = self.exited() {
                panic!("{name} ended with {status} instead of listening:\n{}", self.log());
            }
            Err("no such line yet".to_owned())
        })
        .await
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("it is our child");
        if status.is_some() {
            guard::forget(self.child.id());
        }
        status
    }

    /// SIGKILL; it is gone afterwards.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            // It may end by itself just now, which is as well.
            let _ = self.child.kill();
            self.child.wait().expect("it is our child");
            guard::forget(self.child.id());
        }
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to {}", self.name);
    }

    /// SIGTERM; gives how it ended.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.ended(within).await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        eventually(&what, within, async || self.exited().ok_or_else(|| "it runs".to_owned())).await
    }

    /// Memory that is resident, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB")
    }
}

/// The most memory that a process has had resident so far, in KiB; None once it has ended.
pub fn peak_resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("---- the last {} lines of {}:\n{}\n", shown.len(), self.name, shown.join("\n"));
        }
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
