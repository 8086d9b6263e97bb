//! Reading a part: line by line, each checked for whether it may follow.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use skald_core::ids::SagaId;

use super::{
    ArchiveError, Counts, FORMAT, Line, Manifest, at,
    manifest::{Content, Holds, ShardHolds},
};
use crate::{
    hex,
    storage::{
        StoredDefinition,
        retention::{Copied, EventCopy, WholeStream},
    },
};

/// A longer line is none of ours.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// A part whose file was found to be what its manifest says.
#[derive(Debug)]
pub struct Reader {
    lines: Lines,
    definitions: Vec<StoredDefinition>,
    /// The row of the next stream.
    next: Option<Copied>,
}

impl Reader {
    /// Checks a part's file against its manifest, all of it, and begins to read it.
    ///
    /// # Errors
    ///
    /// When it is not a part of the archive, or not whole.
    pub fn open(file: &Path) -> Result<(Self, Manifest), ArchiveError> {
        let manifest = Manifest::read(file)?;
        check(file, &manifest)?;
        let mut reader = Self { lines: Lines::open(file)?, definitions: Vec::new(), next: None };
        while reader.next.is_none() {
            match reader.lines.next()? {
                Some(Line::Definition(definition)) => reader.definitions.push(definition.into()),
                Some(Line::Saga(saga)) => reader.next = Some(Copied::Saga(saga)),
                Some(Line::Stream(stream)) => reader.next = Some(Copied::Stream(stream)),
                Some(Line::Part(_) | Line::Event(_)) => {}
                Some(Line::End(_)) | None => break,
            }
        }
        Ok((reader, manifest))
    }

    #[must_use]
    pub fn definitions(&self) -> &[StoredDefinition] {
        &self.definitions
    }

    /// The next stream, whole; None after the last one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn stream(&mut self) -> Result<Option<WholeStream>, ArchiveError> {
        let Some(row) = self.next.take() else { return Ok(None) };
        let mut events = Vec::new();
        while self.next.is_none() {
            match self.lines.next()? {
                Some(Line::Event(event)) => events.push(*event),
                Some(Line::Saga(saga)) => self.next = Some(Copied::Saga(saga)),
                Some(Line::Stream(stream)) => self.next = Some(Copied::Stream(stream)),
                Some(Line::Part(_) | Line::Definition(_)) => {}
                Some(Line::End(_)) | None => break,
            }
        }
        Ok(Some(WholeStream { row, events }))
    }
}

/// Whether a file is what a manifest says: byte by byte, line by line, and as it adds up.
pub(super) fn check(file: &Path, manifest: &Manifest) -> Result<(), ArchiveError> {
    let differs = |what: &str| {
        let what = format!("{what} is not what its manifest says");
        ArchiveError::Whole { path: file.to_owned(), what }
    };
    if manifest.format != FORMAT {
        let what = format!("its form is {}: this Skald reads {FORMAT}", manifest.format);
        return Err(ArchiveError::Whole { path: file.to_owned(), what });
    }
    if digest(file)? != manifest.file {
        return Err(differs("the file"));
    }
    let mut lines = Lines::open(file)?;
    while lines.next()?.is_some() {}
    let (read, tally) = lines.end();
    if read != manifest.lines {
        return Err(differs("the text in it"));
    }
    if !tally.ended || tally.holds() != manifest.holds || tally.name.as_deref() != Some(&*manifest.name) {
        return Err(differs("what is in it"));
    }
    Ok(())
}

fn digest(path: &Path) -> Result<Content, ArchiveError> {
    let mut file = File::open(path).map_err(|error| at(path, error))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(|error| at(path, error))?;
        if read == 0 {
            return Ok(Content { bytes, sha256: hex::encode(&digest.finalize()) });
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The lines of a file, as they may follow each other.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    text: BufReader<GzDecoder<BufReader<File>>>,
    digest: Sha256,
    bytes: u64,
    number: u64,
    tally: Tally,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(|error| at(path, error))?;
        let text = BufReader::new(GzDecoder::new(BufReader::new(file)));
        Ok(Self { path: path.to_owned(), text, digest: Sha256::new(), bytes: 0, number: 0, tally: Tally::default() })
    }

    fn next(&mut self) -> Result<Option<Line>, ArchiveError> {
        let mut text = Vec::new();
        let read = (&mut self.text).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        self.number += 1;
        let bad = |what: String| ArchiveError::Line { path: self.path.clone(), line: self.number, what };
        read.map_err(|error| bad(error.to_string()))?;
        if text.is_empty() {
            return Ok(None);
        }
        self.digest.update(&text);
        self.bytes += text.len() as u64;
        let line: Line = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        self.tally.next(&line).map_err(bad)?;
        Ok(Some(line))
    }

    fn end(self) -> (Content, Tally) {
        (Content { bytes: self.bytes, sha256: hex::encode(&self.digest.finalize()) }, self.tally)
    }
}

/// What was in the lines so far, and which may come next.
#[derive(Debug, Default)]
pub(super) struct Tally {
    name: Option<String>,
    ended: bool,
    holds: Holds,
    first_id: Option<SagaId>,
    /// The stream whose events come now, and how many of them came.
    current: Option<(SagaId, i64, i64)>,
    definitions: Vec<(String, u32)>,
}

impl Tally {
    pub const fn counts(&self) -> &Counts {
        &self.holds.counts
    }

    pub fn holds(&self) -> Holds {
        let id = |id: Option<SagaId>| id.map(|id| id.to_string()).unwrap_or_default();
        let last = self.current.map(|(id, ..)| id);
        Holds { first_id: id(self.first_id), last_id: id(last), ..self.holds.clone() }
    }

    pub fn next(&mut self, line: &Line) -> Result<(), String> {
        if self.ended {
            return Err("there is something after the end".to_owned());
        }
        if self.name.is_none() != matches!(line, Line::Part(_)) {
            return Err("the first line, and no other, says which part it is".to_owned());
        }
        let counts = &mut self.holds.counts;
        match line {
            Line::Part(header) => self.name = Some(header.name.clone()),
            Line::Definition(definition) => {
                counts.definitions += 1;
                self.definitions.push((definition.name.clone(), definition.version));
            }
            Line::Saga(saga) => {
                counts.sagas += 1;
                counts.start_keys += u64::from(saga.start_key.is_some());
                let pinned = |(name, version): &(String, u32)| {
                    *name == saga.definition && i64::from(*version) == saga.definition_version
                };
                if !self.definitions.iter().any(pinned) {
                    return Err(format!("the definition of saga {} is not in the part", saga.id));
                }
                if saga.ended_at_us.is_none() {
                    return Err(format!("saga {} has not ended", saga.id));
                }
                self.row(SagaId::from_uuid(saga.id), saga.version)?;
            }
            Line::Stream(stream) => {
                counts.streams += 1;
                counts.appended += u64::try_from(stream.version).unwrap_or(0);
                self.row(SagaId::from_uuid(stream.id), stream.version)?;
            }
            Line::Event(event) => self.event(event)?,
            Line::End(said) => {
                if said != counts {
                    return Err(format!("it ends with {said:?}, and holds {counts:?}"));
                }
                self.stream_is_whole()?;
                self.ended = true;
            }
        }
        Ok(())
    }

    fn row(&mut self, id: SagaId, version: i64) -> Result<(), String> {
        self.stream_is_whole()?;
        if self.current.is_some_and(|(last, ..)| last >= id) {
            return Err(format!("stream {id} comes after one with a larger id"));
        }
        self.first_id.get_or_insert(id);
        self.current = Some((id, version, 0));
        Ok(())
    }

    fn stream_is_whole(&self) -> Result<(), String> {
        match self.current {
            Some((id, version, found)) if found != version => {
                Err(format!("stream {id} is at version {version} and has {found} events"))
            }
            _ => Ok(()),
        }
    }

    fn event(&mut self, event: &EventCopy) -> Result<(), String> {
        let Some((id, _, found)) = &mut self.current else { return Err("an event without a stream".to_owned()) };
        *found += 1;
        if event.stream != id.as_uuid() || event.version != *found {
            return Err(format!("version {} of {} where version {found} of {id} belongs", event.version, event.stream));
        }
        let holds = &mut self.holds;
        if holds.counts.events == 0 {
            (holds.first_at_us, holds.last_at_us) = (event.occurred_at_us, event.occurred_at_us);
        }
        holds.first_at_us = holds.first_at_us.min(event.occurred_at_us);
        holds.last_at_us = holds.last_at_us.max(event.occurred_at_us);
        holds.counts.events += 1;
        match holds.shards.binary_search_by_key(&event.shard, |shard| shard.shard) {
            Ok(index) => {
                let shard = &mut holds.shards[index];
                shard.events += 1;
                (shard.first, shard.last) = (shard.first.min(event.position), shard.last.max(event.position));
            }
            Err(index) => {
                let (shard, first, last) = (event.shard, event.position, event.position);
                holds.shards.insert(index, ShardHolds { shard, events: 1, first, last });
            }
        }
        Ok(())
    }
}
