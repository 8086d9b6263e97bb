//! Did a request leave this machine? Known exactly, from the request's body.
//!
//! Hyper asks a body whether it is empty, or for its bytes, when a connection takes the request up to write it, and
//! not before: not while resolving, connecting, shaking hands for TLS or waiting for a pooled connection. So the first
//! question marks the request as sent. Whoever gives up takes the request back with [`Sending::withdraw`]; both are one
//! compare-and-swap on the same word, so a request is either sent or withdrawn, never both: the body of a withdrawn
//! request answers a connection that is about to write it with an error, and nothing of it goes out.
//!
//! The same moment is the last at which it is known that the lease still holds under which the call is made. A request
//! whose term is over then is withdrawn.
//!
//! A change in hyper that asks earlier would make "maybe sent" out of "not sent", which is the safe direction. One that
//! writes the head before asking is what the tests of the client with a server that accepts and then hangs are for.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Term;

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Knows whether the request was taken up.
#[derive(Debug)]
pub struct Sending(Arc<AtomicU8>);

impl Sending {
    /// Takes the request back. True: nothing of it was sent, nor will be. False: something may have been.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        match self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == WITHDRAWN,
        }
    }
}

/// A request's body that notices when it is taken up.
#[derive(Debug)]
pub struct Outgoing {
    state: Arc<AtomicU8>,
    term: Term,
    bytes: Bytes,
    /// A request with a method that usually has a body says `Content-Length: 0` when it has none.
    says_length: bool,
}

/// How a request without a body is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenEmpty {
    /// No length (GET, DELETE).
    Silent,
    /// `Content-Length: 0` (POST, PUT, PATCH).
    SaysLength,
}

#[must_use]
pub fn outgoing(bytes: Bytes, when_empty: WhenEmpty, term: &Term) -> (Outgoing, Sending) {
    let state = Arc::new(AtomicU8::new(QUEUED));
    let says_length = when_empty == WhenEmpty::SaysLength;
    (Outgoing { state: Arc::clone(&state), term: term.clone(), bytes, says_length }, Sending(state))
}

impl Outgoing {
    /// True: it is ours to send.
    fn take_up(&self) -> bool {
        let next = if self.term.is_over() { WITHDRAWN } else { SENT };
        match self.state.compare_exchange(QUEUED, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => next == SENT,
            Err(state) => state == SENT,
        }
    }
}

/// The request was taken back before a connection took it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn;

impl fmt::Display for Withdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was withdrawn before it was sent")
    }
}

impl std::error::Error for Withdrawn {}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let body = self.get_mut();
        if !body.take_up() {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        let bytes = std::mem::take(&mut body.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    /// A withdrawn body says that there is more, so that it is asked for bytes and can fail.
    fn is_end_stream(&self) -> bool {
        self.take_up() && self.bytes.is_empty() && !self.says_length
    }

    fn size_hint(&self) -> SizeHint {
        match self.state.load(Ordering::Acquire) {
            WITHDRAWN => SizeHint::with_exact(self.bytes.len().max(1) as u64),
            _ => SizeHint::with_exact(self.bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        task::Waker,
        time::{Duration, Instant},
    };

    use super::{super::Lease, *};

    fn lease() -> Lease {
        Lease::until(Instant::now() + Duration::from_secs(3600))
    }

    fn poll(body: &mut Outgoing) -> Option<Result<Bytes, Withdrawn>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())),
            Poll::Pending => panic!("a body that is here is ready"),
        }
    }

    #[test]
    fn a_request_that_was_taken_up_cannot_be_withdrawn() {
        for bytes in ["", "{}"] {
            for when_empty in [WhenEmpty::Silent, WhenEmpty::SaysLength] {
                let lease = lease();
                let (body, sending) = outgoing(Bytes::from(bytes), when_empty, &lease.term());
                assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
                assert_eq!(body.is_end_stream(), bytes.is_empty() && when_empty == WhenEmpty::Silent);
                assert!(!sending.withdraw());
                assert!(!sending.withdraw());
            }
        }
    }

    #[test]
    fn a_request_that_was_withdrawn_is_never_sent() {
        for bytes in ["", "{}"] {
            for when_empty in [WhenEmpty::Silent, WhenEmpty::SaysLength] {
                let lease = lease();
                let (mut body, sending) = outgoing(Bytes::from(bytes), when_empty, &lease.term());
                assert!(sending.withdraw());
                assert!(sending.withdraw());
                assert!(!body.is_end_stream());
                assert!(body.size_hint().exact().unwrap() > 0);
                assert_eq!(poll(&mut body), Some(Err(Withdrawn)));
            }
        }
    }

    #[test]
    fn a_request_whose_lease_has_ended_is_withdrawn_as_it_is_about_to_be_sent() {
        for bytes in ["", "{}"] {
            for when_empty in [WhenEmpty::Silent, WhenEmpty::SaysLength] {
                let lease = lease();
                let (mut body, sending) = outgoing(Bytes::from(bytes), when_empty, &lease.term());
                lease.extend(Instant::now());
                assert!(!body.is_end_stream());
                lease.extend(Instant::now() + Duration::from_secs(3600));
                assert_eq!(poll(&mut body), Some(Err(Withdrawn)), "what is withdrawn stays so");
                assert!(sending.withdraw());
            }
        }
    }

    #[test]
    fn the_bytes_are_sent_once() {
        let lease = lease();
        let (mut body, _sending) = outgoing(Bytes::from("{}"), WhenEmpty::Silent, &lease.term());
        assert_eq!(poll(&mut body), Some(Ok(Bytes::from("{}"))));
        assert_eq!(poll(&mut body), None);
        assert!(body.is_end_stream());
    }
}
