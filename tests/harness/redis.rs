//! A Redis of a test's own.

use std::{path::Path, process::Command};

use super::{cluster::free_port, eventually, process::Process};

#[derive(Debug)]
pub struct Redis {
    process: Process,
    pub url: String,
    port: u16,
}

impl Redis {
    pub async fn start(folder: &Path) -> Self {
        let port = free_port();
        let redis = Self { process: Process::start("redis", &mut command(port, folder), folder), url: url(port), port };
        redis.answers().await;
        redis
    }

    /// It dies, and everything in it with it; another one is started in its place.
    pub async fn replace(&mut self, folder: &Path) {
        self.process.kill();
        self.process = Process::start("redis", &mut command(self.port, folder), folder);
        self.answers().await;
    }

    async fn answers(&self) {
        let address = format!("127.0.0.1:{}", self.port);
        eventually("Redis listens", std::time::Duration::from_secs(30), async || {
            tokio::net::TcpStream::connect(&address).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn command(port: u16, folder: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder);
    command
}
