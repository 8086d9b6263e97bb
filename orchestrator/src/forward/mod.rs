//! Requests to the engine, through whichever replica they come.
//!
//! | what | where it can be done | what makes a repetition harmless |
//! | --- | --- | --- |
//! | start with a key | owner of the key's shard | the key |
//! | start without one | any owner: here, if this replica owns a shard | a key of our own, if it is forwarded |
//! | operator's command | owner of the saga's shard | its request id |
//! | callback, participants' reports | owner of the saga's shard | a repeated outcome is answered like the first |
//! | append | owner of the stream's shard | its events' ids |
//!
//! A [`Router`] tries this replica's engine first. If that does not own the shard, the request goes to the replica that
//! does, by the database; that one answers from its own engine and never forwards again: one hop. When the owner is
//! gone, or changes meanwhile, the request is tried again, here or there, until a successor has had time to take the
//! shard. Whoever is told that nothing was done can rely on it; when that cannot be known the answer is
//! [`Refusal::InDoubt`].

mod errand;
pub mod message;
pub mod owners;
pub mod seal;
mod wire;

use std::{sync::Arc, time::Duration};

use skald_core::{
    decide::{Callback, OperatorCommand, Reported},
    ids::{SagaId, Shard},
    shard::{
        appends::{AppendRequest, Appended, shard_of_stream},
        writer::{Refusal, StartRequest, shard_of_key},
    },
    time::Millis,
};
use tokio::{runtime::Handle, sync::watch, time::Instant};
use uuid::Uuid;

use self::{
    errand::{Errand, SagaInput, Start},
    message::{Answer, InputMessage},
    owners::{Owner, Owners, Peer},
    seal::Seals,
    wire::{Heard, Wire},
};
use crate::{
    clock::Clock,
    engine::{Engine, Started},
    metrics::{ForwardedResult, Metrics},
    storage::{self, KeyedSaga, Store},
};

/// How long to look for what a forwarded start has made.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LAST: Duration = Duration::from_millis(500);
/// How old a look at the shards may be, at first and once it has turned out wrong.
const LOOK_AGE_MAX: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a replica that is being waited for is looked after.
const OWNER_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// No client's key can begin with it: theirs are printable characters.
const OWN_KEY_PREFIX: char = '\u{1}';
/// Keys to try for one whose shard another replica owns at the moment.
const OWN_KEYS_MAX: usize = 64;

/// What a [`Router`] is made of.
#[derive(Debug)]
pub struct Parts {
    pub engine: Engine,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub owner: storage::Owner,
    /// [`Store::secret`].
    pub secret: [u8; 32],
    /// Shards of the database.
    pub shards: u16,
    /// How long an owner may be gone before another can take its shards.
    pub lease: Millis,
    /// How long to wait for an owner that answers.
    pub patience: Duration,
    /// Becomes true when this replica stops.
    pub closing: watch::Receiver<bool>,
}

/// See the module.
#[derive(Debug)]
pub struct Router {
    parts: Parts,
    owners: Owners,
    wire: Wire,
    runtime: Handle,
}

impl Router {
    /// To be called on the runtime that the store's connections belong to.
    ///
    /// # Errors
    ///
    /// When the machine's certificates cannot be read.
    pub fn new(parts: Parts) -> Result<Self, reqwest::Error> {
        let (store, clock) = (Arc::clone(&parts.store), Arc::clone(&parts.clock));
        let owners = Owners::follow(store, clock, parts.owner.id.clone(), parts.closing.clone());
        let wire = Wire::new(&parts.secret, &parts.owner)?;
        Ok(Self { parts, owners, wire, runtime: Handle::current() })
    }

    #[must_use]
    pub const fn owners(&self) -> &Owners {
        &self.owners
    }

    #[must_use]
    pub const fn seals(&self) -> &Seals {
        self.wire.seals()
    }

    /// How long an owner may be gone before another can take its shards.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.parts.lease.0)
    }

    /// [`Engine::start`], here or at the owner. May answer before the time to wait is over.
    ///
    /// # Errors
    ///
    /// When the start was not accepted. Nothing exists then, except perhaps after `InDoubt`.
    pub async fn start(&self, request: StartRequest, wait: Option<Duration>) -> Result<Started, Refusal> {
        let wait_until = wait.map(|wait| Instant::now() + wait);
        if let Some((key, _)) = &request.key {
            let shard = shard_of_key(&request.definition.name, key, self.parts.shards);
            return self.carry_out(shard, &Start { request, wait_until }).await;
        }
        match self.parts.engine.start(request.clone(), wait).await {
            Err(Refusal::NotOwner) => self.start_elsewhere(request, wait_until).await,
            answer => answer,
        }
    }

    /// [`Engine::operate`], here or at the owner. With a request id, it is repeated while it is in doubt.
    ///
    /// # Errors
    ///
    /// When the command does not fit the saga's state, or no replica can take it.
    pub async fn operate(&self, saga: SagaId, command: OperatorCommand) -> Answer {
        let input = InputMessage::Operator(command);
        self.carry_out(saga.shard(self.parts.shards), &SagaInput { saga, input }).await
    }

    /// [`Engine::callback`], here or at the owner. It is repeated while it is in doubt.
    ///
    /// # Errors
    ///
    /// When the operation is not under way and did not end that way, or no replica can take it.
    pub async fn callback(&self, saga: SagaId, callback: Callback) -> Answer {
        let input = InputMessage::Callback(callback);
        self.carry_out(saga.shard(self.parts.shards), &SagaInput { saga, input }).await
    }

    /// [`Engine::report`], here or at the owner. It is repeated while it is in doubt.
    ///
    /// # Errors
    ///
    /// When a report does not fit the saga's state, or no replica can take it; with `Known` when nothing in it is new.
    pub async fn report(&self, saga: SagaId, reported: Reported) -> Answer {
        let input = InputMessage::Reported(reported);
        self.carry_out(saga.shard(self.parts.shards), &SagaInput { saga, input }).await
    }

    /// [`Engine::append`], here or at the owner. It is repeated while it is in doubt.
    ///
    /// # Errors
    ///
    /// When the stream does not fit the request, or no replica can take it. Nothing was written then, except perhaps after
    /// `InDoubt`.
    pub async fn append(&self, request: AppendRequest) -> Result<Appended, Refusal> {
        self.carry_out(shard_of_stream(&request.stream, self.parts.shards), &request).await
    }

    /// A start without a key, where this replica owns nothing: under a key of our own, so that it can be repeated.
    async fn start_elsewhere(
        &self,
        mut request: StartRequest,
        wait_until: Option<Instant>,
    ) -> Result<Started, Refusal> {
        let definition = request.definition.name.clone();
        let (key, shard) = self.own_key(&definition).await;
        request.key = Some((key.clone(), [0; 32]));
        let answer = self.carry_out(shard, &Start { request, wait_until }).await;
        match answer {
            // An earlier try of this very start got through, or may have.
            Err(refusal @ (Refusal::KeyExists | Refusal::InDoubt)) => {
                tracing::debug!(%refusal, "looking for what a forwarded start has made");
                self.started_under(definition, key).await.map(Started::from).ok_or(Refusal::InDoubt)
            }
            answer => answer,
        }
    }

    /// A key that only this start has, of a shard that another replica owns, if there is one.
    async fn own_key(&self, definition: &str) -> (String, Shard) {
        let rows = self.owners.rows(LOOK_AGE_MAX).await;
        let is_anothers = |owner: &Owner| matches!(owner, Owner::Other(_));
        let owned = |shard| rows.iter().any(|row| row.shard == shard && is_anothers(&self.owners.owner(row)));
        let made = || {
            let key = format!("{OWN_KEY_PREFIX}{}", Uuid::new_v4());
            let shard = shard_of_key(definition, &key, self.parts.shards);
            (key, shard)
        };
        let fitting = (0..OWN_KEYS_MAX).map(|_| made()).find(|(_, shard)| owned(*shard));
        fitting.unwrap_or_else(made)
    }

    /// The saga that a key of our own made, once it is there.
    async fn started_under(&self, definition: String, key: String) -> Option<skald_core::state::SagaRow> {
        let give_up_at = Instant::now() + APPEARS_WITHIN;
        let mut pause = PAUSE_FIRST;
        loop {
            let (store, definition, key) = (Arc::clone(&self.parts.store), definition.clone(), key.clone());
            let look = async move {
                match store.keyed_saga(&definition, &key).await? {
                    Some(KeyedSaga { saga, .. }) => store.row(saga).await,
                    None => Ok(None),
                }
            };
            // To its end, even if the client leaves: the connection is not to be broken off.
            if let Ok(Ok(Some(row))) = self.runtime.spawn(look).await {
                return Some(row);
            }
            if Instant::now() + pause > give_up_at {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// Tries here and at the owner until one of them has answered, or waiting longer is pointless.
    async fn carry_out<E: Errand>(&self, shard: Shard, errand: &E) -> Result<E::Done, Refusal> {
        let mut in_doubt = false;
        let mut give_up_at = None;
        let (mut pause, mut look_age_max) = (PAUSE_FIRST, LOOK_AGE_MAX);
        loop {
            match errand.carry_out(&self.parts.engine).await {
                Err(Refusal::NotOwner) => {}
                Err(Refusal::InDoubt) if errand.bears_doubt() => in_doubt = true,
                answer => return definite(answer, in_doubt),
            }
            let owner = self.owners.of(shard, look_age_max).await;
            if let Owner::Other(peer) = &owner {
                match self.try_there(shard, peer, errand).await {
                    Heard::Answer(answer) => match *answer {
                        Err(Refusal::NotOwner) => {}
                        Err(Refusal::InDoubt) if errand.bears_doubt() => in_doubt = true,
                        answer => return definite(answer, in_doubt),
                    },
                    Heard::Unreached => {}
                    Heard::Unknown => in_doubt = true,
                }
            }
            // Whoever stops waits for another owner, but not to become it.
            let stopping = *self.parts.closing.borrow() && !matches!(owner, Owner::Other(_));
            let now = Instant::now();
            let give_up_at = *give_up_at.get_or_insert(now + self.parts.patience);
            if stopping || now + pause > give_up_at {
                return Err(if in_doubt { Refusal::InDoubt } else { Refusal::NotOwner });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
            look_age_max = LOOK_AGAIN_AFTER;
        }
    }

    /// Sends it to the owner, and waits for the answer for as long as that one is the owner.
    async fn try_there<E: Errand>(&self, shard: Shard, peer: &Peer, errand: &E) -> Heard<E::Done> {
        let Some(parcel) = errand.parcel(errand.wait() + self.parts.patience) else { return Heard::Unreached };
        let heard = tokio::select! {
            heard = self.wire.send(peer, parcel, &*self.parts.clock) => heard,
            () = self.succeeded(shard, peer) => Heard::Unknown,
        };
        self.parts.metrics.shards.forwarded(errand.kind(), result(&heard));
        heard
    }

    /// Returns when the replica is not the shard's owner any more.
    async fn succeeded(&self, shard: Shard, peer: &Peer) {
        loop {
            tokio::time::sleep(OWNER_CHECK_INTERVAL).await;
            match self.owners.of(shard, LOOK_AGE_MAX).await {
                Owner::Other(owner) if owner.id == peer.id => {}
                owner => {
                    return tracing::debug!(%shard, replica = peer.id, ?owner, "the owner changed while it was asked");
                }
            }
        }
    }
}

/// What is answered when an earlier try may have got through: a refusal that was not decided on the saga or stream as it is,
/// or on the key, says nothing about that try.
fn definite<T>(answer: Result<T, Refusal>, in_doubt: bool) -> Result<T, Refusal> {
    match answer {
        Err(Refusal::Overloaded | Refusal::Stuck(_) | Refusal::Unwritable(_)) if in_doubt => Err(Refusal::InDoubt),
        answer => answer,
    }
}

fn result<T>(heard: &Heard<T>) -> ForwardedResult {
    match heard {
        Heard::Answer(answer) => match &**answer {
            Ok(_) => ForwardedResult::Accepted,
            Err(Refusal::NotOwner) => ForwardedResult::NotOwner,
            Err(_) => ForwardedResult::Refused,
        },
        Heard::Unreached => ForwardedResult::Unreached,
        Heard::Unknown => ForwardedResult::Unknown,
    }
}
