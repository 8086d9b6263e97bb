//! Which migrations a database has had, against those this Skald knows.

use std::collections::HashMap;

use sqlx::migrate::{MigrateError, Migrator};

use super::StoreError;

/// Compares what was applied (`version`, `checksum`) with what is known.
pub fn compare(known: &Migrator, applied: Vec<(i64, Vec<u8>)>) -> Result<(), StoreError> {
    let applied: HashMap<i64, Vec<u8>> = applied.into_iter().collect();
    let mut missing = 0;
    for migration in known.iter() {
        match applied.get(&migration.version) {
            None => missing += 1,
            Some(checksum) if *checksum != *migration.checksum => {
                return Err(StoreError::TooNew(format!("its migration {} is another one", migration.version)));
            }
            Some(_) => {}
        }
    }
    if let Some(newest) = applied.keys().filter(|version| !known.version_exists(**version)).max() {
        return Err(StoreError::TooNew(format!("it has migration {newest}")));
    }
    if missing > 0 {
        return Err(StoreError::NotMigrated(format!("{missing} of {} migrations are missing", known.iter().count())));
    }
    Ok(())
}

/// What a failed migration means to whoever asked for it.
pub fn migration_failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::TooNew(format!("it has migration {version}")),
        MigrateError::VersionMismatch(version) => StoreError::TooNew(format!("its migration {version} is another one")),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Unavailable(error),
        other => StoreError::Open(other.to_string()),
    }
}
