//! A TCP proxy with faults that a test switches: the network between the servers.
//!
//! What holds for all connections is the [`Weather`]; what is to happen once, to one request, is a [`trap`]. Everything
//! that is done is counted ([`Seen`]), so that a test knows whether a fault has hit anything.
//!
//! In front of PostgreSQL ([`Proxy::before_postgres`]) it reads who connects. On a session of Skald's writer it knows
//! where a commit begins and ends, so that a trap can hold one on its way, there or back ([`session`]).

mod frames;
mod session;
pub mod trap;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use self::trap::{Armed, Trap, TrapKind};

/// What happens to all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Every piece of data arrives later.
    Slow(Duration),
    /// Half-open: data is swallowed and nobody is told. A connection that lost data stays dead when the weather clears.
    Silent,
}

/// What has been done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub connections: u64,
    pub reset: u64,
    pub delayed: u64,
    /// Connections that fell silent.
    pub silenced: u64,
}

/// Stops, and cuts its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    link: Arc<Link>,
    accepting: JoinHandle<()>,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Link {
    target: SocketAddr,
    protocol: Protocol,
    weather: watch::Sender<Weather>,
    /// Raised to reset every connection there is.
    resets: watch::Sender<u64>,
    traps: Mutex<VecDeque<Trap>>,
    connections: AtomicU64,
    reset: AtomicU64,
    delayed: AtomicU64,
    silenced: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Requests and answers by turns, as HTTP without pipelining.
    Http,
    Postgres,
}

impl Proxy {
    pub async fn before_http(target: SocketAddr) -> Self {
        Self::start(target, Protocol::Http).await
    }

    pub async fn before_postgres(target: SocketAddr) -> Self {
        Self::start(target, Protocol::Postgres).await
    }

    async fn start(target: SocketAddr, protocol: Protocol) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there are free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let link = Arc::new(Link {
            target,
            protocol,
            weather: watch::Sender::new(Weather::Clear),
            resets: watch::Sender::new(0),
            traps: Mutex::default(),
            connections: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            silenced: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&link)));
        Self { port, link, accepting }
    }

    pub fn weather(&self, weather: Weather) {
        self.link.weather.send_replace(weather);
    }

    /// Resets every connection there is; new ones are carried as before.
    pub fn reset_all(&self) {
        self.link.resets.send_modify(|count| *count += 1);
    }

    /// Lays a trap for the next request; on PostgreSQL, for the writer's next commit. Traps spring in the order they
    /// were laid; one whose [`Armed`] was dropped does not.
    pub fn arm(&self, kind: TrapKind) -> Armed {
        let (trap, armed) = trap::lay(kind);
        self.link.traps.lock().expect("nothing panics while it holds this lock").push_back(trap);
        armed
    }

    pub fn seen(&self) -> Seen {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Seen {
            connections: count(&self.link.connections),
            reset: count(&self.link.reset),
            delayed: count(&self.link.delayed),
            silenced: count(&self.link.silenced),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset_all();
    }
}

impl Link {
    fn next_trap(&self) -> Option<Trap> {
        let mut traps = self.traps.lock().expect("nothing panics while it holds this lock");
        std::iter::from_fn(|| traps.pop_front()).find(|trap| !trap.is_given_up())
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    loop {
        // Errs when a client has left already, or files run short: neither ends the proxy.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        Link::count(&link.connections);
        tokio::spawn(carry(client, Arc::clone(&link)));
    }
}

/// Carries one connection to its end.
async fn carry(client: TcpStream, link: Arc<Link>) {
    let mut resets = link.resets.subscribe();
    resets.mark_unchanged();
    if *link.weather.borrow() == Weather::Silent {
        return session::stay_silent(client, &link, resets).await;
    }
    let Ok(server) = TcpStream::connect(link.target).await else {
        return cut(&client);
    };
    for stream in [&client, &server] {
        // Errs when the connection is gone, which is noticed soon enough.
        let _ = stream.set_nodelay(true);
    }
    session::Session::new(client, server, Arc::clone(&link), resets).run().await;
}

/// Makes the peer see a reset instead of an end.
fn cut(stream: &TcpStream) {
    // Errs when the connection is gone already.
    let _ = stream.set_zero_linger();
}
