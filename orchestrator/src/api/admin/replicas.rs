//! `GET /admin/replicas`: who is there, and who owns which shard.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use skald_core::time::Timestamp;
use utoipa::ToSchema;

use super::super::{
    params::Params,
    problem::{Problem, problems},
    words::Moment,
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::{ReplicaRow, ShardRow, Store},
};

/// The replicas on this database, and the shards that none of them owns.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplicaList {
    /// Those that live or died lately; who started first comes first.
    items: Vec<ReplicaView>,
    /// Nobody's at the moment: requests for their sagas wait, or are answered 503.
    unowned: Vec<UnownedShard>,
}

/// A replica.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplicaView {
    /// Made anew at each start.
    #[schema(format = "uuid")]
    id: String,
    /// Where other replicas reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "http://skald-1:8080")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "0.1.0")]
    version: Option<String>,
    alive: bool,
    /// Whether it is the one that answers this.
    this: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    started_at: Option<Moment>,
    /// Until when its last heartbeat is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seen_until: Option<Moment>,
    shards: Vec<OwnedShard>,
}

/// A shard of a replica.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnedShard {
    shard: u16,
    /// The number of this ownership; each is higher than the one before.
    epoch: i64,
    /// Position of its last event.
    head: i64,
    lease_until: Moment,
}

/// A shard of nobody.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnownedShard {
    shard: u16,
    epoch: i64,
    head: i64,
    /// Whose lease ended without being renewed; absent when it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_owner: Option<String>,
}

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// List replicas.
///
/// Who is there and who owns which shard, as the database says. A saga's shard is fixed; its owner drives the saga, and
/// changes to it are forwarded there.
#[utoipa::path(
    get,
    path = "/admin/replicas",
    operation_id = "listReplicas",
    tag = "admin",
    security(("bearer" = [Scope::SystemRead])),
    responses((status = 200, description = "All replicas and shards", body = ReplicaList), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let read =
        |store: Arc<dyn Store>| async move { Ok((store.replicas().await?, store.shards().await?, store.now().await?)) };
    let (replicas, shards, now) = app.read(read).await?;
    Ok(HttpResponse::Ok().json(list(replicas, shards, now, app.owner_id())))
}

fn list(replicas: Vec<ReplicaRow>, shards: Vec<ShardRow>, now: Timestamp, own_id: &str) -> ReplicaList {
    let mut items: Vec<ReplicaView> = replicas.into_iter().map(|row| ReplicaView::of(row, own_id)).collect();
    let mut owned: BTreeMap<String, Vec<ShardRow>> = BTreeMap::new();
    let mut unowned = Vec::new();
    for row in shards {
        match row.owner.clone() {
            Some(owner) if row.lease_until > now => owned.entry(owner).or_default().push(row),
            _ => unowned.push(UnownedShard::from(row)),
        }
    }
    for (id, rows) in owned {
        let index = items.iter().position(|item| item.id == id).unwrap_or_else(|| {
            // It said that it leaves, and is about to give up its shards.
            items.push(ReplicaView::leaving(id, &rows, own_id));
            items.len() - 1
        });
        items[index].shards = rows.into_iter().map(OwnedShard::from).collect();
    }
    ReplicaList { items, unowned }
}

impl ReplicaView {
    fn of(row: ReplicaRow, own_id: &str) -> Self {
        Self {
            this: row.id == own_id,
            id: row.id,
            url: row.url,
            version: Some(row.version),
            alive: row.alive,
            started_at: Some(row.started_at.into()),
            seen_until: Some(row.seen_until.into()),
            shards: Vec::new(),
        }
    }

    fn leaving(id: String, rows: &[ShardRow], own_id: &str) -> Self {
        Self {
            this: id == own_id,
            id,
            url: rows.first().and_then(|row| row.owner_url.clone()),
            version: None,
            alive: true,
            started_at: None,
            seen_until: None,
            shards: Vec::new(),
        }
    }
}

impl From<ShardRow> for OwnedShard {
    fn from(row: ShardRow) -> Self {
        Self { shard: row.shard.0, epoch: row.epoch.0, head: row.head, lease_until: row.lease_until.into() }
    }
}

impl From<ShardRow> for UnownedShard {
    fn from(row: ShardRow) -> Self {
        Self { shard: row.shard.0, epoch: row.epoch.0, head: row.head, last_owner: row.owner }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skald_core::{ids::Shard, time::Millis};

    use super::super::super::testing::TestServer;
    use crate::storage::{Owner, Store as _};

    #[actix_web::test]
    async fn any_replica_tells_who_owns_what() {
        let (owner, other) = TestServer::pair().await;
        for server in [&owner, &other] {
            let reply = server.get("/admin/replicas").await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let items = reply.body["items"].as_array().unwrap();
            assert_eq!(items.len(), 2, "{}", reply.text);
            for (item, replica, shards) in [(&items[0], &owner, 1), (&items[1], &other, 0)] {
                assert_eq!((&item["id"], &item["url"]), (&json!(replica.app.owner_id()), &json!(replica.base)));
                assert_eq!(item["this"], replica.base == server.base);
                assert_eq!((&item["alive"], &item["version"]), (&json!(true), &json!(env!("CARGO_PKG_VERSION"))));
                assert_eq!(item["shards"].as_array().unwrap().len(), shards, "{}", reply.text);
            }
            assert_eq!(items[0]["shards"][0]["shard"], 0);
            assert!(items[0]["shards"][0]["lease_until"].is_string());
            assert_eq!(reply.body["unowned"], json!([]));
        }
    }

    #[actix_web::test]
    async fn a_shard_of_nobody_is_shown_with_who_had_it() {
        let (owner, other) = TestServer::pair().await;
        owner.stop().await;
        other.stop().await;
        let gone = Owner { id: "gone".to_owned(), url: None };
        other.store.take_shards(&gone, Some(&[Shard(0)]), Millis(0)).await.unwrap();
        let third = super::list(Vec::new(), other.store.shards().await.unwrap(), other.app.clock().now(), "me");
        assert_eq!(serde_json::to_value(&third.unowned).unwrap()[0]["last_owner"], "gone");
        assert!(third.items.is_empty());
    }
}
