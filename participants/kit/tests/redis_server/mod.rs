//! A Redis of one test, on a socket in a folder of its own. It ends with the test process, in whatever way that ends.

#![allow(dead_code, reason = "two test crates share this, and each uses a part of it")]
#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::aio::MultiplexedConnection;

#[derive(Debug)]
pub struct RedisServer {
    folder: tempfile::TempDir,
    shell: Option<Child>,
}

/// Ends the server when the standard input does, which the test process holds.
const KEEP_SERVER: &str = r#"
redis-server --port 0 --unixsocket "$1/redis.sock" --dir "$1" --save '' --appendonly yes --appendfsync no \
    --loglevel warning --logfile "$1/log" </dev/null &
server=$!
cat >/dev/null
kill -9 "$server"
"#;

impl RedisServer {
    pub async fn start() -> Self {
        let mut server = Self { folder: tempfile::tempdir().unwrap(), shell: None };
        server.restart().await;
        server
    }

    /// With the data that it had.
    pub async fn restart(&mut self) {
        self.stop();
        let installed = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        assert!(
            installed.is_ok_and(|status| status.success()),
            "these tests need redis-server: install it (Debian and Ubuntu: `apt-get install redis-server`)"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", KEEP_SERVER, "sh"]).arg(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        self.shell = Some(shell.spawn().unwrap());
        let connected = async {
            let mut look = tokio::time::interval(Duration::from_millis(10));
            loop {
                look.tick().await;
                let Ok(mut connection) = self.try_connect().await else { continue };
                if redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok() {
                    return;
                }
            }
        };
        let started = tokio::time::timeout(Duration::from_secs(20), connected).await;
        assert!(started.is_ok(), "redis-server does not start: {}", self.log());
    }

    /// Without its last words.
    pub fn stop(&mut self) {
        let Some(mut shell) = self.shell.take() else { return };
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let _ = std::fs::remove_file(self.socket());
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
