//! Runs a checkout and shows how it ended. `SKALD_URL` says where Skald is, `SKALD_API_KEY` is optional.

use std::{env, time::Duration};

use anyhow::{Result, ensure};
use skald_client::{
    Options, Skald, StartOptions,
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
    ensure!(saga.status == SagaStatus::Completed, "the checkout did not complete");
    Ok(())
}
