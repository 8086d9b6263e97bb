//! What a service does by itself: free expired holds, forget old keys.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{catalog, http::Shared, service::Kind};

const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// Runs until `stopping` turns true.
pub(crate) fn spawn(
    kind: Kind,
    shared: Arc<Shared>,
    sweep_every: Duration,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut sweep = interval_at(Instant::now(), sweep_every);
        let mut purge = interval_at(Instant::now(), PURGE_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stop = async { stopping.wait_for(|stopping| *stopping).await.is_ok() };
            tokio::select! {
                _ = stop => return,
                _ = sweep.tick(), if kind == Kind::Catalog => free_expired_holds(&shared).await,
                _ = purge.tick() => forget_old_keys(&shared).await,
            }
        }
    })
}

async fn free_expired_holds(shared: &Shared) {
    match catalog::free_expired_holds(shared.barrier.db()).await {
        Ok(0) => {}
        Ok(count) => {
            shared.metrics.holds_expired(count);
            tracing::info!(count, "freed expired holds");
        }
        Err(error) => tracing::warn!(%error, "expired holds can't be freed now"),
    }
}

async fn forget_old_keys(shared: &Shared) {
    match shared.barrier.purge().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgot the keys of old sagas"),
        Err(error) => tracing::warn!(%error, "old keys can't be removed now"),
    }
}
