//! `cargo xtask bench`: what a checkout through Skald costs, beside the same calls made directly.
//!
//! Everything that is measured is a process of its own and is asked over real HTTP; this process is the load generator.
//! `docs/PERFORMANCE.md` says what is measured and how.

mod checkouts;
mod disk;
mod flame;
mod front;
mod http;
mod load;
mod order;
mod participants;
mod progress;
mod report;
mod scenarios;
mod serve;
mod services;
mod skald;
mod usage;
mod world;

/// How the end-to-end tests start servers and get rid of them.
#[path = "../../../tests/harness"]
#[expect(dead_code, reason = "the tests need more of it")]
mod harness {
    pub mod cluster;
    mod eventually;
    pub mod guard;
    mod postgres_binaries;
    pub mod process;

    pub use self::eventually::eventually;
}

use std::process::ExitCode;

use actix_web::rt::System;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use self::{scenarios::Scenario, world::Ground};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ground: Ground,
    #[command(flatten)]
    checkouts: checkouts::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(hide = true)]
    /// The services that a checkout calls, in memory; started by the others.
    Participants,
    #[command(hide = true)]
    /// A service that makes a checkout's calls itself; started by the others.
    Front(FrontOptions),
    #[command(flatten)]
    Scenario(Scenario),
}

#[derive(Debug, Args)]
struct FrontOptions {
    /// Where the participants are.
    #[arg(long)]
    participants: String,
}

fn main() -> ExitCode {
    let Arguments { command, ground, checkouts } = Arguments::parse();
    let result = match command {
        Some(Command::Participants) => System::new().block_on(serve::participants()),
        Some(Command::Front(FrontOptions { participants })) => System::new().block_on(serve::front(&participants)),
        Some(Command::Scenario(scenario)) => measure(scenarios::run(&scenario, &ground)),
        None => measure(checkouts::run(checkouts, &ground)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skald-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// With a thread per processor, which actix's own runtime does not have.
fn measure(scenario: impl Future<Output = Result<()>>) -> Result<()> {
    Runtime::new()?.block_on(scenario)
}
