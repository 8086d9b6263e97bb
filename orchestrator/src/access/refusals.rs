//! Refusals, on their way to the audit log.
//!
//! The first is recorded at once. What is refused within the time after it is counted, the like together, and recorded
//! when that time is over; while refusals go on, that time doubles up to a minute. So nobody who may do nothing can fill
//! the disk: a flood from outside makes one entry per kind and minute, which tells how many there were. What was counted
//! and not recorded yet is lost when the process is killed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::Caller;
use crate::{
    audit::{self, Act},
    clock::Clock,
    storage::{Store, access::AuditOutcome},
};

const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Kinds that are counted apart within one interval. Whatever more there are count as one.
const KINDS_MAX: usize = 16;

/// What was refused. Of who shows nothing that is known only the code tells one kind from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    actor: Option<String>,
    credential: Option<String>,
    /// Method and pattern of the path: what is in the path may be a person's name.
    asked: Option<String>,
    code: &'static str,
}

/// How often, and the last one's details.
#[derive(Clone, Debug)]
struct Tally {
    times: u32,
    asked: String,
    correlation_id: String,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counted: Mutex<HashMap<Kind, Tally>>,
    some: Notify,
}

impl Refusals {
    /// Records what is noted until `closed`, and what is left then.
    #[must_use]
    pub fn follow(store: Arc<dyn Store>, clock: Arc<dyn Clock>, mut closed: watch::Receiver<bool>) -> Self {
        let refusals = Self::default();
        let following = refusals.clone();
        tokio::spawn(async move {
            let mut interval = INTERVAL_MIN;
            loop {
                tokio::select! {
                    () = following.0.some.notified() => {}
                    _ = closed.wait_for(|closed| *closed) => break,
                }
                following.record(&*store, &*clock).await;
                // Whoever goes on being refused is asked about less and less often; a quiet time forgets that.
                if tokio::time::timeout(interval, closed.wait_for(|closed| *closed)).await.is_ok() {
                    break;
                }
                interval = next_interval(interval, !following.counted().is_empty());
            }
            following.record(&*store, &*clock).await;
        });
        refusals
    }

    /// Notes a refusal; `asked` is the method and the pattern of the path.
    pub fn note(&self, caller: Option<&Caller>, asked: String, code: &'static str, correlation_id: &str) {
        let kind = Kind {
            actor: caller.map(|caller| caller.name.clone()),
            credential: caller.map(|caller| caller.credential.clone()),
            asked: caller.map(|_| asked.clone()),
            code,
        };
        let mut counted = self.counted();
        let overflow = Kind { actor: None, credential: None, asked: None, code: "several" };
        let kind = if counted.len() < KINDS_MAX || counted.contains_key(&kind) { kind } else { overflow };
        let tally = counted.entry(kind).or_insert_with(|| Tally {
            times: 0,
            asked: String::new(),
            correlation_id: String::new(),
        });
        tally.times = tally.times.saturating_add(1);
        tally.asked = asked;
        correlation_id.clone_into(&mut tally.correlation_id);
        drop(counted);
        self.0.some.notify_one();
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<Kind, Tally>> {
        self.0.counted.lock().expect("nothing panics while it holds this lock")
    }

    async fn record(&self, store: &dyn Store, clock: &dyn Clock) {
        let counted = std::mem::take(&mut *self.counted());
        for (kind, tally) in counted {
            let act = Act {
                actor: kind.actor,
                credential: kind.credential,
                action: "access.refuse".to_owned(),
                target: tally.asked,
                reason: None,
                request_id: tally.correlation_id.clone(),
                correlation_id: Some(tally.correlation_id),
            };
            let entry = audit::entry(&act, clock.now(), AuditOutcome::Refused, Some(kind.code), tally.times);
            if let Err(error) = store.record(&entry).await {
                let (code, times) = (kind.code, tally.times);
                tracing::warn!(%error, code, times, actor = entry.actor, "refusals cannot be recorded");
            }
        }
    }
}

const fn next_interval(interval: Duration, goes_on: bool) -> Duration {
    if !goes_on {
        return INTERVAL_MIN;
    }
    let doubled = interval.as_secs() * 2;
    if doubled > INTERVAL_MAX.as_secs() { INTERVAL_MAX } else { Duration::from_secs(doubled) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::scope::Scopes,
        api::testing::WallClock,
        storage::{
            access::{AccessRecords as _, AuditEntry, AuditFilter},
            memory::MemoryStore,
        },
    };

    async fn recorded(store: &MemoryStore) -> Vec<AuditEntry> {
        store.audit_log(&AuditFilter { limit: 1000, ..AuditFilter::default() }).await.unwrap()
    }

    fn caller(number: usize) -> Caller {
        let (name, credential) = (format!("caller-{number}"), format!("key:{number}"));
        Caller { name, credential, scopes: Scopes::default() }
    }

    #[tokio::test]
    async fn a_flood_leaves_a_handful_of_entries_that_tell_how_large_it_was() {
        let store = MemoryStore::new(Arc::new(WallClock), 1);
        let refusals = Refusals::default();
        for number in 0..1000 {
            refusals.note(None, format!("GET /{number}"), "unauthenticated", "c-1");
            refusals.note(Some(&caller(number)), format!("GET /{number}"), "forbidden", "c-2");
        }
        refusals.record(&store, &WallClock).await;
        let entries = recorded(&store).await;
        assert_eq!(entries.len(), KINDS_MAX + 1);
        assert_eq!(entries.iter().map(|entry| entry.times).sum::<u32>(), 2000);
        let nobodys = entries.iter().find(|entry| entry.code.as_deref() == Some("unauthenticated")).unwrap();
        assert_eq!((nobodys.times, nobodys.target.as_str()), (1000, "GET /999"));
        refusals.record(&store, &WallClock).await;
        assert_eq!(recorded(&store).await.len(), KINDS_MAX + 1, "nothing was refused since");
    }

    #[tokio::test]
    async fn the_first_is_recorded_at_once_and_the_last_when_the_service_stops() {
        let store = Arc::new(MemoryStore::new(Arc::new(WallClock), 1));
        let (closing, closed) = watch::channel(false);
        let refusals = Refusals::follow(Arc::clone(&store) as _, Arc::new(WallClock), closed);
        for (count, code) in ["unauthenticated", "invalid_credentials"].into_iter().enumerate() {
            refusals.note(None, "GET /sagas".to_owned(), code, "c-1");
            if count == 1 {
                closing.send_replace(true);
            }
            while recorded(&store).await.len() <= count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    #[test]
    fn whoever_goes_on_is_recorded_less_and_less_often() {
        let intervals = (0..10).scan(INTERVAL_MIN, |interval, _| {
            *interval = next_interval(*interval, true);
            Some(interval.as_secs())
        });
        assert_eq!(intervals.collect::<Vec<_>>(), [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        assert_eq!(next_interval(INTERVAL_MAX, false), INTERVAL_MIN);
    }
}
