//! One run: what a former run left is ended, then what may go is archived and removed, part by part.
//!
//! | a run dies | the database | the archive | the next run |
//! | --- | --- | --- | --- |
//! | while it writes a file | has all | no part: the file has another name, or no manifest | writes another one |
//! | when the part is noted | has all | a part | forgets it and begins anew |
//! | while it removes, stream by stream | has some | a part with all | goes on with that part |
//! | while it drops a month | has all, or nothing | parts with all | drops it, if still nobody needs it |

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use skald_core::{
    ids::SagaId,
    time::{Millis, Timestamp},
};

use super::{
    Error,
    archive::{self, Counts, DefinitionCopy, Folder, Line, Manifest, Month, Reader, Writer},
    judge::{Kept, Rules},
};
use crate::{
    hex,
    storage::{
        Storage,
        retention::{Copied, Leaving, OldStream, Part, PartState, RetentionError, Unit},
    },
};

/// How long the lease lasts; extended between steps. Longer than any of them should take.
const LEASE: Millis = Millis(600_000);

/// Streams judged, and copied, together.
const STREAMS_PER_PAGE: u32 = 500;
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
    /// Unique among processes.
    pub holder: String,
    /// Only tells what would go.
    pub dry_run: bool,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub dry_run: bool,
    /// What was over before this went, or would go. RFC 3339.
    pub cutoff: String,
    pub sagas: u64,
    pub streams: u64,
    pub events: u64,
    /// Parts of the archive whose streams are gone from the database.
    pub parts: Vec<String>,
    /// Why others stay, of those that began before the cutoff, and how many.
    pub kept: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would go" } else { "went" };
        let Self { sagas, streams, events, cutoff, .. } = self;
        write!(f, "{sagas} sagas and {streams} other streams, over before {cutoff}, {verb}: {events} events")?;
        for part in &self.parts {
            write!(f, "\n  archived and removed: {part}")?;
        }
        for (reason, count) in &self.kept {
            write!(f, "\n  kept: {count} {reason}")?;
        }
        Ok(())
    }
}

impl Retain {
    /// Does what is to be done, once.
    ///
    /// # Errors
    ///
    /// When another process does it, or the database or the folder cannot be used. What was done stays done.
    pub async fn run(&self) -> Result<Report, Error> {
        self.hold().await?;
        let done = self.run_alone().await;
        if let Err(error) = self.store.let_retention_go(&self.holder).await {
            tracing::debug!(%error, "the lease on retention ends by itself");
        }
        done
    }

    async fn run_alone(&self) -> Result<Report, Error> {
        let folder = Folder::open(&self.folder)?;
        if !self.dry_run {
            self.count_events().await?;
        }
        let cutoff = self.cutoff().await?;
        let report = Report { dry_run: self.dry_run, cutoff: rfc3339(cutoff), ..Report::default() };
        let mut run = Run { retain: self, folder, cutoff, rules: Rules::default(), report };
        run.look().await?;
        if !self.dry_run {
            run.end_former().await?;
        }
        match self.store.unit() {
            Unit::Stream => run.by_streams().await?,
            Unit::Month => run.by_months().await?,
        }
        Ok(run.report)
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
            self.hold().await?;
        }
    }
}

struct Run<'a> {
    retain: &'a Retain,
    folder: Folder,
    cutoff: Timestamp,
    rules: Rules,
    report: Report,
}

/// Streams to go to one part of the archive.
#[derive(Debug, Default)]
struct Chunk {
    ids: Vec<SagaId>,
    sagas: u64,
    events: u64,
}

impl Chunk {
    fn of(stream: &OldStream) -> Self {
        let mut chunk = Self::default();
        chunk.push(stream);
        chunk
    }

    fn push(&mut self, stream: &OldStream) {
        self.ids.push(stream.id);
        self.sagas += u64::from(stream.name.is_none());
        self.events += stream.version;
    }

    const fn is_full(&self) -> bool {
        self.events >= EVENTS_PER_PART
    }
}

impl Run<'_> {
    /// Learns who needs what.
    async fn look(&mut self) -> Result<(), Error> {
        let store = &self.retain.store;
        let held = store.held_streams(archive::id_floor(self.cutoff)).await?;
        self.rules = Rules::new(self.cutoff, store.needs().await?, held);
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
        let end = archive::id_floor(self.cutoff);
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
            self.went(&chunk);
            return Ok(());
        }
        let manifest = self.write_part(month, &chunk.ids).await?;
        self.remove_streams(&manifest).await
    }

    /// A month goes when all of it may.
    async fn by_months(&mut self) -> Result<(), Error> {
        let end = archive::id_floor(self.cutoff);
        let droppable: Vec<Month> = self.retain.store.droppable_months().await?.into_iter().map(Month::of).collect();
        let mut after = None;
        loop {
            // The month of the next stream there is.
            let Some(next) = self.retain.store.old_streams(after, end, 1).await?.pop() else { return Ok(()) };
            let month = Month::of_stream(next.id);
            let month_end = archive::id_floor(month.next().begin());
            let (chunks, kept) = self.judge_month(month, end).await?;
            let all_may_go = kept.is_empty();
            for (reason, count) in kept {
                self.keep(&reason, count);
            }
            let count = chunks.iter().map(|chunk| chunk.ids.len() as u64).sum::<u64>();
            if !droppable.contains(&month) {
                self.keep("streams that lie in no month's partition", count);
            } else if month_end > end {
                self.keep("streams whose month is not over for long enough", count);
            } else if !all_may_go {
                self.keep("streams of whose month others stay", count);
            } else if self.retain.dry_run {
                chunks.iter().for_each(|chunk| self.went(chunk));
            } else {
                self.take_month_out(month, chunks).await?;
            }
            after = Some(month_end);
            self.retain.hold().await?;
        }
    }

    /// The streams of a month, up to `end`: those that may go, and why others stay, how many of them.
    async fn judge_month(&self, month: Month, end: SagaId) -> Result<(Vec<Chunk>, BTreeMap<Kept, u64>), Error> {
        let end = end.min(archive::id_floor(month.next().begin()));
        let mut after = Some(archive::id_floor(month.begin()));
        let (mut chunks, mut kept) = (Vec::<Chunk>::new(), BTreeMap::new());
        loop {
            let page = self.retain.store.old_streams(after, end, STREAMS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok((chunks, kept)) };
            after = Some(last.id);
            for stream in &page {
                match self.rules.judge(stream) {
                    Err(reason) => *kept.entry(reason).or_default() += 1,
                    Ok(()) => match chunks.last_mut().filter(|chunk| !chunk.is_full()) {
                        Some(chunk) => chunk.push(stream),
                        None => chunks.push(Chunk::of(stream)),
                    },
                }
            }
        }
    }

    async fn take_month_out(&mut self, month: Month, chunks: Vec<Chunk>) -> Result<(), Error> {
        let mut manifests = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            manifests.push(self.write_part(month, &chunk.ids).await?);
        }
        for manifest in &manifests {
            self.retain.store.begin_removing(&manifest.name).await?;
        }
        match self.drop_month(month, &manifests).await {
            Err(Error::Database(error @ (RetentionError::Changed(_) | RetentionError::InUse))) => {
                tracing::warn!(%month, %error, "a month that is archived could not be dropped; trying again next time");
                self.keep("streams whose month could not be dropped", manifests.iter().map(streams_of).sum());
                Ok(())
            }
            done => done,
        }
    }

    async fn drop_month(&mut self, month: Month, manifests: &[Manifest]) -> Result<(), Error> {
        // What was needed by nobody when this was archived may be by now.
        self.look().await?;
        let (_, kept) = self.judge_month(month, archive::id_floor(self.cutoff)).await?;
        if let Some(reason) = kept.into_keys().next() {
            return Err(RetentionError::Changed(format!("{month} has {reason}")).into());
        }
        let names: Vec<String> = manifests.iter().map(|manifest| manifest.name.clone()).collect();
        let appended: u64 = manifests.iter().map(|manifest| manifest.holds.counts.appended).sum();
        let appended = i64::try_from(appended).unwrap_or(i64::MAX);
        self.retain.hold().await?;
        self.retain.store.drop_month(&self.retain.holder, month.begin(), &names, appended).await?;
        for manifest in manifests {
            self.removed(manifest);
        }
        Ok(())
    }

    /// Notes why streams stay.
    fn keep(&mut self, reason: &(impl ToString + ?Sized), count: u64) {
        if count > 0 {
            *self.report.kept.entry(reason.to_string()).or_default() += count;
        }
    }

    fn went(&mut self, chunk: &Chunk) {
        self.report.sagas += chunk.sagas;
        self.report.streams += chunk.ids.len() as u64 - chunk.sagas;
        self.report.events += chunk.events;
    }

    fn removed(&mut self, manifest: &Manifest) {
        let Counts { sagas, streams, events, .. } = manifest.holds.counts;
        self.report.sagas += sagas;
        self.report.streams += streams;
        self.report.events += events;
        self.report.parts.push(manifest.name.clone());
        tracing::info!(part = manifest.name, sagas, streams, events, "archived and removed");
    }

    /// Writes these streams to a part of the archive, and notes it.
    async fn write_part(&mut self, month: Month, ids: &[SagaId]) -> Result<Manifest, Error> {
        let store = &self.retain.store;
        let now = store.now().await?;
        let noted = store.parts().await?.iter().filter_map(|part| month.number_of(&part.name)).max().unwrap_or(0);
        let name = self.folder.free_name(month, noted.saturating_add(1));
        let definitions: Vec<DefinitionCopy> = store.definitions().await?.iter().map(DefinitionCopy::from).collect();
        let mut writer = Writer::begin(&self.folder, &name, rfc3339(now), definitions)?;
        for page in ids.chunks(STREAMS_PER_PAGE as usize) {
            self.retain.hold().await?;
            writer = self.copy(writer, page).await?;
        }
        let manifest = beside(move || writer.finish()).await??;
        self.retain.hold().await?;
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
            self.retain.hold().await?;
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

const fn streams_of(manifest: &Manifest) -> u64 {
    manifest.holds.counts.sagas + manifest.holds.counts.streams
}

fn rfc3339(at: Timestamp) -> String {
    let at = DateTime::from_timestamp_micros(at.as_micros()).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
