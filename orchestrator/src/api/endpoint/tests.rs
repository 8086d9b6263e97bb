//! Every endpoint of the specification, asked by every role and by nobody; and what is recorded of who asks.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use super::*;
use crate::{
    access::scope::Role,
    api::{
        openapi,
        testing::{TestServer, add_key, key_of},
    },
    config,
};

/// What an operation of the specification needs: a scope, or words for what else.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Need {
    Scope(Scope),
    /// Something, or less of it, is for everybody.
    Nothing,
    CallbackToken,
}

struct Operation {
    method: Method,
    path: String,
    need: Need,
}

fn operations() -> Vec<Operation> {
    let document = openapi::specification(&[]);
    let paths = document["paths"].as_object().unwrap().iter();
    // It lists one path per definition instead of this one.
    let start = ("/sagas/{definition}", json!({"post": {"security": [{BEARER: [Scope::SagasStart.as_str()]}]}}));
    let paths = paths.map(|(path, item)| (path.as_str(), item.clone())).chain([start]);
    let of_path = |(path, item): (&str, Value)| {
        let operation = |(method, operation): (&String, &Value)| {
            let security = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says nothing"));
            let need = match security.as_slice() {
                [only] if only[BEARER].is_array() => {
                    let [scope] = only[BEARER].as_array().unwrap().as_slice() else { panic!("{method} {path}") };
                    Need::Scope(scope.as_str().unwrap().parse().unwrap())
                }
                [only] if only["callback_token"].is_array() => Need::CallbackToken,
                [first, ..] if *first == json!({}) => Need::Nothing,
                other => panic!("{method} {path} needs {other:?}"),
            };
            let method = method.to_uppercase().parse().unwrap();
            Operation { method, path: path.to_owned(), need }
        };
        item.as_object().unwrap().iter().map(operation).collect::<Vec<_>>()
    };
    paths.flat_map(of_path).collect()
}

/// A path that fits the pattern, of something that is not there.
fn filled(pattern: &str) -> String {
    [
        ("/sagas/{definition}", "/sagas/none"),
        ("/subjects/{id}", "/subjects/none"),
        ("{id}", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("{shard}/{position}", "0/1"),
        ("{version}", "1"),
    ]
    .iter()
    .fold(pattern.to_owned(), |path, (name, value)| path.replace(name, value))
    .replace(['{', '}'], "")
}

/// Status and code. The body of a stream has no end, so only a problem's is read.
async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = if status < 400 { Value::Null } else { response.json().await.unwrap_or_default() };
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[actix_web::test]
async fn every_endpoint_lets_in_who_has_its_scope_and_nobody_else() {
    let server = TestServer::guarded(config::Access::default()).await;
    let operations = operations();
    assert!(operations.len() > 50, "{}", operations.len());
    for Operation { method, path, need } in operations {
        let asked = format!("{method} {path}");
        let request = || server.request(method.clone(), &filled(&path));
        let refusals = ["unauthenticated", "invalid_credentials", "forbidden"];
        let (status, code) = answer(request()).await;
        let expected = if matches!(need, Need::Scope(_)) { (401, "unauthenticated") } else { (status, &*code) };
        assert_eq!((status, &*code), expected, "{asked} by nobody");
        if need != Need::CallbackToken {
            let (status, code) = answer(request().bearer_auth(format!("{}0", key_of(Role::Admin).reveal()))).await;
            let expected = if need == Need::Nothing { (status, &*code) } else { (401, "invalid_credentials") };
            assert_eq!((status, &*code), expected, "{asked} by a wrong key");
        }
        for role in Role::ALL {
            let (status, code) = answer(server.request_as(role, method.clone(), &filled(&path))).await;
            match need {
                Need::Scope(scope) if !role.scopes().has(scope) => {
                    assert_eq!((status, &*code), (403, "forbidden"), "{asked} by {role}");
                }
                _ => assert!(!refusals.contains(&&*code) && status != 405, "{asked} by {role}: {status} {code}"),
            }
        }
    }
    let verbose = server.get("/readyz?verbose").await;
    verbose.problem(401, "unauthenticated");
    assert_eq!(server.get("/readyz").await.body["checks"], Value::Null);
    server.get_as(Role::Client, "/readyz?verbose").await.problem(403, "forbidden");
    assert!(server.get_as(Role::Viewer, "/readyz?verbose").await.body["checks"].is_array());
}

/// The table in `docs/API.md`.
fn table() -> String {
    let mut calls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Operation { method, path, need } in operations() {
        let word = match need {
            Need::Scope(scope) => scope.as_str(),
            Need::Nothing => "nothing",
            Need::CallbackToken => "callback token",
        };
        calls.entry(word).or_default().push(format!("`{method} {path}`"));
    }
    let mut table = String::from("| scope | what it allows | viewer | client | operator | admin | calls |\n");
    table.push_str("| --- | --- | :-: | :-: | :-: | :-: | --- |\n");
    for scope in Scope::ALL {
        let has = Role::ALL.map(|role| if role.scopes().has(scope) { "✓" } else { "" }).join(" | ");
        let calls = calls.remove(scope.as_str()).unwrap_or_else(|| panic!("no endpoint needs {scope}")).join(", ");
        writeln!(table, "| `{scope}` | {} | {has} | {calls} |", scope.meaning()).unwrap();
    }
    for (word, meaning) in
        [("nothing", "No key is needed"), ("callback token", "The call's `Saga-Callback-Token`, and no key")]
    {
        let calls = calls.remove(word).unwrap().join(", ");
        writeln!(table, "| {word} | {meaning} | ✓ | ✓ | ✓ | ✓ | {calls} |").unwrap();
    }
    assert!(calls.is_empty(), "{calls:?}");
    table
}

#[test]
fn the_documented_table_of_scopes_is_this_one() {
    const BEGIN: &str = "<!-- scopes: written by the tests -->\n";
    const END: &str = "<!-- end of scopes -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/API.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert!(documented == table, "docs/API.md is out of date: run the tests once with UPDATE_OPENAPI=1");
    }
}

#[actix_web::test]
async fn the_first_key_ends_that_everything_is_allowed() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/sagas").await.status, 200);
    add_key(&*server.store, Role::Viewer).await;
    while server.get("/sagas").await.status == 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = server.get("/sagas").await;
    refused.problem(401, "unauthenticated");
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"skald\"");
    assert_eq!(server.get_as(Role::Viewer, "/sagas").await.status, 200);
    let lower = server.request(Method::GET, "/sagas");
    let lower = lower.header("Authorization", format!("bearer  {}", key_of(Role::Viewer).reveal()));
    assert_eq!(server.send(lower).await.status, 200);
    for other in ["Basic c2thbGQ6", "Bearer", "skald_", ""] {
        let reply = server.send(server.request(Method::GET, "/sagas").header("Authorization", other)).await;
        assert_eq!(reply.status, 401, "{other}: {}", reply.text);
    }
}

/// The audit log, newest first, as actor, action, target, outcome and code.
async fn audit_log(server: &TestServer, query: &str) -> Vec<[String; 5]> {
    let page = server.get_as(Role::Admin, &format!("/admin/audit?{query}")).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or("-").to_owned();
    let line = |item: &Value| ["actor", "action", "target", "outcome", "code"].map(|name| text(item, name));
    page.body["items"].as_array().unwrap().iter().map(line).collect()
}

#[actix_web::test]
async fn an_action_is_its_callers_and_recorded_from_begin_to_end() {
    let server = TestServer::guarded(config::Access::default()).await;
    let act = |path: &str, body: Value| server.request_as(Role::Operator, Method::POST, path).json(&body);
    let paused = server.send(act("/admin/definitions/note/pause", json!({"reason": "maintenance"}))).await;
    assert_eq!((paused.status, &paused.body["actor"]), (200, &json!("operator")), "{}", paused.text);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let repeated = act(&format!("/admin/sagas/{id}/retry"), json!({"reason": "ticket 4"}));
    server.send(repeated.header("Idempotency-Key", "ticket-4")).await.problem(404, "saga_not_found");

    let line = |words: [&str; 5]| words.map(str::to_owned);
    let pause = "/definitions/note";
    assert_eq!(
        audit_log(&server, "actor=operator").await,
        [
            line(["operator", "saga.retry", &format!("/sagas/{id}"), "failed", "saga_not_found"]),
            line(["operator", "saga.retry", &format!("/sagas/{id}"), "begun", "-"]),
            line(["operator", "definition.pause", pause, "done", "-"]),
            line(["operator", "definition.pause", pause, "begun", "-"]),
        ]
    );
    let page = server.get_as(Role::Admin, "/admin/audit?request_id=ticket-4&outcome=begun").await;
    let entry = &page.body["items"][0];
    assert_eq!((&entry["reason"], &entry["times"]), (&json!("ticket 4"), &json!(1)), "{}", page.text);
    assert_eq!(entry["credential"], format!("key:{}", key_of(Role::Operator).id()));
    let first = server.get_as(Role::Admin, "/admin/audit?actor=operator&limit=3").await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let rest = audit_log(&server, &format!("actor=operator&limit=3&cursor={cursor}")).await;
    assert_eq!(rest, [line(["operator", "definition.pause", pause, "begun", "-"])]);
    server.get_as(Role::Admin, &format!("/admin/audit?cursor={cursor}")).await.problem(400, "invalid_cursor");
    server.get_as(Role::Admin, "/admin/audit?outcome=well").await.problem(400, "invalid_parameter");

    // Nobody acts in another's name.
    let other = json!({"reason": "maintenance", "actor": "jane"});
    server.send(act("/admin/definitions/note/resume", other)).await.problem(403, "forbidden");
}

#[actix_web::test]
async fn what_cannot_be_recorded_is_not_done() {
    let server = TestServer::start().await;
    let request = actix_web::test::TestRequest::default().to_http_request();
    server.store.set_down(true);
    let mut done = false;
    let recorded = server.app.recorded(act(&request, "a.test", "/nothing".to_owned()), async {
        done = true;
        Ok(())
    });
    assert_eq!(recorded.await.unwrap_err().code(), Code::DatabaseUnavailable);
    assert!(!done);
    server.store.set_down(false);
}

#[actix_web::test]
async fn an_action_whose_end_nobody_sees_is_recorded_as_that() {
    let server = TestServer::guarded(config::Access::default()).await;
    let request = actix_web::test::TestRequest::default().to_http_request();
    let forever = server.app.recorded(act(&request, "a.test", "/nothing".to_owned()), std::future::pending());
    let left: Result<Result<(), Problem>, _> = tokio::time::timeout(Duration::from_millis(200), forever).await;
    assert!(left.is_err());
    while audit_log(&server, "action=a.test&outcome=unknown").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(audit_log(&server, "action=a.test").await.len(), 2);
}

#[actix_web::test]
async fn refusals_are_recorded_with_who_and_what_but_not_whom() {
    let server = TestServer::guarded(config::Access::default()).await;
    server.get("/sagas").await.problem(401, "unauthenticated");
    server.get_as(Role::Viewer, "/admin/subjects/jane.doe@example.com").await.problem(403, "forbidden");
    let mut recorded = Vec::new();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let completed = json!({"operation": "action", "outcome": "succeeded"});
    server.post(&format!("/sagas/{id}/steps/write/complete"), &completed).await.problem(401, "missing_token");
    while recorded.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        recorded = audit_log(&server, "outcome=refused").await;
    }
    recorded.sort();
    let expected = [
        ["-", "access.refuse", "GET /sagas", "refused", "unauthenticated"],
        ["-", "access.refuse", "POST /sagas/{id}/steps/{step}/complete", "refused", "missing_token"],
        ["viewer", "access.refuse", "GET /admin/subjects/{id}", "refused", "forbidden"],
    ];
    assert_eq!(recorded, expected.map(|line| line.map(str::to_owned)));
}

#[actix_web::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let rate_limit = Some(config::RateLimit { per_second: 1, burst: Some(2) });
    let server = TestServer::guarded(config::Access { rate_limit, ..config::Access::default() }).await;
    let first = server.get_as(Role::Viewer, "/sagas").await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"caller\";q=2;w=2"));
    assert_eq!(first.header("ratelimit"), "\"caller\";r=1;t=1");
    // Errors tell it too, and count.
    let second = server.get_as(Role::Viewer, "/sagas/01890a5d-ac96-774b-bcce-b302099a8057").await;
    assert_eq!((second.status, second.header("ratelimit")), (404, "\"caller\";r=0;t=1"), "{}", second.text);
    let third = server.get_as(Role::Viewer, "/sagas").await;
    third.problem(429, "rate_limited");
    assert_eq!((third.header("retry-after"), third.header("ratelimit")), ("1", "\"caller\";r=0;t=1"));
    assert_eq!(server.get_as(Role::Client, "/sagas").await.status, 200, "another's rate is another's");
    assert_eq!(server.get("/livez").await.status, 200);
}
