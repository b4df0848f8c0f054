//! A side closed an idle connection on its timer: nothing was outstanding, and the pause fits a known setting.
//!
//! ## How tcpwhy knows
//! A FIN came after a pause in which nobody sent an octet. Nothing was asked and unanswered before it. The pause fits the default of a
//! known idle or keep-alive timeout within 3 % or 0.5 s. Two and more WebSockets that the server's side closes after the same pause are a
//! notice: they were meant to stay.
//!
//! ## What it is not
//! - `closed-without-answer`: there a request was outstanding.
//! - `http-keepalive-race`: there a request meets this close on the way.
//!
//! ## What people see
//! Nothing, unless a request meets the close on the way. A page whose WebSocket ends shows code 1006 and connects again.
//!
//! ## False alarms it avoids
//! WebSockets that say goodbye (a Close frame right before the FIN is no silence), that the client closes, or that end after pauses of
//! different lengths. Connections of other kinds are silent and never an incident. It tells which timer runs at which end, for the rules
//! about races and expired state.

use crate::event::{Kind, KindSet, PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "idle-timeout-close",
    title: "a side closed an idle connection on its timer",
    severity: Severity::Silent,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Fin]),
    says: "{closer} closed the idle connection after {pause}",
    variants: &["{closer} closed {sockets} WebSockets after {pause} in which neither side spoke: an idle timeout"],
    users_see: &["WebSocket connection closed: 1006"],
    do_first: &[Step {
        says: "On {closer_host}: which idle timeouts are set?",
        command: "sudo grep -rnE 'proxy_read_timeout|proxy_send_timeout|timeout (tunnel|client|server)|ProxyTimeout' /etc/nginx /etc/haproxy /etc/apache2",
    }],
    not: &[("closed-without-answer", "nothing was outstanding")],
    cannot_show: &["which setting it is, when several have the same default"],
    sources: &["defaults of the vendors' documents, read 2026-11-21; Apache and Node measured"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Variant of the headline about WebSockets.
const SOCKETS: u8 = 1;
/// WebSockets that must have ended alike, and how far their pauses may differ, in hundredths.
const ALIKE: usize = 2;
const APART: i64 = 5;

/// Idle timeouts in seconds: those of the server's side, then those of the client's.
const SERVER_TIMERS: [(i64, &str); 14] = [
    (5, "Apache KeepAliveTimeout 5, uvicorn 5, Node keepAliveTimeout 5"),
    (6, "Node keepAliveTimeout 5 (closes at 6)"),
    (10, "HAProxy or application timeout 10"),
    (20, "Tomcat or Puma 20"),
    (30, "Jetty 30, or a load balancer's 30"),
    (60, "ALB idle timeout 60, nginx 60, Apache Timeout 60, Tomcat 60"),
    (75, "nginx keepalive_timeout 75"),
    (120, "IIS 120"),
    (180, "Traefik idleTimeout 180"),
    (240, "Azure load balancer 4 min"),
    (350, "AWS NLB or NAT gateway 350"),
    (600, "GCP backend keep-alive 600, VPC idle 10 min"),
    (3600, "Envoy idle timeout 1 h, ALB client keep-alive 3600"),
    (28_800, "MySQL wait_timeout 28800"),
];
const CLIENT_TIMERS: [(i64, &str); 6] = [
    (15, "a client's pool of 15"),
    (30, "a client's pool of 30"),
    (60, "nginx upstream keepalive_timeout 60"),
    (90, "Go IdleConnTimeout 90 or Traefik idleConnTimeout 90"),
    (600, "GCP load balancer to its backend 600"),
    (1800, "HikariCP maxLifetime 1800"),
];
/// Timers are checked in steps.
const STEP: Elapsed = Elapsed::millis(500);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (closer, fin) = flow.facts.closer?;
    if flow.facts.half(closer).fin != Some(fin) {
        return None;
    }
    let quiet_since = last_words(flow, closer, fin)?;
    let pause = fin.time.since(quiet_since.time);
    let timers = match closer {
        Side::Server => SERVER_TIMERS.as_slice(),
        Side::Client => CLIENT_TIMERS.as_slice(),
    };
    // Most leave long before the shortest of them.
    if timers.first().is_some_and(|(s, _)| pause < Elapsed::secs(*s) - STEP) {
        return None;
    }
    let nearest = timers.iter().min_by_key(|(s, _)| (pause - Elapsed::secs(*s)).abs())?;
    let timer = Elapsed::secs(nearest.0);
    let socket = closer == Side::Server && is_websocket(flow);
    let name = match (socket, nearest.0) {
        (false, _) => nearest.1.to_owned(),
        (true, 60) => "nginx proxy_read_timeout 60, ALB idle timeout 60".to_owned(),
        (true, seconds) => format!("a proxy's read or tunnel timeout of {seconds} s"),
    };
    // ±3 % or ±0.5 s.
    if (pause - timer).abs() > Elapsed(timer.0 / 100 * 3).max(STEP) {
        return None;
    }
    if flow.pending().is_some_and(|pending| pending.asked < fin) {
        return None;
    }
    Some(
        RULE.found(flow, fin, closer, format!("FIN after {pause} of silence"))
            .and(quiet_since, closer, "the last octets before it")
            .with("closer", flow.facts.endpoint(closer))
            .with("pause", pause)
            .with("closer_host", flow.facts.endpoint(closer).address)
            .note(format!("the pause fits {name}"))
            .with("timer", name)
            .variant(if socket { SOCKETS } else { 0 }),
    )
}

/// The connection was upgraded to a WebSocket (RFC 6455 §4.2.2): work is outstanding for as long as it stands.
fn is_websocket(flow: &FlowView<'_>) -> bool {
    flow.exchange().is_some_and(|one| {
        let upgraded = one.response.is_some_and(|(_, head)| head.status == 101);
        upgraded && one.head.upgrade.as_deref().is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
    })
}

/// Several WebSockets of one server that end after the same silence were ended by a timer; the earliest speaks for all.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding).filter(|_| finding.variant == SOCKETS) else { return Keep::Yes };
    let Some(own) = pause_of(finding) else { return Keep::Yes };
    let near = |pause: Elapsed| (pause - own).abs().0 <= own.0 / 100 * APART;
    let mut ends: Vec<(PacketRef, PacketRef)> = capture
        .flows_to(&flow.facts.server)
        .filter_map(|other| {
            let told = other.findings.iter().find(|told| told.rule == RULE.id && told.variant == SOCKETS)?;
            pause_of(told).filter(|pause| near(*pause))?;
            Some((told.last(), other.facts.id))
        })
        .collect();
    ends.sort_unstable();
    if ends.len() < ALIKE || ends.first().is_some_and(|(at, _)| *at != finding.last()) {
        finding.variant = 0;
        return Keep::Yes;
    }
    let mut led = finding.clone().severity(Severity::Notice).with("sockets", ends.len() as u64);
    if let Some((at, other)) = ends.get(1) {
        led = led.cites(*at, Some(*other), "FIN of another WebSocket after the same silence");
    }
    *finding = led.note("pings of either side more often than that keep a WebSocket, or a longer timeout");
    Keep::Yes
}

fn pause_of(finding: &Finding) -> Option<Elapsed> {
    match finding.values.get("pause") {
        Some(Value::Elapsed(pause)) => Some(*pause),
        _ => None,
    }
}

/// The last octets before the close; a TLS alert right before the FIN (close_notify) belongs to the close.
fn last_words(flow: &FlowView<'_>, closer: Side, fin: PacketRef) -> Option<PacketRef> {
    let alerts = const { KindSet::of(&[Kind::AlertEncrypted, Kind::AlertPlain]) };
    let said = if flow.story.seen().meets(&alerts) { Some(flow.story.events()) } else { None };
    let farewell = said
        .into_iter()
        .flat_map(Iterator::rev)
        .find(|e| e.side == closer && matches!(e.what.kind(), Kind::AlertEncrypted | Kind::AlertPlain))
        .map(|e| e.at);
    let mine = flow.facts.half(closer).last_payload.filter(|at| *at < fin && Some(*at) != farewell);
    let theirs = flow.facts.half(closer.other()).last_payload.filter(|at| *at < fin);
    mine.max(theirs).or(flow.facts.established)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Protocol, What};
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn exchange() -> Scene {
        Scene::open().request(3, "GET", "/", 41).response(5, 200, 235).also(Side::Server, What::ResponseEnd)
    }

    #[test]
    fn a_fin_after_five_quiet_seconds_names_apache() {
        let finding = exchange().fin(Side::Server, 5_010).check(&RULE).expect("a timer");
        assert_eq!(finding.severity, Severity::Silent);
        assert!(
            matches!(finding.values.get("timer"), Some(Value::Text(name)) if name.starts_with("Apache KeepAliveTimeout 5"))
        );
    }

    /// A WebSocket from this port that the server greets, and that ends `ms` later.
    fn socket(port: u16, closer: Side, ms: i64) -> Scene {
        let asked = RequestHead { method: "GET".into(), upgrade: Some("websocket".into()), ..Default::default() };
        let answer = ResponseHead { status: 101, ..Default::default() };
        let ends = (format!("10.0.0.1:{port}"), "10.0.0.2:80");
        let mut scene = Scene::starting(&ends.0, ends.1, u64::from(port), i64::from(port))
            .handshake()
            .data(Side::Client, 3, 190)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(asked)))
            .also(Side::Client, What::RequestEnd)
            .data(Side::Server, 5, 130)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(answer)))
            .also(Side::Server, What::ResponseEnd)
            .fin(closer, ms + 5);
        scene.findings.extend(scene.check(&RULE));
        scene
    }

    /// What is said of the first of them; the engine puts its evidence in order before it asks.
    fn told(scenes: &[Scene]) -> Finding {
        let world = scenes.iter().fold(World::new(), |world, scene| world.with(scene));
        let mut finding = scenes[0].findings[0].clone();
        finding.evidence.sort_by_key(|evidence| evidence.at);
        world.corroborated(&RULE, finding).expect("kept")
    }

    #[test]
    fn websockets_that_end_after_the_same_silence_are_told() {
        let all = [socket(40_000, Side::Server, 60_010), socket(40_100, Side::Server, 60_020)];
        let finding = told(&all);
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, SOCKETS));
        assert!(finding.notes[0].contains("nginx proxy_read_timeout 60"), "{:?}", finding.notes);
        assert_eq!(finding.evidence.len(), 3);
    }

    #[test]
    fn one_websocket_other_silences_and_clients_that_leave_are_silent() {
        let first = socket(40_000, Side::Server, 60_010);
        for other in [
            socket(40_100, Side::Server, 30_000),
            socket(40_100, Side::Server, 47_000),
            socket(40_100, Side::Client, 60_010),
        ] {
            assert_eq!(told(&[first.clone(), other]).severity, Severity::Silent);
        }
        assert_eq!(told(std::slice::from_ref(&first)).severity, Severity::Silent);
    }

    #[test]
    fn a_request_that_waits_is_no_idle_connection() {
        let scene = Scene::open().request(3, "GET", "/", 41).fin(Side::Server, 5_010);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_pause_of_no_known_timer_is_not_named() {
        assert_eq!(exchange().fin(Side::Server, 2_300).check(&RULE), None);
        assert_eq!(exchange().fin(Side::Server, 42_000).check(&RULE), None);
    }

    #[test]
    fn a_close_notify_before_the_fin_belongs_to_the_close() {
        let scene = Scene::open()
            .data(Side::Client, 3, 300)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Client, 4, 100)
            .also(Side::Client, What::TlsData)
            .data(Side::Server, 5, 500)
            .also(Side::Server, What::TlsData)
            .data(Side::Server, 75_000, 24)
            .also(Side::Server, What::AlertEncrypted { len: 19, alone: false })
            .fin(Side::Server, 75_001);
        let finding = scene.check(&RULE).expect("a timer");
        assert_eq!(finding.values.get("timer"), Some(&"nginx keepalive_timeout 75".into()));
    }
}
