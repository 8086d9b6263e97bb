//! Forms of events: written is the newest, read is every one that there ever was.

use std::collections::BTreeMap;

use skald_core::{event::Event, ids::Shard};

use super::{
    super::log::{LogFilter, LogQuery},
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner},
};

pub async fn events_are_written_in_the_newest_form_and_read_in_any(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    store.commit(&batch(&owned, vec![saga.step()])).await.unwrap();
    let written = "SELECT kind || ' ' || CAST(schema_version AS text) FROM event_log ORDER BY version";
    let expected = "SagaStarted 2\nStepStarted 2\nStepSucceeded 1\nStepStarted 2";
    assert_eq!(database.query(written).await, expected);

    // As version 1 of Skald left it; nobody but a test rewrites an event.
    let (off, on) = match database.backend {
        Backend::Sqlite => (
            "DROP TRIGGER events_are_not_changed",
            "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'refused'); END",
        ),
        Backend::Postgres => ("ALTER TABLE events DISABLE TRIGGER USER", "ALTER TABLE events ENABLE TRIGGER USER"),
    };
    let older = "UPDATE events SET schema_version = 1, schema_versions = NULL";
    database.execute(&format!("{off}; {older}; {on}")).await.unwrap();
    for stream in [store.events(saga.id(), 0, 10).await.unwrap(), store.streams(&[saga.id()]).await.unwrap().remove(0)]
    {
        assert!(matches!(&stream[0].event, Event::SagaStarted(started) if started.subject.is_none()), "{stream:?}");
        assert_eq!(stream.len(), 4);
    }
    let after = BTreeMap::from([(Shard(0), 0)]);
    let query = LogQuery { after, until: BTreeMap::new(), limit: 10, filter: LogFilter::default() };
    let read = store.log(&query).await.unwrap().events;
    assert_eq!(read.iter().map(|event| event.schema_version).collect::<Vec<_>>(), [2, 2, 1, 2]);
    let parsed = read.iter().map(|event| Event::parse(&event.kind, event.schema_version, event.data.get()));
    assert!(parsed.into_iter().all(|event| event.is_ok()));
}
