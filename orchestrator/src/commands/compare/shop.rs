//! The demo services: the goods and customers of the workload, faults made on purpose, and what the services count.

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use skald_figures::exposition;

use super::{
    faults::FaultMix,
    http::Remote,
    workload::{CUSTOMERS, PRODUCTS, UNITS_MAX, customer, price, product},
};

/// The most that a customer can have.
const CREDIT: i64 = 1_000_000_000_000_000;
/// Enough for what a run of given duration can sell.
const UNITS_LEAST: u64 = 10_000_000;
const REQUESTS_AT_ONCE: usize = 8;

#[derive(Clone, Debug)]
pub struct Shop {
    pub catalog: Remote,
    pub sales: Remote,
    pub orders: Remote,
}

/// Faults as they were at the services before.
#[derive(Debug)]
pub struct EarlierFaults(Vec<(Remote, Value)>);

impl Shop {
    fn services(&self) -> [&Remote; 3] {
        [&self.catalog, &self.sales, &self.orders]
    }

    /// # Errors
    ///
    /// When a service does not answer; says which and where.
    pub async fn is_there(&self) -> anyhow::Result<()> {
        for service in self.services() {
            service.expect(Method::GET, "/livez", None).await?;
        }
        Ok(())
    }

    /// Sees to it that no order of the workload fails for want of goods or credit. What others sell and own is not touched.
    ///
    /// # Errors
    ///
    /// When a service does not answer, or is not the demo service that it should be.
    pub async fn prepare(&self, sagas: u64) -> anyhow::Result<()> {
        let units = UNITS_LEAST.max(sagas.saturating_mul(UNITS_MAX));
        let goods = stream::iter((0..PRODUCTS).map(|index| self.stock_up(index, units)));
        goods.buffer_unordered(REQUESTS_AT_ONCE).try_collect::<()>().await.context("products cannot be made ready")?;
        let credit = json!({"credit": CREDIT});
        let paths = (0..CUSTOMERS).map(|index| format!("/customers/{}", customer(index)));
        let customers = stream::iter(paths.map(|path| {
            let credit = &credit;
            async move { self.sales.expect(Method::PUT, &path, Some(credit)).await.map(drop) }
        }));
        let made = customers.buffer_unordered(REQUESTS_AT_ONCE).try_collect::<()>().await;
        made.context("customers cannot be made ready")
    }

    async fn stock_up(&self, index: u64, units: u64) -> anyhow::Result<()> {
        let id = product(index);
        let new = json!({"id": id, "name": format!("Comparison {}", index + 1), "price": price(index)});
        let answer = self.catalog.send(self.catalog.request(Method::POST, "/products").json(&new)).await?;
        if !answer.status.is_success() && answer.status != StatusCode::CONFLICT {
            let problem = answer.problem();
            anyhow::bail!("catalog answers POST /products with {}: {}", answer.status, problem.detail);
        }
        let delivery = json!({"product_id": id, "delta": units});
        self.catalog.expect(Method::POST, "/stock/adjust", Some(&delivery)).await.map(drop)
    }

    /// How many calls the services say they have carried out, every attempt counted.
    ///
    /// # Errors
    ///
    /// When a service does not answer.
    pub async fn operations(&self) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for service in self.services() {
            sum += exposition::sum(&service.metrics().await?, "participant_calls_total", |_| true);
        }
        Ok(sum)
    }

    /// What the services' faults are set to.
    ///
    /// # Errors
    ///
    /// When a service does not answer, or was started without faults.
    pub async fn faults(&self) -> anyhow::Result<EarlierFaults> {
        let mut earlier = Vec::new();
        for service in self.services() {
            let answer = service.send(service.request(Method::GET, "/faults")).await?;
            let (name, url) = (service.name, service.url());
            if answer.status == StatusCode::NOT_FOUND {
                anyhow::bail!("{name} at {url} makes no faults on purpose: start it with --faults");
            }
            anyhow::ensure!(answer.status.is_success(), "{name} answers GET /faults with {}", answer.status);
            earlier.push((service.clone(), answer.json()?));
        }
        Ok(EarlierFaults(earlier))
    }

    /// # Errors
    ///
    /// When a service refuses the settings or does not answer; others may have taken them.
    pub async fn set_faults(&self, faults: &FaultMix) -> anyhow::Result<()> {
        for service in self.services() {
            service.expect(Method::PUT, "/faults", Some(&faults.settings())).await?;
        }
        Ok(())
    }
}

impl EarlierFaults {
    /// # Errors
    ///
    /// When a service could not be told; the others were.
    pub async fn restore(&self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for (service, settings) in &self.0 {
            let restored = service.expect(Method::PUT, "/faults", Some(settings)).await;
            let what = || format!("the faults of {} are still set: PUT {settings} to its /faults", service.name);
            result = result.and(restored.with_context(what).map(drop));
        }
        result
    }
}
