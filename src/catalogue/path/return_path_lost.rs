//! Packets pass in one direction only: one side is heard and never answered in a way that arrives.
//!
//! ## How tcpwhy knows
//! (a) The client repeats octets that the server has already acknowledged, at least twice, while everything the server sent stays
//! unacknowledged and is repeated: what the server says does not arrive. (b) The client repeats its SYN although each copy is answered
//! with SYN+ACK, and no ACK ever comes. (c) The server repeats its SYN+ACK although the client's ACK and data are repeated too: what the
//! client says does not arrive. (d) Three clients or more of one port each send one SYN and nothing more, although the server repeats its
//! SYN+ACK for 3 s and longer; and nobody completes a connection to that port.
//!
//! ## What it is not
//! - `accept-queue-overflow` makes the packets of (c) as well: there other connections to the port succeed at the same time.
//! - `asymmetric-return-path` says why; this rule says only that the way back is dead.
//! - `pmtu-blackhole`: there small packets still pass.
//!
//! ## What people see
//! "Connected", then nothing; on the server `ss -tn` shows SYN-RECV, or data in Send-Q that never leaves.
//!
//! ## False alarms it avoids
//! One lost ACK (a single repeated SYN+ACK), spoofed SYNs and scanners (their SYNs are not repeated; in (d) three of them within a minute, and
//! nobody else, are taken for clients, with low confidence), deferred accept (no data waits).

use std::collections::BTreeSet;

use crate::event::{Kind, Side};
use crate::flow::facts::{FlowFacts, Handshake, Unacknowledged};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::{FlowSummary, Verdict};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, Words};
use crate::time::{Elapsed, Timestamp};

pub static RULE: Rule = Rule {
    id: "return-path-lost",
    title: "packets pass in one direction only",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Syn, Kind::SynAck]),
    claims_absence: true,
    says: "what {host} sends to {client_host} does not arrive; the other way is open",
    variants: &[
        "what {client_host} sends to {server} does not arrive; the other way is open",
        "{server} hears nothing more of {client_host} once it has answered its SYN",
    ],
    words_of: &[(
        UNHEARD,
        Words {
            users_see: &["connected, then no answer", "SYN-RECV"],
            do_first: &[
                Step {
                    says: "On a client: is it connected, and does its request leave again and again?",
                    command: "ss -tni dst {host}",
                },
                Step {
                    says: "On {host}: how many wait for the end of their handshake?",
                    command: "ss -Htan state syn-recv 'sport = :{port}'",
                },
            ],
            verify: &[Step {
                says: "from a client's host; it should print octets:",
                command: "curl -svo /dev/null -m 9 http://{host}:{port}/",
            }],
            cannot_show: &["whether these clients exist: SYNs with forged addresses look the same from here"],
        },
    )],
    users_see: &["connected, then no answer", "Operation timed out after", "SYN-RECV"],
    do_first: &[
        Step {
            says: "On {host}: does it answer by the interface on which it is asked?",
            command: "ip route get {client_host} from {host}",
        },
        Step {
            says: "On {host}: do reverse path filters or full queues drop? These counters should not grow:",
            command: "nstat -az TcpExtIPReversePathFilter TcpExtListenOverflows",
        },
    ],
    verify: &[Step { says: "from the client's host; it should not wait:", command: "nc -vz -w 5 {host} {port}" }],
    not: &[("accept-queue-overflow", "no other connection shows that the port accepts at this time")],
    cannot_show: &["where on the way the packets end"],
    explains: &[
        Explains("spurious-retransmission", Scope::Same),
        Explains("rto-unrecovered", Scope::Same),
        Explains("connect-slow", Scope::Same),
        Explains("client-abandoned", Scope::Same),
    ],
    sources: &["RFC 9293 §3.8.1", "Open Food Facts, 2022"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// A connection this close tells how the way is.
const BESIDE: Elapsed = Elapsed::secs(10);
/// Copies that are no accident.
const COPIES: u32 = 3;

/// Variant of the headline about clients of which only a SYN came.
const UNHEARD: u8 = 2;
/// Scanners that leave SYN+ACKs unanswered come now and then.
const NEAR: Elapsed = Elapsed::secs(60);
/// From here it is no path that lost them.
const FLOOD: usize = 256;
/// Connections to one port looked at.
const LOOK: usize = 4096;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.saw(Kind::Icmp) || flow.server().reset_count > 0 {
        return None;
    }
    answers_lost(flow).or_else(|| syn_acks_lost(flow)).or_else(|| client_unheard(flow)).or_else(|| never_heard(flow))
}

fn waiting(waits: Option<Unacknowledged>) -> Option<Unacknowledged> {
    waits.filter(|waits| waits.copies >= COPIES)
}

/// (a) The server has the request; the client has neither the acknowledgment nor the answer.
fn answers_lost(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let lost = waiting(server.unacknowledged)?;
    let had = client.first_payload_acked?;
    if server.acknowledged > 0 || client.loss.spurious < 2 || client.reset_count > 0 {
        return None;
    }
    let again = client.loss.worst.first().map(|again| again.copy);
    Some(
        RULE.found(flow, client.first_payload?, Side::Client, "the request")
            .and(had, Side::Server, "the server acknowledges it")
            .and_maybe(
                again,
                Side::Client,
                format!("sent again, {} times in all: it never saw that", client.loss.total()),
            )
            .and(lost.first, Side::Server, format!("the answer, {} copies, never acknowledged", lost.copies))
            .and(lost.last, Side::Server, "the latest of them"),
    )
}

/// (b) Each SYN is answered, and none of the answers arrives.
fn syn_acks_lost(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let (asked, answered) = (client.syns.last()?, server.syns.last()?);
    let span = asked.time.since(flow.facts.start());
    if flow.facts.handshake == Handshake::Full
        || client.syn_count < COPIES
        || server.syn_count < COPIES
        || client.packets > u64::from(client.syn_count)
        || span < flow.thresholds.syn_span
    {
        return None;
    }
    Some(
        RULE.found(flow, flow.facts.id, Side::Client, format!("SYN, {} copies in {span}", client.syn_count))
            .and(*asked, Side::Client, "the latest SYN")
            .and(server.syns[0], Side::Server, format!("SYN+ACK, {} copies, never acknowledged", server.syn_count))
            .and(*answered, Side::Server, "the latest SYN+ACK")
            .confidence(Confidence::Medium),
    )
}

/// (c) The server never hears the end of the handshake.
fn client_unheard(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let lost = waiting(client.unacknowledged)?;
    if flow.facts.handshake != Handshake::Full
        || server.syn_count < COPIES
        || server.payload > 0
        || client.acknowledged > 0
        || server.packets > u64::from(server.syn_count)
    {
        return None;
    }
    Some(
        RULE.found(flow, server.syns[0], Side::Server, format!("SYN+ACK, {} copies", server.syn_count))
            .and_maybe(flow.facts.established, Side::Client, "ACK: the handshake is complete for the client")
            .and(lost.first, Side::Client, format!("octets, {} copies, never acknowledged", lost.copies))
            .and(*server.syns.last()?, Side::Server, "SYN+ACK again: it did not hear the ACK")
            .confidence(Confidence::Medium)
            .note("a full listen queue at the server makes the same packets: then its TcpExtListenOverflows grows")
            .variant(1),
    )
}

/// (d) Nothing of the client comes behind its SYN.
fn never_heard(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let (answered, last) = (*server.syns.first()?, *server.syns.last()?);
    let span = last.time.since(answered.time);
    let alone = client.syn_count == 1 && client.packets == 1 && server.packets == u64::from(server.syn_count);
    if !alone || server.syn_count < COPIES || span < flow.thresholds.tail {
        return None;
    }
    Some(
        RULE.found(flow, flow.facts.id, Side::Client, "SYN, and nothing of the client after it")
            .and(answered, Side::Server, format!("SYN+ACK, {} copies in {span}, never acknowledged", server.syn_count))
            .and(last, Side::Server, "the latest SYN+ACK")
            .severity(Severity::Silent)
            .confidence(Confidence::Low)
            .variant(UNHEARD),
    )
}

/// One client may have gone, or its address be forged: three of three say more, where nobody else gets through.
fn unheard(finding: &mut Finding, flow: &FlowFacts, capture: &CaptureView<'_>) -> Keep {
    // So many are a flood of SYNs.
    if capture.found_by(RULE.id).nth(FLOOD).is_some() {
        return Keep::Drop;
    }
    let server = &flow.server;
    let mut all = capture.began_to(server, Timestamp::MIN, Timestamp::MAX).take(LOOK);
    if all.any(|digest| digest.completed) {
        return Keep::Drop;
    }
    let told =
        |flow: &&FlowSummary| flow.findings.iter().any(|found| found.rule == RULE.id && found.variant == UNHEARD);
    let near = |other: &&FlowSummary| other.facts.start().since(flow.start()).abs() <= NEAR;
    let clients = capture.flows_to(server).take(LOOK).filter(told).filter(near).map(|flow| flow.facts.client.address);
    if clients.collect::<BTreeSet<_>>().len() >= capture.thresholds.many as usize {
        finding.severity = Severity::Warning;
    }
    Keep::Yes
}

/// A connection between the same two hosts that works at that time proves both ways open: only what answers were lost stays, less sure.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let facts = &flow.facts;
    if finding.variant == UNHEARD {
        return unheard(finding, facts, capture);
    }
    let works = capture.began(facts.start() - BESIDE, facts.last.time + BESIDE).any(|digest| {
        digest.id != facts.id
            && digest.server().address == facts.server.address
            && digest.client().address == facts.client.address
            && digest.accepted
            && digest.answered
            && digest.verdict != Verdict::Failed
    });
    match works {
        true if finding.confidence < Confidence::High => Keep::Drop,
        true => {
            finding.confidence = Confidence::Medium;
            finding.notes.push("another connection between the same hosts works at that time".into());
            Keep::Yes
        }
        false => Keep::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    #[test]
    fn a_connection_that_works_beside_it_proves_the_way_open() {
        let lost = Scene::new().syn(0).syn_ack(1).syn(1030).syn_ack(1031).syn(3050).syn_ack(3051);
        let good = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 50, 100).handshake();
        let good = good.data(Side::Client, 3, 18).acked(Side::Client, 4).data(Side::Server, 5, 100);
        let finding = lost.check(&RULE).expect("lost");
        assert_eq!(World::new().with(&lost).with_good(&good).corroborated(&RULE, finding), None);
    }

    fn deaf_client(spurious: u32) -> Scene {
        let mut scene = Scene::open()
            .request(3, "GET", "/", 41)
            .acked(Side::Client, 4)
            .response(5, 200, 300)
            .again(Side::Server, 205)
            .again(Side::Server, 605);
        scene.facts.from_client.loss.spurious = spurious;
        scene
    }

    #[test]
    fn a_client_that_repeats_what_is_acknowledged_hears_nothing() {
        let finding = deaf_client(3).check(&RULE).expect("the way back is dead");
        assert_eq!((finding.confidence, finding.variant), (Confidence::High, 0));
    }

    #[test]
    fn an_answer_that_is_lost_alone_is_another_matter() {
        assert_eq!(deaf_client(0).check(&RULE), None);
    }

    #[test]
    fn syns_that_are_each_answered_and_repeated_are_not_answered_in_vain_by_chance() {
        let scene = Scene::new().syn(0).syn_ack(1).syn(1030).syn_ack(1031).syn(3050).syn_ack(3051);
        assert_eq!(scene.check(&RULE).map(|finding| finding.confidence), Some(Confidence::Medium));
    }

    #[test]
    fn a_spoofed_syn_is_not_repeated() {
        let scene = Scene::new().syn(0).syn_ack(1).syn_ack(1001).syn_ack(3001).syn_ack(7001);
        assert_eq!(scene.check(&RULE).map(|found| found.severity), Some(Severity::Silent));
        assert_eq!(Scene::new().syn(0).syn_ack(1).syn_ack(1001).check(&RULE), None);
    }

    #[test]
    fn a_server_that_repeats_its_syn_ack_beside_repeated_data_hears_nothing() {
        let scene = Scene::open()
            .data(Side::Client, 3, 40)
            .again(Side::Client, 205)
            .again(Side::Client, 605)
            .syn_ack(1001)
            .syn_ack(3001);
        assert_eq!(scene.check(&RULE).map(|finding| finding.variant), Some(1));
    }

    /// `clients` of which nothing but a SYN comes, and one that gets through where `works`.
    fn silent(clients: u64, works: bool) -> Option<Severity> {
        let mut world = World::new();
        let mut found = None;
        for n in 0..clients {
            let client = format!("10.1.{}.{}:40000", n / 200, n % 200);
            let mut scene = Scene::starting(&client, "10.0.0.2:80", 1 + 10 * n, 0);
            scene = scene.syn(0).syn_ack(1).syn_ack(1_001).syn_ack(3_001);
            found = scene.check(&RULE);
            scene.findings.extend(found.clone());
            world = world.with(&scene);
        }
        if works {
            world = world.with_good(&Scene::starting("203.0.113.99:40000", "10.0.0.2:80", 900, 0).handshake());
        }
        Some(world.corroborated(&RULE, found?)?.severity)
    }

    #[test]
    fn three_clients_of_which_only_a_syn_comes_are_a_warning_where_nobody_gets_through() {
        assert_eq!(silent(3, false), Some(Severity::Warning));
        assert_eq!(silent(2, false), Some(Severity::Silent));
        assert_eq!(silent(3, true), None);
        assert_eq!(silent(300, false), None, "a flood of SYNs");
    }

    #[test]
    fn one_repeated_syn_ack_is_a_lost_ack() {
        let scene =
            Scene::open().data(Side::Client, 3, 40).again(Side::Client, 205).again(Side::Client, 605).syn_ack(1001);
        assert_eq!(scene.check(&RULE), None);
    }
}
