//! The event store over HTTP, with a real log.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::testing::{Reply, TestServer};
use crate::storage::SqliteStore;

type Server = TestServer<SqliteStore>;

fn added(id: &str, product: &str) -> Value {
    json!({"event_id": id, "type": "CartItemAdded", "data": {"product_id": product, "quantity": 1}})
}

async fn append(server: &Server, stream: &str, expected: Value, events: &[Value]) -> Reply {
    let body = json!({"expected_version": expected, "events": events});
    server.post(&format!("/streams/{stream}/events"), &body).await
}

fn each<'a>(page: &'a Reply, field: &str) -> Vec<&'a Value> {
    page.body["items"].as_array().unwrap_or_else(|| panic!("{}", page.text)).iter().map(|item| &item[field]).collect()
}

#[actix_web::test]
async fn a_stream_is_appended_to_at_the_expected_version_and_each_event_once() {
    let server = TestServer::logged().await;
    let first = append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2")]).await;
    assert_eq!((first.status, &first.body), (201, &json!({"stream": "cart-1", "version": 2})), "{}", first.text);
    let again = append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2")]).await;
    assert_eq!((again.status, &again.body["version"]), (200, &json!(2)), "{}", again.text);
    assert_eq!(again.header("idempotent-replayed"), "true");
    let stale = append(&server, "cart-1", json!(1), &[added("c", "p-3")]).await;
    stale.problem(409, "version_conflict");
    assert_eq!(stale.body["actual_version"], 2);
    append(&server, "cart-2", json!(7), &[added("c", "p-3")]).await.problem(409, "version_conflict");
    append(&server, "cart-1", json!(2), &[added("b", "p-2"), added("d", "p-3")]).await.problem(422, "event_id_reused");
    assert_eq!(append(&server, "cart-1", json!("any"), &[added("c", "p-3")]).await.body["version"], 3);
    let page = server.get("/streams/cart-1/events").await;
    assert_eq!(each(&page, "version"), [1, 2, 3].map(|version| Box::leak(Box::new(json!(version))) as &Value));
    assert_eq!(page.body["next_cursor"], "3");
    server.get("/streams/cart-9/events").await.problem(404, "stream_not_found");
}

#[actix_web::test]
async fn a_participants_report_is_appended_to_its_saga_once_and_in_its_turn() {
    let server = TestServer::logged().await;
    let input = json!({
        "customer_id": "c-1", "items": [{"product_id": "p-1", "quantity": 1}],
        "payment": {"method": "card", "token": "tok_ok"},
    });
    let saga = server.post("/sagas/checkout?mode=choreographed", &input).await.id().to_owned();
    let report = |step: &str| {
        let data = json!({"step": step, "operation": "action", "outcome": "succeeded", "output": {"total": 1}});
        json!({"event_id": format!("{saga}:{step}:action"), "data": data})
    };
    let first = append(&server, &saga, json!("any"), &[report("verify_stock")]).await;
    assert_eq!((first.status, &first.body), (201, &json!({"stream": saga, "version": 2})), "{}", first.text);
    assert_eq!(first.header("idempotent-replayed"), "");
    for expected in [json!("any"), json!(1)] {
        let again = append(&server, &saga, expected, &[report("verify_stock")]).await;
        assert_eq!((again.status, &again.body["version"]), (200, &json!(2)), "{}", again.text);
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    append(&server, &saga, json!("any"), &[report("confirm_order")]).await.problem(409, "step_not_enabled");
    let with_more = append(&server, &saga, json!("any"), &[report("verify_stock"), report("reserve_stock")]).await;
    assert_eq!((with_more.status, &with_more.body["version"]), (201, &json!(3)), "{}", with_more.text);
}

#[actix_web::test]
async fn several_streams_are_appended_to_in_one_request_and_each_is_answered_on_its_own() {
    let server = TestServer::logged().await;
    let input = json!({
        "customer_id": "c-1", "items": [{"product_id": "p-1", "quantity": 1}],
        "payment": {"method": "card", "token": "tok_ok"},
    });
    let saga = server.post("/sagas/checkout?mode=choreographed", &input).await.id().to_owned();
    let data =
        |step: &str| json!({"step": step, "operation": "action", "outcome": "succeeded", "output": {"total": 1}});
    let report = json!({"event_id": format!("{saga}:verify_stock:action"), "data": data("verify_stock")});
    let one = |stream: &str, expected: Value, event: Value| json!({"stream": stream, "expected_version": expected, "events": [event]});
    let many = json!({"appends": [
        one("cart-1", json!(0), added("a", "p-1")),
        one(&saga, json!("any"), report),
        one("cart-2", json!(7), added("b", "p-1")),
    ]});
    for status in [201, 200] {
        let reply = server.post("/events", &many).await;
        let results = &reply.body["results"];
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(results[0], json!({"stream": "cart-1", "status": status, "version": 1}), "{}", reply.text);
        assert_eq!(results[1], json!({"stream": saga, "status": status, "version": 2}), "{}", reply.text);
        assert_eq!((&results[2]["status"], &results[2]["stream"]), (&json!(409), &json!("cart-2")));
        assert_eq!(results[2]["problem"]["code"], "version_conflict");
        assert_eq!(results[2]["problem"]["actual_version"], 0);
    }
    // Byte for byte here too.
    let event = one("cart-3", json!(0), json!({"event_id": "a", "type": "Weighed", "data": {"kg": 0}}));
    let body = json!({"appends": [event]}).to_string().replace("{\"kg\":0}", "{\"kg\": 1.50}");
    server.send(server.request(Method::POST, "/events").body(body)).await;
    assert!(server.get("/streams/cart-3/events").await.text.contains(r#""data":{"kg": 1.50}"#));

    for (appends, place) in [
        (json!([]), "/appends"),
        (json!([one("Cart", json!(0), added("a", "p-1"))]), "/appends/0/stream"),
        (json!([one("cart-9", json!(0), added("", "p-1"))]), "/appends/0/events/0/event_id"),
        (json!([one("cart-9", json!(-1), added("a", "p-1"))]), "/appends/0/expected_version"),
        (
            json!([one("cart-9", json!(0), added("a", "p-1")), one("cart-9", json!(1), added("b", "p-1"))]),
            "/appends/1/stream",
        ),
    ] {
        let refused = server.post("/events", &json!({"appends": appends})).await;
        refused.problem(400, "invalid_body");
        assert_eq!(refused.body["errors"][0]["place"], place, "{}", refused.text);
    }
    server.get("/streams/cart-9/events").await.problem(404, "stream_not_found");
}

#[actix_web::test]
async fn an_event_is_a_cloud_event_with_all_that_was_said_of_it() {
    let server = TestServer::logged().await;
    let event = json!({
        "event_id": "e-1", "type": "ComplaintOpened", "schema_version": 3, "correlation_id": "corr-1",
        "causation_id": "cause-1", "actor": "jane", "data": {"n": 0},
    });
    let body = json!({"expected_version": "any", "events": [event]}).to_string().replace("{\"n\":0}", "{\"n\": 1.50}");
    server.send(server.request(Method::POST, "/streams/complaint-7/events").body(body)).await;
    let page = server.get("/streams/complaint-7/events").await;
    let shown = &page.body["items"][0];
    for (name, value) in [
        ("specversion", json!("1.0")),
        ("id", json!("e-1")),
        ("source", json!("skald")),
        ("type", json!("ComplaintOpened")),
        ("subject", json!("complaint-7")),
        ("stream", json!("complaint-7")),
        ("version", json!(1)),
        ("shard", json!(0)),
        ("position", json!(1)),
        ("kind", json!("Appended")),
        ("category", json!("complaint")),
        ("correlationid", json!("corr-1")),
        ("causationid", json!("cause-1")),
        ("actor", json!("jane")),
        ("schemaversion", json!(3)),
        ("datacontenttype", json!("application/json")),
    ] {
        assert_eq!(shown[name], value, "{name}: {}", page.text);
    }
    assert!(shown["time"].as_str().unwrap().ends_with('Z'));
    // Byte for byte.
    assert!(page.text.contains(r#""data":{"n": 1.50}"#), "{}", page.text);
}

#[actix_web::test]
async fn the_log_is_read_in_pages_by_any_filter() {
    let server = TestServer::logged().await;
    let id = server.start_note().await;
    server.until(&id, "completed").await;
    append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2")]).await;

    let (mut seen, mut after) = (Vec::new(), "p".to_owned());
    loop {
        let page = server.get(&format!("/events?limit=2&after={after}")).await;
        let positions = each(&page, "position").into_iter().map(|position| position.as_i64().unwrap());
        let before = seen.len();
        seen.extend(positions);
        page.body["next_cursor"].as_str().unwrap().clone_into(&mut after);
        if seen.len() == before {
            break;
        }
    }
    let last = i64::try_from(seen.len()).unwrap();
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());

    let count = async |query: &str| each(&server.get(&format!("/events?limit=250&{query}")).await, "id").len();
    let all = seen.len();
    assert_eq!(count("category=cart").await, 2);
    assert_eq!(count("category=saga").await, all - 2);
    assert_eq!(count("category=saga,cart").await, all);
    assert_eq!(count("type=CartItemAdded").await, 2);
    assert_eq!(count("kind=SagaStarted").await, 1);
    assert_eq!(count("definition=note").await, all - 2);
    assert_eq!(count("definition=checkout").await, 0);
    assert_eq!(count("mode=choreographed").await, 0);
    assert_eq!(count(&format!("stream={id}&kind=SagaCompleted")).await, 1);
    assert_eq!(count("stream=cart-1").await, 2);
    assert_eq!(count("since=2020-01-01T00:00:00Z").await, all);
    assert_eq!(count("until=2020-01-01T00:00:00Z").await, 0);
    assert_eq!(count("after=end").await, 0);
    let correlation = server.get(&format!("/sagas/{id}")).await.body["correlation_id"].as_str().unwrap().to_owned();
    assert_eq!(count(&format!("correlation_id={correlation}")).await, all - 2);
    server.get("/events?stream=cart-9").await.problem(404, "stream_not_found");
    for query in ["after=x", "after=p8", "limit=0", "wait=soon", "mode=both", "stream=Cart", "since=now", "nope=1"] {
        server.get(&format!("/events?{query}")).await.problem(400, "invalid_parameter");
    }
}

#[actix_web::test]
async fn who_waits_hears_of_what_comes() {
    let server = TestServer::logged().await;
    let end = server.get("/events?after=end").await.body["next_cursor"].as_str().unwrap().to_owned();
    let log = format!("/events?after={end}&wait=30s");
    let log = server.get(&log);
    let stream = server.get("/streams/cart-1/events?wait=30s");
    let appending = async {
        append(&server, "cart-1", json!(0), &[added("a", "p-1")]).await;
    };
    let (log, stream, ()) = tokio::join!(log, stream, appending);
    assert_eq!((each(&log, "id"), each(&stream, "id")), (vec![&json!("a")], vec![&json!("a")]));
}

#[actix_web::test]
async fn the_tail_goes_on_where_it_was() {
    let server = TestServer::logged().await;
    append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2")]).await;
    let first = follow(&server, "/events/tail?after=p", None, 1).await;
    append(&server, "cart-1", json!(2), &[added("c", "p-3")]).await;
    let rest = follow(&server, "/events/tail", Some(&first[0].0), 2).await;
    let ids: Vec<&Value> = first.iter().chain(&rest).map(|(_, event)| &event["id"]).collect();
    assert_eq!(ids, [&json!("a"), &json!("b"), &json!("c")]);
    let bad = server.request(Method::GET, "/events/tail").header("Last-Event-ID", "7");
    server.send(bad).await.problem(400, "invalid_header");
}

/// The first events of a tail, each with its id.
async fn follow(server: &Server, path: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let mut request = server.request(Method::GET, path);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let mut chunks = request.send().await.unwrap().bytes_stream();
    let (mut text, mut seen) = (String::new(), Vec::new());
    while seen.len() < count {
        text.push_str(std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            if let Some(data) = field("data: ")
                && seen.len() < count
            {
                seen.push((field("id: ").unwrap(), serde_json::from_str(&data).unwrap()));
            }
            text = rest.to_owned();
        }
    }
    seen
}

#[actix_web::test]
async fn a_state_is_rebuilt_as_of_any_version() {
    let server = TestServer::logged().await;
    append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2"), added("c", "p-1")]).await;
    let items = async |query: &str| server.get(&format!("/streams/cart-1/state{query}")).await.body;
    let last = items("").await;
    assert_eq!(last["version"], 3);
    assert_eq!(last["state"]["items"][0], json!({"product_id": "p-1", "quantity": 2}));
    assert_eq!(items("?version=1").await["state"]["items"], json!([{"product_id": "p-1", "quantity": 1}]));
    server.get("/streams/cart-1/state?version=4").await.problem(400, "invalid_parameter");
    server.get("/streams/cart-1/state?version=0").await.problem(400, "invalid_parameter");
    server.get("/streams/cart-9/state").await.problem(404, "stream_not_found");

    let id = server.start_note().await;
    let saga = server.until(&id, "completed").await;
    assert_eq!(server.get(&format!("/streams/{id}/state")).await.body["state"], saga.body);
    let begun = server.get(&format!("/streams/{id}/state?version=2")).await.body;
    assert_eq!((&begun["state"]["status"], &begun["state"]["revision"]), (&json!("running"), &json!(2)));
    server.get("/streams/01890a5d-ac96-774b-bcce-b302099a8057/state").await.problem(404, "saga_not_found");
}

#[actix_web::test]
async fn the_log_is_counted_by_category_and_type() {
    let server = TestServer::logged().await;
    append(&server, "cart-1", json!(0), &[added("a", "p-1"), added("b", "p-2")]).await;
    let stats = server.get("/events/stats").await.body;
    assert_eq!((&stats["total"], &stats["heads"]), (&json!(2), &json!({"0": 2})));
    assert_eq!(stats["counts"], json!([{"category": "cart", "type": "CartItemAdded", "events": 2}]));
    let after = stats["cursor"].as_str().unwrap();
    assert!(each(&server.get(&format!("/events?after={after}")).await, "id").is_empty());
}

#[actix_web::test]
async fn what_cannot_be_appended_is_refused_by_its_place() {
    let server = TestServer::logged().await;
    let refused = async |body: Value, place: &str| {
        let reply = server.post("/streams/cart-1/events", &body).await;
        reply.problem(400, "invalid_body");
        let places: Vec<&Value> =
            reply.body["errors"].as_array().unwrap().iter().map(|error| &error["place"]).collect();
        assert!(places.contains(&&json!(place)), "{place}: {}", reply.text);
    };
    let one = |event: Value| json!({"expected_version": "any", "events": [event]});
    refused(json!({"events": [added("a", "p")]}), "/expected_version").await;
    for version in [json!(-1), json!(1.5), json!("some"), json!(null)] {
        refused(json!({"expected_version": version, "events": [added("a", "p")]}), "/expected_version").await;
    }
    refused(json!({"expected_version": 0, "events": []}), "/events").await;
    refused(json!({"expected_version": 0, "events": [added("a", "p"), added("a", "q")]}), "/events/1/event_id").await;
    refused(one(json!({"type": "X", "data": {}})), "/events/0/event_id").await;
    refused(one(json!({"event_id": "", "type": "X", "data": {}})), "/events/0/event_id").await;
    refused(one(json!({"event_id": "a", "data": {}})), "/events/0/type").await;
    refused(one(json!({"event_id": "a", "type": "X\n", "data": {}})), "/events/0/type").await;
    refused(one(json!({"event_id": "a", "type": "X", "data": []})), "/events/0/data").await;
    refused(one(json!({"event_id": "a", "type": "X", "data": {}, "schema_version": 0})), "/events/0/schema_version")
        .await;
    refused(one(json!({"event_id": "a", "type": "X", "data": {}, "version": 1})), "/events/0/version").await;
    append(&server, "saga-1", json!("any"), &[added("a", "p")]).await.problem(400, "invalid_parameter");
    assert!(each(&server.get("/events").await, "id").is_empty());
}
