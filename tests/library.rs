//! The library as a program would use it.

mod support;

use tcpwhy::{Diagnosis, Severity, Thresholds};

#[test]
fn the_example_of_the_readme_works() -> Result<(), tcpwhy::Error> {
    let capture = support::root().join("captures/incidents/gitlab/both-legs.pcap");
    let report = Diagnosis::new().open(&[capture.to_string_lossy()])?.run()?;
    let first = &report.incidents[0];
    assert_eq!(first.rule, "proxy-header-to-tls-port");
    assert_eq!(first.severity, Severity::Critical);
    Ok(())
}

#[test]
fn thresholds_reach_the_rules() -> Result<(), tcpwhy::Error> {
    let capture = support::root().join("captures/incidents/gitlab/both-legs.pcap");
    let mut thresholds = Thresholds::default();
    thresholds.set("refusal", "1us").expect("a span");
    let report = Diagnosis::new().thresholds(thresholds).open(&[capture.to_string_lossy()])?.run()?;
    assert!(report.incidents.iter().all(|incident| incident.rule != "proxy-header-to-tls-port"));
    Ok(())
}

#[test]
fn merged_summaries_survive_serialisation_and_give_the_same_report() -> Result<(), tcpwhy::Error> {
    let capture = support::root().join("captures/incidents/gitlab/both-legs.pcap");
    let merged = Diagnosis::new().open(&[capture.to_string_lossy()])?.merged()?;
    let settings = tcpwhy::diagnose::Settings::default();
    let report = tcpwhy::diagnose::report(&merged, &settings);
    assert_eq!(report, tcpwhy::diagnose::report(&merged, &settings));
    Ok(())
}

#[test]
fn progress_ends_with_all_octets_and_packets() -> Result<(), tcpwhy::Error> {
    let capture = support::root().join("captures/incidents/gitlab/both-legs.pcap");
    let progress = std::sync::Arc::new(tcpwhy::Progress::default());
    let opened = Diagnosis::new().progress(progress.clone()).open(&[capture.to_string_lossy()])?;
    let total = capture.metadata().expect("a file").len();
    assert_eq!((progress.total(), progress.packets(), progress.concluding()), (Some(total), 0, false));
    let report = opened.run()?;
    assert_eq!((progress.octets(), progress.packets()), (total, report.counts.packets["read"]));
    assert!(progress.concluding() && progress.suspects().0 > 0, "{progress:?}");
    Ok(())
}
