//! `skald serve`: runs the service until it is asked to stop.

use std::{net::TcpListener, process::ExitCode};

use anyhow::Context as _;

use super::{logging, service::Service};
use crate::cli::ServeArgs;

pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.file, args.flags())?;
    logging::start(&config.log)?;
    let listener = bind(config.server.listen, "server.listen")?;
    super::runtime()?.block_on(async {
        let service = Service::start(&config, listener, &[]).await?;
        let scheme = if service.is_tls() { "https" } else { "http" };
        println!("skald listening on {scheme}://{}", service.addr());
        super::asked_to_stop().await;
        tracing::info!("stopping: no more work is taken");
        service.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Binds an address, or says in one line which one and how to choose another.
pub(super) fn bind(address: std::net::SocketAddr, chosen_by: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}: choose another address with {chosen_by}"))
}
