//! How a server refuses a client for the certificate that it sent or did not send.
//!
//! TLS 1.2: CertificateRequest, the client's Certificate message and the server's alert are readable. TLS 1.3 seals all of them, but the client's
//! first record is its Certificate message exactly when it was asked for one: empty it has 25 octets (41, Java), else it is larger than
//! anything that may stand there. A server that accepts goes on with tickets or data; one whose first record behind its Finished is
//! as long as an alert, and the end of the connection, refused. Measured on HAProxy 2.6, Apache 2.4, s_server (OpenSSL 3.0) and Go 1.19.

use super::finding::Finding;
use super::trust;
use super::view::FlowView;
use super::{Rule, value::Value};
use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Side, What};
use crate::wire::tls::{Alert, Certificate};

const TLS_1_3: u16 = 0x0304;

/// What a client sent when it was asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offered<'a> {
    /// An empty list.
    Nothing,
    /// A readable certificate.
    Readable(&'a Certificate),
    /// TLS 1.3: a sealed one, the length of its record.
    Sealed(u16),
}

/// A refused client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused<'a> {
    /// The packet that refuses.
    pub at: PacketRef,
    /// The readable alert; `None` in TLS 1.3.
    pub alert: Option<Alert>,
    /// The client's Certificate message.
    pub offered_at: PacketRef,
    /// What was in it.
    pub offered: Offered<'a>,
}

/// What the client sent as its certificate, when it was asked for one.
pub fn offered(story: &Story) -> Option<(PacketRef, Offered<'_>)> {
    story.events().filter(|e| e.side == Side::Client).find_map(|e| match &e.what {
        What::Certificates(chain) => Some((e.at, chain.first().map_or(Offered::Nothing, Offered::Readable))),
        What::CertificateSealed { len } => Some((e.at, Offered::Sealed(*len))),
        _ => None,
    })
}

/// A refusal of the client by the server; `None` for everything else.
pub fn refused<'a>(flow: &FlowView<'a>) -> Option<Refused<'a>> {
    if flow.facts.mid_stream || flow.client().unseen > 0 || flow.server().unseen > 0 {
        return None;
    }
    let (offered_at, offered) = offered(flow.story)?;
    let version = flow.story.events().find_map(|e| match &e.what {
        What::ServerHello(hello) if !hello.retry_request => Some(hello.version),
        _ => None,
    })?;
    let (at, alert) = match version {
        TLS_1_3 => (sealed(flow, offered_at)?, None),
        _ => {
            let (at, alert) = readable(flow, offered_at, offered)?;
            (at, Some(alert))
        }
    };
    Some(Refused { at, alert, offered_at, offered })
}

/// TLS 1.2: an alert about the certificate, or about its absence (HAProxy, Apache and s_server 40, Go 42).
fn readable(flow: &FlowView<'_>, offered_at: PacketRef, offered: Offered<'_>) -> Option<(PacketRef, Alert)> {
    let (at, alert) = flow.story.events().find_map(|e| match e.what {
        What::AlertPlain(alert) if e.side == Side::Server && e.at > offered_at => Some((e.at, alert)),
        _ => None,
    })?;
    let about_it = match offered {
        Offered::Nothing => matches!(alert.description, 40 | 42 | 43 | 46 | 49 | 116),
        _ => matches!(alert.description, 42..=46 | 48 | 49 | 51),
    };
    (alert.fatal() && about_it).then_some((at, alert))
}

/// TLS 1.3: nothing but a record as long as an alert comes back, at once, before the client itself goes.
fn sealed(flow: &FlowView<'_>, offered_at: PacketRef) -> Option<PacketRef> {
    let server = |kind| flow.first(kind, Side::Server);
    if server(Kind::TlsData).is_some() {
        return None;
    }
    let at = flow.story.events().find_map(|e| match e.what {
        What::AlertEncrypted { alone: true, .. } if e.side == Side::Server && e.at > offered_at => Some(e.at),
        _ => None,
    })?;
    let finished = flow.first(Kind::TlsFinished, Side::Client).map(|e| e.at).filter(|finished| *finished < at);
    let heard = finished.unwrap_or(offered_at);
    let farewell = flow.first(Kind::AlertEncrypted, Side::Client).is_some_and(|e| e.at < at);
    let left = flow.facts.closer.is_some_and(|(side, close)| side == Side::Client && close < at);
    let at_once = at.time.since(heard.time) <= flow.thresholds.refusal;
    (at_once && !farewell && !left).then_some(at)
}

/// A finding with the refusal, the client's Certificate message, the request for it and the name asked for.
pub fn tell(rule: &Rule, flow: &FlowView<'_>, refused: &Refused<'_>) -> Finding {
    let shows = match refused.alert {
        Some(alert) => format!("fatal alert {} ({}) by the server", alert.description, alert.name()),
        None => "sealed record as long as an alert, the first behind the handshake, and the end".into(),
    };
    let sent = match refused.offered {
        Offered::Nothing if refused.alert.is_some() => "Certificate message of the client: empty".into(),
        Offered::Nothing => "sealed record as long as an empty Certificate message".into(),
        Offered::Sealed(len) => format!("sealed record of {len} octets: a Certificate message that is not empty"),
        Offered::Readable(leaf) => format!(
            "certificate valid {} to {}: {}, serial {}, issuer {}",
            trust::moment(leaf.not_before),
            trust::moment(leaf.not_after),
            leaf.subject,
            leaf.serial,
            leaf.issuer
        ),
    };
    let request = flow.first(Kind::CertificateRequest, Side::Server).map(|e| e.at);
    let finding = rule
        .found(flow, refused.at, Side::Server, shows)
        .and(refused.offered_at, Side::Client, sent)
        .and_maybe(request, Side::Server, "CertificateRequest");
    let finding = match refused.offered {
        Offered::Readable(leaf) => finding.with("subject", Value::Packet(leaf.subject.clone())),
        _ => finding,
    };
    trust::named(finding, flow)
}

#[cfg(test)]
pub mod samples {
    //! Handshakes for the tests of the rules.

    use super::*;
    use crate::rule::testing::Scene;
    use crate::rule::trust::samples::{certificate, tls_12, tls_13};

    /// TLS 1.2: the server asks, the client sends these certificates and Finished.
    pub fn asked_12(chain: Vec<Certificate>) -> Scene {
        tls_12(vec![certificate(-1, 80)])
            .also(Side::Server, What::CertificateRequest)
            .data(Side::Client, 5, 900)
            .also(Side::Client, What::Certificates(Box::new(chain)))
            .also(Side::Client, What::TlsFinished)
    }

    /// TLS 1.3: the client sends this and Finished.
    pub fn asked_13(what: What) -> Scene {
        tls_13(Scene::open()).data(Side::Client, 5, 900).also(Side::Client, what).also(Side::Client, What::TlsFinished)
    }

    /// The server's last word, sealed.
    pub fn hangs_up(scene: Scene, ms: i64, alone: bool) -> Scene {
        scene
            .data(Side::Server, ms, 24)
            .also(Side::Server, What::AlertEncrypted { len: 19, alone })
            .fin(Side::Server, ms)
            .gone(ms + 10)
    }
}
