//! Writing a part.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{
    ArchiveError, Counts, DefinitionCopy, FORMAT, Folder, Header, Line, Manifest, at,
    manifest::Content,
    read::{self, Tally},
};
use crate::hex;

/// A part in the making.
#[derive(Debug)]
pub struct Writer {
    folder: Folder,
    header: Header,
    unfinished: PathBuf,
    lines: Hashing<GzEncoder<Hashing<BufWriter<File>>>>,
    tally: Tally,
}

impl Writer {
    /// Begins a part. `written_at` is RFC 3339.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn begin(
        folder: &Folder,
        name: &str,
        written_at: String,
        definitions: Vec<DefinitionCopy>,
    ) -> Result<Self, ArchiveError> {
        let unfinished = folder.file(name).with_extension("unfinished");
        let file = File::create(&unfinished).map_err(|error| at(&unfinished, error))?;
        let compressed = GzEncoder::new(Hashing::new(BufWriter::new(file)), Compression::default());
        let written_by = format!("skald {}", env!("CARGO_PKG_VERSION"));
        let header = Header { format: FORMAT, name: name.to_owned(), written_by, written_at };
        let lines = Hashing::new(compressed);
        let mut writer = Self { folder: folder.clone(), header, unfinished, lines, tally: Tally::default() };
        writer.line(Line::Part(writer.header.clone()))?;
        for definition in definitions {
            writer.line(Line::Definition(definition))?;
        }
        Ok(writer)
    }

    /// The row of a stream, or the next event of the stream whose row came last.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or does not belong there.
    pub fn line(&mut self, line: Line) -> Result<(), ArchiveError> {
        let text = serde_json::to_string(&line).expect("rows are plain data");
        let place = |what| ArchiveError::Whole { path: self.unfinished.clone(), what };
        self.tally.next(&line).map_err(place)?;
        let written = self.lines.write_all(text.as_bytes()).and_then(|()| self.lines.write_all(b"\n"));
        written.map_err(|error| at(&self.unfinished, error))
    }

    #[must_use]
    pub const fn counts(&self) -> &Counts {
        self.tally.counts()
    }

    /// Ends the part: on the disk, read back, the same, and with its manifest.
    ///
    /// # Errors
    ///
    /// When any of that fails. There is no part then.
    pub fn finish(mut self) -> Result<Manifest, ArchiveError> {
        self.line(Line::End(*self.counts()))?;
        let failed = |error| at(&self.unfinished, error);
        let (compressed, lines) = self.lines.end();
        let (buffered, file) = compressed.finish().map_err(failed)?.end();
        let written = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
        written.sync_all().map_err(failed)?;
        drop(written);

        let Header { format, name, written_by, written_at } = self.header;
        let holds = self.tally.holds();
        let manifest = Manifest { format, name, written_by, written_at, file, lines, holds };
        read::check(&self.unfinished, &manifest)?;
        let path = self.folder.file(&manifest.name);
        std::fs::rename(&self.unfinished, &path).map_err(|error| at(&path, error))?;
        self.folder.sync()?;
        manifest.write(&path)?;
        self.folder.sync()?;
        Ok(manifest)
    }
}

/// Digests what passes through.
#[derive(Debug)]
struct Hashing<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, digest: Sha256::new(), bytes: 0 }
    }

    fn end(self) -> (W, Content) {
        (self.inner, Content { bytes: self.bytes, sha256: hex::encode(&self.digest.finalize()) })
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
