//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_LAST: Duration = Duration::from_millis(100);

/// Looks until there is what is looked for, and gives it; `look` answers what it saw instead as an error.
///
/// # Panics
///
/// When it is not there within `timeout`; says what was seen last.
pub async fn eventually<T, F>(what: &str, timeout: Duration, mut look: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let begun = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(begun.elapsed() < timeout, "{what}: not within {timeout:?}; seen last: {seen}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_LAST);
    }
}

/// [`eventually`] for a condition that has nothing to give.
pub fn met(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
