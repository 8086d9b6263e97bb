//! The metrics of the workers, all of them. What the demo services count too has the same name there.

use std::{sync::Mutex, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use skald_kit::{Handled, Observer, Problem, events::Event};

use crate::{event_metrics::EventMetrics, http};

/// What is known only when somebody asks.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// One registry per worker, so that several can live in one process.
pub(crate) struct Metrics {
    registry: Registry,
    handling: EventMetrics,
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
        registry.register(Box::new(notifications.clone()))?;
        registry.register(Box::new(updates.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(events.clone()))?;
        let handling = EventMetrics::new(service, &registry)?;
        Ok(Self { registry, handling, notifications, updates, lag, events, refresh: Mutex::default() })
    }

    /// `refresh` is called before the metrics are shown.
    pub(super) fn refreshed_by(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        *self.refresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Box::new(refresh));
    }

    pub(super) fn notified(&self, kind: &str, status: &str) {
        self.notifications.with_label_values(&[kind, status]).inc();
    }

    /// A projection took in events, in so much time.
    pub(super) fn projected(&self, projection: &str, events: &[Event], took: Duration) {
        self.updates.with_label_values(&[projection]).inc_by(u64::try_from(events.len()).unwrap_or(0));
        self.handling.consumed_together(projection, events, took);
    }

    /// A projection could not take in events.
    pub(super) fn not_projected(&self, projection: &str) {
        self.handling.put_off(projection);
    }

    pub(super) fn projection(&self, projection: &str, lag: Duration, events: i64) {
        self.lag.with_label_values(&[projection]).set(lag.as_secs_f64());
        self.events.with_label_values(&[projection]).set(events);
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
    fn not_polled(&self, consumer: &str) {
        self.handling.not_polled(consumer);
    }

    fn put_off(&self, consumer: &str) {
        self.handling.put_off(consumer);
    }

    fn consumed(&self, consumer: &str, event: &Event, handled: &Handled<'_>) {
        self.handling.consumed(consumer, event, handled);
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
