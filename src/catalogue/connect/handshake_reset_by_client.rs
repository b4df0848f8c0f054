//! The client's side asks for a connection, and refuses it when the server accepts.
//!
//! ## How tcpwhy knows
//! SYN, SYN+ACK, and then a RST without ACK from the client's side, with the number that the SYN+ACK acknowledged: that is how a kernel
//! refuses what it has no socket for (RFC 9293 §3.10.7.1). The reason stands beside it where packets tell one: the SYN+ACK came so late that
//! the program had given up; it acknowledges another number than the SYN's, so that another host or an older connection answered; or nobody
//! ever completes a connection from that address, which is how half-open scans look.
//!
//! ## What it is not
//! - `port-reuse-collision`: there the server does not accept, it answers with the numbers of an older connection.
//! - `lb-health-check-noise`: HAProxy ends its checks with RST+ACK from a live socket.
//! - `connect-refused`: there the server refuses.
//!
//! ## What people see
//! `Connection timed out` in a program with a short timeout; half-open connections in the server's statistics.
//!
//! ## False alarms it avoids
//! The slower address family of a client that tries both (RFC 8305), where the other one was completed. One or two refusals without a reason
//! beside them are a notice, and so are those of a client that never completes a connection to that port: scanners do that all day long.

use crate::event::{Kind, Side};
use crate::flow::facts::{Handshake, IpProtocol, Reset};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "handshake-reset-by-client",
    title: "the client refuses the connection that the server accepts",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::SynAck, Kind::Reset]),
    says: "{client_host} asks {server} for a connection and refuses it with RST when {server_host} accepts",
    variants: &[
        "{client_host} had given up when {server} accepted its connection, {after} after it asked",
        "{client_host} refuses what {server} accepts: the SYN+ACK acknowledges another connection's number",
    ],
    users_see: &["Connection timed out", "connect timeout", "SYN_RECV"],
    do_first: &[
        Step {
            says: "On {client_host}: does a connection open, and how long does it take?",
            command: "time nc -vz -w 20 {host} {port}",
        },
        Step {
            says: "Whose is {client_host}? A scanner of your own is allowed to do this:",
            command: "whois {client_host}",
        },
    ],
    verify: &[Step {
        says: "on {server_host}, a minute apart; the counter grows when half-open connections are reset:",
        command: "nstat -az TcpExtEmbryonicRsts",
    }],
    not: &[("connect-refused", "the server accepted; the RST came from the client's side")],
    cannot_show: &["whether a program closed its socket, or another machine with the client's address answered"],
    sources: &["RFC 9293 §3.5.1, §3.10.7.1", "RFC 8305 §5", "measured on Linux 6.18"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// From here the SYN+ACK came too late for programs with a short timeout; kernels repeat a SYN after a second.
const LATE: Elapsed = Elapsed::millis(900);
/// A client that tries two addresses begins them within this time.
const BOTH: Elapsed = Elapsed::secs(2);
/// Flows looked at for another attempt: more begin within that time only in a flood.
const BESIDE: usize = 16_384;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let (syn, accepted) = (*client.syns.first()?, *server.syns.first()?);
    if flow.facts.handshake != Handshake::SynAck || server.first != Some(accepted) || client.payload > 0 {
        return None;
    }
    let reset = client.resets.iter().find(|reset| reset.at > accepted && reset.ack.is_none())?;
    let after = accepted.time.since(syn.time);
    let other = client.isn.is_some_and(|isn| reset.seq != isn.plus(1));
    let variant = if other { 2 } else { u8::from(after >= LATE) };
    let (asks, answers) = (flow.facts.client, flow.facts.server);
    let finding = RULE
        .found(flow, reset.at, Side::Client, "RST without ACK: that host has no socket that waits for this")
        .and(syn, Side::Client, "SYN")
        .and(accepted, Side::Server, format!("SYN+ACK {after} later"))
        .variant(variant)
        .with("client_host", asks.address)
        .with("server", answers)
        .with("server_host", answers.address)
        .with("after", after);
    Some(match stranger(flow, reset) {
        true => finding
            .note("the RST has made another number of hops than the SYN: another machine answers with that address"),
        false => finding,
    })
}

/// Its TTL is two hops or more away from that of the SYN.
fn stranger(flow: &FlowView<'_>, reset: &Reset) -> bool {
    let syn = flow.client().ttl.0;
    // Kernels begin RSTs with 64, 128 or 255 whatever the socket's TTL is: only a TTL of the same class can be compared.
    let class = |ttl: u8| [64, 128, 255].into_iter().find(|class| ttl <= *class);
    class(syn) == class(reset.ttl) && syn.abs_diff(reset.ttl) >= 2
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (client, server, start) = (flow.facts.client.address, flow.facts.server, flow.facts.start());
    let mut beside =
        capture.began(start - BOTH, start + BOTH).take(BESIDE).filter(|other| other.transport == IpProtocol::Tcp);
    let raced = beside.any(|other| {
        let end = other.server();
        let same_client = other.client().address == client || end.address.is_v4() != server.address.is_v4();
        other.completed && end.port == server.port && end.address != server.address && same_client
    });
    if raced {
        return Keep::Drop;
    }
    let window = capture.thresholds.window;
    let completes = |other: &&crate::rule::summary::Digest| other.client().address == client && other.completed;
    let known = capture.began_to(&server, start - window, start + window).find(completes).map(|other| other.id);
    let refused =
        capture.found_by(RULE.id).filter(|other| other.facts.client.address == client && other.facts.server == server);
    let many = capture.thresholds.many as usize;
    let often = refused.take(many).count() >= many;
    match known {
        Some(other) => {
            let other = capture.cite(other);
            finding.notes.push(format!("the same client completes other connections to that port ({other})"))
        }
        None if finding.variant == 0 => {
            finding.notes.push(
                "no connection of that client to this port is completed: a half-open scan looks like this".into(),
            );
        }
        None => {}
    }
    if finding.variant == 0 && !(often && known.is_some()) {
        finding.severity = Severity::Notice;
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};

    fn refused(after: i64) -> Scene {
        refusing(Scene::new(), after)
    }

    fn refusing(scene: Scene, after: i64) -> Scene {
        let mut scene = scene.syn(0).syn_ack(after).rst(Side::Client, after, ResetKind::Stray, 0);
        let isn = scene.facts.from_client.isn.expect("a SYN");
        let reset = &mut scene.facts.from_client.resets[0];
        (reset.seq, reset.ack) = (isn.plus(1), None);
        scene
    }

    fn judged(scene: &Scene, others: &[Scene]) -> Option<Finding> {
        let finding = scene.check(&RULE)?;
        let world = others.iter().fold(World::new().with(scene), |world, other| world.with_good(other));
        world.corroborated(&RULE, finding)
    }

    #[test]
    fn a_client_that_is_known_and_refuses_is_a_warning() {
        let good = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 90, 5_000).handshake().request(9, "GET", "/", 40);
        let once = judged(&refused(3), std::slice::from_ref(&good)).expect("refused");
        assert_eq!((once.severity, once.variant), (Severity::Notice, 0));
        assert_eq!(once.notes, ["the same client completes other connections to that port (#90)"]);
        let mut world = World::new().with_good(&good);
        for n in 0..3 {
            let mut scene = refusing(Scene::starting("10.0.0.1:40002", "10.0.0.2:443", 100 + n * 10, 100), 3);
            scene.findings.extend(scene.check(&RULE));
            world = world.with(&scene);
        }
        let finding = refused(3).check(&RULE).expect("refused");
        let world = world.with(&refused(3));
        assert_eq!(world.corroborated(&RULE, finding).map(|finding| finding.severity), Some(Severity::Warning));
    }

    #[test]
    fn a_client_that_never_completes_anything_may_be_a_scanner() {
        assert_eq!(judged(&refused(3), &[]).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn an_answer_that_comes_too_late_finds_nobody() {
        let finding = judged(&refused(1_500), &[]).expect("refused");
        assert_eq!((finding.severity, finding.variant), (Severity::Warning, 1));
    }

    #[test]
    fn a_syn_ack_with_another_number_comes_from_elsewhere() {
        let mut scene = refused(3);
        scene.facts.from_client.resets[0].seq = scene.facts.from_client.resets[0].seq.plus(500);
        assert_eq!(judged(&scene, &[]).map(|finding| finding.variant), Some(2));
    }

    #[test]
    fn the_slower_of_two_address_families_is_given_up_on_purpose() {
        let six = refusing(Scene::between("[2001:db8::1]:40000", "[2001:db8::2]:443"), 400);
        let four = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 90, 200).handshake();
        assert_eq!(judged(&six, &[four]), None);
    }

    #[test]
    fn a_check_that_aborts_its_live_socket_is_none() {
        let mut scene = refused(3);
        scene.facts.from_client.resets[0].ack = scene.facts.from_server.next;
        assert_eq!(scene.check(&RULE), None);
    }
}
