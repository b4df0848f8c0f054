//! The file, or the part of it that was asked for, holds no packet: nothing can be said about the trouble.
//!
//! ## How tcpwhy knows
//! It read the whole file and counted. Either there was no packet record at all, or none passed `--filter`, `--since` and the others.
//!
//! With a snapshot of the host's sockets (`--sockets FILE` with the output of `ss -tnpoi`; `tcpwhy live` takes one by itself) it also
//! knows of connections that sent no packet while the capture ran: three or more to one server on which this host sent something, had it
//! acknowledged, and heard nothing since for a minute or longer.
//!
//! ## What it is not
//! - `capture-file-damaged`: there packets were lost with the file.
//! - `capture-filter-narrow`: there packets are, only whole protocols are missing.
//! - `network-blackout`: there this host goes on sending and nobody answers.
//!
//! ## What people see
//! An empty tcpdump while everything hangs. That excludes some things: at this point nobody opened, repeated or closed a connection in
//! that time, for a retry, a keep-alive probe or a FIN would show. It does not exclude a hang: an established connection on which both
//! sides wait sends nothing, for ever.
//!
//! ## False alarms it avoids
//! A pool of idle connections is no hang: there the server spoke last. One or two connections that have the last word may be meant so (a
//! log shipper), so they are a notice.
//!
//! A wrong interface, another network namespace, a typing error in the filter, VLAN tags (`vlan and (…)`), `--since` in another time
//! zone, or a tcpdump that was killed before it wrote its first block all look like this. Rule them out before you trust the silence.

use std::collections::BTreeSet;

use crate::event::PacketRef;
use crate::host::sockets::Socket;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};
use crate::time::Timestamp;
use crate::wire::Endpoint;

pub static RULE: Rule = Rule {
    id: "capture-has-nothing",
    title: "the file, or the part that was asked for, holds no packet",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the capture holds no packet at all",
    variants: &[
        "nothing that was asked for is in the capture: {packets} packets of others in {span}",
        "{count} connections to {upstream} wait for an answer, the longest for {wait}; they send nothing, and no packet of theirs is in the capture",
    ],
    users_see: &["an empty tcpdump while everything hangs", "0 packets captured", "0 packets received by filter"],
    do_first: &[
        Step {
            says: "Do connections stand open and silent? Both sides may wait for ever without a packet:",
            command: "ss -tno state established",
        },
        Step {
            says: "Does this interface carry the traffic? Other interfaces of this host:",
            command: "sudo tcpdump -D",
        },
    ],
    verify: &[Step {
        says: "prints packets of every interface of this host as they come, 20 of them:",
        command: "sudo tcpdump -i any -nn -c 20",
    }],
    not: &[
        ("capture-filter-narrow", "packets would be there, and only protocols would be missing"),
        ("network-blackout", "this host would go on sending"),
    ],
    cannot_show: &["established connections on which both sides wait: they send nothing"],
    sources: &["[S3]: an empty tcpdump beside hundreds of hanging requests"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// So many to one server are no accident.
const TOGETHER: u64 = 3;
/// Servers that are told apart.
const SERVERS: usize = 8;
/// Where there is no packet to cite.
const NOWHERE: PacketRef = PacketRef { file: 0, number: 0, time: Timestamp(0) };

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut findings = nothing(capture);
    let silent = hung(capture);
    // Who waits is more than that nothing was sent.
    if !silent.is_empty() {
        findings = silent;
    }
    for (ordinal, finding) in (0..).zip(&mut findings) {
        finding.ordinal = ordinal;
    }
    findings
}

/// Connections that stand open, wait, and sent nothing.
fn hung(capture: &CaptureView<'_>) -> Vec<Finding> {
    let Some(sockets) = capture.sockets else { return Vec::new() };
    let kept = capture.flows.values().map(|flow| (flow.facts.client, flow.facts.server));
    let known = capture.digests.iter().map(|digest| (digest.client(), digest.server()));
    let seen: BTreeSet<(Endpoint, Endpoint)> = kept.chain(known).collect();
    let spoke =
        |socket: &Socket| seen.contains(&(socket.local, socket.peer)) || seen.contains(&(socket.peer, socket.local));
    let packets = capture.packets;
    let first = packets.first.or(packets.filtered_first).unwrap_or(NOWHERE);
    let last = packets.last.or(packets.filtered_last).unwrap_or(NOWHERE);
    let found = sockets.waiting(capture.thresholds.hang_critical, spoke).into_iter().take(SERVERS).map(|waiting| {
        let severity = if waiting.count >= TOGETHER { Severity::Warning } else { Severity::Notice };
        let mut finding = RULE
            .about(Subject::Capture, first, None, "the capture begins: none of these connections sends anything from here on")
            .cites(last, None, "the capture's last packet: still none of theirs")
            .severity(severity)
            .with("count", waiting.count)
            .with("upstream", waiting.server)
            .with("wait", waiting.longest)
            .note("they sent a request, the other side's kernel took it, and no answer came; a capture that begins later shows none of it")
            .variant(2);
        if waiting.for_ever > 0 {
            let timers = match waiting.for_ever {
                n if n == waiting.count => "no timer runs on any of them: they wait for ever".to_owned(),
                n => format!("no timer runs on {n} of them: those wait for ever"),
            };
            finding = finding.note(timers);
        }
        match waiting.program {
            Some(program) => finding.note(format!("the program that waits: {program}")),
            None => finding,
        }
    });
    found.collect()
}

/// Nothing at all, or nothing that was asked for.
fn nothing(capture: &CaptureView<'_>) -> Vec<Finding> {
    let packets = capture.packets;
    if packets.read > packets.filtered {
        return Vec::new();
    }
    let (Some(first), Some(last)) = (packets.filtered_first, packets.filtered_last) else {
        return vec![empty(capture)];
    };
    let finding = RULE
        .about(Subject::Capture, first, None, "first packet of the capture: not of what was asked for")
        .cites(last, None, format!("last packet: all {} are of others", packets.read))
        .with("packets", packets.read)
        .with("span", last.time.since(first.time))
        .note(format!("asked for: {}", capture.asked))
        .note("nobody asked for opened, repeated or closed a connection here in that time")
        .variant(1);
    vec![finding]
}

/// The one finding without a packet: it cites number 0 of the first input, because there is none to cite.
fn empty(capture: &CaptureView<'_>) -> Finding {
    let finding = RULE.about(Subject::Capture, NOWHERE, None, "no packet in the file");
    let broken = capture.infos.iter().flat_map(|info| &info.damage).next();
    match broken {
        Some(damage) => finding.note(format!("the file is damaged: {}", damage.what)),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::value::Value;
    use crate::time::Elapsed;

    #[test]
    fn a_file_without_packets_is_said_to_be_empty() {
        let findings = World::new().check(&RULE);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].evidence[0].at.number, findings[0].variant), (0, 0));
    }

    #[test]
    fn a_filter_that_nothing_passes_cites_the_packets_of_others() {
        let mut world = World::new();
        (world.packets.read, world.packets.filtered, world.asked) = (40, 40, "--filter host 10.9.9.9".into());
        world.packets.filtered_first = Some(PacketRef { file: 0, number: 1, time: Timestamp(0) });
        world.packets.filtered_last = Some(PacketRef { file: 0, number: 40, time: Timestamp(5_000_000_000) });
        let findings = world.check(&RULE);
        assert_eq!((findings[0].variant, findings[0].last().number), (1, 40));
    }

    /// `ss` shows so many connections to one server that asked five hours ago, and one that idles.
    fn sockets(count: u16) -> crate::host::sockets::Sockets {
        let waits = |n: u16| {
            format!(
                "ESTAB 0 0 10.0.0.7:{} 10.9.9.9:80 users:((\"httpd\",pid=1,fd=4))\n\t bytes_acked:22 lastsnd:18720000 lastrcv:18720003\n",
                40_000 + n
            )
        };
        let idles = "ESTAB 0 0 10.0.0.7:50000 10.9.9.9:80\n\t bytes_acked:22 bytes_received:9 lastsnd:18720000 lastrcv:18719000\n";
        crate::host::sockets::Sockets::parse(&((0..count).map(waits).collect::<String>() + idles))
    }

    #[test]
    fn connections_that_hung_before_the_capture_are_named_by_their_sockets() {
        let mut world = World::new();
        world.sockets = Some(sockets(111));
        let findings = world.check(&RULE);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].variant, findings[0].severity), (2, Severity::Warning));
        assert_eq!(findings[0].values.get("count"), Some(&Value::Count(111)));
        assert_eq!(findings[0].values.get("wait"), Some(&Value::Elapsed(Elapsed::secs(18_720))));
        assert!(findings[0].notes.iter().any(|note| note.contains("they wait for ever")));
        // Also beside packets of others.
        let mut world = World::new().with(&Scene::open());
        world.sockets = Some(sockets(111));
        assert_eq!(world.check(&RULE).len(), 1);
    }

    #[test]
    fn two_that_wait_are_a_notice_and_idle_ones_are_nothing() {
        let mut world = World::new().with(&Scene::open());
        world.packets.read = 4;
        world.sockets = Some(sockets(2));
        assert_eq!(world.check(&RULE)[0].severity, Severity::Notice);
        world.sockets = Some(sockets(0));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn one_packet_that_was_asked_for_is_something() {
        let mut world = World::new().with(&Scene::open());
        (world.packets.read, world.packets.filtered) = (40, 37);
        assert!(world.check(&RULE).is_empty());
    }
}
