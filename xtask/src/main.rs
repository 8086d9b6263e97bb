//! The developers' commands: `cargo xtask COMMAND`. The README and `.ci/run` call these and nothing else, so what
//! passes on a desk passes in CI.

mod bench;
mod chaos;
mod ci;
mod coverage;
mod deny;
mod deployment;
mod dev_server;
mod dist;
mod monitoring;
mod postgres;
#[path = "../../tests/harness/postgres_binaries.rs"]
mod postgres_binaries;
mod python;
mod redis;
mod run;
mod schemathesis;
mod sdk;
mod simulate;
mod stages;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Skald's commands for developers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all tests, on SQLite and PostgreSQL; installs what is missing where it can.
    Test {
        /// Passed on to the test binaries, e.g. part of a test's name.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Break everything that can break while sagas run, and check that nothing is lost.
    Chaos(chaos::Options),
    /// Run the engine in virtual time under every fault, e.g. `--seeds 20000`, `--steps 3`, `--mutants`, `--replay SEED`.
    #[command(disable_help_flag = true)]
    Simulate {
        /// Passed on to the simulator; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything a change must pass: formatting, clippy, documentation, dependencies, tests, simulation, chaos.
    Ci,
    /// Requests made from the OpenAPI specification against a real server, every answer held against it
    Schemathesis(schemathesis::Options),
    /// Build Skald to be deployed, optimised by what it does while it carries out checkouts: `target/dist/skald`
    Dist,
    /// Measure checkouts made directly, through a front and through Skald, in turns; `--help` lists the rest
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on to the bench.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print latencies: checkouts beside idle readers, others beside a participant that hangs
    Figures {
        /// Of an optimised build
        #[arg(long)]
        release: bool,
    },
    /// Write the specification and the clients in `sdks/` anew; `--check` whether they are up to date, `--test` them
    Sdk(sdk::Options),
    /// Check Prometheus' and Alertmanager's configuration, and the rules by their tests
    Monitoring,
    /// Which lines the tests run, by part of the workspace
    Coverage,
    /// Check docker-compose.yml and the Helm chart
    Deployment,
    /// Write the OpenAPI specification anew to `openapi/skald.json`.
    Openapi,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test { filter } => suite::run(&filter),
        Command::Chaos(options) => chaos::run(&options).and_then(|()| chaos::run_on_sqlite()),
        Command::Simulate { arguments } => simulate::run(&arguments),
        Command::Ci => ci::run(),
        Command::Schemathesis(options) => schemathesis::run(options),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Dist => dist::build().map(|built| println!("{}", built.display())),
        Command::Figures { release } => suite::figures(release),
        Command::Sdk(options) => sdk::run(options),
        Command::Monitoring => monitoring::run(),
        Command::Coverage => coverage::run(),
        Command::Deployment => deployment::run(),
        Command::Openapi => suite::write_openapi(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
