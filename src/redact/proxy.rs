//! PROXY headers: addresses, names and ids are replaced, everything by which a header is read or is broken stays. proxy-protocol.txt §2.

use super::mapping::Mapping;
use crate::wire::Cursor;
use crate::wire::crc32c::crc32c;

/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// Types of §2.2 whose values are told apart.
mod kind {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const NOOP: u8 = 0x04;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
    pub(super) const SSL_CIPHER: u8 = 0x23;
    pub(super) const SSL_KEY_ALGORITHM: u8 = 0x25;
    pub(super) const AWS: u8 = 0xea;
    pub(super) const AZURE: u8 = 0xee;
}

impl Mapping {
    /// A header of either version, whole, broken or cut.
    pub(super) fn proxy_header(&mut self, header: &[u8]) -> Vec<u8> {
        if header.first() == Some(&b'\r') { self.proxy_v2(header) } else { self.proxy_v1(header) }
    }

    fn proxy_v1(&mut self, line: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(line.len());
        for (n, word) in line.split_inclusive(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n')).enumerate() {
            let end = word.len() - usize::from(word.last().is_some_and(u8::is_ascii_whitespace));
            let (word, behind) = word.split_at(end);
            // Ports are numbers, and so is what stands in their place.
            let number = word.iter().all(u8::is_ascii_digit);
            let mapped = match n {
                0 | 1 => word.to_vec(),
                _ if number => word.to_vec(),
                _ => self.proxy_address(word),
            };
            out.extend(mapped);
            out.extend_from_slice(behind);
        }
        out
    }

    /// An address, the beginning of one, or something in its place that stays none.
    fn proxy_address(&mut self, word: &[u8]) -> Vec<u8> {
        if let Some(address) = self.v4_text(word).or_else(|| self.v6_text(word)) {
            return address;
        }
        let parts: Vec<&[u8]> = word.split(|octet| *octet == b'.').collect();
        let octet = |part: &&[u8]| std::str::from_utf8(part).ok().and_then(|text| text.parse::<u8>().ok());
        let known: Vec<u8> = parts.iter().map_while(octet).take(4).collect();
        // A number with zeros before it would change its length.
        let plain = known.iter().zip(&parts).all(|(octet, part)| octet.to_string().len() == part.len());
        if known.is_empty() || !plain || !word.iter().all(|octet| octet.is_ascii_digit() || *octet == b'.') {
            return self.message(word);
        }
        let mapped = self.v4_prefix(&known);
        let texts = mapped.iter().map(|octet| octet.to_string().into_bytes());
        let rest = parts.iter().skip(known.len()).map(|part| part.to_vec());
        texts.chain(rest).collect::<Vec<_>>().join(&b'.')
    }

    fn proxy_v2(&mut self, header: &[u8]) -> Vec<u8> {
        let Some((fixed, rest)) = header.split_at_checked(FIXED) else { return header.to_vec() };
        let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let rest = rest.get(..len).unwrap_or(rest);
        let size = match fixed[13] {
            0x11 | 0x12 => 4,
            0x21 | 0x22 => 16,
            0x31 | 0x32 => 108,
            _ => 0,
        };
        let mut out = fixed.to_vec();
        for _ in 0..2 {
            let at = out.len() - FIXED;
            let address = &rest[at.min(rest.len())..rest.len().min(at + size)];
            let mapped = if size == 108 { self.text(address) } else { self.address_octets(address) };
            out.extend(mapped);
        }
        if matches!(size, 4 | 16) {
            let at = (out.len() - FIXED).min(rest.len());
            out.extend_from_slice(&rest[at..rest.len().min(at + 4)]);
        }
        let tlvs = &rest[(out.len() - FIXED).min(rest.len())..];
        let mapped = self.tlvs(tlvs);
        out.extend(mapped);
        self.keep_crc(&header[..out.len()], &mut out);
        // What a header that lies about its length has behind it.
        let behind = self.opaque(&header[out.len()..]);
        out.extend(behind);
        out
    }

    fn tlvs(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut cursor = Cursor::new(octets);
        let mut out = Vec::with_capacity(octets.len());
        while let Some((kind, value)) = next(&mut cursor) {
            out.push(kind);
            out.extend((value.len() as u16).to_be_bytes());
            let mapped = match kind {
                kind::ALPN => self.application_protocol(value),
                kind::AUTHORITY => self.authority(value),
                kind::CRC32C | kind::NOOP | kind::SSL_VERSION | kind::SSL_CIPHER..=kind::SSL_KEY_ALGORITHM => {
                    value.to_vec()
                }
                kind::SSL if value.len() >= 5 => [&value[..5], &self.tlvs(&value[5..])[..]].concat(),
                kind::AWS | kind::AZURE if !value.is_empty() => {
                    [&value[..1], &self.words_or_octets(&value[1..])[..]].concat()
                }
                _ => self.words_or_octets(value),
            };
            out.extend(mapped);
        }
        // What is no type and value keeps its lengths, so that it stays none.
        out.extend(cursor.rest().iter().take(3));
        let rest = self.words_or_octets(cursor.rest().get(3..).unwrap_or(&[]));
        out.extend(rest);
        out
    }

    /// Text, or octets that mean nothing but themselves.
    pub(super) fn words_or_octets(&mut self, octets: &[u8]) -> Vec<u8> {
        if octets.iter().all(|octet| matches!(octet, b' '..=b'~')) { self.text(octets) } else { self.opaque(octets) }
    }

    /// A checksum that was right is right again, a wrong one as wrong as before.
    fn keep_crc(&self, header: &[u8], out: &mut [u8]) {
        let size = match header.get(13) {
            Some(0x11 | 0x12) => 12,
            Some(0x21 | 0x22) => 36,
            Some(0x31 | 0x32) => 216,
            _ => 0,
        };
        let Some(tlvs) = header.get(FIXED + size..) else { return };
        let mut cursor = Cursor::new(tlvs);
        while let Some((kind, value)) = next(&mut cursor) {
            let at = FIXED + size + cursor.position() - value.len();
            let (Ok(sent), kind::CRC32C) = (<[u8; 4]>::try_from(value), kind) else { continue };
            let sum = |octets: &[u8]| crc32c(&[&octets[..at], &[0; 4], octets.get(at + 4..).unwrap_or(&[])]);
            let right = sum(header) ^ sum(out) ^ u32::from_be_bytes(sent);
            if let Some(slot) = out.get_mut(at..at + 4) {
                slot.copy_from_slice(&right.to_be_bytes());
            }
            return;
        }
    }
}

fn next<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let mut ahead = *cursor;
    let kind = ahead.u8("type").ok()?;
    let len = ahead.u16("length").ok()?;
    let value = ahead.take(len.into(), "value").ok()?;
    *cursor = ahead;
    Some((kind, value))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;
    use crate::wire::proxy::{ProxyHeader, ProxyStart, SIGNATURE_V2, parse};

    fn mapping() -> Mapping {
        Mapping::new(&key(1), Level::All)
    }

    fn header(octets: &[u8]) -> ProxyHeader {
        match parse(octets) {
            ProxyStart::Header(header) => *header,
            other => panic!("no header: {other:?}"),
        }
    }

    #[test]
    fn both_ends_of_version_1_are_those_of_packets_and_ports_stay() {
        let mut mapping = mapping();
        let line = b"PROXY TCP4 203.0.113.7 10.0.0.5 51234 443\r\n";
        let (before, after) = (header(line), header(&mapping.proxy_header(line)));
        let ends = |header: &ProxyHeader| header.source.zip(header.destination).expect("ends");
        let ((source, destination), (new_source, new_destination)) = (ends(&before), ends(&after));
        assert_eq!((new_source.address, new_source.port), (mapping.address(source.address), 51234));
        assert_eq!((new_destination.address, new_destination.port), (mapping.address(destination.address), 443));
    }

    #[test]
    fn what_is_broken_stays_broken_in_the_same_way() {
        let mut mapping = mapping();
        for line in [
            &b"PROXY TCP4 203.0.113.7 10.0.0 51234 443\r\n"[..],
            b"PROXY TCP4 203.0.113.700 10.0.0.5 51234 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.5 51234 70000\r\n",
            b"PROXY TCP4  203.0.113.7 10.0.0.5 51234 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.5 51234 443\n",
            b"proxy tcp4 203.0.113.7 10.0.0.5 51234 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.5 51234 443",
            b"PROXY TCP6 203.0.113.7 10.0.0.5 51234 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.",
        ] {
            let mapped = mapping.proxy_header(line);
            assert_eq!(parse(&mapped), parse(line), "{}", String::from_utf8_lossy(line));
            assert_ne!(mapped, line);
        }
    }

    #[test]
    fn version_2_keeps_types_and_lengths_and_the_fit_of_its_checksum() {
        let mut tlvs = b"\x01\x00\x02h2\x02\x00\x10shop.example.com\x05\x00\x04id42".to_vec();
        tlvs.extend([3, 0, 4, 0, 0, 0, 0]);
        let mut octets = SIGNATURE_V2.to_vec();
        octets.extend([0x21, 0x11]);
        octets.extend((12 + tlvs.len() as u16).to_be_bytes());
        octets.extend([203, 0, 113, 7, 10, 0, 0, 5, 0xc8, 0x22, 0x01, 0xbb]);
        octets.extend(tlvs);
        let mut mapping = mapping();
        for right in [true, false] {
            let at = octets.len() - 4;
            let sum = crc32c(&[&octets[..at], &[0; 4]]) ^ u32::from(!right);
            octets[at..].copy_from_slice(&sum.to_be_bytes());
            let mapped = mapping.proxy_header(&octets);
            let after = header(&mapped);
            assert_eq!(after.checksum_fits, Some(right));
            assert_eq!(after.alpn(), Some("h2"));
            assert_eq!(after.authority().map(str::as_bytes), Some(&mapping.name(b"shop.example.com")[..]));
            assert_eq!(after.source.expect("a source").port, 0xc822);
        }
        for len in 0..octets.len() {
            assert_eq!(mapping.proxy_header(&octets[..len]).len(), len);
        }
    }
}
