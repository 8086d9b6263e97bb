//! `GET /readyz`: whether requests should be sent here.
//!
//! Ready is a replica that can start sagas: the database answers and takes writes, commits get through, it owns at least
//! one shard, and it is not stopping. A replica without shards (`standby`: others have them all; `starting`: it has yet
//! to take some) is not ready, though it answers whatever only reads. Participants never make it unready: their calls
//! wait, and starts are still accepted.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::{app::App, engine::Health, storage::ShardRow};

/// The database must answer by then.
const PING_TIME_MAX: Duration = Duration::from_secs(2);

/// How much to tell.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes")]
struct ReadinessParams {
    /// Show each check; without a value it means true.
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
    /// Other replicas own all shards; it reads, and takes over when one dies.
    Standby,
    /// It has not taken shards that are free, yet.
    Starting,
    /// It is about to end.
    Stopping,
}

/// One thing that readiness depends on, or that is worth knowing.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadinessCheck {
    /// `database`, `commits`, `shards`, or `participant` and its name.
    #[schema(example = "database")]
    name: String,
    ok: bool,
    #[schema(example = "answers and takes writes")]
    detail: String,
}

problems!(Problems, InvalidParameter);

/// Ask whether the replica is ready.
///
/// Ready to start sagas, that is: reading works in any role. Participants do not count, but are shown.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "operations",
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
    let health = app.engine().health();
    let (database, shards) = tokio::join!(database(&app), shards(&app));
    let role = role(&app, &health, &shards);
    let commits = commits(&health);
    let ready = database.ok && commits.ok && role == ReplicaRole::Active;
    let mut checks = Vec::new();
    if verbose {
        let sharing = replicas(&app).await;
        checks.extend([database, commits, shards_check(&app, &health, sharing, &shards)]);
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

fn commits(health: &Health) -> ReadinessCheck {
    match &health.stalled {
        None => check("commits", true, format!("{} transitions waiting", health.load.queued)),
        Some(reason) => {
            tracing::warn!(reason, "not ready: commits do not get through");
            check("commits", false, "do not get through; trying again")
        }
    }
}

async fn shards(app: &App) -> Vec<ShardRow> {
    let read = app.read(|store| async move { store.shards().await });
    tokio::time::timeout(PING_TIME_MAX, read).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// How many replicas share the shards.
async fn replicas(app: &App) -> usize {
    let read = app.read(|store| async move { store.replicas().await });
    let replicas = tokio::time::timeout(PING_TIME_MAX, read).await.ok().and_then(Result::ok).unwrap_or_default();
    replicas.iter().filter(|replica| replica.alive).count()
}

fn role(app: &App, health: &Health, shards: &[ShardRow]) -> ReplicaRole {
    let now = app.clock().now();
    let is_anothers =
        |row: &ShardRow| row.lease_until > now && row.owner.as_deref().is_some_and(|owner| owner != app.owner_id());
    if health.stopping || *app.closing().borrow() {
        ReplicaRole::Stopping
    } else if health.load.shards > 0 {
        ReplicaRole::Active
    } else if !shards.is_empty() && shards.iter().all(is_anothers) {
        ReplicaRole::Standby
    } else {
        ReplicaRole::Starting
    }
}

fn shards_check(app: &App, health: &Health, sharing: usize, shards: &[ShardRow]) -> ReadinessCheck {
    let owned = health.load.shards;
    let detail = format!(
        "owns {owned} of {}, replicas alive: {sharing}; {} unfinished sagas, {} of them in memory",
        app.shards(),
        health.load.unfinished,
        health.load.resident
    );
    check("shards", owned > 0 && !shards.is_empty(), detail)
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
    use serde_json::json;

    use super::super::super::testing::TestServer;

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
            let expected =
                ["database", "commits", "shards", "participant catalog", "participant orders", "participant sales"];
            assert_eq!(names, expected);
        }
        server.get("/readyz?verbose=maybe").await.problem(400, "invalid_parameter");
    }

    #[actix_web::test]
    async fn a_replica_is_not_ready_without_its_database_or_shards_or_when_it_stops() {
        let server = TestServer::with_one_shard().await;
        let standby = TestServer::on(std::sync::Arc::clone(&server.store), 10, 10).await;
        let reply = standby.get("/readyz").await;
        assert_eq!((reply.status, &reply.body["role"]), (503, &json!("standby")), "{}", reply.text);
        standby.post("/sagas/note", &json!({})).await.problem(503, "no_owner");

        server.store.set_down(true);
        let down = server.get("/readyz?verbose").await;
        assert_eq!((down.status, &down.body["checks"][0]["ok"]), (503, &json!(false)), "{}", down.text);
        assert_eq!(server.get("/livez").await.status, 200);
        server.store.set_down(false);
        assert_eq!(server.get("/readyz").await.status, 200);
        server.app.close();
        assert_eq!(server.get("/readyz").await.body["role"], "stopping");
    }
}
