//! The answer comes from another address than the one that was asked: something on the way back rewrote it.
//!
//! ## How tcpwhy knows
//! Beside a connection there are packets to the very same client port from another address. They acknowledge exactly what the client sent
//! on the connection, and their numbers go on where the server's SYN+ACK stopped: they belong to it. The server that was asked says nothing
//! more under its own address. In the hairpin form the SYN+ACK itself comes from the other address and acknowledges the client's SYN.
//!
//! The usual mechanism (measured): the reply crosses a NAT box that never saw the SYN. It lets the SYN+ACK pass as invalid and unchanged,
//! takes the next packet for a new connection, and gives it its own source address. The client does not know that address.
//!
//! ## What it is not
//! - `stray-reset`: the RST with which the client answers the strange packets is a consequence.
//! - Address translation as it should be: there both directions carry the same pair of addresses at each place.
//!
//! ## What people see
//! The connection is established and the request never answered, or "Connection reset by peer" after 0.2 s.
//!
//! ## False alarms it avoids
//! Scans and other connections from the same port: their numbers do not match to the octet. An answer whose address the node translates back
//! in the next moment: nothing is said before 5 ms have passed, unless the client has reset it.

use std::collections::BTreeMap;

use crate::event::{PacketRef, Side};
use crate::flow::facts::{FlowFacts, IpProtocol};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::summary::FlowSummary;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;
use crate::wire::seq::Seq;

pub static RULE: Rule = Rule {
    id: "reply-from-other-address",
    title: "the answer comes from a different address than the one asked",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "{host} is asked, but the answer comes from {other_host}: the client cannot use it",
    variants: &["{host} is asked, but {other_host} accepts: translation without a way back (hairpin)"],
    users_see: &["connected, then no answer", "Connection reset by peer", "Operation timed out after"],
    do_first: &[
        Step {
            says: "On {host}: by which interface does it answer {client_host}? It should be the one the request came in on:",
            command: "ip route get {client_host} from {host}",
        },
        Step {
            says: "On the box that has {other_host}: it took the replies for a new connection, [UNREPLIED]:",
            command: "conntrack -L -d {client_host}",
        },
    ],
    fix: &[Fix {
        says: "Send the replies back by the way of the requests; or exempt them on {other_host} from translation:",
        command: "iptables -t nat -I POSTROUTING -s {host} -j ACCEPT",
        risk: "replies then leave untranslated: only right when {host} is a public address",
    }],
    verify: &[Step {
        says: "on the client, meanwhile one request; every line should name {host} only:",
        command: "tcpdump -nn -c 20 -i any 'host {host} or host {other_host}'",
    }],
    not: &[("packet-loss", "the answers do arrive, under another address"), ("service-down", "the server answers")],
    cannot_show: &["which box rewrote the address, unless its address is the one that answers"],
    explains: &[
        Explains("stray-reset", Scope::Same),
        Explains("server-reset-mid-response", Scope::Same),
        Explains("http-upstream-reset-before-response", Scope::Same),
        Explains("upstream-hang", Scope::Same),
        Explains("rto-unrecovered", Scope::Same),
        Explains("client-abandoned", Scope::Same),
        Explains("stateful-drop-after-handshake", Scope::Same),
    ],
    sources: &["Open Food Facts, 2022", "nf_conntrack_tcp_loose", "measured on Linux 6.18"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Translation takes microseconds.
const MOMENT: Elapsed = Elapsed::millis(5);
/// Octets by which numbers may be ahead of what the capture saw.
const WINDOW: i32 = 1 << 20;

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut asked: BTreeMap<Endpoint, Vec<&FlowSummary>> = BTreeMap::new();
    for flow in capture.flows.values().filter(|flow| waits(&flow.facts)) {
        asked.entry(flow.facts.client).or_default().push(flow);
    }
    let (mut found, end) = (Vec::new(), capture.end);
    for stranger in capture.flows.values().filter(|flow| flow.facts.transport == IpProtocol::Tcp) {
        for side in [Side::Server, Side::Client] {
            let Some(flows) = asked.get(&stranger.facts.endpoint(side.other())) else { continue };
            let told =
                |flow: &&FlowSummary| finding(flow, stranger, side).filter(|_| settled(flow, stranger, side, end));
            found.extend(flows.iter().find_map(told));
        }
    }
    found
}

/// A connection by SYN that heard a handshake at most.
fn waits(facts: &FlowFacts) -> bool {
    facts.transport == IpProtocol::Tcp
        && !facts.mid_stream
        && facts.from_client.syn_count > 0
        && facts.from_server.payload == 0
}

/// An address that a node translates back in the next moment is no other address: the capture goes on for that long, or the client has taken
/// it for one.
fn settled(flow: &FlowSummary, stranger: &FlowSummary, side: Side, end: Timestamp) -> bool {
    let reset = stranger.facts.half(side.other()).reset_count > 0;
    let went_on = stranger.facts.half(side).first.is_some_and(|began| end.since(began.time) >= MOMENT);
    went_on || reset || repeated(&flow.facts).is_some()
}

/// Whether `side` of the stranger continues what the server of `flow` began.
fn finding(flow: &FlowSummary, stranger: &FlowSummary, side: Side) -> Option<Finding> {
    let (facts, other) = (&flow.facts, stranger.facts.endpoint(side));
    let theirs = stranger.facts.half(side);
    if other.address == facts.server.address || stranger.facts.from_client.syn_count > 0 {
        return None;
    }
    let began = theirs.first?;
    let late = began.time.since(facts.last.time);
    if began.time < facts.start() || late > Elapsed::secs(60) {
        return None;
    }
    let (asked, answers) = (&facts.from_client, &facts.from_server);
    let hairpin = theirs.syn_count > 0;
    let acked = stranger.facts.half(side).acked.filter(|acked| acked.after(asked.isn.unwrap_or(*acked)))?;
    let fits = match hairpin {
        true => answers.packets == 0 && asked.isn.is_some_and(|isn| acked == isn.plus(1)),
        false => within(acked, asked.isn?, asked.next?) && within(theirs.isn?, answers.isn?, answers.next?),
    };
    if !fits || !hairpin && answers.syn_count == 0 {
        return None;
    }
    let mut finding = RULE
        .about(Subject::Flow(facts.id), facts.id, Some(Side::Client), format!("SYN to {}", facts.server))
        .variant(u8::from(hairpin))
        .with("other", other)
        .with("other_host", other.address);
    if let Some(answer) = answers.syns.first() {
        finding = finding.and(*answer, Side::Server, format!("SYN+ACK from {}", facts.server.address));
    }
    finding = finding.and_maybe(asked.first_payload, Side::Client, "the request");
    let shows = match hairpin {
        true => format!("SYN+ACK from {other}, and it acknowledges that SYN"),
        false => format!("from {other}: the same sequence numbers go on there"),
    };
    finding = finding.and(began, Side::Server, shows);
    Some(outcome(finding, facts, &stranger.facts, side))
}

/// What became of it: the client's RST to the stranger, or its repeats.
fn outcome(finding: Finding, facts: &FlowFacts, stranger: &FlowFacts, side: Side) -> Finding {
    if let Some(reset) = stranger.half(side.other()).resets.first() {
        return finding.and(reset.at, Side::Client, "RST: the client knows no connection with that address");
    }
    match repeated(facts) {
        Some((last, copies)) => finding.and(last, Side::Client, format!("the same request, {copies} copies")),
        None => finding,
    }
}

fn repeated(facts: &FlowFacts) -> Option<(PacketRef, u32)> {
    facts.from_client.unacknowledged.filter(|waits| waits.copies > 1).map(|waits| (waits.last, waits.copies))
}

fn within(number: Seq, from: Seq, to: Seq) -> bool {
    number.minus(from) >= 1 && number.minus(to) <= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};

    fn asked() -> Scene {
        Scene::between("198.51.100.10:49032", "193.70.55.124:80").handshake().data(Side::Client, 3, 18)
    }

    fn stranger(from: &str, isn: u32, acked: u32) -> Scene {
        let mut scene = Scene::starting("198.51.100.10:49032", from, 5, 4).mid_stream().data(Side::Server, 1, 155);
        scene = scene.capture_ends(60);
        scene.facts.from_server.isn = Some(Seq(isn));
        scene.facts.from_server.acked = Some(Seq(acked));
        scene
    }

    #[test]
    fn numbers_that_go_on_under_another_address_are_certain() {
        let world = World::new().with(&asked()).with(&stranger("193.70.55.9:80", 5001, 1019));
        let findings = world.check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::Certain));
        assert_eq!(findings[0].subject, Subject::Flow(asked().facts.id));
    }

    #[test]
    fn an_address_that_may_be_translated_back_in_the_next_moment_is_no_other_one() {
        let mut world = World::new().with(&asked()).with(&stranger("193.70.55.9:80", 5001, 1019));
        world.end = asked().now + Elapsed::millis(3);
        assert_eq!(world.check(&RULE), []);
    }

    #[test]
    fn the_clients_reset_to_the_stranger_is_cited() {
        let scene = stranger("193.70.55.9:80", 5001, 1019).rst(Side::Client, 2, ResetKind::Stray, 0);
        let findings = World::new().with(&asked()).with(&scene).check(&RULE);
        assert!(findings[0].evidence.iter().any(|evidence| evidence.shows.starts_with("RST")));
    }

    #[test]
    fn another_connection_from_the_same_port_has_other_numbers() {
        let world = World::new().with(&asked()).with(&stranger("193.70.55.9:80", 900_000_000, 77_000_000));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn a_server_that_answers_itself_needs_no_stranger() {
        let answered = asked().data(Side::Server, 4, 30);
        let world = World::new().with(&answered).with(&stranger("193.70.55.9:80", 5001, 1019));
        assert!(world.check(&RULE).is_empty());
    }
}
