//! The server accepted the request and never answered: its kernel acknowledged it, its program says nothing.
//!
//! ## How tcpwhy knows
//! The request is complete by its framing (or it is a command of Redis that is answered at once, as GET and SET are; or the first application
//! data of a TLS connection), the server acknowledged every octet
//! of it, and then not one octet of an answer came for 10 s: up to the end of the capture, until somebody closed, or until it came after
//! all. A client that gives up earlier counts if it waited for at least 1 s and 20 round trips; whether an answer would have come cannot
//! be known then. From 60 s on it is critical (the read timeout of nginx, Apache and ALB), and also when three requests to one server
//! hang at once.
//!
//! From the client's side a path that swallows packets of full size (`pmtu-blackhole`) looks the same: the small ACK comes, the large answer
//! does not. Where a later packet of the server says by its number that octets were sent which never came, it is not this rule. Where nothing says so, and
//! no large packet of that server came to anybody in the capture, a note says that it may be, and what to run on the server.
//!
//! ## What it is not
//! - Loss or a firewall: there the request is not acknowledged (`rto-unrecovered`).
//! - `pmtu-blackhole`: there the server answered, and its later numbers say so.
//! - `client-abandoned`: that is what the client does about it.
//! - `zero-window`: there somebody does not read.
//! - `response-stalled`: there the answer had begun.
//!
//! ## What people see
//! `ESTABLISHED` for ever in netstat, busy workers, memory and swap that fill up, "upstream timed out (110: Connection timed out) while
//! reading response header from upstream", `sH` in HAProxy's log.
//!
//! ## False alarms it avoids
//! Long polls (a route that answers late again and again, or says so in its name), event streams, upgraded connections, HTTP/2, protocols
//! in which nobody owes an answer, commands of Redis that wait on purpose (BLPOP, XREAD, SUBSCRIBE) or run a script, answers that the snaplen hid, a capture that ends too early. A request that was answered after all is no
//! critical finding.

use crate::event::{Kind, PacketRef, Protocol, Side};
use crate::flow::facts::Vantage;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

use super::group::Group;
use super::poll;
use crate::catalogue::http::http_server_error::plain;

pub static RULE: Rule = Rule {
    id: "upstream-hang",
    title: "the server accepted the request and never answered",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::FirstPayload, Kind::FirstPayloadAcknowledged]).and_any(&[
        Kind::Request,
        Kind::TlsData,
        Kind::CommandWaits,
    ]),
    claims_absence: true,
    says: "{server} took the request of {client_host} and gave no answer for {wait}",
    variants: &[
        "{count} requests to {server} were received and never answered{timeout}",
        "{server} answered {client_host} only after {wait}",
    ],
    users_see: &[
        "upstream timed out (110: Connection timed out) while reading response header from upstream",
        "sH",
        "504 Gateway Time-out",
        "curl: (28) Operation timed out",
        "ESTABLISHED for ever in netstat; all workers are busy",
    ],
    do_first: &[
        Step {
            says: "On {client_host}: how many wait now? A line without \"timer:\" has no keep-alive and waits for ever:",
            command: "ss -tno state established dst '{host_bracketed}:{port}'",
        },
        Step {
            says: "On {client_host}: does one request alone get an answer?",
            command: "curl -sS -o /dev/null -m 9 -w '%{response_code} %{time_total}\\n' http://{host}:{port}{path}",
        },
        Step {
            says: "On {host}, while a request waits: does an answer leave to its port of {client_host}? If it does, the path swallows it, and the program is well:",
            command: "timeout 60 tcpdump -c 9 -ni any 'tcp src port {port} and dst host {client_host} and greater 200'",
        },
        Step {
            says: "On {host}: does a full packet reach {client_host}? It should (not every host answers ping; compare with -s 1200):",
            command: "ping -M do -s 1472 -c 3 {client_host}",
        },
    ],
    fix: &[
        Fix {
            says: "Give the caller a total timeout (PHP and curl: CURLOPT_TIMEOUT, whose default 0 means for ever; CURLOPT_CONNECTTIMEOUT does not help once connected)",
            command: "",
            risk: "requests that really take long fail then",
        },
        Fix {
            says: "End the requests that wait now",
            command: "ss -K dst '{host_bracketed}:{port}'",
            risk: "every connection to that port is cut, also those that work",
        },
    ],
    verify: &[Step {
        says: "six at once, from {client_host}; a 000 is a hang:",
        command: "seq 6 | xargs -P6 -I@ curl -so /dev/null -m9 -w '%{http_code}\\n' http://{host}:{port}{path}",
    }],
    not: &[("rto-unrecovered", "the request is acknowledged: the way there and the kernel work")],
    cannot_show: &["whether the server's program is silent, or the path loses its answer (see CHECK)"],
    explains: &[
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("client-abandoned", Scope::PeerTime),
        Explains("connection-pileup", Scope::Peer),
        Explains("accept-queue-overflow", Scope::Peer),
        Explains("slow-response", Scope::Peer),
        Explains("upstream-hang", Scope::Link),
        Explains("closed-without-answer", Scope::Link),
        Explains("proxy-upstream-timeout", Scope::SameOrLink),
        Explains("h2-stream-reset", Scope::SameOrLink),
        Explains("h2-stream-reset", Scope::PeerTime),
        Explains("pool-saturated", Scope::Peer),
        Explains("http-upstream-closed-before-response", Scope::Link),
        Explains("service-restart", Scope::Peer),
    ],
    sources: &["a PHP site in 2012: 111 CRL fetches without a timeout", "RFC 9293 §3.10.7.4", "RFC 9112 §9.5"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    spoke_late: Some(spoke_late),
    ..Rule::BLANK
};

/// Ports on which TLS carries HTTP, when no ALPN says so.
const HTTPS: [u16; 2] = [443, 8443];

/// Other connections to the server that are looked at for late answers.
const OTHERS: usize = 256;

/// Variant of a group's headline, and of an answer that came late.
const MANY: u8 = 1;
const LATE: u8 = 2;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let pending = flow.pending().filter(|pending| pending.begun.is_none())?;
    let asked = pending.asked;
    let exchange = flow.exchange();
    if !pending.proven && !https(flow, asked) || exchange.is_some_and(|exchange| exchange.is_push()) {
        return None;
    }
    let (client, server) = (flow.client(), flow.server());
    // Octets came, readable or not (the snaplen may have hidden the head): that is an answer, unless they are the tickets that a server of
    // TLS 1.3 sends when it has the client's Finished, which the request follows at once.
    let tickets = flow.first(Kind::TlsTickets, Side::Server).map(|event| event.at);
    if server.last_payload.is_some_and(|last| last > tickets.map_or(asked, |tickets| tickets.max(asked))) {
        return None;
    }
    // Its later numbers say that it did answer: the path lost it.
    if server.never_came() > 0 {
        return None;
    }
    let delivered = client.acknowledged > 0 && client.unacknowledged.is_none_or(|waits| waits.len == 0);
    let open = |closed: &crate::flow::facts::ZeroWindow| closed.until.is_none_or(|until| until > asked);
    if !delivered || client.zero_windows.iter().chain(&server.zero_windows).any(open) {
        return None;
    }
    let wait = flow.waited_since(asked);
    let gave_up = patience::client_gave_up(flow, asked, wait).is_some();
    if poll::on_purpose(flow.story, wait, std::iter::empty()) || wait < flow.thresholds.hang && !gave_up {
        return None;
    }
    let critical = wait >= flow.thresholds.hang_critical;
    let sure = pending.proven && wait >= flow.thresholds.hang;
    let path =
        exchange.filter(|exchange| exchange.head.method.as_str() == "GET").map_or("/", |one| plain(&one.head.target));
    let words = match (exchange, flow.command()) {
        (Some(exchange), _) => format!("{} {}: the request is complete", exchange.head.method, exchange.head.target),
        (None, Some((_, command))) => format!("{command}: a command that is answered at once"),
        (None, None) => "the first request inside TLS".to_owned(),
    };
    let mut finding = RULE
        .found(flow, asked, Side::Client, words)
        .and_maybe(
            acknowledged(flow, asked),
            Side::Server,
            "its ACK: the server's kernel has the request, then silence",
        )
        .severity(if critical { Severity::Critical } else { Severity::Warning })
        .confidence(if sure { Confidence::High } else { Confidence::Medium })
        .with("wait", wait)
        .with("path", path.to_owned())
        .with("timeout", Value::Text(String::new()))
        .with("host_bracketed", Value::Text(bracketed(flow)));
    if flow.facts.closer.is_none() {
        finding = finding.with("until", flow.now);
    }
    if let Some((side, close)) = flow.facts.closer {
        let who = if side == Side::Client { "the client gives up" } else { "the server closes without an answer" };
        finding = finding.and(close, side, format!("{} {wait} after the request: {who}", flow.close_word(side)));
    }
    Some(if gave_up && wait < flow.thresholds.hang { patience::early(finding, wait, "an answer") } else { finding })
}

/// The first application data of a connection that carries HTTP inside TLS; the client must not have gone on talking.
fn https(flow: &FlowView<'_>, asked: PacketRef) -> bool {
    let alpn = flow.client_hello().is_some_and(|(_, hello)| hello.alpn.iter().any(|name| name.starts_with("http/1")));
    let one_turn = flow.client().last_payload.is_some_and(|last| last.time.since(asked.time) < flow.thresholds.gave_up);
    let http = alpn || HTTPS.contains(&flow.facts.server.port);
    flow.protocol(Side::Client) == Some(Protocol::Tls) && http && one_turn
}

/// The packet of the server that acknowledged the request.
fn acknowledged(flow: &FlowView<'_>, asked: PacketRef) -> Option<PacketRef> {
    let first = flow.client().first_payload_acked.filter(|ack| *ack > asked);
    let silent_since = flow.facts.closer.map(|(_, close)| close);
    first.or(flow.server().last.filter(|last| *last > asked && silent_since.is_none_or(|close| *last < close)))
}

/// An IPv6 address stands in brackets where a port follows it.
fn bracketed(flow: &FlowView<'_>) -> String {
    let host = flow.facts.server.address;
    if host.is_v4() { host.to_string() } else { format!("[{host}]") }
}

/// The answer came after all: no outage that goes on.
fn spoke_late(finding: Finding, at: PacketRef) -> Finding {
    patience::came_late(finding, at, "the first octets of the answer", "the request", LATE)
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    // Judged while it was open, and afterwards the server's numbers said that it had answered.
    if flow.facts.from_server.never_came() > 0 {
        return Keep::Drop;
    }
    let others = || capture.flows_to(&flow.facts.server).take(OTHERS).map(|other| &other.story);
    if finding.variant == LATE {
        // A route that is answered late again and again waits on purpose.
        let path = poll::latest_path(&flow.story).unwrap_or_default();
        let late: usize = others().map(|story| poll::late_answers(story, path)).sum();
        return if late > 1 { Keep::Drop } else { Keep::Yes };
    }
    let wait = match finding.values.get("wait") {
        Some(Value::Elapsed(wait)) => *wait,
        _ => Elapsed::ZERO,
    };
    if poll::on_purpose(&flow.story, wait, others()) {
        return Keep::Drop;
    }
    if may_be_the_path(flow, capture) {
        finding.notes.push(PATH.into());
    }
    let Some(group) = Group::led_by(flow, capture) else { return Keep::Yes };
    if group.most_at_once() >= capture.thresholds.many as usize {
        finding.severity = Severity::Critical;
    }
    group.tell(finding, capture);
    if group.len() > 1 {
        finding.variant = MANY;
    }
    Keep::Yes
}

/// What no capture at this end rules out.
const PATH: &str = "no large packet of that server is in the capture: a path that swallows them (a smaller MTU, no ICMP) looks the same from here";

/// So many octets at once need a packet of full size.
const LARGE: u64 = 1400;

/// Nothing in the capture shows that large packets of that host arrive here.
fn may_be_the_path(flow: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let large = |other: &FlowSummary| other.facts.from_server.payload >= LARGE;
    let at_the_server = flow.facts.vantage == Vantage::NearServer;
    !at_the_server && !large(flow) && !capture.flows_to(&flow.facts.server).take(OTHERS).any(large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    fn asked() -> Scene {
        Scene::open().request(3, "GET", "/ca.crl", 60).acked(Side::Client, 4)
    }

    #[test]
    fn an_acknowledged_request_without_an_answer_for_a_minute_is_critical() {
        let finding = asked().capture_ends(61_003).check(&RULE).expect("hangs");
        assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::High));
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (4, 5));
        assert_eq!(asked().capture_ends(12_003).check(&RULE).expect("hangs").severity, Severity::Warning);
    }

    #[test]
    fn a_capture_that_ends_early_proves_no_silence() {
        assert_eq!(asked().capture_ends(9_000).check(&RULE), None);
    }

    #[test]
    fn a_client_that_gives_up_after_two_seconds_is_told_with_its_doubt() {
        let finding = asked().fin(Side::Client, 2_003).check(&RULE).expect("given up");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Medium));
        assert_eq!(
            finding.notes,
            ["the client gave up after 2.0 s; whether an answer would have come cannot be known"]
        );
        assert_eq!(asked().fin(Side::Client, 800).check(&RULE), None);
    }

    #[test]
    fn a_command_of_redis_that_is_answered_at_once_hangs_as_a_request_does() {
        let asked = || {
            let scene = Scene::open().data(Side::Client, 3, 30).speaks(Side::Client, Protocol::Redis);
            scene.also(Side::Client, What::CommandWaits { command: "GET".into() }).acked(Side::Client, 4)
        };
        let finding = asked().capture_ends(12_003).check(&RULE).expect("hangs");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::High));
        assert_eq!(finding.evidence[0].shows, "GET: a command that is answered at once");
        assert!(asked().fin(Side::Client, 2_003).check(&RULE).is_some());
        assert_eq!(asked().data(Side::Server, 40, 5).capture_ends(12_003).check(&RULE), None);
    }

    #[test]
    fn a_request_that_nobody_acknowledged_is_the_business_of_the_loss_rules() {
        let scene = Scene::open().request(3, "GET", "/", 60).again(Side::Client, 203).capture_ends(70_000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn an_answer_that_began_is_no_hang() {
        assert_eq!(asked().response(40, 200, 90).capture_ends(70_000).check(&RULE), None);
    }

    #[test]
    fn routes_that_wait_on_purpose_do_not_hang() {
        let poll = |target| Scene::open().request(3, "GET", target, 60).acked(Side::Client, 4).capture_ends(50_000);
        assert_eq!(poll("/api/longpoll?since=7").check(&RULE), None);
        assert_eq!(poll("/v1/kv/leader?index=9&wait=5m").check(&RULE), None);
        let late = Scene::open()
            .request(3, "GET", "/next", 60)
            .acked(Side::Client, 4)
            .response(25_000, 200, 90)
            .also(Side::Server, What::ResponseEnd)
            .request(25_100, "GET", "/next", 60)
            .acked(Side::Client, 25_101);
        assert_eq!(late.capture_ends(50_000).check(&RULE), None, "it answered late before");
    }

    #[test]
    fn a_server_whose_numbers_say_that_it_answered_does_not_hang() {
        let mut scene = asked().fin(Side::Client, 20_003).acked(Side::Client, 20_004);
        assert!(scene.check(&RULE).is_some());
        let server = &mut scene.facts.from_server;
        server.next = server.next.map(|next| next.plus(15_928));
        assert_eq!(scene.check(&RULE), None, "the path lost the answer");
    }

    #[test]
    fn a_path_that_swallows_large_packets_is_named_as_a_possibility_until_one_came() {
        let mut hung = asked().capture_ends(61_003);
        hung.findings.extend(hung.check(&RULE));
        let notes = |world: &World| {
            let finding = world.flows.values().find_map(|flow| flow.findings.first().cloned()).expect("hangs");
            world.corroborated(&RULE, finding).expect("stays").notes
        };
        assert_eq!(notes(&World::new().with(&hung)), [PATH]);
        let large = Scene::starting("10.0.0.9:40000", "10.0.0.2:443", 50, 100)
            .handshake()
            .request(3, "GET", "/", 60)
            .acked(Side::Client, 4)
            .response(5, 200, 5000);
        assert!(notes(&World::new().with(&hung).with(&large)).is_empty());
    }

    #[test]
    fn octets_of_an_unknown_protocol_may_want_no_answer() {
        let scene = Scene::open().data(Side::Client, 3, 60).acked(Side::Client, 4).capture_ends(90_000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_closed_window_is_another_fault() {
        let scene = asked().zero_window(Side::Client, 100).capture_ends(70_000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn an_answer_that_comes_after_all_takes_the_alarm_back() {
        let finding = asked().capture_ends(61_003).check(&RULE).expect("hangs");
        let answer = PacketRef { file: 0, number: 9, time: finding.first().time + Elapsed::secs(70) };
        let late = spoke_late(finding, answer);
        assert_eq!((late.severity, late.variant), (Severity::Warning, LATE));
        assert_eq!(late.values.get("wait"), Some(&Value::Elapsed(Elapsed::secs(70))));
    }

    #[test]
    fn three_at_once_are_critical_and_say_how_many_wait() {
        let mut world = World::new();
        for n in 0..3u64 {
            let client = format!("10.0.0.1:4000{n}");
            let mut scene = Scene::starting(&client, "10.0.0.2:80", 10 * (n + 1), n as i64 * 300)
                .handshake()
                .request(3, "GET", "/ca.crl", 60)
                .acked(Side::Client, 4)
                .fin(Side::Client, 20_003);
            scene.findings.extend(scene.check(&RULE));
            world = world.with(&scene);
        }
        let findings: Vec<Finding> = world.flows.values().flat_map(|flow| flow.findings.clone()).collect();
        let told: Vec<Finding> = findings.into_iter().filter_map(|f| world.corroborated(&RULE, f)).collect();
        assert_eq!((told[0].severity, told[0].variant), (Severity::Critical, MANY));
        assert_eq!(told[0].values.get("count"), Some(&3u64.into()));
        assert!(told[0].notes.iter().any(|note| note.contains("total timeout")), "{:?}", told[0].notes);
        assert_eq!((told[1].severity, told[1].variant), (Severity::Warning, 0));
    }
}
