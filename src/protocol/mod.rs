//! Octets to protocol events: recognition by content on both sides, then one analyzer per protocol.
//!
//! Ports are hints at most. Each side is recognised for itself: a ClientHello answered by `HTTP/1.1 400` is TLS on one side and HTTP on
//! the other, and that is the finding. PROXY headers and PostgreSQL's request for TLS are read first and looked through.

mod commands;
mod dissector;
mod dns;
mod exchanges;
mod failures;
mod http;
mod http2;
mod letters;
mod queries;
mod recognise;
mod room;
#[cfg(test)]
mod script;
mod streams;
mod tls;
mod windows;
mod words;

pub use dissector::Dissector;

use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Protocol, Side};
use crate::flow::{FlowHead, Wants};
use crate::wire::Recognition;

/// Where an analyzer puts its events.
pub type Emit<'a> = &'a mut dyn FnMut(Event);

/// Reads one protocol on one flow, from the octets by which it was recognised. Events carry the side they were called with.
///
/// Both sides of a flow share one analyzer when they speak the same protocol; else each has its own and never hears of the other side.
pub trait Analyzer: Send {
    /// The next octets of a side, in order and in arbitrary pieces: the same octets give the same events however they are split.
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants;

    /// `missing` octets of a side will never come; whether the reader can go on behind them.
    fn gap(&mut self, side: Side, missing: u64) -> Wants;

    /// The side sends no more: it closed, or the capture or the flow's time is over. Whether the other end is at fault, rules decide.
    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>);

    /// Tells what was held back for brevity: a flow that is still open is to be judged.
    fn settle(&mut self, _emit: Emit<'_>) {}

    /// Octets of unfinished messages and of tables that it holds, about.
    fn held(&self) -> usize {
        0
    }

    /// Writes down all it knows, for a new one of its kind to go on from. `false`: it cannot, or only at length.
    fn freeze(&self, _into: &mut Freezer) -> bool {
        false
    }

    /// Knows what another one wrote down, on a new one; `false` when that makes no sense.
    fn thaw(&mut self, _from: &mut Thawer) -> bool {
        false
    }

    /// The roles were the wrong way round.
    fn flip(&mut self);
}

/// One protocol that is recognised by content.
pub struct Entry {
    /// Which.
    pub protocol: Protocol,
    /// What a side's first octets say. Must not change its mind: what follows a `Yes` or `No` makes no difference to it.
    pub recognise: fn(&Sample<'_>) -> Recognition,
    /// Its analyzer; `None` where the first octets are all there is to read.
    pub start: Option<fn() -> Box<dyn Analyzer>>,
    /// What its two sides say first differs so clearly that guessed roles are corrected by it.
    pub tells_roles: bool,
    /// Its messages begin so unmistakably that it is found in the middle of a stream, at the start of a segment.
    pub tells_itself: bool,
}

/// A side's first octets with what else may hint at their protocol.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Who is taken for their sender.
    pub side: Side,
    /// The octets so far, without what was looked through.
    pub bytes: &'a [u8],
    /// Octets before them are missing: they may begin in the middle of a message.
    pub late: bool,
    /// The flow.
    pub flow: &'a FlowHead,
}

/// All protocols. The first that says `Yes` is it, and one that needs more octets is waited for, so that the ones that decide by their
/// first octets come first.
pub static PROTOCOLS: &[Entry] = &[
    Entry {
        protocol: Protocol::Tls,
        recognise: recognise::tls,
        start: Some(tls::start),
        tells_roles: true,
        tells_itself: true,
    },
    Entry {
        protocol: Protocol::Http2,
        recognise: recognise::http2,
        start: Some(http2::start),
        tells_roles: true,
        tells_itself: true,
    },
    Entry {
        protocol: Protocol::Http,
        recognise: recognise::http,
        start: Some(http::start),
        tells_roles: true,
        tells_itself: true,
    },
    Entry {
        protocol: Protocol::Ssh,
        recognise: words::ssh,
        start: Some(words::start_ssh),
        tells_roles: false,
        tells_itself: false,
    },
    // A CONNACK is the beginning of what MySQL would wait to see more of.
    Entry {
        protocol: Protocol::Mqtt,
        recognise: words::mqtt,
        start: Some(words::start_mqtt),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Amqp,
        recognise: words::amqp,
        start: Some(words::start_amqp),
        tells_roles: false,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Mysql,
        recognise: words::mysql,
        start: Some(words::start_mysql),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Postgres,
        recognise: words::postgres,
        start: Some(words::start_postgres),
        tells_roles: true,
        tells_itself: false,
    },
    // Redis takes any line behind AUTH, and the errors of POP3, for its own.
    Entry {
        protocol: Protocol::Ftp,
        recognise: words::ftp,
        start: Some(words::start_ftp),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Pop3,
        recognise: words::pop3,
        start: Some(words::start_pop3),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Redis,
        recognise: words::redis,
        start: Some(words::start_redis),
        tells_roles: false,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Smtp,
        recognise: words::smtp,
        start: Some(words::start_smtp),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Imap,
        recognise: words::imap,
        start: Some(words::start_imap),
        tells_roles: true,
        tells_itself: false,
    },
    Entry {
        protocol: Protocol::Dns,
        recognise: dns::over_tcp,
        start: Some(dns::start),
        tells_roles: true,
        tells_itself: false,
    },
];

/// Where a side's state lies in a pair.
fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::script::{recorded, replay, replay_with};
    use super::*;
    use crate::event::h2::Stream;
    use crate::event::{Kind, What};

    /// Recordings of real software: their flows, played whole and in small pieces, must say the same.
    const RECORDED: [&str; 24] = [
        "healthy/02-curl-end-of-tls.pcap",
        "healthy/20-head-204-304.pcap",
        "healthy/21-chunked.pcap",
        "healthy/22-length-by-close.pcap",
        "healthy/23-connect-tunnel.pcap",
        "healthy/27-100-continue.pcap",
        "healthy/28b-tls13-hrr-first-lab.pcap",
        "healthy/29-tls-many-clients.pcap",
        "healthy/35-proxy-header-accepted.pcap",
        "healthy/38-408-on-idle-connection.pcap",
        "healthy/44-dns-aaaa-nodata-and-search-list.pcap",
        "healthy/87-http2-in-the-clear.pcap",
        "healthy/88-http2-upgraded.pcap",
        "healthy/89-grpc.pcap",
        "healthy/90-http2-starts-mid-stream.pcap",
        "rules/h2-stream-reset/flood-of-resets.pcap",
        "rules/unexpected-protocol-on-port/http-to-sshd.pcap",
        "rules/login-refused/postgresql-role-limit.pcap",
        "rules/login-refused/not-pg-isready-as-nobody.pcap",
        "rules/server-error-in-protocol/redis-out-of-memory.pcap",
        "rules/login-refused/redis-no-password.pcap",
        "rules/login-refused/not-redis-ping-without-password.pcap",
        "rules/upstream-hang/redis-stopped.pcap",
        "rules/server-error-in-protocol/postfix-relay-denied.pcap",
    ];

    fn told(play: &script::Play) -> Vec<(Side, What)> {
        let comparable = play.events.iter().filter(|e| e.what.kind() != Kind::ProxySplit);
        comparable.map(|e| (e.side, timeless(e.what.clone()))).collect()
    }

    /// Without the packets it points to: smaller pieces have other times.
    fn timeless(mut what: What) -> What {
        let streams: Vec<&mut Stream> = match &mut what {
            What::StreamReset(reset) => vec![&mut reset.stream],
            What::GrpcStatus(call) => vec![&mut call.stream],
            What::GoAway(farewell) => farewell.refused.iter_mut().chain(&mut farewell.waiting).collect(),
            _ => Vec::new(),
        };
        for stream in streams {
            (stream.asked, stream.request_end) = (None, None);
        }
        what
    }

    #[test]
    fn recorded_flows_say_the_same_however_their_octets_are_split() {
        for path in RECORDED {
            let flows = recorded(path);
            assert!(flows.iter().any(|(_, acts)| acts.len() > 3), "{path}");
            for (head, acts) in flows {
                let whole = told(&replay(head, &acts, usize::MAX));
                assert!(!whole.is_empty() || acts.is_empty(), "{path}: flow {}", head.id.number);
                for size in [1, 2, 5, 64] {
                    assert_eq!(told(&replay(head, &acts, size)), whole, "{path}: flow {}, {size}", head.id.number);
                }
            }
        }
    }

    #[test]
    fn recorded_flows_say_the_same_when_they_freeze_between_their_segments() {
        let (mut frozen, mut stayed) = (0, 0);
        for path in RECORDED {
            for (head, acts) in recorded(path) {
                for size in [usize::MAX, 3] {
                    let whole = replay(head, &acts, size).events;
                    let cold = replay_with(head, &acts, size, |play| {
                        *if play.freeze() { &mut frozen } else { &mut stayed } += 1
                    });
                    assert_eq!(cold.events, whole, "{path}: flow {}, {size}", head.id.number);
                }
            }
        }
        assert!(frozen > 10_000, "{frozen} and {stayed}");
    }

    #[test]
    fn healthy_recordings_break_nothing_off() {
        let unhealthy = [Kind::HttpBroken, Kind::TlsBroken, Kind::ResponseTruncated, Kind::ProxyBroken];
        for path in RECORDED.into_iter().filter(|path| path.starts_with("healthy")) {
            for (head, acts) in recorded(path) {
                for (side, what) in told(&replay(head, &acts, usize::MAX)) {
                    assert!(!unhealthy.contains(&what.kind()), "{path}: flow {}: {side:?} {what:?}", head.id.number);
                }
            }
        }
    }

    #[test]
    fn every_protocol_has_one_entry() {
        for (number, entry) in PROTOCOLS.iter().enumerate() {
            assert!(!PROTOCOLS.iter().skip(number + 1).any(|other| other.protocol == entry.protocol));
        }
    }
}
