//! Starting under a key: however often and from however many clients at once, one saga.
//!
//! The key's row is written in the saga's first commit, so who finds it finds the saga. Who is told that the key exists,
//! or that nobody knows how the commit ended, looks for it: the first start may still be committing.

use std::time::Duration;

use skald_core::shard::writer::Refusal;
use tokio::time::Instant;

use super::{
    super::{
        problem::{Code, Problem},
        refusal,
        request::RequestContext,
    },
    starting::{Ask, Begun, fingerprint, is_outdated, request, wait},
};
use crate::{app::App, storage::KeyedSaga};

/// How long to look for a key that must appear, or has failed to.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);
/// A start whose rival with the same key failed is tried again so often.
const TRIES_MAX: usize = 3;

/// Starts the saga, or finds it.
///
/// # Errors
///
/// When the key stands for another request, or the start is refused. After a problem that is worth trying again, the
/// same key may be used.
pub async fn begin(app: &App, context: &RequestContext, ask: &Ask, key: &str) -> Result<Begun, Problem> {
    // The name is a definition's from here on, and nothing that a database could stumble over.
    app.definition(&ask.definition, None).await?;
    if let Some(found) = look_up(app, ask, key).await? {
        return replay(app, ask, found);
    }
    for _ in 0..TRIES_MAX {
        let request = request(app, context, ask).await?;
        let (input, subject) = (request.input.clone(), request.subject.clone());
        match app.router().start(request, wait(app, ask)).await {
            Ok(started) => return Ok(Begun::Now(Box::new(started), input)),
            // An erasure came between, and nothing was started: once more, under another key.
            Err(Refusal::KeyExists) if is_outdated(app, subject.as_ref()).await? => {}
            Err(Refusal::KeyExists) => {
                if let Some(found) = await_key(app, ask, key).await? {
                    return replay(app, ask, found);
                }
            }
            Err(refusal @ Refusal::InDoubt) => {
                let found = await_key(app, ask, key).await?;
                return found.map_or_else(|| Err(refusal::of_start(refusal)), |found| replay(app, ask, found));
            }
            Err(refusal @ Refusal::NotOwner) => {
                let found = look_up(app, ask, key).await?;
                return found.map_or_else(|| Err(refusal::of_start(refusal)), |found| replay(app, ask, found));
            }
            Err(refusal) => return Err(refusal::of_start(refusal)),
        }
    }
    let detail = "Another start with this key is under way. Repeat the request with the same key.";
    Err(Problem::new(Code::Overloaded, detail).retry_after(1))
}

async fn look_up(app: &App, ask: &Ask, key: &str) -> Result<Option<KeyedSaga>, Problem> {
    let (definition, key) = (ask.definition.clone(), key.to_owned());
    app.read(|store| async move { store.keyed_saga(&definition, &key).await }).await
}

/// Looks until the key is there.
async fn await_key(app: &App, ask: &Ask, key: &str) -> Result<Option<KeyedSaga>, Problem> {
    let until = Instant::now() + APPEARS_WITHIN;
    let mut pause = Duration::from_millis(5);
    loop {
        let found = look_up(app, ask, key).await?;
        if found.is_some() || Instant::now() + pause > until {
            return Ok(found);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

fn replay(app: &App, ask: &Ask, found: KeyedSaga) -> Result<Begun, Problem> {
    let fingerprint = fingerprint(ask);
    // The first start may have been of another version, with personal data or without.
    if found.fingerprint != fingerprint && found.fingerprint != app.sealing().fingerprint(&fingerprint) {
        let reason = "was used for a start with another input, mode or version";
        return Err(Problem::in_field(Code::KeyReused, "Idempotency-Key", reason));
    }
    Ok(Begun::Before(found.saga))
}
