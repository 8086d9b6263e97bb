//! Which replicas of the same database ran on this machine and died: a successor on the same machine need not wait for their
//! leases to end.
//!
//! A replica keeps a file locked as long as it lives; the operating system lets go of the lock however it ends. Whoever starts
//! and can lock another's file knows that its owner is dead. No file means nothing: the lease has to run out then, as it does for
//! replicas of other machines and containers. Being wrong would be harmless, as epochs fence the former owner off.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::PathBuf,
};

/// Of one database, among the files of this machine's replicas.
#[derive(Debug)]
pub struct Neighbours {
    folder: PathBuf,
    /// Begins the names of the files of this database's replicas.
    database: String,
}

/// This replica's sign of life, until it is dropped.
#[derive(Debug)]
pub struct Sign {
    path: PathBuf,
    _locked: File,
}

impl Neighbours {
    /// Of the database with this fingerprint, in the folder for temporary files (`TMPDIR`).
    pub fn of(database: &str) -> Self {
        Self { folder: std::env::temp_dir().join("skald-replicas"), database: format!("{database}.") }
    }

    /// Says that the replica lives.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn announce(&self, id: &str) -> io::Result<Sign> {
        fs::create_dir_all(&self.folder)?;
        // A file that is found by its name is locked already.
        let unlocked = self.folder.join(format!("new.{id}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&unlocked)?;
        file.lock()?;
        let path = self.path(id);
        fs::rename(unlocked, &path)?;
        Ok(Sign { path, _locked: file })
    }

    /// Those that died, as far as their files tell.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn dead(&self) -> io::Result<Vec<String>> {
        let mut dead = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix(&self.database)) else { continue };
            match File::open(self.path(id)).map(|file| file.try_lock()) {
                Ok(Ok(())) => dead.push(id.to_owned()),
                // It lives; or it ended well just now, or is somebody else's, and nothing is known.
                Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(_) => {}
            }
        }
        Ok(dead)
    }

    /// Removes the file of a replica that is dead.
    pub fn forget(&self, id: &str) {
        // What stays is found again at the next start.
        let _ = fs::remove_file(self.path(id));
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{}{id}", self.database))
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_of_the_same_database_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let of =
            |database: &str| Neighbours { folder: folder.path().join("replicas"), database: format!("{database}.") };
        let ours = of("ours");
        let alive = ours.announce("alive").unwrap();
        let ended = ours.announce("ended").unwrap();
        drop(ended);
        // What a killed process leaves: the file, without the lock.
        fs::write(ours.path("killed"), "").unwrap();
        fs::write(of("others").path("elsewhere"), "").unwrap();
        fs::write(folder.path().join("replicas").join("new.starting"), "").unwrap();
        assert_eq!(ours.dead().unwrap(), ["killed"]);
        ours.forget("killed");
        assert_eq!(ours.dead().unwrap(), [""; 0]);
        drop(alive);
        assert_eq!(ours.dead().unwrap(), [""; 0]);
    }
}
