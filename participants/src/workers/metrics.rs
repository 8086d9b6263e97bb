//! The metrics of the workers, all of them. What the demo services count too has the same name there.

use std::{sync::Mutex, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use skald_kit::{Observer, Problem, bus::Settled, events::Event};

use crate::http;

/// From a commit at the store to the end of its handling.
const LATENCY_BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What is known only when somebody asks.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// One registry per worker, so that several can live in one process.
pub(crate) struct Metrics {
    registry: Registry,
    consumed: IntCounterVec,
    latency: HistogramVec,
    notifications: IntCounterVec,
    updates: IntCounterVec,
    lag: GaugeVec,
    events: IntGaugeVec,
    refresh: Mutex<Option<Refresh>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(super) fn new(service: &'static str) -> Result<Self, prometheus::Error> {
        let labelled = |name: &str, help: &str| Opts::new(name, help).const_label("service", service);
        let consumed = IntCounterVec::new(
            labelled("events_consumed_total", "Events that a consumer of this service is through with"),
            &["consumer", "mode", "result"],
        )?;
        let latency = labelled("event_latency_seconds", "From an event's commit until it was handled here");
        let latency = HistogramOpts::from(latency).buckets(LATENCY_BUCKETS_S.to_vec());
        let latency = HistogramVec::new(latency, &["consumer", "mode"])?;
        let notifications = IntCounterVec::new(
            labelled("notifications_total", "Messages to customers, by what they tell and what became of them"),
            &["kind", "status"],
        )?;
        let updates = IntCounterVec::new(
            labelled("projection_updates_total", "Events that projections took in, rebuilds not counted"),
            &["projection"],
        )?;
        let lag = labelled("projection_lag_seconds", "How far a projection is behind the log; 0 at its end");
        let lag = GaugeVec::new(lag, &["projection"])?;
        let events = labelled("projection_events", "Events that a projection is made of");
        let events = IntGaugeVec::new(events, &["projection"])?;
        let registry = Registry::new();
        registry.register(Box::new(consumed.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        registry.register(Box::new(notifications.clone()))?;
        registry.register(Box::new(updates.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self { registry, consumed, latency, notifications, updates, lag, events, refresh: Mutex::default() })
    }

    /// `refresh` is called before the metrics are shown.
    pub(super) fn refreshed_by(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        *self.refresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Box::new(refresh));
    }

    pub(super) fn notified(&self, kind: &str, status: &str) {
        self.notifications.with_label_values(&[kind, status]).inc();
    }

    pub(super) fn projected(&self, projection: &str, events: &[Event]) {
        self.updates.with_label_values(&[projection]).inc_by(u64::try_from(events.len()).unwrap_or(0));
        for event in events {
            self.handled(projection, event, "done");
        }
    }

    pub(super) fn projection(&self, projection: &str, lag: Duration, events: i64) {
        self.lag.with_label_values(&[projection]).set(lag.as_secs_f64());
        self.events.with_label_values(&[projection]).set(events);
    }

    fn handled(&self, consumer: &str, event: &Event, result: &str) {
        let mode = event.mode.as_deref().unwrap_or("none");
        self.consumed.with_label_values(&[consumer, mode, result]).inc();
        if let Ok(latency) = (Utc::now() - event.time).to_std() {
            self.latency.with_label_values(&[consumer, mode]).observe(latency.as_secs_f64());
        }
    }

    fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        if let Some(refresh) = &*self.refresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            refresh(self);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn consumed(&self, consumer: &str, event: &Event, settled: &Settled) {
        let result = match settled {
            Settled::Done => "done",
            Settled::Failed(_) => "failed",
            Settled::Poison(_) => "poison",
        };
        self.handled(consumer, event, result);
    }
}

/// `GET /metrics`
pub(super) async fn show(request: HttpRequest, metrics: web::Data<Metrics>) -> HttpResponse {
    match metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => {
            tracing::error!(%error, "metrics can't be rendered");
            http::send(&request, Problem::new(skald_kit::problems::INTERNAL, "metrics can't be rendered").into())
        }
    }
}
