//! One run: what a former run left is ended, then what may go is archived and removed, part by part.
//!
//! | a run dies | the database | the archive | the next run |
//! | --- | --- | --- | --- |
//! | while it writes a file | has all | no part: the file has another name, or no manifest | writes another one |
//! | when the part is noted | has all | a part | forgets it and begins anew |
//! | while it removes, stream by stream | has some | a part with all | goes on with that part |
//! | while it drops a month | has all, or nothing | parts with all | drops it, if still nobody needs it |

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat};
use skald_core::{
    ids::SagaId,
    time::{Millis, Timestamp},
};

use super::{
    Error,
    archive::{self, Counts, DefinitionCopy, Folder, Line, Manifest, Month, Reader, Writer},
    judge::Rules,
    report::Report,
};
use crate::{
    hex,
    metrics::Metrics,
    storage::{
        Storage,
        retention::{Copied, Leaving, OldStream, Part, PartState, RetentionError, Unit},
    },
};

/// How long the lease lasts, which is extended all the time: as long others wait when the process dies.
const LEASE: Millis = Millis(30_000);

/// Streams judged, and copied, together.
pub(super) const STREAMS_PER_PAGE: u32 = 500;
const EVENTS_PER_PAGE: u32 = 2_000;

/// What a part holds at most, about.
const EVENTS_PER_PART: u64 = 500_000;

/// Streams handed over for removal together.
const LEAVING_TOGETHER: usize = 100;

/// What a run works with.
#[derive(Clone, Debug)]
pub struct Retain {
    pub store: Arc<dyn Storage>,
    pub folder: PathBuf,
    /// How long ago a stream must have been over.
    pub age: Millis,
    /// Of streams that go besides sagas.
    pub categories: BTreeSet<String>,
    /// Unique among processes.
    pub holder: String,
    /// Only tells what would go.
    pub dry_run: bool,
    pub metrics: Arc<Metrics>,
}

impl Retain {
    /// Does what is to be done, once.
    ///
    /// # Errors
    ///
    /// When another process does it, or the database or the folder cannot be used. What was done stays done.
    pub async fn run(&self) -> Result<Report, Error> {
        self.hold().await?;
        let done = tokio::select! {
            done = self.run_alone() => done,
            lost = self.keep_holding() => Err(lost),
        };
        if let Err(error) = self.store.let_retention_go(&self.holder).await {
            tracing::debug!(%error, "the lease on retention ends by itself");
        }
        done
    }

    async fn run_alone(&self) -> Result<Report, Error> {
        let folder = Folder::open(&self.folder)?;
        self.count_events().await?;
        let cutoff = self.cutoff().await?;
        let report = Report { dry_run: self.dry_run, cutoff: rfc3339(cutoff), ..Report::default() };
        let rules = Rules::new(cutoff, self.categories.clone());
        let mut run = Run { retain: self, folder, rules, report };
        run.look().await?;
        if !self.dry_run {
            run.end_former().await?;
        }
        match self.store.unit() {
            Unit::Stream => run.by_streams().await?,
            Unit::Month => run.by_months().await?,
        }
        let oldest = self.store.old_streams(None, archive::id_floor(self.store.now().await?), 1).await?;
        self.metrics.retention.oldest(oldest.first().map(|stream| archive::began_at(stream.id)));
        Ok(run.report)
    }

    /// Extends the lease until another process has it. That the database does not answer is no loss yet: it removes nothing
    /// for whoever has lost the lease.
    async fn keep_holding(&self) -> Error {
        loop {
            tokio::time::sleep(Duration::from_millis(LEASE.0 / 3)).await;
            match self.hold().await {
                Ok(()) => {}
                Err(lost @ Error::Database(RetentionError::Busy)) => return lost,
                Err(error) => tracing::debug!(%error, "the lease on retention was not extended"),
            }
        }
    }

    async fn hold(&self) -> Result<(), Error> {
        if self.store.hold_retention(&self.holder, LEASE).await? { Ok(()) } else { Err(RetentionError::Busy.into()) }
    }

    async fn cutoff(&self) -> Result<Timestamp, Error> {
        let now = self.store.now().await?;
        let age_us = i64::try_from(self.age.0.saturating_mul(1000)).unwrap_or(i64::MAX);
        Ok(Timestamp::from_micros(now.as_micros().saturating_sub(age_us)))
    }

    /// Events are counted before they go; nobody else may ask for a long time.
    async fn count_events(&self) -> Result<(), Error> {
        let mut uncounted = u64::MAX;
        loop {
            let now_uncounted = self.store.event_stats().await?.uncounted;
            if now_uncounted == 0 || now_uncounted >= uncounted {
                return Ok(());
            }
            uncounted = now_uncounted;
        }
    }
}

pub(super) struct Run<'a> {
    pub(super) retain: &'a Retain,
    folder: Folder,
    pub(super) rules: Rules,
    report: Report,
}

/// How much goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) sagas: u64,
    /// That are no sagas.
    pub(super) streams: u64,
    events: u64,
}

impl Amount {
    pub(super) fn add(&mut self, stream: &OldStream) {
        match stream.name {
            None => self.sagas += 1,
            Some(_) => self.streams += 1,
        }
        self.events += stream.version;
    }
}

/// Streams to go to one part of the archive.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) ids: Vec<SagaId>,
    amount: Amount,
}

impl Chunk {
    pub(super) fn push(&mut self, stream: &OldStream) {
        self.ids.push(stream.id);
        self.amount.add(stream);
    }

    pub(super) const fn is_full(&self) -> bool {
        self.amount.events >= EVENTS_PER_PART
    }
}

impl Run<'_> {
    /// Learns who needs what.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        let store = &self.retain.store;
        let held = store.held_streams(archive::id_floor(self.rules.cutoff)).await?;
        self.rules = std::mem::take(&mut self.rules).with(store.needs().await?, held);
        Ok(())
    }

    /// Ends what a former run left, so that the database holds all of a stream or nothing.
    async fn end_former(&mut self) -> Result<(), Error> {
        let mut months: BTreeMap<Month, Vec<Part>> = BTreeMap::new();
        for part in self.retain.store.parts().await? {
            match (part.state, self.retain.store.unit()) {
                (PartState::Removed, _) => {}
                (PartState::Written, _) => {
                    self.retain.store.forget_part(&part.name).await?;
                    if self.usable(&part).is_ok() {
                        self.folder.remove(&part.name)?;
                    }
                }
                (PartState::Removing, Unit::Stream) => {
                    let manifest = self.usable(&part)?;
                    self.remove_streams(&manifest).await?;
                }
                (PartState::Removing, Unit::Month) => {
                    months.entry(Month::of_stream(part.first_id)).or_default().push(part)
                }
            }
        }
        for (month, parts) in months {
            let manifests = parts.iter().map(|part| self.usable(part)).collect::<Result<Vec<_>, _>>()?;
            match self.drop_month(month, &manifests).await {
                // Somebody came to need it. The files stay, since start keys may be in them alone.
                Err(Error::Database(RetentionError::Changed(_))) => {
                    for part in parts {
                        self.retain.store.forget_part(&part.name).await?;
                    }
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// The manifest of a part whose file is needed to go on.
    fn usable(&self, part: &Part) -> Result<Manifest, Error> {
        let file = self.folder.file(&part.name);
        let unusable = |error| Error::HalfRemoved { name: part.name.clone(), error };
        let (_, manifest) = Reader::open(&file).map_err(unusable)?;
        if manifest.file.sha256 != hex::encode(&part.sha256) {
            let what = "it is not the file that was written".to_owned();
            return Err(unusable(archive::ArchiveError::Whole { path: file, what }));
        }
        Ok(manifest)
    }

    /// Every stream for itself.
    async fn by_streams(&mut self) -> Result<(), Error> {
        let end = archive::id_floor(self.rules.cutoff);
        let (mut month, mut chunk, mut after) = (None, Chunk::default(), None);
        loop {
            let page = self.retain.store.old_streams(after, end, STREAMS_PER_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for stream in &page {
                let begun = Month::of_stream(stream.id);
                if month != Some(begun) || chunk.is_full() {
                    self.take_out(month.replace(begun), std::mem::take(&mut chunk)).await?;
                }
                match self.rules.judge(stream) {
                    Ok(()) => chunk.push(stream),
                    Err(reason) => self.keep(&reason, 1),
                }
            }
        }
        self.take_out(month, chunk).await
    }

    async fn take_out(&mut self, month: Option<Month>, chunk: Chunk) -> Result<(), Error> {
        let Some(month) = month.filter(|_| !chunk.ids.is_empty()) else { return Ok(()) };
        if self.retain.dry_run {
            self.went(chunk.amount);
            return Ok(());
        }
        let manifest = self.write_part(month, &chunk.ids).await?;
        self.remove_streams(&manifest).await
    }

    /// Notes why streams stay.
    pub(super) fn keep(&mut self, reason: &(impl ToString + ?Sized), count: u64) {
        if count > 0 {
            *self.report.kept.entry(reason.to_string()).or_default() += count;
        }
    }

    pub(super) fn went(&mut self, amount: Amount) {
        let Amount { sagas, streams, events } = amount;
        self.report.sagas += sagas;
        self.report.streams += streams;
        self.report.events += events;
    }

    pub(super) fn removed(&mut self, manifest: &Manifest) {
        let Counts { sagas, streams, events, .. } = manifest.holds.counts;
        self.went(Amount { sagas, streams, events });
        self.report.parts.push(manifest.name.clone());
        self.retain.metrics.retention.removed(sagas, streams, events);
        tracing::info!(part = manifest.name, sagas, streams, events, "archived and removed");
    }

    /// Writes these streams to a part of the archive, and notes it.
    pub(super) async fn write_part(&self, month: Month, ids: &[SagaId]) -> Result<Manifest, Error> {
        let store = &self.retain.store;
        let now = store.now().await?;
        let noted = store.parts().await?.iter().filter_map(|part| month.number_of(&part.name)).max().unwrap_or(0);
        let name = self.folder.free_name(month, noted.saturating_add(1));
        let definitions: Vec<DefinitionCopy> = store.definitions().await?.iter().map(DefinitionCopy::from).collect();
        let mut writer = Writer::begin(&self.folder, &name, rfc3339(now), definitions)?;
        for page in ids.chunks(STREAMS_PER_PAGE as usize) {
            writer = self.copy(writer, page).await?;
        }
        let manifest = beside(move || writer.finish()).await??;
        let Counts { sagas, streams, events, .. } = manifest.holds.counts;
        let part = Part {
            name,
            state: PartState::Written,
            first_id: ids[0],
            last_id: ids[ids.len() - 1],
            sagas,
            streams,
            events,
            sha256: hex::decode(&manifest.file.sha256).expect("a digest is 32 bytes"),
            archived_at: now,
        };
        store.add_part(&part).await?;
        Ok(manifest)
    }

    /// Copies these streams, each with its events.
    async fn copy(&self, mut writer: Writer, ids: &[SagaId]) -> Result<Writer, Error> {
        let mut rows = self.retain.store.copy_rows(ids).await?.into_iter().peekable();
        let mut after = None;
        loop {
            let events = self.retain.store.copy_events(ids, after, EVENTS_PER_PAGE).await?;
            let Some(last) = events.last() else { break };
            after = Some((SagaId::from_uuid(last.stream), last.version));
            let mut lines = Vec::with_capacity(events.len());
            for event in events {
                while let Some(row) = rows.next_if(|row| row.id().as_uuid() <= event.stream) {
                    lines.push(Line::from(row));
                }
                lines.push(Line::Event(Box::new(event)));
            }
            writer = write(writer, lines).await?;
        }
        write(writer, rows.map(Line::from).collect()).await
    }

    /// Removes what is in a part from the database, stream by stream, a little at a time.
    async fn remove_streams(&mut self, manifest: &Manifest) -> Result<(), Error> {
        let (store, holder) = (&self.retain.store, &self.retain.holder);
        store.begin_removing(&manifest.name).await?;
        let file = self.folder.file(&manifest.name);
        let (mut reader, _) = beside(move || Reader::open(&file)).await??;
        let mut leaving: Vec<Leaving> = Vec::new();
        loop {
            while leaving.len() < LEAVING_TOGETHER
                && let Some(stream) = reader.stream()?
            {
                leaving.push(leaving_of(&stream.row));
            }
            if leaving.is_empty() {
                break;
            }
            let began = Instant::now();
            let gone = store.remove_some(holder, &manifest.name, &leaving).await?;
            leaving.drain(..gone);
            // Commits get at least as much of the writer's time.
            tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
        }
        store.end_removing(&manifest.name).await?;
        self.removed(manifest);
        Ok(())
    }
}

async fn write(mut writer: Writer, lines: Vec<Line>) -> Result<Writer, Error> {
    let written = beside(move || {
        for line in lines {
            writer.line(line)?;
        }
        Ok::<_, archive::ArchiveError>(writer)
    });
    Ok(written.await??)
}

/// Does work that blocks beside the tasks that must not.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked)
}

fn leaving_of(row: &Copied) -> Leaving {
    Leaving { id: row.id(), version: row.version(), is_saga: matches!(row, Copied::Saga(_)) }
}

pub(super) const fn streams_of(manifest: &Manifest) -> u64 {
    manifest.holds.counts.sagas + manifest.holds.counts.streams
}

fn rfc3339(at: Timestamp) -> String {
    let at = DateTime::from_timestamp_micros(at.as_micros()).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
