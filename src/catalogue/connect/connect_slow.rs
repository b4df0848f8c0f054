//! The connection opened only after a SYN or SYN+ACK had to be sent again: the user waited 1 s or more before the first octet.
//!
//! ## How tcpwhy knows
//! The first SYN or the SYN+ACK was repeated, and then the handshake was completed. The delay is the time of the retries: 1, 2, 3 s on
//! new Linux kernels, 1, 3, 7 s on older ones.
//!
//! ## What it is not
//! - A long path: there the handshake is slow without a single repetition, or, from a round trip of 1 s on, every copy is answered.
//! - `accept-queue-overflow`: there several connections to one port suffer at once while the host's other ports are well.
//! - `packet-loss`: there connections to several hosts suffer.
//!
//! ## What people see
//! Latencies of almost exactly 1 s or 3 s in a few requests of a hundred.
//!
//! ## False alarms it avoids
//! A SYN+ACK that is repeated although the client had long begun to talk delays nobody. One retry among many healthy connections is
//! lowered by one level. Up to two at one port, when not one connection in a thousand is slow to open, are a notice: every network loses that much.

use crate::event::{Kind, Side};
use crate::flow::facts::{Half, Handshake};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "connect-slow",
    title: "the connection opened only after SYN retries",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::SynAck, Kind::Established]).and_any(&[Kind::SynRetransmitted, Kind::SynAckRetransmitted]),
    says: "{client_host} reached {server} only after {after}: {repeated}",
    users_see: &["latency spikes of 1 s or 3 s", "time_connect above 1 s"],
    do_first: &[
        Step { says: "On {host}: {look}", command: "nstat -az {counters}" },
        Step {
            says: "On every firewall and NAT in between: is its connection table full?",
            command: "sudo dmesg | grep 'nf_conntrack: table full'",
        },
    ],
    verify: &[Step {
        says: "from the client's host, 10 times with 1 s each; every one should print succeeded:",
        command: "for i in 1 2 3 4 5 6 7 8 9 10; do nc -vz -w 1 {host} {port}; done",
    }],
    not: &[("rtt-high-or-rising", "packets were repeated: only a path of 1 s and more does that")],
    cannot_show: &["whether what came again had been lost on the way, dropped by a full queue, or was late"],
    explains: &[
        Explains("slow-response", Scope::Link),
        Explains("proxy-retries-hide-failure", Scope::Link),
        Explains("proxy-adds-latency", Scope::Link),
    ],
    sources: &["RFC 6298 §2, §5: the first retransmission comes after 1 s", "Linux tcp_syn_linear_timeouts"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let (syn, done) = (*client.syns.first()?, flow.facts.established?);
    let delay = done.time.since(syn.time);
    let repeated = client.syn_count > 1 || server.syn_count > 1;
    if flow.facts.handshake != Handshake::Full || !repeated || delay < flow.thresholds.syn_span {
        return None;
    }
    let answered_first =
        server.syns.first().is_some_and(|answer| answer.time.since(syn.time) < flow.thresholds.syn_span);
    // A path that takes longer than the sender waits: nothing was lost, every copy is answered, or what follows takes as long.
    let all_answered = !answered_first && client.syn_count > 1 && server.syn_count >= client.syn_count;
    let [to_server, to_client] = [client, server].map(|half| half.min_rtt.unwrap_or(Elapsed::ZERO));
    if all_answered || to_server + to_client >= flow.thresholds.syn_span {
        return None;
    }
    let mut finding = RULE.found(flow, syn, Side::Client, "SYN");
    for (n, copy) in client.syns.iter().enumerate().skip(1) {
        let after = copy.time.since(syn.time);
        finding = finding.and(*copy, Side::Client, format!("SYN, copy {} after {after}", n + 1));
    }
    for (n, copy) in server.syns.iter().enumerate() {
        let after = copy.time.since(syn.time);
        let shows = if n == 0 { format!("SYN+ACK after {after}") } else { format!("SYN+ACK, copy {}", n + 1) };
        finding = finding.and(*copy, Side::Server, shows);
    }
    let told = if answered_first { &ANSWERED } else { &UNANSWERED };
    let finding = finding.and(done, Side::Client, "ACK: open").with("after", delay).with("repeated", told.repeated);
    Some(finding.with("look", told.look).with("counters", told.counters).note(told.note))
}

/// What is told of a handshake that took long.
struct Told {
    repeated: &'static str,
    note: &'static str,
    look: &'static str,
    counters: &'static str,
}

/// The server answered at once: its queue took the connection.
const ANSWERED: Told = Told {
    repeated: "its SYN+ACK had to be repeated",
    note: "the server answered at once; the SYN+ACK or the client's ACK was lost or late behind the capture point",
    look: "do its SYN+ACKs have to be sent again?",
    counters: "TcpExtTCPSynRetrans TcpRetransSegs",
};

const UNANSWERED: Told = Told {
    repeated: "its SYN had to be repeated",
    note: "the first SYN, or its answer, was lost or dropped on the server's side",
    look: "do dropped connections grow (full listen queue)?",
    counters: "TcpExtListenOverflows TcpExtListenDrops",
};

/// TCP connections for each slow one from which on single ones are nobody's fault.
const AMONG: u64 = 1_000;

/// So many others that opened well make a single one an accident of its path.
const GOOD: usize = 20;

/// Other slow connections say where to look: one port, or the path to several hosts.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (start, group) = (flow.facts.start(), capture.thresholds.group);
    let slow = capture.found_by(RULE.id).filter(|other| other.facts.start().since(start).abs() <= group);
    let all = capture.found_by(RULE.id).count() as u64;
    let (same, others): (Vec<_>, Vec<_>) = slow.partition(|other| other.facts.server == flow.facts.server);
    if others.iter().any(|other| other.facts.server.address != flow.facts.server.address) {
        finding.notes.push("connections to other hosts were slow as well: look for loss on the path".into());
    } else if same.len() >= 3 {
        finding.culprit = Culprit::Server;
        finding.notes.push(format!("{} connections to this port were slow: its listen queue may be full", same.len()));
    }
    let at_server = capture.found_by(RULE.id).filter(|other| other.facts.server == flow.facts.server).count();
    if at_server < 3 && all * AMONG <= capture.tally.tcp_flows {
        finding.severity = Severity::Notice;
        finding.notes.push(format!("{all} of {} connections were slow to open", capture.tally.tcp_flows));
    }
    let alone = all < 3 && at_server < 3;
    if alone && let Some((good, lossy)) = beside(flow, capture).filter(|(good, lossy)| *lossy > 0 && *good >= GOOD) {
        finding.severity = Severity::Notice;
        finding.notes.push(format!(
            "{good} other connections between the two hosts opened well, and {lossy} of them had packets sent again: a path that loses some"
        ));
    }
    Keep::Yes
}

/// Connections between the same two hosts that opened well, and how many of those kept had packets sent again.
fn beside(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<(usize, usize)> {
    let (client, server) = (flow.facts.client.address, flow.facts.server.address);
    let there = capture.servers().filter(|(end, _)| end.address == server).flat_map(|(_, flows)| flows);
    let good = there.filter(|digest| digest.client().address == client && digest.accepted).count().checked_sub(1)?;
    let resent = |other: &&FlowSummary| {
        let sent_again = |half: &Half| half.loss.fast + half.loss.timeout + half.loss.tail_probe > 0;
        other.facts.client.address == client
            && (sent_again(&other.facts.from_client) || sent_again(&other.facts.from_server))
    };
    Some((good, capture.flows_to_host(server).filter(resent).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn slow(number: u64, server: &str) -> Scene {
        Scene::starting("10.0.0.1:40000", server, number, 0).syn(0).syn(1020).syn_ack(1021).established(1022)
    }

    #[test]
    fn a_handshake_after_a_second_syn_is_slow() {
        let finding = slow(1, "10.0.0.2:443").check(&RULE).expect("slow");
        assert_eq!(finding.values.get("after"), Some(&Elapsed::millis(1022).into()));
        assert_eq!(finding.values.get("repeated"), Some(&"its SYN had to be repeated".into()));
    }

    #[test]
    fn a_lost_syn_ack_is_told_apart() {
        let scene = Scene::new().syn(0).syn_ack(1).syn_ack(1020).established(1021);
        let finding = scene.check(&RULE).expect("slow");
        assert_eq!(finding.values.get("repeated"), Some(&"its SYN+ACK had to be repeated".into()));
    }

    #[test]
    fn a_long_path_without_repetition_is_not_slow() {
        assert_eq!(Scene::new().syn(0).syn_ack(1400).established(1401).check(&RULE), None);
    }

    #[test]
    fn a_path_longer_than_the_sender_waits_loses_nothing() {
        let scene = Scene::new().syn(0).syn(1020).syn_ack(1290).syn_ack(2310).established(2311);
        assert_eq!(scene.check(&RULE), None, "both are answered");
        let mut scene = Scene::new().syn(0).syn_ack(1).syn(1020).syn_ack(1021).established(1300);
        assert!(scene.check(&RULE).is_some());
        scene.facts.from_server.min_rtt = Some(Elapsed::millis(1_290));
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_syn_ack_repeated_after_the_client_began_delays_nobody() {
        assert_eq!(Scene::open().data(Side::Client, 3, 40).syn_ack(1001).check(&RULE), None);
    }

    #[test]
    fn three_slow_connections_to_one_port_point_to_its_queue() {
        let scenes = [slow(1, "10.0.0.2:443"), slow(11, "10.0.0.2:443"), slow(21, "10.0.0.2:443")];
        let mut world = World::new();
        for mut scene in scenes.clone() {
            scene.findings.extend(scene.check(&RULE));
            world = world.with(&scene);
        }
        let finding = world.corroborated(&RULE, scenes[0].check(&RULE).expect("slow")).expect("it stays");
        assert_eq!(finding.culprit, Culprit::Server);
    }
    #[test]
    fn one_of_a_thousand_connections_is_a_notice() {
        for (flows, severity) in [(999, Severity::Warning), (1_000, Severity::Notice)] {
            let mut scene = slow(1, "10.0.0.2:443");
            scene.findings.extend(scene.check(&RULE));
            let mut world = World::new().with(&scene);
            world.tally.tcp_flows = flows;
            let finding = world.corroborated(&RULE, scene.check(&RULE).expect("slow")).expect("it stays");
            assert_eq!(finding.severity, severity, "{flows}");
        }
    }
}
