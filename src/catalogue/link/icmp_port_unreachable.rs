//! The host is up, the port is not: ICMP says so.
//!
//! ## How tcpwhy knows
//! An ICMP error "port unreachable" (IPv4 type 3 code 3, IPv6 type 1 code 4) quotes a packet of the side that asked, and nothing came
//! of the connection. A kernel answers a TCP SYN to a closed port with RST: for TCP this error is a firewall's REJECT (the default of
//! iptables). For UDP it simply means that nothing listens.
//!
//! ## What it is not
//! - `connect-refused`: there the answer is RST, from the kernel.
//! - `icmp-admin-prohibited`: the same firewall with another option.
//! - `dns-port-unreachable`: the same for DNS servers.
//!
//! ## What people see
//! `Connection refused` (111), as with a closed port.
//!
//! ## False alarms it avoids
//! Errors about late answers (a client that no longer listens for them), traceroute, connections that work all the same.

use super::{quoted, told, unreachable};
use crate::event::{Kind, Side};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "icmp-port-unreachable",
    title: "the host is up, the port is rejected by ICMP",
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Icmp]),
    says: "{router} rejects connections to {target}: ICMP port unreachable",
    variants: &["nothing listens on UDP port {port} of {host}: ICMP port unreachable"],
    users_see: &["Connection refused", "ECONNREFUSED", "(111: Connection refused)", "curl: (7)"],
    do_first: &[
        Step { says: "On {router}: which REJECT rule counts up while you try again?", command: "iptables -L -v -n" },
        Step { says: "On {host}: does anything listen there?", command: "ss -lntup" },
    ],
    verify: &[Step {
        says: "from {source_host}; prints succeeded once the port is open:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[("connect-refused", "the refusal is ICMP, no RST: no kernel with a closed TCP port answers so")],
    cannot_show: &["which rule of that device it was"],
    explains: &[
        Explains("connect-timeout", Scope::SameOrLink),
        Explains("proxy-upstream-connect-failed", Scope::SameOrLink),
        Explains("proxy-no-server-available", Scope::Host),
    ],
    sources: &["RFC 1122 §3.2.2.1", "RFC 4443 §3.1", "measured with iptables REJECT"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn meant(error: &IcmpError) -> bool {
    unreachable(error) && error.code == if error.v6 { 4 } else { 3 }
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let quoted = quoted(flow, meant)?;
    let lookup = flow.saw(Kind::Dns) && flow.facts.transport == IpProtocol::Udp;
    if quoted.sender != Side::Client || lookup || flow.facts.transport == IpProtocol::Udp && flow.server().packets > 0 {
        return None;
    }
    let finding = told(&RULE, flow, &quoted);
    Some(match flow.facts.transport {
        IpProtocol::Tcp => finding.culprit(Culprit::Config),
        IpProtocol::Udp => finding.variant(1),
    })
}

/// Browsers try QUIC where a page came by TCP, and stay with TCP where nobody takes it.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let quic = flow.facts.transport == IpProtocol::Udp && matches!(server.port, 80 | 443);
    let mut by_tcp = capture.began_to(&server, Timestamp::MIN, Timestamp::MAX);
    if quic && by_tcp.any(|other| other.accepted && other.client().address == client) {
        finding.severity = Severity::Notice;
        finding.notes.push("the client reaches the same port by TCP: QUIC was tried and is not spoken there".into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::rule::finding::Severity;
    use crate::rule::testing::{Scene, World};

    #[test]
    fn a_syn_that_draws_port_unreachable_met_a_reject_rule() {
        let scene = Scene::new().syn(0).event(Side::Client, 1, icmp("10.0.0.2", 3, 3));
        let finding = scene.check(&RULE).expect("rejected");
        assert_eq!((finding.severity, finding.culprit, finding.variant), (Severity::Critical, Culprit::Config, 0));
        assert!(finding.notes[0].starts_with("the host that was asked says so itself"));
    }

    #[test]
    fn quic_that_is_refused_where_tcp_serves_is_a_notice() {
        let mut scene = Scene::between("10.0.0.1:50000", "10.0.0.2:443").udp().data(Side::Client, 0, 1200);
        scene = scene.event(Side::Client, 1, icmp("10.0.0.2", 3, 3));
        let found = scene.check(&RULE);
        let page = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 900, 5).handshake();
        let world = |page: Option<&Scene>| {
            let world = World::new().with(&scene);
            let world = if let Some(page) = page { world.with(page) } else { world };
            found.clone().and_then(|found| world.corroborated(&RULE, found)).map(|finding| finding.severity)
        };
        assert_eq!(
            (world(Some(&page)), world(None)),
            (Some(Severity::Notice), found.clone().map(|found| found.severity))
        );
        assert!(found.is_some_and(|found| found.severity > Severity::Notice));
    }

    #[test]
    fn a_datagram_nobody_wants_is_a_warning() {
        let mut scene = Scene::new().data(Side::Client, 0, 30).event(Side::Client, 1, icmp("10.0.0.2", 3, 3));
        scene.facts.transport = IpProtocol::Udp;
        assert_eq!(scene.check(&RULE).map(|f| (f.severity, f.variant)), Some((Severity::Warning, 1)));
    }

    #[test]
    fn an_error_about_an_answer_that_came_too_late_is_no_failure() {
        let scene = Scene::new().data(Side::Client, 0, 30).event(Side::Server, 9, icmp("10.0.0.1", 3, 3));
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn traceroute_asks_for_such_errors() {
        let mut scene = Scene::between("10.0.0.1:40000", "10.0.0.2:33435").data(Side::Client, 0, 30);
        scene = scene.event(Side::Client, 1, icmp("10.0.0.2", 3, 3));
        scene.facts.transport = IpProtocol::Udp;
        assert_eq!(scene.check(&RULE), None);
    }
}
