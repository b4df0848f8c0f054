//! Segments arrive damaged: their checksum is wrong, the receiver throws them away, and they are sent again.
//!
//! ## How tcpwhy knows
//! Three segments or more between two hosts had a TCP checksum that does not fit, the receiver did not acknowledge them, and the same octets came
//! again with a checksum that does. All three together are no accident of the capture. Not every checksum is looked at: the first eight of a
//! side, and 512 more each time the receiver lacks one that the capture has; so the number told is the least there were.
//!
//! ## What it is not
//! - `capture-offload-artifacts`: there the network card of the capturing host finishes the checksums, and the receiver takes these segments.
//! - `packet-loss`: to TCP a damaged segment is a lost one. Here the capture has it, and it shows why it did not count.
//! - `proxy-header-bad-checksum`: that one is inside the octets, and they arrived as they were sent.
//!
//! ## What people see
//! Slow transfers, retransmissions, `InCsumErrors` that grows. One damaged segment in 65,536 passes the checksum all the same: then TLS ends with
//! `bad_record_mac`, and without TLS nobody notices.
//!
//! ## False alarms it avoids
//! Unfinished checksums of a sending host (the copy is as unfinished), segments that offload joined, wrong checksums of what was acknowledged,
//! payload that the snaplen cut, one or two segments. At the sender's end, where segments still are what they were, it is silent.

use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::FlowFacts;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "corrupt-segments",
    title: "segments arrive damaged: checksums are wrong on what was received",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Damaged]),
    says: "{damaged} segments or more from {sender} to {receiver} came damaged (wrong checksum): thrown away and sent again",
    users_see: &["slow transfers", "TCP checksum incorrect", "bad_record_mac", "retransmits in ss -ti and nstat"],
    do_first: &[
        Step {
            says: "On {receiver}: does the kernel count them? TcpInCsumErrors grows with each:",
            command: "nstat -az TcpInCsumErrors TcpExtTCPOFOQueue",
        },
        Step {
            says: "Which link damages frames (CRC, frame and length errors)? On both ends, and on what lies between:",
            command: "ip -s -s link show",
        },
        Step {
            says: "No link counts errors? Then a box on the way damages octets and computes the frame's checksum anew (bad memory, a tunnel, a driver). On both sides of each: from where on are they wrong?",
            command: "timeout 60 tcpdump -vvni any 'tcp and src host {sender} and dst host {receiver}' | grep -B 1 incorrect",
        },
    ],
    verify: &[Step {
        says: "on {receiver}, a minute apart; a counter that stands still means that it is mended:",
        command: "nstat -az TcpInCsumErrors",
    }],
    not: &[
        ("capture-offload-artifacts", "the receiver did not take these segments, and the copies are right"),
        ("packet-loss", "they arrived, and were thrown away for their checksum"),
    ],
    cannot_show: &["which hop damages them", "damage that the checksum does not show, one in 65,536"],
    explains: &[
        Explains("packet-loss", Scope::Same),
        Explains("loss-burst-single", Scope::Same),
        Explains("tls-fatal-alert", Scope::Same),
    ],
    sources: &["RFC 9293 §3.1", "RFC 1071", "J. Stone, C. Partridge: When the CRC and TCP checksum disagree (2000)"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Fewer between two hosts are an anecdote.
const FEW: u64 = 3;
/// Connections with damaged segments that are counted.
const OTHERS: usize = 512;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let side = more_damaged(flow.facts);
    let half = flow.facts.half(side);
    let mut damaged = half.damaged.clone();
    damaged.sort_unstable();
    let (first, copy) = *damaged.first()?;
    let later = |at: PacketRef, first: PacketRef| at.time.since(first.time);
    let mut finding = RULE.found(flow, first, side, "the first one: its checksum is wrong").and(
        copy,
        side,
        format!("the first one again, {} later: the checksum fits", later(copy, first)),
    );
    for ((first, copy), place) in damaged.iter().skip(1).zip(["second", "third"]) {
        finding = finding.and(*first, side, format!("a {place} one")).and(
            *copy,
            side,
            format!("the {place} one again, {} later: the checksum fits", later(*copy, *first)),
        );
    }
    Some(
        finding
            .with("damaged", u64::from(half.damages))
            .with("sender", flow.facts.endpoint(side).address)
            .with("receiver", flow.facts.endpoint(side.other()).address)
            .note(format!(
                "{} of {} segments of this connection, as far as their checksums were looked at",
                half.damages, half.segments
            )),
    )
}

/// The direction with more damaged segments.
fn more_damaged(facts: &FlowFacts) -> Side {
    if facts.from_client.damages > facts.from_server.damages { Side::Client } else { Side::Server }
}

/// One damaged segment is an anecdote wherever it is; several between the same two hosts, on one connection or on many, are a path that
/// damages.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let side = more_damaged(&flow.facts);
    let ends = |facts: &FlowFacts| (facts.endpoint(side).address, facts.endpoint(side.other()).address);
    let alike = capture.found_by(RULE.id).take(OTHERS).filter(|other| ends(&other.facts) == ends(&flow.facts));
    let all: u64 = alike.map(|other| u64::from(other.facts.half(side).damages)).sum();
    if all < FEW {
        return Keep::Drop;
    }
    finding.values.set("damaged", all.into());
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    fn damaged(client: &str, number: u64, times: u32) -> Scene {
        let mut scene = Scene::starting(client, "10.0.0.2:80", number, 0).handshake().data(Side::Server, 3, 1448);
        let first = scene.facts.last;
        scene = scene.again(Side::Server, 250);
        let copy = scene.facts.last;
        scene = scene.also(Side::Server, What::Damaged { again: copy }).acked(Side::Server, 260);
        let half = &mut scene.facts.from_server;
        (half.damages, half.damaged) = (times, vec![(first, copy)]);
        scene
    }

    fn told(scenes: Vec<Scene>) -> usize {
        let mut world = World::new();
        for mut scene in scenes {
            scene.findings.extend(scene.check(&RULE));
            world = world.with(&scene);
        }
        let findings: Vec<Finding> = world.flows.values().flat_map(|flow| flow.findings.clone()).collect();
        findings.into_iter().filter_map(|finding| world.corroborated(&RULE, finding)).count()
    }

    #[test]
    fn three_segments_that_came_wrong_and_again_right_are_a_path_that_damages() {
        let scene = damaged("10.0.0.1:40000", 1, 3);
        let finding = scene.check(&RULE).expect("damaged");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((finding.severity, finding.culprit), (Severity::Warning, Culprit::Network));
        assert_eq!((cited.as_slice(), finding.values.get("damaged")), ([4, 5].as_slice(), Some(&3u64.into())));
        assert_eq!(told(vec![scene]), 1);
    }

    #[test]
    fn one_on_each_of_three_connections_is_the_same_path() {
        let scenes = |n: u64| (0..n).map(|n| damaged(&format!("10.0.0.1:4000{n}"), 1 + 20 * n, 1)).collect();
        assert_eq!((told(scenes(3)), told(scenes(2))), (3, 0));
    }

    #[test]
    fn one_of_each_of_three_hosts_is_three_anecdotes() {
        let scenes = (0..3).map(|n| damaged(&format!("10.0.0.{}:40000", 5 + n), 1 + 20 * n, 1)).collect();
        assert_eq!(told(scenes), 0);
    }

    #[test]
    fn loss_alone_is_no_damage() {
        let scene = Scene::open().data(Side::Server, 3, 1448).again(Side::Server, 250).acked(Side::Server, 251);
        assert_eq!(scene.check(&RULE), None);
    }
}
