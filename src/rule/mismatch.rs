//! When the two ends of a connection speak different protocols: how the server refused, and what its port really speaks.
//!
//! "Wrong protocol" is one mechanism with many faces: a server that cannot read the first octets closes, answers in its own language, or
//! sends an alert, within milliseconds. What the port speaks is decided in one order everywhere: what follows in the client's stream,
//! then what the port spoke to others (learnt only from flows that worked), then its number, one level of confidence down. A port never
//! learns a protocol from the refusal itself: nginx answers plain HTTP on a TLS port.

use super::finding::{Evidence, Finding};
use super::summary::FlowSummary;
use super::view::{CaptureView, FlowView};
use crate::event::{PacketRef, Protocol, Side, What};
use crate::host::service::Spoke;
use crate::time::Elapsed;
use crate::wire::Endpoint;
use crate::wire::http::ResponseHead;
use crate::wire::text::Greeting;
use crate::wire::tls::Alert;

/// How a server refuses first octets that it cannot read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal<'a> {
    /// FIN or RST without an octet of payload, and how long after the client's octets.
    Closed(PacketRef, Elapsed),
    /// An HTTP/1 answer in plain text; the head when it is complete.
    Http(PacketRef, Option<&'a ResponseHead>),
    /// A fatal TLS alert instead of a ServerHello.
    Alert(PacketRef, Alert),
    /// The words of a service with a protocol of its own.
    Words(PacketRef, Protocol, Option<&'a Greeting>),
}

impl Refusal<'_> {
    /// The packet that shows it.
    pub fn at(&self) -> PacketRef {
        match *self {
            Self::Closed(at, _) | Self::Http(at, _) | Self::Alert(at, _) | Self::Words(at, ..) => at,
        }
    }

    /// The parser of an HTTP server gave up: 400, and the server closes.
    pub fn is_bad_request(&self) -> bool {
        matches!(self, Self::Http(_, Some(head)) if head.status == 400 && head.closes)
    }

    /// A short phrase for the evidence.
    pub fn shows(&self, flow: &FlowView<'_>) -> String {
        match self {
            Self::Closed(_, after) => {
                format!("{} {after} later: 0 octets, no alert", flow.close_word(Side::Server))
            }
            Self::Http(_, Some(head)) => format!("plain-text HTTP/1.{} {} {}", head.minor, head.status, head.reason),
            Self::Http(_, None) => "plain-text HTTP".into(),
            Self::Alert(_, alert) => format!("fatal TLS alert {} ({})", alert.description, alert.name()),
            Self::Words(_, protocol, Some(words)) => format!("{}: {}", protocol.name(), words.text),
            Self::Words(_, protocol, None) => format!("{} greeting", protocol.name()),
        }
    }
}

/// How the server refused the client's first octets; `None` when it accepted them, when the client closed first, when the answer came
/// later than a refusal does, or when the capture lacks the stream's beginning. Found once: several rules ask.
pub fn refusal<'a>(flow: &FlowView<'a>) -> Option<Refusal<'a>> {
    *flow.turned_away.get_or_init(|| told(flow))
}

fn told<'a>(flow: &FlowView<'a>) -> Option<Refusal<'a>> {
    // Where octets of either side are missing, or the packet that says where the server's begin, its first ones may not be here.
    if flow.facts.mid_stream || flow.server().unseen + flow.client().unseen > 0 || flow.server().syns.is_empty() {
        return None;
    }
    match flow.server().first_payload {
        None => closed(flow),
        Some(at) => answered(flow, at),
    }
}

fn closed<'a>(flow: &FlowView<'a>) -> Option<Refusal<'a>> {
    let (closer, close) = flow.facts.closer?;
    if closer != Side::Server {
        return None;
    }
    // The octets the server reacted to are the latest ones before its close: a proxy may send the ClientHello only after the backend's FIN.
    let hello = flow.client_hello().map(|(at, _)| at);
    let header = flow.proxy_header().map(|(at, _)| at);
    let asked = [flow.client().first_payload, flow.client().last_payload, header, hello];
    let asked = asked.into_iter().flatten().filter(|at| *at <= close).max()?;
    let after = close.time.since(asked.time);
    (after <= flow.thresholds.refusal).then_some(Refusal::Closed(close, after))
}

fn answered<'a>(flow: &FlowView<'a>, first: PacketRef) -> Option<Refusal<'a>> {
    let said = flow.story.events().filter(|e| e.side == Side::Server).find_map(|e| match &e.what {
        What::ServerHello(_) => Some(None),
        What::AlertPlain(alert) if alert.fatal() => Some(Some(Refusal::Alert(e.at, *alert))),
        What::Response(head) => Some(Some(Refusal::Http(e.at, Some(head.as_ref())))),
        What::Greeting(words) => {
            flow.protocol(Side::Server).map(|protocol| Some(Refusal::Words(e.at, protocol, Some(words.as_ref()))))
        }
        _ => None,
    });
    match (said, flow.protocol(Side::Server)) {
        (Some(said), _) => said,
        (None, Some(Protocol::Http)) => Some(Refusal::Http(first, None)),
        (None, Some(protocol)) if is_service(protocol) => Some(Refusal::Words(first, protocol, None)),
        _ => None,
    }
}

/// Protocols whose server has words of its own.
pub const SERVICES: [Protocol; 10] = [
    Protocol::Ssh,
    Protocol::Smtp,
    Protocol::Mysql,
    Protocol::Postgres,
    Protocol::Redis,
    Protocol::Ftp,
    Protocol::Imap,
    Protocol::Pop3,
    Protocol::Amqp,
    Protocol::Mqtt,
];

/// Protocols in which the server speaks first, and its client waits for that.
pub fn greets_first(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Ssh | Protocol::Smtp | Protocol::Mysql | Protocol::Ftp | Protocol::Imap | Protocol::Pop3
    )
}

/// Protocols whose server has words of its own and does not speak TLS or HTTP from the first octet.
pub fn is_service(protocol: Protocol) -> bool {
    SERVICES.contains(&protocol)
}

/// What the client spoke behind its PROXY header (or from the start), and the first packet of it, even when it came after the close.
pub fn spoken_by_client(flow: &FlowView<'_>) -> Option<(PacketRef, Protocol)> {
    flow.story
        .pick(|e| match e.what {
            What::Recognised { protocol } if e.side == Side::Client => Some((e.at, protocol)),
            _ => None,
        })
        .find(|(_, protocol)| !matches!(protocol, Protocol::Proxy | Protocol::Unknown))
}

/// The protocol usually found on a port of that number.
pub fn by_number(port: u16) -> Option<Protocol> {
    match port {
        21 => Some(Protocol::Ftp),
        22 => Some(Protocol::Ssh),
        25 | 587 => Some(Protocol::Smtp),
        80 | 8000 | 8008 | 8080 | 8081 | 8088 | 8888 => Some(Protocol::Http),
        110 => Some(Protocol::Pop3),
        143 => Some(Protocol::Imap),
        465 | 636 | 990 | 993 | 995 | 5671 | 8883 => Some(Protocol::Tls),
        1883 => Some(Protocol::Mqtt),
        3306 => Some(Protocol::Mysql),
        5432 => Some(Protocol::Postgres),
        5672 => Some(Protocol::Amqp),
        6379 => Some(Protocol::Redis),
        // 443, 1443, 8443: people move HTTPS by putting digits in front of it.
        port if port % 1000 == 443 => Some(Protocol::Tls),
        _ => None,
    }
}

/// What the port spoke to others, without a PROXY header in front.
pub fn to_others(capture: &CaptureView<'_>, server: &Endpoint, protocol: Protocol) -> Option<Spoke> {
    capture.service(server)?.speaks_plain(protocol).copied()
}

/// What the port spoke to others behind a PROXY header: then it reads such headers.
pub fn behind_header(capture: &CaptureView<'_>, server: &Endpoint) -> Option<Spoke> {
    capture.service(server)?.accepts_proxy().copied()
}

/// Cites another flow on which the same port worked.
pub fn cite_control(finding: &mut Finding, spoke: &Spoke, what: &str) {
    let shows = match spoke.flows {
        1 => format!("control: {what}, 1 connection fine"),
        n => format!("control: {what}, {n} connections fine"),
    };
    finding.evidence.push(Evidence { at: spoke.answer, flow: Some(spoke.first), side: Some(Side::Server), shows });
}

/// Cites the client's leg of the same connection: its ClientHello, and how the proxy passed the close on.
pub fn cite_client_leg(finding: &mut Finding, capture: &CaptureView<'_>, backend: &FlowSummary) {
    for link in capture.links_of(backend.facts.id).filter(|link| link.backend_leg == backend.facts.id) {
        let Some(leg) = capture.flows.get(&link.client_leg) else { continue };
        let mut cite = |at, side, shows| {
            finding.evidence.push(Evidence { at, flow: Some(leg.facts.id), side: Some(side), shows });
        };
        let hello = leg.story.events().find_map(|e| match &e.what {
            What::ClientHello(hello) => Some((e.at, hello.sni.as_deref().unwrap_or("without a name"))),
            _ => None,
        });
        if let Some((at, name)) = hello {
            cite(at, Side::Client, format!("ClientHello {name}"));
        }
        if let Some((Side::Server, at)) = leg.facts.closer {
            let octets = leg.facts.from_server.payload;
            cite(at, Side::Server, format!("closed after {octets} octets: passed on"));
        }
    }
}

/// Rules out what the flow itself disproves: a dead server and the network.
pub fn rules_out_path(mut finding: Finding, flow: &FlowView<'_>) -> Finding {
    if let Some(syn_ack) = flow.server().syns.first() {
        finding = finding.rules_out("dead server", "it accepted the connection", &[*syn_ack]);
    }
    let resent = flow.client().loss.total() + flow.server().loss.total();
    if let (0, Some(acked)) = (resent, flow.client().first_payload_acked) {
        finding = finding.rules_out("network", "nothing was sent twice, and the octets were acknowledged", &[acked]);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;

    #[test]
    fn a_close_right_after_the_octets_is_a_refusal() {
        let scene = Scene::open().data(Side::Client, 3, 50).fin(Side::Server, 5);
        assert!(
            matches!(refusal(&scene.view()), Some(Refusal::Closed(at, after)) if at.number == 5 && after == Elapsed::millis(2))
        );
    }

    #[test]
    fn a_close_after_a_timeout_is_no_refusal() {
        let scene = Scene::open().data(Side::Client, 3, 50).rst(Side::Server, 5_003, ResetKind::Abort, 0);
        assert_eq!(refusal(&scene.view()), None);
    }

    #[test]
    fn a_client_that_closes_first_was_not_refused() {
        let scene = Scene::open().data(Side::Client, 3, 50).fin(Side::Client, 4).fin(Side::Server, 5);
        assert_eq!(refusal(&scene.view()), None);
    }

    #[test]
    fn octets_that_the_capture_lost_are_no_silence() {
        let mut scene = Scene::open().data(Side::Client, 3, 50).fin(Side::Server, 5);
        assert!(refusal(&scene.view()).is_some());
        scene.facts.from_server.unseen = 300;
        assert_eq!(refusal(&scene.view()), None);
        (scene.facts.from_server.unseen, scene.facts.from_client.unseen) = (0, 300);
        assert_eq!(refusal(&scene.view()), None, "what it said first may be missing");
        scene.facts.from_client.unseen = 0;
        scene.facts.from_server.syns.clear();
        assert_eq!(refusal(&scene.view()), None, "nobody knows where the server's octets begin");
    }

    #[test]
    fn a_close_before_any_octet_refuses_nothing() {
        let scene = Scene::open().fin(Side::Server, 5).data(Side::Client, 50, 517);
        assert_eq!(refusal(&scene.view()), None);
    }

    #[test]
    fn numbers_that_end_in_443_speak_tls() {
        assert_eq!(by_number(1443), Some(Protocol::Tls));
        assert_eq!(by_number(8080), Some(Protocol::Http));
        assert_eq!(by_number(4430), None);
    }
}
