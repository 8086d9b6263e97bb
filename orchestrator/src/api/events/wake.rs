//! Waiting for events to come: of this replica the engine tells, of others the heads of their shards.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::super::heads::Seen;
use crate::{
    app::App,
    storage::log::tail::{Beyond, Tail},
};

/// Under load commits come faster than anybody should look, and what has come meanwhile is read together.
const PACE: Duration = Duration::from_millis(3);

/// Who looked in vain looks again when so much time has passed and anything was committed.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Tells when the log may have grown since it was last asked.
#[derive(Debug)]
pub struct Wake {
    commits: watch::Receiver<u64>,
    shards: watch::Receiver<Arc<[Seen]>>,
    closing: watch::Receiver<bool>,
    tail: Tail,
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
            tail: app.tail(),
            told: Instant::now(),
        }
    }

    /// Until there may be more of whatever kind.
    pub async fn wait(&mut self, until: Instant) -> Woken {
        self.told(until).await.0
    }

    /// Until there may be more that somebody wants who has looked in vain.
    pub async fn wait_beyond(&mut self, until: Instant, beyond: &mut Beyond) -> Woken {
        let begun = Instant::now();
        loop {
            let (woken, elsewhere) = self.told(until).await;
            let mut look = || begun.elapsed() >= LOOK_AFTER || self.tail.has_grown(beyond);
            if woken != Woken::Grown || elsewhere || look() {
                return woken;
            }
        }
    }

    /// With whether another replica may have committed.
    async fn told(&mut self, until: Instant) -> (Woken, bool) {
        let (woken, mut elsewhere) = tokio::select! {
            Ok(()) = self.commits.changed() => (Woken::Grown, false),
            Ok(()) = self.shards.changed() => (Woken::Grown, true),
            () = sleep_until(until) => (Woken::Late, false),
            _ = self.closing.wait_for(|closing| *closing) => (Woken::Closing, false),
        };
        if woken == Woken::Grown {
            sleep_until((self.told + PACE).min(until)).await;
            // What was told of meanwhile is read with it.
            elsewhere |= self.shards.has_changed().unwrap_or(false);
            self.commits.mark_unchanged();
            self.shards.mark_unchanged();
            self.told = Instant::now();
        }
        (woken, elsewhere)
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
        let mut wake = Wake { commits, shards, closing, tail: Tail::default(), told: begun };
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
