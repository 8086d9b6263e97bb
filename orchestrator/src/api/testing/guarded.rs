//! Servers that need a key.

use std::sync::Arc;

use reqwest::{Method, RequestBuilder};

use super::{Reply, TestServer, WallClock, sqlite};
use crate::{
    access::{key::KeyText, scope::Role},
    audit::{self, Act},
    clock::Clock as _,
    config::Access,
    storage::{
        Store,
        access::{ApiKey, AuditOutcome},
        memory::MemoryStore,
    },
};

impl TestServer {
    /// Where a key is needed: there is one of each role, see [`key_of`].
    pub async fn guarded(access: Access) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(WallClock), 2));
        for role in Role::ALL {
            add_key(&*store, role).await;
        }
        let (log, folder) = sqlite().await;
        Self::over(store, log, folder, (1000, 1000), access).await
    }
}

impl<S: Store> TestServer<S> {
    /// A request that shows the key of a role.
    pub fn request_as(&self, role: Role, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(key_of(role).reveal())
    }

    pub async fn get_as(&self, role: Role, path: &str) -> Reply {
        self.send(self.request_as(role, Method::GET, path)).await
    }
}

/// The key of a role, which is called as the role is.
pub fn key_of(role: Role) -> KeyText {
    KeyText::new([role as u8; 6], [role as u8; 32])
}

pub async fn add_key(store: &dyn Store, role: Role) {
    let (text, now) = (key_of(role), WallClock.now());
    let key = ApiKey {
        id: text.id().to_owned(),
        hash: text.hash(),
        name: role.to_string(),
        role: role.to_string(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    };
    let act = Act {
        actor: None,
        credential: None,
        action: "key.create".to_owned(),
        target: format!("/keys/{}", key.id),
        reason: None,
        request_id: "r".to_owned(),
        correlation_id: None,
    };
    let entry = audit::entry(&act, now, AuditOutcome::Done, None, 1);
    assert!(store.add_api_key(&key, &entry).await.unwrap());
}
