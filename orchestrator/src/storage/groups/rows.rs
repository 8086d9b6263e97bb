//! The rows behind consumer groups, and what a database must be able to do with them.

use std::collections::HashSet;

use async_trait::async_trait;
use skald_core::{
    ids::{SagaId, Shard},
    time::{Millis, Timestamp},
};
use sqlx::{FromRow, types::Uuid};

use super::{
    super::{StoreError, records},
    Group, GroupFilter, GroupRetry, NewGroup, PutGroup, ShardLag,
    positions::Positions,
};

/// How many held events of one stream are looked at together, at most.
pub const HELD_OF_STREAM_MAX: i64 = 300;

/// A group as it stands, all of one moment.
#[derive(Clone, Debug)]
pub struct View {
    pub group: Group,
    /// By the database's clock.
    pub now: Timestamp,
    /// Who polled, and until when that counts.
    pub members: Vec<(String, Timestamp)>,
    /// By shard.
    pub cursors: Vec<Cursor>,
    /// Whether a held event's time to be tried again has come.
    pub due: bool,
    /// When the next one's will.
    pub next_due: Option<Timestamp>,
}

/// How far a group has come in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub shard: Shard,
    /// The shard's; not the group's to change.
    pub head: i64,
    /// Every event up to here was not wanted, is settled, in hand, owed, or held.
    pub looked_to: i64,
    /// Handed out under the lease and not settled.
    pub in_hand: Positions,
    /// Handed out under a lease that ended.
    pub owed: Positions,
    pub consumer: Option<String>,
    pub token: i64,
    pub lease: Millis,
    pub lease_until: Timestamp,
    /// Leases that ended since something was last settled.
    pub losses: u32,
    pub moved_at: Timestamp,
    /// As it was read; a change raises it.
    pub revision: i64,
    /// Whether any event of the shard is held.
    pub holds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldStatus {
    /// To be handed out when its time comes.
    Retry,
    /// Behind another one of its stream.
    Waiting,
    /// Waits for a person.
    Parked,
}

impl HeldStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
        }
    }
}

/// An event that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub shard: Shard,
    pub position: i64,
    pub stream: SagaId,
    pub status: HeldStatus,
    /// How often it failed.
    pub tries: u32,
    pub next_at: Timestamp,
    pub error: Option<String>,
    pub held_at: Timestamp,
}

/// What becomes of a cursor and of the held events in its shard; written if the cursor's revision is still there.
#[derive(Clone, Debug)]
pub struct Change {
    pub cursor: Cursor,
    /// To be held, or held otherwise than before.
    pub hold: Vec<Held>,
    /// Positions to be held no longer.
    pub release: Vec<i64>,
}

/// A consumer that is to count as one of the group's until then.
#[derive(Clone, Debug)]
pub struct Seen {
    pub consumer: String,
    pub until: Timestamp,
    /// Those that were last seen before are forgotten.
    pub forget_before: Timestamp,
}

/// Each is one statement, or one transaction.
#[async_trait]
pub trait GroupRows: Send + Sync {
    async fn put_group_row(&self, group: &NewGroup) -> Result<PutGroup, StoreError>;

    async fn group_rows(&self) -> Result<Vec<Group>, StoreError>;

    async fn drop_group_rows(&self, name: &str) -> Result<bool, StoreError>;

    async fn view(&self, group: &str) -> Result<Option<View>, StoreError>;

    /// Which of these streams have held events.
    async fn held_streams(&self, group: &str, streams: &[(Shard, SagaId)]) -> Result<HashSet<SagaId>, StoreError>;

    /// Held events of these shards whose time has come, those first that waited longest; by shard and position.
    async fn due(&self, group: &str, shards: &[Shard], now: Timestamp, limit: u32) -> Result<Vec<Held>, StoreError>;

    /// The held events of these streams by position, of each at most [`HELD_OF_STREAM_MAX`].
    async fn held(&self, group: &str, shard: Shard, streams: &[SagaId]) -> Result<Vec<Held>, StoreError>;

    /// Parked events after a place, by shard and position.
    async fn parked_rows(&self, group: &str, after: (Shard, i64), limit: u32) -> Result<Vec<Held>, StoreError>;

    /// Writes each change whose revision still holds; answers the shards of those.
    async fn change(&self, group: &str, seen: Option<Seen>, changes: Vec<Change>) -> Result<Vec<Shard>, StoreError>;

    /// By group and shard; of all groups when none is named.
    async fn lag_rows(&self, group: Option<&str>) -> Result<Vec<(String, ShardLag)>, StoreError>;
}

#[derive(Debug, FromRow)]
pub struct GroupRecord {
    name: String,
    filter: String,
    retry_initial_ms: i64,
    retry_max_ms: i64,
    retry_attempts: i32,
    created_at_us: i64,
}

impl TryFrom<GroupRecord> for Group {
    type Error = StoreError;

    fn try_from(record: GroupRecord) -> Result<Self, StoreError> {
        let unreadable = |what: &str| StoreError::Unreadable(format!("consumer group {}: {what}", record.name));
        let filter: GroupFilter =
            serde_json::from_str(&record.filter).map_err(|error| unreadable(&format!("its filter: {error}")))?;
        let retry = GroupRetry {
            initial: millis(record.retry_initial_ms),
            max: millis(record.retry_max_ms),
            attempts: u32::try_from(record.retry_attempts).map_err(|_| unreadable("its attempts"))?,
        };
        Ok(Self { filter, retry, created_at: Timestamp::from_micros(record.created_at_us), name: record.name })
    }
}

/// A cursor with all of its group.
#[derive(Debug, FromRow)]
pub struct ViewRecord {
    #[sqlx(flatten)]
    group: GroupRecord,
    now_us: i64,
    /// As JSON: a list of names with times.
    members: String,
    due: bool,
    next_due_us: Option<i64>,
    #[sqlx(flatten)]
    cursor: CursorRecord,
}

impl View {
    /// Of the rows of all cursors, by shard; None without any.
    pub fn read(rows: Vec<ViewRecord>) -> Result<Option<Self>, StoreError> {
        let mut view: Option<Self> = None;
        for ViewRecord { group, now_us, members, due, next_due_us, cursor } in rows {
            let cursor = Cursor::try_from(cursor)?;
            if let Some(view) = &mut view {
                view.cursors.push(cursor);
                continue;
            }
            let members: Vec<(String, i64)> = serde_json::from_str(&members)
                .map_err(|error| StoreError::Unreadable(format!("members of group {}: {error}", group.name)))?;
            view = Some(Self {
                group: group.try_into()?,
                now: Timestamp::from_micros(now_us),
                members: members.into_iter().map(|(name, until)| (name, Timestamp::from_micros(until))).collect(),
                cursors: vec![cursor],
                due,
                next_due: next_due_us.map(Timestamp::from_micros),
            });
        }
        Ok(view)
    }
}

/// What a group's filter is stored as.
pub fn filter_text(filter: &GroupFilter) -> String {
    serde_json::to_string(filter).expect("a filter is lists of words")
}

#[derive(Debug, FromRow)]
pub struct CursorRecord {
    shard: i32,
    head: i64,
    looked_to: i64,
    in_hand: String,
    owed: String,
    consumer: Option<String>,
    token: i64,
    lease_ms: i64,
    lease_until_us: i64,
    losses: i32,
    moved_at_us: i64,
    revision: i64,
    holds: bool,
}

impl TryFrom<CursorRecord> for Cursor {
    type Error = StoreError;

    fn try_from(record: CursorRecord) -> Result<Self, StoreError> {
        Ok(Self {
            shard: records::shard(record.shard)?,
            head: record.head,
            looked_to: record.looked_to,
            in_hand: Positions::parse(&record.in_hand)?,
            owed: Positions::parse(&record.owed)?,
            consumer: record.consumer,
            token: record.token,
            lease: millis(record.lease_ms),
            lease_until: Timestamp::from_micros(record.lease_until_us),
            losses: u32::try_from(record.losses).unwrap_or(0),
            moved_at: Timestamp::from_micros(record.moved_at_us),
            revision: record.revision,
            holds: record.holds,
        })
    }
}

#[derive(Debug, FromRow)]
pub struct HeldRecord {
    shard: i32,
    position: i64,
    stream: Uuid,
    status: String,
    tries: i32,
    next_at_us: i64,
    error: Option<String>,
    held_at_us: i64,
}

impl TryFrom<HeldRecord> for Held {
    type Error = StoreError;

    fn try_from(record: HeldRecord) -> Result<Self, StoreError> {
        let status = [HeldStatus::Retry, HeldStatus::Waiting, HeldStatus::Parked]
            .into_iter()
            .find(|status| status.as_str() == record.status)
            .ok_or_else(|| StoreError::Unreadable(format!("a held event's status `{}`", record.status)))?;
        Ok(Self {
            shard: records::shard(record.shard)?,
            position: record.position,
            stream: SagaId::from_uuid(record.stream),
            status,
            tries: u32::try_from(record.tries).unwrap_or(0),
            next_at: Timestamp::from_micros(record.next_at_us),
            error: record.error,
            held_at: Timestamp::from_micros(record.held_at_us),
        })
    }
}

#[derive(Debug, FromRow)]
pub struct LagRecord {
    group_name: String,
    shard: i32,
    head: i64,
    looked_to: i64,
    in_hand: String,
    owed: String,
    retrying: i64,
    waiting: i64,
    parked: i64,
}

impl TryFrom<LagRecord> for (String, ShardLag) {
    type Error = StoreError;

    fn try_from(record: LagRecord) -> Result<Self, StoreError> {
        let mut open = Positions::parse(&record.in_hand)?;
        open.append(&mut Positions::parse(&record.owed)?);
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let lag = ShardLag {
            shard: records::shard(record.shard)?,
            head: record.head,
            position: open.first().map_or(record.looked_to, |first| first - 1),
            ahead: count(record.head - record.looked_to),
            in_hand: open.len() as u64,
            retrying: count(record.retrying),
            waiting: count(record.waiting),
            parked: count(record.parked),
        };
        Ok((record.group_name, lag))
    }
}

fn millis(number: i64) -> Millis {
    Millis(u64::try_from(number).unwrap_or(0))
}

pub fn number(millis: Millis) -> i64 {
    i64::try_from(millis.0).unwrap_or(i64::MAX)
}
