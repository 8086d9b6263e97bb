//! What the lease machine asks of the store and of the shell, and what it is told.

use alloc::{string::String, vec::Vec};

use crate::{
    ids::{Epoch, Shard},
    shard::batch::Fence,
    time::Millis,
};

/// How leases are kept by one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Shards of the database.
    pub shards: u16,
    pub lease: Millis,
    /// How often the store is looked at for who lives and what is free.
    pub look_every: Millis,
    /// How long the calls of a shard may go on when it is given up for the sake of the fair share.
    pub grace: Millis,
}

impl LeaseLimits {
    /// With a look often enough that a free shard is taken within a second.
    #[must_use]
    pub fn new(shards: u16, lease: Millis, grace: Millis) -> Self {
        Self { shards, lease, look_every: Millis((lease.0 / 6).clamp(1, 400)), grace }
    }
}

/// One round trip to the store, done in the order of the fields; the view is read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    pub presence: Presence,
    /// Shards whose lease is to be extended where the epoch still holds. Ascending.
    pub renew: Vec<Fence>,
    /// Shards to give up where the epoch still holds. Ascending.
    pub release: Vec<Fence>,
    /// Shards to take if they are free, in our own name, or past their lease. Ascending.
    pub take: Vec<Shard>,
}

/// What the store is told about this replica itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The last heartbeat is good for a while.
    Unchanged,
    /// It lives, for the length of a lease.
    Heartbeat,
    /// It does not count any more when shards are shared; what it holds stays its own.
    Leaving,
    /// As leaving, and every shard in its name is free.
    Gone,
}

/// What the store answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseReport {
    /// Which of the shards to be renewed were.
    pub renewed: Vec<Shard>,
    pub taken: Vec<TakenShard>,
    pub view: LeaseView,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenShard {
    pub shard: Shard,
    pub epoch: Epoch,
    /// Whether it was taken from another replica that had not given it up.
    pub died: bool,
}

/// How things stood, by the store's clock, at the end of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// Replicas whose heartbeat is good; those that started first come first.
    pub replicas: Vec<String>,
    /// Shards that nobody owns or whose lease is over, other than `mine`.
    pub free: Vec<Shard>,
    /// Shards in this replica's name, whether their lease is over or not.
    pub mine: Vec<Fence>,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEffect {
    /// Send this to the store; answer with [`Leases::answered`](super::Leases::answered). Never asked for while another one is under way.
    Ask(LeaseRequest),
    /// The shard is this replica's; until when says [`Leases::until`](super::Leases::until).
    Taken(TakenShard),
    /// Begin nothing new in these shards; when what was begun has ended and is committed, say [`Leases::drained`](super::Leases::drained).
    Drain(Vec<Shard>),
    /// Forget these shards and end their calls at once: the next request gives them up.
    Released(Vec<Shard>),
    /// Forget these shards and end their calls at once: they are another's, or will be.
    Lost(Vec<Shard>),
    /// Nothing is held and nothing will be asked any more.
    Stopped,
}
