//! Skald, the saga orchestrator: the service and its command line.

mod access;
mod api;
mod app;
mod audit;
mod bus;
mod cli;
mod clock;
mod commands;
mod config;
mod dispatch;
mod engine;
mod events;
mod forward;
mod hex;
mod http_client;
mod metrics;
mod neighbours;
mod personal;
mod retention;
mod rfc3339;
mod signature;
mod spans;
mod storage;
mod verify;
mod webhooks;

use std::process::ExitCode;

use clap::Parser as _;

/// Thousands of small values live and die per saga, in other threads than they were made in.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    commands::run(cli.command).unwrap_or_else(|error| {
        eprintln!("skald: {error:#}");
        ExitCode::FAILURE
    })
}
