//! Sends spans to a collector, in batches, by OTLP over HTTP.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{http_client, metrics::Metrics};

/// Spans that wait; more are dropped.
const QUEUE_MAX: usize = 8_192;
const BATCH_MAX: usize = 512;
/// What comes meanwhile goes with the next batch.
const PACE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take to be taken when the process stops.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The task that exports, if there is one.
#[derive(Debug, Default)]
pub struct Exporting(Option<(watch::Sender<bool>, JoinHandle<()>)>);

impl Exporting {
    /// Sends what there is, and ends.
    pub async fn stop(self) {
        let Some((stopping, task)) = self.0 else { return };
        stopping.send_replace(true);
        if tokio::time::timeout(STOP_MAX, task).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

pub(super) fn start(
    endpoint: &str,
    replica: &str,
    metrics: Arc<Metrics>,
) -> anyhow::Result<(mpsc::Sender<SpanData>, Exporting)> {
    let mut client = http_client::builder().timeout(TIMEOUT);
    if endpoint.starts_with("http:") {
        // Spares reading the machine's certificates, and needs none.
        client = client.tls_certs_only([]);
    }
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Http(client.build()?))
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(TIMEOUT)
        .build()?;
    // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let mut resource = Resource::builder();
    if !named {
        resource = resource.with_service_name("skald");
    }
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.to_owned()),
    ];
    exporter.set_resource(&resource.with_attributes(own).build());
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let (stopping, stopped) = watch::channel(false);
    let task = tokio::spawn(export(exporter, receiver, stopped, metrics));
    Ok((sender, Exporting(Some((stopping, task)))))
}

async fn export(
    exporter: SpanExporter,
    mut receiver: mpsc::Receiver<SpanData>,
    mut stopped: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) {
    let mut failing = false;
    loop {
        let stopping = tokio::time::timeout(PACE, stopped.wait_for(|stopped| *stopped)).await.is_ok();
        loop {
            let mut batch = Vec::with_capacity(BATCH_MAX.min(receiver.len()));
            while batch.len() < BATCH_MAX
                && let Ok(span) = receiver.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len();
            if count == 0 {
                break;
            }
            match exporter.export(batch).await {
                Ok(()) => {
                    failing = false;
                    metrics.spans.exported(count);
                }
                Err(error) => {
                    metrics.spans.dropped(count);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the collector does not take spans; they are dropped");
                    }
                }
            }
        }
        if stopping {
            return;
        }
    }
}

/// The client that the exporter uses.
#[derive(Debug)]
struct Http(reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let response = self.0.execute(request.try_into()?).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut answer = http::Response::new(response.bytes().await?);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}
