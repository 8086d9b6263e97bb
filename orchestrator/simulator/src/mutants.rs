//! What the invariants depend on, each as a switch that takes it away. A simulator that does not notice is worth nothing.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The database writes whatever epoch a commit comes from.
    Fence,
    /// The database takes a version of a stream twice.
    VersionCheck,
    /// A participant forgets the compensation that came before its action.
    Tombstone,
    /// Each attempt has a key of its own.
    IdempotencyKey,
    /// The engine takes for not executed what a process that died may have called.
    MaybeExecuted,
    /// The engine takes for not executed what was announced ahead to a process that died.
    Ahead,
    /// The engine undoes steps without waiting for what depends on them.
    ReverseOrder,
    /// A participant reports a step as cancelled without keeping its action from running later.
    CancelTombstone,
    /// A participant's effect is durable before its report is.
    Outbox,
    /// A participant keeps an effect that the stream has closed without.
    RefusedUndo,
    /// The stream goes on enabling steps after its first failure.
    FirstFailure,
}

impl Mutant {
    pub const ALL: [Self; 11] = [
        Self::Fence,
        Self::VersionCheck,
        Self::Tombstone,
        Self::IdempotencyKey,
        Self::MaybeExecuted,
        Self::Ahead,
        Self::ReverseOrder,
        Self::CancelTombstone,
        Self::Outbox,
        Self::RefusedUndo,
        Self::FirstFailure,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::VersionCheck => "version-check",
            Self::Tombstone => "tombstone",
            Self::IdempotencyKey => "idempotency-key",
            Self::MaybeExecuted => "maybe-executed",
            Self::Ahead => "ahead",
            Self::ReverseOrder => "reverse-order",
            Self::CancelTombstone => "cancel-tombstone",
            Self::Outbox => "outbox",
            Self::RefusedUndo => "refused-undo",
            Self::FirstFailure => "first-failure",
        }
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|mutant| mutant.name() == text).ok_or_else(|| format!("not one of: {}", known()))
    }
}

/// Turns the engine's own switches, the only ones outside this crate, for all runs of this process.
///
/// # Errors
///
/// When the engine was built without its switches.
pub fn set_engine(mutant: Option<Mutant>) -> Result<(), &'static str> {
    let switches = [Mutant::ReverseOrder, Mutant::MaybeExecuted, Mutant::Ahead, Mutant::FirstFailure];
    let switched = mutant.is_some_and(|mutant| switches.contains(&mutant));
    #[cfg(feature = "mutants")]
    {
        skald_core::mutants::UNDO_IN_ANY_ORDER.turn(mutant == Some(Mutant::ReverseOrder));
        skald_core::mutants::FORGET_WHAT_THE_DEAD_CALLED.turn(mutant == Some(Mutant::MaybeExecuted));
        skald_core::mutants::FORGET_WHAT_WENT_AHEAD.turn(mutant == Some(Mutant::Ahead));
        skald_core::mutants::ENABLE_AFTER_FAILURE.turn(mutant == Some(Mutant::FirstFailure));
    }
    if switched && !cfg!(feature = "mutants") {
        return Err("the engine was built without its switches: build with `--features mutants`");
    }
    Ok(())
}
