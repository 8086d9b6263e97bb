//! `cargo xtask schemathesis`: hostile and honest requests made from the specification, against a real server.
//!
//! The program is installed from PyPI into `target/`, pinned with all it needs. Afterwards the database is checked by
//! `skald verify`.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    dev_server::{self, DevServer},
    python,
    run::{check, command, root},
};

/// Checks that make no sense here.
const EXCLUDED_CHECKS: [&str; 2] = [
    // Ours knows which answers of the 5xx family are meant, by their code: `checks.py`.
    "not_a_server_error",
    // What a schema cannot say is refused all the same: a cursor is one that a list gave out, an actor in a body is the
    // one in the header, a definition obeys its rules, U+0000 cannot be stored, a revision is the current one.
    "positive_data_acceptance",
];

/// Streams go on for as long as the client likes.
const EXCLUDED_PATHS: [&str; 3] = ["/sagas/{id}/stream", "/events/tail", "/groups/{name}/stream"];

#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Requests per operation and phase, at most
    #[arg(long, default_value_t = 40)]
    max_examples: u32,
    /// The same seed makes the same requests
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

impl Options {
    /// What CI has time for: a minute.
    pub const IN_CI: Self = Self { max_examples: 40, seed: 1 };
}

/// # Errors
///
/// Something cannot be installed or started, an answer is not as the specification says, or the database is not whole
/// afterwards.
pub fn run(options: Options) -> Result<()> {
    let folder = root().join("target/schemathesis");
    let requirements = root().join("xtask/schemathesis/requirements.txt");
    let program = python::environment(&folder.join("venv"), &requirements)?.join("bin/schemathesis");
    let data = folder.join("data");
    // What the specification says of who may holds only where a key is needed.
    let (mut server, key) = DevServer::guarded(&data)?;
    let tested = check(
        command(program)
            .arg("--config-file")
            .arg(root().join("xtask/schemathesis/schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", server.url), "--no-color", "--continue-on-failure"])
            .args(["--header", &format!("Authorization: Bearer {key}")])
            .args(["--checks", "all", "--exclude-checks", &EXCLUDED_CHECKS.join(",")])
            .args(EXCLUDED_PATHS.iter().flat_map(|path| ["--exclude-path", path]))
            // One worker: threads that parse Python at once make CPython 3.11 fail (its issue 106905).
            .args(["--request-timeout", "30", "--workers", "1"])
            .args(["--max-examples", &options.max_examples.to_string(), "--seed", &options.seed.to_string()])
            .env("SCHEMATHESIS_HOOKS", root().join("xtask/schemathesis/checks.py"))
            .current_dir(&folder),
    );
    ensure!(server.is_running()?, "the server ended meanwhile; its messages are above");
    let database = format!("sqlite:{}", data.join("skald.db").display());
    let verified = check(command(dev_server::skald()?).args(["verify", "--database-url", &database]));
    tested.and(verified)
}
