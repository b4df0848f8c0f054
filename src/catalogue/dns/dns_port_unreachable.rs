//! Nothing listens at the configured resolver.
//!
//! ## How tcpwhy knows
//! An ICMP error "port unreachable" quotes the question, and the server never answered. The host is up; its port 53 is closed for UDP,
//! or a firewall rejects it. A RST on TCP port 53 is told as `connect-refused`.
//!
//! ## What it is not
//! - `dns-no-answer`: there nobody says anything.
//! - An error about a late *answer*: a client that no longer waits rejects it, and that is harmless.
//!
//! ## What people see
//! `Temporary failure in name resolution` at once, dig's `connection refused`. Typical: `nameserver 127.0.0.53` copied into a container, or
//! dnsmasq that is not running.
//!
//! ## False alarms it avoids
//! Errors whose quoted packet comes from the server, servers that answer the same question beside it.

use super::made_good;
use crate::event::{Kind, Side, What};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::lookup::{lookups, type_name, unicast};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "dns-port-unreachable",
    title: "nothing listens at the configured resolver",
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Dns, Kind::Icmp]),
    says: "no DNS server listens at {server}, which {client_host} asks for {name}: ICMP port unreachable",
    users_see: &["Temporary failure in name resolution", "connection refused", "Connection refused (os error 111)"],
    do_first: &[
        Step { says: "On {client_host}: is that really its resolver?", command: "cat /etc/resolv.conf" },
        Step { says: "On {host}: does anything listen on port {port}?", command: "ss -lnup 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "from {client_host}; prints an address once a server listens:",
        command: "dig +short +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-no-answer", "ICMP says at once that the port is closed")],
    sources: &["RFC 1122 §4.1.3.1", "RFC 4443 §3.1"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.transport != IpProtocol::Udp || flow.server().packets > 0 || !unicast(flow.facts) {
        return None;
    }
    let (at, error) = flow.story.events().find_map(|event| match &event.what {
        What::Icmp(error) if event.side == Side::Client => {
            let closed = if error.v6 { (1, 4) } else { (3, 3) };
            ((error.kind, error.code) == closed).then_some((event.at, error))
        }
        _ => None,
    })?;
    let list = lookups(flow.story);
    let lookup = list.iter().rev().find(|lookup| lookup.first() < at).or(list.first())?;
    let question = lookup.question;
    let asks = format!("asks for {} {}", type_name(question.qtype), question.name);
    let finding = RULE
        .found(flow, at, Side::Server, format!("ICMP port unreachable from {}", error.from))
        .and(lookup.first(), Side::Client, asks)
        .with("name", Value::Packet(question.name.to_string()))
        .with("type", type_name(question.qtype));
    Some(if error.from == flow.facts.server.address {
        finding
    } else {
        finding.note(format!("{} rejects it: a firewall", error.from))
    })
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    made_good(finding, capture, Severity::Notice);
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, dns_answer, dns_question, end, host};
    use crate::wire::icmp::IcmpError;

    fn closed() -> What {
        let (source, destination) = (end("10.0.0.1:40000"), end("10.0.0.53:53"));
        What::Icmp(Box::new(IcmpError {
            kind: 3,
            code: 3,
            v6: false,
            from: host("10.0.0.53"),
            mtu: None,
            gateway: None,
            source,
            destination,
            protocol: 17,
            ttl: 64,
            seq: None,
        }))
    }

    fn asked() -> Scene {
        Scene::between("10.0.0.1:40000", "10.0.0.53:53").udp().event(Side::Client, 0, dns_question(7, "a.example", 1))
    }

    #[test]
    fn an_error_that_quotes_the_question_is_certain() {
        let finding = asked().event(Side::Client, 1, closed()).check(&RULE).expect("closed");
        assert_eq!((finding.confidence, finding.severity), (Confidence::Certain, Severity::Critical));
        assert_eq!(finding.evidence.len(), 2);
    }

    #[test]
    fn an_error_about_a_late_answer_is_harmless() {
        let late = asked().event(Side::Server, 9000, dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]));
        assert_eq!(late.event(Side::Server, 9001, closed()).check(&RULE), None);
    }
}
