//! `skald retain`: archives and removes what is old, once.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use uuid::Uuid;

use super::service::open_store;
use crate::{cli::RetainArgs, metrics::Metrics, retention::Retain};

pub fn run(args: &RetainArgs) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.database.file, args.database.flags())?;
    let age = config.retention.age.context("retention.age is not set: everything is kept")?;
    let folder = config.retention.archive.clone().context("retention.archive is not set")?;
    let report = super::runtime()?.block_on(async {
        let store = open_store(&config).await?;
        let holder = Uuid::new_v4().to_string();
        let (categories, metrics) = (config.retention.streams.clone(), Arc::new(Metrics::new()));
        let retain = Retain { store, folder, age, categories, holder, dry_run: args.dry_run, metrics };
        anyhow::Ok(retain.run().await?)
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}
