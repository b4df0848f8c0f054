//! A router says that the host or its network cannot be reached.
//!
//! ## How tcpwhy knows
//! An ICMP error "destination unreachable" (IPv4 type 3 code 0, 1, 5, 6, 7, 11 or 12; IPv6 type 1 code 0 or 3) quotes a packet of the
//! connection, and the connection comes to nothing. Its sender is the last device on the way that works: for "host unreachable" it got no
//! answer to its own ARP, for "network unreachable" it has no route.
//!
//! ## What it is not
//! - `icmp-admin-prohibited`: there a rule forbids it.
//! - `icmp-port-unreachable`: there the host is up.
//! - `connect-timeout`: there nobody says anything.
//!
//! ## What people see
//! `No route to host` (113) or `Network is unreachable` (101), after about 3 s for a host whose router asks by ARP first.
//!
//! ## False alarms it avoids
//! A connection that nevertheless opens is a notice. Traceroute is left out.

use super::{quoted, told, unreachable};
use crate::catalogue::connect::connect_refused::other_family;
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "icmp-destination-unreachable",
    title: "a router says the host or network cannot be reached",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Icmp]),
    says: "{router} cannot deliver to {target_host} what {source_host} sends: {says}",
    variants: &["{source_host} is told in the name of {target_host} itself: {says}"],
    users_see: &[
        "No route to host",
        "EHOSTUNREACH",
        "Network is unreachable",
        "ENETUNREACH",
        "(113: No route to host)",
    ],
    do_first: &[
        Step {
            says: "On {router}: which way would it go, and is there a route?",
            command: "ip route get {target_host}",
        },
        Step {
            says: "On {router}: is the host known on the link (FAILED = no answer to ARP)?",
            command: "ip neigh show to {target_host}",
        },
    ],
    verify: &[Step { says: "from {source_host}; answers once it is reachable:", command: "ping -c 3 {target_host}" }],
    not: &[("icmp-admin-prohibited", "the code speaks of a missing way, of no rule")],
    cannot_show: &["whether the host is down or the link behind that router"],
    explains: &[
        Explains("connect-timeout", Scope::SameOrLink),
        Explains("mass-connect-timeout", Scope::Peer),
        Explains("proxy-upstream-connect-failed", Scope::SameOrLink),
        Explains("proxy-no-server-available", Scope::Host),
        Explains("dns-no-answer", Scope::Same),
    ],
    sources: &["RFC 792", "RFC 1812 §5.2.7.1", "RFC 4443 §3.1"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn meant(error: &IcmpError) -> bool {
    let codes: &[u8] = if error.v6 { &[0, 3] } else { &[0, 1, 5, 6, 7, 11, 12] };
    unreachable(error) && codes.contains(&error.code)
}

/// Of two address families tried side by side the other one worked: nobody missed this one.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if let Some(winner) = other_family(capture, &flow.facts) {
        finding.severity = Severity::Notice;
        finding.notes.push(format!("the client got through on the other address family ({})", winner.server()));
    }
    Keep::Yes
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let quoted = quoted(flow, meant)?;
    let finding = told(&RULE, flow, &quoted);
    // Nobody delivers to itself: a firewall there, or an address that is translated.
    Some(if quoted.error.from == quoted.error.destination.address { finding.variant(1) } else { finding })
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::event::Side;
    use crate::rule::finding::Severity;
    use crate::rule::testing::Scene;

    #[test]
    fn a_router_without_an_answer_to_its_own_question_is_named() {
        let scene = Scene::new().syn(0).syn(1000).event(Side::Client, 3072, icmp("10.0.0.254", 3, 1));
        let finding = scene.check(&RULE).expect("unreachable");
        assert_eq!(finding.evidence[0].shows, "ICMP 3/1 from 10.0.0.254: host unreachable");
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn an_error_about_a_connection_that_works_is_a_notice() {
        let scene = Scene::open().data(Side::Server, 5, 10).event(Side::Client, 9, icmp("10.0.0.254", 3, 1));
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn a_prohibition_is_no_missing_route() {
        let scene = Scene::new().syn(0).event(Side::Client, 1, icmp("10.0.0.254", 3, 10));
        assert_eq!(scene.check(&RULE), None);
    }
}
