//! ClientHellos that the other side cannot take: no version, suite, name or application protocol in common.
//!
//! The server says so in the clear, before its ServerHello, with the alerts 70, 40 or 71, 112 and 120 (RFC 8446 §6.2); a client that was
//! offered a version that it does not want says 70 behind the ServerHello. Measured on nginx 1.22, HAProxy 2.6, OpenSSL 3.0, GnuTLS 3.7
//! and Go 1.19.

use super::Rule;
use super::finding::{Finding, Severity};
use super::header::is_public;
use super::summary::FlowSummary;
use super::value::Value;
use super::view::{CaptureView, FlowView};
use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Side, What};
use crate::flow::facts::FlowFacts;
use crate::wire::tls::{Alert, ClientHello, HEALTH_CHECK, ServerHello, version_name};

/// Other connections to the server that are looked at.
const OTHERS: usize = 256;
/// So many different offers of one client, all turned away, are somebody who finds out what the port offers.
const PROBES: usize = 5;

/// What both sides have not in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A protocol version.
    Version,
    /// A cipher suite, a group or a signature scheme.
    Suite,
    /// The server has no site of that name.
    Name,
    /// An application protocol (ALPN).
    Application,
}

/// A ClientHello that was turned away, or a ServerHello.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused<'a> {
    /// The packet of the alert.
    pub at: PacketRef,
    /// Who refuses.
    pub side: Side,
    /// The alert.
    pub alert: Alert,
    /// What is missing.
    pub lack: Lack,
    /// The ClientHello and its packet.
    pub hello_at: PacketRef,
    /// The offer.
    pub hello: &'a ClientHello,
    /// What the server had chosen, when the client refuses.
    pub chosen: Option<(PacketRef, &'a ServerHello)>,
}

/// A refused offer; `None` for everything else.
pub fn refused<'a>(flow: &FlowView<'a>) -> Option<Refused<'a>> {
    told(flow.facts, flow.story)
}

/// HAProxy's `option ssl-hello-chk`: it offers SSL 3.0, says who it is where others have random octets, and takes an alert for a sign of life.
pub fn checks_health(hello: &ClientHello) -> bool {
    hello.random.ends_with(HEALTH_CHECK)
}

/// The same for a flow that was judged.
fn told<'a>(facts: &FlowFacts, story: &'a Story) -> Option<Refused<'a>> {
    let server = &facts.from_server;
    if facts.mid_stream || server.unseen > 0 || server.cut > 0 {
        return None;
    }
    let (hello_at, hello) = asked(story).filter(|(_, hello)| !checks_health(hello))?;
    let (at, side, alert) = story.find(Kind::AlertPlain, |e| match e.what {
        What::AlertPlain(alert) if alert.fatal() && e.at > hello_at => Some((e.at, e.side, alert)),
        _ => None,
    })?;
    let chosen = chosen(story);
    let greeted = story.events().any(|e| matches!(e.what, What::ServerHello(_)));
    let lack = match (side, alert.description, greeted) {
        (Side::Server, 70, false) | (Side::Client, 70, true) => Lack::Version,
        // Content networks answer a ClientHello without a name with 40 as well.
        (Side::Server, 40 | 71, false) if hello.sni.is_some() => Lack::Suite,
        (Side::Server, 112, false) => Lack::Name,
        (Side::Server, 120, false) => Lack::Application,
        _ => return None,
    };
    // A server that reads a PROXY header as TLS may say 70 or 40; for the others it must have read the ClientHello.
    let headed = story.events().any(|e| matches!(e.what, What::ProxyHeader(_) | What::ProxyBroken(_)));
    let read = matches!(lack, Lack::Name | Lack::Application);
    (read || !headed).then_some(Refused { at, side, alert, lack, hello_at, hello, chosen })
}

/// The same inside TLS 1.3: the server greets, and the first sealed record behind its ServerHello is as long as an alert and the last one. Go
/// chooses the application protocol only there; what else could be refused was refused before.
pub fn refused_sealed<'a>(flow: &FlowView<'a>) -> Option<(PacketRef, PacketRef, &'a ClientHello)> {
    const TLS_1_3: u16 = 0x0304;
    let server = flow.server();
    let at = flow.story.find(Kind::AlertEncrypted, |e| match e.what {
        What::AlertEncrypted { alone: true, .. } if e.side == Side::Server => Some(e.at),
        _ => None,
    })?;
    let (hello_at, hello) = flow.client_hello()?;
    let (greeted, _) = chosen(flow.story).filter(|(_, chosen)| chosen.version == TLS_1_3)?;
    let went_on = flow.first(Kind::TlsFinished, Side::Client).is_some();
    let holed = flow.facts.mid_stream || server.unseen + server.cut > 0;
    (!went_on && !holed && at >= greeted && !hello.alpn.is_empty()).then_some((at, hello_at, hello))
}

fn asked(story: &Story) -> Option<(PacketRef, &ClientHello)> {
    story.find(Kind::ClientHello, |e| match &e.what {
        What::ClientHello(hello) => Some((e.at, hello.as_ref())),
        _ => None,
    })
}

fn chosen(story: &Story) -> Option<(PacketRef, &ServerHello)> {
    story.find(Kind::ServerHello, |e| match &e.what {
        What::ServerHello(hello) if !hello.retry_request => Some((e.at, hello.as_ref())),
        _ => None,
    })
}

/// A finding with the alert and the ClientHello (`shows` says what it offers), and `{name}` filled.
pub fn tell(rule: &Rule, flow: &FlowView<'_>, refused: &Refused<'_>, offers: &str) -> Finding {
    let side = if refused.side == Side::Client { "client" } else { "server" };
    let shows = format!("fatal alert {} ({}) by the {side}", refused.alert.description, refused.alert.name());
    let name = refused.hello.sni.as_deref().unwrap_or("without a name");
    let finding = rule.found(flow, refused.at, refused.side, shows).and(
        refused.hello_at,
        Side::Client,
        format!("ClientHello {name}: {offers}"),
    );
    match &refused.hello.sni {
        Some(name) => finding.with("name", Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    }
}

/// The offered versions as people write them: `TLS 1.0 to TLS 1.2`.
pub fn versions(hello: &ClientHello) -> String {
    match (hello.versions.iter().min(), hello.versions.iter().max()) {
        (Some(low), Some(high)) if low == high => version_name(*low).into(),
        (Some(low), Some(high)) => format!("{} to {}", version_name(*low), version_name(*high)),
        _ => version_name(hello.legacy_version).into(),
    }
}

/// Another connection to the same server that got a ServerHello.
pub struct Taken<'a> {
    /// The connection.
    pub flow: &'a FlowSummary,
    /// Packet of the ServerHello.
    pub at: PacketRef,
    /// What the server chose.
    pub chosen: &'a ServerHello,
    /// From what.
    pub hello: &'a ClientHello,
}

/// Connections to the same server that got a ServerHello, in order of time.
pub fn taken<'a>(capture: &'a CaptureView<'_>, own: &FlowSummary) -> impl Iterator<Item = Taken<'a>> {
    capture.flows_to(&own.facts.server).take(OTHERS).filter_map(|flow| {
        let (at, chosen) = chosen(&flow.story)?;
        let (_, hello) = asked(&flow.story)?;
        Some(Taken { flow, at, chosen, hello })
    })
}

/// Cites a connection that got what this one did not.
pub fn control(finding: &mut Finding, taken: &Taken<'_>, got: &str) {
    let shows = format!("ServerHello to {}: {got}", taken.flow.facts.client.address);
    *finding = finding.clone().cites(taken.at, Some(taken.flow.facts.id), shows);
}

/// The ClientHello of a flow that was judged.
pub fn hello(flow: &FlowSummary) -> Option<&ClientHello> {
    asked(&flow.story).map(|(_, hello)| hello)
}

/// Clients to the same server that were turned away for the same lack with the same name.
pub fn clients(capture: &CaptureView<'_>, own: &FlowSummary, lack: Lack) -> usize {
    let name = hello(own).and_then(|hello| hello.sni.as_deref());
    let mut clients: Vec<_> = capture
        .flows_to(&own.facts.server)
        .take(OTHERS)
        .filter(|flow| told(&flow.facts, &flow.story).is_some_and(|told| told.lack == lack))
        .filter(|flow| hello(flow).and_then(|hello| hello.sni.as_deref()) == name)
        .map(|flow| flow.facts.client.address)
        .collect();
    clients.sort_unstable();
    clients.dedup();
    clients.len()
}

/// A ClientHello that the server answers with a fatal alert and no ServerHello, for whatever reason.
fn turned_away(story: &Story) -> Option<&ClientHello> {
    let (_, hello) = asked(story).filter(|(_, hello)| !checks_health(hello))?;
    let says = |e: &Event| e.side == Side::Server && matches!(e.what, What::AlertPlain(alert) if alert.fatal());
    (chosen(story).is_none() && story.events().any(says)).then_some(hello)
}

/// Lowers the finding when its client tries one offer after the other while others are served: a scanner asks for what must be refused. Behind a
/// private address many users may stand, and a proxy asks for many names: there it stays a warning.
pub fn quiet_for_scanners(finding: &mut Finding, capture: &CaptureView<'_>, own: &FlowSummary) {
    let client = own.facts.client.address;
    let public = is_public(client);
    let mut offers: Vec<_> = capture
        .flows_to(&own.facts.server)
        .take(OTHERS)
        .filter(|flow| flow.facts.client.address == client)
        .filter_map(|flow| turned_away(&flow.story))
        .map(|hello| (&hello.versions, &hello.ciphers, &hello.alpn, hello.sni.as_ref().filter(|_| public)))
        .collect();
    offers.sort_unstable();
    offers.dedup();
    let count = offers.len();
    if count >= PROBES && taken(capture, own).next().is_some() {
        finding.severity = finding.severity.min(if public { Severity::Notice } else { Severity::Warning });
        let sentence = format!(
            "this client was turned away with {count} different offers, others are served: a scan looks like that"
        );
        finding.notes.push(sentence);
    }
}

#[cfg(test)]
pub mod samples {
    //! Handshakes for the tests of the rules.

    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;

    /// An offer of TLS 1.0 to 1.2, two suites and HTTP/1.1 for www.example.com.
    pub fn offer() -> ClientHello {
        ClientHello {
            sni: Some("www.example.com".into()),
            versions: vec![0x0303, 0x0302, 0x0301],
            ciphers: vec![0xc02f, 0x002f],
            alpn: vec!["http/1.1".into()],
            ..Default::default()
        }
    }

    /// The offer is made; the ClientHello is #4 of a first flow.
    pub fn makes(scene: Scene, hello: ClientHello) -> Scene {
        scene
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    /// The server turns it away.
    pub fn turned_away(scene: Scene, hello: ClientHello, description: u8) -> Scene {
        makes(scene, hello)
            .data(Side::Server, 4, 7)
            .also(Side::Server, What::AlertPlain(Alert { level: 2, description }))
            .fin(Side::Server, 5)
            .gone(9)
    }

    /// The server takes it.
    pub fn takes(scene: Scene, hello: ClientHello, version: u16) -> Scene {
        let chosen = ServerHello { version, cipher: 0xc02b, ..Default::default() };
        makes(scene, hello).data(Side::Server, 4, 1200).also(Side::Server, What::ServerHello(Box::new(chosen)))
    }

    /// A flow of another client from the same start.
    pub fn other(number: u64, client: &str) -> Scene {
        Scene::starting(client, "10.0.0.2:443", number, number as i64 * 100).handshake()
    }
}
