//! What `skald dev` shows: one checkout that completes, one that is declined and undone, one that nobody conducts, and
//! what to try next.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};

use crate::{config::Secret, http_client};

const DEMONSTRATION: [(&str, &str, &str); 3] = [
    ("A checkout", "orchestrated", "tok_ok"),
    ("A checkout whose payment is declined", "orchestrated", "tok_declined"),
    (
        "The same, choreographed: the services react to each other's events, and nobody calls them",
        "choreographed",
        "tok_declined",
    ),
];

/// Runs the checkouts against the server and prints what became of them.
pub async fn show(skald: SocketAddr, key: Option<&Secret>, participants: &[(&str, SocketAddr)]) -> anyhow::Result<()> {
    println!("Skald is running: http://{skald}  (API: http://{skald}/docs)");
    for (name, address) in participants {
        println!("  {name:<12} http://{address}");
    }
    let mut shown = HeaderMap::new();
    if let Some(key) = key {
        shown.insert(AUTHORIZATION, format!("Bearer {}", key.reveal()).parse().context("the key is not usable")?);
    }
    let client = http_client::builder().no_proxy().timeout(Duration::from_secs(60)).default_headers(shown);
    let client = client.build()?;
    for (title, mode, token) in DEMONSTRATION {
        let saga = check_out(&client, skald, mode, token).await?;
        println!("\n{title}:");
        print_saga(&saga);
    }
    let catalog = participants.iter().find(|(name, _)| *name == "catalog").map(|(_, address)| *address);
    print_what_to_try(skald, catalog);
    Ok(())
}

async fn check_out(client: &reqwest::Client, skald: SocketAddr, mode: &str, token: &str) -> anyhow::Result<Value> {
    let url = format!("http://{skald}/sagas/checkout?mode={mode}");
    let start = || async {
        let answer = client.post(&url).header("Prefer", "wait=30").json(&order(token)).send().await?;
        let answer = answer.error_for_status()?;
        answer.json::<Value>().await
    };
    // The engine takes its shards a moment after the server listens.
    use backon::{ConstantBuilder, Retryable as _};
    let patience = ConstantBuilder::default().with_delay(Duration::from_millis(50)).with_max_times(200);
    start.retry(patience).await.context("the demonstration's checkout failed")
}

fn order(token: &str) -> Value {
    json!({
        "customer_id": "c-1",
        "items": [{ "product_id": "p-1", "quantity": 2 }],
        "payment": { "method": "card", "token": token },
    })
}

fn print_saga(saga: &Value) {
    for step in saga["steps"].as_array().into_iter().flatten() {
        let (id, status) = (text(&step["id"]), text(&step["status"]));
        let took = step["duration_ms"].as_u64().map(|ms| format!("{ms} ms")).unwrap_or_default();
        println!("{}", format!("  {id:<16} {status:<12} {took:>8}").trim_end());
    }
    let failure = match saga["failure"]["code"].as_str() {
        Some(code) => format!(" ({code}: {})", text(&saga["failure"]["reason"])),
        None => String::new(),
    };
    println!("  => {} {}{failure}", text(&saga["status"]), text(&saga["state"]));
    println!("     saga {}", text(&saga["id"]));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print_what_to_try(skald: SocketAddr, catalog: Option<SocketAddr>) {
    let curl = |token: &str| {
        format!(
            "curl -s -X POST http://{skald}/sagas/checkout -H 'Content-Type: application/json' \\\n    -d '{}'",
            order(token)
        )
    };
    println!("\nTry it. A checkout that completes:\n\n  {}", curl("tok_ok"));
    println!("\nOne whose payment is declined, so that the reserved stock is released:\n\n  {}", curl("tok_declined"));
    println!("\nWith ?mode=choreographed behind checkout, nobody conducts.");
    println!("\nThen look at it: its steps, its events, what the services say they did:\n");
    println!("  curl -s http://{skald}/sagas/ID");
    println!("  curl -s http://{skald}/sagas/ID/events");
    if let Some(catalog) = catalog {
        println!("  curl -s 'http://{catalog}/ledger?saga_id=ID'");
    }
    println!("\nCtrl-C stops it; what is unfinished goes on at the next start.");
}
