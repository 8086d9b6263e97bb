//! What is paused. Pauses are kept in the store, so that they survive restarts and hold on every replica; each replica
//! looks at them every other second and applies them: definitions here, participants at their gate.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::sync::{Mutex, watch};

use crate::{
    app::Gate,
    storage::{Pause, PauseKind, Store, StoreError},
};

const INTERVAL: Duration = Duration::from_secs(2);

/// The pauses as last read, or made here since. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pauses(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    gate: Arc<dyn Gate>,
    known: RwLock<Vec<Pause>>,
    /// Held from reading or writing the store until `known` says the same, so that neither undoes the other.
    changing: Mutex<()>,
}

impl Pauses {
    /// Reads and applies the pauses, and goes on doing so until `closed`.
    ///
    /// # Errors
    ///
    /// When they cannot be read the first time; later the last ones known hold.
    pub async fn follow(
        store: Arc<dyn Store>,
        gate: Arc<dyn Gate>,
        mut closed: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let shared = Shared { store, gate, known: RwLock::default(), changing: Mutex::default() };
        let pauses = Self(Arc::new(shared));
        pauses.refresh().await?;
        let following = pauses.clone();
        tokio::spawn(async move {
            let mut failing = false;
            while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                match following.refresh().await {
                    Ok(()) => failing = false,
                    Err(error) if failing => tracing::debug!(%error, "pauses still cannot be read"),
                    Err(error) => {
                        failing = true;
                        tracing::warn!(%error, "pauses cannot be read; those known hold");
                    }
                }
            }
        });
        Ok(pauses)
    }

    #[must_use]
    pub fn is_paused(&self, kind: PauseKind, name: &str) -> bool {
        self.known().iter().any(|pause| pause.kind == kind && pause.name == name)
    }

    /// Pauses, here at once and on other replicas within seconds.
    ///
    /// # Errors
    ///
    /// When it cannot be stored; nothing is paused then.
    pub async fn pause(&self, pause: Pause) -> Result<(), StoreError> {
        let _changing = self.0.changing.lock().await;
        self.0.store.pause(&pause).await?;
        let mut now = self.known();
        now.retain(|other| (other.kind, &other.name) != (pause.kind, &pause.name));
        now.push(pause);
        self.apply(now);
        Ok(())
    }

    /// Ends a pause, as [`Pauses::pause`] began it. Without one, nothing happens.
    ///
    /// # Errors
    ///
    /// When it cannot be stored; the pause goes on then.
    pub async fn resume(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        let _changing = self.0.changing.lock().await;
        let was_paused = self.0.store.unpause(kind, name).await?;
        let mut now = self.known();
        now.retain(|pause| (pause.kind, pause.name.as_str()) != (kind, name));
        self.apply(now);
        Ok(was_paused)
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let _changing = self.0.changing.lock().await;
        let now = self.0.store.pauses().await?;
        self.apply(now);
        Ok(())
    }

    fn known(&self) -> Vec<Pause> {
        self.0.known.read().expect("nothing panics while it holds this lock").clone()
    }

    fn apply(&self, now: Vec<Pause>) {
        let participants = |pauses: &[Pause]| -> Vec<String> {
            let of_participants = pauses.iter().filter(|pause| pause.kind == PauseKind::Participant);
            of_participants.map(|pause| pause.name.clone()).collect()
        };
        let mut known = self.0.known.write().expect("nothing panics while it holds this lock");
        let (before, after) = (participants(&known), participants(&now));
        for name in before.iter().filter(|name| !after.contains(name)) {
            self.0.gate.resume(name);
        }
        for name in &after {
            self.0.gate.pause(name);
        }
        *known = now;
    }
}
