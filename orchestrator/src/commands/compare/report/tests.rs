use std::time::Duration;

use serde_json::{Value, json};
use skald_core::event::Mode;

use super::*;
use crate::commands::compare::{
    agreement,
    leg::{Ended, Sample},
    workload::Outcome,
};

fn ended(order: u64, took_ms: u64, declined: bool) -> Sample {
    let (status, failure) = if declined {
        ("compensated", Some((Some("pay".to_owned()), "payment_declined".to_owned())))
    } else {
        ("completed", None)
    };
    let took = Duration::from_millis(took_ms);
    let ended = Ended {
        id: format!("saga-{order}"),
        status: status.to_owned(),
        state: status.to_uppercase(),
        failure,
        output: None,
        by_server: took - Duration::from_millis(2),
        undoing: declined.then(|| took / 4),
        events: if declined { 14 } else { 12 },
        attempts: 5,
    };
    let planted = if declined { Outcome::Declined } else { Outcome::Accepted };
    Sample { order, planted, end: End::Ended(Box::new(ended)), took }
}

/// Two rounds of ten, one of ten declined, each saga a little slower than the one before.
fn rounds(base_ms: u64, traffic: Option<Traffic>) -> Vec<Measured> {
    let round = |from: u64| {
        let samples = (from..from + 10).map(|order| ended(order, base_ms + order, order % 10 == 9)).collect();
        Measured { run: Run { samples, took: Duration::from_millis(500) }, operations: 60.0, traffic }
    };
    vec![round(0), round(10)]
}

fn settings() -> Settings {
    Settings {
        url: "http://127.0.0.1:8080".to_owned(),
        definition: "checkout".to_owned(),
        clients: 4,
        sagas: Some(20),
        duration_ms: None,
        rounds: 2,
        warm_up: 5,
        declined_percent: 10,
        seed: 7,
        faults: String::new(),
        fault_settings: json!({}),
        correlation_prefix: "compare-0000002a".to_owned(),
    }
}

fn report() -> Report {
    let orchestrated = rounds(20, Some(Traffic { to_participants: 55.0, from_participants: 0.0 }));
    let choreographed = rounds(40, Some(Traffic { to_participants: 0.0, from_participants: 80.0 }));
    let samples = |rounds: &'static [Measured]| rounds.iter().flat_map(|measured| &measured.run.samples).collect();
    let (orchestrated, choreographed) = (&*orchestrated.leak(), &*choreographed.leak());
    let agreement = agreement::compare(&[
        (Mode::Orchestrated, samples(orchestrated)),
        (Mode::Choreographed, samples(choreographed)),
    ]);
    let modes = vec![ModeReport::of("orchestrated", orchestrated), ModeReport::of("choreographed", choreographed)];
    Report::new(settings(), modes, Vec::new(), agreement)
}

/// One mode, with everything that can go wrong.
fn troubled() -> Report {
    let mut rounds = rounds(20, None);
    for (place, end) in
        [End::Parked, End::Unfinished, End::Unanswered("reset by peer".to_owned())].into_iter().enumerate()
    {
        rounds[0].run.samples[place].end = end;
    }
    // A declined order that completed.
    rounds[1].run.samples[0].planted = Outcome::Declined;
    let samples = rounds.iter().flat_map(|measured| &measured.run.samples).collect();
    let agreement = agreement::compare(&[(Mode::Orchestrated, samples)]);
    let missing = Missing { mode: "choreographed", reason: "501 mode_not_available: <not yet>".to_owned() };
    Report::new(settings(), vec![ModeReport::of("orchestrated", &rounds)], vec![missing], agreement)
}

#[test]
fn the_table_of_two_modes() {
    insta::assert_snapshot!(table(&report()), @"
    checkout at http://127.0.0.1:8080: 20 sagas per mode in 2 rounds, 4 clients, 10 % declined, no faults, seed 7

                                              orchestrated   choreographed    change
    How sagas ended
      sagas                                             20              20
      completed                                     90.0 %          90.0 %
      compensated                                   10.0 %          10.0 %
      neither                                            0               0
      ended per second                              20.0/s          20.0/s      +0 %
    Time to the end, as the client sees it
      p50                                          29.0 ms         49.0 ms     +69 %
      p95                                          38.0 ms         58.0 ms     +53 %
      p99                                          39.0 ms         59.0 ms     +51 %
      max                                          39.0 ms         59.0 ms     +51 %
    Time to the end, by the server's clock
      p50                                          27.0 ms         47.0 ms     +74 %
      p95                                          36.0 ms         56.0 ms     +56 %
      p99                                          37.0 ms         57.0 ms     +54 %
      max                                          37.0 ms         57.0 ms     +54 %
    Time to compensate: from the failure to the end
      p50                                           7.3 ms         12.3 ms     +69 %
      p95                                           9.8 ms         14.8 ms     +51 %
      p99                                           9.8 ms         14.8 ms     +51 %
      max                                           9.8 ms         14.8 ms     +51 %
    What a saga takes, on average
      events published                               12.20           12.20      +0 %
      calls that participants carried out             6.00            6.00      +0 %
      attempts in its history                         5.00            5.00      +0 %
      HTTP requests, Skald to participants            5.50            0.00    -100 %
      HTTP requests, participants to Skald            0.00            8.00

    final states (invariant 13): all 20 orders ended in the same final state in both modes
    ");
}

#[test]
fn the_table_tells_of_what_is_missing_and_what_went_wrong() {
    insta::assert_snapshot!(table(&troubled()), @"
    checkout at http://127.0.0.1:8080: 20 sagas per mode in 2 rounds, 4 clients, 10 % declined, no faults, seed 7

                                              orchestrated
    How sagas ended
      sagas                                             20
      completed                                     75.0 %
      compensated                                   10.0 %
      neither                                            3
      ended per second                              17.0/s
    Time to the end, as the client sees it
      p50                                          31.0 ms
      p95                                          39.0 ms
      p99                                          39.0 ms
      max                                          39.0 ms
    Time to the end, by the server's clock
      p50                                          29.0 ms
      p95                                          37.0 ms
      p99                                          37.0 ms
      max                                          37.0 ms
    Time to compensate: from the failure to the end
      p50                                           7.3 ms
      p95                                           9.8 ms
      p99                                           9.8 ms
      max                                           9.8 ms
    What a saga takes, on average
      events published                               12.24
      calls that participants carried out             6.00
      attempts in its history                         5.00
      HTTP requests, Skald to participants               -
      HTTP requests, participants to Skald               -

    choreographed was not measured: 501 mode_not_available: <not yet>
    orchestrated: 1 parked, 1 not ended in time, 1 never answered (first: reset by peer)
    final states (invariant 13): 1 of 17 orders did NOT end as they must; 3 not ended
    order 10: expected compensated for payment_declined; found orchestrated completed COMPLETED (saga saga-10)
    ");
}

#[test]
fn the_json_has_every_figure_by_its_name() {
    let report: Value = serde_json::from_str(&report().json()).unwrap();
    assert_eq!((&report["format"], &report["settings"]["sagas"]), (&json!(1), &json!(20)));
    assert_eq!(report["agreement"]["same"], 20);
    let mode = &report["modes"][1];
    assert_eq!(
        (&mode["mode"], &mode["completed"], &mode["compensated"]),
        (&json!("choreographed"), &json!(18), &json!(2))
    );
    assert_eq!((&mode["success_rate"], &mode["throughput_per_s"]), (&json!(0.9), &json!(20.0)));
    for spread in ["to_end", "to_end_by_server", "to_compensate"] {
        for name in ["count", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms"] {
            assert!(mode[spread][name].as_f64().is_some_and(|value| value > 0.0), "{spread}.{name}: {mode}");
        }
    }
    let per_saga = json!({
        "events": 12.2, "attempts": 5.0, "operations": 6.0,
        "requests_to_participants": 0.0, "requests_from_participants": 8.0,
    });
    assert_eq!(mode["per_saga"], per_saga);
    assert_eq!(mode["rounds"].as_array().unwrap().len(), 2);
    let alone: Value = serde_json::from_str(&troubled().json()).unwrap();
    assert_eq!(alone["modes"][0]["per_saga"].get("requests_to_participants"), None, "another replica is not seen");
    assert_eq!(alone["missing"][0]["mode"], "choreographed");
}

#[test]
fn the_page_needs_nothing_else_and_is_well_formed() {
    for report in [report(), troubled()] {
        let page = page(&report);
        for loads in ["src=", "href=", "url(", "@import", "<script", "<link", "<iframe", "<img", "xmlns"] {
            assert!(!page.contains(loads), "`{loads}` would load something");
        }
        // The only address is that of the server, as text.
        let addresses = page.matches("://").count();
        assert_eq!(addresses, page.matches("http://127.0.0.1:8080").count());
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("color-scheme: light dark"));
        for element in ["figure", "svg", "table", "ul", "style", "html", "body", "text", "title"] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(!page.contains("NaN") && !page.contains("inf\""), "a number is none");
    }
    let page = page(&troubled());
    assert!(page.contains("&lt;not yet&gt;") && !page.contains("<not yet>"), "text is escaped");
    assert!(page.contains("remarks bad"));
}
