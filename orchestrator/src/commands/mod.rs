//! What each command of the command line does. Errors reach the user as one line.

mod compare;
mod demo;
mod dev;
mod files;
mod healthcheck;
mod keys;
mod logging;
mod migrate;
mod projection;
mod restore;
mod retain;
mod serve;
mod service;
mod tls;
mod validate;
mod verify;

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use indicatif::ProgressBar;

pub use self::compare::FaultMix;
use crate::{
    cli::{Command, ConfigFile},
    config::{self, Config, Flags, Loaded, Sources},
};

/// Runs a command to its end.
///
/// # Errors
///
/// What kept it from doing its work, for the user to read.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(args) => dev::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Verify(args) => Ok(verify::run(&args)),
        Command::Retain(args) => retain::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Compare(args) => Ok(compare::run(&args)),
        Command::Projection(args) => Ok(projection::run(&args)),
        Command::Version => {
            println!("skald {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(file: &ConfigFile, flags: Flags) -> anyhow::Result<Config> {
    let sources = Sources { file: file.config.clone(), environment: config::environment(), flags };
    let Loaded { config, ignored } = Config::load(sources)?;
    for variable in ignored {
        eprintln!("skald: {variable} is ignored: it names no section of the configuration");
    }
    Ok(config)
}

/// For the engine and its calls: a thread per processor, unless `TOKIO_WORKER_THREADS` says otherwise.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A bar on standard error, if that is a terminal.
fn bar_on_terminal() -> ProgressBar {
    /// How often it is drawn when nothing moves.
    const TICK: Duration = Duration::from_millis(200);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(TICK);
    bar
}

/// Completes when the process is asked to stop (SIGTERM, SIGINT).
async fn asked_to_stop() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a signal handler can be installed");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
