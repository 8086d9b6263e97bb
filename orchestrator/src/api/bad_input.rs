//! Requests that are wrong in every way: always a 4xx problem that names what is wrong, and nothing written.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::TestServer;

const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn order(customer: &str) -> String {
    format!(
        "{{\"customer_id\":{customer},\"items\":[{{\"product_id\":\"p-1\",\"quantity\":2}}],\
         \"payment\":{{\"method\":\"card\",\"token\":\"tok_ok\"}}}}"
    )
}

async fn nothing_was_started(server: &TestServer) {
    assert_eq!(server.get("/sagas").await.body, json!({"items": []}));
}

#[actix_web::test]
async fn an_input_that_is_not_json_is_refused_with_the_place() {
    let server = TestServer::start().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [(Vec<u8>, &str); 15] = [
        (b"".to_vec(), ""),
        (b"{".to_vec(), ""),
        (b"not json".to_vec(), ""),
        (b"{} {}".to_vec(), ""),
        (b"{'a': 1}".to_vec(), ""),
        (b"{\"a\": 1,}".to_vec(), ""),
        (b"\xef\xbb\xbf{}".to_vec(), ""),
        (b"{\"customer_id\":\"\xff\xfe\"}".to_vec(), ""),
        (order("\"a\\u0000b\"").into_bytes(), "/customer_id"),
        (order("\"\\ud800\"").into_bytes(), "/customer_id"),
        (order("1e400").into_bytes(), "/customer_id"),
        (order("123456789012345678901234567890").into_bytes(), "/customer_id"),
        (order("NaN").into_bytes(), "/customer_id"),
        (order("\"c-1\", \"customer_id\": \"c-2\"").into_bytes(), ""),
        (deep.into_bytes(), ""),
    ];
    for (body, place) in bodies {
        let shown = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        let request = server.request(Method::POST, "/sagas/checkout").header("Content-Type", "application/json");
        let reply = server.send(request.body(body)).await;
        reply.problem(400, "invalid_json");
        let found = reply.body["errors"][0]["place"].as_str().unwrap();
        assert!(found.starts_with(place), "{shown}: {}", reply.text);
        assert!(reply.text.len() < 2_000, "{shown}: the answer does not repeat the input");
    }
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn an_input_that_does_not_fit_is_refused_with_every_place() {
    let server = TestServer::start().await;
    let wrong = json!({
        "customer_id": 7,
        "items": [{"product_id": "p-1", "quantity": 0}, {"quantity": "1", "colour": "red"}],
        "payment": {"method": "card"},
    });
    let reply = server.post("/sagas/checkout", &wrong).await;
    reply.problem(422, "invalid_input");
    let places: Vec<&str> =
        reply.body["errors"].as_array().unwrap().iter().map(|error| error["place"].as_str().unwrap()).collect();
    for place in [
        "/customer_id",
        "/items/0/quantity",
        "/items/1/quantity",
        "/items/1/product_id",
        "/items/1/colour",
        "/payment/token",
    ] {
        assert!(places.contains(&place), "{place} is not among {places:?}");
    }
    for input in [json!(null), json!([]), json!("x"), json!(1), json!({})] {
        server.post("/sagas/checkout", &input).await.problem(422, "invalid_input");
    }
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn a_body_of_another_type_size_or_encoding_is_refused() {
    let server = TestServer::start().await;
    let start = || server.request(Method::POST, "/sagas/checkout");
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "json", ""]
    {
        let reply = server.send(start().header("Content-Type", kind).body(order("\"c-1\""))).await;
        reply.problem(415, "unsupported_media_type");
        assert_eq!(reply.body["errors"][0]["place"], "Content-Type", "{kind}");
    }
    let latin = start().header("Content-Type", "application/json; charset=iso-8859-1").body("{}");
    server.send(latin).await.problem(415, "unsupported_media_type");
    let packed = start().header("Content-Encoding", "gzip").body("{}");
    server.send(packed).await.problem(415, "unsupported_media_type");
    for kind in ["application/json; charset=\"UTF-8\"", "application/vnd.shop+json", "APPLICATION/JSON"] {
        let reply = server.send(start().header("Content-Type", kind).body("{}")).await;
        reply.problem(422, "invalid_input");
    }
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat((1 << 20) + 1));
    server.send(start().body(large.clone())).await.problem(413, "body_too_large");
    // Without its length said beforehand.
    let chunks = futures_util::stream::iter(
        large.into_bytes().chunks(1 << 16).map(|chunk| Ok::<_, String>(chunk.to_vec())).collect::<Vec<_>>(),
    );
    server.send(start().body(reqwest::Body::wrap_stream(chunks))).await.problem(413, "body_too_large");
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn a_bad_path_or_parameter_is_refused_by_name() {
    let server = TestServer::start().await;
    for (path, status, code) in [
        ("/nowhere", 404, "not_found"),
        ("/sagas/", 404, "not_found"),
        ("/sagas/not-a-uuid", 400, "invalid_parameter"),
        ("/sagas/%00", 400, "invalid_parameter"),
        ("/sagas/%ff%fe", 400, "invalid_parameter"),
        ("/sagas?limit=0", 400, "invalid_parameter"),
        ("/sagas?limit=251", 400, "invalid_parameter"),
        ("/sagas?limit=99999999999999999999", 400, "invalid_parameter"),
        ("/sagas?cursor=made-up", 400, "invalid_cursor"),
        ("/sagas?cursor=%00", 400, "invalid_parameter"),
        ("/sagas?status=running,sleeping", 400, "invalid_parameter"),
        ("/sagas?status=", 400, "invalid_parameter"),
        ("/sagas?mode=sideways", 400, "invalid_parameter"),
        ("/sagas?created_after=yesterday", 400, "invalid_parameter"),
        ("/sagas?state=a%00b", 400, "invalid_parameter"),
        ("/sagas?definition=%ff", 400, "invalid_parameter"),
        ("/sagas?colour=red", 400, "invalid_parameter"),
        ("/sagas?limit=1&limit=2", 400, "invalid_parameter"),
        ("/definitions/none", 404, "definition_not_found"),
        ("/definitions/%00", 404, "definition_not_found"),
        ("/definitions/note?version=0", 400, "invalid_parameter"),
        ("/definitions?cursor=%0a", 400, "invalid_parameter"),
        ("/livez/more", 404, "not_found"),
        ("/admin", 404, "not_found"),
    ] {
        let reply = server.get(path).await;
        reply.problem(status, code);
        if code == "invalid_parameter" {
            assert!(!reply.body["errors"][0]["place"].as_str().unwrap().is_empty(), "{path}: {}", reply.text);
        }
    }
    for query in ["version=0", "version=x", "version=-1", "mode=sideways", "versoin=1", "version=1&version=1"] {
        let reply = server.post(&format!("/sagas/note?{query}"), &json!({})).await;
        reply.problem(400, "invalid_parameter");
    }
    for name in ["none", "a%00b", "%ff"] {
        let path = format!("/sagas/{name}");
        server.post(&path, &json!({})).await.problem(404, "definition_not_found");
        let keyed = server.request(Method::POST, &path).header("Idempotency-Key", "k").json(&json!({}));
        server.send(keyed).await.problem(404, "definition_not_found");
    }
    server.post("/sagas/note?version=9", &json!({})).await.problem(404, "definition_not_found");
    let refused = server.post("/sagas/note?mode=choreographed", &json!({})).await;
    refused.problem(422, "not_choreographable");
    assert_eq!(refused.body["errors"][0]["place"], "deadline", "{}", refused.text);
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn a_bad_header_is_refused_by_name() {
    let server = TestServer::start().await;
    let long = "k".repeat(300);
    for (name, value) in [
        ("Idempotency-Key", ""),
        ("Idempotency-Key", &*long),
        ("Idempotency-Key", "two words"),
        ("Idempotency-Key", "\"unclosed"),
        ("Idempotency-Key", "ключ"),
        ("X-Correlation-Id", "two words"),
        ("X-Correlation-Id", &*long),
        ("X-Correlation-Id", "ключ"),
    ] {
        let request = server.request(Method::POST, "/sagas/note").json(&json!({}));
        let reply = server.send(request.header(name, value.as_bytes())).await;
        reply.problem(400, "invalid_header");
        assert_eq!(reply.body["errors"][0]["place"], name, "{value}");
    }
    let stream = server.request(Method::GET, &format!("/sagas/{NOBODY}/stream")).header("Last-Event-ID", "x");
    server.send(stream).await.problem(400, "invalid_header");
    let act = server.request(Method::POST, &format!("/admin/sagas/{NOBODY}/retry"));
    let act = act.header("If-Match", "x").json(&json!({"reason": "x", "actor": "me"}));
    server.send(act).await.problem(400, "invalid_header");
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn the_generic_start_names_what_is_wrong_with_its_body() {
    let server = TestServer::start().await;
    for (body, place) in [
        (json!({}), "/definition"),
        (json!({"definition": "note"}), "/input"),
        (json!({"definition": "note", "inptu": {}}), "/inptu"),
        (json!({"definition": 7, "input": {}}), "/definition"),
        (json!({"definition": "note", "input": {}, "version": 0}), "/version"),
        (json!({"definition": "note", "input": {}, "version": "1"}), "/version"),
        (json!({"definition": "note", "input": {}, "mode": "sideways"}), "/mode"),
        (json!([]), ""),
    ] {
        let reply = server.post("/sagas", &body).await;
        reply.problem(400, "invalid_body");
        assert_eq!(reply.body["errors"][0]["place"], place, "{body}: {}", reply.text);
    }
    server
        .post("/sagas?version=1", &json!({"definition": "note", "input": {}}))
        .await
        .problem(400, "invalid_parameter");
    nothing_was_started(&server).await;
    let reply = server.post("/sagas", &json!({"definition": "note", "version": 1, "input": {"a": null}})).await;
    assert_eq!((reply.status, &reply.body["input"]), (201, &json!({"a": null})));
}

#[actix_web::test]
async fn a_body_that_breaks_off_starts_nothing() {
    let server = TestServer::start().await;
    let mut socket = tokio::net::TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
    let head = "POST /sagas/note HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a\":";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    nothing_was_started(&server).await;
}

#[actix_web::test]
async fn a_database_that_is_down_is_told_of_without_its_name() {
    let server = TestServer::start().await;
    let id = server.start_note().await;
    server.store.set_down(true);
    for path in
        ["/sagas".to_owned(), format!("/sagas/{id}"), format!("/sagas/{id}/events"), format!("/sagas/{id}/stream")]
    {
        let reply = server.get(&path).await;
        let text = reply.problem(503, "database_unavailable");
        assert!(!text.contains("pool"), "{text}");
        assert_eq!(reply.header("retry-after"), "1");
    }
    server.store.set_down(false);
    assert_eq!(server.get(&format!("/sagas/{id}")).await.status, 200);
    assert_eq!(server.get("/sagas").await.body["items"].as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn clients_that_leave_at_any_point_do_no_harm() {
    let server = TestServer::start().await;
    let id = server.start_note().await;
    let leave = |number: u64| {
        let request = match number % 3 {
            0 => server.request(Method::POST, "/sagas/note").json(&json!({})),
            1 => server.request(Method::GET, &format!("/sagas/{id}")),
            _ => server.request(Method::GET, &format!("/sagas/{id}/stream")),
        };
        let patience = std::time::Duration::from_micros(100 * (number % 40));
        async move { drop(tokio::time::timeout(patience, request.send()).await) }
    };
    futures_util::future::join_all((0..200).map(leave)).await;
    let page: Value = server.get("/sagas?limit=250").await.body;
    for item in page["items"].as_array().unwrap() {
        server.until(item["id"].as_str().unwrap(), "completed").await;
    }
    assert_eq!(server.post("/sagas/note", &json!({})).await.status, 201);
}
