//! SYNs are never answered: the address, the path or a firewall swallows them.
//!
//! ## How tcpwhy knows
//! The same SYN was sent at least twice, 0.9 s apart or more, and neither SYN+ACK nor RST nor ICMP came until 3 s after the *first*
//! copy. The times of the copies name the client's kernel: Linux from 6.5 on sends at 0, 1.0, 2.0, 3.1, 4.1, 5.1, 7.1, 11.3, 19.5, 35.6,
//! 68.4 s and fails after 134 s; older ones at 0, 1, 3, 7, 15, 31, 63 s and fail after 127 s; Windows with
//! its older defaults at 0, 3, 9 s, failing after 21 s. A client that stops earlier has a connect timeout of its own, and the first copy that
//! did not come tells between which times it lies.
//!
//! ## What it is not
//! - `connect-refused`: there the host answers with RST.
//! - `icmp-destination-unreachable`, `icmp-admin-prohibited`: there somebody on the path says why.
//! - `return-path-lost`: there the server's SYN+ACK is in the capture.
//!
//! ## What people see
//! `curl: (28) Connection timed out`, `curl: (7)` after 131 to 134 s, nginx's 504 "while connecting to upstream", HAProxy's 503 with
//! `sC`, Apache's `AH00957` with `(110)` or `(70007)`.
//!
//! ## False alarms it avoids
//! One lone SYN (scanners), a capture that ends too early, SYNs to broadcast and multicast addresses. Health checks of a node that is
//! known to be dead look like this too: they are right.

use crate::event::{Kind, PacketRef, Side};
use crate::flow::Ended;
use crate::flow::facts::{FlowFacts, Handshake};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::Address;

pub static RULE: Rule = Rule {
    id: "connect-timeout",
    title: "SYNs are never answered",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Syn, Kind::SynRetransmitted]),
    claims_absence: true,
    says: "{server} never answers {client_host}: {copies} SYNs in {after}, then the client gave up",
    variants: &[
        "{server} never answers {client_host}: {copies} SYNs, still unanswered after {after}",
        "SYNs of {client_host} reach {server}, and nothing leaves on this interface: {copies} in {after}",
    ],
    users_see: &[
        "curl: (28) Connection timed out",
        "Connection timed out",
        "upstream timed out (110: Connection timed out) while connecting to upstream",
        "sC",
        "AH00957",
        "ETIMEDOUT",
    ],
    do_first: &[
        Step {
            says: "On {host}: does port {port} listen, and is its queue full (Recv-Q above Send-Q)?",
            command: "ss -ltn 'sport = :{port}'",
        },
        Step {
            says: "On {host}: by which interface does it answer {client_host}?",
            command: "ip route get {client_host} from {host}",
        },
        Step {
            says: "On {host}: does a growing counter show that the reverse-path filter drops them?",
            command: "nstat -az TcpExtIPReversePathFilter",
        },
    ],
    verify: &[Step {
        says: "from the client's host; prints succeeded once the port answers:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[
        ("connect-refused", "no RST came"),
        ("icmp-destination-unreachable", "no ICMP error quotes these SYNs"),
        ("return-path-lost", "no SYN+ACK is in the capture"),
    ],
    cannot_show: &["which device swallows the SYNs"],
    explains: &[
        Explains("proxy-upstream-connect-failed", Scope::Link),
        // Some give up, and some are there still when the port answers again.
        Explains("connect-slow", Scope::PeerTime),
        Explains("health-check-flapping", Scope::Link),
        Explains("health-check-flapping", Scope::Peer),
        Explains("proxy-no-server-available", Scope::Time),
        Explains("slow-response", Scope::Link),
        Explains("proxy-retries-hide-failure", Scope::Link),
        Explains("proxy-adds-latency", Scope::Link),
        Explains("proxy-adds-latency", Scope::Peer),
    ],
    sources: &["RFC 6298 §5", "Linux tcp_syn_retries, tcp_syn_linear_timeouts (measured on 6.18)", "[S2]", "[S4]"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, thresholds) = (flow.client(), flow.thresholds);
    let (first, last) = (*client.syns.first()?, *client.syns.last()?);
    let silent = flow.facts.handshake == Handshake::Syn && flow.server().packets == 0 && !flow.saw(Kind::Icmp);
    let retried = client.syn_count >= thresholds.syn_copies && last.time.since(first.time) >= thresholds.syn_span;
    let waited = flow.now.since(first.time) >= thresholds.tail;
    if !silent || !retried || !waited || !one_host(flow.facts.server.address) {
        return None;
    }
    let mut finding = RULE.found(flow, first, Side::Client, "SYN");
    for (n, copy) in client.syns.iter().enumerate().skip(1) {
        let after = copy.time.since(first.time);
        finding = finding.and(*copy, Side::Client, format!("SYN, copy {} after {after}", n + 1));
    }
    let tries =
        Tries::of(&client.syns, client.syns.len() as u64 == u64::from(client.syn_count), flow.now.since(first.time));
    let trying = flow.ended == Ended::CaptureEnd && !tries.stopped;
    let after = if trying { flow.now.since(first.time) } else { last.time.since(first.time) };
    finding = finding.with("copies", client.syn_count).with("after", after).note(tries.says(trying));
    if reaches_this_host(flow.facts) {
        let both = "either the answer leaves by another interface, or a local DROP rule or the reverse-path filter \
                    swallows the SYNs: a port without listener would send RST";
        return Some(finding.culprit(Culprit::Server).note(both).variant(2));
    }
    Some(if trying { finding.variant(1) } else { finding })
}

/// Nobody answers a SYN to a group of hosts.
fn one_host(address: Address) -> bool {
    match address.to_ip() {
        std::net::IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => !ip.is_multicast(),
    }
}

/// All SYNs came in on an interface of the capturing host ("to us") and none went out: the host is the one that was asked.
fn reaches_this_host(facts: &FlowFacts) -> bool {
    const IN: u8 = 1;
    let faces = &facts.from_client.faces;
    !faces.is_empty() && faces.iter().all(|face| face.direction == IN)
}

/// Linux from 6.5 on: tcp_syn_linear_timeouts = 4, tcp_syn_retries = 6, in ms (measured).
const LINEAR: [i64; 11] = [0, 1000, 2000, 3100, 4100, 5100, 7100, 11_300, 19_500, 35_600, 68_400];
/// Older Linux and every stack that doubles from 1 s (RFC 6298 §5.5), in ms.
const DOUBLING: [i64; 7] = [0, 1000, 3000, 7000, 15_000, 31_000, 63_000];
/// Windows with its older default of 3 s (RFC 1122 §4.2.3.1), in ms: it gives up when a third copy would be due.
const WINDOWS: [i64; 3] = [0, 3000, 9000];
/// Connect timeouts people set or leave at their default, in s.
const TIMEOUTS: [(i64, &str); 6] = [
    (5, "Envoy connect_timeout 5 s"),
    (10, "MySQL connect_timeout 10 s"),
    (15, "Cloudflare 522 after 15 to 19 s"),
    (30, "Traefik dialTimeout 30 s"),
    (60, "nginx proxy_connect_timeout 60 s or Apache Timeout 60 s"),
    (75, "macOS 75 s"),
];

/// What the times of the copies tell.
struct Tries {
    schedule: &'static str,
    /// The schedule says when the next copy is due.
    known: bool,
    /// The last copy, and when the next one was due.
    last: Elapsed,
    due: Option<Elapsed>,
    /// The next copy was due inside the capture and did not come.
    stopped: bool,
    /// The kernel ran out of retries: no timeout of the application.
    exhausted: bool,
}

impl Tries {
    /// `all`: there were no more than these.
    fn of(syns: &[PacketRef], all: bool, until: Elapsed) -> Self {
        let first = syns.first().map_or_else(Default::default, |syn| syn.time);
        let times: Vec<Elapsed> = syns.iter().map(|syn| syn.time.since(first)).collect();
        let last = times.last().copied().unwrap_or_default();
        let fits = |plan: &[i64]| times.len() <= plan.len() && times.iter().zip(plan).all(|(t, ms)| near(*t, *ms));
        let (schedule, plan): (_, &[i64]) = match (fits(&LINEAR), fits(&DOUBLING)) {
            (true, true) => ("the first retry of every common kernel", &DOUBLING),
            (true, false) => ("the schedule of Linux 6.5 or later", &LINEAR),
            (false, true) => ("the schedule of Linux before 6.5", &DOUBLING),
            (false, false) if fits(&WINDOWS) => ("the schedule of Windows with its older defaults", &[]),
            (false, false) => ("no schedule of Linux", &[]),
        };
        // Whatever the schedule is, a wait is at most twice as long as one before it (RFC 6298 §5.5).
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        let due = match plan {
            [] => longest.filter(|_| all).map(|wait| last + wait + wait),
            plan => plan.get(times.len()).map(|ms| Elapsed::millis(*ms)),
        };
        let exhausted = !plan.is_empty() && due.is_none();
        let stopped = due.is_some_and(|due| until > due + slack(due));
        Self { schedule, known: !plan.is_empty(), last, due, stopped, exhausted }
    }

    fn says(&self, trying: bool) -> String {
        let last = self.last;
        let schedule = self.schedule;
        match self.due {
            _ if self.exhausted => format!("the copies follow {schedule} to its end: the kernel gave up"),
            Some(due) if self.stopped && !self.known => {
                format!("the copies follow {schedule}; none came {due} after the first or later: the client gave up")
            }
            Some(due) if self.stopped => {
                let named = TIMEOUTS.iter().find(|(s, _)| Elapsed::secs(*s) > last && Elapsed::secs(*s) <= due);
                let named = named.map_or_else(String::new, |(_, name)| format!(", for example {name}"));
                format!("the copies follow {schedule}; the application gave up between {last} and {due}{named}")
            }
            _ if trying => format!("the copies follow {schedule}; the client was still trying when the capture ended"),
            _ => format!("the copies follow {schedule}"),
        }
    }
}

/// Within ±3 % or ±0.5 s of a timer.
fn near(time: Elapsed, ms: i64) -> bool {
    let plan = Elapsed::millis(ms);
    (time - plan).abs() <= slack(plan)
}

fn slack(plan: Elapsed) -> Elapsed {
    Elapsed(plan.0 / 100 * 3).max(Elapsed::millis(500))
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let notes = [earlier_answers(flow, capture), other_ports(flow, capture), silent_neighbours(flow, capture)];
    finding.notes.extend(notes.into_iter().flatten());
    Keep::Yes
}

fn earlier_answers(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<String> {
    let last_good = capture.service(&flow.facts.server)?.last_good?;
    let start = flow.facts.start();
    Some(if last_good.time < start {
        let before = start.since(last_good.time);
        format!(
            "the last connection to it that worked is {}, {before} before: it died or was withdrawn",
            capture.cite(last_good)
        )
    } else {
        let after = last_good.time.since(start);
        format!("other connections to it worked meanwhile or later ({}, {after} after)", capture.cite(last_good))
    })
}

fn other_ports(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<String> {
    let end = flow.facts.server;
    let ports: Vec<String> =
        capture.good_ports(end.address, end.port).take(6).map(|(end, _)| end.port.to_string()).collect();
    (!ports.is_empty()).then(|| {
        format!("other ports of this host answer ({}): this one is filtered, or its queue is full", ports.join(", "))
    })
}

/// Other hosts of the same /24 or /64 that do not answer either.
fn silent_neighbours(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<String> {
    let here = flow.facts.server.address;
    let host_bits = if here.is_v4() { 8 } else { 64 };
    let hosts = capture.servers_found_by(RULE.id);
    let from = hosts.partition_point(|there| there.0 >> host_bits < here.0 >> host_bits);
    let there = hosts[from..].iter().take_while(|there| there.0 >> host_bits == here.0 >> host_bits);
    let mut silent = there.filter(|there| **there != here && there.is_v4() == here.is_v4()).peekable();
    let (first, more) = (*silent.peek()?, silent.count());
    let hosts =
        if more == 1 { "another host of that network does" } else { &format!("{more} more hosts of that network do") };
    Some(format!("{hosts} not answer ({first}): look at the path to it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};

    fn syns(times: &[i64]) -> Scene {
        times.iter().fold(Scene::new(), |scene, ms| scene.syn(*ms))
    }

    #[test]
    fn four_syns_without_answer_name_the_new_linux_schedule_and_the_applications_timeout() {
        let finding = syns(&[0, 1010, 2030, 3060]).capture_ends(60_000).check(&RULE).expect("a timeout");
        assert_eq!(finding.evidence.len(), 4);
        assert_eq!(finding.evidence[2].shows, "SYN, copy 3 after 2.0 s");
        assert_eq!(
            finding.notes[0],
            "the copies follow the schedule of Linux 6.5 or later; the application gave up between 3.1 s and 4.1 s"
        );
        assert_eq!(finding.variant, 0);
    }

    #[test]
    fn doubling_copies_name_the_old_schedule() {
        let finding = syns(&[0, 1000, 3000, 7000]).capture_ends(8000).check(&RULE).expect("a timeout");
        let note =
            "the copies follow the schedule of Linux before 6.5; the client was still trying when the capture ended";
        assert_eq!((finding.notes[0].as_str(), finding.variant), (note, 1));
    }

    #[test]
    fn windows_gives_up_when_a_third_copy_would_be_due() {
        let gave_up = syns(&[0, 3000, 9000]).capture_ends(40_000).check(&RULE).expect("a timeout");
        let note = "the copies follow the schedule of Windows with its older defaults; none came 21.0 s after the first or \
                    later: the client gave up";
        assert_eq!((gave_up.notes[0].as_str(), gave_up.variant), (note, 0));
        let trying = syns(&[0, 3000, 9000]).capture_ends(20_000).check(&RULE).expect("a timeout");
        assert_eq!(trying.variant, 1);
    }

    #[test]
    fn a_retry_in_the_last_packet_does_not_restart_the_wait() {
        assert!(syns(&[0, 1000, 2000, 3100]).capture_ends(3100).check(&RULE).is_some());
    }

    #[test]
    fn a_capture_of_two_seconds_proves_no_silence() {
        assert_eq!(syns(&[0, 1000, 2000]).capture_ends(2900).check(&RULE), None);
    }

    #[test]
    fn one_syn_is_a_scan_or_a_client_in_a_hurry() {
        assert_eq!(syns(&[0]).capture_ends(60_000).check(&RULE), None);
    }

    #[test]
    fn an_answer_of_any_kind_ends_the_wait() {
        let refused = syns(&[0, 1000]).rst(Side::Server, 1001, ResetKind::Refused, 0).capture_ends(9000);
        assert_eq!(refused.check(&RULE), None);
        assert_eq!(syns(&[0, 1000]).syn_ack(1001).capture_ends(9000).check(&RULE), None);
    }

    #[test]
    fn syns_to_a_group_of_hosts_are_not_counted() {
        let scene = Scene::between("10.0.0.1:40000", "224.0.0.5:443").syn(0).syn(1000).capture_ends(9000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn an_address_that_answered_before_is_said_to_have_died() {
        let before = Scene::starting("10.0.0.1:39000", "10.0.0.2:443", 1, 0).handshake().data(Side::Server, 5, 10);
        let scene = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 9, 60_000).syn(0).syn(1000).capture_ends(9000);
        let finding = scene.check(&RULE).expect("a timeout");
        let finding = World::new().with_good(&before).with(&scene).corroborated(&RULE, finding).expect("it stays");
        assert_eq!(
            finding.notes[1],
            "the last connection to it that worked is #1, 60.0 s before: it died or was withdrawn"
        );
    }
}
