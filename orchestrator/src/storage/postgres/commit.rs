//! The hot path: one batch is one statement on one session, prepared once, its own transaction, one round trip.
//!
//! What may come back, and what it means:
//!
//! | what happened | means |
//! | --- | --- |
//! | no session could be had (refused, no such database, starting up, too many clients, slow) | `NotApplied` |
//! | `SK001`: a shard is no longer held under the batch's epoch | `Fenced` |
//! | `SK002`: a saga or stream is not at the version that the batch continues | `Refused` |
//! | class 22, 23 or 54: bad data, a key or version that exists, too large for an index | `Refused` |
//! | any other error *response* before the statement was reported complete: serialization (40001, 40P01), disk full (53100), read-only (25006), lock or statement timeout (55P03, 57014), termination (57P01), .. | `NotApplied` |
//! | an error response after that: the implicit commit was refused | `NotApplied` |
//! | the same, but the session was ended (FATAL); a crash (PANIC) at any time | `InDoubt` |
//! | the connection broke or an answer was not understood, at whatever point | `InDoubt` |
//! | no answer within half a lease | `InDoubt` |
//!
//! The rows before the last three rest on this: a single statement is its own transaction, and the server answers an
//! error before "complete" only when it has rolled that transaction back.
//!
//! After anything but `Fenced` and `Refused` the session is dropped, and the next batch opens another.

use std::{fmt, time::Duration};

use futures_util::TryStreamExt as _;
use skald_core::{
    ids::Shard,
    shard::batch::{Batch, CommitError},
    time::Millis,
};
use sqlx::{
    Connection as _, Either, Executor as _, PgConnection,
    postgres::{PgArguments, PgConnectOptions, PgDatabaseError, PgSeverity},
};
use tokio::sync::{mpsc, oneshot};

use super::{super::wellformed, CONNECT_TIMEOUT, SessionTimeouts, columns};

/// Batches waiting for the session. The engine has one commit in flight; this is for whoever shares the store.
const QUEUE: usize = 16;

/// A statement that writes a batch, or raises and writes nothing.
///
/// `fence` moves the heads of the shards that are still ours; by nested loop, so that it locks their rows in the order of
/// the fences, which ascends. Every other write hangs on `base`, which has rows only if all fences held: a sibling that
/// did not would be written although the fence matched nothing. Events find the first position of their shard by the
/// place of its fence in the batch, which spares a join.
///
/// The arrays of a table are of one length, and are unnested side by side as columns of a `SELECT`: in `FROM` each of
/// them would be laid down in a store of its own and read from there. What is created and what goes on have arrays of
/// their own, so that the steps of a saga send and unnest only what an `UPDATE` changes. Whatever was created was
/// counted by its table's primary key.
macro_rules! statement {
    (
        event_columns: $event_columns:literal,
        event_arrays: $event_arrays:literal,
        streams: $streams:literal,
        expected: $expected:literal,
        written: $written:literal $(,)?
    ) => {
        concat!(
            "
WITH fence AS (
    UPDATE shards AS s
    SET head = s.head + f.events
    FROM (SELECT unnest($1::integer[]) AS shard, unnest($2::bigint[]) AS epoch, unnest($3::bigint[]) AS events) AS f
    WHERE s.shard = f.shard AND s.epoch = f.epoch
    RETURNING s.shard, s.head - f.events AS head_before
), taken AS MATERIALIZED (
    SELECT array_agg(shard ORDER BY shard) AS shards, array_agg(head_before ORDER BY shard) AS heads
    FROM fence
), base AS MATERIALIZED (
    SELECT heads FROM taken WHERE shards = $1
), created AS (
    INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id,
                       failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
    SELECT id, ($1)[fence], definition, definition_version, mode, status, state, version, correlation_id,
           failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us
    FROM base,
         (SELECT unnest($4::integer[]) AS fence, unnest($5::uuid[]) AS id, unnest($6::text[]) AS definition,
                 unnest($7::bigint[]) AS definition_version, unnest($8::text[]) AS mode, unnest($9::text[]) AS status,
                 unnest($10::text[]) AS state, unnest($11::bigint[]) AS version, unnest($12::text[]) AS correlation_id,
                 unnest($13::text[]) AS failure, unnest($14::bigint[]) AS created_at_us,
                 unnest($15::bigint[]) AS updated_at_us, unnest($16::bigint[]) AS ended_at_us,
                 unnest($17::bigint[]) AS deadline_at_us, unnest($18::bigint[]) AS wake_at_us) AS saga
), updated AS (
    UPDATE sagas AS s
    SET status = saga.status,
        state = saga.state,
        version = saga.version,
        failure = saga.failure,
        updated_at_us = saga.updated_at_us,
        ended_at_us = saga.ended_at_us,
        deadline_at_us = saga.deadline_at_us,
        wake_at_us = saga.wake_at_us
    FROM base,
         (SELECT unnest($19::integer[]) AS fence, unnest($20::uuid[]) AS id, unnest($21::bigint[]) AS version_before,
                 unnest($22::text[]) AS status, unnest($23::text[]) AS state, unnest($24::bigint[]) AS version,
                 unnest($25::text[]) AS failure, unnest($26::bigint[]) AS updated_at_us,
                 unnest($27::bigint[]) AS ended_at_us, unnest($28::bigint[]) AS deadline_at_us,
                 unnest($29::bigint[]) AS wake_at_us) AS saga
    WHERE s.id = saga.id
      AND s.shard = ($1)[saga.fence]
      AND s.version = saga.version_before
    RETURNING 1
), keyed AS (
    INSERT INTO start_keys (definition, key, shard, saga, fingerprint)
    SELECT definition, key, ($1)[fence], saga, fingerprint
    FROM base,
         (SELECT unnest($30::integer[]) AS fence, unnest($31::text[]) AS definition, unnest($32::text[]) AS key,
                 unnest($33::uuid[]) AS saga, unnest($34::bytea[]) AS fingerprint) AS start_key
), logged AS (
    INSERT INTO events (shard, position, stream, version, epoch, events, kind, type, occurred_at_us, actor, data,
                        schema_version, schema_versions",
            $event_columns,
            ")
    SELECT ($1)[event.fence], base.heads[event.fence] + event.nth, stream, version, ($2)[event.fence], events, kind, type,
           occurred_at_us, actor, data, schema_version, schema_versions",
            $event_columns,
            "
    FROM base,
         (SELECT unnest($35::integer[]) AS fence, unnest($36::bigint[]) AS nth, unnest($37::uuid[]) AS stream,
                 unnest($38::bigint[]) AS version, unnest($39::smallint[]) AS events, unnest($40::text[]) AS kind,
                 unnest($41::text[]) AS type, unnest($42::bigint[]) AS occurred_at_us, unnest($43::text[]) AS actor,
                 unnest($44::text[]) AS data, unnest($45::smallint[]) AS schema_version,
                 unnest($46::text[]) AS schema_versions",
            $event_arrays,
            ") AS event
)",
            $streams,
            "
SELECT skald_check_commit($1, (SELECT shards FROM taken), (cardinality($19)",
            $expected,
            ")::bigint, (SELECT count(*) FROM updated)",
            $written,
            ")"
        )
    };
}

/// For a batch of the engine's own transitions, which most are.
pub(super) const COMMIT: &str = statement! {
    event_columns: "",
    event_arrays: "",
    streams: "",
    expected: "",
    written: "",
};

/// For a batch with events that came from outside, or with sagas that hold personal data. Kept apart, so that the others
/// do not pay for it.
pub(super) const COMMIT_WITH_ALL: &str = statement! {
    event_columns: ", event_id, correlation_id, causation_id",
    event_arrays: ",
                 unnest($47::text[]) AS event_id, unnest($48::text[]) AS correlation_id,
                 unnest($49::text[]) AS causation_id",
    streams: ", begun AS (
    INSERT INTO streams (name, id, shard, category, version, created_at_us, updated_at_us)
    SELECT name, id, ($1)[fence], category, version, updated_at_us, updated_at_us
    FROM base,
         (SELECT unnest($50::integer[]) AS fence, unnest($51::uuid[]) AS id, unnest($52::text[]) AS name,
                 unnest($53::text[]) AS category, unnest($54::bigint[]) AS version,
                 unnest($55::bigint[]) AS updated_at_us) AS stream
), continued AS (
    UPDATE streams AS s
    SET version = stream.version, updated_at_us = stream.updated_at_us
    FROM base,
         (SELECT unnest($56::integer[]) AS fence, unnest($57::uuid[]) AS id, unnest($58::text[]) AS name,
                 unnest($59::bigint[]) AS version_before, unnest($60::bigint[]) AS version,
                 unnest($61::bigint[]) AS updated_at_us) AS stream
    WHERE s.name = stream.name
      AND s.id = stream.id
      AND s.shard = ($1)[stream.fence]
      AND s.version = stream.version_before
    RETURNING 1
), sealed AS (
    INSERT INTO saga_subjects (key_id, saga)
    SELECT skald_live_key(sealed.key_id), sealed.saga
    FROM base, (SELECT unnest($62::text[]) AS key_id, unnest($63::uuid[]) AS saga) AS sealed
)",
    expected: " + cardinality($56)",
    written: " + (SELECT count(*) FROM continued)",
};

/// The handle of the task that owns the writing session. A commit that was handed to it runs to its end whether or not
/// anyone still waits for the answer.
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

/// What writes one batch.
pub struct Statement {
    pub text: &'static str,
    pub arguments: PgArguments,
}

struct Job {
    statement: Statement,
    answer: oneshot::Sender<Result<(), CommitError>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the task; it ends when the handle is dropped. The session is opened by the first commit.
    pub fn spawn(base: &PgConnectOptions, lease: Millis, patience: Duration) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let session = Session { options: writer_session(base, lease), patience, connection: None };
        tokio::spawn(run(session, queue));
        Self { jobs }
    }

    pub async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        if batch.transitions.is_empty() && batch.appends.is_empty() {
            return Ok(());
        }
        wellformed::check(batch)?;
        let statement = columns::statement(batch).map_err(|error| CommitError::Refused(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let stopped = || CommitError::NotApplied("the store is shutting down".to_owned());
        self.jobs.send(Job { statement, answer }).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(CommitError::InDoubt("the writer died".to_owned())))
    }
}

/// The writer's plan is made once and must stay the right one: it always goes by the indexes, also if it was made
/// while the tables were empty.
pub(super) fn writer_session(base: &PgConnectOptions, lease: Millis) -> PgConnectOptions {
    let timeouts = SessionTimeouts::within(lease);
    base.clone().application_name("skald-writer").options([
        ("synchronous_commit", "on"),
        ("lock_timeout", &timeouts.lock),
        ("statement_timeout", &timeouts.statement),
        ("idle_in_transaction_session_timeout", &timeouts.statement),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_material", "off"),
        ("jit", "off"),
    ])
}

async fn run(mut session: Session, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        let result = session.commit(job.statement).await;
        // Nobody may be waiting any more; what was written stays written, and is found by whoever takes the shard.
        let _ = job.answer.send(result);
    }
}

struct Session {
    options: PgConnectOptions,
    /// How long to wait for an answer.
    patience: Duration,
    connection: Option<PgConnection>,
}

impl Session {
    async fn commit(&mut self, statement: Statement) -> Result<(), CommitError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let executed = tokio::time::timeout(self.patience, execute(&mut connection, statement)).await;
        let result = executed.unwrap_or_else(|_| {
            Err(CommitError::InDoubt(format!("no answer within {} ms", self.patience.as_millis())))
        });
        if matches!(result, Ok(()) | Err(CommitError::Fenced(_) | CommitError::Refused(_))) {
            self.connection = Some(connection);
        }
        result
    }

    async fn connect(&self) -> Result<PgConnection, CommitError> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            // Large payloads are compressed on the way in; lz4 costs a tenth of the default, where it is built in.
            connection
                .execute(
                    "SELECT set_config(name, 'lz4', false) FROM pg_settings
                     WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)",
                )
                .await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT.min(self.patience), connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                let error: sqlx::Error = error;
                Err(CommitError::NotApplied(format!("no session: {error}")))
            }
            Err(_) => Err(CommitError::NotApplied("no session in time".to_owned())),
        }
    }
}

async fn execute(connection: &mut PgConnection, statement: Statement) -> Result<(), CommitError> {
    let mut answers = connection.fetch_many(sqlx::query_with(statement.text, statement.arguments));
    let mut complete = false;
    loop {
        match answers.try_next().await {
            Ok(Some(Either::Left(_))) => complete = true,
            Ok(Some(Either::Right(_))) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(meaning(&error, complete)),
        }
    }
}

/// The table at the top of this module.
fn meaning(error: &sqlx::Error, complete: bool) -> CommitError {
    let sqlx::Error::Database(response) = error else { return CommitError::InDoubt(error.to_string()) };
    let Some(response) = response.try_downcast_ref::<PgDatabaseError>() else {
        return CommitError::InDoubt(error.to_string());
    };
    let text = format!("{} ({})", response.message(), response.code());
    match (response.severity(), complete) {
        (PgSeverity::Panic, _) | (PgSeverity::Fatal, true) => return CommitError::InDoubt(text),
        (_, true) => return CommitError::NotApplied(text),
        (_, false) => {}
    }
    match response.code() {
        "SK001" => CommitError::Fenced(lost_shards(response.detail())),
        "SK002" => CommitError::Refused(text),
        code if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => CommitError::Refused(text),
        _ => CommitError::NotApplied(text),
    }
}

/// `skald_check_commit` lists them.
fn lost_shards(detail: Option<&str>) -> Vec<Shard> {
    detail.unwrap_or_default().split(',').filter_map(|number| number.parse().ok().map(Shard)).collect()
}
