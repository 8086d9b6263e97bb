//! The keys of clients, as this process knows them: read from the database every other second, so that a key that was
//! made is good, and one that was revoked is not, within seconds on every replica. While the database does not answer,
//! those last read are good.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use skald_core::time::Timestamp;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use super::{Caller, Unknown, key, scope::Role};
use crate::storage::{Store, StoreError, access::ApiKey};

const INTERVAL: Duration = Duration::from_secs(2);

/// See the module. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<RwLock<HashMap<String, Known>>>);

#[derive(Debug)]
struct Known {
    hash: [u8; 32],
    expires_at: Option<Timestamp>,
    revoked: bool,
    caller: Arc<Caller>,
}

impl Keys {
    /// Reads the keys, and goes on doing so until `closed`.
    ///
    /// # Errors
    ///
    /// When they cannot be read the first time.
    pub async fn follow(store: Arc<dyn Store>, mut closed: watch::Receiver<bool>) -> Result<Self, StoreError> {
        let keys = Self::default();
        keys.learn(store.api_keys().await?);
        let following = keys.clone();
        tokio::spawn(async move {
            let mut failing = false;
            while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                match store.api_keys().await {
                    Ok(found) => {
                        failing = false;
                        following.learn(found);
                    }
                    Err(error) if failing => tracing::debug!(%error, "keys still cannot be read"),
                    Err(error) => {
                        failing = true;
                        tracing::warn!(%error, "keys cannot be read; those known hold");
                    }
                }
            }
        });
        Ok(keys)
    }

    /// Whether there is, or was, any.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.0.read().expect("nothing panics while it holds this lock").is_empty()
    }

    /// Whose key this is.
    ///
    /// # Errors
    ///
    /// When it is nobody's, or is good no more.
    pub fn caller(&self, shown: &str, now: Timestamp) -> Result<Arc<Caller>, Unknown> {
        let hash = key::hash(shown);
        let known = self.0.read().expect("nothing panics while it holds this lock");
        let key = key::id(shown).and_then(|id| known.get(id)).ok_or(Unknown::WrongKey)?;
        if !bool::from(key.hash.ct_eq(&hash)) {
            return Err(Unknown::WrongKey);
        }
        if key.revoked {
            return Err(Unknown::RevokedKey);
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(Unknown::ExpiredKey);
        }
        Ok(Arc::clone(&key.caller))
    }

    fn learn(&self, found: Vec<ApiKey>) {
        let was_open = !self.any();
        let known: HashMap<String, Known> = found.into_iter().map(|key| (key.id.clone(), Known::from(key))).collect();
        if was_open && !known.is_empty() {
            tracing::info!(keys = known.len(), "keys are in use: requests need one");
        }
        *self.0.write().expect("nothing panics while it holds this lock") = known;
    }
}

impl From<ApiKey> for Known {
    fn from(key: ApiKey) -> Self {
        let scopes = key.role.parse().map(Role::scopes).unwrap_or_else(|error| {
            tracing::warn!(key = key.id, %error, "a key has a role that this Skald does not know: it may do nothing");
            super::Scopes::default()
        });
        Self {
            hash: key.hash,
            expires_at: key.expires_at,
            revoked: key.revoked_at.is_some(),
            caller: Arc::new(Caller { name: key.name, credential: format!("key:{}", key.id), scopes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::key::KeyText, *};
    use crate::access::scope::Scope;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn stored(text: &KeyText, role: &str) -> ApiKey {
        ApiKey {
            id: text.id().to_owned(),
            hash: text.hash(),
            name: "shop".to_owned(),
            role: role.to_owned(),
            created_at: NOW,
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn only_the_whole_key_is_good_and_only_while_it_is() {
        let [good, forged] = [[1; 32], [2; 32]].map(|secret| KeyText::new([7; 6], secret));
        let (later, revoked) = (KeyText::new([8; 6], [1; 32]), KeyText::new([9; 6], [1; 32]));
        let keys = Keys::default();
        assert!(!keys.any());
        keys.learn(vec![
            stored(&good, "client"),
            ApiKey { expires_at: Some(NOW), ..stored(&later, "admin") },
            ApiKey { revoked_at: Some(NOW), ..stored(&revoked, "admin") },
        ]);
        assert!(keys.any());
        let caller = keys.caller(good.reveal(), NOW).unwrap();
        assert_eq!((caller.name.as_str(), caller.credential.as_str()), ("shop", "key:070707070707"));
        assert!(caller.scopes.has(Scope::SagasStart) && !caller.scopes.has(Scope::SagasOperate));
        let before = Timestamp::from_micros(NOW.as_micros() - 1);
        assert!(keys.caller(later.reveal(), before).is_ok());
        for (shown, why) in [
            (forged.reveal(), Unknown::WrongKey),
            ("skald_", Unknown::WrongKey),
            ("skald_070707070707_", Unknown::WrongKey),
            (later.reveal(), Unknown::ExpiredKey),
            (revoked.reveal(), Unknown::RevokedKey),
        ] {
            assert_eq!(keys.caller(shown, NOW), Err(why), "{shown}");
        }
    }

    #[test]
    fn a_role_of_a_newer_skald_may_do_nothing() {
        let (text, keys) = (KeyText::new([7; 6], [1; 32]), Keys::default());
        keys.learn(vec![stored(&text, "superuser")]);
        let caller = keys.caller(text.reveal(), NOW).unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| !caller.scopes.has(scope)));
    }
}
