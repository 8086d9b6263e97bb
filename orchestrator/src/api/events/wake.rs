//! Waiting for events to come: of this replica the engine tells, of others the heads of their shards.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::super::heads::Seen;
use crate::app::App;

/// Under load commits come faster than anybody should look, and what has come meanwhile is read together.
const PACE: Duration = Duration::from_millis(5);

/// Tells when the log may have grown since it was last asked.
#[derive(Debug)]
pub struct Wake {
    commits: watch::Receiver<u64>,
    shards: watch::Receiver<Arc<[Seen]>>,
    closing: watch::Receiver<bool>,
    /// When it was last time to look.
    told: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There may be more to read.
    Grown,
    Late,
    /// The server stops.
    Closing,
}

impl Wake {
    /// To be made before the log is read, so that nothing falls between.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self {
            commits: app.engine().commits(),
            shards: app.heads().subscribe(),
            closing: app.closing(),
            told: Instant::now(),
        }
    }

    pub async fn wait(&mut self, until: Instant) -> Woken {
        let woken = tokio::select! {
            Ok(()) = self.commits.changed() => Woken::Grown,
            Ok(()) = self.shards.changed() => Woken::Grown,
            () = sleep_until(until) => Woken::Late,
            _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
        };
        if woken == Woken::Grown {
            sleep_until((self.told + PACE).min(until)).await;
            // What was told of meanwhile is read with it.
            self.commits.mark_unchanged();
            self.shards.mark_unchanged();
            self.told = Instant::now();
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_time_to_look_once_per_pace_and_after_the_last_commit() {
        let (commits_sender, commits) = watch::channel(0);
        let (_shards_sender, shards) = watch::channel(Arc::from([]));
        let (_closing_sender, closing) = watch::channel(false);
        let begun = Instant::now();
        let mut wake = Wake { commits, shards, closing, told: begun };
        let committing = async {
            while begun.elapsed() < PACE * 20 {
                commits_sender.send_modify(|count| *count += 1);
                tokio::task::yield_now().await;
            }
        };
        let looking = async {
            let mut looks = 0;
            while wake.wait(begun + PACE * 200).await == Woken::Grown {
                looks += 1;
                assert!(begun.elapsed() >= PACE * looks, "the {looks}. after {:?}", begun.elapsed());
            }
            looks
        };
        let (looks, ()) = tokio::join!(looking, committing);
        assert!(looks >= 1, "some commit was told of");
    }
}
