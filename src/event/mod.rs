//! What can happen on a flow, as plain values.
//!
//! An event owns nothing of the packet: it points to it ([`PacketRef`]) and keeps at most a short excerpt. Every event has a [`Kind`], one
//! bit each, so that a rule can say in one comparison whether it has anything to look at.

pub mod cold;
pub mod errors;
pub mod h2;
mod stamp;
pub mod story;

use serde::{Deserialize, Serialize};

use self::h2::{Farewell, FullHouse, GrpcStatus, StreamReset};
pub(crate) use self::stamp::Stamp;
use crate::time::{Elapsed, Timestamp};
use crate::wire::dns::DnsMessage;
use crate::wire::h2::Settings;
use crate::wire::http::{RequestHead, ResponseHead};
use crate::wire::icmp::IcmpError;
use crate::wire::proxy::{BrokenHeader, ProxyHeader};
use crate::wire::text::Greeting;
use crate::wire::text::failure::{Class, Failure};
use crate::wire::tls::{Alert, Certificate, ClientHello, ServerHello};

/// Which packet: the input, its 1-based frame number (the one Wireshark shows) and its time. Ordered by (time, file, number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PacketRef {
    /// Index of the input.
    pub file: u16,
    /// Frame number in that input.
    pub number: u64,
    /// Capture time.
    pub time: Timestamp,
}

impl PartialOrd for PacketRef {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PacketRef {
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Two packets hardly ever have one time.
        let rest = || (self.file, self.number).cmp(&(other.file, other.number));
        self.time.cmp(&other.time).then_with(rest)
    }
}

/// One end of a flow, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Who opened the connection.
    Client,
    /// Who was asked.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One thing that happened on a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The packet that shows it.
    pub at: PacketRef,
    /// Who did it.
    pub side: Side,
    /// What it was.
    pub what: What,
}

/// The protocols that are recognised by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A PROXY protocol header; what follows it is recognised apart.
    Proxy,
    /// TLS records.
    Tls,
    /// HTTP/1.x.
    Http,
    /// HTTP/2 with prior knowledge (preface seen).
    Http2,
    /// DNS over UDP or TCP.
    Dns,
    /// SSH identification string.
    Ssh,
    /// SMTP.
    Smtp,
    /// MySQL or MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// FTP, its control connection.
    Ftp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// AMQP 0-9-1 or 1.0.
    Amqp,
    /// MQTT 3.1.1 or 5.
    Mqtt,
    /// Octets that fit none of the above.
    Unknown,
}

impl Protocol {
    /// The name people use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "PROXY",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Http2 => "HTTP/2",
            Self::Dns => "DNS",
            Self::Ssh => "SSH",
            Self::Smtp => "SMTP",
            Self::Mysql => "MySQL",
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::Ftp => "FTP",
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Amqp => "AMQP",
            Self::Mqtt => "MQTT",
            Self::Unknown => "an unknown protocol",
        }
    }
}

/// The flags of a RST say who sent it (measured on Linux).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResetKind {
    /// RST+ACK that acknowledges a SYN: no listener.
    Refused,
    /// RST+ACK at the sender's next sequence number: a live socket was aborted.
    Abort,
    /// RST without ACK whose seq is the ack number of the packet it answers: the kernel has no such connection.
    Stray,
    /// Does not fit the side's sequence, TTL or IP id: probably injected.
    Edge,
    /// After the sender's own FIN, or in reply to data sent after it: the reader went away. No anomaly by itself.
    AfterFin,
}

/// Why octets were sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retransmission {
    /// Timer: no acknowledgment within the RTO.
    Timeout,
    /// Three duplicate acknowledgments or SACK.
    Fast,
    /// Tail loss probe, RFC 8985 §7: one copy of the last segment after about two round trips.
    TailProbe,
    /// The receiver had it (DSACK or an acknowledgment already seen).
    Spurious,
}

macro_rules! events {
    ($( $(#[$doc:meta])* $name:ident $({ $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? })? $(($inner:ty))? , )*
     ; $( $(#[$adoc:meta])* $aspect:ident, )*) => {
        /// What happened. Each variant says when it is emitted, and when not.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum What { $( $(#[$doc])* $name $({ $($(#[$fdoc])* $field: $ty),* })? $(($inner))?, )* }

        /// The kind of an event, or what such an event holds beside it: one bit of a [`KindSet`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Kind { $( $(#[$doc])* $name, )* $( $(#[$adoc])* $aspect, )* }

        impl Kind {
            /// How many there are.
            const COUNT: usize = [$( Kind::$name, )* $( Kind::$aspect, )*].len();
        }

        impl What {
            /// The bit of this event.
            pub fn kind(&self) -> Kind {
                match self { $( events!(@pat $name $({ $($field),* })? $(($inner))?) => Kind::$name, )* }
            }
        }
    };
    (@pat $name:ident { $($field:ident),* }) => { Self::$name { .. } };
    (@pat $name:ident ($inner:ty)) => { Self::$name(_) };
    (@pat $name:ident) => { Self::$name };
}

events! {
    /// A SYN without ACK. Emitted for the first copy only.
    Syn { /// The SYN carries payload (fast open).
          fast_open: bool },
    /// A later copy of the same SYN.
    SynRetransmitted { /// Time since the first copy.
          after: Elapsed },
    /// SYN+ACK, first copy.
    SynAck,
    /// A later copy of the SYN+ACK.
    SynAckRetransmitted { /// Time since the first copy.
          after: Elapsed },
    /// The client's ACK completed the handshake. Not emitted when SYN or SYN+ACK are missing from the capture.
    Established,
    /// The first packet is no SYN: the flow began before the capture.
    MidStream,
    /// A SYN with a new initial sequence number on the same ports; the earlier flow was closed or forgotten.
    PortReused,
    /// RST, classified. Emitted for the first RST of each side and each kind.
    Reset { /// Its kind.
          kind: ResetKind,
          /// Octets of the peer's stream that arrived at the sender of the RST but lie beyond its acknowledgment number (unread data).
          unread: u32 },
    /// First FIN of a side, once all its octets before it are in the capture or known to be lost to it.
    Fin,
    /// The peer acknowledged the FIN.
    FinAcknowledged,
    /// First payload octets of a side.
    FirstPayload,
    /// The first payload octets of a side were acknowledged by the peer (a pure or piggybacked ACK).
    FirstPayloadAcknowledged,
    /// Octets that had been sent before. Bounded: the first of each episode.
    Retransmitted { /// Why.
          kind: Retransmission,
          /// The first copy, when the capture has it (then the loss lies behind the capture point).
          original: Option<PacketRef> },
    /// A hole was filled by a late packet without having been sent twice.
    Reordered,
    /// The receiver acknowledged octets that the capture never saw.
    CaptureHole { /// Octets missing.
          missing: u64 },
    /// A packet without payload whose number says that octets were sent before it which the capture does not have. Told once for each side.
    PassedOver,
    /// Octets at one place of the stream differ between two copies; the first one counts.
    OverlapConflict,
    /// A probe that repeats one old octet (or none) on an idle flow.
    KeepAlive,
    /// The answer to it.
    KeepAliveAnswered,
    /// The side advertises a receive window of 0.
    ZeroWindow,
    /// It opened again.
    WindowOpened { /// How long it was closed.
          after: Elapsed },
    /// The peer probes a closed window.
    ZeroWindowProbe,
    /// The very same packet comes by again at the same place with a lower TTL: routers pass it round. Told for the first few of a flow.
    WentRound { /// Its first passage.
                original: PacketRef,
                /// TTL then.
                from: u8,
                /// TTL now.
                to: u8 },
    /// Payload of one packet is larger than the peer's MSS: segmentation offload at the capture host.
    Oversized,
    /// TCP checksum does not fit (looked at for the first segments of a flow only).
    BadChecksum,
    /// The segment came damaged: its checksum is wrong, nobody acknowledged it, and its octets came again. Told for the first few of a flow.
    Damaged { /// The copy that came right.
              again: PacketRef },
    /// The capture kept only part of a payload.
    CutShort,
    /// An ICMP error quotes this flow.
    Icmp(Box<IcmpError>),
    /// The first octets of a side were recognised.
    Recognised { /// As what.
          protocol: Protocol },
    /// A whole PROXY header was read at the start of the client's stream.
    ProxyHeader(Box<ProxyHeader>),
    /// A second PROXY header directly behind the first.
    ProxyHeaderAgain(Box<ProxyHeader>),
    /// The stream begins as a PROXY header and breaks a rule of it.
    ProxyBroken(Box<BrokenHeader>),
    /// The header's octets came in more than one segment.
    ProxySplit { /// How many segments.
          segments: u32 },
    /// The stream ended before the header was complete.
    ProxyIncomplete { /// Octets that came.
          got: u32 },
    /// A whole ClientHello.
    ClientHello(Box<ClientHello>),
    /// A whole ServerHello (a HelloRetryRequest too).
    ServerHello(Box<ServerHello>),
    /// A readable Certificate message (TLS ≤ 1.2); the chain, leaf first. Also emitted for an empty list, that of a TLS 1.3 client too: its
    /// record's length tells it.
    Certificates(Box<Vec<Certificate>>),
    /// A readable CertificateRequest.
    CertificateRequest,
    /// ChangeCipherSpec.
    ChangeCipherSpec,
    /// An alert that can be read: plain state and length 2.
    AlertPlain(Alert),
    /// A record that must be an encrypted alert: type 21 after encryption began; in 1.3 by its size, before the client's Finished or as the
    /// last record of a side that ended.
    AlertEncrypted { /// Record length.
          len: u16,
          /// TLS 1.3: the side said nothing else behind its Finished, no session ticket either, or nothing else behind its ServerHello.
          alone: bool },
    /// The first record of a TLS 1.3 client behind the hellos when by its length it can only be a Certificate message that is not empty.
    CertificateSealed { /// Record length.
          len: u16 },
    /// A record that by its size must be a Finished message (TLS 1.3 sizes) or follows ChangeCipherSpec (1.2).
    TlsFinished,
    /// First application data record of a side (TLS 1.3: after handshake records and session tickets were accounted for).
    TlsData,
    /// The last session ticket of a TLS 1.3 server, where the client's data was on its way already: they came behind it and answer nothing.
    TlsTickets,
    /// A server sends no more: what its application data records hold, alerts and tickets left out.
    TlsSealed { /// Records.
                records: u32,
                /// Octets in them, header fields of the records and what seals them left out (RFC 8446 §5.2, RFC 5288 §3).
                clear: u64 },
    /// A side sends no more, and its last record is not whole. Not told behind a hole, nor before the handshake is over.
    TlsCut { /// Octets of the record that are missing; `None` when not even its header is whole.
             missing: Option<u16> },
    /// A record header that no TLS allows after TLS began: plain text on a TLS connection.
    TlsBroken,
    /// A whole request head. After the first 16 exchanges of a connection only unusual ones and the latest are told.
    Request(Box<RequestHead>),
    /// Request head and body are complete.
    RequestEnd,
    /// A whole response head (1xx included).
    Response(Box<ResponseHead>),
    /// The response is complete by its framing.
    ResponseEnd,
    /// The stream ended before the framing was satisfied.
    ResponseTruncated { /// Octets missing where the length was promised.
          missing: Option<u64> },
    /// The snaplen cut the head of an answer whose status line tells an error (5xx).
    ErrorCut { /// The status.
          status: u16 },
    /// The octets are no HTTP although the stream began as HTTP.
    HttpBroken,
    /// The page of a plain-text 400 says that the port speaks TLS (nginx, Apache and Go say so in words).
    TlsWanted,
    /// HTTP/2: the first SETTINGS of a side.
    Settings(Settings),
    /// HTTP/2: the side confirmed the other's SETTINGS, for the first time.
    SettingsTaken,
    /// HTTP/2: the client keeps as many streams open as the server permits, and takes each place that becomes free at once. Told when that
    /// has lasted for 1 s, and once more when the flow is judged.
    StreamsFull(Box<FullHouse>),
    /// HTTP/2: one direction of a stream is complete; `RequestEnd` and `ResponseEnd` are told for HTTP/1 only.
    StreamEnd { /// The stream.
                stream: u32 },
    /// HTTP/2: a stream was reset. The first 8 of a side are told; then every doubling of their number, and the hundredth of a second.
    StreamReset(Box<StreamReset>),
    /// HTTP/2: GOAWAY, the first 4 of a side.
    GoAway(Box<Farewell>),
    /// A gRPC call ended with a status other than OK. The first 8 of a connection are told, then every doubling of their number.
    GrpcStatus(Box<GrpcStatus>),
    /// HTTP/2: the side sent all that a window allows, and the stream has not ended. Told once it was closed for 1 s, or is when the flow is
    /// judged.
    StreamWindowClosed { /// The stream.
                         stream: u32,
                         /// It is the window of the whole connection.
                         whole: bool },
    /// HTTP/2: the receiver opened it again.
    StreamWindowOpened { /// The stream.
                         stream: u32,
                         /// How long it was closed.
                         after: Elapsed },
    /// HTTP/2: header fields refer to some that were sent before the capture, or in a hole: they are shown by their index (`?62`).
    FieldsUnknown,
    /// A DNS query or answer.
    Dns(Box<DnsMessage>),
    /// The first words of a service, or of a client of it; also a complaint of an SSH or SMTP server right behind its greeting.
    Greeting(Box<Greeting>),
    /// A service refuses a login, or reports to a client it had let in that something is wrong. The first 8 of a connection are told, then
    /// every doubling of their number.
    Failure(Box<Failure>),
    /// PostgreSQL: the first octet of an answer came 1 s or more after its question. The first 8 of a connection are told, then every
    /// doubling of their number.
    AnswerLate(Box<LateAnswer>),
    /// Redis: no octet of an answer came since the client's latest commands, and all of these are answered at once. Told when the flow is
    /// judged or a side ends, in the packet that completed the latest one.
    CommandWaits { /// Its name.
                   command: String },
    /// The first payload of a side that nothing recognised, or of a PROXY header that is not whole; kept for the excerpt.
    Excerpt { /// First octets, at most 32.
          octets: Vec<u8> },
    ;
    /// A response of 400 or more.
    ErrorStatus,
    /// A response head of [`LARGE_HEAD`] octets or more.
    LargeHead,
    /// A head whose fields contradict each other.
    Contradictory,
    /// A request that wants leave to send its body.
    ExpectsContinue,
    /// A request that asks for another protocol.
    AsksUpgrade,
    /// A DNS answer with another code than 0.
    LookupFailed,
    /// A DNS answer that was cut to fit its datagram.
    LookupCut,
    /// A DNS answer that says by an extended error why it is as it is.
    LookupExplained,
    /// A failure by which a login is refused.
    LoginRefused,
}

/// An answer that came late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateAnswer {
    /// The packet that completed the oldest question that it answers.
    pub asked: PacketRef,
}

/// From so many octets on a response head is too large for some proxies.
pub const LARGE_HEAD: u32 = 4_000;

impl What {
    /// Adds what an event holds beside its kind, so that rules about the unusual need not look at what is usual.
    fn aspects(&self, seen: &mut KindSet) {
        let mut note = |holds: bool, aspect: Kind| {
            if holds {
                seen.insert(aspect);
            }
        };
        match self {
            Self::Request(head) => {
                note(head.conflict.is_some(), Kind::Contradictory);
                note(head.expects_continue, Kind::ExpectsContinue);
                note(head.upgrade.is_some(), Kind::AsksUpgrade);
            }
            Self::Response(head) => {
                note(head.status >= 400, Kind::ErrorStatus);
                note(head.len >= LARGE_HEAD, Kind::LargeHead);
                note(head.conflict.is_some(), Kind::Contradictory);
            }
            Self::Dns(message) if message.response => {
                note(message.rcode != 0, Kind::LookupFailed);
                note(message.truncated, Kind::LookupCut);
                note(message.extended_error.is_some(), Kind::LookupExplained);
            }
            Self::Failure(failure) => note(failure.class == Class::Login, Kind::LoginRefused),
            _ => {}
        }
    }
}

const _: () = assert!(Kind::COUNT <= 128, "a set has room for them");

/// A set of [`Kind`]s in 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KindSet([u64; 2]);

impl KindSet {
    /// No kind.
    pub const EMPTY: Self = Self([0; 2]);

    /// The set of `kinds`.
    pub const fn of(kinds: &[Kind]) -> Self {
        let mut bits = [0u64; 2];
        let mut i = 0;
        while i < kinds.len() {
            let bit = kinds[i] as usize;
            bits[bit / 64] |= 1 << (bit % 64);
            i += 1;
        }
        Self(bits)
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        let bit = kind as usize;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether `kind` is in the set.
    pub fn has(&self, kind: Kind) -> bool {
        let bit = kind as usize;
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    /// Whether every kind of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(mine, theirs)| mine & theirs == theirs)
    }

    /// Whether at least one kind of `other` is in this set.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(mine, theirs)| mine & theirs != 0)
    }
}
