//! Where streams leave with their month: it goes when all of it may.

use std::collections::BTreeMap;

use skald_core::ids::SagaId;

use super::{
    Error,
    archive::{self, Manifest, Month},
    judge::Kept,
    run::{Chunk, Run, STREAMS_PER_PAGE, streams_of},
};
use crate::storage::retention::RetentionError;

impl Run<'_> {
    /// A month goes when all of it may.
    pub(super) async fn by_months(&mut self) -> Result<(), Error> {
        let end = archive::id_floor(self.rules.cutoff);
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

    pub(super) async fn drop_month(&mut self, month: Month, manifests: &[Manifest]) -> Result<(), Error> {
        // What was needed by nobody when this was archived may be by now.
        self.look().await?;
        let (_, kept) = self.judge_month(month, archive::id_floor(self.rules.cutoff)).await?;
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
}
