//! The command line.
//!
//! Only reads arguments: what a command does is elsewhere. Environment variables other than `SKALD_CONFIG` are the
//! configuration's business, so that file, environment and flags have one order of precedence.

mod keys;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use skald_core::{event::Mode, time::Millis};

pub use self::keys::{ApiKeyArgs, ByArgs, CreateKeyArgs, KeysAction, KeysArgs, RevokeKeyArgs, RotateKeyArgs};
use crate::{
    commands::FaultMix,
    config::{Flags, ServerUrl},
};

/// Runs business transactions that span services, and undoes what must be undone.
#[derive(Debug, Parser)]
#[command(name = "skald", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything on this machine to try it: Skald on SQLite, the demo services catalog, sales and orders, and the
    /// workers audit, notification and views
    Dev(DevArgs),
    /// Run the service
    Serve(ServeArgs),
    /// Bring the database's tables up to date
    Migrate(DatabaseArgs),
    /// Ask the server of this configuration, on this machine, whether it is ready
    ///
    /// For containers, whose image has no shell. Exit status: 0 when it is, 1 when it is not or does not answer within 5 s.
    Healthcheck(HealthcheckArgs),
    /// Make, list, revoke and replace the keys that clients show
    ///
    /// Works on the database, also while servers run: they know of a change within seconds. As long as there is none, and no
    /// issuer of tokens, no key is needed; the first one ends that for good.
    Keys(KeysArgs),
    /// Check saga definitions; names every problem with its place
    Validate(ValidateArgs),
    /// Check the database against the invariants, without writing to it, also while Skald runs
    ///
    /// Reads page by page. What it checks, by number: an ended saga has no further events (6); versions of a saga's events
    /// and positions of a shard's log have no gaps, and a saga lies in one shard (7); folding a saga's events gives its row,
    /// in every column (8); epochs never go back along a log (9); start keys lead to their sagas (10). With --participants
    /// also: effects and undos of ended sagas by the services' own ledgers (1, 3, 4, 5).
    ///
    /// Exit status: 0 when all is well, 1 when there are violations, 2 when the check could not be carried out.
    Verify(VerifyArgs),
    /// Archive and remove what is old, once
    ///
    /// As the section `retention` of the configuration says, whose `age` and `archive` it needs. A server does it by itself now
    /// and then.
    Retain(RetainArgs),
    /// Bring parts of the archive back into the database
    ///
    /// Each part is checked whole before anything of it is written. What is there already must be the same. To be repeated
    /// when it was interrupted.
    Restore(RestoreArgs),
    /// Run the same workload in both modes against running servers, and compare what it takes
    ///
    /// Needs Skald and the demo services catalog, sales and orders, as `skald dev` starts them. Each mode gets the same
    /// orders, made from --seed, in rounds that take turns. The services get products and customers of their own for this.
    ///
    /// Exit status: 0 when every mode was measured and all of them end the same orders in the same final state, 1 when they
    /// do not, 2 when a mode could not be measured.
    Compare(Box<CompareArgs>),
    /// Rebuild or verify a projection of the views service, from the beginning of the log
    ///
    /// Reads of it go on meanwhile. Exit status: 0 when it is done, 1 when verify finds a difference, which it names, 2 when
    /// it could not be carried out.
    Projection(ProjectionArgs),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where the databases are kept
    #[arg(long, value_name = "DIR", default_value = "./.skald")]
    pub data_dir: PathBuf,
    /// Address and port of Skald's API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Listen where others reach it, although nobody needs a key
    #[arg(long)]
    pub insecure: bool,
    /// Address and port of the service that keeps products and stock
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub catalog_listen: SocketAddr,
    /// Address and port of the service that takes payments
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    pub sales_listen: SocketAddr,
    /// Address and port of the service that keeps orders
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    pub orders_listen: SocketAddr,
    /// Address and port of the worker that keeps every event, to be searched
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8084")]
    pub audit_listen: SocketAddr,
    /// Address and port of the worker that tells customers how their orders end
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    pub notification_listen: SocketAddr,
    /// Address and port of the worker that keeps the read models
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8086")]
    pub views_listen: SocketAddr,
    #[command(flatten)]
    pub key: ApiKeyArgs,
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration (TOML); skald.example.toml documents every key
    #[arg(long, value_name = "PATH", env = "SKALD_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// sqlite:PATH or postgres://.. [key: database.url]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<ServerUrl>,
    /// Address and port of the API [key: server.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Do not bring the database's tables up to date at start [key: database.migrate]
    #[arg(long)]
    pub no_migrate: bool,
    /// Publish events to Redis Streams too: redis://HOST:PORT [key: bus.url]
    #[arg(long, value_name = "URL")]
    pub bus: Option<ServerUrl>,
    /// Listen where others reach it, although nobody needs a key [key: access.insecure]
    #[arg(long)]
    pub insecure: bool,
    /// A folder of saga definitions to register; may be repeated [key: definitions.folders]
    #[arg(long, value_name = "DIR")]
    pub definitions: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DatabaseArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// sqlite:PATH or postgres://.. [key: database.url]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<ServerUrl>,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Where the server listens [key: server.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Only whether it is alive: /livez instead of /readyz
    #[arg(long)]
    pub live: bool,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Definitions, YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Also check that the services they call are configured
    #[command(flatten)]
    pub file: ConfigFile,
}

#[derive(Debug, Args)]
pub struct RetainArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Only tell what would go, and why other things stay
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Files of the archive, NAME.ndjson.gz, each with its manifest beside it
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Also read the ledger of every configured participant (GET /ledger) and hold ended sagas against it
    #[arg(long)]
    pub participants: bool,
    /// With --participants: how far the clocks of two services may be apart, as in 500ms
    #[arg(long, value_name = "DURATION", default_value = "0ms", requires = "participants")]
    pub clock_skew: Millis,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// Violations to print; the others are only counted
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit_violations: usize,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Skald's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: reqwest::Url,
    #[command(flatten)]
    pub key: ApiKeyArgs,
    /// The service that keeps products and stock
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub catalog: reqwest::Url,
    /// The service that takes payments
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082")]
    pub sales: reqwest::Url,
    /// The service that keeps orders
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8083")]
    pub orders: reqwest::Url,
    /// What to run: checkout, order-first, or another that takes the same input
    #[arg(long, value_name = "NAME", default_value = "checkout")]
    pub definition: String,
    /// Which modes, in the order in which the first round runs them
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "orchestrated,choreographed", value_parser = mode)]
    pub modes: Vec<Mode>,
    /// Clients that each run one saga after another
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub clients: u32,
    /// Sagas of each mode, over all rounds
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sagas: u64,
    /// Run each mode for so long over all rounds, whatever number of sagas that is
    #[arg(long, value_name = "DURATION", conflicts_with = "sagas")]
    pub duration: Option<Millis>,
    /// Rounds; in each, every mode runs its part
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Sagas of each mode before the first round, which are not measured
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub warm_up: u64,
    /// Of a hundred orders, how many have a payment that is declined
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub declined: u8,
    /// What goes wrong at the demo services meanwhile, as in lose_reply=5%,delay=20%:50ms
    ///
    /// Faults: delay=RATE:DURATION, unavailable=RATE or =RATE:DURATION, error_500, lose_reply, duplicate and hang=RATE, for each
    /// call. What was set before is set again at the end, also when interrupted.
    #[arg(long, value_name = "FAULTS", default_value = "")]
    pub faults: FaultMix,
    /// The same seed gives the same orders
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How long a saga may take before it counts as not ended
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub patience: Millis,
    /// Write the figures into a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with charts into a file; it needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn mode(word: &str) -> Result<Mode, String> {
    let modes = [Mode::Orchestrated, Mode::Choreographed];
    let found = modes.into_iter().find(|mode| mode.as_str() == word);
    found.ok_or_else(|| format!("the modes are {} and {}", modes[0].as_str(), modes[1].as_str()))
}

#[derive(Debug, Args)]
pub struct ProjectionArgs {
    #[command(subcommand)]
    pub action: ProjectionAction,
}

#[derive(Debug, Subcommand)]
pub enum ProjectionAction {
    /// Replay the log into new rows and put them in the place of the old ones
    Rebuild(ProjectionName),
    /// Replay the log into scratch rows and compare
    Verify(ProjectionName),
}

#[derive(Debug, Args)]
pub struct ProjectionName {
    /// For example orders-by-customer; GET /projections of the service lists them
    pub name: String,
    /// Where the views service is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8086")]
    pub views_url: String,
}

impl ServeArgs {
    /// What they say about the configuration.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            database_url: self.database_url.clone(),
            listen: self.listen,
            migrate: self.no_migrate.then_some(false),
            insecure: self.insecure,
            bus: self.bus.clone(),
            definitions: self.definitions.clone(),
        }
    }
}

impl DatabaseArgs {
    /// What they say about the configuration.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags { database_url: self.database_url.clone(), ..Flags::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_turns_its_flags_into_configuration() {
        let line = "skald serve --database-url postgres://u:hunter2@h/d --listen 0.0.0.0:80 --no-migrate \
                    --definitions a --definitions b";
        let Command::Serve(args) = parse(line).unwrap() else { panic!("not serve") };
        let flags = args.flags();
        assert_eq!(flags.database_url.as_ref().unwrap().reveal(), "postgres://u:hunter2@h/d");
        assert_eq!(flags.listen.unwrap().port(), 80);
        assert_eq!(flags.migrate, Some(false));
        assert_eq!(flags.definitions, [PathBuf::from("a"), PathBuf::from("b")]);
        assert!(!format!("{args:?}").contains("hunter2"));
    }

    #[test]
    fn flags_that_are_not_given_say_nothing() {
        let Command::Serve(args) = parse("skald serve").unwrap() else { panic!("not serve") };
        let flags = args.flags();
        assert!(flags.database_url.is_none() && flags.listen.is_none() && flags.migrate.is_none());
        assert!(flags.definitions.is_empty());
    }

    #[test]
    fn dev_needs_no_arguments() {
        let Command::Dev(args) = parse("skald dev").unwrap() else { panic!("not dev") };
        assert_eq!((args.listen.port(), args.catalog_listen.port()), (8080, 8081));
        assert_eq!((args.sales_listen.port(), args.orders_listen.port()), (8082, 8083));
        assert_eq!((args.audit_listen.port(), args.notification_listen.port()), (8084, 8085));
        let Command::Projection(projection) = parse("skald projection verify cart-contents").unwrap() else { panic!() };
        let ProjectionAction::Verify(target) = projection.action else { panic!("not verify") };
        assert_eq!(target.views_url, format!("http://{}", args.views_listen), "the one that dev starts");
        assert_eq!(args.data_dir, PathBuf::from("./.skald"));
    }

    #[test]
    fn verify_says_what_it_checks_and_how_it_ends() {
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("verify").unwrap().render_long_help().to_string();
        for word in ["Exit status: 0", "(1, 3, 4, 5)", "--limit-violations", "--participants"] {
            assert!(help.contains(word), "`{word}` is not in\n{help}");
        }
        let Command::Verify(args) = parse("skald verify --participants --clock-skew 2s").unwrap() else { panic!() };
        assert_eq!((args.clock_skew, args.limit_violations), (Millis(2_000), 100));
        assert!(parse("skald verify --clock-skew 2s").is_err(), "clocks matter to ledgers only");
    }

    #[test]
    fn compare_fits_what_dev_starts() {
        let Command::Compare(args) = parse("skald compare").unwrap() else { panic!("not compare") };
        let Command::Dev(dev) = parse("skald dev").unwrap() else { panic!("not dev") };
        let urls = [&args.url, &args.catalog, &args.sales, &args.orders].map(|url| url.to_string());
        let listening = [dev.listen, dev.catalog_listen, dev.sales_listen, dev.orders_listen];
        assert_eq!(urls, listening.map(|address| format!("http://{address}/")));
        assert_eq!((args.modes, args.duration), (vec![Mode::Orchestrated, Mode::Choreographed], None));
        let line = "skald compare --modes choreographed --duration 30s --faults lose_reply=5%,delay=20%:50ms";
        let Command::Compare(args) = parse(line).unwrap() else { panic!("not compare") };
        assert_eq!((args.modes, args.duration), (vec![Mode::Choreographed], Some(Millis(30_000))));
        for line in ["--modes both", "--sagas 5 --duration 1s", "--declined 101", "--clients 0", "--faults lose=5%"] {
            assert!(parse(&format!("skald compare {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused() {
        for line in ["skald", "skald run", "skald serve --port 1", "skald validate", "skald serve --listen 80"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(matches!(parse("skald validate a.yaml b.yaml --config c.toml"), Ok(Command::Validate(_))));
        assert!(matches!(parse("skald migrate"), Ok(Command::Migrate(_))));
        assert!(matches!(parse("skald version"), Ok(Command::Version)));
    }
}
