//! A filter as conditions on `events AS e`, the same on both databases. They are of rows: where a row passes for the kinds
//! and types in it, some of its events may not.
//!
//! What lies in another table is asked for by a subquery that yields one value: such a one is looked up row by row, by
//! the primary key, and never made into a scan of the other table.

use sqlx::{Database, Encode, QueryBuilder, Type, types::Uuid};

use skald_core::shard::batch::APPENDED;

use super::{super::runs::SEPARATOR, LogFilter, SAGAS};

/// Appends the conditions, each with a leading `AND`.
pub fn push<DB>(query: &mut QueryBuilder<DB>, filter: &LogFilter)
where
    DB: Database,
    i64: Encode<'static, DB> + Type<DB>,
    Uuid: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
{
    if let Some(stream) = filter.stream {
        query.push(" AND e.stream = ").push_bind(stream.as_uuid());
    }
    if let Some(since) = filter.since {
        query.push(" AND e.occurred_at_us >= ").push_bind(since.as_micros());
    }
    if let Some(until) = filter.until {
        query.push(" AND e.occurred_at_us < ").push_bind(until.as_micros());
    }
    if let Some(actor) = &filter.actor {
        query.push(" AND e.actor = ").push_bind(actor.clone());
    }
    if !filter.kinds.is_empty() {
        push_within(query, "e.kind", &filter.kinds);
    }
    if !filter.types.is_empty() {
        push_within(query, &format!("coalesce(e.type, '') || '{SEPARATOR}' || e.kind"), &filter.types);
    }
    if !filter.categories.is_empty() {
        push_categories(query, &filter.categories);
    }
    if !filter.definitions.is_empty() {
        query.push(" AND (SELECT s.definition FROM sagas AS s WHERE s.id = e.stream)");
        push_among(query, &filter.definitions);
    }
    if let Some(mode) = filter.mode {
        query.push(" AND (SELECT s.mode FROM sagas AS s WHERE s.id = e.stream) = '").push(mode.as_str()).push("'");
    }
    if let Some(correlation_id) = &filter.correlation_id {
        query
            .push(" AND coalesce(e.correlation_id, (SELECT s.correlation_id FROM sagas AS s WHERE s.id = e.stream)) = ")
            .push_bind(correlation_id.clone());
    }
}

fn push_categories<DB>(query: &mut QueryBuilder<DB>, categories: &[String])
where
    DB: Database,
    String: Encode<'static, DB> + Type<DB>,
{
    let others: Vec<String> = categories.iter().filter(|category| *category != SAGAS).cloned().collect();
    let with_sagas = others.len() < categories.len();
    match (with_sagas, others.is_empty()) {
        (true, true) => query.push(" AND e.kind <> '").push(APPENDED).push("'"),
        (with_sagas, _) => {
            query.push(" AND CASE WHEN e.kind <> '").push(APPENDED).push("' THEN ");
            query.push(if with_sagas { "true" } else { "false" });
            query.push(" ELSE (SELECT n.category FROM streams AS n WHERE n.id = e.stream)");
            push_among(query, &others);
            query.push(" END")
        }
    };
}

/// Appends that one of the words is among those of a column.
fn push_within<DB>(query: &mut QueryBuilder<DB>, column: &str, words: &[String])
where
    DB: Database,
    String: Encode<'static, DB> + Type<DB>,
{
    query.push(" AND (");
    let mut separated = query.separated(" OR ");
    for word in words {
        separated.push(format!("'{SEPARATOR}' || {column} || '{SEPARATOR}' LIKE "));
        separated.push_bind_unseparated(pattern(word)).push_unseparated(" ESCAPE '\\'");
    }
    query.push(")");
}

/// What finds a word between separators.
fn pattern(word: &str) -> String {
    let mut pattern = format!("%{SEPARATOR}");
    for character in word.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push(SEPARATOR);
    pattern.push('%');
    pattern
}

/// Appends ` IN (..)`.
fn push_among<DB>(query: &mut QueryBuilder<DB>, words: &[String])
where
    DB: Database,
    String: Encode<'static, DB> + Type<DB>,
{
    query.push(" IN (");
    let mut separated = query.separated(", ");
    for word in words {
        separated.push_bind(word.clone());
    }
    query.push(")");
}
