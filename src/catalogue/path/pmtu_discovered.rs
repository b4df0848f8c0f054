//! A router on the way told a sender that its packets are too big, and the sender heeded it.
//!
//! ## How tcpwhy knows
//! An ICMP error "fragmentation needed" (IPv4 type 3 code 4) or "packet too big" (IPv6 type 2) quotes a segment of the connection, and the
//! octets of that very segment were acknowledged afterwards: they went again in smaller packets, and passed. That is how path MTU discovery
//! is meant to work (RFC 1191, RFC 8201). It costs the first full segment of a connection one round trip.
//!
//! ## What it is not
//! - `pmtu-blackhole`: there the sizes do not shrink, or no router says anything, and the connection hangs.
//!
//! ## What people see
//! Nothing. It is worth knowing because there is a tunnel, PPPoE or VPN on the way, and because every firewall that drops ICMP turns it
//! into a connection that hangs.
//!
//! ## False alarms it avoids
//! Errors whose octets nobody acknowledged later: nothing was learnt there.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "pmtu-discovered",
    title: "a smaller MTU on the path was learnt and respected",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Icmp, Kind::FirstPayloadAcknowledged]),
    says: "packets from {sender} to {peer} must not exceed {mtu} octets: {router} said so, and the connection goes on with smaller ones",
    variants: &[
        "packets from {sender} to {peer} were too big for {router}; it said so, and the connection goes on with smaller ones",
    ],
    users_see: &["Frag needed and DF set", "Message too long", "EMSGSIZE"],
    do_first: &[Step { says: "On {sender}: where does the MTU shrink, and to what?", command: "tracepath -n {peer}" }],
    verify: &[Step {
        says: "on {sender}; the size that its kernel remembers for this way:",
        command: "ip route get {peer}",
    }],
    not: &[("pmtu-blackhole", "the octets of the segment that was too big were acknowledged afterwards")],
    cannot_show: &["whether every router and firewall on other ways lets these ICMP errors pass"],
    sources: &["RFC 1191", "RFC 8201", "RFC 4443 §3.2"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn too_big(error: &IcmpError) -> bool {
    if error.v6 { error.kind == 2 } else { (error.kind, error.code) == (3, 4) }
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let told = flow.story.events().filter_map(|event| match &event.what {
        What::Icmp(error) if too_big(error) => Some((event.at, event.side, error.as_ref())),
        _ => None,
    });
    let (at, side, error) = told.min_by_key(|(at, ..)| *at)?;
    let peer = flow.facts.half(side.other());
    let acked = peer.acked.zip(error.seq).is_some_and(|(acked, quoted)| acked.minus(quoted) > 0);
    let later = peer.last.filter(|last| *last > at);
    if !acked || later.is_none() {
        return None;
    }
    let shows = format!("ICMP from {}: {}", error.from, limit(error));
    Some(
        RULE.found(flow, at, side.other(), shows)
            .and_maybe(again(flow, side, at), side, "octets of the packet that was too big, in smaller ones")
            .and_maybe(later, side.other(), "the other side has acknowledged them")
            .variant(u8::from(error.mtu.is_none()))
            .with("mtu", u64::from(error.mtu.unwrap_or(0)))
            .with("router", error.from)
            .with("sender", flow.facts.endpoint(side).address)
            .with("peer", flow.facts.endpoint(side.other()).address),
    )
}

fn limit(error: &IcmpError) -> String {
    match error.mtu {
        Some(mtu) => format!("too big, at most {mtu} octets pass"),
        None => "too big, without saying what passes".into(),
    }
}

/// The first copy that the sender made after the error.
fn again(flow: &FlowView<'_>, side: Side, after: PacketRef) -> Option<PacketRef> {
    let copies = flow.story.events().filter(|event| event.what.kind() == Kind::Retransmitted && event.side == side);
    copies.map(|event| event.at).find(|at| *at > after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, end, host};
    use crate::wire::seq::Seq;

    fn error(mtu: Option<u32>) -> What {
        let (source, destination) = (end("10.0.0.1:40000"), end("10.0.0.2:443"));
        let (from, seq) = (host("10.0.0.254"), Some(Seq(1001)));
        let (kind, code, v6, protocol, ttl, gateway) = (3, 4, false, 6, 63, None);
        What::Icmp(Box::new(IcmpError { kind, code, v6, from, mtu, gateway, source, destination, protocol, ttl, seq }))
    }

    #[test]
    fn octets_that_were_too_big_and_pass_in_smaller_packets_are_worth_knowing() {
        let scene = Scene::open().data(Side::Client, 3, 1448).event(Side::Client, 4, error(Some(1280)));
        let scene = scene.again(Side::Client, 5).acked(Side::Client, 6);
        let finding = scene.check(&RULE).expect("learnt");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((cited.as_slice(), finding.severity, finding.variant), ([5, 6, 7].as_slice(), Severity::Notice, 0));
        assert_eq!(finding.evidence[0].shows, "ICMP from 10.0.0.254: too big, at most 1280 octets pass");
    }

    #[test]
    fn an_old_router_names_no_size() {
        let scene =
            Scene::open().data(Side::Client, 3, 1448).event(Side::Client, 4, error(None)).acked(Side::Client, 6);
        assert_eq!(scene.check(&RULE).map(|finding| finding.variant), Some(1));
    }

    #[test]
    fn a_sender_that_does_not_heed_it_has_learnt_nothing() {
        let scene = Scene::open().data(Side::Client, 3, 1448).event(Side::Client, 4, error(Some(1280)));
        assert_eq!(scene.again(Side::Client, 300).again(Side::Client, 900).check(&RULE), None);
    }
}
