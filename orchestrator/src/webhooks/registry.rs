//! The webhooks as they stand, and how they are changed.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use skald_core::time::{Millis, Timestamp};
use tokio::sync::Notify;
use uuid::Uuid;

use super::guard::Guard;
use crate::{
    signature::{self, Signer},
    storage::{
        StoreError,
        groups::{ConsumerGroups, GroupFilter, GroupRetry, NewGroup, Start},
        webhooks::{Attempt, Disabled, SagaNews, Terms, Webhook, Webhooks},
    },
};

/// What the names of webhooks' consumer groups begin with.
pub const GROUP_PREFIX: &str = "webhook-";
/// All of them are looked through at once.
pub const WEBHOOKS_MAX: usize = 100;
/// How long a secret that was replaced is still signed with.
const OVERLAP: Millis = Millis(24 * 3600 * 1000);
/// From seconds to hours, about three days in all, before an event is parked.
const RETRY: GroupRetry = GroupRetry { initial: Millis(5_000), max: Millis(6 * 3600 * 1000), attempts: 24 };

/// See the module.
pub struct Registry {
    store: Arc<dyn Webhooks>,
    groups: Arc<dyn ConsumerGroups>,
    /// The database's; the webhooks' are derived from it, so that none is stored.
    secret: [u8; 32],
    pub guard: Guard,
    /// Told whenever one was changed here.
    pub changed: Notify,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub url: String,
    pub events: Vec<SagaNews>,
    pub definitions: Vec<String>,
}

impl Registry {
    #[must_use]
    pub fn new(store: Arc<dyn Webhooks>, groups: Arc<dyn ConsumerGroups>, secret: [u8; 32], guard: Guard) -> Self {
        Self { store, groups, secret, guard, changed: Notify::new() }
    }

    pub async fn list(&self) -> Result<Vec<Webhook>, StoreError> {
        self.store.webhooks().await
    }

    pub async fn get(&self, id: Uuid) -> Result<Option<Webhook>, StoreError> {
        Ok(self.list().await?.into_iter().find(|webhook| webhook.id == id))
    }

    /// Makes one, which is told of what comes from now on; None if there are too many.
    pub async fn add(&self, wanted: Wanted, now: Timestamp) -> Result<Option<Webhook>, StoreError> {
        if self.list().await?.len() >= WEBHOOKS_MAX {
            return Ok(None);
        }
        let Wanted { url, events, definitions } = wanted;
        let id = Uuid::new_v4();
        let told = if events.is_empty() { &SagaNews::ALL[..] } else { &events };
        let kinds = told.iter().map(|news| news.kind().to_owned()).collect();
        let filter = GroupFilter { kinds, definitions: definitions.clone(), ..GroupFilter::default() };
        let group = NewGroup { name: group(id), filter, retry: RETRY, start: Start::End };
        let terms = Terms { url, events, definitions, secrets: 1, former_until: None, disabled: None };
        let webhook = Webhook { id, created_at: now, terms };
        // A webhook that is known has its group, so that nothing that comes after it is missed.
        self.groups.put_group(&group).await?;
        self.store.add_webhook(&webhook).await?;
        self.changed.notify_one();
        Ok(Some(webhook))
    }

    /// Forgets it, and what it was not told yet.
    pub async fn remove(&self, id: Uuid) -> Result<bool, StoreError> {
        let removed = self.store.remove_webhook(id).await?;
        self.groups.drop_group(&group(id)).await?;
        self.changed.notify_one();
        Ok(removed)
    }

    /// Gives it a new secret; for a day its messages are signed with both.
    pub async fn rotate(&self, id: Uuid, now: Timestamp) -> Result<Option<Webhook>, StoreError> {
        let change = |terms: &mut Terms| {
            terms.secrets += 1;
            terms.former_until = Some(now.plus(OVERLAP));
        };
        self.change(id, change).await
    }

    /// Goes on telling it.
    pub async fn enable(&self, id: Uuid) -> Result<Option<Webhook>, StoreError> {
        self.change(id, |terms| terms.disabled = None).await
    }

    /// Tells it nothing, until it is enabled; what there is to tell waits.
    pub async fn disable(&self, id: Uuid, disabled: Disabled) -> Result<Option<Webhook>, StoreError> {
        self.change(id, |terms| terms.disabled = Some(disabled)).await
    }

    pub async fn note(&self, attempt: &Attempt) -> Result<(), StoreError> {
        self.store.note_attempt(attempt).await
    }

    pub async fn attempts(&self, id: Uuid, before: Option<i64>, limit: u32) -> Result<Vec<(i64, Attempt)>, StoreError> {
        self.store.attempts(id, before, limit).await
    }

    pub async fn forget_attempts(&self, before: Timestamp) -> Result<(), StoreError> {
        self.store.forget_attempts(before).await
    }

    /// Its secret now, as text.
    #[must_use]
    pub fn secret(&self, webhook: &Webhook) -> String {
        self.numbered(webhook.id, webhook.terms.secrets)
    }

    #[must_use]
    pub fn signer(&self, webhook: &Webhook, now: Timestamp) -> Signer {
        let number = webhook.terms.secrets;
        let former = webhook.terms.former_until.filter(|until| *until > now).map(|_| number - 1);
        let secrets: Vec<String> =
            [Some(number), former].into_iter().flatten().map(|number| self.numbered(webhook.id, number)).collect();
        Signer::new(secrets.iter().map(String::as_str)).expect("they were written as secrets")
    }

    fn numbered(&self, id: Uuid, number: u32) -> String {
        let keyed: Hmac<Sha256> = Hmac::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        let tag = keyed.chain_update(b"webhook\0").chain_update(id.as_bytes()).chain_update(number.to_be_bytes());
        signature::secret(&tag.finalize().into_bytes().into())
    }

    async fn change(&self, id: Uuid, change: impl FnOnce(&mut Terms)) -> Result<Option<Webhook>, StoreError> {
        let Some(mut webhook) = self.get(id).await? else { return Ok(None) };
        change(&mut webhook.terms);
        let changed = self.store.change_webhook(id, &webhook.terms).await?;
        self.changed.notify_one();
        Ok(changed.then_some(webhook))
    }
}

/// The consumer group of a webhook.
#[must_use]
pub fn group(id: Uuid) -> String {
    format!("{GROUP_PREFIX}{id}")
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).finish_non_exhaustive()
    }
}
