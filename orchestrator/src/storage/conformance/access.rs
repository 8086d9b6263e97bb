//! Keys of clients and the audit log: each change with its entry, and no entry ever changed.

use skald_core::time::{Millis, Timestamp};
use sqlx::types::Uuid;

use super::{
    super::{
        Store,
        access::{ApiKey, AuditEntry, AuditFilter, AuditOutcome},
    },
    fixture::Database,
};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn key(id: &str) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        hash: [7; 32],
        name: "shop".to_owned(),
        role: "client".to_owned(),
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
    }
}

/// The entries are made `number` seconds one after the other.
fn entry(number: u64, action: &str) -> AuditEntry {
    let at = NOW.plus(Millis(number * 1000));
    AuditEntry {
        id: Uuid::from_u128(u128::from(number)),
        at,
        actor: Some(format!("actor-{}", number % 2)),
        credential: Some("key:abc".to_owned()),
        action: action.to_owned(),
        target: format!("target-{number}"),
        reason: Some("a test".to_owned()),
        request_id: format!("request-{number}"),
        correlation_id: None,
        outcome: AuditOutcome::ALL[usize::try_from(number).unwrap() % 5],
        code: None,
        times: 1,
    }
}

async fn all(store: &dyn Store) -> Vec<AuditEntry> {
    store.audit_log(&AuditFilter { limit: 100, ..AuditFilter::default() }).await.unwrap()
}

pub async fn a_key_is_added_once_and_with_its_entry(database: &Database) {
    let store = database.migrated(1).await;
    assert!(store.api_keys().await.unwrap().is_empty());
    let first = ApiKey { expires_at: Some(NOW.plus(Millis(5))), ..key("a") };
    assert!(store.add_api_key(&first, &entry(1, "key.create")).await.unwrap());
    assert!(!store.add_api_key(&ApiKey { hash: [8; 32], ..key("a") }, &entry(2, "key.create")).await.unwrap());
    assert_eq!(store.api_keys().await.unwrap(), [first]);
    assert_eq!(all(&*store).await, [entry(1, "key.create")], "what did not happen is not recorded");
}

pub async fn a_key_is_revoked_once_and_stays_known(database: &Database) {
    let store = database.migrated(1).await;
    store.add_api_key(&key("a"), &entry(1, "key.create")).await.unwrap();
    assert!(store.revoke_api_key("a", &entry(2, "key.revoke")).await.unwrap());
    for id in ["a", "b"] {
        assert!(!store.revoke_api_key(id, &entry(3, "key.revoke")).await.unwrap());
    }
    let revoked = ApiKey { revoked_at: Some(entry(2, "").at), ..key("a") };
    assert_eq!(store.api_keys().await.unwrap(), [revoked]);
    assert_eq!(all(&*store).await, [entry(2, "key.revoke"), entry(1, "key.create")]);
}

pub async fn a_key_that_is_good_gets_one_successor_and_an_end(database: &Database) {
    let store = database.migrated(1).await;
    let (soon, later) = (NOW.plus(Millis(60_000)), NOW.plus(Millis(90_000)));
    for (number, key) in [
        (1, key("endless")),
        (2, ApiKey { expires_at: Some(soon), ..key("short") }),
        (3, ApiKey { expires_at: Some(NOW), ..key("expired") }),
        (4, ApiKey { revoked_at: Some(NOW), ..key("revoked") }),
    ] {
        store.add_api_key(&key, &entry(number, "key.create")).await.unwrap();
    }
    for (number, id, rotated) in
        [(5, "endless", true), (6, "short", true), (7, "expired", false), (8, "revoked", false), (9, "none", false)]
    {
        let successor = key(&format!("{id}-2"));
        let done = store.rotate_api_key(id, later, &successor, &entry(number, "key.rotate")).await.unwrap();
        assert_eq!(done, rotated, "{id}");
    }
    let keys = store.api_keys().await.unwrap();
    let ends = keys.iter().map(|key| (key.id.as_str(), key.expires_at)).collect::<Vec<_>>();
    let expected = [
        ("endless", Some(later)),
        ("endless-2", None),
        ("expired", Some(NOW)),
        ("revoked", None),
        ("short", Some(soon)),
        ("short-2", None),
    ];
    assert_eq!(ends, expected);
    let rotations = AuditFilter { action: Some("key.rotate".to_owned()), limit: 10, ..AuditFilter::default() };
    assert_eq!(store.audit_log(&rotations).await.unwrap(), [entry(6, "key.rotate"), entry(5, "key.rotate")]);
}

pub async fn entries_are_listed_newest_first_by_each_filter(database: &Database) {
    let store = database.migrated(1).await;
    for number in 1..=6 {
        store.record(&entry(number, if number < 4 { "saga.retry" } else { "saga.skip" })).await.unwrap();
    }
    let bare = AuditEntry { actor: None, credential: None, reason: None, ..entry(7, "GET /sagas") };
    let last =
        AuditEntry { correlation_id: Some("c".to_owned()), code: Some("forbidden".to_owned()), times: 9, ..bare };
    store.record(&last).await.unwrap();
    assert_eq!(all(&*store).await[0], last);
    let none = AuditFilter { limit: 10, ..AuditFilter::default() };
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (AuditFilter { actor: text("actor-1"), ..none.clone() }, vec![5, 3, 1]),
        (AuditFilter { action: text("saga.skip"), ..none.clone() }, vec![6, 5, 4]),
        (AuditFilter { target: text("target-2"), ..none.clone() }, vec![2]),
        (AuditFilter { request_id: text("request-3"), ..none.clone() }, vec![3]),
        (AuditFilter { outcome: Some(AuditOutcome::Done), ..none.clone() }, vec![6, 1]),
        (AuditFilter { recorded_after: Some(entry(5, "").at), ..none.clone() }, vec![7, 6]),
        (AuditFilter { recorded_before: Some(entry(3, "").at), ..none.clone() }, vec![2, 1]),
        (AuditFilter { before: Some(Uuid::from_u128(4)), limit: 2, ..none.clone() }, vec![3, 2]),
        (AuditFilter { actor: text("actor-1"), action: text("saga.skip"), ..none.clone() }, vec![5]),
    ] {
        let found = store.audit_log(&filter).await.unwrap();
        let numbers: Vec<u128> = found.iter().map(|entry| entry.id.as_u128()).collect();
        assert_eq!(numbers, expected, "{filter:?}");
    }
}

pub async fn the_audit_log_cannot_be_changed(database: &Database) {
    let store = database.migrated(1).await;
    store.record(&entry(1, "saga.retry")).await.unwrap();
    for sql in ["UPDATE audit_log SET actor = 'another'", "DELETE FROM audit_log"] {
        let refused = database.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
    assert!(store.record(&entry(1, "saga.retry")).await.is_err(), "an entry is written once");
    assert_eq!(all(&*store).await, [entry(1, "saga.retry")]);
}
