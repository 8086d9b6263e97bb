//! `skald validate`: checks definitions without a server.

use std::process::ExitCode;

use skald_core::definition::Definition;

use crate::{cli::ValidateArgs, config::Flags};

pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    // Without a configuration nothing is known of the services, and any name will do.
    let services: Option<Vec<String>> = match args.file.config {
        Some(_) => Some(super::load(&args.file, Flags::default())?.participants.into_keys().collect()),
        None => None,
    };
    let mut problems = 0;
    for file in &args.files {
        let name = file.display();
        let text = match std::fs::read(file).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                problems += 1;
                eprintln!("{name}: not UTF-8: {error}");
                continue;
            }
            Err(error) => {
                problems += 1;
                eprintln!("{name}: cannot be read: {error}");
                continue;
            }
        };
        match Definition::parse(&text, services.as_deref()) {
            Ok(definition) => {
                let steps = definition.steps.len();
                println!("{name}: {} version {} is valid ({steps} steps)", definition.name, definition.version);
            }
            Err(found) => {
                problems += found.0.len();
                for problem in found.0 {
                    eprintln!("{name}: {problem}");
                }
            }
        }
    }
    if problems == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{problems} problem{}", if problems == 1 { "" } else { "s" });
    Ok(ExitCode::FAILURE)
}
