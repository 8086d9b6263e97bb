//! `skald restore`: brings parts of the archive back.

use std::process::ExitCode;

use uuid::Uuid;

use super::service::open_store;
use crate::{cli::RestoreArgs, retention};

pub fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.database.file, args.database.flags())?;
    let report = super::runtime()?.block_on(async {
        let store = open_store(&config).await?;
        anyhow::Ok(retention::restore(&store, &Uuid::new_v4().to_string(), &args.files).await?)
    })?;
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}
