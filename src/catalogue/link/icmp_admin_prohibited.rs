//! A firewall rejects this traffic and says so.
//!
//! ## How tcpwhy knows
//! An ICMP error "administratively prohibited" (IPv4 type 3 code 9, 10 or 13; IPv6 type 1 code 1, 5 or 6) quotes a packet of the
//! connection, and the connection comes to nothing. One error is enough: routers and kernels limit their rate. Its sender is the device
//! whose rule it is.
//!
//! ## What it is not
//! - `connect-timeout`: a firewall that drops says nothing.
//! - `icmp-port-unreachable`: REJECT of iptables without an option answers so.
//! - `icmp-destination-unreachable`: a route is missing, no rule is in the way.
//!
//! ## What people see
//! `curl: (7) … No route to host`, nginx `(113: No route to host)`. The words are misleading: there is a route.
//!
//! ## False alarms it avoids
//! A connection that nevertheless opens is a notice. Traceroute is left out.

use super::{quoted, told, unreachable};
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "icmp-admin-prohibited",
    title: "a firewall rejects this traffic and says so",
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Icmp]),
    says: "a firewall on {router} rejects what {source_host} sends to {target}: {says}",
    users_see: &["No route to host", "EHOSTUNREACH", "(113: No route to host)", "curl: (7)"],
    do_first: &[
        Step { says: "On {router}: which rule counts up while you try again?", command: "iptables -L -v -n" },
        Step { says: "The same with nftables (firewalld rejects so by default):", command: "nft list ruleset" },
    ],
    verify: &[Step {
        says: "from {source_host}; prints succeeded once the rule lets it through:",
        command: "nc -vz -w 5 {target_host} {port}",
    }],
    not: &[("connect-timeout", "an answer came: the firewall rejects, it does not drop")],
    cannot_show: &["which rule of that device it was"],
    explains: &[
        Explains("connect-timeout", Scope::SameOrLink),
        Explains("connect-timeout", Scope::PeerTime),
        Explains("service-down", Scope::Peer),
        Explains("rto-unrecovered", Scope::SameOrLink),
        Explains("rto-unrecovered", Scope::PeerTime),
        Explains("proxy-upstream-connect-failed", Scope::SameOrLink),
        Explains("dns-no-answer", Scope::SameOrLink),
        Explains("proxy-no-server-available", Scope::Host),
    ],
    sources: &["RFC 1812 §5.2.7.1", "RFC 4443 §3.1", "measured with iptables REJECT"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn meant(error: &IcmpError) -> bool {
    let codes: &[u8] = if error.v6 { &[1, 5, 6] } else { &[9, 10, 13] };
    unreachable(error) && codes.contains(&error.code)
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    Some(told(&RULE, flow, &quoted(flow, meant)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::event::Side;
    use crate::rule::finding::Severity;
    use crate::rule::testing::Scene;

    #[test]
    fn one_error_about_the_syn_names_the_firewall() {
        let scene = Scene::new().syn(0).event(Side::Client, 1, icmp("10.0.0.254", 3, 13));
        let finding = scene.check(&RULE).expect("rejected");
        assert_eq!((finding.severity, finding.evidence.len()), (Severity::Critical, 2));
        assert!(finding.notes[0].starts_with("10.0.0.254 is the last device"));
    }

    #[test]
    fn a_connection_that_opened_nevertheless_is_a_notice() {
        let scene = Scene::open().event(Side::Client, 5, icmp("10.0.0.254", 3, 13));
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn other_codes_are_other_stories() {
        let scene = Scene::new().syn(0).event(Side::Client, 1, icmp("10.0.0.254", 3, 3));
        assert_eq!(scene.check(&RULE), None);
    }
}
