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
        let flow = report.flows.iter().find(|flow| Some(flow.key()) == finding.flow);
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
    let of = |rule: &str| retries.incidents.iter().find(|incident| incident.rule == rule).expect("an incident");
    // The server repeats its SYN+ACK beside the client's repeated octets: it hears neither.
    assert!(of("return-path-lost").headline.contains(":2040"));
    let first = of("connect-timeout");
    assert!(first.headline.contains(":2031"));
    assert!(first.what_happened.iter().any(|text| text.contains("6.5")), "{:?}", first.what_happened);
}

#[test]
fn a_network_that_goes_dark_is_one_incident_with_its_first_and_last_packet() {
    let Some(report) = report("blackout-27s.pcap") else { return };
    assert_eq!(report.incidents.len(), 1, "slow and unanswered connections stand under it");
    let dark = &report.incidents[0];
    assert_eq!(dark.rule, "network-blackout");
    let packets: Vec<u64> = dark.evidence.iter().map(|evidence| evidence.packet).collect();
    for packet in [75, 77, 138, 139] {
        assert!(packets.contains(&packet), "#{packet} is not among {packets:?}");
    }
    assert!(dark.recovered_at.is_some(), "it is over: {}", dark.scope_line);
    assert!(dark.headline.contains("26.8 s"), "{}", dark.headline);
    assert!(dark.consequences.iter().any(|text| text.contains("never answers")), "{:?}", dark.consequences);
}

/// What is wrong in each capture below `tls/`, by its name; of two rules the second says more exactly what the first says.
const TLS: [(&str, &[&str]); 33] = [
    ("alpn-sserver", &["tls-fatal-alert", "tls-alpn-mismatch"]),
    ("cipher-curl", &["tls-fatal-alert", "tls-no-shared-cipher"]),
    ("exp-curl-12", &["tls-cert-expired"]),
    ("exp-curl-13", &["tls-cert-expired"]),
    ("exp-go-12", &["tls-cert-expired"]),
    // Sealed: one refusal whose reason nobody tells.
    ("exp-go-13", &["tls-cert-rejected"]),
    ("exp-java-12", &["tls-cert-expired"]),
    ("exp-java-13", &["tls-cert-rejected"]),
    ("exp-node-12", &["tls-cert-expired"]),
    ("exp-node-13", &["tls-cert-rejected"]),
    ("mtls-go", &["tls-client-cert-required"]),
    ("mtls-haproxy-12", &["tls-client-cert-required"]),
    ("mtls-haproxy-13", &["tls-client-cert-required"]),
    ("mtls-java", &["tls-client-cert-required"]),
    // nginx completes the handshake and says 400 inside TLS (both are TLS 1.2): on the wire a connection that works.
    ("mtls-nginx-12", &[]),
    ("mtls-nginx-13", &[]),
    ("mtls-sserver-12", &["tls-client-cert-required"]),
    ("mtls-sserver-13", &["tls-client-cert-required"]),
    ("name-curl-12", &["tls-cert-name-mismatch"]),
    ("name-curl-13", &["tls-cert-name-mismatch"]),
    ("name-go-12", &["tls-cert-name-mismatch"]),
    ("name-go13", &["tls-cert-name-mismatch"]),
    // A bare SSLSocket compares no names: it is served.
    ("name-java", &[]),
    ("ok-curl-13", &[]),
    ("ok-go", &[]),
    ("ok-java", &[]),
    ("ok-node", &[]),
    ("sni-haproxy", &["tls-fatal-alert", "tls-sni-unrecognized"]),
    ("sni-nginx", &["tls-fatal-alert", "tls-sni-unrecognized"]),
    ("unkca-curl-12", &["tls-cert-untrusted"]),
    ("unkca-go-12", &["tls-cert-untrusted"]),
    ("unkca-java-12", &["tls-cert-untrusted"]),
    ("ver-curl", &["tls-fatal-alert", "tls-version-mismatch"]),
];

#[test]
fn every_fault_of_tls_is_the_first_root() {
    let Some(shared) = support::shared() else { return };
    let told: std::collections::BTreeMap<&str, &[&str]> = TLS.into_iter().collect();
    for path in support::captures_below(&shared.join("captures/tls")) {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let wanted = told.get(name.as_str()).unwrap_or_else(|| panic!("{name}: nobody said what is in it"));
        let report = support::report(&path);
        let roots: Vec<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
        match (wanted, roots.as_slice()) {
            ([], []) => {}
            (wanted, [root]) => assert!(wanted.contains(root), "{name}: {root}"),
            (_, roots) => panic!("{name}: {roots:?}"),
        }
    }
}

#[test]
fn refusals_of_a_client_without_a_certificate_are_certain_where_they_are_readable() {
    let sure = |name: &str| Some(report(name)?.incidents.first()?.confidence);
    for name in ["mtls-haproxy-12", "mtls-sserver-12"] {
        let Some(sure) = sure(&format!("tls/{name}.pcap")) else { return };
        assert_eq!(sure, Confidence::Certain, "{name}");
    }
    for name in ["mtls-haproxy-13", "mtls-sserver-13", "mtls-go", "mtls-java"] {
        let Some(sure) = sure(&format!("tls/{name}.pcap")) else { return };
        assert_eq!(sure, Confidence::High, "{name}");
    }
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

/// S0 at the server: in on one interface, out by the other.
#[test]
fn two_gateways_at_the_server_are_an_asymmetric_return_path() {
    for (name, packets) in [("s0-vm-any-hang.pcap", [1, 2, 6, 27].as_slice()), ("s0-vm-any-rst.pcap", &[16, 19, 26])] {
        let Some(report) = report(name) else { return };
        let first = &report.incidents[0];
        assert_eq!((first.rule.as_str(), first.confidence), ("asymmetric-return-path", Confidence::Certain), "{name}");
        assert_eq!((first.severity, report.incidents.len()), (Severity::Critical, 1), "{name}");
        let cited: Vec<u64> = first.evidence.iter().map(|evidence| evidence.packet).collect();
        assert!(packets.iter().all(|packet| cited.contains(packet)), "{name}: {cited:?}");
    }
}

/// S0 at the client: the numbers go on under another address.
#[test]
fn two_gateways_at_the_client_are_a_reply_from_another_address() {
    for (name, stranger) in [("s0-client-hang.pcap", 5), ("s0-client-rst.pcap", 12)] {
        let Some(report) = report(name) else { return };
        let first = &report.incidents[0];
        assert_eq!(
            (first.rule.as_str(), first.confidence),
            ("reply-from-other-address", Confidence::Certain),
            "{name}"
        );
        assert!(first.headline.contains("193.70.55.9"), "{name}: {}", first.headline);
        assert!(first.evidence.iter().any(|evidence| evidence.packet == stranger), "{name}");
        assert_eq!(report.incidents.len(), 1, "{name}: repeats and resets are consequences");
    }
}

/// S0 at both points: one connection, the cause from the server's capture, the consequence from the client's.
#[test]
fn both_captures_of_two_gateways_are_one_connection() {
    let Some(shared) = support::shared() else { return };
    let path = |name: &str| shared.join("captures").join(name).to_string_lossy().into_owned();
    let inputs = [path("s0-client-hang.pcap"), path("s0-vm-any-hang.pcap")];
    let report = tcpwhy::Diagnosis::new().open(&inputs).and_then(|opened| opened.run()).expect("a report");
    assert_eq!(report.incidents.len(), 1);
    let first = &report.incidents[0];
    assert_eq!(first.rule, "asymmetric-return-path");
    assert!(first.consequences.iter().any(|text| text.contains("193.70.55.9")), "{:?}", first.consequences);
    assert!(first.what_happened.iter().any(|text| text.contains("15 of 16 packets")), "{:?}", first.what_happened);
    assert!(report.captures[1].clock.is_some());
    // The stranger's packets stay a flow of their own.
    assert_eq!(report.counts.flows.total, 2);
    let turned = [inputs[1].clone(), inputs[0].clone()];
    let turned = tcpwhy::Diagnosis::new().open(&turned).and_then(|opened| opened.run()).expect("a report");
    assert_eq!(turned.incidents[0].headline, first.headline, "the order of inputs does not matter");
}

#[test]
fn a_narrow_link_is_a_black_hole_only_where_nobody_tells() {
    let Some(hole) = report("pmtu-blackhole.pcap") else { return };
    let first = &hole.incidents[0];
    assert_eq!((first.rule.as_str(), first.confidence), ("pmtu-blackhole", Confidence::High));
    assert!(first.headline.contains("1448"));
    let Some(told) = report("pmtu-discovered.pcap") else { return };
    assert!(told.incidents.is_empty());
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
