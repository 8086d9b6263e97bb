//! `GET /sagas/{id}/stream`: a saga's events as they happen (server-sent events).
//!
//! A reader costs one waiting future. It is woken by the engine when the saga moves on here; when the saga's shard is
//! another replica's, by that shard's head, which [`heads`] looks at for all readers.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use bytes::Bytes;
use futures_util::stream;
use skald_core::{
    event::{Event, Recorded},
    ids::SagaId,
};
use tokio::{sync::watch, time::Instant};

use super::super::{
    headers,
    heads::{self, Seen},
    params::{Params, saga_id},
    problem::{Problem, problems},
    view::SagaEvent,
};
use crate::{access::scope::Scope, app::App, engine::Progress};

/// A comment is sent so often, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RETRY_MS: u32 = 2000;
/// Events read at a time.
const PAGE: u32 = 100;
/// How long to wait when the database does not answer, or nobody tells.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

problems!(Problems, InvalidParameter, SagaNotFound, SagaRemoved, DatabaseUnavailable);

/// Follow a saga's events.
///
/// Server-sent events: `id` is the version, `event` the type, `data` the event as JSON. The stream ends after the saga's
/// last event. A client that connects again with `Last-Event-ID` goes on where it was; if there is nothing to come any
/// more it is answered 204, upon which browsers stop.
#[utoipa::path(
    get,
    path = "/sagas/{id}/stream",
    operation_id = "streamSagaEvents",
    tag = "sagas",
    security(("bearer" = [Scope::SagasRead])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("after" = Option<u64>, Query, nullable = false, description = "Only events of later versions"),
        ("Last-Event-ID" = Option<u64>, Header, nullable = false,
         description = "Version of the last event seen; counts more than `after`"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = String),
        (status = 204, description = "The saga has ended, and its last event was seen"),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let after = params.version_seen("after").unwrap_or(0);
    params.finish()?;
    let after = headers::last_event_id(req.headers())?.unwrap_or(after);
    let saga = saga_id(&id)?;
    let row = app.row(saga).await?;
    if row.status.is_ended() && after >= row.version {
        return Ok(HttpResponse::NoContent().finish());
    }
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Compressed, an event would wait for those after it.
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header(("X-Accel-Buffering", "no"));
    if req.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let reader = Reader::new(app, saga, after).await;
    Ok(response.streaming(stream::unfold(reader, Reader::next)))
}

/// One client that follows a saga.
struct Reader {
    app: web::Data<App>,
    saga: SagaId,
    after: u64,
    stage: Stage,
    progress: watch::Receiver<Option<Progress>>,
    /// Whether the engine still tells.
    engine_tells: bool,
    shards: watch::Receiver<Arc<[Seen]>>,
    /// Of the saga's shard, when it was last read because of it.
    head: Option<i64>,
    closing: watch::Receiver<bool>,
    heartbeat_at: Instant,
}

enum Stage {
    Greet,
    Read,
    Wait,
    End,
}

enum Woken {
    Changed,
    Heartbeat,
    Closing,
}

impl Reader {
    /// Watches before it reads, so that nothing falls between.
    async fn new(app: web::Data<App>, saga: SagaId, after: u64) -> Self {
        Self {
            progress: app.engine().watch(saga).await,
            engine_tells: true,
            shards: app.heads().subscribe(),
            head: None,
            closing: app.closing(),
            heartbeat_at: Instant::now() + HEARTBEAT,
            stage: Stage::Greet,
            app,
            saga,
            after,
        }
    }

    /// The next piece of the stream.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            match self.stage {
                Stage::Greet => {
                    self.stage = Stage::Read;
                    return Some((Ok(Bytes::from(format!("retry: {RETRY_MS}\n\n"))), self));
                }
                Stage::Read => {
                    self.stage = Stage::Wait;
                    let text = self.read().await;
                    if !text.is_empty() {
                        return Some((Ok(Bytes::from(text)), self));
                    }
                }
                Stage::Wait => match self.wait().await {
                    Woken::Changed => self.stage = Stage::Read,
                    // Also a look, for what may have been missed.
                    Woken::Heartbeat => {
                        self.stage = Stage::Read;
                        return Some((Ok(Bytes::from_static(b": heartbeat\n\n")), self));
                    }
                    Woken::Closing => return None,
                },
                Stage::End => return None,
            }
        }
    }

    /// The events that were not sent yet, at most a page of them.
    async fn read(&mut self) -> String {
        let (saga, after) = (self.saga, self.after);
        let read = self.app.read(move |store| async move { store.events(saga, after, PAGE).await }).await;
        let events = match read {
            Ok(events) => events,
            Err(problem) => {
                tracing::debug!(saga_id = %saga, cause = problem.cause(), "a stream cannot be read; trying again");
                tokio::time::sleep(READ_AGAIN_AFTER).await;
                self.stage = Stage::Read;
                return String::new();
            }
        };
        if events.len() == PAGE as usize {
            self.stage = Stage::Read;
        }
        let mut text = String::new();
        for recorded in events {
            self.after = recorded.version;
            if is_last(&recorded) {
                self.stage = Stage::End;
            }
            match SagaEvent::try_from(recorded) {
                Ok(event) => push(&mut text, &event),
                Err(problem) => tracing::error!(saga_id = %saga, cause = problem.cause(), "an event cannot be shown"),
            }
        }
        text
    }

    /// Waits until there may be something to read, or something must be sent.
    async fn wait(&mut self) -> Woken {
        let shard = self.saga.shard(self.app.shards());
        loop {
            tokio::select! {
                told = self.progress.changed(), if self.engine_tells => {
                    self.engine_tells = told.is_ok();
                    return Woken::Changed;
                }
                Ok(()) = self.shards.changed() => {
                    let head = heads::of(&self.shards.borrow_and_update(), shard);
                    if head.is_some() && head != self.head {
                        self.head = head;
                        return Woken::Changed;
                    }
                }
                // It stopped, or the saga ended while the stream is being read.
                () = tokio::time::sleep(READ_AGAIN_AFTER), if !self.engine_tells => return Woken::Changed,
                () = tokio::time::sleep_until(self.heartbeat_at) => {
                    self.heartbeat_at = Instant::now() + HEARTBEAT;
                    return Woken::Heartbeat;
                }
                _ = self.closing.wait_for(|closing| *closing) => return Woken::Closing,
            }
        }
    }
}

/// Whether nothing comes after it.
const fn is_last(recorded: &Recorded) -> bool {
    matches!(recorded.event, Event::SagaCompleted(_) | Event::SagaCompensated(_) | Event::SagaAbandoned(_))
}

fn push(text: &mut String, event: &SagaEvent) {
    // An input may have line breaks, but only between its tokens: inside of strings JSON escapes them.
    let data = serde_json::to_string(event).expect("an event has string keys").replace(['\n', '\r'], " ");
    write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.version, event.type_name)
        .expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use reqwest::Method;
    use serde_json::{Value, json};

    use super::super::super::testing::TestServer;

    /// Reads until the stream ends or `count` events came.
    async fn follow(server: &TestServer, path: &str, count: usize) -> Vec<(u64, String, Value)> {
        let response = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut chunks = response.bytes_stream();
        let (mut text, mut seen) = (String::new(), Vec::new());
        while seen.len() < count
            && let Some(chunk) = chunks.next().await
        {
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                if let Some(data) = field("data: ") {
                    let id = field("id: ").unwrap().parse().unwrap();
                    seen.push((id, field("event: ").unwrap(), serde_json::from_str(&data).unwrap()));
                }
                text = rest.to_owned();
            }
        }
        seen
    }

    #[actix_web::test]
    async fn a_reader_sees_every_event_once_as_it_happens_and_the_stream_ends_with_the_saga() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        let path = format!("/sagas/{id}/stream");
        let following = follow(&server, &path, usize::MAX);
        let releasing = async {
            follow(&server, &path, 3).await;
            server.participants.release("publish:action");
        };
        let (seen, ()) = tokio::join!(following, releasing);
        let revision = server.until(&id, "completed").await.body["revision"].as_u64().unwrap();
        assert_eq!(seen.iter().map(|event| event.0).collect::<Vec<_>>(), (1..=revision).collect::<Vec<_>>());
        assert_eq!((&*seen[0].1, &seen[0].2["kind"]), ("SagaStarted", &json!("SagaStarted")));

        let resumed = server.request(Method::GET, &path).header("Last-Event-ID", revision - 1);
        assert!(server.send(resumed).await.text.contains("event: SagaCompleted"));
        let done = server.request(Method::GET, &path).header("Last-Event-ID", revision);
        assert_eq!(server.send(done).await.status, 204);
        server.get("/sagas/01890a5d-ac96-774b-bcce-b302099a8057/stream").await.problem(404, "saga_not_found");
    }

    #[actix_web::test]
    async fn a_reader_hears_of_commits_that_another_replica_makes() {
        let owner = TestServer::with_one_shard().await;
        let reader = TestServer::on(std::sync::Arc::clone(&owner.store), 1000, 1000).await;
        owner.participants.hold("publish:action");
        let id = owner.start_note().await;
        let path = format!("/sagas/{id}/stream");
        let releasing = async {
            follow(&reader, &path, 3).await;
            owner.participants.release("publish:action");
        };
        let (seen, ()) = tokio::join!(follow(&reader, &path, usize::MAX), releasing);
        assert_eq!(seen.last().unwrap().1, "SagaCompleted");
    }

    #[actix_web::test]
    async fn an_input_with_line_breaks_stays_one_event() {
        let server = TestServer::start().await;
        let request = server.request(Method::POST, "/sagas/note").body("{\n\"a\":\r\n \"x\\ny\"\n}");
        let saga = server.send(request).await;
        assert_eq!(saga.status, 201, "{}", saga.text);
        let seen = follow(&server, &format!("/sagas/{}/stream", saga.id()), 1).await;
        assert_eq!(seen[0].2["data"]["input"], json!({"a": "x\ny"}));
    }

    #[actix_web::test]
    async fn streams_end_when_the_server_closes() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        let path = format!("/sagas/{id}/stream");
        let closing = async {
            follow(&server, &path, 3).await;
            server.app.close();
        };
        let (seen, ()) = tokio::join!(follow(&server, &path, usize::MAX), closing);
        assert!(seen.iter().all(|event| event.1 != "SagaCompleted"), "it ended before the saga did");
        server.participants.release("publish:action");
    }
}
