//! Notification: tells customers how their orders end.
//!
//! A message is a row, written in the transaction that takes in its event and unique by saga and kind: whatever is
//! delivered again, a customer is told once. Sending is another matter: between the mail server's answer and the row that
//! says so lies a crash's width, so a message may be *sent* twice then, under one `Message-ID`.

mod deliver;
mod history;
mod messages;
mod record;
mod smtp;

use std::{sync::Arc, time::Duration};

use actix_web::web;
use skald_kit::{Consumer, ConsumerOptions, Db, IntakeOptions, bus::Filter, events::Client};
use tokio::{sync::watch, task::JoinHandle};

pub use self::smtp::{SmtpError, SmtpOptions};
use self::{deliver::Sender, record::Recorder, smtp::Mailer};
use super::{metrics::Metrics, worker::WorkerError};
use crate::{
    choreography::{SkaldOptions, source},
    http::resource,
};

const NAME: &str = "notification";

pub(super) fn routes(app: &mut web::ServiceConfig) {
    app.service(resource("/notifications", "GET").route(web::get().to(history::list)));
}

const TABLES: &[&str] = &[
    // What is known of a saga until it ends.
    "CREATE TABLE IF NOT EXISTS notification_sagas (
         saga TEXT NOT NULL PRIMARY KEY, customer_id TEXT, email TEXT, reason TEXT
     )",
    "CREATE TABLE IF NOT EXISTS notifications (
         saga TEXT NOT NULL,
         kind TEXT NOT NULL,
         customer_id TEXT,
         email TEXT,
         subject TEXT NOT NULL,
         body TEXT NOT NULL,
         status TEXT NOT NULL CHECK (status IN ('recorded', 'pending', 'sent', 'failed')),
         tries BIGINT NOT NULL DEFAULT 0,
         next_at_us BIGINT NOT NULL,
         error TEXT,
         created_at_us BIGINT NOT NULL,
         sent_at_us BIGINT,
         PRIMARY KEY (saga, kind)
     )",
    "CREATE INDEX IF NOT EXISTS notifications_time ON notifications (created_at_us, saga, kind)",
    "CREATE INDEX IF NOT EXISTS notifications_customer ON notifications (customer_id, created_at_us)",
    "CREATE INDEX IF NOT EXISTS notifications_due ON notifications (next_at_us) WHERE status = 'pending'",
];

/// At work; dropped, it stops at once.
#[derive(Debug)]
pub(super) struct Notification {
    consumer: Consumer,
    sending: Option<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

impl Notification {
    pub(super) async fn start(
        db: &Db,
        client: Client,
        skald: &SkaldOptions,
        smtp: Option<&SmtpOptions>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WorkerError> {
        let mailer = smtp.map(Mailer::new).transpose()?;
        db.create(TABLES).await?;
        let kinds = record::KINDS.map(str::to_owned).to_vec();
        let options = ConsumerOptions {
            name: NAME.to_owned(),
            db: db.clone(),
            source: source(skald, &client, NAME, Filter { kinds, ..Filter::default() })?,
            client: client.clone(),
            observer: metrics.clone(),
            intake: IntakeOptions::default(),
        };
        let recorder = Recorder { sends: mailer.is_some() };
        let consumer = Consumer::start(options, move |tx, event| recorder.record(tx, event)).await?;
        let (stopping, stop) = watch::channel(false);
        let sending = mailer.map(|mailer| tokio::spawn(Sender { db: db.clone(), mailer, client, metrics }.run(stop)));
        Ok(Self { consumer, sending, stopping })
    }

    pub(super) async fn stop(self) {
        self.stopping.send_replace(true);
        self.consumer.stop().await;
        if let Some(sending) = self.sending
            && tokio::time::timeout(Duration::from_secs(5), sending).await.is_err()
        {
            tracing::warn!("a message was being sent when the service stopped; it will be sent again");
        }
    }
}
