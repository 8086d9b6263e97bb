//! A real server to try things against: `skald dev`, which is Skald on SQLite and the demo services, on free ports.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, check, command};

const START_MAX: Duration = Duration::from_secs(120);

/// The program, built into the folder that this one was built into.
///
/// # Errors
///
/// The system cannot tell where this program is.
pub fn skald() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("skald"))
}

/// `skald dev` on free ports; killed when dropped.
#[derive(Debug)]
pub struct DevServer {
    child: Child,
    pub url: String,
}

/// Builds the program, and empties the folder.
fn prepare(data: &Path) -> Result<()> {
    check(cargo().args(["build", "--locked", "--package", "skald", "--bin", "skald"]))?;
    if data.exists() {
        fs::remove_dir_all(data).context("the data of the last run")?;
    }
    Ok(fs::create_dir_all(data)?)
}

fn make_key(data: &Path) -> Result<String> {
    let database = format!("sqlite:{}", data.join("skald.db").display());
    let mut create = command(skald()?);
    create.args(["keys", "create", "--name", "developer", "--role", "admin", "--database-url", &database]);
    let made = create.output().context("cannot make a key")?;
    ensure!(made.status.success(), "cannot make a key: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

impl DevServer {
    /// With its data in this folder, which is emptied first.
    ///
    /// # Errors
    ///
    /// It does not build or come up.
    pub fn start(data: &Path) -> Result<Self> {
        prepare(data)?;
        Self::launch(data, None)
    }

    /// The same, where a key is needed; gives one that may do everything, too.
    ///
    /// # Errors
    ///
    /// It does not build or come up.
    pub fn guarded(data: &Path) -> Result<(Self, String)> {
        prepare(data)?;
        let key = make_key(data)?;
        Ok((Self::launch(data, Some(&key))?, key))
    }

    fn launch(data: &Path, key: Option<&str>) -> Result<Self> {
        let mut dev = command(skald()?);
        dev.arg("dev").arg("--data-dir").arg(data).envs(key.map(|key| ("SKALD_API_KEY", key)));
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

    /// # Errors
    ///
    /// The system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for DevServer {
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
