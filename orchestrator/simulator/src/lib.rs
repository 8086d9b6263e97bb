//! The engine under every fault, in virtual time.
//!
//! [`world`] runs the real [`Writer`](skald_core::shard::writer::Writer) and the real
//! [`Leases`](skald_core::shard::leases::Leases) of several replicas against a database, participants, a network, clients
//! and clocks that are simulated; choreographed sagas are carried on by participants with databases of their own
//! ([`reactors`]), over a bus that delays, repeats and shuffles. [`faults`] says what goes wrong, [`watch`] what must hold all the same. A run is
//! determined by its seed: [`campaign`] runs many, [`exhaustive`] runs every single fault at every point of small
//! sagas, and [`mutants`] takes away what the invariants depend on, to see that it is noticed.

pub mod agenda;
pub mod campaign;
pub mod catalog;
pub mod chance;
pub mod exhaustive;
pub mod faults;
pub mod judgement;
pub mod mutants;
pub mod participants;
pub mod reactors;
pub mod report;
pub mod store;
pub mod trace;
pub mod twin;
pub mod watch;
pub mod world;
