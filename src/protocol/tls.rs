//! TLS on both sides: hellos, certificates and alerts while they are readable, then record headers only.
//!
//! RFC 8446, RFC 5246. What is encrypted is told by its size where one size means one thing (measured on OpenSSL, Go, Java, Node).

use super::{Analyzer, Emit, index};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::tls::{
    HandshakeJoiner, HandshakeMessage, RecordHeader, content, handshake, parse_alert, parse_certificates,
    parse_client_hello, parse_server_hello,
};

/// Record lengths of an encrypted alert in TLS 1.3: AEAD tag 16 + type 1 + alert 2; Java pads by 16.
const ALERT_SIZES: [u16; 2] = [19, 35];
/// Record lengths of Finished: SHA-256 and SHA-384 suites, and Java's padding of both.
const FINISHED_SIZES: [u16; 3] = [53, 69, 85];

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<Tls>::default()
}

#[derive(Default)]
struct Tls {
    sides: [Half; 2],
    /// Negotiated by a ServerHello that was seen.
    version: Option<u16>,
}

#[derive(Default)]
struct Half {
    /// A record header that is not complete yet.
    head: Vec<u8>,
    /// The record being read and how much of its body is still to come.
    record: Option<(RecordHeader, usize)>,
    /// A short body that is looked at as a whole.
    body: Vec<u8>,
    joiner: HandshakeJoiner,
    /// Handshake messages of this side can no longer be put together.
    torn: bool,
    /// ChangeCipherSpec was sent (TLS ≤ 1.2: everything after it is encrypted).
    changed: bool,
    finished: bool,
    data: bool,
    /// The latest record has the size of an encrypted alert: it is one if nothing follows.
    maybe_alert: Option<(PacketRef, u16)>,
}

impl Analyzer for Tls {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let mut rest = bytes;
        while !rest.is_empty() {
            let half = &mut self.sides[index(side)];
            let Some((header, left)) = half.record else {
                let used = (RecordHeader::LEN - half.head.len()).min(rest.len());
                half.head.extend_from_slice(&rest[..used]);
                rest = &rest[used..];
                match RecordHeader::parse(&half.head) {
                    Ok(header) => {
                        half.head.clear();
                        half.body.clear();
                        half.record = Some((header, usize::from(header.len)));
                        if header.len == 0 {
                            half.record = None;
                        }
                    }
                    Err(malformed) if malformed.need > 0 => return Wants::More,
                    Err(_) => {
                        emit(Event { at, side, what: What::TlsBroken });
                        return Wants::Nothing;
                    }
                }
                continue;
            };
            let used = left.min(rest.len());
            let (piece, later) = rest.split_at(used);
            rest = later;
            let complete = used == left;
            half.record = (!complete).then_some((header, left - used));
            self.piece(side, at, header, piece, complete, emit);
        }
        Wants::More
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        let half = &mut self.sides[index(side)];
        match half.record {
            Some((header, left)) if left as u64 >= missing => {
                half.torn |= header.content == content::HANDSHAKE;
                let left = left - missing as usize;
                half.record = (left > 0).then_some((header, left));
                half.body.clear();
                Wants::More
            }
            _ => Wants::Nothing,
        }
    }

    fn end(&mut self, side: Side, _at: PacketRef, emit: Emit<'_>) {
        if let Some((at, len)) = self.sides[index(side)].maybe_alert.take() {
            emit(Event { at, side, what: What::AlertEncrypted { len } });
        }
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
    }
}

impl Tls {
    fn is_13(&self) -> bool {
        self.version == Some(0x0304)
    }

    /// A part of a record's body.
    fn piece(&mut self, side: Side, at: PacketRef, header: RecordHeader, piece: &[u8], complete: bool, emit: Emit<'_>) {
        let encrypted = self.sides[index(side)].changed && !self.is_13();
        match header.content {
            content::HANDSHAKE if !encrypted && !self.sides[index(side)].torn => self.handshake(side, at, piece, emit),
            content::HANDSHAKE if complete => self.finished(side, at, emit),
            content::ALERT => {
                let half = &mut self.sides[index(side)];
                if header.len == 2 {
                    half.body.extend_from_slice(piece);
                }
                if complete {
                    let what = match parse_alert(&half.body) {
                        Some(alert) => What::AlertPlain(alert),
                        None => What::AlertEncrypted { len: header.len },
                    };
                    emit(Event { at, side, what });
                }
            }
            content::CHANGE_CIPHER_SPEC if complete => {
                self.sides[index(side)].changed = true;
                emit(Event { at, side, what: What::ChangeCipherSpec });
            }
            content::APPLICATION_DATA if complete => self.application(side, at, header.len, emit),
            _ => {}
        }
    }

    fn handshake(&mut self, side: Side, at: PacketRef, piece: &[u8], emit: Emit<'_>) {
        let mut joiner = std::mem::take(&mut self.sides[index(side)].joiner);
        let joined = joiner.push(piece, |message| {
            if let Some(what) = meaning(&message) {
                if let What::ServerHello(hello) = &what
                    && !hello.retry_request
                {
                    self.version = Some(hello.version);
                }
                emit(Event { at, side, what });
            }
        });
        let half = &mut self.sides[index(side)];
        half.joiner = joiner;
        half.torn |= joined.is_err();
    }

    fn finished(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        let half = &mut self.sides[index(side)];
        if !half.finished {
            half.finished = true;
            emit(Event { at, side, what: What::TlsFinished });
        }
    }

    /// An application data record: in TLS 1.3 everything after ServerHello looks like one.
    fn application(&mut self, side: Side, at: PacketRef, len: u16, emit: Emit<'_>) {
        let is_13 = self.is_13();
        let client_finished = self.sides[index(Side::Client)].finished;
        let half = &mut self.sides[index(side)];
        half.maybe_alert = None;
        if !is_13 {
            return half.data(side, at, emit);
        }
        let alert_sized = ALERT_SIZES.contains(&len);
        match side {
            Side::Client if !half.finished && alert_sized => {
                emit(Event { at, side, what: What::AlertEncrypted { len } });
            }
            Side::Client if !half.finished && FINISHED_SIZES.contains(&len) => self.finished(side, at, emit),
            Side::Client if !half.finished => {}
            Side::Server if !client_finished => {}
            _ if alert_sized => half.maybe_alert = Some((at, len)),
            _ => half.data(side, at, emit),
        }
    }
}

impl Half {
    fn data(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if !self.data {
            self.data = true;
            emit(Event { at, side, what: What::TlsData });
        }
    }
}

/// The handshake messages that diagnoses use.
fn meaning(message: &HandshakeMessage<'_>) -> Option<What> {
    match message.kind {
        handshake::CLIENT_HELLO => parse_client_hello(message.bytes).ok().map(|hello| What::ClientHello(Box::new(hello))),
        handshake::SERVER_HELLO => parse_server_hello(message.bytes).ok().map(|hello| What::ServerHello(Box::new(hello))),
        handshake::CERTIFICATE => {
            parse_certificates(message.bytes).ok().map(|chain| What::Certificates(Box::new(chain)))
        }
        handshake::CERTIFICATE_REQUEST => Some(What::CertificateRequest),
        _ => None,
    }
}
