//! The receiver stopped reading: it advertises a window of 0, and the sender must wait.
//!
//! ## How tcpwhy knows
//! A side advertised a window of 0 (in no SYN, RST or FIN) while the other side had something to send: it probed the closed window, or
//! went on as soon as it opened. From 10 s on it is critical, from 1 s a warning, from 100 ms a notice. The side that advertises 0 does
//! not read: never the sender, never the network.
//!
//! ## What it is not
//! - `upstream-hang`, `response-stalled`: there the window is open and nothing is sent.
//! - Keep-alive probes: the same octets, but into an open window.
//!
//! ## What people see
//! Downloads or uploads that stand still; "the server is slow" although the client does not read.
//!
//! ## False alarms it avoids
//! Windows closed for less than 100 ms (buffer tuning), windows closed while nobody wants to send, and those of a side that closes.
//! A reader that is slow on purpose (a rate limit) closes its window for parts of a second: a notice. A client that reads on later may have
//! paused (a film, a download): a warning at most.

use crate::event::{Kind, Side};
use crate::flow::facts::ZeroWindow;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView, Link};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "zero-window",
    title: "the receiver stopped reading: its window is 0",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::ZeroWindow]),
    says: "{reader} does not read what {sender} sends: its window was closed for {closed}",
    variants: &["{reader} does not read what {sender} sends: its window has been closed for {closed}"],
    users_see: &["downloads or uploads that stand still", "TCP ZeroWindow"],
    do_first: &[
        Step {
            says: "On {reader_host}: is Recv-Q full? Then its program does not read:",
            command: "sudo ss -tnpm state established",
        },
        Step { says: "On {reader_host}: is the disk or the memory the reason?", command: "vmstat 1 5" },
    ],
    verify: &[Step {
        says: "on {reader_host}, a minute apart; the counter grows with every closed window:",
        command: "nstat -az TcpExtTCPToZeroWindowAdv TcpExtTCPWantZeroWindowAdv",
    }],
    not: &[("packet-loss", "the receiver acknowledges every octet it has room for")],
    cannot_show: &["what the program that should read is doing"],
    explains: &[
        Explains("slow-response", Scope::Same),
        Explains("response-stalled", Scope::Same),
        Explains("upstream-hang", Scope::Same),
        Explains("http-request-incomplete", Scope::Same),
        Explains("proxy-upstream-timeout", Scope::Same),
        Explains("h2-flow-control-stalled", Scope::Same),
    ],
    sources: &["RFC 9293 §3.8.6.1", "RFC 1122 §4.2.2.17"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// A proxy that reads no faster than it can pass on has a reason, and its window opens again.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (from, Some(until)) = (finding.first(), finding.over()) else { return Keep::Yes };
    let passes_on = |link: &Link| {
        let reads = link.backend_leg == flow.facts.id && finding.culprit == Culprit::Client;
        let front = capture.flows.get(&link.client_leg).filter(|_| reads)?;
        let busy = front.facts.from_server.last_payload.is_some_and(|last| last.time >= until.time)
            && front.facts.from_server.first_payload.is_some_and(|first| first.time <= from.time);
        busy.then_some(front.facts.client)
    };
    // Where the leg towards its client is sealed, the host that reads is seen to send all the time.
    let reader = flow.facts.client.address;
    let sends = |front: &&FlowSummary| {
        let (first, last) = (front.facts.from_server.first_payload, front.facts.from_server.last_payload);
        first.is_some_and(|first| first.time <= from.time) && last.is_some_and(|last| last.time >= until.time)
    };
    let any = || capture.flows_to_host(reader).find(sends).map(|front| front.facts.client);
    let slow = capture.links_of(flow.facts.id).find_map(passes_on);
    let slow = slow.or_else(|| (finding.culprit == Culprit::Client).then(any).flatten());
    if let Some(client) = slow {
        finding.severity = Severity::Notice;
        finding
            .notes
            .push(format!("it passes the octets on to {client} meanwhile, no faster than that one takes them"));
    }
    Keep::Yes
}

/// So many pauses of a reader are its way of reading.
const PORTIONS: u32 = 5;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let sides = [Side::Client, Side::Server].into_iter();
    let longest = sides.filter_map(|side| longest(flow, side)).max_by_key(|(_, _, closed)| *closed);
    let (side, zero, closed) = longest.filter(|(_, _, closed)| *closed >= flow.thresholds.zero_window)?;
    let (half, sender) = (flow.facts.half(side), side.other());
    let severity = if closed >= flow.thresholds.hang {
        Severity::Critical
    } else if closed >= flow.thresholds.zero_window_long {
        Severity::Warning
    } else {
        Severity::Notice
    };
    // A client that reads on later may have paused on purpose (a film, a download): it is nobody's outage.
    let severity = match zero.until {
        // One that reads on each time takes it in portions.
        Some(_) if side == Side::Client && half.zero_window_count >= PORTIONS && !half.shut() => Severity::Notice,
        Some(_) if side == Side::Client => severity.min(Severity::Warning),
        _ => severity,
    };
    let probe = flow.story.events().find(|e| e.what.kind() == Kind::ZeroWindowProbe && e.at > zero.from);
    let finding = RULE
        .found(flow, zero.from, side, "the window is 0 from here on")
        .and_maybe(probe.map(|event| event.at), sender, "the sender asks whether it has opened")
        .and_maybe(zero.until, side, format!("it opens again after {closed}"))
        .severity(severity)
        .culprit(if side == Side::Server { Culprit::Server } else { Culprit::Client })
        .variant(u8::from(zero.until.is_none()))
        .with("reader", flow.facts.endpoint(side))
        .with("reader_host", flow.facts.endpoint(side).address)
        .with("sender", flow.facts.endpoint(sender).address)
        .with("closed", closed);
    let finding = match zero.until {
        Some(until) if !half.shut() => finding.with("over", Value::Frame(until)),
        _ => finding,
    };
    Some(match half.zero_window_count {
        0 | 1 => finding,
        n => finding.note(format!("its window was closed {n} times; this is the longest that is remembered")),
    })
}

/// The longest time a side's window was closed against a sender that had something to send.
fn longest(flow: &FlowView<'_>, side: Side) -> Option<(Side, ZeroWindow, Elapsed)> {
    let (half, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let end = flow.facts.closer.map_or(flow.now, |(_, close)| close.time.min(flow.now));
    let wanted = |zero: &&ZeroWindow| {
        let resumed = zero.until.is_some_and(|until| peer.last_payload.is_some_and(|last| last > until));
        half.zero_window_probes > 0 || resumed
    };
    let intervals = half.zero_windows.iter().filter(wanted);
    intervals
        .map(|zero| (side, *zero, zero.until.map_or(end, |until| until.time.min(end)).since(zero.from.time)))
        .max_by_key(|(_, zero, closed)| (*closed, std::cmp::Reverse(zero.from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{PacketRef, ResetKind, What};
    use crate::rule::testing::{Scene, World};

    fn closed() -> Scene {
        let mut scene = Scene::open().data(Side::Server, 3, 1448).zero_window(Side::Client, 4);
        scene.facts.from_client.zero_window_probes = 1;
        scene.event(Side::Server, 210, What::ZeroWindowProbe)
    }

    #[test]
    fn a_client_that_does_not_read_for_ten_seconds_is_the_culprit() {
        let finding = closed().capture_ends(12_004).check(&RULE).expect("closed");
        assert_eq!((finding.severity, finding.culprit, finding.variant), (Severity::Critical, Culprit::Client, 1));
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 6));
    }

    #[test]
    fn a_window_that_opens_again_is_measured() {
        let reopened = |ms| {
            let mut scene = closed();
            let at = PacketRef { number: 9, time: scene.facts.id.time + Elapsed::millis(ms), ..scene.facts.id };
            scene.facts.from_client.zero_windows[0].until = Some(at);
            scene.capture_ends(60_000).check(&RULE).map(|finding| finding.severity)
        };
        assert_eq!(reopened(90), None);
        assert_eq!(reopened(500), Some(Severity::Notice));
        assert_eq!(reopened(3_000), Some(Severity::Warning));
        assert_eq!(reopened(12_000), Some(Severity::Warning), "it read on");
    }

    #[test]
    fn a_reader_that_takes_it_in_portions_is_told_as_a_notice() {
        let read = |times| {
            let mut scene = closed();
            let at = PacketRef { number: 9, time: scene.facts.id.time + Elapsed::secs(5), ..scene.facts.id };
            scene.facts.from_client.zero_windows[0].until = Some(at);
            scene.facts.from_client.zero_window_count = times;
            scene.capture_ends(60_000).check(&RULE).map(|finding| finding.severity)
        };
        assert_eq!((read(PORTIONS - 1), read(PORTIONS)), (Some(Severity::Warning), Some(Severity::Notice)));
    }

    #[test]
    fn a_proxy_that_sends_on_meanwhile_reads_no_faster_than_its_client() {
        let mut scene = Scene::starting("10.0.0.5:50000", "10.0.0.3:80", 500, 0).handshake();
        scene = scene.data(Side::Server, 3, 1448).zero_window(Side::Client, 4);
        let at = PacketRef { number: 509, time: scene.facts.id.time + Elapsed::secs(5), ..scene.facts.id };
        scene.facts.from_client.zero_window_probes = 1;
        scene.facts.from_client.zero_windows[0].until = Some(at);
        let scene = scene.capture_ends(60_000);
        let found = scene.check(&RULE).expect("closed for five seconds");
        let front = |until: i64| {
            let front = Scene::starting("203.0.113.7:40000", "10.0.0.5:443", 400, 0).handshake();
            let front = front.data(Side::Server, 3, 1448).data(Side::Server, until, 1448);
            let world = World::new().with(&scene).with(&front);
            world.corroborated(&RULE, found.clone()).map(|finding| finding.severity)
        };
        assert_eq!((front(9_000), front(1_000)), (Some(Severity::Notice), Some(Severity::Warning)));
    }

    #[test]
    fn a_window_that_closed_again_is_not_over() {
        let told = |again: bool| {
            let mut scene = closed();
            let at = PacketRef { number: 9, time: scene.facts.id.time + Elapsed::secs(5), ..scene.facts.id };
            scene.facts.from_client.zero_windows[0].until = Some(at);
            let scene = if again { scene.zero_window(Side::Client, 6_000) } else { scene };
            scene.capture_ends(7_000).check(&RULE).expect("closed for five seconds").over()
        };
        assert_eq!(told(false).map(|at| at.number), Some(9));
        assert_eq!(told(true), None);
    }

    #[test]
    fn a_closed_window_against_nobody_is_no_fault() {
        let scene = Scene::open().data(Side::Server, 3, 1448).zero_window(Side::Client, 4).capture_ends(60_000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn the_wait_ends_with_the_connection() {
        let scene = closed().rst(Side::Client, 250, ResetKind::Abort, 0).gone(60_000);
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }
}
