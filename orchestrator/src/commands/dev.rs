//! `skald dev`: everything on this machine, with nothing to install, and a demonstration.

use std::{
    fs::{File, TryLockError},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use skald_participants::{
    ApiKey, Kind, Service as Participant, ServiceOptions, SkaldOptions, Worker, WorkerKind, WorkerOptions,
};

use super::{demo, logging, serve::bind, service::Service};
use crate::{
    cli::DevArgs,
    config::{Config, Log, Participant as ParticipantConfig, ServerUrl},
};

const DEFINITIONS: [&str; 2] =
    [include_str!("../../../definitions/checkout.yaml"), include_str!("../../../definitions/order-first.yaml")];

pub fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    logging::start(&Log { level: "warn".to_owned(), ..Log::default() })?;
    let _lock = lock(&args.data_dir)?;
    let listener = bind(args.listen, "--listen")?;
    let services = [
        (Kind::Catalog, bind(args.catalog_listen, "--catalog-listen")?),
        (Kind::Sales, bind(args.sales_listen, "--sales-listen")?),
        (Kind::Orders, bind(args.orders_listen, "--orders-listen")?),
    ];
    let lookers_on = [
        (WorkerKind::Audit, bind(args.audit_listen, "--audit-listen")?),
        (WorkerKind::Notification, bind(args.notification_listen, "--notification-listen")?),
        (WorkerKind::Views, bind(args.views_listen, "--views-listen")?),
    ];
    super::runtime()?.block_on(async {
        let mut config = Config::default();
        config.access.insecure = args.insecure;
        config.database.url = ServerUrl::new(sqlite_url(&args.data_dir, "skald"));
        let key = args.key.read()?;
        let api_key = key.as_ref().map(|key| ApiKey::new(key.reveal())).transpose()?;
        let skald = SkaldOptions { api_key, ..SkaldOptions::new(format!("http://{}", listener.local_addr()?)) };
        let mut participants = Vec::new();
        for (kind, listener) in services {
            let participant = start_participant(kind, listener, &args.data_dir, skald.clone()).await?;
            let base_url = Some(participant.base_url());
            config.participants.insert(kind.as_str().to_owned(), ParticipantConfig { base_url, ..Default::default() });
            participants.push(participant);
        }
        let service = Service::start(&config, listener, &DEFINITIONS).await?;
        let mut workers = Vec::new();
        for (kind, listener) in lookers_on {
            workers.push(start_worker(kind, listener, &args.data_dir, skald.clone()).await?);
        }
        let mut addresses: Vec<(&str, SocketAddr)> =
            participants.iter().map(|participant| (participant.kind().as_str(), participant.addr())).collect();
        addresses.extend(workers.iter().map(|worker| (worker.kind().as_str(), worker.addr())));
        demo::show(service.addr(), key.as_ref(), &addresses).await?;
        super::asked_to_stop().await;
        println!("\nstopping");
        for worker in workers {
            worker.stop().await;
        }
        service.stop().await;
        for participant in participants {
            participant.stop().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// With its part in choreographed sagas.
async fn start_participant(
    kind: Kind,
    listener: TcpListener,
    data_dir: &Path,
    skald: SkaldOptions,
) -> anyhow::Result<Participant> {
    let skald = Some(skald);
    let options =
        ServiceOptions { faults: true, skald, ..ServiceOptions::new(listener, sqlite_url(data_dir, kind.as_str())) };
    Participant::start(kind, options).await.with_context(|| format!("cannot start {}", kind.as_str()))
}

/// Looks on: no saga needs it.
async fn start_worker(
    kind: WorkerKind,
    listener: TcpListener,
    data_dir: &Path,
    skald: SkaldOptions,
) -> anyhow::Result<Worker> {
    let options = WorkerOptions {
        listener,
        database_url: sqlite_url(data_dir, kind.as_str()),
        skald,
        smtp: None,
        http_threads: 1,
    };
    Worker::start(kind, options).await.with_context(|| format!("cannot start {}", kind.as_str()))
}

fn sqlite_url(data_dir: &Path, name: &str) -> String {
    format!("sqlite:{}", data_dir.join(format!("{name}.db")).display())
}

/// Makes the data folder and keeps it from being used twice at once. The lock goes with the process, however it ends.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let shown = data_dir.display();
    let unusable = || format!("cannot write to the data folder {shown}: choose another with --data-dir");
    std::fs::create_dir_all(data_dir).with_context(unusable)?;
    let file = File::create(data_dir.join("lock")).with_context(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "the data folder {shown} is in use by another `skald dev`: stop it, or choose another with --data-dir"
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(unusable),
    }
}
