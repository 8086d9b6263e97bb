//! How long the disk takes to be sure. What waits for commits depends on nothing as much.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

const WRITES: usize = 51;
const WRITTEN_BYTES: usize = 8192;

/// For a write of 8 KiB at the end of a file in the folder, in the median. A disk in memory takes no time, and says
/// nothing of durability.
pub fn sync_time(folder: &Path) -> Result<Duration> {
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        file.write_all(&[1; WRITTEN_BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[WRITES / 2])
}
