//! Connections that only read, on threads that may block: a long query holds up nobody.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

use super::conn::{Conn, Purpose};
use crate::{
    db::DbOptions,
    sql::{Param, Row},
};

#[derive(Debug)]
pub(super) struct Readers {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Conn>>>,
    turns: Arc<Semaphore>,
    acquire_timeout: Duration,
}

impl Readers {
    /// Opens the first connection; the others are opened when they are needed.
    pub(super) fn open(path: PathBuf, options: &DbOptions) -> sqlx::Result<Self> {
        let first = Conn::open(&path, Purpose::Read)?;
        let turns = usize::try_from(options.connections_max).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            path: path.into(),
            idle: Arc::new(Mutex::new(vec![first])),
            turns: Arc::new(Semaphore::new(turns)),
            acquire_timeout: options.acquire_timeout,
        })
    }

    pub(super) async fn rows(&self, runtime: &Handle, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Vec<Row>> {
        let turn = timeout(self.acquire_timeout, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let (path, idle) = (self.path.clone(), self.idle.clone());
        let read = runtime.spawn_blocking(move || {
            let _turn = turn;
            let conn = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = conn.map_or_else(|| Conn::open(&path, Purpose::Read), Ok)?;
            let rows = conn.rows(sql, &params);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            rows
        });
        read.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
