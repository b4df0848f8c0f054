//! Real captures of real software that lie beside the project: what must be said of each.

mod support;

use tcpwhy::diagnose::report::FindingEntry;
use tcpwhy::{Confidence, Report, Severity};

fn report(name: &str) -> Option<Report> {
    Some(support::report(&support::shared()?.join("captures").join(name)))
}

/// Findings of a rule at a server port, by the flow's server end.
fn at<'r>(report: &'r Report, rule: &str, port: u16) -> Vec<&'r FindingEntry> {
    let ends_so = |finding: &&FindingEntry| {
        let flow = report.flows.iter().find(|flow| Some(flow.id) == finding.flow);
        flow.is_some_and(|flow| flow.server.ends_with(&format!(":{port}")))
    };
    report.findings.iter().filter(|finding| finding.rule == rule).filter(ends_so).collect()
}

#[test]
fn one_connection_of_the_gitlab_outage_is_high_and_linked_to_its_client_leg() {
    let Some(report) = report("s1-haproxy-statefile-proxyv2.pcap") else { return };
    let first = &report.incidents[0];
    assert_eq!((first.rule.as_str(), first.confidence), ("proxy-header-to-tls-port", Confidence::High));
    assert_eq!(first.links.len(), 1);
    assert_eq!(first.links[0].certainty, Confidence::Certain);
    assert_eq!(first.links[0].methods.len(), 2, "ClientHello random and header addresses");
    let packets: Vec<u64> = first.evidence.iter().map(|evidence| evidence.packet).collect();
    for packet in [4, 9, 13, 14] {
        assert!(packets.contains(&packet), "#{packet} is not among {packets:?}");
    }
    assert!(first.what_happened.iter().any(|text| text.contains("10.99.1.2:53002")), "the header is decoded");
    assert_eq!(report.incidents.len(), 1, "the client leg's symptom stands under the cause");
}

#[test]
fn six_tls_servers_refuse_a_proxy_header_each_in_its_way() {
    let Some(report) = report("proxyv2-six-tls-backends-any.pcap") else { return };
    for (port, shows) in [(8443, "400"), (9443, "FIN"), (3443, "FIN"), (7443, "FIN"), (4443, "alert"), (5443, "RST")] {
        let found = at(&report, "proxy-header-to-tls-port", port);
        assert!(!found.is_empty(), "nothing at :{port}");
        let told = found.iter().flat_map(|f| &f.evidence).any(|e| e.shows.contains(shows));
        assert!(told, ":{port} does not show {shows}: {:?}", found[0].evidence);
        assert!(found[0].confidence >= Confidence::High);
    }
    // Version 1 went to :3443 as well.
    assert_eq!(at(&report, "proxy-header-to-tls-port", 3443)[0].count, 2);
    for port in [8444, 9444, 7444] {
        assert!(!at(&report, "proxy-header-missing", port).is_empty(), "no missing header at :{port}");
    }
    assert_eq!(at(&report, "proxy-header-missing", 8444)[0].confidence, Confidence::Certain);
    assert!(!at(&report, "http-to-tls-port", 8443).is_empty());
    assert!(!at(&report, "tls-to-http-port", 8080).is_empty());
    assert!(!at(&report, "connect-refused", 99).is_empty());
}

#[test]
fn every_way_a_connection_ends_is_told_apart() {
    let Some(report) = report("close-and-reset-kinds.pcap") else { return };
    for port in [2070, 2073] {
        assert!(!at(&report, "reset-unread-data", port).is_empty(), ":{port} aborted with unread data");
    }
    assert_eq!(at(&report, "zero-window", 2074).len(), 1, ":2074 stopped reading");
    let loud: Vec<&str> =
        support::findings(&report).filter(|f| f.severity > Severity::Notice).map(|f| f.rule.as_str()).collect();
    assert_eq!(loud, ["reset-unread-data", "reset-unread-data", "zero-window"], "the other two are quiet");
}

#[test]
fn a_full_listen_queue_and_the_schedule_of_syns_are_named() {
    let Some(queue) = report("accept-queue-overflow.pcap") else { return };
    assert_eq!(queue.incidents[0].rule, "accept-queue-overflow");
    let Some(retries) = report("syn-and-synack-retries.pcap") else { return };
    let first = retries.incidents.iter().find(|incident| incident.rule == "connect-timeout").expect("a root");
    assert!(first.headline.contains(":2031"));
    assert!(first.what_happened.iter().any(|text| text.contains("6.5")), "{:?}", first.what_happened);
}

#[test]
fn tls_that_works_is_quiet() {
    let Some(shared) = support::shared() else { return };
    let files = support::captures_below(&shared.join("captures/tls"));
    let good = files.iter().filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ok-")));
    for path in good {
        let report = support::report(path);
        let loud: Vec<&str> =
            support::findings(&report).filter(|f| f.severity > Severity::Notice).map(|f| f.rule.as_str()).collect();
        assert!(loud.is_empty(), "{}: {loud:?}", path.display());
    }
}

#[test]
fn three_fetches_that_wait_for_ever_are_one_critical_hang() {
    let Some(report) = report("s3-crl-hang.pcap") else { return };
    assert_eq!(report.incidents.len(), 1, "what the clients did about it stands under the cause");
    let first = &report.incidents[0];
    assert_eq!((first.rule.as_str(), first.severity), ("upstream-hang", Severity::Critical));
    assert_eq!(first.confidence, Confidence::High);
    assert!(first.headline.starts_with("3 requests to 10.99.2.2:2091"), "{}", first.headline);
    assert!(first.headline.ends_with("the caller gives up after 20.0 s"), "{}", first.headline);
    let packets: Vec<u64> = first.evidence.iter().map(|evidence| evidence.packet).collect();
    for packet in [25, 35, 36, 40, 45, 47] {
        assert!(packets.contains(&packet), "#{packet} is not among {packets:?}");
    }
    assert!(first.evidence.iter().any(|e| e.packet == 25 && e.shows.contains("the same request was answered")));
}
