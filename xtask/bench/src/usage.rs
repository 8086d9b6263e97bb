//! What processes take from the machine, as Linux counts it.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Linux tells programs of time in hundredths of a second, whatever it counts in.
const TICKS_PER_SECOND: u64 = 100;

/// A process, or one with all its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    One(u32),
    Family(u32),
}

/// Since they began; `resident_kib` at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    pub cpu: Duration,
    /// Of all threads that live.
    pub context_switches: u64,
    /// Sent to the disk.
    pub written_bytes: u64,
    pub resident_kib: u64,
}

impl Processes {
    /// # Errors
    ///
    /// When the process has ended, or this is not Linux.
    pub fn usage(self) -> Result<Usage> {
        match self {
            Self::One(pid) => usage(pid).with_context(|| format!("process {pid} cannot be looked at in /proc")),
            Self::Family(pid) => family(pid).with_context(|| format!("children of {pid} cannot be looked at in /proc")),
        }
    }
}

impl Usage {
    pub fn resident_mib(self) -> f64 {
        self.resident_kib as f64 / 1024.0
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            context_switches: self.context_switches.saturating_sub(earlier.context_switches),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            resident_kib: self.resident_kib,
        }
    }
}

fn usage(pid: u32) -> Result<Usage> {
    let stat = Stat::of(pid)?;
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end just now.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += number(&status, "voluntary_ctxt_switches:") + number(&status, "nonvoluntary_ctxt_switches:");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    Ok(Usage {
        cpu: ticks(stat.own_ticks),
        context_switches: switches,
        written_bytes: number(&io, "write_bytes:"),
        resident_kib: number(&status, "VmRSS:"),
    })
}

/// The parent with its children, also those that have ended. What is resident is the parent's.
fn family(parent: u32) -> Result<Usage> {
    let mut whole = usage(parent)?;
    whole.cpu += ticks(Stat::of(parent)?.ended_children_ticks);
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if !Stat::of(pid).is_ok_and(|stat| stat.parent == parent) {
            continue;
        }
        // A child may end just now; then its parent has its time next time.
        let Ok(child) = usage(pid) else { continue };
        whole.cpu += child.cpu;
        whole.context_switches += child.context_switches;
        whole.written_bytes += child.written_bytes;
    }
    Ok(whole)
}

/// What is needed of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    own_ticks: u64,
    ended_children_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).with_context(|| format!("/proc/{pid}/stat is not as it should be: {text}"))
    }

    /// The second field is the program's name in brackets, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
            own_ticks: field(14)? + field(15)?,
            ended_children_ticks: field(16)? + field(17)?,
        })
    }
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// The number on the line that begins so; 0 without one.
fn number(text: &str, begin: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(begin));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let text = "12 (a) b (c)) S 7 12 12 0 -1 4194304 100 0 0 0 3 4 5 6 20 0 8 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.own_ticks, stat.ended_children_ticks), (7, 7, 11));
    }

    #[test]
    fn we_take_time_and_memory_ourselves() {
        let usage = Processes::One(std::process::id()).usage().unwrap();
        assert!(usage.resident_kib > 0 && usage.context_switches > 0);
    }
}
