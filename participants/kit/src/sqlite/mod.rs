//! An SQLite file: one thread writes, several read.
//!
//! All that writes runs as tasks of one thread of its own, which has the writing connection: a statement is a call, not a
//! message to another thread, and while a commit waits for the disk what comes next queues up. Whoever uses the service's
//! other threads never waits for the disk.

mod conn;
mod readers;
mod writer;

use std::{path::PathBuf, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

pub(crate) use self::writer::Turn;
use self::{
    conn::{Conn, Purpose},
    readers::Readers,
    writer::Writer,
};
use crate::{
    db::DbOptions,
    sql::{Param, Row},
};

#[derive(Debug)]
pub(crate) struct Sqlite {
    writer: Writer,
    readers: Readers,
    thread: Thread,
}

impl Sqlite {
    /// Opens a file, which is created when it is missing.
    pub(crate) async fn open(path: PathBuf, options: &DbOptions) -> sqlx::Result<Self> {
        let thread = Thread::start()?;
        let options = options.clone();
        let opened = thread.handle.spawn_blocking(move || {
            let conn = Conn::open(&path, Purpose::Write)?;
            // A file that can only be read opens without complaint: ask for the write lock now.
            conn.run("BEGIN IMMEDIATE")?;
            conn.run("COMMIT")?;
            Ok((conn, Readers::open(path, &options)?))
        });
        let (conn, readers) = opened.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?;
        Ok(Self { writer: Writer::new(conn), readers, thread })
    }

    /// Where whatever writes must run.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.thread.handle
    }

    pub(crate) async fn begin(&self) -> sqlx::Result<Turn> {
        self.writer.begin().await
    }

    pub(crate) async fn rows(&self, sql: &'static str, params: Vec<Param>) -> sqlx::Result<Vec<Row>> {
        self.readers.rows(&self.thread.handle, sql, params).await
    }

    /// Waits for the writer's turn.
    pub(crate) async fn ping(&self) {
        self.writer.ping().await;
    }

    pub(crate) async fn close(&self) {
        self.readers.close();
        self.writer.close().await;
    }
}

/// A thread with a runtime of its own. Dropped, it ends, and with it the tasks that nobody waits for any more.
#[derive(Debug)]
struct Thread {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> sqlx::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = oneshot::channel();
        // An error says that the other end is gone, which is what is waited for.
        let run = move || drop(runtime.block_on(gone));
        thread::Builder::new().name("sqlite".to_owned()).spawn(run)?;
        Ok(Self { handle, _alive: alive })
    }
}
