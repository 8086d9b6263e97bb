//! `skald migrate`: brings the database's tables up to date.

use std::process::ExitCode;

use crate::{
    cli::DatabaseArgs,
    storage::{self, StoreOptions},
};

pub fn run(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.file, args.flags())?;
    super::runtime()?.block_on(async {
        let options = StoreOptions { readers: 1, shards: config.database.shards, lease: config.database.lease };
        let store = storage::open(config.database.url.reveal(), &options).await?;
        store.migrate().await?;
        store.check_schema().await?;
        println!("the database is up to date");
        Ok(ExitCode::SUCCESS)
    })
}
