//! `GET /readyz`: whether requests should be sent here.
//!
//! Ready is a replica that can take any request: the database answers and takes writes, commits get through, every shard
//! has an owner, here or where requests are forwarded to, and it is not stopping. A shard may be without an owner for
//! the length of a lease, as when one has just died: requests wait for the successor. Participants never make a replica
//! unready: their calls wait, and starts are still accepted.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use skald_core::ids::Shard;
use utoipa::{IntoParams, ToSchema};

use super::super::{
    endpoint,
    params::Params,
    problem::{Problem, problems},
};
use crate::{access::scope::Scope, app::App, engine::Health, forward::owners::Owner, storage::groups::ShardLag};

/// The database must answer by then.
const PING_TIME_MAX: Duration = Duration::from_secs(2);

/// How much to tell.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes")]
struct ReadinessParams {
    /// Show each check, to whoever has the scope `system:read`; without a value it means true.
    #[param(nullable = false, inline, pattern = "^(true|false)?$")]
    verbose: Option<String>,
}

/// Whether requests should be sent here.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    ready: bool,
    role: ReplicaRole,
    /// What it depends on; with `?verbose` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    checks: Vec<ReadinessCheck>,
}

/// What this replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    /// It owns shards, and drives their sagas.
    Active,
    /// Other replicas own all shards; it reads, forwards to them, and takes over when one dies.
    Standby,
    /// It has not taken shards that are free, yet.
    Starting,
    /// It is about to end.
    Stopping,
}

/// One thing that readiness depends on, or that is worth knowing.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadinessCheck {
    /// `database`, `commits`, `shards`, `replicas`, `bus`, `lag`, or `participant` and its name.
    #[schema(example = "database")]
    name: String,
    ok: bool,
    #[schema(example = "answers and takes writes")]
    detail: String,
}

problems!(Problems, InvalidParameter);

/// Ask whether the replica is ready.
///
/// Ready to take any request, that is: to carry it out, or to forward it to the replica that owns the saga. Participants
/// do not count, but are shown.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "operations",
    security((), ("bearer" = [Scope::SystemRead])),
    params(ReadinessParams),
    responses(
        (status = 200, description = "It is ready", body = Readiness),
        (status = 503, description = "It is not", body = Readiness),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let verbose = params.take_flag("verbose");
    params.finish()?;
    if verbose {
        endpoint::admit(&req, Scope::SystemRead).await?;
    }
    let health = app.engine().health();
    let (database, shards) = tokio::join!(database(&app), Shards::look(&app));
    let role = role(&app, &health, &shards);
    let (commits, shards) = (commits(&health), shards.check(&app, &health));
    let ready = database.ok && commits.ok && shards.ok && role != ReplicaRole::Stopping;
    let mut checks = Vec::new();
    if verbose {
        let alive = check("replicas", true, format!("{} alive", replicas(&app).await));
        checks.extend([database, commits, shards, alive]);
        checks.extend(bus(&app));
        checks.extend(lag(&app).await);
        checks.extend(participants(&app));
    }
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    Ok(response.json(Readiness { ready, role, checks }))
}

fn check(name: &str, ok: bool, detail: impl Into<String>) -> ReadinessCheck {
    ReadinessCheck { name: name.to_owned(), ok, detail: detail.into() }
}

async fn database(app: &App) -> ReadinessCheck {
    let ping = app.read(|store| async move { store.ping().await });
    match tokio::time::timeout(PING_TIME_MAX, ping).await {
        Ok(Ok(())) => check("database", true, "answers and takes writes"),
        Ok(Err(problem)) => {
            // What went wrong may name hosts and users: that is for the log.
            tracing::warn!(cause = problem.cause(), "not ready: the database does not answer");
            check("database", false, "does not answer or takes no writes")
        }
        Err(_) => check("database", false, format!("did not answer within {PING_TIME_MAX:?}")),
    }
}

/// Publishing does not make a replica unready: what is not published yet is in the log.
fn bus(app: &App) -> Option<ReadinessCheck> {
    let trouble = app.bus()?.trouble();
    let detail = if trouble.is_none() { "events are being published" } else { "takes no events; trying again" };
    Some(check("bus", trouble.is_none(), detail))
}

/// How far consumer groups are behind, if there are any.
async fn lag(app: &App) -> Option<ReadinessCheck> {
    let lags = app.groups(|groups| async move { groups.lags(None).await }).await.ok()?;
    let sum = |of: fn(&ShardLag) -> u64| lags.values().flatten().map(of).sum::<u64>();
    let (ahead, parked) = (sum(|lag| lag.ahead), sum(|lag| lag.parked));
    let detail = format!("{} consumer groups, {ahead} events to look at, {parked} parked", lags.len());
    (!lags.is_empty()).then(|| check("lag", parked == 0, detail))
}

fn commits(health: &Health) -> ReadinessCheck {
    match &health.stalled {
        None => check("commits", true, format!("{} transitions waiting", health.load.queued)),
        Some(reason) => {
            tracing::warn!(reason, "not ready: commits do not get through");
            check("commits", false, "do not get through; trying again")
        }
    }
}

/// Whose the shards are.
#[derive(Debug, Default)]
struct Shards {
    here: Vec<Shard>,
    elsewhere: Vec<Shard>,
    /// Nobody's, but lately somebody's.
    orphaned: Vec<Shard>,
    /// Nobody's, and for longer than it takes to succeed a dead owner.
    abandoned: Vec<Shard>,
}

impl Shards {
    async fn look(app: &App) -> Self {
        let (owners, lease) = (app.router().owners(), app.router().lease());
        let mut shards = Self::default();
        for row in &*owners.rows(Duration::ZERO).await {
            let whose = match owners.owner(row) {
                Owner::Here => &mut shards.here,
                Owner::Other(_) => &mut shards.elsewhere,
                Owner::Nobody if owners.ownerless_for(row.shard).is_some_and(|time| time <= lease) => {
                    &mut shards.orphaned
                }
                Owner::Nobody => &mut shards.abandoned,
            };
            whose.push(row.shard);
        }
        shards
    }

    fn check(&self, app: &App, health: &Health) -> ReadinessCheck {
        let of = |what: &str, shards: &[Shard]| format!("{what}: {}; ", ranges(shards));
        let detail = [
            of("owned here", &self.here),
            of("elsewhere", &self.elsewhere),
            of("waiting for a successor", &self.orphaned),
            of("without an owner", &self.abandoned),
            format!(
                "of {} shards. Here {} unfinished sagas, {} of them in memory",
                app.shards(),
                health.load.unfinished,
                health.load.resident
            ),
        ];
        let known = [&self.here, &self.elsewhere, &self.orphaned].iter().any(|shards| !shards.is_empty());
        check("shards", known && self.abandoned.is_empty(), detail.concat())
    }
}

/// How many replicas share the shards.
async fn replicas(app: &App) -> usize {
    let read = app.read(|store| async move { store.replicas().await });
    let replicas = tokio::time::timeout(PING_TIME_MAX, read).await.ok().and_then(Result::ok).unwrap_or_default();
    replicas.iter().filter(|replica| replica.alive).count()
}

/// Numbers in ascending order, as `0-3, 7`.
fn ranges(shards: &[Shard]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for Shard(number) in shards.iter().copied() {
        match ranges.last_mut() {
            Some((_, last)) if number == *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let texts: Vec<String> = ranges.into_iter().map(range).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn role(app: &App, health: &Health, shards: &Shards) -> ReplicaRole {
    if health.stopping || *app.closing().borrow() {
        ReplicaRole::Stopping
    } else if health.load.shards > 0 {
        ReplicaRole::Active
    } else if shards.elsewhere.len() == usize::from(app.shards()) {
        ReplicaRole::Standby
    } else {
        ReplicaRole::Starting
    }
}

fn participants(app: &App) -> Vec<ReadinessCheck> {
    let of = |health: crate::app::ParticipantHealth| {
        let paused = if health.paused { "paused, " } else { "" };
        let detail = format!(
            "{paused}circuit {}, {} calls in flight, {} waiting",
            health.circuit, health.in_flight, health.waiting
        );
        check(&format!("participant {}", health.name), !health.paused && health.circuit == "closed", detail)
    };
    app.gate().health().into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use skald_core::{ids::Shard, time::Millis};

    use super::super::super::testing::{TestServer, WallClock};
    use crate::storage::{Store as _, memory::MemoryStore};

    #[actix_web::test]
    async fn a_replica_with_shards_and_a_database_is_ready() {
        let server = TestServer::start().await;
        assert_eq!(server.get("/livez").await.body, json!({"status": "alive"}));
        let ready = server.get("/readyz").await;
        assert_eq!((ready.status, &ready.body), (200, &json!({"ready": true, "role": "active"})));
        for query in ["verbose", "verbose=true", "verbose="] {
            let verbose = server.get(&format!("/readyz?{query}")).await;
            let names: Vec<&str> = verbose.body["checks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|check| check["name"].as_str().unwrap())
                .collect();
            let expected = [
                "database",
                "commits",
                "shards",
                "replicas",
                "participant catalog",
                "participant orders",
                "participant sales",
            ];
            assert_eq!(names, expected);
        }
        server.get("/readyz?verbose=maybe").await.problem(400, "invalid_parameter");
    }

    #[actix_web::test]
    async fn a_replica_is_ready_without_shards_but_not_without_its_database_or_when_it_stops() {
        let server = TestServer::with_one_shard().await;
        let standby = TestServer::on(Arc::clone(&server.store), 10, 10).await;
        let reply = standby.get("/readyz?verbose").await;
        assert_eq!((reply.status, &reply.body["role"]), (200, &json!("standby")), "{}", reply.text);
        assert!(reply.text.contains("owned here: none; elsewhere: 0; "), "{}", reply.text);

        server.store.set_down(true);
        let down = server.get("/readyz?verbose").await;
        assert_eq!((down.status, &down.body["checks"][0]["ok"]), (503, &json!(false)), "{}", down.text);
        assert_eq!(server.get("/livez").await.status, 200);
        server.store.set_down(false);
        assert_eq!(server.get("/readyz").await.status, 200);
        server.app.close();
        assert_eq!(server.get("/readyz").await.body["role"], "stopping");
    }
    #[actix_web::test]
    async fn a_shard_without_an_owner_that_can_be_reached_makes_unready_and_is_named() {
        let store = Arc::new(MemoryStore::new(Arc::new(WallClock), 2));
        let stranger = crate::storage::Owner { id: "stranger".to_owned(), url: None };
        store.take_shards(&stranger, Some(&[Shard(1)]), Millis(60_000)).await.unwrap();
        let server = TestServer::on(store, 10, 10).await;
        let reply = server.get("/readyz?verbose").await;
        assert_eq!((reply.status, &reply.body["role"]), (503, &json!("active")), "{}", reply.text);
        assert!(reply.text.contains("without an owner: 1; "), "{}", reply.text);
    }

    #[test]
    fn numbers_in_a_row_are_shown_as_a_range() {
        for (numbers, text) in
            [(vec![], "none"), (vec![3], "3"), (vec![0, 1, 2], "0-2"), (vec![0, 2, 3, 7], "0, 2-3, 7")]
        {
            assert_eq!(super::ranges(&numbers.into_iter().map(Shard).collect::<Vec<_>>()), text);
        }
    }
}
