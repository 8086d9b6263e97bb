//! Audit: every event of the log, once, searchable by who, what, where and when.

mod search;

use std::sync::Arc;

use actix_web::web;
use skald_kit::{
    Consumer, ConsumerOptions, Db, IntakeOptions, Tx, TxFuture,
    bus::Filter,
    events::{Client, Event},
    params,
};

use super::{metrics::Metrics, worker::WorkerError};
use crate::{
    choreography::{SkaldOptions, source},
    http::resource,
};

const NAME: &str = "audit";

pub(super) fn routes(app: &mut web::ServiceConfig) {
    app.service(resource("/audit", "GET").route(web::get().to(search::list)));
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS audit_events (
         stream TEXT NOT NULL,
         version BIGINT NOT NULL,
         at_us BIGINT NOT NULL,
         type TEXT NOT NULL,
         actor TEXT,
         correlation_id TEXT,
         event TEXT NOT NULL,
         PRIMARY KEY (stream, version)
     )",
    "CREATE INDEX IF NOT EXISTS audit_time ON audit_events (at_us, stream, version)",
    "CREATE INDEX IF NOT EXISTS audit_actor ON audit_events (actor, at_us) WHERE actor IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS audit_correlation ON audit_events (correlation_id, at_us)",
    "CREATE INDEX IF NOT EXISTS audit_type ON audit_events (type, at_us)",
];

/// Begins to take in the log, from where it was or from the beginning.
pub(super) async fn start(
    db: &Db,
    client: Client,
    skald: &SkaldOptions,
    metrics: Arc<Metrics>,
) -> Result<Consumer, WorkerError> {
    db.create(TABLES).await?;
    let options = ConsumerOptions {
        name: NAME.to_owned(),
        db: db.clone(),
        source: source(skald, &client, NAME, Filter::default())?,
        client,
        observer: metrics,
        intake: IntakeOptions::default(),
    };
    Ok(Consumer::start(options, record).await?)
}

fn record(tx: &mut Tx, event: Arc<Event>) -> TxFuture<'_, ()> {
    Box::pin(async move {
        let whole = serde_json::to_string(&*event).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let version = i64::try_from(event.version).unwrap_or(i64::MAX);
        let sql = "INSERT INTO audit_events (stream, version, at_us, type, actor, correlation_id, event)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (stream, version) DO NOTHING";
        let params = params![
            &event.stream,
            version,
            event.time.timestamp_micros(),
            &event.type_name,
            event.actor.clone(),
            event.correlation_id.clone(),
            whole,
        ];
        tx.execute(sql, params).await?;
        Ok(())
    })
}
