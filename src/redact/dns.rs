//! DNS messages: names, addresses and texts are replaced where they stand; header, types, classes, times and pointers stay. RFC 1035.

use super::mapping::Mapping;
use crate::wire::{Address, Cursor, Malformed};

/// Record types whose data is read: RFC 1035, 2782, 3403, 3596, 4034, 6672, 6891, 9460.
mod kind {
    pub(super) const A: u16 = 1;
    pub(super) const NS: u16 = 2;
    pub(super) const CNAME: u16 = 5;
    pub(super) const SOA: u16 = 6;
    pub(super) const PTR: u16 = 12;
    pub(super) const MX: u16 = 15;
    pub(super) const TXT: u16 = 16;
    pub(super) const AAAA: u16 = 28;
    pub(super) const SRV: u16 = 33;
    pub(super) const DNAME: u16 = 39;
    pub(super) const OPT: u16 = 41;
    pub(super) const RRSIG: u16 = 46;
    pub(super) const NSEC: u16 = 47;
    pub(super) const SVCB: u16 = 64;
    pub(super) const HTTPS: u16 = 65;
}

/// Records of one message that are looked at.
const MOST: usize = 4096;

/// A message that is being rewritten.
struct Message<'a> {
    bytes: &'a [u8],
    out: Vec<u8>,
    /// Octets that were decided about.
    done: Vec<bool>,
}

type Read<T = ()> = Result<T, Malformed>;

impl Mapping {
    /// A message, whole or cut. As long as before.
    pub fn dns(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut message = Message { bytes, out: bytes.to_vec(), done: vec![false; bytes.len()] };
        // Where it cannot be read on, the rest is replaced.
        let _ = self.sections(&mut message);
        for (at, slot) in message.out.iter_mut().enumerate() {
            if !message.done[at] {
                *slot = super::stream::filled(*slot);
            }
        }
        message.out
    }

    fn sections(&mut self, message: &mut Message<'_>) -> Read {
        let bytes = message.bytes;
        let mut cursor = Cursor::new(bytes);
        cursor.take(4, "header")?;
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = usize::from(cursor.u16("count")?);
        }
        message.keep(0, 12);
        let [questions, answers, authorities, additional] = counts;
        for _ in 0..questions.min(MOST) {
            self.dns_name(message, &mut cursor)?;
            message.skip(&mut cursor, 4)?;
        }
        for _ in 0..(answers + authorities + additional).min(MOST) {
            self.dns_name(message, &mut cursor)?;
            let kind = cursor.u16("type")?;
            cursor.take(6, "class and time")?;
            let len = usize::from(cursor.u16("length")?);
            let at = cursor.position();
            message.keep(at - 10, at);
            let mut data = Cursor::new(&bytes[..(at + len).min(bytes.len())]);
            data.take(at, "data")?;
            // Damaged data is replaced; the next record is where the length says.
            let _ = self.data(message, kind, &mut data);
            cursor.take(len, "data")?;
        }
        Ok(())
    }

    fn data<'a>(&mut self, message: &mut Message<'a>, kind: u16, data: &mut Cursor<'a>) -> Read {
        match kind {
            kind::A | kind::AAAA => {
                let mapped = self.address_octets(data.rest());
                message.write(data.position(), &mapped);
            }
            kind::NS | kind::CNAME | kind::PTR | kind::DNAME => self.dns_name(message, data)?,
            kind::MX => {
                message.skip(data, 2)?;
                self.dns_name(message, data)?;
            }
            kind::SRV => {
                message.skip(data, 6)?;
                self.dns_name(message, data)?;
            }
            kind::SOA => {
                self.dns_name(message, data)?;
                self.dns_name(message, data)?;
                message.skip(data, 20)?;
            }
            kind::TXT => {
                while data.remaining() > 0 {
                    let len = usize::from(data.u8("length")?);
                    message.keep(data.position() - 1, data.position());
                    let at = data.position();
                    let mapped = self.text(data.take(len, "text")?);
                    message.write(at, &mapped);
                }
            }
            kind::RRSIG => {
                message.skip(data, 18)?;
                self.dns_name(message, data)?;
                self.opaque_rest(message, data);
            }
            kind::NSEC => {
                self.dns_name(message, data)?;
                let rest = data.remaining();
                message.skip(data, rest)?;
            }
            kind::SVCB | kind::HTTPS => {
                message.skip(data, 2)?;
                self.dns_name(message, data)?;
                self.options(message, data, Self::service_parameter)?;
            }
            kind::OPT => self.options(message, data, Self::edns_option)?,
            _ => self.opaque_rest(message, data),
        }
        Ok(())
    }

    fn opaque_rest(&mut self, message: &mut Message<'_>, data: &Cursor<'_>) {
        let mapped = self.words_or_octets(data.rest());
        message.write(data.position(), &mapped);
    }

    /// Codes, lengths and values one after the other.
    fn options(
        &mut self,
        message: &mut Message<'_>,
        data: &mut Cursor<'_>,
        value: fn(&mut Self, u16, &[u8]) -> Vec<u8>,
    ) -> Read {
        while data.remaining() > 0 {
            let (code, len) = (data.u16("code")?, data.u16("length")?);
            let at = data.position();
            message.keep(at - 4, at);
            let mapped = value(self, code, data.take(len.into(), "value")?);
            message.write(at, &mapped);
        }
        Ok(())
    }

    /// RFC 9460 §7: mandatory keys, application protocols, port, hints.
    fn service_parameter(&mut self, code: u16, value: &[u8]) -> Vec<u8> {
        match code {
            0..=3 => value.to_vec(),
            4 => value.chunks(4).flat_map(|address| self.address_octets(address)).collect(),
            6 => value.chunks(16).flat_map(|address| self.address_octets(address)).collect(),
            _ => self.words_or_octets(value),
        }
    }

    /// RFC 6891 §6.1.2: client subnet (RFC 7871), padding (RFC 7830), keepalive (RFC 7828), extended error (RFC 8914); others are opaque.
    fn edns_option(&mut self, code: u16, value: &[u8]) -> Vec<u8> {
        match (code, value) {
            (8, [0, 1, _, _, prefix @ ..]) => [&value[..4], &self.v4_prefix(prefix)[..]].concat(),
            (8, [0, 2, _, _, prefix @ ..]) if prefix.len() <= 16 => {
                let mut whole = [0; 16];
                whole[..prefix.len()].copy_from_slice(prefix);
                let mapped = self.address(Address::v6(whole)).0.to_be_bytes();
                [&value[..4], &mapped[..prefix.len()]].concat()
            }
            (11 | 12, _) => value.to_vec(),
            (15, [a, b, text @ ..]) => [&[*a, *b][..], &self.message(text)].concat(),
            _ => self.opaque(value),
        }
    }

    /// The name at the cursor: its labels here, and those it points to.
    fn dns_name<'a>(&mut self, message: &mut Message<'a>, cursor: &mut Cursor<'a>) -> Read {
        let bytes = message.bytes;
        let (mut places, mut reader, mut behind) = (Vec::new(), *cursor, None);
        let mut start = cursor.position();
        let mut length = 0;
        let whole = loop {
            let at = reader.position();
            match reader.u8("name") {
                Ok(0) => {
                    message.keep(at, at + 1);
                    break Ok(());
                }
                Ok(len @ 1..=63) => {
                    length += usize::from(len) + 1;
                    message.keep(at, at + 1);
                    match reader.take(len.into(), "label") {
                        Ok(_) if length <= 512 => places.push(at + 1..at + 1 + usize::from(len)),
                        Ok(_) => break Err(Malformed::field("name", at as u32)),
                        Err(short) => {
                            places.push(at + 1..bytes.len());
                            break Err(short);
                        }
                    }
                }
                Ok(high @ 0xc0..) => {
                    let Ok(low) = reader.u8("pointer") else {
                        message.keep(at, at + 1);
                        break Err(Malformed::field("name", at as u32));
                    };
                    message.keep(at, at + 2);
                    let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                    behind.get_or_insert(reader);
                    if target >= start {
                        break Err(Malformed::field("name", at as u32));
                    }
                    start = target;
                    reader = Cursor::new(bytes);
                    reader.take(target, "name")?;
                }
                Ok(_) => break Err(Malformed::field("name", at as u32)),
                Err(short) => break Err(short),
            }
        };
        let labels: Vec<&[u8]> = places.iter().map(|place| &bytes[place.clone()]).collect();
        if !labels.is_empty() {
            let mapped = self.name(&labels.join(&b'.'));
            let mut mapped: Vec<&[u8]> = mapped.split(|octet| *octet == b'.').collect();
            // A label that holds a dot itself.
            let apart = if mapped.len() == labels.len() { Vec::new() } else { self.labels(&labels) };
            if !apart.is_empty() {
                mapped = apart.iter().map(Vec::as_slice).collect();
            }
            for (place, label) in places.iter().zip(&mapped) {
                if message.done.get(place.start) == Some(&false) {
                    message.write(place.start, label);
                }
            }
        }
        whole?;
        let used = behind.unwrap_or(reader).position().saturating_sub(cursor.position());
        cursor.take(used, "name")?;
        Ok(())
    }
}

impl Message<'_> {
    fn keep(&mut self, from: usize, to: usize) {
        let to = to.min(self.done.len());
        if let Some(places) = self.done.get_mut(from..to) {
            places.fill(true);
        }
    }

    fn skip(&mut self, cursor: &mut Cursor<'_>, n: usize) -> Read {
        let at = cursor.position();
        cursor.take(n, "fixed fields")?;
        self.keep(at, at + n);
        Ok(())
    }

    fn write(&mut self, at: usize, octets: &[u8]) {
        if let Some(slot) = self.out.get_mut(at..at + octets.len()) {
            slot.copy_from_slice(octets);
            self.keep(at, at + octets.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;
    use crate::wire::dns::parse;

    fn mapping() -> Mapping {
        Mapping::new(&key(1), Level::All)
    }

    /// An answer: www.example.com is an alias of web.example.com, which has an address.
    fn answer() -> Vec<u8> {
        let mut octets = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        octets.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
        octets.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03web\xc0\x10");
        octets.extend(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\x00\x71\x07");
        octets
    }

    #[test]
    fn names_and_addresses_are_those_of_other_protocols() {
        let mut mapping = mapping();
        let (before, after) =
            (parse(&answer(), false).expect("DNS"), parse(&mapping.dns(&answer()), false).expect("DNS"));
        let mut name = |name: &str| String::from_utf8(mapping.name(name.as_bytes())).expect("text");
        assert_eq!(after.name, name("www.example.com"));
        assert_eq!(after.aliases[0], name("web.example.com"));
        assert_eq!(after.addresses, [(mapping.address(before.addresses[0].0), 60)]);
        assert_eq!((after.id, after.rcode, after.answers), (before.id, before.rcode, before.answers));
    }

    #[test]
    fn what_is_cut_or_bent_keeps_its_length() {
        let mut mapping = mapping();
        let whole = answer();
        for len in 0..whole.len() {
            assert_eq!(mapping.dns(&whole[..len]).len(), len);
            for octet in [0, 0x3f, 0xc0, 0xff] {
                let mut bent = whole.clone();
                bent[len] = octet;
                assert_eq!(mapping.dns(&bent).len(), whole.len());
            }
        }
    }
}
