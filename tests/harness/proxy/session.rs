//! One connection through a proxy.
//!
//! Data goes by turns: both protocols ask and answer. The writer's messages are passed on once they are a whole request
//! (up to `Sync`), so that what a trap holds or drops is one commit and nothing else.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    Link, Protocol, Weather, cut,
    frames::{Frame, Opening},
    trap::{Trap, TrapKind, Verdict},
};

/// The name that Skald gives the sessions that carry its commits.
const WRITER: &str = "skald-writer";

/// Both ends, and what was read of each and not passed on.
pub(super) struct Session {
    client: TcpStream,
    server: TcpStream,
    from_client: BytesMut,
    from_server: BytesMut,
    link: Arc<Link>,
    resets: watch::Receiver<u64>,
}

/// Why a session is over.
enum End {
    /// One of the ends has left.
    Left,
    Reset,
    Silent,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Left
    }
}

/// A read that is no data.
fn data(count: io::Result<usize>) -> Result<(), End> {
    if count? == 0 { Err(End::Left) } else { Ok(()) }
}

/// Reads what the client sends and answers nothing, until it has left and the weather is better.
pub(super) async fn stay_silent(mut client: TcpStream, link: &Link, mut resets: watch::Receiver<u64>) {
    Link::count(&link.silenced);
    let mut weather = link.weather.subscribe();
    let mut lost = BytesMut::with_capacity(4096);
    let listening = async {
        while matches!(client.read_buf(&mut lost).await, Ok(1..)) {
            lost.clear();
        }
        // Errs when the proxy is gone.
        let _ = weather.wait_for(|weather| *weather != Weather::Silent).await;
    };
    tokio::select! {
        () = listening => {}
        _ = resets.changed() => {}
    }
    cut(&client);
}

impl Session {
    pub fn new(client: TcpStream, server: TcpStream, link: Arc<Link>, resets: watch::Receiver<u64>) -> Self {
        Self { client, server, from_client: BytesMut::new(), from_server: BytesMut::new(), link, resets }
    }

    pub async fn run(mut self) {
        let mut resets = self.resets.clone();
        let end = tokio::select! {
            end = self.converse() => end,
            _ = resets.changed() => End::Reset,
        };
        match end {
            End::Left => {}
            End::Reset => {
                Link::count(&self.link.reset);
                cut(&self.client);
                cut(&self.server);
            }
            // The server is not told either: its end stays open for as long as the client's.
            End::Silent => stay_silent(self.client, &self.link, self.resets).await,
        }
    }

    async fn converse(&mut self) -> End {
        let conversed = match self.link.protocol {
            Protocol::Http => self.converse_by_turns().await,
            Protocol::Postgres => self.converse_with_postgres().await,
        };
        conversed.map_or_else(|end| end, |never: std::convert::Infallible| match never {})
    }

    async fn converse_by_turns(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            tokio::select! {
                count = self.client.read_buf(&mut self.from_client) => {
                    data(count)?;
                    if self.link.protocol == Protocol::Http && let Some(trap) = self.link.next_trap() {
                        self.spring(trap).await?;
                        continue;
                    }
                    self.pass_to_server().await?;
                }
                count = self.server.read_buf(&mut self.from_server) => {
                    data(count)?;
                    self.pass_to_client().await?;
                }
            }
        }
    }

    async fn converse_with_postgres(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            data(self.client.read_buf(&mut self.from_client).await)?;
            match Opening::take(&mut self.from_client) {
                None => {}
                Some(Opening::Encryption) => self.client.write_all(b"N").await?,
                Some(Opening::Startup { application, message }) => {
                    self.weather().await?;
                    self.server.write_all(&message).await?;
                    return if application == WRITER {
                        self.converse_with_writer().await
                    } else {
                        self.converse_by_turns().await
                    };
                }
                Some(Opening::Other) => {
                    self.pass_to_server().await?;
                    return self.converse_by_turns().await;
                }
            }
        }
    }

    async fn converse_with_writer(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            tokio::select! {
                count = self.client.read_buf(&mut self.from_client) => {
                    data(count)?;
                    let Some(is_commit) = whole_request(&self.from_client) else { continue };
                    if is_commit && let Some(trap) = self.link.next_trap() {
                        self.spring(trap).await?;
                    } else {
                        self.pass_to_server().await?;
                    }
                }
                count = self.server.read_buf(&mut self.from_server) => {
                    data(count)?;
                    self.pass_to_client().await?;
                }
            }
        }
    }

    /// Does to the request that is in `from_client` what the trap says.
    async fn spring(&mut self, mut trap: Trap) -> Result<(), End> {
        match trap.kind {
            TrapKind::DropRequest => {
                trap.spring();
                trap.conclude(Verdict::None);
                return Err(End::Reset);
            }
            TrapKind::HoldRequest => {
                trap.spring();
                // Errs when the test has let go of the trap, which is as well.
                let _ = (&mut trap.released).await;
            }
            TrapKind::DropReply | TrapKind::HoldReply => {}
        }
        self.server.write_all_buf(&mut self.from_client).await?;
        let verdict = self.verdict().await?;
        if trap.kind == TrapKind::HoldReply {
            trap.spring();
            let _ = (&mut trap.released).await;
        }
        if trap.kind == TrapKind::DropReply {
            trap.spring();
            trap.conclude(verdict);
            return Err(End::Reset);
        }
        trap.conclude(verdict);
        self.pass_to_client().await
    }

    /// Reads the server's whole answer into `from_server`, and says what it was.
    async fn verdict(&mut self) -> Result<Verdict, End> {
        loop {
            tokio::select! {
                count = self.server.read_buf(&mut self.from_server) => data(count)?,
                // The rest of a long request. (A commit was read whole.)
                count = self.client.read_buf(&mut self.from_client), if self.link.protocol == Protocol::Http => {
                    data(count)?;
                    self.server.write_all_buf(&mut self.from_client).await?;
                    continue;
                }
            }
            if self.link.protocol == Protocol::Http {
                return Ok(Verdict::Done);
            }
            let mut unread = self.from_server.clone();
            let mut verdict = Verdict::Done;
            while let Some(frame) = Frame::take(&mut unread) {
                match frame.kind {
                    b'E' => verdict = Verdict::Refused(frame.code().unwrap_or_default()),
                    // Ready for the next request.
                    b'Z' => return Ok(verdict),
                    _ => {}
                }
            }
        }
    }

    async fn pass_to_server(&mut self) -> Result<(), End> {
        self.weather().await?;
        Ok(self.server.write_all_buf(&mut self.from_client).await?)
    }

    async fn pass_to_client(&mut self) -> Result<(), End> {
        self.weather().await?;
        Ok(self.client.write_all_buf(&mut self.from_server).await?)
    }

    /// What the weather does to a piece of data that is about to be passed on.
    async fn weather(&self) -> Result<(), End> {
        let weather = *self.link.weather.borrow();
        match weather {
            Weather::Clear => Ok(()),
            Weather::Slow(by) => {
                Link::count(&self.link.delayed);
                tokio::time::sleep(by).await;
                Ok(())
            }
            Weather::Silent => Err(End::Silent),
        }
    }
}

/// Whether these messages are a request to its end and, if so, whether it runs a prepared statement: a commit.
fn whole_request(messages: &BytesMut) -> Option<bool> {
    let mut unread = messages.clone();
    let (mut is_commit, mut last) = (false, 0);
    while let Some(frame) = Frame::take(&mut unread) {
        is_commit |= frame.kind == b'B';
        last = frame.kind;
    }
    // Sync, Query, Terminate, Flush, an answer to a question about passwords.
    (!unread.has_remaining() && b"SQXHp".contains(&last)).then_some(is_commit)
}
