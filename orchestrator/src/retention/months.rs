//! Where streams leave with their month: it goes when all of it may.

use std::collections::BTreeMap;

use skald_core::ids::SagaId;

use super::{
    Error,
    archive::{self, Manifest, Month},
    judge::Kept,
    run::{Amount, Chunk, Run, STREAMS_PER_PAGE, streams_of},
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
            let (amount, kept) = self.judge_month(month, end).await?;
            let all_may_go = kept.is_empty();
            for (reason, count) in kept {
                self.keep(&reason, count);
            }
            let count = amount.sagas + amount.streams;
            if !droppable.contains(&month) {
                self.keep("streams that lie in no month's partition", count);
            } else if month_end > end {
                self.keep("streams whose month is not over for long enough", count);
            } else if !all_may_go {
                self.keep("streams of whose month others stay", count);
            } else if self.retain.dry_run {
                self.went(amount);
            } else {
                self.take_month_out(month).await?;
            }
            after = Some(month_end);
        }
    }

    /// Of a month, up to `end`: how much may go, and why how many others stay.
    async fn judge_month(&self, month: Month, end: SagaId) -> Result<(Amount, BTreeMap<Kept, u64>), Error> {
        let end = end.min(archive::id_floor(month.next().begin()));
        let mut after = Some(archive::id_floor(month.begin()));
        let (mut amount, mut kept) = (Amount::default(), BTreeMap::new());
        loop {
            let page = self.retain.store.old_streams(after, end, STREAMS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok((amount, kept)) };
            after = Some(last.id);
            for stream in &page {
                match self.rules.judge(stream) {
                    Ok(()) => amount.add(stream),
                    Err(reason) => *kept.entry(reason).or_default() += 1,
                }
            }
        }
    }

    /// Writes all of a month to the archive.
    async fn write_month(&self, month: Month) -> Result<Vec<Manifest>, Error> {
        let end = archive::id_floor(month.next().begin());
        let mut after = Some(archive::id_floor(month.begin()));
        let (mut manifests, mut chunk) = (Vec::new(), Chunk::default());
        loop {
            let page = self.retain.store.old_streams(after, end, STREAMS_PER_PAGE).await?;
            let whole = page.is_empty();
            after = page.last().map(|last| last.id).or(after);
            page.iter().for_each(|stream| chunk.push(stream));
            if chunk.is_full() || (whole && !chunk.ids.is_empty()) {
                manifests.push(self.write_part(month, &std::mem::take(&mut chunk).ids).await?);
            }
            if whole {
                return Ok(manifests);
            }
        }
    }

    async fn take_month_out(&mut self, month: Month) -> Result<(), Error> {
        let manifests = self.write_month(month).await?;
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
        self.retain.store.drop_month(&self.retain.holder, month.begin(), &names, appended).await?;
        for manifest in manifests {
            self.removed(manifest);
        }
        Ok(())
    }
}
