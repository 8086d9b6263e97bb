//! Starting and stopping a worker.

use std::{fmt, io, net::SocketAddr, net::TcpListener, str::FromStr, sync::Arc};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use skald_kit::{Consumer, Db, DbError, DbOptions, Failure, bus::SourceError, events::ClientError};
use thiserror::Error;
use tokio::task::JoinHandle;

use super::{
    audit,
    metrics::{self, Metrics},
    notification::{self, Notification, SmtpError, SmtpOptions},
    views::{self, Views},
};
use crate::{SkaldOptions, http};

const STOP_GRACE_S: u64 = 10;

/// Which of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    Audit,
    Notification,
    Views,
}

impl WorkerKind {
    pub const ALL: [Self; 3] = [Self::Audit, Self::Notification, Self::Views];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Notification => "notification",
            Self::Views => "views",
        }
    }

    fn routes(self, app: &mut web::ServiceConfig) {
        match self {
            Self::Audit => audit::routes(app),
            Self::Notification => notification::routes(app),
            Self::Views => views::routes(app),
        }
    }
}

impl fmt::Display for WorkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkerKind {
    type Err = UnknownWorker;

    fn from_str(text: &str) -> Result<Self, UnknownWorker> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownWorker)
    }
}

/// The text names no worker.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the workers are audit, notification and views")]
pub struct UnknownWorker;

/// How a worker is to run.
#[derive(Debug)]
pub struct WorkerOptions {
    /// Already bound, so that a busy port is the caller's to report.
    pub listener: TcpListener,
    /// `sqlite:PATH` or `postgres://..`; the tables are the worker's own.
    pub database_url: String,
    /// Whose events. The views take them from Skald itself, whatever the bus.
    pub skald: SkaldOptions,
    /// Notification: where messages are sent. Without it they only go to the table.
    pub smtp: Option<SmtpOptions>,
    /// Threads that serve HTTP.
    pub http_threads: usize,
}

/// Why a worker can't start.
#[derive(Debug, Error)]
pub enum WorkerError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("cannot prepare the database: {0}")]
    Prepare(#[from] Failure),
    #[error(transparent)]
    Skald(#[from] ClientError),
    #[error("the bus: {0}")]
    Bus(#[from] SourceError),
    #[error(transparent)]
    Smtp(#[from] SmtpError),
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<sqlx::Error> for WorkerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Prepare(error.into())
    }
}

/// A running worker. Dropping it stops it without grace.
#[derive(Debug)]
pub struct Worker {
    kind: WorkerKind,
    addr: SocketAddr,
    db: Db,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    handle: ServerHandle,
    http: JoinHandle<io::Result<()>>,
    work: Work,
}

/// What goes on beside HTTP.
#[derive(Debug)]
enum Work {
    Audit(Consumer),
    Notification(Notification),
    Views(web::Data<Views>),
}

impl Worker {
    /// Opens the database and goes on from where it was; Skald and the bus are tried until they can be reached.
    ///
    /// # Errors
    /// The database can't be opened, the listener not be used, or an address is malformed.
    pub async fn start(kind: WorkerKind, options: WorkerOptions) -> Result<Self, WorkerError> {
        let WorkerOptions { listener, database_url, skald, smtp, http_threads } = options;
        let addr = listener.local_addr()?;
        let db = Db::connect(&database_url, &DbOptions::default()).await?;
        let client = skald.client()?;
        let metrics = Arc::new(Metrics::new(kind.as_str())?);
        let work = match kind {
            WorkerKind::Audit => Work::Audit(audit::start(&db, client, &skald, metrics.clone()).await?),
            WorkerKind::Notification => {
                Work::Notification(Notification::start(&db, client, &skald, smtp.as_ref(), metrics.clone()).await?)
            }
            WorkerKind::Views => Work::Views(web::Data::new(Views::start(&db, client, metrics.clone()).await?)),
        };
        let views = if let Work::Views(views) = &work { Some(views.clone()) } else { None };
        let shared = (web::Data::new(db.clone()), web::Data::from(metrics), views);
        let server = HttpServer::new(move || {
            let (db, metrics, views) = shared.clone();
            let app = App::new().app_data(db).app_data(metrics);
            let app = if let Some(views) = views { app.app_data(views) } else { app };
            app.configure(|app| kind.routes(app))
                .service(http::resource("/livez", "GET").route(web::get().to(http::livez)))
                .service(http::resource("/metrics", "GET").route(web::get().to(metrics::show)))
                .default_service(web::to(http::no_such_path))
        })
        .workers(http_threads)
        .tcp_nodelay(true)
        .shutdown_timeout(STOP_GRACE_S)
        .disable_signals()
        .listen(listener)?
        .run();
        let handle = server.handle();
        let running = Some(Running { handle, http: tokio::spawn(server), work });
        Ok(Self { kind, addr, db, running })
    }

    #[must_use]
    pub fn kind(&self) -> WorkerKind {
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

    /// Lets what is being handled end, then closes the database.
    pub async fn stop(mut self) {
        if let Some(Running { handle, http, work }) = self.running.take() {
            match work {
                Work::Audit(consumer) => consumer.stop().await,
                Work::Notification(notification) => notification.stop().await,
                Work::Views(views) => views.stop().await,
            }
            handle.stop(true).await;
            match http.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the HTTP server ended with an error"),
                Err(error) => tracing::error!(%error, "the HTTP server panicked"),
            }
        }
        self.db.close().await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(Running { handle, http, work }) = self.running.take() {
            // The command is sent by the call; its end need not be awaited.
            drop(handle.stop(false));
            if let Work::Views(views) = &work {
                views.abort();
            }
            drop((http, work));
        }
    }
}
