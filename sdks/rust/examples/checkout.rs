//! Runs a checkout and shows how it ended. `SKALD_URL` says where Skald is, `SKALD_API_KEY` is optional.

use std::{env, time::Duration};

use anyhow::{Result, ensure};
use skald_client::{
    Options, Skald, StartOptions,
    apis::sagas_api::{ListSagasParams, list_sagas},
    models::{CheckoutInput, CheckoutInputItemsInner, CheckoutInputPayment, SagaStatus},
};

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("SKALD_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let options = Options { api_key: env::var("SKALD_API_KEY").ok(), ..Options::default() };
    let skald = Skald::new(&url, options)?;
    let order = CheckoutInput::new(
        "c-rust".to_owned(),
        vec![CheckoutInputItemsInner::new("p-1".to_owned(), 1)],
        CheckoutInputPayment::new("card".to_owned(), "tok_ok".to_owned()),
    );
    let begun = skald.start("checkout", &order, StartOptions::default()).await?;
    let saga = skald.wait_until_ended(begun.id, Duration::from_secs(60)).await?;
    println!("checkout {}: {}", saga.id, saga.status);

    let last_ended = ListSagasParams {
        status: Some(vec![SagaStatus::Completed, SagaStatus::Compensated]),
        definition: Some("checkout".to_owned()),
        mode: None,
        state: None,
        correlation_id: None,
        created_after: None,
        created_before: None,
        cursor: None,
        limit: Some(5),
        x_correlation_id: None,
    };
    let ended = list_sagas(skald.configuration(), last_ended).await?.items;
    ensure!(ended.iter().any(|other| other.id == saga.id), "it is not among the last that ended");
    ensure!(saga.status == SagaStatus::Completed, "the checkout did not complete");
    Ok(())
}
