//! Requests that are wrong in every way: always a 4xx problem that names what is wrong, never a 5xx, nothing written.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;

use crate::harness::{Backend, Deployment, Postgres, Sqlite, order};

const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn with_customer(json_text: &str) -> String {
    order("CUSTOMER").to_string().replace("\"CUSTOMER\"", json_text)
}

#[rstest]
#[tokio::test]
async fn a_bad_body_is_refused_and_nothing_is_started(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let bodies = [
        (String::new(), 400),
        ("{".to_owned(), 400),
        ("not json".to_owned(), 400),
        ("{}".to_owned(), 422),
        ("[]".to_owned(), 422),
        ("null".to_owned(), 422),
        (with_customer("7"), 422),
        (with_customer("\"\""), 422),
        (with_customer("\"a\\u0000b\""), 400),
        (with_customer("1e400"), 400),
        (with_customer("123456789012345678901234567890"), 400),
        (with_customer(&nested(70)), 400),
        (nested(100_000), 400),
        (with_customer("\"c-1\", \"surprise\": 1"), 422),
        (with_customer("\"c-1\", \"customer_id\": \"c-2\""), 400),
        (with_customer("\"\\ud800\""), 400),
        (order("c-1").to_string().replace("\"quantity\":1", "\"quantity\":0"), 422),
        (order("c-1").to_string().replace("\"quantity\":1", "\"quantity\":1.5"), 422),
        (order("c-1").to_string().replace("\"quantity\":1", "\"quantity\":\"1\""), 422),
        (format!("{{\"x\":\"{}\"}}", "y".repeat((1 << 20) + 1)), 413),
    ];
    for (body, status) in bodies {
        let shown: String = body.chars().take(80).collect();
        let request = world.skald.client.request(Method::POST, "/sagas/checkout");
        let request = request.header("content-type", "application/json").body(body);
        let answer = world.skald.client.send(request).await.expect("Skald answers");
        assert_eq!(answer.status, status, "{shown}: {}", answer.text);
        answer.problem(status);
        if status == 422 {
            assert!(!answer.body["errors"].as_array().expect("an input's mistakes have places").is_empty(), "{shown}");
        }
    }
    let invalid = b"{\"customer_id\":\"\xff\xfe\"}".to_vec();
    let request =
        world.skald.client.request(Method::POST, "/sagas/checkout").header("content-type", "application/json");
    world.skald.client.send(request.body(invalid)).await.expect("Skald answers").problem(400);
    let text = world.skald.client.request(Method::POST, "/sagas/checkout").header("content-type", "text/plain");
    world.skald.client.send(text.body(order("c-1").to_string())).await.expect("Skald answers").problem(415);
    assert!(world.skald.sagas().await.is_empty());
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_bad_path_parameter_or_header_is_a_problem(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let client = &world.skald.client;
    for (path, status) in [
        ("/nowhere", 404),
        ("/sagas/not-a-uuid", 404),
        (&*format!("/sagas/{NOBODY}"), 404),
        (&*format!("/sagas/{NOBODY}/events"), 404),
        ("/sagas?limit=0", 400),
        ("/sagas?limit=251", 400),
        ("/sagas?limit=many", 400),
        ("/sagas?cursor=made-up", 400),
        ("/sagas?status=running,sleeping", 400),
        ("/sagas?mode=sideways", 400),
        ("/sagas?created_after=yesterday", 400),
        ("/sagas?colour=red", 400),
        ("/definitions/none", 404),
        ("/definitions/none/versions/1", 404),
        ("/sagas/%00", 404),
        ("/sagas/%ff%fe", 400),
    ] {
        let answer = client.get(path).await;
        let expected = answer.status == status || (status == 404 && answer.status == 400);
        assert!(expected, "{path}: {} {}", answer.status, answer.text);
        answer.problem(answer.status);
    }
    let wrong_methods = [(Method::DELETE, "/sagas"), (Method::PUT, "/sagas/checkout"), (Method::POST, "/livez")];
    for (method, path) in wrong_methods {
        let answer = client.send(client.request(method, path)).await.expect("Skald answers");
        assert_eq!(answer.problem(405), "method_not_allowed", "{path}");
        assert!(!answer.header("allow").is_empty(), "{path}");
    }
    let start = || client.request(Method::POST, "/sagas/checkout").json(&order("c-1"));
    let long = "k".repeat(300);
    for (name, value) in [
        ("Idempotency-Key", ""),
        ("Idempotency-Key", &*long),
        ("Idempotency-Key", "two words"),
        ("X-Correlation-Id", "two words"),
        ("X-Correlation-Id", &*long),
    ] {
        let answer = client.send(start().header(name, value)).await.expect("Skald answers");
        assert_eq!(answer.problem(400), "invalid_header", "{name}: {value}");
        assert_eq!(answer.body["errors"][0]["place"], name, "{}", answer.text);
    }
    for query in ["version=0", "version=x", "mode=sideways", "versoin=1"] {
        let answer = client.post(&format!("/sagas/checkout?{query}"), &order("c-1")).await;
        assert_eq!(answer.problem(400), "invalid_parameter", "{query}");
    }
    let generic = json!({"definition": "checkout", "inptu": {}});
    assert_eq!(client.post("/sagas", &generic).await.problem(400), "invalid_body");
    assert!(world.skald.sagas().await.is_empty());
    assert_eq!(world.skald.run("checkout", &order("c-1")).await["status"], "completed");
    world.check().await;
}
