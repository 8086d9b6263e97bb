//! Everything that takes part, started fresh: participants, the front, Skald on each database.

use std::{env, fs, path::PathBuf, process::Command, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    checkouts::Subject,
    front,
    harness::{guard, process::Process},
    http,
    load::{Asked, Request},
    order::Order,
    services::Services,
    skald::{self, Counters, Database, Setup, Skald},
    usage::{Processes, Usage},
};

/// What is measured, and on what.
#[derive(Clone, Debug, Args)]
pub struct Ground {
    /// On which databases Skald is measured
    #[arg(long, global = true, value_delimiter = ',', default_value = "postgres,sqlite")]
    pub databases: Vec<Database>,
    /// Another program of Skald than the one that was built
    #[arg(long, global = true, value_name = "FILE")]
    skald: Option<PathBuf>,
    /// Added to Skald's configuration
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug)]
pub struct World {
    services: Services,
    pub participants: Participants,
    front: Process,
    front_url: String,
    program: PathBuf,
    config: String,
    /// So many Skalds were started.
    started: usize,
    skalds: Vec<(Database, Skald)>,
}

#[derive(Debug)]
pub struct Participants {
    process: Process,
    url: String,
}

/// What everyone took since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    pub generator: Usage,
    pub participants: Usage,
    pub front: Usage,
    /// Of the Skald that was asked for, if one was.
    pub skald: Option<Counters>,
}

impl World {
    /// Starts it all, Skald with this in its configuration as well.
    pub async fn start(ground: &Ground, config: &str) -> Result<Self> {
        let program = ground.program()?;
        let config = ground.config()? + config;
        let folder = guard::folder();
        let own = env::current_exe().context("this program's own file cannot be found")?;
        let mut participants = Process::start("participants", Command::new(&own).arg("participants"), folder);
        let url = participants.url().await;
        let mut front = Process::start("front", Command::new(&own).args(["front", "--participants", &url]), folder);
        let front_url = front.url().await;
        let services = Services::at(&url)?;
        let participants = Participants { process: participants, url };
        let mut world =
            Self { services, participants, front, front_url, program, config, started: 0, skalds: Vec::new() };
        for &database in &ground.databases {
            let skald = world.fresh(database).await?;
            world.skalds.push((database, skald));
        }
        Ok(world)
    }

    /// A Skald on a database that was made for it.
    pub async fn fresh(&mut self, database: Database) -> Result<Skald> {
        self.started += 1;
        let folder = guard::folder().join(format!("{database:?}-{}", self.started).to_lowercase());
        let setup = Setup {
            program: &self.program,
            folder: &folder,
            participants: &self.participants.url,
            config: &self.config,
        };
        Skald::start(database, setup).await
    }

    pub fn asked(&mut self, subject: Subject) -> Result<Asked> {
        match subject {
            Subject::Direct => Ok(Asked::Services(self.services.clone(), Arc::new(Order::both()))),
            Subject::Front => {
                let address = skald::address(&self.front_url)?;
                let request = |order: Order| {
                    let bytes = http::post(address, front::PATH, skald::AWAITED, &serde_json::to_vec(&order)?);
                    anyhow::Ok(Arc::new(Request { bytes, status: 201, ending: order.ending() }))
                };
                let [completed, declined] = Order::both().map(request);
                Ok(Asked::Server(address, [completed?, declined?]))
            }
            Subject::Skald(database) => self.skald(database).checkouts(),
        }
    }

    /// The one on this database, which must be among those that were started.
    pub fn skald(&mut self, database: Database) -> &mut Skald {
        let found = self.skalds.iter_mut().find(|(own, _)| *own == database);
        found.map(|(_, skald)| skald).expect("only what was started is asked for")
    }

    /// So that no round pays for those before it.
    pub async fn check_point(&mut self) -> Result<()> {
        for (_, skald) in &mut self.skalds {
            skald.check_point().await?;
        }
        Ok(())
    }

    /// Ends every Skald, which may write then what it was built to write.
    pub async fn stop(mut self) -> Result<()> {
        for (_, skald) in &mut self.skalds {
            skald.stop().await?;
        }
        Ok(())
    }

    /// What was taken so far; of several Skalds, by this one.
    pub async fn taken(&mut self, subject: Subject) -> Result<Taken> {
        let skald = match subject {
            Subject::Skald(database) => Some(self.skald(database).counters().await?),
            Subject::Direct | Subject::Front => None,
        };
        Ok(Taken {
            generator: Processes::One(std::process::id()).usage()?,
            participants: Processes::One(self.participants.process.pid()).usage()?,
            front: Processes::One(self.front.pid()).usage()?,
            skald,
        })
    }
}

impl Participants {
    /// Has the calls of `/held` answered with 503 until they are let through.
    pub async fn hold(&self) -> Result<()> {
        self.tell("/hold").await.map(drop)
    }

    pub async fn let_through(&self) -> Result<()> {
        self.tell("/let_through").await.map(drop)
    }

    /// Sagas whose held call was let through so far.
    pub async fn let_through_count(&self) -> Result<u64> {
        self.tell("/count").await
    }

    async fn tell(&self, path: &str) -> Result<u64> {
        let answer = reqwest::Client::new().post(format!("{}{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}

impl Ground {
    pub fn with_only(&self, database: Database) -> Self {
        Self { databases: vec![database], ..self.clone() }
    }

    /// The program given, or the one built beside this.
    fn program(&self) -> Result<PathBuf> {
        let program = match &self.skald {
            Some(program) => program.clone(),
            None => env::current_exe()?.with_file_name("skald"),
        };
        ensure!(fs::metadata(&program).is_ok_and(|file| file.is_file()), "there is no program {}", program.display());
        Ok(program)
    }

    fn config(&self) -> Result<String> {
        let Some(file) = &self.config else { return Ok(String::new()) };
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(format!("{text}\n"))
    }
}
