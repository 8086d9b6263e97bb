//! Starting and stopping a demo service.

use std::{fmt, io, net::SocketAddr, net::TcpListener, str::FromStr, sync::Arc, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use skald_kit::{Barrier, BarrierOptions, Db, DbError, DbOptions, Failure, SigningSecrets};
use thiserror::Error;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    catalog,
    choreography::{Choreography, ChoreographyError, SkaldOptions},
    faults::{self, Connection, Faults},
    http::{self, Shared},
    ledger,
    metrics::Metrics,
    offer::Offer,
    orders, sales, upkeep,
};

/// Longer than the idle time of usual HTTP clients, so that the client ends a connection and no
/// request races with the server ending it.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
const STOP_GRACE_S: u64 = 10;

/// Which of the demo services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Catalog,
    Sales,
    Orders,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Sales => "sales",
            Self::Orders => "orders",
        }
    }

    fn offer(self) -> Offer {
        match self {
            Self::Catalog => catalog::offer(),
            Self::Sales => sales::offer(),
            Self::Orders => orders::offer(),
        }
    }

    async fn prepare(self, db: &Db) -> Result<(), Failure> {
        match self {
            Self::Catalog => catalog::prepare(db).await,
            Self::Sales => sales::prepare(db).await,
            Self::Orders => orders::prepare(db).await,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        [Self::Catalog, Self::Sales, Self::Orders].into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// The text names no demo service.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the services are catalog, sales and orders")]
pub struct UnknownKind;

/// How a service is to run.
#[derive(Debug)]
pub struct ServiceOptions {
    /// Already bound, so that a busy port is the caller's to report.
    pub listener: TcpListener,
    /// `sqlite:PATH` or `postgres://..`; created tables and seeds are the service's own.
    pub database_url: String,
    /// Offers `PUT /faults`.
    pub faults: bool,
    /// Threads that serve HTTP.
    pub workers: usize,
    /// Catalog: how long stock is held past the saga's deadline.
    pub hold_grace: Duration,
    /// Catalog: how often expired holds are looked for.
    pub sweep_every: Duration,
    /// How long idempotency keys are kept; `None` for ever.
    pub key_retention: Option<Duration>,
    /// Takes part in choreographed sagas of this Skald.
    pub skald: Option<SkaldOptions>,
    /// Refuses calls that are not signed with one of these.
    pub signing: Option<SigningSecrets>,
}

impl ServiceOptions {
    /// The defaults: no faults, one worker, a grace of 24 hours, keys kept for ever.
    #[must_use]
    pub fn new(listener: TcpListener, database_url: impl Into<String>) -> Self {
        Self {
            listener,
            database_url: database_url.into(),
            faults: false,
            workers: 1,
            hold_grace: Duration::from_secs(24 * 3600),
            sweep_every: Duration::from_secs(1),
            key_retention: None,
            skald: None,
            signing: None,
        }
    }
}

/// Why a service can't start.
#[derive(Debug, Error)]
pub enum ServiceError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("cannot prepare the database: {0}")]
    Prepare(#[from] Failure),
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot take part in choreographed sagas: {0}")]
    Choreography(#[from] ChoreographyError),
}

/// A running service. Dropping it stops it without grace.
#[derive(Debug)]
pub struct Service {
    kind: Kind,
    addr: SocketAddr,
    db: Db,
    server: Option<Running>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Running {
    handle: ServerHandle,
    http: JoinHandle<io::Result<()>>,
    upkeep: JoinHandle<()>,
    choreography: Option<Choreography>,
}

impl Service {
    /// Opens the database, seeds it when it is empty, and serves. Needs a tokio runtime, in which the
    /// database work is done.
    ///
    /// # Errors
    /// The database can't be opened, or the listener not be used.
    pub async fn start(kind: Kind, options: ServiceOptions) -> Result<Self, ServiceError> {
        let addr = options.listener.local_addr()?;
        let db = Db::connect(&options.database_url, &DbOptions::default()).await?;
        let barrier_options = BarrierOptions { retention: options.key_retention, ..BarrierOptions::default() };
        let barrier = Barrier::open(db.clone(), barrier_options).await.map_err(Failure::from)?;
        kind.prepare(&db).await?;
        let (stopping, stop_seen) = watch::channel(false);
        let offer = Arc::new(kind.offer());
        let shared = Arc::new(Shared {
            service: kind.as_str(),
            barrier,
            metrics: Metrics::new(kind.as_str())?,
            faults: options.faults.then(|| Faults::new(offer.names())),
            hold_grace: options.hold_grace,
            signing: options.signing,
            stopping: stop_seen.clone(),
        });
        let upkeep = upkeep::spawn(kind, shared.clone(), options.sweep_every, stop_seen);
        let choreography = match &options.skald {
            Some(skald) => Some(Choreography::start(skald, offer.clone(), shared.clone()).await?),
            None => None,
        };
        let server = serve(offer, shared, options.listener, options.faults, options.workers)?;
        let handle = server.handle();
        let http = tokio::spawn(server);
        let server = Some(Running { handle, http, upkeep, choreography });
        Ok(Self { kind, addr, db, server, stopping })
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS`, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Takes no more connections, lets running calls finish (ten seconds at most), closes the database.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Some(Running { handle, http, upkeep, choreography }) = self.server.take() {
            handle.stop(true).await;
            if let Some(choreography) = choreography {
                choreography.stop().await;
            }
            match http.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the HTTP server ended with an error"),
                Err(error) => tracing::error!(%error, "the HTTP server panicked"),
            }
            if let Err(error) = upkeep.await {
                tracing::error!(%error, "upkeep panicked");
            }
        }
        self.db.close().await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(Running { handle, http, upkeep, choreography }) = self.server.take() {
            self.stopping.send_replace(true);
            // The command is sent by the call; its end need not be awaited.
            drop(handle.stop(false));
            drop((http, upkeep, choreography));
        }
    }
}

fn serve(
    offer: Arc<Offer>,
    shared: Arc<Shared>,
    listener: TcpListener,
    faults: bool,
    workers: usize,
) -> io::Result<actix_web::dev::Server> {
    let shared = web::Data::from(shared);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .configure(|app| offer.routes(app))
            .service(http::resource("/livez", "GET").route(web::get().to(http::livez)))
            .service(http::resource("/metrics", "GET").route(web::get().to(http::metrics)))
            .service(http::resource("/ledger", "GET").route(web::get().to(ledger::show)))
            .configure(|app| {
                if faults {
                    app.service(faults::resource());
                }
            })
            .default_service(web::to(http::no_such_path))
    })
    .workers(workers)
    .keep_alive(KEEP_ALIVE)
    .tcp_nodelay(true)
    // A client that closes its side has left: its hanging calls end.
    .h1_allow_half_closed(false)
    .shutdown_timeout(STOP_GRACE_S)
    .disable_signals();
    let server = if faults { server.on_connect(Connection::remember) } else { server };
    Ok(server.listen(listener)?.run())
}
