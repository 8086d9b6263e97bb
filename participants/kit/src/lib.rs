//! What a saga participant owes its orchestrator, as a library.
//!
//! An orchestrator calls a participant's *action* and, when the saga fails, the *compensation* that
//! undoes it. Both may arrive more than once, at the same time, late, or in the wrong order. The
//! [`Barrier`] turns that into something a handler can ignore:
//!
//! - the same key gives the same stored answer and takes effect once;
//! - a compensation that comes before its action succeeds, leaves a tombstone, and the action that
//!   comes later is refused without effect;
//! - a compensation undoes only what succeeded: after a rejected action it does nothing;
//! - key, effect, answer and ledger entry are committed in one local transaction, so a crash leaves
//!   either all of them or none.
//!
//! A participant of choreographed sagas is not called: its [`reactor`] follows the sagas' events and does what it owes, and
//! an [`outbox`] tells of it. A [`Consumer`] has a handler applied to each event once. Both take events from Skald's
//! consumer groups or from Redis ([`bus`]).
//!
//! The kit knows SQLite and PostgreSQL ([`Db`]), and no web framework: it takes a method, a path,
//! headers and bytes, and gives an [`Answer`].
//!
//! # Example
//!
//! ```
//! use skald_kit::{Barrier, BarrierOptions, CallContext, Db, DbOptions, Failure, Reply, params};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", folder.path().join("wallet.db").display());
//! let db = Db::connect(&url, &DbOptions::default()).await?;
//! db.create(&["CREATE TABLE IF NOT EXISTS wallets (id TEXT PRIMARY KEY, cents BIGINT NOT NULL)"]).await?;
//! let barrier = Barrier::open(db, BarrierOptions::default()).await?;
//!
//! // From the web framework at hand: method, path, headers, body.
//! let headers = [("Idempotency-Key", "\"0190163d-8694-739b-aea5-966c26f8ad91:top_up:action\"")];
//! let call = CallContext::parse("POST", "/top-up", headers, b"{}")?;
//! let answer = barrier
//!     .run(call, |tx| {
//!         Box::pin(async move {
//!             tx.execute("INSERT INTO wallets VALUES ($1, $2)", params!["w-1", 500_i64]).await?;
//!             Ok::<_, Failure>(Reply::ok(serde_json::json!({"cents": 500})).effect("topped_up", serde_json::json!({"cents": 500})))
//!         })
//!     })
//!     .await;
//! assert_eq!(answer.status, 200);
//! # Ok(()) }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod answer;
mod backoff;
mod barrier;
pub mod bus;
mod call;
mod consumer;
mod db;
pub mod events;
mod gate;
mod intake;
mod key;
mod lanes;
pub mod ledger;
mod observer;
pub mod outbox;
pub mod reactor;
mod recent;
mod record;
mod signature;
mod sql;
mod sqlite;
mod tx;

pub use answer::{Answer, Effect, Failure, Problem, ProblemKind, Rejection, Reply, problems};
pub use barrier::{Barrier, BarrierOptions, Cancelled, Tell};
pub use call::{ActionOutcome, CallContext, HeaderError};
pub use consumer::{Consumer, ConsumerOptions};
pub use db::{Db, DbError, DbOptions};
pub use intake::IntakeOptions;
pub use key::{Key, KeyError, Operation, SagaId};
pub use observer::{Observer, Unobserved};
pub use signature::{NotASecret, SignatureError, SigningSecrets, TOLERANCE};
pub use sql::{Param, Row};
pub use tx::{Tx, TxFuture};
