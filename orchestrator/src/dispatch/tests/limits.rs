//! Permits, rate, circuit, pause.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc};

use super::{server::json, *};
use crate::dispatch::Circuit;

/// A server that holds each request until it is let go, and knows how many it holds.
struct Holding {
    server: Server,
    arrived: mpsc::UnboundedReceiver<()>,
    let_go: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
}

async fn holding() -> Holding {
    let (arrive, arrived) = mpsc::unbounded_channel();
    let let_go = Arc::new(Semaphore::new(0));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, highest) = (Arc::clone(&let_go), Arc::clone(&most));
    let server = Server::start(move |mut connection| {
        let (arrive, gate, now, highest) = (arrive.clone(), Arc::clone(&gate), Arc::clone(&now), Arc::clone(&highest));
        async move {
            while connection.request().await.is_some() {
                highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _ = arrive.send(());
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
                connection.send(json(200, "", "{}").as_bytes()).await;
            }
        }
    })
    .await;
    Holding { server, arrived, let_go, most }
}

/// Waits until a condition holds, which other tasks bring about.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come about");
        tokio::task::yield_now().await;
    }
}

fn answered(report: &CallReport) -> bool {
    matches!(report.result, CallResult::Answered(_))
}

fn waiting(dispatcher: &HttpParticipants) -> (i64, i64) {
    let health = dispatcher.health().remove(0);
    (health.in_flight, health.waiting)
}

/// Invariant 12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_calls_are_in_flight_than_permits() {
    let mut holding = holding().await;
    let settings = config::Participant { max_concurrency: 8, ..settings(holding.server.url()) };
    let dispatcher = Arc::new(dispatcher(settings));
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let dispatcher = Arc::clone(&dispatcher);
            tokio::spawn(async move { dispatcher.call(&post("/"), &term()).await })
        })
        .collect();
    until(|| waiting(&dispatcher) == (8, 192)).await;
    for _ in 0..8 {
        holding.arrived.recv().await;
    }
    holding.let_go.add_permits(200);
    for call in calls {
        assert!(answered(&call.await.unwrap()));
    }
    assert_eq!(holding.most.load(Ordering::SeqCst), 8);
    assert_eq!(waiting(&dispatcher), (0, 0));
    assert!(holding.server.connections() <= 8, "{} connections", holding.server.connections());
}

#[tokio::test]
async fn a_call_is_put_off_when_the_queue_is_full_or_no_permit_comes_in_time() {
    for (max_waiting, why) in
        [(0, "too many calls wait for the participant"), (10, "the participant has as many calls in flight as it may")]
    {
        let mut holding = holding().await;
        let settings = config::Participant {
            max_concurrency: 1,
            max_waiting,
            max_wait: Millis(20),
            ..settings(holding.server.url())
        };
        let dispatcher = Arc::new(dispatcher(settings));
        let first = tokio::spawn({
            let dispatcher = Arc::clone(&dispatcher);
            async move { dispatcher.call(&post("/"), &term()).await }
        });
        holding.arrived.recv().await;
        let report = dispatcher.call(&post("/"), &term()).await;
        let (said, wait) = deferred(&report);
        assert_eq!(said, why);
        assert!((500..=1500).contains(&wait.0), "{wait}");
        holding.let_go.add_permits(1);
        assert!(answered(&first.await.unwrap()));
        assert_eq!(waiting(&dispatcher), (0, 0));
    }
}

#[tokio::test]
async fn a_call_that_gets_its_permit_after_its_lease_is_not_sent() {
    let mut holding = holding().await;
    let settings = config::Participant { max_concurrency: 1, ..settings(holding.server.url()) };
    let dispatcher = Arc::new(dispatcher(settings));
    let first = tokio::spawn({
        let dispatcher = Arc::clone(&dispatcher);
        async move { dispatcher.call(&post("/"), &term()).await }
    });
    holding.arrived.recv().await;
    let lease = Lease::until(Instant::now() + Duration::from_secs(3600));
    let late = tokio::spawn({
        let (dispatcher, term) = (Arc::clone(&dispatcher), lease.term());
        async move { dispatcher.call(&post("/"), &term).await }
    });
    until(|| waiting(&dispatcher) == (1, 1)).await;
    lease.extend(Instant::now());
    holding.let_go.add_permits(1);
    assert!(answered(&first.await.unwrap()));
    assert_eq!(deferred(&late.await.unwrap()).0, "the lease ended before the request was sent");
    assert!(holding.arrived.try_recv().is_err(), "nothing more arrived");
}

#[tokio::test]
async fn a_cancelled_call_frees_its_permit_and_a_cancelled_wait_its_place() {
    let mut holding = holding().await;
    let settings = config::Participant { max_concurrency: 1, ..settings(holding.server.url()) };
    let dispatcher = Arc::new(dispatcher(settings));
    let spawn = || {
        let dispatcher = Arc::clone(&dispatcher);
        tokio::spawn(async move { dispatcher.call(&post("/"), &term()).await })
    };
    let flying = spawn();
    holding.arrived.recv().await;
    let queued = spawn();
    until(|| waiting(&dispatcher) == (1, 1)).await;
    queued.abort();
    assert!(queued.await.unwrap_err().is_cancelled());
    assert_eq!(waiting(&dispatcher), (1, 0));
    flying.abort();
    assert!(flying.await.unwrap_err().is_cancelled());
    assert_eq!(waiting(&dispatcher), (0, 0));
    holding.let_go.add_permits(2);
    assert!(answered(&spawn().await.unwrap()));
}

/// Invariant 12.
#[tokio::test]
async fn the_rate_holds_and_those_who_wait_keep_their_order() {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&arrivals);
    let server = Server::start(move |mut connection| {
        let kept = Arc::clone(&kept);
        async move {
            while let Some(request) = connection.request().await {
                let path: usize = request.split(' ').nth(1).unwrap()[1..].parse().unwrap();
                kept.lock().unwrap().push((Instant::now(), path));
                connection.send(json(200, "", "{}").as_bytes()).await;
            }
        }
    })
    .await;
    let rate_limit = Some(config::RateLimit { per_second: 50, burst: Some(1) });
    let dispatcher = dispatcher(config::Participant { rate_limit, ..settings(server.url()) });
    let begun = Instant::now();
    let invokes: Vec<Invoke> = (0..10).map(|number| post(&format!("/{number}"))).collect();
    let term = term();
    let reports = futures_util::future::join_all(invokes.iter().map(|invoke| dispatcher.call(invoke, &term))).await;
    assert!(reports.iter().all(answered));
    let arrivals = arrivals.lock().unwrap();
    for (number, (arrived, path)) in arrivals.iter().enumerate() {
        assert!(*arrived - begun >= Duration::from_millis(20) * u32::try_from(number).unwrap(), "{number}");
        assert_eq!(*path, number);
    }
    assert_eq!(arrivals.len(), 10);
}

#[tokio::test]
async fn a_call_is_put_off_when_the_rate_is_spent_for_longer_than_it_may_wait() {
    let server = Server::answering(json(200, "", "{}")).await;
    let rate_limit = Some(config::RateLimit { per_second: 1, burst: None });
    let dispatcher = dispatcher(config::Participant { rate_limit, max_wait: Millis(10), ..settings(server.url()) });
    assert!(answered(&dispatcher.call(&post("/"), &term()).await));
    let report = dispatcher.call(&post("/"), &term()).await;
    let (why, wait) = deferred(&report);
    assert_eq!(why, "the participant's rate is spent");
    assert!((400..=3000).contains(&wait.0), "{wait}");
}

#[tokio::test]
async fn the_circuit_opens_puts_calls_off_and_closes_when_the_participant_is_back() {
    let answer = Arc::new(Mutex::new(json(500, "", "{}")));
    let given = Arc::clone(&answer);
    let server = Server::start(move |mut connection| {
        let given = Arc::clone(&given);
        async move {
            while connection.request().await.is_some() {
                let bytes = given.lock().unwrap().clone();
                connection.send(bytes.as_bytes()).await;
            }
        }
    })
    .await;
    let metrics = Metrics::new();
    let breaker = config::Breaker { failures: 3, open_for: Millis(100), open_for_max: Millis(100), probes: 2 };
    let dispatcher = dispatcher_with(config::Participant { breaker, ..settings(server.url()) }, &metrics);
    let circuit = || dispatcher.health().remove(0).circuit;
    for _ in 0..3 {
        assert_eq!(circuit(), Circuit::Closed);
        assert!(answered(&dispatcher.call(&post("/"), &term()).await));
    }
    assert_eq!(circuit(), Circuit::Open);
    assert!(metrics.render().contains("circuit_state{service=\"sales\"} 2"));
    let report = dispatcher.call(&post("/"), &term()).await;
    let (why, wait) = deferred(&report);
    assert_eq!(why, "the participant's circuit is open: it failed too often");
    // At most six fifths of 100 ms, and up to 250 ms of spread.
    assert!((1..=370).contains(&wait.0), "{wait}");
    assert!(metrics.render().contains("participant_calls_deferred_total{reason=\"circuit_open\",service=\"sales\"} 1"));

    *answer.lock().unwrap() = json(422, "", "{}");
    let mut made = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    while made < 2 {
        made += usize::from(answered(&dispatcher.call(&post("/"), &term()).await));
        assert!(Instant::now() < deadline, "the circuit stayed open");
        tokio::task::yield_now().await;
    }
    assert_eq!(circuit(), Circuit::Closed);
    assert!(metrics.render().contains("circuit_state{service=\"sales\"} 0"));
}

#[tokio::test]
async fn what_counts_against_a_participant() {
    for (answer, opens) in [
        (json(500, "", "{}"), true),
        (json(503, "", "{}"), true),
        (json(503, "Retry-After: 1\r\n", "{}"), false),
        (json(429, "", "{}"), false),
        (json(422, "", "{}"), false),
        (json(404, "", "{}"), false),
        (json(200, "", "not JSON"), false),
        (String::new(), true),
    ] {
        let server = Server::answering_once_then_closing(answer.clone()).await;
        let breaker = config::Breaker { failures: 1, ..Default::default() };
        let dispatcher = dispatcher(config::Participant { breaker, ..settings(server.url()) });
        dispatcher.call(&post("/"), &term()).await;
        assert_eq!(dispatcher.health()[0].circuit == Circuit::Open, opens, "{answer}");
    }
    let dispatcher = dispatcher(config::Participant {
        breaker: config::Breaker { failures: 1, ..Default::default() },
        ..settings("http://127.0.0.1:1")
    });
    dispatcher.call(&post("/../x"), &term()).await;
    assert_eq!(dispatcher.health()[0].circuit, Circuit::Closed, "a path of ours says nothing about the participant");
    dispatcher.call(&post("/"), &term()).await;
    assert_eq!(dispatcher.health()[0].circuit, Circuit::Open);
}

#[tokio::test]
async fn calls_of_a_paused_participant_are_put_off_until_it_is_resumed() {
    let mut holding = holding().await;
    holding.let_go.add_permits(10);
    let dispatcher = dispatcher(settings(holding.server.url()));
    assert!(!dispatcher.pause("elsewhere") && !dispatcher.unpause("elsewhere"));
    assert!(dispatcher.pause("sales"));
    for _ in 0..20 {
        let report = dispatcher.call(&post("/"), &term()).await;
        let (why, wait) = deferred(&report);
        assert_eq!(why, "the participant is paused");
        assert!((2_500..=7_500).contains(&wait.0), "{wait}");
    }
    assert!(holding.arrived.try_recv().is_err());
    assert!(dispatcher.unpause("sales"));
    assert!(answered(&dispatcher.call(&post("/"), &term()).await));
}

#[tokio::test]
async fn what_is_counted() {
    let server = Server::answering(json(422, "", "{}")).await;
    let metrics = Metrics::new();
    dispatcher_with(settings(server.url()), &metrics).call(&post("/"), &term()).await;
    let text = metrics.render();
    for line in [
        "external_service_call_duration_seconds_count{operation=\"action\",outcome=\"4xx\",service=\"sales\"} 1",
        "participant_calls_in_flight{service=\"sales\"} 0",
        "participant_calls_waiting{service=\"sales\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
