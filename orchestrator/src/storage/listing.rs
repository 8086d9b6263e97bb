//! The query behind a list of sagas, the same on both databases.
//!
//! Every list is newest first and stops at its limit, so it must walk an index in the order of ids. An index by status
//! gives that order within one status only: several statuses are therefore asked one by one and merged.

use skald_core::{state::Status, time::Timestamp};
use sqlx::{Database, Encode, QueryBuilder, Type, types::Uuid};

use super::{SagaFilter, records::id_floor};

pub const SAGA_COLUMNS: &str = "id, definition, definition_version, mode, status, state, version, correlation_id, \
     failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us";

/// How far a saga's id may lie from its creation. Both are made with one clock reading, of which the id keeps the
/// milliseconds; whatever the bound by id lets through is looked at in vain, so this is no larger than it must be.
const ID_TIME_SLACK_US: i64 = 1_000_000;

/// Appends the query that `filter` means; says false, and appends nothing, when nothing can match.
pub fn push_list<DB>(query: &mut QueryBuilder<DB>, filter: &SagaFilter) -> bool
where
    DB: Database,
    i64: Encode<'static, DB> + Type<DB>,
    Uuid: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
{
    let branches = status_branches(filter);
    for (number, status) in branches.iter().enumerate() {
        query.push(if number > 0 { " UNION ALL " } else { "" });
        query.push("SELECT * FROM (SELECT ").push(SAGA_COLUMNS).push(" FROM sagas WHERE true");
        if let Some(status) = status {
            query.push(" AND status = '").push(status.as_str()).push("'");
            // Said once more, for SQLite to see that its partial index by status applies.
            query.push(if *status == Status::Completed { "" } else { " AND status <> 'completed'" });
        }
        push_conditions(query, filter);
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit)).push(") AS part");
    }
    if !branches.is_empty() {
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
    }
    !branches.is_empty()
}

/// One branch per status asked for, or one for all.
fn status_branches(filter: &SagaFilter) -> Vec<Option<Status>> {
    let asked = |status: &Status| filter.statuses.is_empty() || filter.statuses.contains(status);
    if filter.state.is_some() {
        return Status::ALL.into_iter().filter(|status| !status.is_ended() && asked(status)).map(Some).collect();
    }
    if filter.statuses.is_empty() {
        return vec![None];
    }
    Status::ALL.into_iter().filter(asked).map(Some).collect()
}

fn push_conditions<DB>(query: &mut QueryBuilder<DB>, filter: &SagaFilter)
where
    DB: Database,
    i64: Encode<'static, DB> + Type<DB>,
    Uuid: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
{
    if let Some(definition) = &filter.definition {
        query.push(" AND definition = ").push_bind(definition.clone());
    }
    if let Some(mode) = filter.mode {
        query.push(" AND mode = '").push(mode.as_str()).push("'");
    }
    if let Some(state) = &filter.state {
        query.push(" AND ended_at_us IS NULL AND state = ").push_bind(state.clone());
    }
    if let Some(correlation_id) = &filter.correlation_id {
        query.push(" AND correlation_id = ").push_bind(correlation_id.clone());
    }
    if let Some(after) = filter.created_after {
        query.push(" AND created_at_us > ").push_bind(after.as_micros());
        query.push(" AND id >= ").push_bind(id_floor(shifted(after, -ID_TIME_SLACK_US)));
    }
    if let Some(before) = filter.created_before {
        query.push(" AND created_at_us < ").push_bind(before.as_micros());
        query.push(" AND id < ").push_bind(id_floor(shifted(before, ID_TIME_SLACK_US)));
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before.as_uuid());
    }
}

fn shifted(at: Timestamp, by_us: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_add(by_us))
}
