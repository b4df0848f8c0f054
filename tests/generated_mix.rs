//! Generated traffic: a healthy mix has nothing above notice, and what was broken in the other is found.

#[path = "../benches/generate/mod.rs"]
mod generate;
mod support;

use std::collections::BTreeSet;
use std::io::Cursor;

use generate::Shape;
use tcpwhy::capture::Source;
use tcpwhy::{Diagnosis, Report, Severity};

fn report(bytes: Vec<u8>) -> Report {
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes)) as _)]).expect("a capture");
    Diagnosis::new().source(source).and_then(|opened| opened.run()).expect("a report")
}

fn lines_on_limits(bytes: &[u8], workers: usize, memory: usize) -> (Report, Vec<String>) {
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes.to_vec())) as _)]);
    let diagnosis = Diagnosis::new().workers(workers).max_memory(memory);
    let report = source.and_then(|source| diagnosis.source(source)).and_then(|opened| opened.run()).expect("a report");
    let lines = report.not_judged.iter().filter(|line| line.contains("judged early")).cloned().collect();
    (report, lines)
}

#[test]
fn what_a_cap_on_memory_costs_is_told_and_does_not_depend_on_the_workers() {
    for (shape, memory) in [(Shape::Storm, 8 << 20), (Shape::Mix, 2 << 20), (Shape::Flood, 1 << 20)] {
        let (bytes, _) = generate::bytes(shape, 3_000_000, 7);
        let (one, told) = lines_on_limits(&bytes, 1, memory);
        assert!(told.iter().any(|line| line.contains("--max-memory")), "{:?}", one.not_judged);
        for workers in [2, 4] {
            let (more, _) = lines_on_limits(&bytes, workers, memory);
            let json = |report: &Report| serde_json::to_string(report).expect("a report");
            assert!(json(&one) == json(&more), "{workers} workers");
        }
        let (_, enough) = lines_on_limits(&bytes, 1, 1 << 30);
        assert!(enough.is_empty(), "{enough:?}");
    }
}

#[test]
fn nothing_is_wrong_with_healthy_traffic() {
    let (bytes, totals) = generate::bytes(Shape::Healthy, 5_000_000, 7);
    let report = report(bytes);
    let loud: BTreeSet<String> = support::findings(&report)
        .filter(|finding| finding.severity > Severity::Notice)
        .map(|finding| format!("{}: {}", finding.rule, finding.says))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
    assert_eq!(report.counts.packets["read"], totals.packets);
    assert_eq!(report.counts.flows.total, totals.flows);
    assert_eq!(report.counts.flows.healthy, totals.flows, "{:?}", report.counts.flows);
}

#[test]
fn nothing_is_wrong_with_ten_thousand_flows_that_look_odd() {
    for seed in [7, 8] {
        let (bytes, totals) = generate::bytes(Shape::Benign, 42_000_000, seed);
        assert!(totals.flows >= 10_000, "{totals:?}");
        let report = report(bytes);
        let loud: BTreeSet<String> = support::findings(&report)
            .filter(|finding| finding.severity > Severity::Notice)
            .map(|finding| format!("{}: {}", finding.rule, finding.says))
            .collect();
        assert!(loud.is_empty(), "{loud:#?}");
        assert_eq!(report.counts.flows.failed, 0, "{:?}", report.counts.flows);
    }
}

#[test]
fn every_fault_in_a_mix_is_a_root() {
    let (bytes, _) = generate::bytes(Shape::Mix, 12_000_000, 7);
    let report = report(bytes);
    let roots: BTreeSet<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
    for rule in ["connect-refused", "connect-timeout", "proxy-header-to-tls-port"] {
        assert!(roots.contains(rule), "{rule} is not among {roots:?}");
    }
}

#[test]
fn five_thousand_broken_flows_among_fifty_thousand_are_one_incident_on_one_screen() {
    let (bytes, totals) = generate::bytes(Shape::Outage, 56_000_000, 7);
    assert!(totals.flows > 55_000, "{totals:?}");
    let report = report(bytes);
    assert_eq!(report.incidents.len(), 1, "{:?}", report.incidents.iter().map(|i| &i.headline).collect::<Vec<_>>());
    let incident = &report.incidents[0];
    assert_eq!(incident.rule, "proxy-header-to-tls-port");
    assert!(incident.scope.flows > 4_500, "{:?}", incident.scope);
    assert!(incident.scope_line.contains(&format!("{} of", incident.scope.flows)), "{}", incident.scope_line);
    let text = tcpwhy::render::text::report(&report, tcpwhy::render::Style::default());
    let screen = text.lines().position(|line| line.starts_with("DETAILS")).expect("details below the first screen");
    assert!(screen <= 26, "the first screen has {} lines", screen - 1);
    assert!(text.lines().take(screen).all(|line| line.chars().count() <= 100));
    let json = serde_json::to_string_pretty(&report).expect("plain data");
    assert!(json.len() < 100_000, "{} octets of JSON", json.len());
}

#[test]
fn a_flood_of_spoofed_syns_is_one_incident() {
    let (bytes, totals) = generate::bytes(Shape::Flood, 3_000_000, 7);
    assert!(totals.flows > 30_000, "{totals:?}");
    let report = report(bytes);
    let rules: Vec<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
    assert_eq!(rules, ["syn-flood"]);
}

#[test]
fn the_same_seed_gives_the_same_octets() {
    for (word, shape) in Shape::ALL {
        let (first, totals) = generate::bytes(shape, 300_000, 3);
        assert_eq!(first, generate::bytes(shape, 300_000, 3).0, "{word}");
        assert_ne!(first, generate::bytes(shape, 300_000, 4).0, "{word}");
        assert!(totals.octets == first.len() as u64 && totals.octets >= 300_000, "{word}: {totals:?}");
    }
}
