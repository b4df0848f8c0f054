//! One flow in words: a sentence for every flow, also for those on which nothing is wrong.

use std::fmt;

use crate::event::ResetKind;
use crate::event::story::Story;
use crate::event::{Kind, Protocol, Side, What};
use crate::flow::facts::{Close, FlowFacts, Handshake, IpProtocol};
use crate::host::service::Lesson;
use crate::rule::summary::{Verdict, protocol_of, spoken};
use crate::rule::threshold::Thresholds;
use crate::time::{Elapsed, Timestamp};
use crate::wire::ShortText;
use crate::wire::tls::version_name;

/// Why a flow cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The other one is not in the capture.
    OneDirection,
    /// The SYN waited so long when the capture ended.
    Syn(Elapsed),
    /// The only request waited so long.
    FirstRequest(Elapsed),
    /// A later request waited so long.
    Request(Elapsed),
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, waited) = match self {
            Self::OneDirection => return f.write_str("only one direction is in the capture"),
            Self::Syn(waited) => ("the SYN", waited),
            Self::FirstRequest(waited) => ("the request", waited),
            Self::Request(waited) => ("a request", waited),
        };
        write!(f, "{what} was unanswered for {waited} when the capture ended")
    }
}

/// Why a flow without findings cannot be judged; `None` when it can.
pub fn undecided(facts: &FlowFacts, story: &Story, now: Timestamp, thresholds: &Thresholds) -> Option<Undecided> {
    if facts.transport == IpProtocol::Udp {
        return None;
    }
    // SYNs alone say nothing about the other direction; anything more answers what is not in the capture.
    let only_syns =
        facts.handshake == Handshake::Syn && facts.from_client.packets <= u64::from(facts.from_client.syn_count);
    if !facts.both_ways() && !only_syns {
        return Some(Undecided::OneDirection);
    }
    if !matches!(facts.close, Close::Open) {
        return None;
    }
    if facts.handshake == Handshake::Syn && facts.from_server.packets == 0 {
        return Some(Undecided::Syn(now.since(facts.id.time)));
    }
    let request = facts.from_client.first_payload?;
    let waited = now.since(request.time);
    if facts.from_server.payload == 0 && !facts.mid_stream && waited < thresholds.hang {
        return Some(Undecided::FirstRequest(waited));
    }
    let requests = story.events().filter(|e| e.what.kind() == Kind::Request).count();
    let responses = story.events().filter(|e| matches!(&e.what, What::Response(r) if r.status >= 200)).count();
    if requests > responses && story.left_out() == 0 && !facts.mid_stream {
        let last = story.events().rev().find(|e| e.what.kind() == Kind::Request)?;
        return Some(Undecided::Request(now.since(last.at.time)));
    }
    None
}

/// What went over a flow and how it ended, for flows on which nothing is wrong.
pub fn healthy(facts: &FlowFacts, story: &Story) -> String {
    let mut text = match spoken(story) {
        Some(protocol) => protocol.name().to_owned(),
        None if facts.transport == IpProtocol::Udp => "UDP".to_owned(),
        None if facts.from_client.payload + facts.from_server.payload == 0 => "TCP without data".to_owned(),
        None => "TCP".to_owned(),
    };
    if let Some(version) = story.events().find_map(|e| match &e.what {
        What::ServerHello(hello) if !hello.retry_request => Some(hello.version),
        _ => None,
    }) {
        text = version_name(version).to_owned();
    }
    if let Some(name) = server_name(story) {
        text.push_str(&format!(" for {name}"));
    }
    if story.seen().has(Kind::ProxyHeader) {
        text.push_str(" behind a PROXY header");
    }
    text.push_str(&format!(
        ": {} octets from the client, {} from the server; {}",
        facts.from_client.payload,
        facts.from_server.payload,
        ending(facts)
    ));
    text
}

/// SNI or Host.
pub fn server_name(story: &Story) -> Option<ShortText> {
    story.events().find_map(|e| match &e.what {
        What::ClientHello(hello) => hello.sni.clone(),
        What::Request(request) => request.host.clone(),
        What::Dns(message) => Some(message.name.clone()),
        _ => None,
    })
}

/// How a flow ended, half a sentence.
pub fn ending(facts: &FlowFacts) -> String {
    let after = facts.last.time.since(facts.id.time);
    match facts.close {
        Close::Open if facts.transport == IpProtocol::Udp => format!("last packet after {after}"),
        Close::Open => format!("still open {after} after its first packet"),
        Close::Fin => match facts.closer {
            Some((side, _)) => format!("closed by the {} after {after}", side_word(side)),
            None => format!("closed after {after}"),
        },
        Close::HalfClosed(side) => format!("closed by the {} only", side_word(side)),
        Close::Reset(side, kind) => format!("reset by the {} ({})", side_word(side), reset_word(kind)),
    }
}

/// The machine-readable form of the same.
pub fn close_word(facts: &FlowFacts) -> String {
    match facts.close {
        Close::Open => "open".into(),
        Close::Fin => "fin".into(),
        Close::HalfClosed(side) => format!("half-closed by {}", side_word(side)),
        Close::Reset(side, kind) => format!("reset by {} ({})", side_word(side), reset_word(kind)),
    }
}

/// `client` or `server`.
pub fn side_word(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

fn reset_word(kind: ResetKind) -> &'static str {
    match kind {
        ResetKind::Refused => "refused",
        ResetKind::Abort => "abort",
        ResetKind::Stray => "stray",
        ResetKind::Edge => "does not fit that side",
        ResetKind::AfterFin => "after its own FIN",
    }
}

/// The protocols recognised on either side, in the order they were.
pub fn protocols(story: &Story) -> Vec<crate::event::Protocol> {
    let mut list = Vec::new();
    for event in story.events() {
        if let What::Recognised { protocol } = event.what
            && !list.contains(&protocol)
        {
            list.push(protocol);
        }
    }
    list
}

/// Whether both sides spoke and meant the same protocol; what a service is known to speak is learnt from this alone.
pub fn agreed(story: &Story) -> Option<crate::event::Protocol> {
    use crate::event::Protocol;
    let (client, server) = (protocol_of(story, Side::Client)?, protocol_of(story, Side::Server)?);
    // What a client says behind these greetings means nothing by itself.
    let client = match (client, server) {
        (Protocol::Unknown, Protocol::Mysql | Protocol::Ftp | Protocol::Pop3) => server,
        _ => client,
    };
    let fits = client == server && client != Protocol::Unknown;
    let accepted = match client {
        // A 400 answers octets the server could not read, whatever they were.
        Protocol::Http => story.events().any(|e| matches!(&e.what, What::Response(r) if r.status != 400)),
        Protocol::Tls => story.seen().has(Kind::ServerHello),
        _ => true,
    };
    (fits && accepted).then_some(client)
}

/// What a closed flow teaches about its server.
pub fn lesson(facts: &FlowFacts, story: &Story, verdict: Verdict) -> Lesson {
    let agreed = agreed(story);
    let silent = facts.from_client.payload == 0 && facts.from_server.payload == 0;
    let client_closed = facts.closer.is_some_and(|(side, _)| side == Side::Client);
    // Octets that nobody recognised still were an answer; octets of two protocols were none.
    let unrecognised = matches!(
        (protocol_of(story, Side::Client), protocol_of(story, Side::Server)),
        (None | Some(Protocol::Unknown), None | Some(Protocol::Unknown))
    );
    // Of what the capture kept only a part, nobody can say more than that it was answered.
    let cut = facts.from_client.cut + facts.from_server.cut > 0;
    Lesson {
        client: facts.client,
        server: facts.server,
        flow: facts.id,
        accepted: facts.handshake >= Handshake::SynAck,
        good: verdict == Verdict::Healthy
            && facts.from_server.payload > 0
            && !story.seen().has(Kind::Failure)
            && (agreed.is_some() || unrecognised || cut),
        protocol: agreed,
        behind_proxy: story.seen().has(Kind::ProxyHeader),
        answer: facts.from_server.first_payload,
        empty: facts.transport == IpProtocol::Tcp && silent && client_closed && facts.from_server.packets > 0,
        last: facts.last.time,
    }
}
