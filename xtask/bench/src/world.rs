//! Everything that takes part, started fresh: participants, the front, Skald on each database.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    checkouts::Subject,
    front,
    harness::{guard, process::Process},
    load::Asked,
    services::Services,
    skald::{self, Counters, Database, Setup, Skald},
    usage::{Processes, Usage},
};

#[derive(Debug)]
pub struct World {
    services: Services,
    participants: Process,
    front: Process,
    front_url: String,
    skalds: Vec<(Database, Skald)>,
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
    /// Starts it all; Skald from `program`, with `config` added to its configuration.
    pub async fn start(databases: &[Database], program: &Path, config: &str) -> Result<Self> {
        let folder = guard::folder();
        let own = env::current_exe().context("this program's own file cannot be found")?;
        let mut participants = Process::start("participants", Command::new(&own).arg("participants"), folder);
        let url = participants.url().await;
        let mut front = Process::start("front", Command::new(&own).args(["front", "--participants", &url]), folder);
        let front_url = front.url().await;
        let mut skalds = Vec::new();
        for database in databases {
            let folder = folder.join(format!("{database:?}").to_lowercase());
            let setup = Setup { program, folder: &folder, participants: &url, config };
            skalds.push((*database, Skald::start(*database, setup).await?));
        }
        Ok(Self { services: Services::at(&url)?, participants, front, front_url, skalds })
    }

    pub fn asked(&self, subject: Subject) -> Result<Asked> {
        Ok(match subject {
            Subject::Direct => Asked::Services(self.services.clone()),
            Subject::Front => Asked::Server { address: skald::address(&self.front_url)?, path: front::PATH },
            Subject::Skald(database) => {
                let (_, skald) = self.skalds.iter().find(|it| it.0 == database).context("it was not started")?;
                Asked::Server { address: skald.address()?, path: skald::PATH }
            }
        })
    }

    /// What was taken so far; of several Skalds, by this one.
    pub async fn taken(&mut self, subject: Subject) -> Result<Taken> {
        let skald = match self.skalds.iter_mut().find(|it| subject == Subject::Skald(it.0)) {
            Some((_, skald)) => Some(skald.counters().await?),
            None => None,
        };
        Ok(Taken {
            generator: Processes::One(std::process::id()).usage()?,
            participants: Processes::One(self.participants.pid()).usage()?,
            front: Processes::One(self.front.pid()).usage()?,
            skald,
        })
    }
}

/// Skald's program: the one given, or the one built beside this.
pub fn program(given: Option<&Path>) -> Result<PathBuf> {
    let program = match given {
        Some(program) => program.to_owned(),
        None => env::current_exe()?.with_file_name("skald"),
    };
    ensure!(fs::metadata(&program).is_ok_and(|file| file.is_file()), "there is no program {}", program.display());
    Ok(program)
}
