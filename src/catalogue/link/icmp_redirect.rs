//! A router tells a host that another gateway on the same link is the better way.
//!
//! ## How tcpwhy knows
//! An ICMP redirect (IPv4 type 5, ICMPv6 type 137) quotes a packet of the connection and names the next hop to use instead. The router
//! forwards the packet all the same, out of the interface it came in by. The host's route is not the one its network means it to have:
//! packets go a hop too far, and the answers may come back another way.
//!
//! ## What it is not
//! - `asymmetric-return-path`: there the answers are seen to take another way.
//! - `routing-loop`: there packets come back to where they were.
//!
//! ## What people see
//! Mostly nothing; where a firewall watches connections, those that begin before the redirect is heeded break.
//!
//! ## False alarms it avoids
//! It is a notice: nothing is broken by it alone.

use super::quoted;
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Fix, Needs, Rule, Step};
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "icmp-redirect",
    title: "a router tells the host to use another gateway",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Icmp]),
    says: "{router} tells {source_host} to send what is for {target_host} to {gateway} instead",
    variants: &["{router} tells {source_host} that {target_host} is on its own link"],
    users_see: &["Redirect Host", "New nexthop"],
    do_first: &[
        Step {
            says: "On {source_host}: which gateway does it use for that address?",
            command: "ip route get {target_host}",
        },
        Step {
            says: "On {source_host}: does it heed redirects? Most servers rightly do not:",
            command: "sysctl net.ipv4.conf.all.accept_redirects net.ipv6.conf.all.accept_redirects",
        },
    ],
    fix: &[Fix {
        says: "Give {source_host} the route that its network means it to have, by the gateway named above",
        command: "",
        risk: "",
    }],
    verify: &[Step {
        says: "on {source_host}; it must name the gateway of the headline:",
        command: "ip route get {target_host}",
    }],
    not: &[("routing-loop", "the packet was forwarded, and goes on from another gateway")],
    cannot_show: &["whether the host heeds it"],
    sources: &["RFC 792", "RFC 1122 §3.2.2.2", "RFC 4861 §4.5, §8"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn redirects(error: &IcmpError) -> bool {
    error.gateway.is_some()
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let told = quoted(flow, redirects)?;
    let (error, gateway) = (told.error, told.error.gateway?);
    let shows = format!("ICMP redirect from {}: by way of {gateway}", error.from);
    let finding = RULE
        .found(flow, told.at, told.sender.other(), shows)
        .and_maybe(flow.facts.half(told.sender).first, told.sender, "first packet of that side")
        .variant(u8::from(gateway == error.destination.address))
        .with("router", error.from)
        .with("gateway", gateway)
        .with("source_host", error.source.address)
        .with("target_host", error.destination.address);
    Some(if told.count > 1 {
        finding.note(format!("said {} times about this connection", told.count))
    } else {
        finding
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::event::{Side, What};
    use crate::rule::testing::{Scene, host};

    fn redirect(gateway: &str) -> What {
        match icmp("10.0.0.254", 5, 1) {
            What::Icmp(error) => What::Icmp(Box::new(IcmpError { gateway: Some(host(gateway)), ..*error })),
            other => other,
        }
    }

    #[test]
    fn the_gateway_that_the_router_names_is_told() {
        let scene = Scene::open().event(Side::Client, 3, redirect("10.0.0.253"));
        let finding = scene.check(&RULE).expect("a redirect");
        assert_eq!(finding.evidence[0].shows, "ICMP redirect from 10.0.0.254: by way of 10.0.0.253");
        assert_eq!((finding.variant, finding.severity), (0, Severity::Notice));
    }

    #[test]
    fn a_destination_on_the_same_link_is_its_own_gateway() {
        let scene = Scene::open().event(Side::Client, 3, redirect("10.0.0.2"));
        assert_eq!(scene.check(&RULE).map(|finding| finding.variant), Some(1));
    }

    #[test]
    fn another_error_redirects_nothing() {
        let scene = Scene::new().syn(0).event(Side::Client, 3, icmp("10.0.0.254", 3, 1));
        assert_eq!(scene.check(&RULE), None);
    }
}
