//! The mail server.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp,
};
use thiserror::Error;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where messages are sent, and from whom.
#[derive(Clone)]
pub struct SmtpOptions {
    /// `smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required]` or `smtps://..`
    pub url: String,
    /// The sender, e.g. `Shop <orders@example.org>`.
    pub from: String,
}

impl std::fmt::Debug for SmtpOptions {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpOptions").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Why messages can't be sent at all.
#[derive(Debug, Error)]
pub enum SmtpError {
    #[error("the mail server's URL: {0}")]
    Url(#[source] smtp::Error),
    #[error("the sender `{0}` is no mail address")]
    From(String),
}

#[derive(Debug, Clone)]
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// A message to one customer.
#[derive(Debug)]
pub(super) struct Mail<'a> {
    /// The same for the same message.
    pub(super) id: String,
    pub(super) to: &'a str,
    pub(super) subject: &'a str,
    pub(super) body: String,
}

/// Why a message was not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// It never will be.
    ForGood(String),
    NotNow(String),
}

impl Unsent {
    /// The same for a reason that `change` makes of it.
    pub(super) fn with(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::ForGood(why) => Self::ForGood(change(why)),
            Self::NotNow(why) => Self::NotNow(change(why)),
        }
    }
}

impl Mailer {
    pub(super) fn new(options: &SmtpOptions) -> Result<Self, SmtpError> {
        let from = options.from.parse().map_err(|_| SmtpError::From(options.from.clone()))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&options.url).map_err(SmtpError::Url)?;
        Ok(Self { transport: transport.timeout(Some(TIMEOUT)).build(), from })
    }

    pub(super) async fn send(&self, mail: Mail<'_>) -> Result<(), Unsent> {
        let for_good = |error: &dyn std::fmt::Display| Unsent::ForGood(error.to_string());
        let to: Mailbox = mail.to.parse().map_err(|error| for_good(&error))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(mail.subject)
            .message_id(Some(format!("<{}@skald>", mail.id)))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body)
            .map_err(|error| for_good(&error))?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(for_good(&error)),
            Err(error) => Err(Unsent::NotNow(error.to_string())),
        }
    }
}
