//! `skald verify`: checks a database against the invariants.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::VerifyArgs,
    storage::audit,
    verify::{self, Options, Progress, Report},
};

const VIOLATIONS: u8 = 1;
const NOT_CHECKED: u8 = 2;

pub fn run(args: &VerifyArgs) -> ExitCode {
    match check(args) {
        Ok(report) => {
            if args.json {
                println!("{}", serde_json::json!({ "checked": true, "report": report }));
            } else {
                println!("{report}");
            }
            if report.violation_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(VIOLATIONS) }
        }
        Err(error) => {
            if args.json {
                println!("{}", serde_json::json!({ "checked": false, "error": format!("{error:#}") }));
            }
            eprintln!("skald: could not check: {error:#}");
            ExitCode::from(NOT_CHECKED)
        }
    }
}

fn check(args: &VerifyArgs) -> anyhow::Result<Report> {
    let config = super::load(&args.database.file, args.database.flags())?;
    let bar = Bar(super::bar_on_terminal());
    super::runtime()?.block_on(async {
        let audit = audit::open(config.database.url.reveal()).await?;
        let options = Options {
            told_max: args.limit_violations,
            participants: args.participants.then_some(&config.participants),
            clock_skew: args.clock_skew,
        };
        verify::verify(&*audit, &options, &bar).await
    })
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, what: &str, units: Option<u64>) {
        let template = match units {
            Some(_) => "{msg:24} [{bar:40}] {pos}/{len} ({eta})",
            None => "{msg:24} {spinner} {pos}",
        };
        self.0.reset();
        if let Some(units) = units {
            self.0.set_length(units);
        }
        self.0.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
        self.0.set_message(what.to_owned());
    }

    fn advance(&self, units: u64) {
        self.0.inc(units);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
