//! How far a rebuild or a verification has come, told as lines of JSON.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

/// One line. `done` and `total` count positions of the log while replaying, rows while comparing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Line {
    Replaying {
        done: i64,
        total: i64,
        events: i64,
    },
    Comparing {
        done: i64,
        total: i64,
    },
    /// The last line of a rebuild that succeeded.
    Rebuilt {
        events: i64,
        rows: i64,
        took_ms: u64,
    },
    /// The last line of a verification that came to an end.
    Verified {
        events: i64,
        rows: i64,
        took_ms: u64,
        difference_count: i64,
        /// The first of them.
        differences: Vec<Difference>,
    },
    /// The last line otherwise.
    Failed {
        error: String,
    },
}

/// A row that a replay makes otherwise; null: not at all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Difference {
    pub(super) key: String,
    /// Empty: the key's summary.
    pub(super) item: String,
    pub(super) live: Value,
    pub(super) replayed: Value,
}

/// Where lines go. Nobody need be there to read them: the work goes on.
#[derive(Debug, Clone)]
pub(super) struct Progress(mpsc::Sender<Line>);

impl Progress {
    pub(super) fn new() -> (Self, mpsc::Receiver<Line>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), receiver)
    }

    /// Tells how far it is; left out when the reader is slow.
    pub(super) fn note(&self, line: Line) {
        let _ = self.0.try_send(line);
    }

    /// Tells how it ended.
    pub(super) async fn end(self, line: Line) {
        let _ = self.0.send(line).await;
    }
}
