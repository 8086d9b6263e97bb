//! A checkout without an orchestrator: the four calls one after another, made with the client that Skald uses as well.
//! Nothing is kept: whoever dies in between leaves a half-done order.

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, StatusCode, header::CONTENT_TYPE, retry};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::order::{Ending, Item, Order, Payment};

#[derive(Clone, Debug)]
pub struct Services {
    client: Client,
    base: String,
}

#[derive(Serialize)]
struct Verification<'a> {
    store_id: Option<&'a str>,
    items: &'a [Item],
}

#[derive(Serialize)]
struct Reservation<'a> {
    order_id: &'a str,
    store_id: Option<&'a str>,
    items: &'a [Item],
}

#[derive(Serialize)]
struct Release<'a> {
    order_id: &'a str,
}

#[derive(Serialize)]
struct Charge<'a> {
    order_id: &'a str,
    customer_id: &'a str,
    amount: u64,
    payment: &'a Payment,
}

#[derive(Serialize)]
struct Confirmation<'a> {
    customer_id: &'a str,
    items: &'a [Item],
    total: u64,
}

#[derive(Deserialize)]
struct Reserved {
    total: u64,
}

impl Services {
    /// The participants at this URL.
    pub fn at(base: &str) -> Result<Self> {
        // Errs when it was set before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().retry(retry::never()).tcp_nodelay(true).build()?;
        Ok(Self { client, base: base.to_owned() })
    }

    /// # Errors
    ///
    /// When a service does not answer, or not as it must.
    pub async fn checkout(&self, order: &Order) -> Result<Ending> {
        let id = Uuid::new_v4().to_string();
        let Order { customer_id, items, payment, .. } = order;
        let store_id = None;
        self.call(&id, "verify_stock", "/catalog/stock/verify", &Verification { store_id, items }).await?;
        let reservation = Reservation { order_id: &id, store_id, items };
        let reserved = self.call(&id, "reserve_stock", "/catalog/stock/reserve", &reservation).await?;
        let reserved = reserved.context("a reservation was refused")?;
        let Reserved { total } = serde_json::from_slice(&reserved).context("a reservation without a total")?;
        let charge = Charge { order_id: &id, customer_id, amount: total, payment };
        if self.call(&id, "process_payment", "/sales/payments", &charge).await?.is_none() {
            let release = Release { order_id: &id };
            self.call(&id, "reserve_stock:compensation", "/catalog/stock/release", &release).await?;
            return Ok(Ending::COMPENSATED);
        }
        let confirmation = Confirmation { customer_id, items, total };
        self.call(&id, "confirm_order", &format!("/orders/orders/{id}"), &confirmation).await?;
        Ok(Ending::completed(total))
    }

    /// None: refused.
    async fn call(&self, id: &str, key: &str, path: &str, body: &impl Serialize) -> Result<Option<bytes::Bytes>> {
        let request = self.client.post(format!("{}{path}", self.base)).header("Idempotency-Key", format!("{id}:{key}"));
        let request = request.header(CONTENT_TYPE, "application/json").body(serde_json::to_vec(body)?);
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success() || status == StatusCode::PAYMENT_REQUIRED, "{path} answered {status}");
        Ok(status.is_success().then_some(body))
    }
}
