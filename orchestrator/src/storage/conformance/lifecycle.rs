//! Migrations, the secret, definitions and pauses.

use skald_core::time::{Millis, Timestamp};

use super::{
    super::{Pause, PauseKind, Registration, StoreError, StoredDefinition},
    dump::dump,
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner},
};

pub async fn migrating_again_changes_nothing(database: &Database) {
    let store = database.migrated(3).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    store.commit(&batch(&owned, vec![Saga::new(0, 1).create()])).await.unwrap();
    let (before, secret) = (dump(&*store, &[]).await, store.secret().await.unwrap());
    let again = database.migrated(7).await;
    assert_eq!(dump(&*again, &[]).await, before, "the number of shards is settled when the database is made");
    assert_eq!(again.secret().await.unwrap(), secret);
    again.check_schema().await.unwrap();
}

pub async fn processes_may_migrate_at_once(database: &Database) {
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(database.open(2).await);
    }
    let migrations = stores.iter().map(|store| store.migrate());
    for result in futures_util::future::join_all(migrations).await {
        result.unwrap();
    }
    let secret = stores[0].secret().await.unwrap();
    for store in stores {
        store.check_schema().await.unwrap();
        assert_eq!(store.secret().await.unwrap(), secret);
    }
}

pub async fn an_unmigrated_database_says_so(database: &Database) {
    let store = database.open(1).await;
    let not_migrated = |result: Result<(), StoreError>| matches!(result, Err(StoreError::NotMigrated(_)));
    assert!(not_migrated(store.check_schema().await));
    assert!(not_migrated(store.secret().await.map(drop)));
    assert!(not_migrated(store.take_shards(&owner("a"), None, LEASE).await.map(drop)));
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    database.execute("DELETE FROM _sqlx_migrations").await.unwrap();
    assert!(not_migrated(store.check_schema().await));
}

pub async fn a_newer_schema_is_refused(database: &Database) {
    let store = database.migrated(1).await;
    let checksum = if database.backend == Backend::Sqlite { "x'00'" } else { "'\\x00'" };
    let newer = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, {checksum}, 0)"
    );
    database.execute(&newer).await.unwrap();
    assert!(matches!(store.check_schema().await, Err(StoreError::TooNew(_))));
    assert!(matches!(store.migrate().await, Err(StoreError::TooNew(_))));
    database.execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    store.check_schema().await.unwrap();
    database.execute(&format!("UPDATE _sqlx_migrations SET checksum = {checksum}")).await.unwrap();
    assert!(matches!(store.check_schema().await, Err(StoreError::TooNew(_))));
}

pub async fn the_secret_stays(database: &Database) {
    let store = database.migrated(1).await;
    let secret = store.secret().await.unwrap();
    assert_ne!(secret, [0; 32]);
    assert_eq!(database.open(1).await.secret().await.unwrap(), secret);
}

pub async fn ping_and_clock_answer(database: &Database) {
    let store = database.migrated(1).await;
    store.ping().await.unwrap();
    let one = store.now().await.unwrap();
    let two = store.now().await.unwrap();
    assert!(one <= two && one.until(two) < Millis(60_000));
    assert!(one > Timestamp::from_micros(1_750_000_000_000_000), "{one:?}");
}

fn definition(name: &str, version: u32, hash: &str) -> StoredDefinition {
    StoredDefinition {
        name: name.to_owned(),
        version,
        hash: hash.to_owned(),
        document: format!(r#"{{"name": "{name}", "hash":"{hash}", "text": "ünï \u0001"}}"#),
        registered_at: Timestamp::from_micros(1_760_000_000_000_000 + i64::from(version)),
    }
}

pub async fn a_definition_is_immutable(database: &Database) {
    let store = database.migrated(1).await;
    let registered = [definition("checkout", 1, "a"), definition("checkout", 10, "b"), definition("refund", 2, "c")];
    for new in registered.iter().rev() {
        assert_eq!(store.register(new).await.unwrap(), Registration::Created);
    }
    let again = StoredDefinition { registered_at: Timestamp::from_micros(1), ..registered[0].clone() };
    assert_eq!(store.register(&again).await.unwrap(), Registration::Unchanged);
    assert_eq!(store.register(&definition("checkout", 1, "other")).await.unwrap(), Registration::Conflict);
    assert_eq!(store.definitions().await.unwrap(), registered);
}

pub async fn pauses_are_added_replaced_and_removed(database: &Database) {
    let store = database.migrated(1).await;
    let pause = |kind, name: &str, reason: &str| Pause {
        kind,
        name: name.to_owned(),
        actor: "operator".to_owned(),
        reason: reason.to_owned(),
        since: Timestamp::from_micros(5),
    };
    assert_eq!(store.pauses().await.unwrap(), []);
    let definition = pause(PauseKind::Definition, "catalog", "broken");
    let participant = pause(PauseKind::Participant, "catalog", "down");
    for pause in [&participant, &definition] {
        store.pause(pause).await.unwrap();
    }
    assert_eq!(store.pauses().await.unwrap(), [definition.clone(), participant]);
    let replaced = Pause { since: Timestamp::from_micros(6), ..pause(PauseKind::Participant, "catalog", "again") };
    store.pause(&replaced).await.unwrap();
    assert_eq!(store.pauses().await.unwrap(), [definition, replaced.clone()]);
    assert!(store.unpause(PauseKind::Definition, "catalog").await.unwrap());
    assert!(!store.unpause(PauseKind::Definition, "catalog").await.unwrap());
    assert_eq!(store.pauses().await.unwrap(), [replaced]);
}
