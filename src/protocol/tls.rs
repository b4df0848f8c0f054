//! TLS on both sides: hellos, certificates and alerts while they are readable, then record headers only.
//!
//! RFC 8446 (1.3), RFC 5246 (1.2). What is encrypted is told by its record's length where one length means one thing; the lengths were
//! measured on OpenSSL, Go, Java and Node. In TLS 1.3 a ChangeCipherSpec changes nothing (appendix D.4); before, everything behind it is
//! encrypted.

use serde::{Deserialize, Serialize};

use super::{Analyzer, Emit, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::Recognition;
use crate::wire::tls::{
    HandshakeJoiner, HandshakeMessage, RecordHeader, content, handshake, looks_like_sslv2_hello, parse_alert,
    parse_certificates, parse_client_hello, parse_server_hello,
};

const TLS_1_3: u16 = 0x0304;
/// The only suite of TLS 1.3 in use whose Finished is a SHA-384 one. RFC 8446 §B.4.
const AES_256_GCM_SHA384: u16 = 0x1302;
/// Record lengths of TLS 1.3 (§5.2): content, one octet of type, 16 of AEAD tag; Java pads by 16 more.
mod sizes {
    /// Two octets of alert.
    pub(super) const ALERT: [u16; 2] = [19, 35];
    /// A client Certificate message without certificates.
    pub(super) const NO_CERTIFICATE: [u16; 2] = [25, 41];
    /// No certificate is that small, and every Finished is smaller.
    pub(super) const CERTIFICATE: u16 = 128;
    /// Finished of a SHA-256 suite.
    pub(super) const FINISHED_256: [u16; 2] = [53, 69];
    /// Finished of a SHA-384 suite.
    pub(super) const FINISHED_384: [u16; 2] = [69, 85];
    /// No session ticket is that small.
    pub(super) const TICKET: u16 = 64;
    /// What a record holds besides its content: type and tag; before 1.3 (GCM) an explicit nonce and the tag.
    pub(super) const SEAL_13: u16 = 17;
    pub(super) const SEAL_12: u16 = 24;
}
/// Encrypted handshake records of one side, all of them: EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify, Finished
/// of a server, Certificate, CertificateVerify, Finished of a client; then data, though no Finished was told by its length.
const HANDSHAKE_RECORDS: [u8; 2] = [4, 8];

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<Tls>::default()
}

#[derive(Default, Serialize, Deserialize)]
struct Tls {
    sides: [Half; 2],
    /// What a ServerHello chose, when one was seen.
    chosen: Option<Chosen>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Chosen {
    version: u16,
    cipher: u16,
}

#[derive(Default, Serialize, Deserialize)]
struct Half {
    place: Place,
    /// Octets of the record being read that are looked at as a whole: an alert.
    alert: Vec<u8>,
    joiner: HandshakeJoiner,
    /// Records were read.
    begun: bool,
    /// The stream was followed from its hello without a hole: what is no record is plain text.
    firm: bool,
    /// Handshake messages can no longer be put together.
    torn: bool,
    /// ChangeCipherSpec was sent.
    changed: bool,
    finished: bool,
    data: bool,
    /// Records of data, and the octets in them.
    records_of_data: u32,
    clear: u64,
    /// Encrypted handshake records of TLS 1.3.
    records: u8,
    /// Data records of TLS 1.3, for the peer to tell tickets from answers.
    asked: u32,
    /// The latest record has the length of an encrypted alert: it is one if nothing follows it.
    maybe_alert: Option<MaybeAlert>,
    /// Encrypted records of TLS 1.3 came behind its Finished.
    behind: bool,
    tickets: Tickets,
}

/// A record as long as an encrypted alert.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct MaybeAlert {
    at: PacketRef,
    len: u16,
    /// It is the first one behind the side's Finished, or behind its ServerHello.
    alone: bool,
}

/// Where a side's stream stands.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Place {
    /// In a record header, of which these octets came.
    Header { octets: [u8; RecordHeader::LEN], have: usize },
    /// In a record's body, of which so much is still to come.
    Body { header: RecordHeader, left: usize },
    /// Behind a hole: in the middle of some record.
    Lost,
}

impl Default for Place {
    fn default() -> Self {
        Self::Header { octets: [0; RecordHeader::LEN], have: 0 }
    }
}

impl Place {
    /// Behind the header of a record.
    fn before(header: RecordHeader) -> Self {
        match usize::from(header.len) {
            0 => Self::default(),
            left => Self::Body { header, left },
        }
    }
}

/// What a TLS 1.3 server sends behind the client's Finished: OpenSSL two tickets of one length, others one or none, then data.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
enum Tickets {
    /// Nothing yet.
    #[default]
    Expected,
    /// One record that may be a ticket or data.
    One { len: u16, at: PacketRef, asked: u32 },
    /// What comes now is data.
    Over,
}

impl Analyzer for Tls {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let mut rest = bytes;
        while !rest.is_empty() {
            let half = &mut self.sides[index(side)];
            if let Some((len, later)) = half.whole_data(rest) {
                rest = later;
                self.application(side, at, len, emit);
                continue;
            }
            match half.place {
                Place::Lost => match RecordHeader::parse(rest) {
                    // Four in ten million random beginnings pass for a record header.
                    Ok(RecordHeader { version: 0x0301..=0x0304, .. }) => half.place = Place::default(),
                    _ => return Wants::More,
                },
                Place::Header { octets, have } => match half.header(octets, have, rest) {
                    Some(used) => rest = rest.get(used..).unwrap_or(&[]),
                    None if half.firm => {
                        emit(Event { at, side, what: What::TlsBroken });
                        return Wants::Nothing;
                    }
                    None => {
                        half.place = Place::Lost;
                        return Wants::More;
                    }
                },
                // Nothing is looked at inside of data, and most of a stream is that.
                Place::Body { header: header @ RecordHeader { content: content::APPLICATION_DATA, .. }, left }
                    if half.begun && left > rest.len() =>
                {
                    half.place = Place::Body { header, left: left - rest.len() };
                    return Wants::More;
                }
                Place::Body { header, left } => {
                    let (piece, later) = rest.split_at(left.min(rest.len()));
                    rest = later;
                    half.place = match left - piece.len() {
                        0 => Place::default(),
                        left => Place::Body { header, left },
                    };
                    let complete = piece.len() == left;
                    self.body(side, at, header, piece, complete, emit);
                }
            }
        }
        Wants::More
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        let half = &mut self.sides[index(side)];
        half.firm = false;
        half.alert.clear();
        half.place = match half.place {
            Place::Body { header, left } if left as u64 >= missing => {
                half.torn |= header.content == content::HANDSHAKE;
                match left - missing as usize {
                    0 => Place::default(),
                    left => Place::Body { header, left },
                }
            }
            _ => {
                half.torn = true;
                Place::Lost
            }
        };
        Wants::More
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if let Some(MaybeAlert { at, len, alone }) = self.sides[index(side)].maybe_alert.take() {
            emit(Event { at, side, what: What::AlertEncrypted { len, alone } });
        }
        if side == Side::Server {
            self.settle(emit);
            let [_, Half { records_of_data: records, clear, .. }] = self.sides;
            if records > 0 {
                emit(Event { at, side, what: What::TlsSealed { records, clear } });
            }
        }
        if let Some(missing) = self.sides[index(side)].cut() {
            emit(Event { at, side, what: What::TlsCut { missing } });
        }
    }

    fn settle(&mut self, emit: Emit<'_>) {
        // One record is all that came back for the client's data.
        let [client, server] = &mut self.sides;
        if let Tickets::One { at, len, .. } = server.tickets
            && client.data
        {
            server.tickets = Tickets::Over;
            server.data(Side::Server, at, emit);
            server.sealed(len, sizes::SEAL_13);
        }
    }

    fn held(&self) -> usize {
        self.sides.iter().map(|half| half.joiner.held() + half.alert.capacity()).sum()
    }

    fn freeze(&self, into: &mut Freezer) -> bool {
        into.put(self).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        from.take().map(|known| *self = known).is_some()
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
    }
}

impl Tls {
    fn is_13(&self) -> bool {
        self.chosen.is_some_and(|chosen| chosen.version == TLS_1_3)
    }

    /// A part of a record's body, `complete` when it reaches the body's end.
    fn body(&mut self, side: Side, at: PacketRef, header: RecordHeader, piece: &[u8], complete: bool, emit: Emit<'_>) {
        let is_13 = self.is_13();
        let half = &mut self.sides[index(side)];
        let encrypted = half.changed && !is_13;
        if !std::mem::replace(&mut half.begun, true) {
            half.first(header, piece);
        }
        match header.content {
            content::HANDSHAKE if encrypted && !complete => {}
            content::HANDSHAKE if encrypted => half.finish(side, at, emit),
            content::HANDSHAKE if !half.torn => self.handshake(side, at, piece, emit),
            content::ALERT => {
                half.alert.extend_from_slice(piece.get(..2).unwrap_or(piece));
                if complete {
                    // What is encrypted has a tag or MAC besides its two octets.
                    let plain = if header.len == 2 && !encrypted { parse_alert(&half.alert) } else { None };
                    let what = plain.map_or(What::AlertEncrypted { len: header.len, alone: false }, What::AlertPlain);
                    half.alert.clear();
                    emit(Event { at, side, what });
                }
            }
            content::CHANGE_CIPHER_SPEC if complete => {
                half.changed = true;
                emit(Event { at, side, what: What::ChangeCipherSpec });
            }
            content::APPLICATION_DATA if complete => self.application(side, at, header.len, emit),
            _ => {}
        }
    }

    fn handshake(&mut self, side: Side, at: PacketRef, piece: &[u8], emit: Emit<'_>) {
        let Self { sides, chosen } = self;
        let half = &mut sides[index(side)];
        let joined = half.joiner.push(piece, |message| {
            let Some(what) = meaning(&message) else { return };
            if let What::ServerHello(hello) = &what {
                *chosen = Some(Chosen { version: hello.version, cipher: hello.cipher });
            }
            emit(Event { at, side, what });
        });
        half.torn |= joined.is_err();
    }

    /// An application data record: in TLS 1.3 everything encrypted looks like one.
    fn application(&mut self, side: Side, at: PacketRef, len: u16, emit: Emit<'_>) {
        let half = &mut self.sides[index(side)];
        let alone = half.finished && !std::mem::replace(&mut half.behind, true);
        let [client, server] = &mut self.sides;
        let is_13 = match self.chosen {
            Some(chosen) => chosen.version == TLS_1_3,
            // Without the server's direction: a client that sends no Finished of the old kind speaks TLS 1.3.
            None => side == Side::Client && client.firm && !client.finished,
        };
        let alert = len == sizes::ALERT[0] || len == sizes::ALERT[1];
        match side {
            Side::Client if !is_13 => client.data(side, at, emit),
            Side::Client if alert && client.finished => client.maybe_alert = Some(MaybeAlert { at, len, alone }),
            Side::Client if alert => emit(Event { at, side, what: What::AlertEncrypted { len, alone } }),
            Side::Client if client.finished => {
                client.maybe_alert = None;
                client.asked = client.asked.wrapping_add(1);
                client.data(side, at, emit);
            }
            Side::Server if !is_13 => server.data(side, at, emit),
            Side::Server if alert => {
                let first = server.records == 0 && !server.finished && !client.finished;
                server.maybe_alert = Some(MaybeAlert { at, len, alone: alone || first });
            }
            Side::Server if client.finished => {
                server.maybe_alert = None;
                server.behind_handshake(at, len, client.asked, emit);
            }
            _ => self.encrypted_handshake(side, at, len, emit),
        }
        let server = &mut self.sides[index(Side::Server)];
        if side == Side::Server && server.data && server.maybe_alert.is_none() {
            server.sealed(len, if is_13 { sizes::SEAL_13 } else { sizes::SEAL_12 });
        }
    }

    /// A record of TLS 1.3 before the client's Finished.
    fn encrypted_handshake(&mut self, side: Side, at: PacketRef, len: u16, emit: Emit<'_>) {
        let finished: &[u16] = match self.chosen {
            Some(Chosen { cipher: AES_256_GCM_SHA384, .. }) => &sizes::FINISHED_384,
            Some(_) => &sizes::FINISHED_256,
            None => &[53, 69, 85],
        };
        let half = &mut self.sides[index(side)];
        half.maybe_alert = None;
        if half.records == 0 && side == Side::Client {
            let what = match len {
                len if sizes::NO_CERTIFICATE.contains(&len) => Some(What::Certificates(Box::default())),
                // Before the ServerHello it may be early data.
                len if len >= sizes::CERTIFICATE && self.chosen.is_some() => Some(What::CertificateSealed { len }),
                _ => None,
            };
            what.into_iter().for_each(|what| emit(Event { at, side, what }));
        }
        half.records = half.records.saturating_add(1);
        if finished.contains(&len) && !half.finished {
            half.finish(side, at, emit);
        } else if half.records > HANDSHAKE_RECORDS[index(side)] {
            half.finished = true;
            half.data(side, at, emit);
        }
    }
}

impl Half {
    /// The length of a record of data that lies whole at the front of `rest`, and what follows it: most of what comes.
    fn whole_data<'a>(&self, rest: &'a [u8]) -> Option<(u16, &'a [u8])> {
        let Place::Header { have: 0, .. } = self.place else { return None };
        let &[content::APPLICATION_DATA, _, _, high, low, ..] = rest else { return None };
        let len = u16::from_be_bytes([high, low]);
        let later = rest.get(RecordHeader::LEN + usize::from(len)..)?;
        (self.begun && len > 0 && RecordHeader::parse(rest).is_ok()).then_some((len, later))
    }

    /// Takes octets of a record header; how many. `None` when no record begins like this.
    fn header(&mut self, mut octets: [u8; RecordHeader::LEN], have: usize, rest: &[u8]) -> Option<usize> {
        if !self.begun && have == 0 && looks_like_sslv2_hello(rest) == Recognition::Yes {
            // Stepped over as one record; records follow it.
            let &[a, b, ..] = rest else { return None };
            let left = usize::from(u16::from_be_bytes([a & 0x7f, b])) + 2;
            let header = RecordHeader { content: content::HEARTBEAT, version: 0x0002, len: 0 };
            (self.begun, self.firm) = (true, true);
            self.place = Place::Body { header, left };
            return Some(0);
        }
        if have == 0
            && let Ok(header) = RecordHeader::parse(rest)
        {
            self.place = Place::before(header);
            return Some(RecordHeader::LEN);
        }
        let mut used = 0;
        for (slot, octet) in octets.iter_mut().skip(have).zip(rest) {
            *slot = *octet;
            used += 1;
        }
        let have = have + used;
        self.place = match RecordHeader::parse(octets.get(..have)?) {
            Ok(header) => Place::before(header),
            Err(malformed) if malformed.need > 0 => Place::Header { octets, have },
            Err(_) => return None,
        };
        Some(used)
    }

    /// The first record: a hello or a plain alert opens a stream, anything else is the middle of one.
    fn first(&mut self, header: RecordHeader, body: &[u8]) {
        let hello = header.content == content::HANDSHAKE
            && matches!(body.first(), Some(&(handshake::CLIENT_HELLO | handshake::SERVER_HELLO)));
        self.firm = hello || (header.content == content::ALERT && header.len == 2);
        self.torn |= !hello;
    }

    fn finish(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if !std::mem::replace(&mut self.finished, true) {
            emit(Event { at, side, what: What::TlsFinished });
        }
    }

    /// Inside of which record the stream stands behind the handshake; `None` between two, or where that is not known.
    fn cut(&self) -> Option<Option<u16>> {
        match self.place {
            _ if !self.firm || !self.data => None,
            Place::Header { have: 0, .. } | Place::Lost => None,
            Place::Header { .. } => Some(None),
            Place::Body { left, .. } => Some(Some(u16::try_from(left).unwrap_or(u16::MAX))),
        }
    }

    fn sealed(&mut self, len: u16, seal: u16) {
        self.records_of_data = self.records_of_data.saturating_add(1);
        self.clear += u64::from(len.saturating_sub(seal));
    }

    fn data(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if !std::mem::replace(&mut self.data, true) {
            emit(Event { at, side, what: What::TlsData });
        }
    }

    /// A record of a TLS 1.3 server behind the client's Finished, when the client had sent `asked` records of data: tickets are no answer.
    fn behind_handshake(&mut self, at: PacketRef, len: u16, asked: u32, emit: Emit<'_>) {
        self.tickets = match self.tickets {
            Tickets::Expected if len >= sizes::TICKET => Tickets::One { len, at, asked },
            // Two tickets come together and have one length.
            Tickets::One { len: before, asked: then, .. } if before == len && then == asked => {
                if asked > 0 {
                    emit(Event { at, side: Side::Server, what: What::TlsTickets });
                }
                Tickets::Over
            }
            _ => {
                self.data(Side::Server, at, emit);
                Tickets::Over
            }
        };
    }
}

/// The handshake messages that diagnoses use.
fn meaning(message: &HandshakeMessage<'_>) -> Option<What> {
    match message.kind {
        handshake::CLIENT_HELLO => {
            parse_client_hello(message.bytes).ok().map(|hello| What::ClientHello(Box::new(hello)))
        }
        handshake::SERVER_HELLO => {
            parse_server_hello(message.bytes).ok().map(|hello| What::ServerHello(Box::new(hello)))
        }
        handshake::CERTIFICATE => {
            parse_certificates(message.bytes).ok().map(|chain| What::Certificates(Box::new(chain)))
        }
        handshake::CERTIFICATE_REQUEST => Some(What::CertificateRequest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
