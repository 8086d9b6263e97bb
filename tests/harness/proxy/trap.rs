//! Something that is to happen once, to one request on its way.
//!
//! | kind | the request | the answer |
//! | --- | --- | --- |
//! | `DropRequest` | never arrives; the connection is reset | |
//! | `DropReply` | arrives, and is carried out | never arrives; the connection is reset |
//! | `HoldRequest` | is kept until the release, also when the client is gone by then | passes |
//! | `HoldReply` | arrives, and is carried out | is kept until the release |

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapKind {
    DropRequest,
    DropReply,
    HoldRequest,
    HoldReply,
}

/// What the server said to the request that a trap has caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request never reached it, or it went away without an answer.
    None,
    /// It was carried out. (Of HTTP only this is known: there was an answer.)
    Done,
    /// It was refused, with this code.
    Refused(String),
}

/// The proxy's end of a trap.
#[derive(Debug)]
pub(super) struct Trap {
    pub kind: TrapKind,
    pub sprung: Option<oneshot::Sender<()>>,
    pub released: oneshot::Receiver<()>,
    pub verdict: Option<oneshot::Sender<Verdict>>,
}

/// The test's end of a trap. Dropping it releases what is held.
#[derive(Debug)]
pub struct Armed {
    sprung: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
    verdict: oneshot::Receiver<Verdict>,
}

/// A trap that has caught a request.
#[derive(Debug)]
pub struct Sprung {
    release: oneshot::Sender<()>,
    verdict: oneshot::Receiver<Verdict>,
}

pub(super) fn lay(kind: TrapKind) -> (Trap, Armed) {
    let (sprung_sender, sprung) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let (verdict_sender, verdict) = oneshot::channel();
    let trap = Trap { kind, sprung: Some(sprung_sender), released, verdict: Some(verdict_sender) };
    (trap, Armed { sprung, release, verdict })
}

impl Trap {
    pub fn is_given_up(&self) -> bool {
        self.sprung.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Tells the test that the request is caught: for those that hold, that it is held.
    pub fn spring(&mut self) {
        if let Some(sprung) = self.sprung.take() {
            // The test may have stopped waiting.
            let _ = sprung.send(());
        }
    }

    pub fn conclude(&mut self, verdict: Verdict) {
        if let Some(sender) = self.verdict.take() {
            let _ = sender.send(verdict);
        }
    }
}

impl Armed {
    /// Waits until a request is caught; gives the trap up if there is none within `within`.
    pub async fn sprung(self, within: Duration) -> Option<Sprung> {
        let Self { sprung, release, verdict } = self;
        matches!(timeout(within, sprung).await, Ok(Ok(()))).then_some(Sprung { release, verdict })
    }
}

impl Sprung {
    /// Lets go what is held.
    pub fn release(self) -> oneshot::Receiver<Verdict> {
        let _ = self.release.send(());
        self.verdict
    }

    /// Lets go what is held, and waits for what the server says or has said.
    pub async fn verdict(self, within: Duration) -> Verdict {
        timeout(within, self.release()).await.ok().and_then(Result::ok).unwrap_or(Verdict::None)
    }
}
