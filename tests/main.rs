//! End to end: the real programs over real HTTP on SQLite and on PostgreSQL, judged by what the participants' ledgers
//! and the database say.
//!
//! Every test has servers, ports, folders and databases of its own; only the PostgreSQL cluster is shared. Nothing
//! sleeps: tests wait for conditions ([`harness::eventually`]). The invariants that [`harness::checker`] checks are those
//! of the design, by number.

mod accepted;
mod access;
mod backup;
mod bad_input;
mod chaos;
mod checkout;
mod choreography;
mod command_line;
mod compare;
mod crashes;
mod definitions;
mod documented;
mod faults;
mod figures;
mod forwarding;
mod harness;
mod hostile;
mod hung;
mod monitoring;
mod observability;
mod operators;
mod pausing;
mod personal;
mod poison;
mod replicas;
mod retention;
#[path = "../participants/tests/workers/smtp_server.rs"]
mod smtp_server;
mod starts;
mod stream;
mod traces;
mod tutorial;
mod verify;
mod waiting;
mod webhooks;
mod workers;
