//! A disk that can be full: a file system in memory, mounted for one test. Mounting is for root, and not for all of them.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use super::guard;

/// Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one, of so many MiB, at `folder`; says why if that is not possible here.
    pub fn mount(folder: &Path, mib: u32) -> Result<Self, String> {
        fs::create_dir(folder).expect("the folder is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(folder);
        let output = mount.output().map_err(|error| format!("mount cannot be started: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        guard::unmount(folder);
        Ok(Self { folder: folder.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Takes all the room there is, to the last byte; may be repeated.
    pub fn fill(&self) {
        let mut ballast =
            File::options().append(true).create(true).open(self.ballast()).expect("a file can be made or is there");
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            loop {
                match ballast.write(&piece) {
                    Ok(1..) => {}
                    Ok(0) => break,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.ballast().display()),
                }
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may still have files open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.folder.display());
        }
    }
}
