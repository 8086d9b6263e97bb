//! Read models, projected from the log.
//!
//! A [`Projection`] is a pure fold of streams into rows. Its place in the log lies in the same database and moves in the
//! transaction that changes the rows, so each event counts once, whatever crashes, and no consumer group is needed.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`models`] | the projections themselves |
//! | [`projection`] | what a projection is: folds, and the changes they make |
//! | [`generation`] | the rows of one run through the log, and taking in a page of events |
//! | [`statements`] | the tables, and statements for many rows at once |
//! | [`projector`] | follows the log, for good |
//! | [`replay`] | rebuild and verify: a second generation from the beginning |
//! | [`compare`] | where two generations differ |
//!
//! Which generation is read is one row. A rebuild fills another one and then moves that row, so reads go on meanwhile and
//! never see half of anything.

mod compare;
mod generation;
mod models;
mod operations;
mod progress;
mod projection;
mod projector;
mod read;
mod replay;
mod statements;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::web;
use skald_kit::{Db, Failure, events::Client};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

use self::projector::Projector;
use super::metrics::Metrics;
use crate::http::resource;

pub(super) fn routes(app: &mut web::ServiceConfig) {
    app.service(resource("/read-models", "GET").route(web::get().to(read::models)))
        .service(resource("/read-models/{name}", "GET").route(web::get().to(read::keys)))
        .service(resource("/read-models/{name}/{key}", "GET").route(web::get().to(read::one)))
        .service(resource("/projections", "GET").route(web::get().to(operations::list)))
        .service(resource("/projections/{name}/rebuild", "POST").route(web::post().to(operations::rebuild)))
        .service(resource("/projections/{name}/verify", "POST").route(web::post().to(operations::verify)));
}

/// All projections, at work.
#[derive(Debug)]
pub(super) struct Views {
    projectors: BTreeMap<&'static str, Arc<Projector>>,
    following: Mutex<Vec<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
}

impl Views {
    pub(super) async fn start(db: &Db, client: Client, metrics: Arc<Metrics>) -> Result<Self, Failure> {
        db.create(statements::TABLES).await?;
        let (stopping, stop) = watch::channel(false);
        let mut projectors = BTreeMap::new();
        let mut following = Vec::new();
        for projection in models::ALL {
            let projector = Projector::open(projection, db.clone(), client.clone(), metrics.clone()).await?;
            let projector = Arc::new(projector);
            following.push(tokio::spawn(projector.clone().follow(stop.clone())));
            projectors.insert(projection.name(), projector);
        }
        let all: Vec<Arc<Projector>> = projectors.values().cloned().collect();
        metrics.refreshed_by(move |metrics| {
            for projector in &all {
                let seen = projector.seen();
                metrics.projection(projector.projection().name(), seen.lag(), seen.events);
            }
        });
        Ok(Self { projectors, following: Mutex::new(following), stopping })
    }

    fn get(&self, name: &str) -> Option<&Arc<Projector>> {
        self.projectors.get(name)
    }

    pub(super) async fn stop(&self) {
        self.stopping.send_replace(true);
        for following in self.following.lock().await.drain(..) {
            if let Err(error) = following.await {
                tracing::error!(%error, "a projection panicked");
            }
        }
    }

    /// Stops at once; what was not committed is read again.
    pub(super) fn abort(&self) {
        self.stopping.send_replace(true);
        if let Ok(following) = self.following.try_lock() {
            following.iter().for_each(JoinHandle::abort);
        }
    }
}
