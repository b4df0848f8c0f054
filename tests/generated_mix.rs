//! Generated traffic: a healthy mix has nothing above notice, and what was broken in the other is found.

#[path = "../benches/generate/mod.rs"]
mod generate;
mod support;

use std::io::Cursor;

use generate::Shape;
use tcpwhy::capture::Source;
use tcpwhy::{Diagnosis, Report, Severity};

fn report(shape: Shape, octets: u64) -> Report {
    let mut bytes = Vec::new();
    generate::write(shape, octets, 7, &mut bytes).expect("memory");
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes)) as _)]).expect("a capture");
    Diagnosis::new().source(source).and_then(|opened| opened.run()).expect("a report")
}

#[test]
fn nothing_is_wrong_with_a_healthy_mix() {
    let report = report(Shape::Mix, 12 << 20);
    let loud: Vec<&str> =
        support::findings(&report).filter(|f| f.severity > Severity::Notice).map(|f| f.says.as_str()).collect();
    assert!(loud.is_empty(), "{loud:#?}");
    assert!(report.counts.flows.healthy > 1_500, "{:?}", report.counts.flows);
}

#[test]
fn every_generated_fault_is_named() {
    let report = report(Shape::Faults, 12 << 20);
    let roots: Vec<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
    for rule in ["connect-refused", "connect-timeout", "proxy-header-to-tls-port"] {
        assert!(roots.contains(&rule), "{rule} is not among {roots:?}");
    }
}
