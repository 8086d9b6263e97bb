//! The definitions this replica knows: read from the store at start, added to by registration.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock},
};

use skald_core::definition::{Definition, Problems};

use crate::{
    clock::Clock,
    storage::{Registration, Store, StoreError, StoredDefinition},
};

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("the definition is not valid")]
    Invalid(#[from] Problems),
    #[error("{name} version {version} is registered with other content; give the changed definition a new version")]
    Conflict { name: String, version: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A registered version, and whether this registration made it.
#[derive(Clone, Debug)]
pub struct Registered {
    pub definition: Arc<Definition>,
    pub created: bool,
}

/// All versions of all definitions, by name and version.
#[derive(Debug)]
pub struct Definitions {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Names of the participants that definitions may call.
    services: Vec<String>,
    known: RwLock<BTreeMap<String, BTreeMap<u32, Arc<Definition>>>>,
    /// Not yet seen by the engine's shell.
    new: Mutex<Vec<Arc<Definition>>>,
}

impl Definitions {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, services: Vec<String>) -> Self {
        Self { store, clock, services, known: RwLock::default(), new: Mutex::default() }
    }

    /// Reads what is registered in the store. A stored definition was valid when it was registered, so its services
    /// are not checked again: a saga of one that names a missing service waits rather than disappears.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn load(&self) -> Result<(), StoreError> {
        for stored in self.store.definitions().await? {
            // A registered version never changes.
            if self.get(&stored.name, Some(stored.version)).is_some() {
                continue;
            }
            match Definition::parse(&stored.document, None) {
                Ok(definition) => self.add(Arc::new(definition)),
                Err(problems) => {
                    return Err(StoreError::Unreadable(format!(
                        "definition {} version {}: {problems}",
                        stored.name, stored.version
                    )));
                }
            }
        }
        Ok(())
    }

    /// Checks a definition, stores it and makes it known. The same content again changes nothing.
    ///
    /// # Errors
    ///
    /// When it is not valid, or its name and version are taken by other content.
    pub async fn register(&self, text: &str) -> Result<Registered, RegisterError> {
        let definition = Arc::new(self.check(text)?);
        let stored = StoredDefinition {
            name: definition.name.clone(),
            version: definition.version,
            hash: definition.hash.clone(),
            document: definition.document.to_string(),
            registered_at: self.clock.now(),
        };
        let store = Arc::clone(&self.store);
        let registration = tokio::spawn(async move { store.register(&stored).await });
        match registration.await.expect("registering does not panic")? {
            Registration::Created => {
                self.add(Arc::clone(&definition));
                Ok(Registered { definition, created: true })
            }
            Registration::Unchanged => {
                if self.get(&definition.name, Some(definition.version)).is_none() {
                    self.add(Arc::clone(&definition));
                }
                Ok(Registered { definition, created: false })
            }
            Registration::Conflict => {
                Err(RegisterError::Conflict { name: definition.name.clone(), version: definition.version })
            }
        }
    }

    /// Checks a definition without registering it.
    ///
    /// # Errors
    ///
    /// Every problem of it.
    pub fn check(&self, text: &str) -> Result<Definition, Problems> {
        Definition::parse(text, Some(&self.services))
    }

    /// A version of a definition; the highest one if none is named.
    #[must_use]
    pub fn get(&self, name: &str, version: Option<u32>) -> Option<Arc<Definition>> {
        let known = self.known.read().expect("nothing panics while it holds this lock");
        let (from, to) = version.map_or((0, u32::MAX), |version| (version, version));
        known.get(name)?.range(from..=to).next_back().map(|(_, found)| Arc::clone(found))
    }

    /// Every version of every definition, by name and version.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Definition>> {
        let known = self.known.read().expect("nothing panics while it holds this lock");
        known.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Whether some definition says that its sagas hold personal data.
    #[must_use]
    pub fn any_personal(&self) -> bool {
        let known = self.known.read().expect("nothing panics while it holds this lock");
        known.values().flat_map(BTreeMap::values).any(|definition| definition.personal.is_some())
    }

    fn add(&self, definition: Arc<Definition>) {
        self.new.lock().expect("nothing panics while it holds this lock").push(Arc::clone(&definition));
        let mut known = self.known.write().expect("nothing panics while it holds this lock");
        known.entry(definition.name.clone()).or_default().insert(definition.version, definition);
    }

    /// Hands every definition that became known since the last time to `take`.
    pub(super) fn drain_new(&self, take: impl FnMut(Arc<Definition>)) {
        let new = std::mem::take(&mut *self.new.lock().expect("nothing panics while it holds this lock"));
        new.into_iter().for_each(take);
    }
}
