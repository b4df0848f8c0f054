//! How a client refuses a server's certificate, and what the certificate itself says about why.
//!
//! Measured on curl and s_client (OpenSSL 3.0), Go 1.19, Java 17 and Node 20. In TLS 1.2 alert and certificate are readable; in TLS 1.3
//! OpenSSL refuses in the clear, Go in a sealed record of 19 octets, Java in one of 35, Node closes without a word. A finished handshake
//! without a request is a refusal only beside a certificate whose fault can be read: health checks do the same. Dates are judged
//! by the capture's clock.

use super::Rule;
use super::finding::Finding;
use super::summary::FlowSummary;
use super::value::Value;
use super::view::FlowView;
use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Side, What};
use crate::time::Timestamp;
use crate::wire::tls::{Alert, Certificate, ClientHello};

const TLS_1_3: u16 = 0x0304;
/// TLS_EMPTY_RENEGOTIATION_INFO_SCSV (RFC 5746): OpenSSL and Java list it among their suites, Go does not.
const RENEGOTIATION_SCSV: u16 = 0x00ff;

/// How the client refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// A readable fatal alert about the certificate.
    Alert(Alert),
    /// TLS 1.3: a sealed record of this length, as long as an alert, where Finished belongs.
    Sealed(u16),
    /// TLS 1.3: a FIN where Finished belongs.
    Silent,
    /// TLS 1.2: a finished handshake, then the end without a request.
    Left,
}

/// Why, as far as the packets tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault<'a> {
    /// The certificate at this place of the chain was no longer valid.
    Expired(usize, &'a Certificate),
    /// The client says so; the certificate is sealed.
    SaidExpired,
    /// The certificate at this place of the chain was not valid yet.
    Early(usize, &'a Certificate),
    /// The chain is inside its validity and the client objects to the time.
    Clock(&'a Certificate),
    /// The leaf does not hold the name that was asked for.
    Name(&'a Certificate),
    /// The issuer is not trusted: the client says so, or nothing else is left.
    Untrusted,
    /// The reason is sealed.
    Hidden,
}

/// A refused certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused<'a> {
    /// The packet that refuses.
    pub at: PacketRef,
    /// How.
    pub how: How,
    /// Why.
    pub fault: Fault<'a>,
    /// Packet and certificates of the readable chain, leaf first, never empty.
    pub chain: Option<(PacketRef, &'a [Certificate])>,
}

/// The server's readable certificates, never empty.
pub fn chain(story: &Story) -> Option<(PacketRef, &[Certificate])> {
    story.find(Kind::Certificates, |e| match &e.what {
        What::Certificates(chain) if e.side == Side::Server && !chain.is_empty() => Some((e.at, chain.as_slice())),
        _ => None,
    })
}

/// The name asked for.
pub fn asked(story: &Story) -> Option<&str> {
    hello(story)?.sni.as_deref()
}

fn hello(story: &Story) -> Option<&ClientHello> {
    story.find(Kind::ClientHello, |e| match &e.what {
        What::ClientHello(hello) => Some(hello.as_ref()),
        _ => None,
    })
}

/// What tells kinds of TLS software apart: the suites that a client offers.
pub fn ciphers(story: &Story) -> Option<&[u16]> {
    hello(story).map(|hello| hello.ciphers.as_slice())
}

/// Whether two flows ask for one name.
pub fn same_name(one: &Story, other: &Story) -> bool {
    match (asked(one), asked(other)) {
        (Some(one), Some(other)) => one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.')),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Whether both sides sent data behind a finished handshake: the client accepted the certificate.
pub fn accepted(flow: &FlowSummary) -> bool {
    [Side::Client, Side::Server].iter().all(|side| flow.story.first(Kind::TlsData, *side).is_some())
}

/// A refusal of the server's certificate and its reason; `None` for everything else. Found once for a view: several rules ask.
pub fn refused<'a>(flow: &FlowView<'a>) -> Option<Refused<'a>> {
    *flow.refused.get_or_init(|| refusal(flow))
}

fn refusal<'a>(flow: &FlowView<'a>) -> Option<Refused<'a>> {
    if flow.facts.mid_stream {
        return None;
    }
    let answer = flow.story.find(Kind::ServerHello, |e| match &e.what {
        What::ServerHello(hello) if !hello.retry_request => Some((e.at, hello.version)),
        _ => None,
    });
    let Some((answered, version)) = answer else { return unheard(flow) };
    // Also a warning says why the client goes (user_canceled): then it was not the certificate.
    let plain = flow.story.find(Kind::AlertPlain, |e| match e.what {
        What::AlertPlain(alert) if e.side == Side::Client && e.at >= answered => Some((e.at, alert)),
        _ => None,
    });
    let (at, how) = match plain {
        Some((at, alert)) if alert.fatal() && matches!(alert.description, 42 | 43 | 45 | 46 | 48) => {
            (at, How::Alert(alert))
        }
        Some(_) => return None,
        None if version == TLS_1_3 => in_the_dark(flow)?,
        None => left(flow)?,
    };
    let chain = chain(flow.story);
    let fault = match chain {
        Some((_, chain)) => fault(flow.story, at.time, how, chain)?,
        None => match how {
            How::Alert(Alert { description: 45, .. }) => Fault::SaidExpired,
            How::Alert(Alert { description: 48, .. }) => Fault::Untrusted,
            // In older versions it was there to be read, and could not be, or is not in the capture.
            How::Alert(_) if version != TLS_1_3 => return None,
            How::Left => return None,
            _ => Fault::Hidden,
        },
    };
    Some(Refused { at, how, fault, chain })
}

/// The server's packets are not in the capture: the client's own word is all there is.
fn unheard<'a>(flow: &FlowView<'a>) -> Option<Refused<'a>> {
    let (hello, _) = flow.client_hello().filter(|_| flow.server().packets == 0)?;
    let (at, alert) = flow.story.events().find_map(|e| match e.what {
        What::AlertPlain(alert) if e.side == Side::Client && e.at >= hello => Some((e.at, alert)),
        _ => None,
    })?;
    let fault = match alert.description {
        45 => Fault::SaidExpired,
        48 => Fault::Untrusted,
        _ => return None,
    };
    alert.fatal().then_some(Refused { at, how: How::Alert(alert), fault, chain: None })
}

/// TLS 1.3 without a Finished of the client.
fn in_the_dark(flow: &FlowView<'_>) -> Option<(PacketRef, How)> {
    let by_client = |kind| flow.first(kind, Side::Client);
    if flow.client().unseen > 0 || by_client(Kind::TlsFinished).is_some() || by_client(Kind::TlsData).is_some() {
        return None;
    }
    let (closer, close) = flow.facts.closer?;
    let sealed = flow.story.events().find_map(|e| match e.what {
        What::AlertEncrypted { len, .. } if e.side == Side::Client => Some((e.at, len)),
        _ => None,
    });
    if let Some((at, len)) = sealed {
        return (close >= at).then_some((at, How::Sealed(len)));
    }
    let whole = flow.first(Kind::TlsFinished, Side::Server)?.at;
    let at_once = close >= whole && close.time.since(whole.time) <= flow.thresholds.refusal;
    let fin = closer == Side::Client && flow.close_word(Side::Client) == "FIN";
    (fin && at_once && flow.server().unseen == 0).then_some((close, How::Silent))
}

/// TLS 1.2 whose client finishes the handshake and leaves without a request.
fn left(flow: &FlowView<'_>) -> Option<(PacketRef, How)> {
    let data = [Side::Client, Side::Server].iter().any(|side| flow.first(Kind::TlsData, *side).is_some());
    flow.first(Kind::TlsFinished, Side::Client)?;
    let finished = flow.first(Kind::TlsFinished, Side::Server)?.at;
    let (closer, close) = flow.facts.closer?;
    // The client's farewell may be answered by the server's FIN before its own.
    let farewell = flow.first(Kind::AlertEncrypted, Side::Client).map(|e| e.at).filter(|at| *at <= close);
    let leaves = farewell.or((closer == Side::Client).then_some(close))?;
    let at_once = leaves.time.since(finished.time) <= flow.thresholds.refusal;
    (!data && at_once && flow.client().unseen == 0).then_some((leaves, How::Left))
}

/// What is wrong with a readable chain; the client's own word goes first where it has one meaning only.
fn fault<'a>(story: &Story, now: Timestamp, how: How, chain: &'a [Certificate]) -> Option<Fault<'a>> {
    let leaf = chain.first()?;
    let said = match how {
        How::Alert(alert) => Some(alert.description),
        _ => None,
    };
    // A root is trusted or not whatever its dates, and an expired one is often sent along.
    let dated = || chain.iter().enumerate().filter(|(place, one)| *place == 0 || !one.self_signed);
    let expired = dated().find(|(_, one)| now > one.not_after).map(|(place, one)| Fault::Expired(place, one));
    let early = dated().find(|(_, one)| now < one.not_before).map(|(place, one)| Fault::Early(place, one));
    let other_name = asked(story).filter(|name| holds(leaf, name) == Some(false)).map(|_| Fault::Name(leaf));
    let scsv = hello(story).is_some_and(|hello| hello.ciphers.contains(&RENEGOTIATION_SCSV));
    match said {
        Some(48) => Some(Fault::Untrusted),
        Some(45) => Some(expired.or(early).unwrap_or(Fault::Clock(leaf))),
        // OpenSSL and Java never say 42 of an unknown issuer, but of a certificate from the future.
        Some(42) if scsv => Some(expired.or(early).or(other_name).unwrap_or(Fault::Clock(leaf))),
        Some(_) => Some(expired.or(early).or(other_name).unwrap_or(Fault::Untrusted)),
        // Checks of a balancer leave a finished handshake in the same way, and never look at the issuer.
        None if how == How::Left => expired.or(early).or(other_name),
        None => expired.or(early).or(other_name).or(leaf.self_signed.then_some(Fault::Untrusted)),
    }
}

/// Whether a certificate holds a name (RFC 9525 §6.3: a wildcard stands for one label); `None` when it has no names to compare.
pub fn holds(certificate: &Certificate, name: &str) -> Option<bool> {
    let name = name.trim_end_matches('.');
    let fits = |pattern: &str| match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(rest), Some((label, parent))) => !label.is_empty() && parent.eq_ignore_ascii_case(rest),
        _ => pattern.trim_end_matches('.').eq_ignore_ascii_case(name),
    };
    if !certificate.names.is_empty() {
        return Some(certificate.names.iter().any(|pattern| fits(pattern)));
    }
    let common = certificate.subject.split(", ").find_map(|part| part.strip_prefix("CN="));
    common.map(fits)
}

/// A moment of a certificate.
pub fn moment(time: Timestamp) -> String {
    match jiff::Timestamp::from_second(time.second()) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "a moment beyond the calendar".into(),
    }
}

/// A finding with the refusal, the certificate and the name asked for.
pub fn tell(rule: &Rule, flow: &FlowView<'_>, refused: &Refused<'_>) -> Finding {
    let shows = match refused.how {
        How::Alert(alert) => format!("fatal alert {} ({}) by the client", alert.description, alert.name()),
        How::Sealed(len) => format!("sealed record of {len} octets, as long as an alert, instead of Finished"),
        How::Silent => "FIN instead of Finished".into(),
        How::Left => "end without a request right behind the handshake".into(),
    };
    let mut finding = rule.found(flow, refused.at, Side::Client, shows);
    if let Some((at, chain)) = refused.chain {
        finding = with_chain(finding, at, chain);
    }
    finding = named(finding, flow);
    let server_hello = flow.first(Kind::ServerHello, Side::Server).map(|e| e.at);
    finding.and_maybe(server_hello, Side::Server, "ServerHello")
}

/// Cites the readable leaf.
pub fn with_chain(finding: Finding, at: PacketRef, chain: &[Certificate]) -> Finding {
    let Some(leaf) = chain.first() else { return finding };
    finding.and(at, Side::Server, described(chain)).with("subject", Value::Packet(leaf.subject.clone()))
}

/// The leaf of a chain in one line.
pub fn described(chain: &[Certificate]) -> String {
    let Some(leaf) = chain.first() else { return "no certificate".into() };
    format!(
        "certificate valid {} to {} for {}: {}, serial {}, issuer {}, {} sent",
        moment(leaf.not_before),
        moment(leaf.not_after),
        if leaf.names.is_empty() { "no names".into() } else { leaf.names.join(" ") },
        leaf.subject,
        leaf.serial,
        leaf.issuer,
        chain.len()
    )
}

/// Cites the ClientHello and fills `{name}`: the name asked for, or the server's address.
pub fn named(finding: Finding, flow: &FlowView<'_>) -> Finding {
    let Some((at, hello)) = flow.client_hello() else { return finding.with("name", flow.facts.server.address) };
    let shows = format!("ClientHello {}", hello.sni.as_deref().unwrap_or("without a name"));
    let finding = finding.and(at, Side::Client, shows);
    match &hello.sni {
        Some(name) => finding.with("name", Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    }
}

#[cfg(test)]
pub mod samples {
    //! Handshakes for the tests of the rules.

    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;
    use crate::time::Elapsed;
    use crate::wire::tls::ServerHello;

    const DAY: i64 = 86_400;

    /// A certificate of another issuer, valid `from..to` days from the capture's beginning.
    pub fn certificate(from: i64, to: i64) -> Certificate {
        Certificate {
            subject: "CN=www.example.com".into(),
            issuer: "CN=some CA".into(),
            serial: "1000".into(),
            not_before: Timestamp::default() + Elapsed::secs(from * DAY),
            not_after: Timestamp::default() + Elapsed::secs(to * DAY),
            names: vec!["www.example.com".into()],
            self_signed: false,
        }
    }

    /// A ClientHello for www.example.com; the first packet of TLS is #4.
    pub fn asked(scene: Scene) -> Scene {
        let hello = ClientHello { sni: Some("www.example.com".into()), versions: vec![0x0303], ..Default::default() };
        scene
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    /// TLS 1.2 up to the server's readable flight.
    pub fn tls_12(chain: Vec<Certificate>) -> Scene {
        tls_12_on(Scene::open(), chain)
    }

    /// The same on another flow.
    pub fn tls_12_on(scene: Scene, chain: Vec<Certificate>) -> Scene {
        let hello = ServerHello { version: 0x0303, ..Default::default() };
        asked(scene)
            .data(Side::Server, 4, 1200)
            .also(Side::Server, What::ServerHello(Box::new(hello)))
            .also(Side::Server, What::Certificates(Box::new(chain)))
    }

    /// TLS 1.3 up to the server's Finished.
    pub fn tls_13(scene: Scene) -> Scene {
        let hello = ServerHello { version: TLS_1_3, ..Default::default() };
        asked(scene)
            .data(Side::Server, 4, 1200)
            .also(Side::Server, What::ServerHello(Box::new(hello)))
            .also(Side::Server, What::TlsFinished)
    }

    /// The handshake ends and data goes both ways.
    pub fn works(scene: Scene) -> Scene {
        scene
            .data(Side::Client, 5, 200)
            .also(Side::Client, What::TlsFinished)
            .also(Side::Client, What::TlsData)
            .data(Side::Server, 6, 500)
            .also(Side::Server, What::TlsFinished)
            .also(Side::Server, What::TlsData)
            .fin(Side::Client, 9)
            .gone(10)
    }

    /// A fatal alert and the end.
    pub fn alert(scene: Scene, side: Side, description: u8) -> Scene {
        scene.data(side, 5, 7).also(side, What::AlertPlain(Alert { level: 2, description })).fin(side, 6).gone(10)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use crate::rule::testing::Scene;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let mut leaf = certificate(-1, 1);
        leaf.names = vec!["*.example.com".into()];
        assert_eq!(holds(&leaf, "www.Example.com."), Some(true));
        assert_eq!(holds(&leaf, "a.www.example.com"), Some(false));
        assert_eq!(holds(&leaf, "example.com"), Some(false));
        leaf.names.clear();
        assert_eq!(holds(&leaf, "www.example.com"), Some(true), "the common name where there is no other");
    }

    #[test]
    fn a_late_fin_is_no_refusal() {
        let scene = tls_13(Scene::open()).fin(Side::Client, 5_000).gone(6_000);
        assert_eq!(refused(&scene.view()), None);
    }

    #[test]
    fn data_behind_the_handshake_is_no_refusal() {
        assert_eq!(refused(&works(tls_12(vec![certificate(-9, -1)])).view()), None);
    }
}
