//! Generated files on their way into the repository: written there, or compared with what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::run::root;

/// All files of one extension below a folder that holds nothing else.
#[derive(Debug)]
pub struct Tree {
    folder: &'static str,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Tree {
    /// Takes the files with the extension from `source`; `folder` is where they belong, from the root of the workspace.
    ///
    /// # Errors
    ///
    /// Nothing is there, or it cannot be read.
    pub fn take(source: &Path, extension: &str, folder: &'static str) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(source, source, extension, &mut files)
            .with_context(|| format!("what was generated in {}", source.display()))?;
        Ok(Self { folder, files })
    }

    /// # Errors
    ///
    /// Something cannot be written.
    pub fn write(&self) -> Result<()> {
        let there = self.there()?;
        for name in there.keys().filter(|name| !self.files.contains_key(*name)) {
            fs::remove_file(self.home().join(name))?;
        }
        for (name, content) in self.files.iter().filter(|(name, content)| there.get(*name) != Some(content)) {
            let path = self.home().join(name);
            fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
            fs::write(path, content)?;
        }
        Ok(())
    }

    /// Files that [`Self::write`] would change, add or remove.
    ///
    /// # Errors
    ///
    /// Something cannot be read.
    pub fn differences(&self) -> Result<Vec<String>> {
        let there = self.there()?;
        let names: BTreeSet<&PathBuf> = self.files.keys().chain(there.keys()).collect();
        let different = names.into_iter().filter(|name| self.files.get(*name) != there.get(*name));
        Ok(different.map(|name| format!("{}/{}", self.folder, name.display())).collect())
    }

    fn home(&self) -> PathBuf {
        root().join(self.folder)
    }

    fn there(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut there = BTreeMap::new();
        let extension = self.files.keys().find_map(|name| name.extension()?.to_str()).unwrap_or_default();
        if self.home().exists() {
            collect(&self.home(), &self.home(), extension, &mut there)?;
        }
        Ok(there)
    }
}

fn collect(root: &Path, folder: &Path, extension: &str, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, extension, files)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read(path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_named() {
        let here = Tree::take(&root().join("xtask/src/sdk"), "rs", "xtask/src/sdk").unwrap();
        assert_eq!(here.differences().unwrap(), Vec::<String>::new());

        let mut other = Tree::take(&root().join("xtask/src/sdk"), "rs", "xtask/src/sdk").unwrap();
        other.files.remove(Path::new("mod.rs"));
        other.files.insert("new.rs".into(), Vec::new());
        other.files.insert("tree.rs".into(), b"changed".to_vec());
        let differences = ["mod.rs", "new.rs", "tree.rs"].map(|name| format!("xtask/src/sdk/{name}"));
        assert_eq!(other.differences().unwrap(), differences);
    }
}
