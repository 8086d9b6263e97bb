//! Personal data: nowhere in the database as it is, whatever becomes of a saga; and nowhere at all once it is erased.

use std::fs;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Checker, Postgres, Reply, SOON, Sqlite, Stub,
    database::Database,
    deployment::Alone,
    eventually,
    process::Process,
    skald::{participant, program},
};

const EMAIL: &str = "jane.roe@example.org";
const HOLDER: &str = "Jane Q. Roe";
const RECEIPT: &str = "receipts+4711@example.org";

fn definition() -> Value {
    let call = |path: &str, body: Value| json!({"service": "stub", "method": "POST", "path": path, "body": body});
    json!({
        "apiVersion": "skald/v1",
        "name": "purchase",
        "version": 1,
        "input": {"schema": {"type": "object", "required": ["customer_id", "email"]}},
        "personal": {
            "subject": "${input.customer_id}",
            "fields": ["input.email", "input.payment.holder", "steps.pay.output.receipt_to"],
        },
        "defaults": {"timeout": "20s", "retry": {"max_attempts": 2, "initial": "1ms"}},
        "steps": [
            {
                "id": "pay",
                "call": call("/pay/${input.customer_id}", json!({"by": "${input.payment}", "note": "for ${input.email}"})),
                "compensate": {"call": call("/refund", json!({"why": "${saga.failure.reason}"}))},
            },
            {
                "id": "tell",
                "call": call("/tell", json!({"to": "${input.email}", "receipt": "${steps.pay.output.receipt_to}"})),
                "compensate": {"call": call("/untell", json!({}))},
            },
        ],
        "output": {"receipt_to": "${steps.pay.output.receipt_to}"},
    })
}

fn input(customer: &str) -> Value {
    json!({"customer_id": customer, "email": EMAIL, "payment": {"holder": HOLDER, "amount": 7}})
}

/// Says what it was told; accepts what it is to tell `late`, refuses what it is to tell anyone else but `jane`.
fn participant_that_repeats() -> Stub {
    Stub::start(|call| match call.path.as_str() {
        "/tell" if call.earlier == 0 => Reply::json(202, Value::Null),
        "/tell" => {
            let detail = format!("{} of {HOLDER} is not known; {}", call.body["to"], call.body);
            Reply::json(422, json!({"code": "unknown", "detail": detail}))
        }
        path if path.starts_with("/pay") => {
            Reply::json(200, json!({"receipt_to": RECEIPT, "paid_by": call.body["by"]["holder"], "said": call.body}))
        }
        _ => Reply::ok(),
    })
}

/// Everything that is stored, as bytes.
async fn stored(database: &Database) -> Vec<u8> {
    match database {
        Database::Sqlite(path) => ["", "-wal"]
            .iter()
            .flat_map(|end| fs::read(format!("{}{end}", path.display())).unwrap_or_default())
            .collect(),
        Database::Postgres(_) => {
            let tables = "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace
                          AND relkind = 'r'";
            let mut all = Vec::new();
            for [table] in database.texts(tables.to_owned()).await {
                let table = table.expect("a table has a name");
                for [row] in database.texts(format!("SELECT t::text FROM {table} AS t")).await {
                    all.extend(row.unwrap_or_default().into_bytes());
                }
            }
            all
        }
    }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

async fn assert_sealed(world: &Alone, when: &str) {
    let bytes = stored(&world.database).await;
    assert!(holds(&bytes, b"~skald.sealed.1."), "tokens are stored");
    for secret in [EMAIL, HOLDER, RECEIPT] {
        assert!(!holds(&bytes, secret.as_bytes()), "{secret} is stored {when}");
    }
}

async fn verify(world: &Alone) {
    let mut command = program();
    command.args(["verify", "--json", "--database-url", &world.database.url()]);
    let ended = Process::run("verify", &mut command, &world.skald.setup().folder).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[rstest]
#[tokio::test]
async fn personal_data_is_never_stored_as_it_is_and_ends_with_its_key(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = participant_that_repeats();
    let mut world = Alone::start_with(backend, &participant("stub", &stub.url)).await;
    world.skald.register(&definition()).await;

    // One that waits in the middle, also over a restart.
    let waiting = world.skald.begun("purchase", &input("jane")).await;
    let told = eventually("it is told", SOON, async || stub.calls_to("/tell").pop().ok_or_else(String::new)).await;
    assert_eq!(told.body, json!({"to": EMAIL, "receipt": RECEIPT}));
    assert_eq!(
        stub.calls_to("/pay/jane")[0].body,
        json!({"by": {"holder": HOLDER, "amount": 7}, "note": format!("for {EMAIL}")})
    );
    let accepted = |saga: &Value| saga["steps"][1]["attempts"][0]["http_status"] == 202;
    world.skald.until(&waiting, "accepted", SOON, accepted).await;
    assert_sealed(&world, "while a saga runs").await;
    world.skald.restart().await;
    let refused =
        world.skald.client.post("/admin/subjects/jane/erase", &json!({"reason": "asked", "actor": "ann"})).await;
    assert_eq!(refused.problem(409), "subject_in_use");

    // One that fails, whose participant repeats all it knows in the reason.
    let request = world.skald.client.request(Method::POST, "/sagas/purchase").header("Idempotency-Key", "\"once\"");
    let started = world.skald.client.send(request.json(&input("jane"))).await.expect("Skald answers");
    let failed = world.skald.ended(started.body["id"].as_str().expect("an id")).await;
    assert_eq!(failed["status"], "compensated", "{failed}");
    let reason = failed["failure"]["reason"].as_str().expect("there is a reason");
    assert!(reason.contains(EMAIL) && reason.contains(HOLDER), "readers see it: {reason}");
    assert_eq!(stub.calls_to("/refund")[0].body["why"], reason, "and so does who undoes");
    assert_sealed(&world, "after a saga failed").await;

    // The first one is completed by a callback that repeats it too.
    let complete = world.skald.client.request(Method::POST, &format!("/sagas/{waiting}/steps/tell/complete"));
    let complete = complete.header("Saga-Callback-Token", told.header("saga-callback-token"));
    let said = json!({"operation": "action", "outcome": "succeeded", "output": {"sent": [format!("<{EMAIL}>")]}});
    let answer = world.skald.client.send(complete.json(&said)).await.expect("Skald answers");
    assert_eq!(answer.status, 200, "{}", answer.text);
    let completed = world.skald.ended(&waiting).await;
    assert_eq!((&completed["status"], &completed["output"]), (&json!("completed"), &json!({"receipt_to": RECEIPT})));
    assert_eq!((&completed["input"], &completed["steps"][0]["output"]["paid_by"]), (&input("jane"), &json!(HOLDER)));
    assert_eq!(completed["steps"][1]["output"], said["output"]);
    let state = format!("/streams/{waiting}/state");
    assert_eq!(world.skald.client.get(&state).await.expect(200)["state"], completed);
    let log = world.skald.client.get("/events?limit=250").await.text;
    assert!(log.contains(&waiting) && [EMAIL, HOLDER, RECEIPT].iter().all(|secret| !log.contains(secret)), "{log}");
    assert_sealed(&world, "after a saga completed").await;
    Checker::gather_log(&world.skald, &world.database).await.check();
    verify(&world).await;

    let keys: Vec<[Option<String>; 1]> = match &world.database {
        Database::Sqlite(_) => world.database.texts("SELECT lower(hex(key)) FROM subject_keys".to_owned()).await,
        Database::Postgres(_) => world.database.texts("SELECT encode(key, 'hex') FROM subject_keys".to_owned()).await,
    };
    let key = keys[0][0].clone().expect("a key that lives");
    let raw: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).expect("hexadecimal")).collect();
    let before = stored(&world.database).await;
    assert!(holds(&before, &raw) || holds(&before, key.as_bytes()), "the key is what is looked for");
    let erased =
        world.skald.client.post("/admin/subjects/jane/erase", &json!({"reason": "asked", "actor": "ann"})).await;
    assert_eq!(erased.expect(200)["erasures"][0]["sagas"], 2);
    let after = stored(&world.database).await;
    assert!(!holds(&after, &raw) && !holds(&after, key.as_bytes()), "the key is gone");

    assert_sealed(&world, "after the erasure").await;
    let completed = world.skald.saga(&waiting).await;
    assert_eq!(completed["output"], json!({"receipt_to": "[erased]"}));
    assert_eq!(completed["input"]["payment"], json!({"holder": "[erased]", "amount": 7}));
    let first = world.skald.client.get(&format!("{state}?version=1")).await;
    assert_eq!(first.expect(200)["state"]["input"], completed["input"]);
    let failed = world.skald.saga(failed["id"].as_str().expect("an id")).await;
    assert!(failed["failure"]["reason"].as_str().is_some_and(|reason| reason.contains("[erased]")), "{failed}");
    Checker::gather_log(&world.skald, &world.database).await.check();
    verify(&world).await;
}
