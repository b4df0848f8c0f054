//! Certificates: names, keys, signatures and serial numbers are replaced, structure, kinds and times of validity stay. X.690, RFC 5280.

use super::mapping::Mapping;
use crate::wire::Address;

/// Structures inside each other.
const DEEPEST: usize = 24;

/// Tags of X.690 §8 that are told apart.
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const OID: u8 = 0x06;
    pub(super) const ENUMERATED: u8 = 0x0a;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const TIME: u8 = 0x18;
    pub(super) const CONSTRUCTED: u8 = 0x20;
    /// `[7]`: an address among the names of a subject.
    pub(super) const ADDRESS: u8 = 0x87;
}

impl Mapping {
    /// Values of DER one after the other, as far as they are whole.
    pub(super) fn der(&mut self, octets: &[u8]) -> Vec<u8> {
        self.values(octets, 0)
    }

    fn values(&mut self, octets: &[u8], depth: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(octets.len());
        while let Some((kind, head, len)) = value(&octets[out.len()..]) {
            let at = out.len();
            out.extend_from_slice(&octets[at..at + head]);
            let contents = &octets[at + head..at + head + len];
            let mapped = self.contents(kind, contents, depth);
            out.extend(mapped);
        }
        let rest = self.opaque(&octets[out.len()..]);
        out.extend(rest);
        out
    }

    fn contents(&mut self, kind: u8, octets: &[u8], depth: usize) -> Vec<u8> {
        if kind & tag::CONSTRUCTED != 0 {
            return if depth < DEEPEST { self.values(octets, depth + 1) } else { self.opaque(octets) };
        }
        match kind {
            tag::BOOLEAN | tag::NULL | tag::OID | tag::ENUMERATED | tag::UTC_TIME | tag::TIME => octets.to_vec(),
            tag::INTEGER if octets.len() <= 4 => octets.to_vec(),
            tag::INTEGER => self.integer(octets),
            tag::BIT_STRING if octets.len() <= 4 => octets.to_vec(),
            tag::BIT_STRING => [&octets[..1], &self.opaque(&octets[1..])[..]].concat(),
            tag::OCTET_STRING if depth < DEEPEST && is_values(octets) => self.values(octets, depth + 1),
            tag::ADDRESS => self.address_octets(octets),
            _ if is_text(octets) => self.text(octets),
            _ => self.opaque(octets),
        }
    }

    /// A large number: as many octets, and its sign stays in the first nine bits.
    fn integer(&self, octets: &[u8]) -> Vec<u8> {
        let mut mapped = self.opaque(octets);
        mapped[0] = octets[0];
        mapped[1] = mapped[1] & 0x7f | octets[1] & 0x80;
        mapped
    }

    /// An address of four or sixteen octets; other octets are opaque.
    pub(super) fn address_octets(&mut self, octets: &[u8]) -> Vec<u8> {
        let address = match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
            (Ok(v4), _) => Address::v4(v4),
            (_, Ok(v6)) => Address::v6(v6),
            _ => return self.opaque(octets),
        };
        let mapped = self.address(address);
        match mapped.to_ip() {
            std::net::IpAddr::V4(ip) if octets.len() == 4 => ip.octets().to_vec(),
            _ => mapped.0.to_be_bytes().to_vec(),
        }
    }
}

/// Kind of the value at the beginning, octets of its head, octets of its contents; `None` where it is not whole.
fn value(octets: &[u8]) -> Option<(u8, usize, usize)> {
    let [kind, first, ..] = *octets else { return None };
    let (head, len) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let more = usize::from(first & 0x7f);
            (2 + more, octets.get(2..2 + more)?.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)))
        }
        _ => return None,
    };
    // Numbers of kinds beyond 30 take more octets; no certificate has them.
    (kind & 0x1f != 0x1f && octets.len() >= head.checked_add(len)?).then_some((kind, head, len))
}

/// Whether octets are whole values and nothing else.
fn is_values(octets: &[u8]) -> bool {
    let mut rest = octets;
    let mut kinds = 0;
    while let Some((kind, head, len)) = value(rest) {
        // What a string of octets holds in a certificate: sequences, strings of bits and octets.
        kinds += usize::from(matches!(kind, 0x30 | tag::BIT_STRING | tag::OCTET_STRING | tag::BOOLEAN));
        rest = &rest[head + len..];
    }
    rest.is_empty() && kinds == 1
}

fn is_text(octets: &[u8]) -> bool {
    octets.iter().all(|octet| matches!(octet, b' '..=b'~' | 0x80..)) && std::str::from_utf8(octets).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;

    #[test]
    fn values_keep_their_structure() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        // A sequence of a serial number, a time, a kind and a name; then a string of octets around a sequence.
        let der = [
            &[0x30, 44, 0x02, 9, 0, 0x81, 2, 3, 4, 5, 6, 7, 8, 0x17, 3][..],
            b"260",
            &[0x06, 3, 0x55, 4, 3, 0x0c, 15],
            b"www.example.com",
            &[0x04, 2, 1, 2, 0x04, 4, 0x30, 2, 0x82, 0],
        ]
        .concat();
        let mapped = mapping.der(&der);
        assert_eq!(mapped.len(), der.len());
        assert_eq!((&mapped[..6], &mapped[13..23]), (&[0x30, 44, 0x02, 9, 0, mapped[5]][..], &der[13..23]));
        assert_eq!(mapped[5] & 0x80, 0x80);
        assert_eq!(mapped[25..40], mapping.name(b"www.example.com")[..]);
    }

    #[test]
    fn octets_that_are_no_values_are_replaced() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        for octets in [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &[0x1f], &[0x30, 0x80, 0, 0], b"\x16\x05ab"] {
            assert_eq!(mapping.der(octets).len(), octets.len());
        }
        let nested: Vec<u8> = (0..120_u8).rev().flat_map(|n| [0x30, n]).collect();
        assert_eq!(mapping.der(&nested).len(), nested.len());
    }

    #[test]
    fn addresses_in_certificates_are_those_of_packets() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        let mapped = mapping.der(&[0x87, 4, 203, 0, 113, 7]);
        let address = mapping.address(Address::v4([203, 0, 113, 7]));
        assert_eq!(Address::v4(*mapped.last_chunk().expect("four octets")), address);
    }
}
