//! A throwaway PostgreSQL cluster that syncs to disk like a real one. It ends with its owner, and at the latest with this
//! process.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use sqlx::{Connection, PgConnection};

use super::{
    eventually, guard,
    postgres_binaries::{self, VERSION_MIN},
};

const START_MAX: Duration = Duration::from_secs(60);
/// Below those that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
const PORT_TRIES: usize = 1_000;
const SETTINGS: &[&str] = &["listen_addresses=127.0.0.1", "max_connections=400", "fsync=on", "shared_buffers=128MB"];

/// One server with its data.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    owner: Owner,
    pub port: u16,
    /// Of the process whose children the others are.
    pub pid: u32,
}

impl Cluster {
    /// Makes and starts one in `folder`, which must not exist.
    pub async fn start(folder: &Path) -> Self {
        let programs = postgres_binaries::find().unwrap_or_else(|| {
            panic!("no PostgreSQL {VERSION_MIN} or newer is installed: run `cargo xtask test`, which sees to it")
        });
        fs::create_dir(folder).expect("the folder is ours");
        let owner = Owner::of_cluster(folder);
        let mut initdb = owner.command(&programs.join("initdb"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"]);
        let output = initdb.arg(folder.join("data")).output().expect("initdb can be started");
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut cluster = Self { folder: folder.to_owned(), programs, owner, port: free_port(), pid: 0 };
        let mut options = format!("-p {} -k {}", cluster.port, folder.display());
        options.extend(SETTINGS.iter().map(|setting| format!(" -c {setting}")));
        cluster.control(&["start", "-o", &options]).await;
        cluster.watch();
        cluster.takes_connections().await;
        cluster
    }

    /// The URL of the server's own database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it as a power failure would, with nothing flushed, and starts it again on its port, where it recovers.
    pub async fn crash_and_restart(&mut self) {
        guard::forget(self.pid);
        self.control(&["restart", "-m", "immediate"]).await;
        self.watch();
        self.takes_connections().await;
    }

    async fn takes_connections(&self) {
        eventually("PostgreSQL takes connections", START_MAX, async || {
            PgConnection::connect(&self.url()).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Runs `pg_ctl`, which waits until it is done. The server outlives it, and is no child of ours.
    async fn control(&self, arguments: &[&str]) {
        let mut command = self.pg_ctl();
        command.arg("-l").arg(self.log()).args(arguments);
        let mut child = command.spawn().expect("pg_ctl can be started");
        let ended = eventually("pg_ctl is done", START_MAX, async || {
            child.try_wait().expect("it is our child").ok_or_else(|| "it runs".to_owned())
        });
        let status = ended.await;
        assert!(status.success(), "pg_ctl {arguments:?}: {}", fs::read_to_string(self.log()).unwrap_or_default());
    }

    fn pg_ctl(&self) -> Command {
        let mut command = self.owner.command(&self.programs.join("pg_ctl"));
        command.arg("-D").arg(self.folder.join("data")).args(["-s", "-w"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn watch(&mut self) {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("the server runs");
        let pid = file.lines().next().and_then(|line| line.trim().parse().ok());
        self.pid = pid.expect("the file begins with the process's number");
        guard::watch("QUIT", self.pid);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = self.pg_ctl().args(["-m", "immediate", "stop"]).status();
        if stopped.is_ok_and(|status| status.success()) {
            guard::forget(self.pid);
        }
    }
}

/// A port that was free a moment ago, that no outgoing connection is given while its server is down, and that nobody
/// else in this process gets.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("there were free ports so far");
    let ports = std::iter::repeat_with(|| rand::random_range(PORTS));
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && given.insert(*port);
    ports.take(PORT_TRIES).find(free).expect("there are free ports")
}

/// As whom PostgreSQL runs: as root it refuses to.
#[derive(Debug)]
enum Owner {
    Ourselves,
    UserPostgres,
}

impl Owner {
    fn of_cluster(folder: &Path) -> Self {
        if !postgres_binaries::is_root() {
            return Self::Ourselves;
        }
        let owned = Command::new("chown").arg("postgres").arg(folder).status();
        assert!(owned.is_ok_and(|status| status.success()), "as root, the tests run PostgreSQL as the user `postgres`");
        Self::UserPostgres
    }

    fn command(&self, program: &PathBuf) -> Command {
        match self {
            Self::Ourselves => Command::new(program),
            Self::UserPostgres => {
                // Unlike su and runuser, it becomes the program instead of starting it.
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
                command
            }
        }
    }
}
