//! One call per action key at a time within this process.
//!
//! The database row serialises calls across processes. The gate does it more cheaply within one, so
//! that duplicates queue here and not on database connections.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    held: Mutex<HashSet<String>>,
    freed: Notify,
}

/// Holds a key until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    key: String,
}

impl Gate {
    /// Waits until no other call holds `key`; `None` when that takes longer than `patience`.
    pub(crate) async fn enter(self: &Arc<Self>, key: &str, patience: Duration) -> Option<Permit> {
        let wait = async {
            let mut freed = pin!(self.freed.notified());
            loop {
                // Enabled before the look, so that a release between look and wait is not missed.
                freed.as_mut().enable();
                if self.held().insert(key.to_owned()) {
                    return;
                }
                freed.as_mut().await;
                freed.set(self.freed.notified());
            }
        };
        tokio::time::timeout(patience, wait).await.ok()?;
        Some(Permit { gate: self.clone(), key: key.to_owned() })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.held().remove(&self.key);
        self.gate.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_once_and_others_are_free() {
        let gate = Arc::new(Gate::default());
        let held = gate.enter("a", Duration::ZERO).await.unwrap();
        assert!(gate.enter("a", Duration::from_millis(5)).await.is_none());
        assert!(gate.enter("b", Duration::ZERO).await.is_some());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter("a", Duration::from_secs(60)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
        assert!(gate.held().is_empty());
    }
}
