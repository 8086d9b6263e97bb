//! Calls of sagas with personal data: the request is opened just before it is sent, the answer sealed as soon as it is there.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use skald_core::{
    classify::{Body, CallReport, CallResult},
    decide::{Invoke, Target},
    personal::{Sealed, tokens_in},
    time::Millis,
};

use super::{
    Sealing,
    echo::Echo,
    opened::{Opened, Unopened},
};
use crate::{
    clock::Clock,
    dispatch::{Participants, Term},
    storage::StoreError,
};

/// How long a call waits for a database that cannot be asked for its key.
const AGAIN_AFTER: Millis = Millis(1000);

/// Participants as the engine sees them: they understand tokens.
#[derive(Debug)]
pub struct SealedCalls {
    participants: Arc<dyn Participants>,
    sealing: Arc<Sealing>,
    clock: Arc<dyn Clock>,
}

/// Why a call is not made.
enum NotMade {
    Unopened(Unopened),
    Store(StoreError),
}

impl SealedCalls {
    #[must_use]
    pub fn new(participants: Arc<dyn Participants>, sealing: Arc<Sealing>, clock: Arc<dyn Clock>) -> Self {
        Self { participants, sealing, clock }
    }

    async fn open(&self, invoke: &Invoke, sealed: &Sealed) -> Result<(Invoke, Echo), NotMade> {
        let target = &invoke.target;
        let texts = target.headers.iter().map(|(_, value)| value).chain([&target.path]).chain(&target.body);
        let in_request = texts.flat_map(|text| tokens_in(text).into_iter().map(|range| text[range].to_owned()));
        let tokens: Vec<String> = sealed.tokens.iter().cloned().chain(in_request).collect();
        let opened = self.sealing.open(&tokens, &sealed.subject).await.map_err(NotMade::Store)?;
        let echo = self.sealing.echo(&opened, &sealed.subject).await.map_err(NotMade::Store)?;
        let target = opened_target(target, &opened).map_err(NotMade::Unopened)?;
        Ok((Invoke { target, ..invoke.clone() }, echo))
    }

    fn not_made(&self, invoke: &Invoke, why: NotMade) -> CallReport {
        let now = self.clock.now();
        let result = match why {
            NotMade::Unopened(unopened) => {
                tracing::warn!(saga_id = %invoke.saga, step = %invoke.step, %unopened, "a call cannot be made");
                CallResult::NotSent { error: unopened.to_string() }
            }
            NotMade::Store(error) => {
                tracing::debug!(saga_id = %invoke.saga, %error, "the key for a call cannot be read");
                let why = "the key of its personal data cannot be read at the moment".to_owned();
                CallResult::Deferred { until: now.plus(AGAIN_AFTER), why }
            }
        };
        CallReport { started_at: now, duration: Millis(0), result }
    }

    async fn call_opened(&self, invoke: &Invoke, sealed: &Sealed, term: &Term) -> CallReport {
        match self.open(invoke, sealed).await {
            Ok((opened, echo)) => {
                let mut report = self.participants.call(&opened, term).await;
                seal(&mut report.result, sealed, &echo);
                report
            }
            Err(why) => self.not_made(invoke, why),
        }
    }
}

impl Participants for SealedCalls {
    fn call<'a>(&'a self, invoke: &'a Invoke, term: &'a Term) -> BoxFuture<'a, CallReport> {
        match &invoke.sealed {
            Some(sealed) => Box::pin(self.call_opened(invoke, sealed, term)),
            None => self.participants.call(invoke, term),
        }
    }
}

fn opened_target(target: &Target, opened: &Opened) -> Result<Target, Unopened> {
    let mut target = target.clone();
    opened.send_path(&mut target.path)?;
    for (_, value) in &mut target.headers {
        opened.send_text(value)?;
    }
    if let Some(text) = target.body.as_mut().filter(|text| !tokens_in(text).is_empty()) {
        let mut body: Value = serde_json::from_str(text).expect("the engine rendered it");
        opened.send(&mut body)?;
        *text = body.to_string();
    }
    Ok(target)
}

fn seal(result: &mut CallResult, sealed: &Sealed, echo: &Echo) {
    match result {
        CallResult::NotSent { error } | CallResult::MaybeSent { error } => echo.seal_text(error),
        CallResult::Deferred { .. } => {}
        CallResult::Answered(answer) => {
            if let Some(location) = &mut answer.location {
                echo.seal_path(location);
            }
            match &mut answer.body {
                Body::Json(body) => echo.seal_answer(body, &sealed.answer),
                Body::Unusable(why) => echo.seal_text(why),
                Body::Empty => {}
            }
        }
    }
}
