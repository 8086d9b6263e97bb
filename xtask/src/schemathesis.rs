//! `cargo xtask schemathesis`: hostile and honest requests made from the specification, against a real server.
//!
//! The server is `skald dev`: Skald on SQLite and the demo services, with data of its own. The program is installed from
//! PyPI into `target/`, pinned with all it needs. Afterwards the database is checked by `skald verify`.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    postgres::{apt_install, may_install},
    run::{cargo, check, command, root, succeeds},
};

const START_MAX: Duration = Duration::from_secs(120);

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
    let program = install()?;
    check(cargo().args(["build", "--locked", "--package", "skald", "--bin", "skald"]))?;
    let folder = folder();
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).context("the data of the last run")?;
    }
    fs::create_dir_all(&data)?;
    let database = format!("sqlite:{}", data.join("skald.db").display());
    let key = make_key(&database)?;
    let mut server = Server::start(&data, &key)?;
    let tested = check(
        command(program)
            .arg("--config-file")
            .arg(root().join("xtask/schemathesis/schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", server.url), "--no-color", "--continue-on-failure"])
            .args(["--checks", "all", "--exclude-checks", &EXCLUDED_CHECKS.join(",")])
            .args(EXCLUDED_PATHS.iter().flat_map(|path| ["--exclude-path", path]))
            // One worker: threads that parse Python at once make CPython 3.11 fail (its issue 106905).
            .args(["--header", &format!("Authorization: Bearer {key}")])
            .args(["--request-timeout", "30", "--workers", "1"])
            .args(["--max-examples", &options.max_examples.to_string(), "--seed", &options.seed.to_string()])
            .env("SCHEMATHESIS_HOOKS", root().join("xtask/schemathesis/checks.py"))
            .current_dir(&folder),
    );
    ensure!(server.is_running()?, "the server ended meanwhile; its messages are above");
    let verified = check(command(skald()?).args(["verify", "--database-url", &database]));
    tested.and(verified)
}

/// The virtual environment's program, of the pinned version.
fn install() -> Result<PathBuf> {
    let requirements = root().join("xtask/schemathesis/requirements.txt");
    let venv = folder().join("venv");
    // A copy of what was installed: when that changes, the environment is made anew.
    let installed = venv.join("installed.txt");
    let program = venv.join("bin/schemathesis");
    let wanted = fs::read(&requirements).context("the pinned versions")?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) && program.exists() {
        return Ok(program);
    }
    ensure_python()?;
    fs::create_dir_all(folder())?;
    check(command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let pip = venv.join("bin/pip");
    check(command(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements))
        .context("Schemathesis is installed from PyPI")?;
    fs::write(installed, wanted)?;
    Ok(program)
}

/// Python with the modules that make virtual environments; Debian packs those by themselves.
fn ensure_python() -> Result<()> {
    let complete = || succeeds(command("python3").args(["-c", "import venv, ensurepip"]));
    if !complete() && may_install() {
        apt_install(&["python3", "python3-venv"])?;
    }
    if !complete() {
        bail!("Python 3 with `venv` is needed (Debian and Ubuntu: `apt-get install python3-venv`)");
    }
    Ok(())
}

fn folder() -> PathBuf {
    root().join("target/schemathesis")
}

/// Built into the folder that this program was built into.
fn skald() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("skald"))
}

/// The key that all requests show: what the specification says of who may, holds only where a key is needed.
fn make_key(database: &str) -> Result<String> {
    let mut create = command(skald()?);
    create.args(["keys", "create", "--name", "schemathesis", "--role", "admin", "--database-url", database]);
    let made = create.output().context("cannot make a key")?;
    ensure!(made.status.success(), "cannot make a key: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// `skald dev` on free ports; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, key: &str) -> Result<Self> {
        let mut dev = command(skald()?);
        dev.arg("dev").arg("--data-dir").arg(data).env("SKALD_API_KEY", key);
        for flag in [
            "--listen",
            "--catalog-listen",
            "--sales-listen",
            "--orders-listen",
            "--audit-listen",
            "--notification-listen",
            "--views-listen",
        ] {
            dev.args([flag, "127.0.0.1:0"]);
        }
        let mut child = dev.stdout(Stdio::piped()).spawn().context("cannot start skald dev")?;
        let output = child.stdout.take().context("standard output was piped")?;
        let mut server = Self { child, url: String::new() };
        server.url = shown_url(output)?;
        Ok(server)
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL that the server shows once its demonstration has run; its further output is read and thrown away.
fn shown_url(output: ChildStdout) -> Result<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut url = None;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("Skald is running: ") {
                url = rest.split_whitespace().next().map(str::to_owned);
            }
            if line.starts_with("Try it")
                && let Some(url) = url.take()
            {
                // Nobody waits any more when starting has taken too long.
                let _ = send.send(url);
            }
        }
    });
    receive.recv_timeout(START_MAX).context("skald dev did not come up")
}
