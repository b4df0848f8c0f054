//! The server's kernel answered the SYN with RST: nothing listens on that port.
//!
//! ## How tcpwhy knows
//! A SYN was answered by RST+ACK whose acknowledgment number is the SYN's sequence number + 1 (RFC 9293 §3.10.7.1). One is enough: no live
//! connection sends such a packet. That the connection was *refused* is certain; that *nothing listens* is the most common reason, and a
//! firewall that rejects with a TCP reset looks the same. A TTL unlike that of the host's other packets points to a firewall.
//!
//! ## What it is not
//! - `icmp-port-unreachable`: there a firewall says so by ICMP, with no RST.
//! - A load balancer without healthy targets (IPVS, NLB) refuses in the same form: compare the address with your list of balancers.
//!
//! ## What people see
//! `curl: (7) Failed to connect … Connection refused`, `connect() failed (111: Connection refused)` in nginx's error log, HAProxy's
//! termination state `SC`, Apache's `AH00957` with `(111)`.
//!
//! ## False alarms it avoids
//! A refusal followed by a success to the same port within 5 s is a restart window (notice); so is one after which the client, a proxy
//! with another backend, was served by another server at once, when the port works again within 30 s: nobody noticed. A client that tries
//! IPv6 and IPv4 side by side and gets through on the other one is served: that refusal is silent. A source that tries at least four ports
//! of a working host, each once and none of them ever served, probes (notice): programs that need a service try again. A RST
//! after which the same SYN is accepted was forged on the way.

use crate::event::{Kind, ResetKind, Side, What};
use crate::flow::facts::FlowFacts;
use crate::host::service::Service;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::{Digest, Verdict};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A service that answers again after this long was restarted.
const RESTART: Elapsed = Elapsed::secs(5);
/// … and after this long, when its clients were served elsewhere meanwhile.
const REDEPLOY: Elapsed = Elapsed::secs(30);
/// A proxy asks the next backend within this time (measured: HAProxy's redispatch and nginx's next upstream take 20 µs).
const AT_ONCE: Elapsed = Elapsed::millis(50);
/// Ports, each tried once, that make a probe (of 20 and more `port-scan` speaks) …
const PROBED: std::ops::Range<usize> = 4..20;
/// … within this time.
const PROBE: Elapsed = Elapsed::secs(60);
/// Both families are tried within this time (RFC 8305 §5: 250 ms apart).
const SIDE_BY_SIDE: Elapsed = Elapsed::millis(300);
/// Ports named in the hint.
const PORTS: usize = 6;

pub static RULE: Rule = Rule {
    id: "connect-refused",
    title: "nothing listens on that port",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Syn, Kind::Reset]),
    says: "{server} refuses connections: its kernel answered the SYN with RST after {after}",
    users_see: &[
        "curl: (7) Failed to connect",
        "Connection refused",
        "connect() failed (111: Connection refused)",
        "ECONNREFUSED",
        "AH00957",
        "SC",
    ],
    do_first: &[Step {
        says: "Does anything listen on port {port} of {host}, and on that address?",
        command: "ss -ltnp 'sport = :{port}'",
    }],
    verify: &[Step {
        says: "from the client's host; prints succeeded once the port is open:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[
        ("connect-timeout", "an answer came, in the first round trip"),
        ("icmp-port-unreachable", "the refusal is a RST, no ICMP"),
    ],
    cannot_show: &["whether nothing listens, a firewall rejects with a TCP reset, or a balancer has no healthy target"],
    explains: &[
        Explains("proxy-upstream-connect-failed", Scope::Link),
        Explains("health-check-flapping", Scope::Link),
        Explains("health-check-flapping", Scope::Peer),
        Explains("proxy-no-server-available", Scope::Time),
    ],
    sources: &["RFC 9293 §3.10.7.1", "RFC 8305 §5"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::Accepted,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let reset = flow.story.events().find(|e| matches!(e.what, What::Reset { kind: ResetKind::Refused, .. }))?;
    // The kernel that refuses a SYN forgets it: who opens the connection afterwards did not send that RST.
    if flow.facts.established.is_some_and(|open| open > reset.at) {
        return None;
    }
    let syn = *flow.client().syns.iter().rev().find(|syn| **syn < reset.at).or(flow.client().syns.first())?;
    Some(
        RULE.found(flow, reset.at, Side::Server, "RST+ACK that acknowledges the SYN: refused")
            .and(syn, Side::Client, "SYN")
            .with("after", reset.at.time.since(syn.time)),
    )
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let facts = &flow.facts;
    if let Some(why) = tried_on_the_off_chance(capture, facts) {
        finding.severity = Severity::Notice;
        finding.notes.push(why.to_owned());
    } else if let Some(winner) = other_family(capture, facts) {
        finding.severity = Severity::Silent;
        finding.notes.push(format!("the client got through on the other address family ({})", winner.server()));
    } else if let Some(again) = soon_good(capture, facts) {
        finding.severity = Severity::Notice;
        let gap = again.id.time.since(facts.start());
        finding.notes.push(format!("a connection to the same port worked {gap} later: a restart window"));
    } else if let Some((other, again)) = taken_over(capture, facts) {
        finding.severity = Severity::Notice;
        let gap = again.id.time.since(facts.start());
        finding
            .notes
            .push(format!("{other} answered instead at once, and the port worked again {gap} later: a restart"));
    } else if let Some(ports) = probed(capture, facts) {
        finding.severity = Severity::Notice;
        finding.notes.push(format!(
            "{} tried {ports} ports of this host once each, none of which served anybody: a probe",
            facts.client.address
        ));
    }
    if let Some(ports) = answering_ports(capture, facts) {
        finding.notes.push(format!("other ports of this host answer: {ports}"));
    }
    if let Some(note) = foreign_ttl(capture, facts) {
        finding.notes.push(note);
    }
    Keep::Yes
}

/// Ports that are tried although hardly anybody serves them: who is refused goes on without.
fn tried_on_the_off_chance(capture: &CaptureView<'_>, facts: &FlowFacts) -> Option<&'static str> {
    const IDENT: u16 = 113;
    const DNS_OVER_TLS: u16 = 853;
    let answers =
        |port| capture.service(&Endpoint::new(facts.server.address, port)).is_some_and(|known| known.good > 0);
    match facts.server.port {
        IDENT => Some("servers of mail and chat ask who their caller is (ident), and go on without an answer"),
        DNS_OVER_TLS if answers(53) => Some("a resolver that is tried with TLS first answers on port 53"),
        _ => None,
    }
}

/// A connection that worked on the same port of the other address family, begun side by side with this one.
pub(in crate::catalogue) fn other_family<'a>(capture: &'a CaptureView<'_>, facts: &FlowFacts) -> Option<&'a Digest> {
    let start = facts.start();
    capture.began(start - SIDE_BY_SIDE, start + SIDE_BY_SIDE).find(|other| {
        other.server().port == facts.server.port
            && other.server().address.is_v4() != facts.server.address.is_v4()
            && other.client().address.is_v4() != facts.client.address.is_v4()
            && (other.accepted || other.answered)
    })
}

/// A later connection to the same port that worked before a restart's usual time was over.
fn soon_good<'a>(capture: &'a CaptureView<'_>, facts: &FlowFacts) -> Option<&'a Digest> {
    let start = facts.start();
    capture
        .began_to(&facts.server, start, start + RESTART)
        .find(|other| other.answered && other.verdict == Verdict::Healthy)
}

/// The server that answered the same client at once instead, and the first connection to the refusing port that worked again.
fn taken_over<'a>(capture: &'a CaptureView<'_>, facts: &FlowFacts) -> Option<(Endpoint, &'a Digest)> {
    let start = facts.start();
    let good = |other: &&Digest| other.answered && other.verdict == Verdict::Healthy;
    let again = capture.began_to(&facts.server, start, start + REDEPLOY).find(good)?;
    let instead = capture.began(start, start + AT_ONCE).filter(good).find(|other| {
        other.client().address == facts.client.address
            && other.server() != facts.server
            && other.protocol == again.protocol
    })?;
    Some((instead.server(), again))
}

/// How many ports of the host this client tried once each, when none of them ever worked but others of the host do.
fn probed(capture: &CaptureView<'_>, facts: &FlowFacts) -> Option<usize> {
    let client = facts.client.address;
    let once = |service: &Service| service.flows == 1 && service.good == 0 && service.clients.contains_key(&client);
    if !capture.service(&facts.server).is_some_and(once) || capture.good_ports(facts.server.address, 0).next().is_none()
    {
        return None;
    }
    let near = |service: &Service| service.last.is_some_and(|at| at.since(facts.start()).abs() <= PROBE);
    let ports = capture.services.of_host(facts.server.address).filter(|(_, service)| once(service) && near(service));
    let count = ports.count();
    PROBED.contains(&count).then_some(count)
}

fn answering_ports(capture: &CaptureView<'_>, facts: &FlowFacts) -> Option<String> {
    let ports: Vec<String> = capture
        .good_ports(facts.server.address, facts.server.port)
        .take(PORTS)
        .map(|(end, _)| end.port.to_string())
        .collect();
    (!ports.is_empty()).then(|| ports.join(", "))
}

/// The RST's TTL differs from that of every other packet of the host that is kept: somebody in between sent it.
fn foreign_ttl(capture: &CaptureView<'_>, facts: &FlowFacts) -> Option<String> {
    let ttl = facts.from_server.resets.first()?.ttl;
    let mut others = capture
        .flows_to_host(facts.server.address)
        .filter(|flow| flow.facts.from_server.syn_count > 0)
        .map(|flow| flow.facts.from_server.ttl.0)
        .peekable();
    let known = *others.peek()?;
    (!others.any(|other| other == ttl)).then(|| {
        format!("the RST's TTL is {ttl}, the host's other packets have {known}: a firewall in between may send it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::{Scene, World};

    fn refused() -> Scene {
        Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 10, 0).syn(0).rst(Side::Server, 2, ResetKind::Refused, 0)
    }

    fn looked_at_again(world: World) -> Finding {
        let scene = refused();
        let finding = scene.check(&RULE).expect("a refusal");
        world.with(&scene).corroborated(&RULE, finding).expect("it stays")
    }

    fn good(client: &str, server: &str, start: i64) -> Scene {
        Scene::starting(client, server, 100, start)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
            .speaks(Side::Server, Protocol::Http)
    }

    #[test]
    fn ports_that_are_tried_on_the_off_chance_are_notices() {
        let refused = |server: &str| {
            let mut scene = Scene::starting("10.0.0.1:40000", server, 10, 0).syn(0);
            scene = scene.rst(Side::Server, 1, ResetKind::Refused, 0);
            let found = scene.check(&RULE).expect("refused");
            let resolver = Scene::starting("10.0.0.1:41000", "10.0.0.2:53", 900, 100).handshake();
            let resolver = resolver.request(3, "GET", "/", 40).response(4, 200, 90);
            let world = World::new().with(&scene).with_good(&resolver);
            world.corroborated(&RULE, found).map(|finding| finding.severity)
        };
        assert_eq!(
            (refused("10.0.0.2:113"), refused("10.0.0.2:853")),
            (Some(Severity::Notice), Some(Severity::Notice))
        );
        assert_eq!(
            (refused("10.0.0.2:25"), refused("10.0.0.3:853")),
            (Some(Severity::Critical), Some(Severity::Critical))
        );
    }

    #[test]
    fn a_reset_that_acknowledges_the_syn_is_a_refusal() {
        let finding = refused().check(&RULE).expect("a refusal");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (11, 10));
        assert_eq!(finding.values.get("after"), Some(&Elapsed::millis(2).into()));
    }

    #[test]
    fn a_reset_of_an_open_connection_is_no_refusal() {
        assert_eq!(Scene::open().rst(Side::Server, 5, ResetKind::Abort, 0).check(&RULE), None);
    }

    #[test]
    fn a_refusal_after_which_the_same_syn_is_accepted_was_forged() {
        let scene = Scene::new().syn(0).rst(Side::Server, 26, ResetKind::Refused, 0).syn_ack(28).established(29);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_success_two_seconds_later_makes_it_a_restart_window() {
        let finding = looked_at_again(World::new().with_good(&good("10.0.0.1:40001", "10.0.0.2:443", 2000)));
        assert_eq!(finding.severity, Severity::Notice);
    }

    #[test]
    fn a_success_an_hour_later_does_not_excuse_the_refusal() {
        let finding = looked_at_again(World::new().with_good(&good("10.0.0.1:40001", "10.0.0.2:443", 3_600_000)));
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn a_proxy_served_by_another_backend_at_once_sees_a_restart() {
        let instead = good("10.0.0.1:40001", "10.0.0.3:80", 3);
        let again = good("10.0.0.1:40002", "10.0.0.2:443", 11_000);
        let finding = looked_at_again(World::new().with_good(&instead).with_good(&again));
        assert_eq!(finding.severity, Severity::Notice);
        assert!(finding.notes[0].starts_with("10.0.0.3:80 answered instead"), "{:?}", finding.notes);
    }

    #[test]
    fn a_backend_that_stays_down_is_no_restart_though_another_one_answers() {
        let finding = looked_at_again(World::new().with_good(&good("10.0.0.1:40001", "10.0.0.3:80", 3)));
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn another_clients_success_does_not_stand_for_the_refused_one() {
        let instead = good("10.0.0.9:40001", "10.0.0.3:80", 3);
        let again = good("10.0.0.1:40002", "10.0.0.2:443", 11_000);
        assert_eq!(looked_at_again(World::new().with_good(&instead).with_good(&again)).severity, Severity::Critical);
    }

    fn probes(ports: &[u16]) -> World {
        let mut world = World::new().with_good(&good("10.0.0.8:40001", "10.0.0.2:80", 20));
        for (n, port) in ports.iter().enumerate() {
            let server = format!("10.0.0.2:{port}");
            let probe = Scene::starting("10.0.0.1:40010", &server, 200 + 10 * n as u64, 30 + n as i64).syn(0);
            world = world.with(&probe);
        }
        world
    }

    #[test]
    fn one_try_at_each_of_four_ports_that_serve_nobody_is_a_probe() {
        assert_eq!(looked_at_again(probes(&[23, 445, 5900])).severity, Severity::Notice);
    }

    #[test]
    fn three_ports_or_a_second_try_are_no_probe() {
        assert_eq!(looked_at_again(probes(&[23, 445])).severity, Severity::Critical);
        assert_eq!(looked_at_again(probes(&[443, 23, 445, 5900])).severity, Severity::Critical);
    }

    #[test]
    fn the_losing_family_of_a_client_that_got_through_is_silent() {
        let winner = good("[2001:db8::1]:40001", "[2001:db8::2]:443", 100);
        assert_eq!(looked_at_again(World::new().with_good(&winner)).severity, Severity::Silent);
    }

    #[test]
    fn other_ports_of_the_host_that_answer_are_named() {
        let finding = looked_at_again(World::new().with_good(&good("10.0.0.1:40001", "10.0.0.2:80", 2000)));
        assert_eq!(finding.notes, ["other ports of this host answer: 80"]);
    }

    #[test]
    fn a_reset_from_nearer_than_the_host_points_to_a_firewall() {
        let mut other = Scene::starting("10.0.0.1:40001", "10.0.0.2:80", 100, 50).handshake();
        other.facts.from_server.ttl = (57, 57, 57);
        let finding = looked_at_again(World::new().with(&other));
        assert!(finding.notes[0].starts_with("the RST's TTL is 64, the host's other packets have 57"));
    }
}
