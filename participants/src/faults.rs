//! Faults made on purpose, per operation and by chance: for demonstrations and tests.
//!
//! They exist only in a service started with `--faults`. Which of them hit a call is drawn before
//! the call runs; what each one does is in [`crate::http`].

use std::{
    any::Any,
    collections::BTreeMap,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, Resource, dev::Extensions, web};
use serde::{Deserialize, Serialize};
use skald_kit::{Failure, Problem, Reply, Tx, TxFuture};

use crate::{
    body, codes,
    http::{self, Given, Shared},
};

/// Stands for every operation that has no settings of its own.
const ANY_OPERATION: &str = "*";
const DELAY_MS_MAX: u64 = 600_000;
const RETRY_AFTER_S_MAX: u64 = 3600;

type Settings = BTreeMap<String, Rates>;

/// How often what goes wrong, as probabilities from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rates {
    /// The call waits before it is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Delay>,
    /// 500 without effect.
    error_500: f64,
    /// 503 with `Retry-After`, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<Unavailable>,
    /// The effect happens, then the connection is cut without an answer.
    lose_reply: f64,
    /// The call is carried out twice; the second answer is given.
    duplicate: f64,
    /// 422 `rejected`; of an action it is stored like any refusal.
    refuse: f64,
    /// No answer until the client leaves, at most ten minutes; no effect.
    hang: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delay {
    rate: f64,
    ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unavailable {
    rate: f64,
    #[serde(default = "one_second")]
    retry_after_s: u64,
}

fn one_second() -> u64 {
    1
}

/// The faults that hit one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Option<Duration>,
    pub(crate) error_500: bool,
    pub(crate) unavailable: Option<Duration>,
    pub(crate) lose_reply: bool,
    pub(crate) duplicate: bool,
    pub(crate) refuse: bool,
    pub(crate) hang: bool,
}

impl Plan {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.delay.is_some(), "delay"),
            (self.error_500, "error_500"),
            (self.unavailable.is_some(), "unavailable"),
            (self.lose_reply, "lose_reply"),
            (self.duplicate, "duplicate"),
            (self.refuse, "refuse"),
            (self.hang, "hang"),
        ]
        .into_iter()
        .filter_map(|(hit, name)| hit.then_some(name))
    }
}

/// The current settings of a service.
#[derive(Debug)]
pub(crate) struct Faults {
    operations: Vec<&'static str>,
    settings: RwLock<Settings>,
}

impl Faults {
    pub(crate) fn new(operations: Vec<&'static str>) -> Self {
        Self { operations, settings: RwLock::default() }
    }

    pub(crate) fn draw(&self, operation: &str) -> Plan {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rates) = settings.get(operation).or_else(|| settings.get(ANY_OPERATION)) else {
            return Plan::default();
        };
        let hits = |rate: f64| rate > 0.0 && rand::random::<f64>() < rate;
        Plan {
            delay: rates.delay.filter(|delay| hits(delay.rate)).map(|delay| Duration::from_millis(delay.ms)),
            error_500: hits(rates.error_500),
            unavailable: rates.unavailable.filter(|u| hits(u.rate)).map(|u| Duration::from_secs(u.retry_after_s)),
            lose_reply: hits(rates.lose_reply),
            duplicate: hits(rates.duplicate),
            refuse: hits(rates.refuse),
            hang: hits(rates.hang),
        }
    }

    fn replace(&self, settings: Settings) -> Result<(), Problem> {
        for (operation, rates) in &settings {
            if operation != ANY_OPERATION && !self.operations.contains(&operation.as_str()) {
                let known = self.operations.join(", ");
                return Err(invalid(operation, &format!("no such operation; there are {known} and {ANY_OPERATION}")));
            }
            check(operation, rates)?;
        }
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        serde_json::json!(*self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn check(operation: &str, rates: &Rates) -> Result<(), Problem> {
    let named = [
        ("delay.rate", rates.delay.map_or(0.0, |delay| delay.rate)),
        ("error_500", rates.error_500),
        ("unavailable.rate", rates.unavailable.map_or(0.0, |unavailable| unavailable.rate)),
        ("lose_reply", rates.lose_reply),
        ("duplicate", rates.duplicate),
        ("refuse", rates.refuse),
        ("hang", rates.hang),
    ];
    for (name, rate) in named {
        if !(0.0..=1.0).contains(&rate) {
            return Err(invalid(&format!("{operation}.{name}"), &format!("{rate} is not a rate from 0 to 1")));
        }
    }
    if rates.delay.is_some_and(|delay| delay.ms > DELAY_MS_MAX) {
        return Err(invalid(&format!("{operation}.delay.ms"), &format!("a delay is at most {DELAY_MS_MAX} ms")));
    }
    if rates.unavailable.is_some_and(|unavailable| unavailable.retry_after_s > RETRY_AFTER_S_MAX) {
        let field = format!("{operation}.unavailable.retry_after_s");
        return Err(invalid(&field, &format!("a pause is at most {RETRY_AFTER_S_MAX} s")));
    }
    Ok(())
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::new(codes::INVALID_FAULT, format!("{field}: {reason}")).with("field", field)
}

/// A handler that refuses; the barrier treats it like any other.
pub(crate) fn refuse<B>(_: &mut Tx, _: Given<B>) -> TxFuture<'_, Reply> {
    Box::pin(async { Err(Failure::rejected(codes::REFUSED_BY_FAULT, "refused on purpose, to demonstrate a refusal")) })
}

/// `/faults`, for a service started with `--faults`.
pub(crate) fn resource() -> Resource {
    http::resource("/faults", "GET, PUT").route(web::get().to(show)).route(web::put().to(replace))
}

/// `GET /faults`: the settings.
async fn show(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    match &shared.faults {
        Some(faults) => http::respond(&request, Ok(faults.show())),
        None => http::no_such_path(request).await,
    }
}

/// `PUT /faults`: replaces all settings; `{}` ends all faults.
async fn replace(request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let Some(faults) = &shared.faults else { return http::no_such_path(request).await };
    let replaced = async {
        let bytes = http::read_body(payload).await?;
        faults.replace(body::parse(&bytes)?)?;
        Ok(faults.show())
    };
    http::respond(&request, replaced.await)
}

/// A second handle on a connection's socket, to cut it under the server's feet.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<TcpStream>);

impl Connection {
    /// For `HttpServer::on_connect`.
    pub(crate) fn remember(io: &dyn Any, data: &mut Extensions) {
        let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
        match stream.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                data.insert(Self(Arc::new(TcpStream::from(socket))));
            }
            Err(error) => tracing::warn!(%error, "replies on this connection can't be lost on purpose"),
        }
    }

    /// Ends the connection: what is written to it from now on never reaches the client.
    pub(crate) fn cut(&self) {
        if let Err(error) = self.0.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "the connection was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(settings: &str) -> Result<Faults, String> {
        let faults = Faults::new(vec!["reserve", "release"]);
        let settings = body::parse(settings.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
        faults.replace(settings).map_err(|problem| format!("{problem:?}"))?;
        Ok(faults)
    }

    #[test]
    fn an_operation_has_its_own_rates_or_those_of_all() {
        let faults =
            replaced(r#"{"reserve": {"delay": {"rate": 1, "ms": 7}}, "*": {"refuse": 1, "unavailable": {"rate": 1}}}"#)
                .unwrap();
        assert_eq!(faults.draw("reserve"), Plan { delay: Some(Duration::from_millis(7)), ..Plan::default() });
        let any = faults.draw("release");
        assert_eq!(any.names().collect::<Vec<_>>(), ["unavailable", "refuse"]);
        faults.replace(Settings::new()).unwrap();
        assert_eq!(faults.draw("release"), Plan::default());
    }

    #[test]
    fn bad_settings_are_refused_with_their_place() {
        for (settings, place) in [
            (r#"{"pay": {}}"#, "pay"),
            (r#"{"reserve": {"hang": 1.5}}"#, "reserve.hang"),
            (r#"{"reserve": {"delay": {"rate": -1, "ms": 1}}}"#, "reserve.delay.rate"),
            (r#"{"reserve": {"delay": {"rate": 1, "ms": 600001}}}"#, "reserve.delay.ms"),
            (r#"{"reserve": {"explode": 1}}"#, "reserve.explode"),
            (r#"{"reserve": {"delay": {"rate": 1}}}"#, "reserve.delay"),
        ] {
            let error = replaced(settings).expect_err(settings);
            assert!(error.contains(place), "{settings}: {error}");
        }
    }
}
