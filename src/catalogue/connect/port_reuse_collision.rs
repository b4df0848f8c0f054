//! A client's new connection uses a port that the server still holds an older connection on.
//!
//! ## How tcpwhy knows
//! The server answers the SYN with a bare ACK whose numbers belong to another connection (a challenge, RFC 5961 §4; a socket in TIME_WAIT
//! answers alike), and the client refuses these numbers with RST. That RST clears the old connection away, and the next SYN is accepted:
//! at once where the client is Linux (measured: 10 ms), a second later elsewhere, never where a firewall drops the RST. The client, or the NAT
//! before it, took the port again before the server had seen the end of the older connection.
//!
//! ## What it is not
//! - `connect-slow` for other reasons: a full listen queue or loss leave the first SYN without any answer.
//! - `handshake-reset-by-client`: there the server accepts, and the client refuses that.
//!
//! ## What people see
//! Single connections that take one second longer or do not open, at random, often behind a NAT gateway with many hosts and few ports.
//!
//! ## False alarms it avoids
//! Ports used again after both sides have closed, where the server accepts at once. A collision that costs less than a second is a notice.

use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::{Reset, RoleSource};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "port-reuse-collision",
    title: "a new SYN met an old connection on the same ports",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Syn, Kind::Reset]),
    says: "{server} still holds an older connection of {client}: it answers the SYN with the numbers of that one; {cost}",
    users_see: &["latency spikes of 1 s", "Connection timed out", "random slow connects through a NAT gateway"],
    do_first: &[
        Step {
            says: "On {server_host}: connections of {client_host} that it still holds. Are there some that {client_host} no longer knows?",
            command: "ss -tn state all dst {client_host}",
        },
        Step {
            says: "On {client_host}, or the NAT gateway before it: from how few ports are connections opened?",
            command: "sysctl net.ipv4.ip_local_port_range net.ipv4.tcp_tw_reuse",
        },
    ],
    fix: &[
        Fix {
            says: "On {client_host}: more ports to choose from, and on NAT gateways more addresses:",
            command: "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
            risk: "a service on {client_host} that listens above 1024 must be in net.ipv4.ip_local_reserved_ports",
        },
        Fix { says: "Keep connections open and use them again, so that fewer are opened", command: "", risk: "" },
    ],
    verify: &[Step {
        says: "on {server_host}; the counter grows with every such SYN:",
        command: "nstat -az TcpExtTCPSYNChallenge TcpExtTCPChallengeACK",
    }],
    not: &[("accept-queue-overflow", "the first SYN was answered, with the numbers of another connection")],
    cannot_show: &[
        "why the client's side forgot the older connection: a restart, a NAT gateway, or a port chosen by hand",
    ],
    explains: &[
        Explains("handshake-reset-by-client", Scope::Same),
        Explains("connect-slow", Scope::Same),
        Explains("stray-reset", Scope::Same),
    ],
    sources: &["RFC 5961 §4", "RFC 6191", "RFC 9293 §3.5.1, §3.10.7.4", "measured on Linux 6.18"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let (syn, challenge) = (*client.syns.first()?, server.first?);
    let accepted = server.syns.first().copied();
    let bare = challenge > syn
        && accepted.is_none_or(|accepted| challenge < accepted)
        && server.resets.iter().all(|reset| reset.at != challenge);
    if flow.facts.role != RoleSource::Handshake || !bare {
        return None;
    }
    let refusal = refusal(flow, challenge, accepted)?;
    let again = client.syns.iter().copied().find(|copy| *copy > refusal.at);
    let open = flow.facts.established;
    let cost = match open {
        Some(open) => format!("the new one opened {} later", open.time.since(syn.time)),
        None => "the new one did not open".into(),
    };
    let (asks, answers) = (flow.facts.client, flow.facts.server);
    let mut finding = RULE
        .found(flow, challenge, Side::Server, "ACK with numbers of another connection, in answer to the SYN")
        .and(syn, Side::Client, "SYN of the new connection")
        .and(refusal.at, Side::Client, "RST: the client knows no such numbers")
        .and_maybe(again, Side::Client, "SYN again")
        .and_maybe(accepted, Side::Server, "SYN+ACK: accepted now")
        .with("client", asks)
        .with("client_host", asks.address)
        .with("server", answers)
        .with("server_host", answers.address)
        .with("cost", cost);
    finding.severity = match open {
        Some(open) if open.time.since(syn.time) < flow.thresholds.syn_span => Severity::Notice,
        None if flow.now.since(syn.time) >= flow.thresholds.tail => Severity::Critical,
        _ => Severity::Warning,
    };
    if open.is_none() && client.reset_count > 1 {
        let times = client.reset_count;
        finding = finding
            .note(format!("the client refused {times} times, and nothing changed: its RST probably does not arrive"));
    }
    if let Some(earlier) = flow.facts.reuses {
        finding = finding.cites(earlier, Some(earlier), "the older connection on the same ports began here");
    }
    Some(finding)
}

/// The client's answer to the challenge: a RST with the number that it acknowledged, which is none of this connection's.
fn refusal<'a>(flow: &FlowView<'a>, challenge: PacketRef, accepted: Option<PacketRef>) -> Option<&'a Reset> {
    let client = flow.client();
    let own = client.isn?.plus(1);
    let before = |at: PacketRef| at > challenge && accepted.is_none_or(|accepted| at < accepted);
    let refusal = client.resets.iter().find(|reset| before(reset.at) && reset.ack.is_none() && reset.seq != own)?;
    // Who talks or closes has a connection: its SYN+ACK is missing in the capture only.
    let later = |at: Option<PacketRef>| at.is_none_or(|at| at > refusal.at);
    let halves = [client, flow.server()];
    halves.iter().all(|half| later(half.first_payload) && later(half.fin)).then_some(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;
    use crate::wire::seq::Seq;

    fn challenged(seq: u32) -> Scene {
        let mut scene = Scene::new().syn(0).acked(Side::Client, 1).rst(Side::Client, 2, ResetKind::Edge, 0);
        let reset = &mut scene.facts.from_client.resets[0];
        (reset.seq, reset.ack) = (Seq(seq), None);
        scene
    }

    #[test]
    fn a_syn_that_is_answered_with_older_numbers_meets_an_older_connection() {
        let scene = challenged(77).syn(1_002).syn_ack(1_003).established(1_004);
        let finding = scene.check(&RULE).expect("a collision");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((cited.as_slice(), finding.severity), ([2, 1, 3, 4, 5].as_slice(), Severity::Warning));
    }

    #[test]
    fn a_connection_whose_syn_ack_is_not_in_the_capture_is_none() {
        let talks = Scene::new().syn(0).data(Side::Client, 1, 95).acked(Side::Client, 2).fin(Side::Client, 9_000);
        let mut scene = talks.rst(Side::Client, 9_001, ResetKind::Edge, 0);
        let reset = &mut scene.facts.from_client.resets[0];
        (reset.seq, reset.ack) = (Seq(77), None);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn it_stands_while_the_connection_does_not_open() {
        let severity = |ms| challenged(77).capture_ends(ms).check(&RULE).map(|finding| finding.severity);
        assert_eq!(severity(900), Some(Severity::Warning));
        assert_eq!(severity(5_000), Some(Severity::Critical));
    }

    #[test]
    fn a_collision_that_costs_next_to_nothing_is_a_notice() {
        let scene = challenged(77).syn(12).syn_ack(13).established(14);
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn a_client_that_refuses_its_own_number_has_closed_its_socket() {
        assert_eq!(challenged(1001).check(&RULE), None);
    }

    #[test]
    fn a_syn_that_is_accepted_at_once_meets_nobody() {
        let scene = Scene::open().rst(Side::Client, 5, ResetKind::Abort, 0);
        assert_eq!(scene.check(&RULE), None);
    }
}
