//! Flows are judged while they are open: what was true at the time stays, whatever comes later.

mod support;

use tcpwhy::Severity;

#[test]
fn a_request_that_was_answered_after_65_s_is_judged_as_of_the_time_it_hung() {
    let report = support::report(&support::root().join("captures/rules/upstream-hang/answered-after-65s.pcap"));
    let hangs: Vec<_> = report.findings.iter().filter(|finding| finding.rule == "upstream-hang").collect();
    assert_eq!((hangs.len(), hangs[0].severity), (1, Severity::Warning));
    let packets: Vec<u64> = hangs[0].evidence.iter().map(|evidence| evidence.packet).collect();
    assert!(packets.contains(&4), "the request: {packets:?}");
    assert!(packets.contains(&8), "the answer that came late: {packets:?}");
    let incident = &report.incidents[0];
    assert_eq!(incident.rule, "upstream-hang");
    assert!(incident.headline.ends_with("only after 65.0 s"), "{}", incident.headline);
}
