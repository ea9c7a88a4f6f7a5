#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::time::{Duration, Instant};

use super::*;
use crate::jose::Algorithm;
use crate::time::Span;

fn rendered(metrics: &Metrics) -> String {
    metrics.render(&Gauges::new())
}

fn holds(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no {line} in:\n{text}");
}

#[test]
fn a_request_is_counted_once_by_how_it_ended() {
    let metrics = Metrics::new();
    let set = metrics.key_set("main");
    let running = set.begin(Operation::SignJwt);
    holds(
        &rendered(&metrics),
        "sealkeeper_requests_in_flight{key_set=\"main\"} 1",
    );
    running.end(Outcome::Signed);
    drop(set.begin(Operation::SignJwt));
    set.begin(Operation::SignJws).end(Outcome::Deadline);
    set.count(Operation::SignJws, Outcome::Overloaded);
    set.begin(Operation::SignJwt).uncounted();
    let text = rendered(&metrics);
    holds(&text, "sealkeeper_requests_in_flight{key_set=\"main\"} 0");
    for (operation, outcome, count) in [
        ("sign-jwt", "signed", 1),
        ("sign-jwt", "abandoned", 1),
        ("sign-jwt", "refused", 0),
        ("sign-jws", "deadline", 1),
        ("sign-jws", "overloaded", 1),
    ] {
        holds(
            &text,
            &format!(
                "sealkeeper_requests_total{{key_set=\"main\",operation=\"{operation}\",outcome=\"{outcome}\"}} {count}"
            ),
        );
    }
    // What was not signed has no time.
    holds(&text, "sealkeeper_sign_seconds_count{key_set=\"main\"} 1");
}

#[test]
fn own_time_is_what_the_others_leave() {
    let metrics = Metrics::new();
    let set = metrics.key_set("main");
    let mut request = set.begin(Operation::SignJwt);
    request.began = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
    request.device = Duration::from_secs(2);
    request.record = Duration::from_secs(1);
    request.verification = Duration::from_secs(1);
    request.end(Outcome::Signed);
    let text = rendered(&metrics);
    let sum = |name: &str| -> f64 {
        let start = format!("sealkeeper_{name}_seconds_sum{{key_set=\"main\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap().parse().unwrap()
    };
    assert!((2.0..2.5).contains(&sum("sign_own")), "{text}");
    assert!((5.0..5.5).contains(&sum("sign")), "{text}");
    for (name, seconds) in [("device", 2.0), ("record", 1.0), ("verification", 1.0)] {
        let sum = sum(&format!("sign_{name}"));
        assert!((sum - seconds).abs() < 1e-6, "{name}: {sum}");
    }
}

#[test]
fn refusals_are_counted_by_rule_and_bounded() {
    let metrics = Metrics::new();
    let set = metrics.key_set("main");
    for _ in 0..3 {
        set.refused("EXPIRED", "key_set.main.rule.login");
    }
    set.refused("EXPIRED", "a text \"with\" {anything} in it");
    set.refused("EXPIRED", &"x".repeat(10_000));
    let text = rendered(&metrics);
    holds(
        &text,
        "sealkeeper_refusals_total{key_set=\"main\",reason=\"EXPIRED\",rule=\"key_set.main.rule.login\"} 3",
    );
    holds(
        &text,
        "sealkeeper_refusals_total{key_set=\"main\",reason=\"EXPIRED\",rule=\"other\"} 2",
    );
    for n in 0..10_000 {
        set.refused("EXPIRED", &format!("rule-{n}"));
    }
    let series = rendered(&metrics);
    let series = series
        .lines()
        .filter(|l| l.starts_with("sealkeeper_refusals_total{"));
    assert!(series.count() <= key_set::MOST_REFUSALS + 1);
}

#[test]
fn connections_close_when_they_are_dropped() {
    let metrics = Metrics::new();
    let connections = metrics.connections("signing");
    let first = connections.open();
    let second = connections.open();
    drop(first);
    let text = rendered(&metrics);
    holds(&text, "sealkeeper_connections{listener=\"signing\"} 1");
    holds(
        &text,
        "sealkeeper_connections_total{listener=\"signing\"} 2",
    );
    drop(second);
}

#[test]
fn what_is_gone_leaves_no_figure() {
    let metrics = Metrics::new();
    let then = Gauges::new();
    then.device("hsm", DeviceState::PinBlocked, 3);
    then.keys("main", Algorithm::Es256, "active", 1);
    then.rotation("main", Algorithm::Es256, Span::from_secs(90), Span::ZERO);
    let text = metrics.render(&then);
    holds(
        &text,
        "sealkeeper_device_state{device=\"hsm\",state=\"pin_blocked\"} 1",
    );
    holds(
        &text,
        "sealkeeper_device_state{device=\"hsm\",state=\"up\"} 0",
    );
    holds(&text, "sealkeeper_device_queue_length{device=\"hsm\"} 3");
    holds(
        &text,
        "sealkeeper_next_rotation_seconds{algorithm=\"ES256\",key_set=\"main\"} 90",
    );
    assert!(!rendered(&metrics).contains("sealkeeper_keys"));
}
