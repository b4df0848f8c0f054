//! TLS: records, kinds of messages, versions, suites and extensions stay; names become their replacements, and what is random, a key or a
//! ticket becomes other octets, equal ones equal ones. RFC 8446, RFC 5246.

use super::mapping::Mapping;
use super::stream::{Reader, Step, put_back};
use super::words;
use crate::wire::tls::{HEALTH_CHECK, RecordHeader, content, handshake, looks_like_sslv2_hello};
use crate::wire::{Cursor, Malformed, Recognition};

/// Octets of handshake that are waited for until they are whole messages.
const LONGEST: usize = 96 * 1024;
/// The random of a HelloRetryRequest begins so (RFC 8446 §4.1.3), and one that says "I could do better" ends so.
const RETRY: [u8; 4] = [0xcf, 0x21, 0xad, 0x74];
const DOWNGRADE: &[u8] = b"DOWNGRD";

/// Reads one side of TLS.
pub(super) struct Tls {
    begun: bool,
    /// ChangeCipherSpec was sent: handshake records are sealed unless they say otherwise.
    changed: bool,
    /// Behind a hole: in the middle of some record.
    lost: bool,
    /// It began with a hello or an alert: what is no record is plain text.
    firm: bool,
}

impl Tls {
    pub(super) fn new() -> Self {
        Self { begun: false, changed: false, lost: false, firm: false }
    }

    /// Handshake records one after the other, whole messages if possible: replaced. `None`: more is needed.
    fn handshake(&self, map: &mut Mapping, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut bodies = Vec::new();
        let mut places = Vec::new();
        let mut at = 0;
        let torn = loop {
            let whole = RecordHeader::parse(&bytes[at..]).ok().filter(|header| header.content == content::HANDSHAKE);
            let Some(header) = whole else { break bytes.len() < at + RecordHeader::LEN };
            let from = at + RecordHeader::LEN;
            let to = from + usize::from(header.len);
            let there = to.min(bytes.len());
            bodies.extend_from_slice(&bytes[from..there]);
            places.push(from..there);
            at = there;
            if there < to {
                break true;
            }
            if ends_with_message(&bodies) {
                break false;
            }
        };
        if torn && !last && bodies.len() < LONGEST {
            return None;
        }
        Some(put_back(&bytes[..at], places, &map.messages(&bodies)))
    }
}

impl Reader for Tls {
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        if self.lost {
            return Step::Fill(bytes.len() as u64);
        }
        if !self.begun && looks_like_sslv2_hello(bytes) == Recognition::Yes {
            self.begun = true;
            let len = usize::from(u16::from_be_bytes([bytes[0] & 0x7f, bytes[1]])) + 2;
            let kept = bytes.len().min(len).min(11 + usize::from(u16::from_be_bytes([bytes[5], bytes[6]])));
            let mut out = bytes[..kept].to_vec();
            out.extend(map.opaque(&bytes[kept..len.clamp(kept, bytes.len())]));
            return Step::Replace(out);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let header = match RecordHeader::parse(bytes) {
            Ok(header) => header,
            Err(Malformed { need: 1.., .. }) if !last => return Step::More,
            // A piece of a header keeps; anything else is plain text on a TLS connection.
            Err(Malformed { need: 1.., .. }) => return Step::Replace(bytes.to_vec()),
            Err(_) if self.firm => return Step::Again,
            Err(_) => {
                self.lost = true;
                return Step::Fill(bytes.len() as u64);
            }
        };
        self.firm |= first && matches!(header.content, content::HANDSHAKE | content::ALERT);
        let len = usize::from(header.len);
        let body = &bytes[RecordHeader::LEN..];
        let sealed = self.changed && !is_hello(body, len);
        match header.content {
            content::HANDSHAKE if !sealed => match self.handshake(map, bytes, last) {
                Some(out) => Step::Replace(out),
                None => Step::More,
            },
            content::ALERT | content::CHANGE_CIPHER_SPEC if len <= 2 && body.len() < len && !last => Step::More,
            content::ALERT | content::CHANGE_CIPHER_SPEC if len <= 2 => {
                self.changed |= header.content == content::CHANGE_CIPHER_SPEC;
                Step::Replace(bytes[..bytes.len().min(RecordHeader::LEN + len)].to_vec())
            }
            _ => Step::ReplaceAndFill(bytes[..RecordHeader::LEN].to_vec(), len as u64),
        }
    }

    fn hole(&mut self) {
        self.lost = true;
    }

    fn resume(&mut self, piece: &[u8]) -> bool {
        if !self.lost {
            return true;
        }
        // Only what the analyzer takes up again.
        let found = matches!(RecordHeader::parse(piece), Ok(RecordHeader { version: 0x0301..=0x0304, .. }));
        self.lost = !found;
        found
    }
}

/// A hello in a record behind ChangeCipherSpec: the second one after a HelloRetryRequest (RFC 8446 §D.4).
fn is_hello(body: &[u8], len: usize) -> bool {
    matches!(body, [handshake::CLIENT_HELLO | handshake::SERVER_HELLO, 0, a, b, ..]
        if usize::from(u16::from_be_bytes([*a, *b])) + 4 == len)
}

/// Whether octets are whole handshake messages.
fn ends_with_message(bodies: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[_, a, b, c]) = bodies.get(at..at + 4) {
        at += 4 + u32::from_be_bytes([0, a, b, c]) as usize;
    }
    at == bodies.len()
}

/// Fields one after the other: what was read stays or is replaced, in the end as long as before.
struct Fields<'a> {
    cursor: Cursor<'a>,
    out: Vec<u8>,
}

type Read<T = ()> = Result<T, Malformed>;

impl<'a> Fields<'a> {
    fn new(octets: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(octets), out: Vec::with_capacity(octets.len()) }
    }

    fn keep(&mut self, n: usize) -> Read<&'a [u8]> {
        let octets = self.cursor.take(n, "field")?;
        self.out.extend_from_slice(octets);
        Ok(octets)
    }

    /// A length of so many octets, kept.
    fn len(&mut self, octets: usize) -> Read<usize> {
        Ok(self.keep(octets)?.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)))
    }

    fn replace(&mut self, n: usize, by: impl FnOnce(&[u8]) -> Vec<u8>) -> Read {
        let octets = self.cursor.take(n, "field")?;
        self.out.extend(by(octets));
        Ok(())
    }

    fn remaining(&self) -> usize {
        self.cursor.remaining()
    }

    /// What could not be read is replaced.
    fn finish(mut self, map: &Mapping) -> Vec<u8> {
        self.out.extend(map.opaque(self.cursor.rest()));
        self.out
    }
}

impl Mapping {
    /// Handshake messages one after the other; the last may not be whole.
    fn messages(&mut self, bodies: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bodies.len());
        while let Some(&[kind, a, b, c]) = bodies.get(out.len()..out.len() + 4) {
            let at = out.len() + 4;
            out.extend([kind, a, b, c]);
            let end = at.saturating_add(u32::from_be_bytes([0, a, b, c]) as usize).min(bodies.len());
            let mapped = self.handshake_message(kind, &bodies[at..end]);
            out.extend(mapped);
        }
        let rest = bodies[out.len()..].to_vec();
        out.extend(rest);
        out
    }

    fn handshake_message(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut fields = Fields::new(body);
        // Where it does not go on as it should, the rest is replaced.
        let _ = match kind {
            handshake::CLIENT_HELLO => self.hello(&mut fields, true),
            handshake::SERVER_HELLO => self.hello(&mut fields, false),
            handshake::CERTIFICATE => self.certificates(&mut fields),
            handshake::CERTIFICATE_REQUEST => self.certificate_request(&mut fields),
            handshake::SERVER_KEY_EXCHANGE | handshake::CERTIFICATE_VERIFY => fields.keep(4).map(|_| ()),
            handshake::NEW_SESSION_TICKET => fields.keep(6).map(|_| ()),
            handshake::CERTIFICATE_STATUS => fields.keep(4).and_then(|_| {
                let rest = fields.remaining();
                fields.replace(rest, |octets| self.der(octets))
            }),
            _ => Ok(()),
        };
        fields.finish(self)
    }

    fn hello(&mut self, fields: &mut Fields<'_>, client: bool) -> Read {
        fields.keep(2)?;
        fields.replace(32, |random| {
            let mut mapped = self.opaque(random);
            if !client && random.starts_with(&RETRY) || client && random.ends_with(HEALTH_CHECK) {
                return random.to_vec();
            }
            if !client && random[24..].starts_with(DOWNGRADE) {
                mapped[24..].copy_from_slice(&random[24..]);
            }
            mapped
        })?;
        let session = fields.len(1)?;
        fields.replace(session, |id| self.opaque(id))?;
        if client {
            let suites = fields.len(2)?;
            fields.keep(suites)?;
            let methods = fields.len(1)?;
            fields.keep(methods)?;
        } else {
            fields.keep(3)?;
        }
        if fields.remaining() == 0 {
            return Ok(());
        }
        fields.len(2)?;
        while fields.remaining() > 0 {
            let kind = fields.len(2)?;
            let len = fields.len(2)?;
            let there = len.min(fields.remaining());
            fields.replace(there, |octets| self.extension(kind, octets, client))?;
        }
        Ok(())
    }

    fn extension(&mut self, kind: usize, octets: &[u8], client: bool) -> Vec<u8> {
        let mut fields = Fields::new(octets);
        let _ = match kind {
            0 => self.server_name(&mut fields),
            // Groups, formats, algorithms, heartbeat, extended secrets, versions, modes and what else has no content of its own.
            5 => fields.keep(octets.len().min(5)).map(|_| ()),
            21 => fields.replace(octets.len(), |padding| vec![0; padding.len()]),
            10 | 11 | 13 | 15 | 22 | 23 | 27 | 28 | 43 | 45 | 49 | 50 => fields.keep(octets.len()).map(|_| ()),
            16 => self.application_protocols(&mut fields),
            18 | 35 if octets.is_empty() => Ok(()),
            41 if client => self.shared_keys(&mut fields),
            41 => fields.keep(octets.len().min(2)).map(|_| ()),
            44 => fields.len(2).map(|_| ()),
            51 => self.key_shares(&mut fields, client),
            0xff01 => fields.len(1).map(|_| ()),
            _ => Ok(()),
        };
        fields.finish(self)
    }

    fn server_name(&mut self, fields: &mut Fields<'_>) -> Read {
        if fields.remaining() == 0 {
            return Ok(());
        }
        fields.len(2)?;
        while fields.remaining() > 0 {
            fields.keep(1)?;
            let len = fields.len(2)?;
            // A name that the capture or a hole cut is replaced as far as it goes.
            let there = len.min(fields.remaining());
            fields.replace(there, |name| self.authority(name))?;
        }
        Ok(())
    }

    fn application_protocols(&mut self, fields: &mut Fields<'_>) -> Read {
        fields.len(2)?;
        while fields.remaining() > 0 {
            let len = fields.len(1)?;
            fields.replace(len, |name| self.application_protocol(name))?;
        }
        Ok(())
    }

    /// The name of an application protocol: registered ones and those that keep servers tolerant (RFC 8701) stay.
    pub(super) fn application_protocol(&mut self, name: &[u8]) -> Vec<u8> {
        let grease = matches!(name, [a, b] if a == b && a & 0x0f == 0x0a);
        if grease || words::is_alpn(name) { name.to_vec() } else { self.text(name) }
    }

    fn shared_keys(&mut self, fields: &mut Fields<'_>) -> Read {
        let mut left = fields.len(2)?;
        while left > 0 {
            let len = fields.len(2)?;
            fields.replace(len, |identity| self.opaque(identity))?;
            fields.keep(4)?;
            left = left.saturating_sub(len + 6);
        }
        fields.len(2)?;
        while fields.remaining() > 0 {
            let len = fields.len(1)?;
            fields.replace(len, |binder| self.opaque(binder))?;
        }
        Ok(())
    }

    fn key_shares(&mut self, fields: &mut Fields<'_>, client: bool) -> Read {
        if client {
            fields.len(2)?;
        }
        while fields.remaining() > 0 {
            fields.keep(2)?;
            if fields.remaining() == 0 {
                // A HelloRetryRequest names the group alone.
                return Ok(());
            }
            let len = fields.len(2)?;
            fields.replace(len, |share| self.opaque(share))?;
        }
        Ok(())
    }

    fn certificates(&mut self, fields: &mut Fields<'_>) -> Read {
        fields.len(3)?;
        while fields.remaining() > 0 {
            let len = fields.len(3)?;
            let there = len.min(fields.remaining());
            fields.replace(there, |certificate| self.der(certificate))?;
        }
        Ok(())
    }

    fn certificate_request(&mut self, fields: &mut Fields<'_>) -> Read {
        let kinds = fields.len(1)?;
        fields.keep(kinds)?;
        let list = fields.len(2)?;
        // Before TLS 1.2 there are no algorithms in front of the names.
        if fields.remaining() > list {
            fields.keep(list)?;
            fields.len(2)?;
        }
        while fields.remaining() > 0 {
            let len = fields.len(2)?;
            fields.replace(len, |name| self.der(name))?;
        }
        Ok(())
    }
}
