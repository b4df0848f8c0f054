//! Addresses: what each becomes.
//!
//! What two addresses have in common from the left in whole octets (IPv4) or digits (IPv6) they have in common afterwards, the text keeps its
//! length, and what an address is for stays: private networks, link-local, loopback and multicast addresses, front ends of clouds.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::mapping::Mapping;
use super::secret::{Purpose, Secret};
use crate::host::known;
use crate::wire::{Address, Mac};

/// Permutations of one octet of an IPv4 address, behind the octets before it.
pub(super) type Octets = Box<[u8; 256]>;

/// The class within which an octet of an IPv4 address is exchanged; `None`: it stays.
fn class(before: &[u8], octet: u8) -> Option<u8> {
    let digits = match octet {
        0..=9 => 1,
        10..=99 => 2,
        100..=255 => 3,
    };
    match before {
        // This host, private networks, shared address space, loopback, link-local, benchmarks, multicast and what is beyond.
        [] => (!matches!(octet, 0 | 10 | 100 | 127 | 169 | 172 | 192 | 198 | 224..)).then_some(digits),
        [100] if (64..128).contains(&octet) => Some(10 + digits),
        [169] => (octet != 254).then_some(digits),
        [172] if (16..32).contains(&octet) => Some(10),
        [192] => (octet != 168).then_some(digits),
        [198] if (18..20).contains(&octet) => Some(10),
        // Networks and broadcasts of whole octets.
        [_, _, _] => (octet != 0 && octet != 255).then_some(digits),
        _ => Some(digits),
    }
}

/// The permutation of the octet behind `before`.
pub(super) fn octets(secret: &Secret, before: &[u8]) -> Octets {
    let mut table: Octets = Box::new(std::array::from_fn(|octet| octet as u8));
    let mut classes: [Vec<u8>; 16] = Default::default();
    for octet in 0..=255 {
        if let Some(class) = class(before, octet) {
            classes[usize::from(class) & 15].push(octet);
        }
    }
    for (class, members) in classes.iter().enumerate() {
        let about = [&[class as u8], before].concat();
        secret.shuffle(Purpose::V4, &about, members, &mut table);
    }
    table
}

impl Mapping {
    /// What stands for an address.
    pub fn address(&mut self, address: Address) -> Address {
        if !self.level.addresses() {
            return address;
        }
        if let Some(known) = self.addresses.get(&address) {
            return *known;
        }
        let mapped = match address.to_ip() {
            std::net::IpAddr::V4(ip) => Address::v4(self.v4(ip.octets())),
            std::net::IpAddr::V6(ip) => Address::v6(self.v6(ip)),
        };
        if self.addresses.len() >= super::mapping::REMEMBERED {
            self.addresses.clear();
        }
        self.addresses.insert(address, mapped);
        if mapped != address {
            self.note(super::mapping::What::Address, || address.to_string(), || mapped.to_string());
        }
        mapped
    }

    /// What stands for an IPv4 address or for its first octets.
    pub(super) fn v4_prefix(&mut self, octets: &[u8]) -> Vec<u8> {
        if !self.level.addresses() || matches!(octets.first(), None | Some(0 | 127 | 224..)) {
            return octets.to_vec();
        }
        (0..octets.len().min(4)).map(|n| self.v4_octet(&octets[..n], octets[n])).collect()
    }

    fn v4_octet(&mut self, before: &[u8], octet: u8) -> u8 {
        let mut place = [0; 4];
        for (slot, octet) in place.iter_mut().zip(before) {
            *slot = *octet;
        }
        let key = (before.len() as u8, u32::from_be_bytes(place));
        if self.octets.len() >= super::mapping::REMEMBERED / 8 {
            self.octets.clear();
        }
        let secret = &self.secret;
        self.octets.entry(key).or_insert_with(|| octets(secret, before))[usize::from(octet)]
    }

    fn v4(&mut self, octets: [u8; 4]) -> [u8; 4] {
        let kept = match known::address(Address::v4(octets)) {
            // Shared address space has many hosts; the others are single addresses and two ranges of front ends.
            Some(_) if octets[0] == 100 && (64..128).contains(&octets[1]) && octets != [100, 100, 100, 200] => 0,
            Some(_) if octets[0] == 35 => 2,
            Some(_) if octets[0] == 130 => 3,
            Some(_) => 4,
            None => 0,
        };
        let mapped = self.v4_prefix(&octets);
        let mut out = octets;
        for (slot, octet) in out.iter_mut().zip(mapped).skip(kept) {
            *slot = octet;
        }
        out
    }

    fn v6(&mut self, ip: Ipv6Addr) -> [u8; 16] {
        let octets = ip.octets();
        let kept = match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return octets,
            // The last 24 bits are those of a unicast address. RFC 4291 §2.7.1.
            [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _] => return self.solicited(octets),
            [0xff00..=0xffff, ..] => return octets,
            // IPv4 in IPv6: mapped, and the well-known prefix of RFC 6052.
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0, 0, _, _] => {
                let mut out = octets;
                let [.., a, b, c, d] = octets;
                out[12..].copy_from_slice(&self.v4([a, b, c, d]));
                return out;
            }
            [0xfe80..=0xfebf, ..] => 4,
            [0xfc00..=0xfdff, ..] if known::address(Address::v6(octets)).is_some() => return octets,
            [0xfc00..=0xfdff, ..] => 2,
            _ if known::address(Address::v6(octets)).is_some() => 16,
            _ => 1,
        };
        self.v6_digits(octets, kept)
    }

    /// Exchanges the digits behind the first `kept` ones, each by those before it. The first digit of a group that is not zero stays not
    /// zero, and zeros before it stay, so that the text keeps its length.
    fn v6_digits(&mut self, octets: [u8; 16], kept: usize) -> [u8; 16] {
        let digits: Vec<u8> = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]).collect();
        let mut out = digits.clone();
        for place in kept..32 {
            let leading = digits[place - place % 4..place].iter().all(|digit| *digit == 0);
            let members: Vec<u8> = match (leading, digits[place]) {
                (true, 0) => continue,
                (true, _) => (1..16).collect(),
                (false, _) => (0..16).collect(),
            };
            let about = [&[u8::from(leading)], &digits[..place]].concat();
            let mut table = [0; 256];
            self.secret.shuffle(Purpose::V6, &about, &members, &mut table);
            out[place] = table[usize::from(digits[place])];
        }
        let mut mapped = [0; 16];
        for (slot, pair) in mapped.iter_mut().zip(out.chunks_exact(2)) {
            *slot = pair[0] << 4 | pair[1];
        }
        mapped
    }

    fn solicited(&mut self, octets: [u8; 16]) -> [u8; 16] {
        let mut out = octets;
        let [.., a, b, c] = octets;
        out[13..].copy_from_slice(&self.low_bits([a, b, c]));
        out
    }

    /// Low bits of a unicast address in a multicast address of IP or of the link.
    fn low_bits(&mut self, octets: [u8; 3]) -> [u8; 3] {
        if !self.level.addresses() {
            return octets;
        }
        let mut digits = [0; 6];
        for (pair, octet) in digits.chunks_exact_mut(2).zip(octets) {
            (pair[0], pair[1]) = (octet >> 4, octet & 15);
        }
        self.secret.permute(Purpose::Solicited, b"", &mut digits, &[16; 6]);
        let [a, b, c, d, e, f] = digits;
        [a << 4 | b, c << 4 | d, e << 4 | f]
    }

    /// What stands for a link address. Group addresses and those of virtual routers stay, and so do the bits that say "group" and "local".
    pub fn mac(&mut self, mac: Mac) -> Mac {
        if !self.level.macs() {
            return mac;
        }
        let [a, b, c, d, e, f] = mac.0;
        match mac.0 {
            [0x33, 0x33, 0xff, ..] => {
                let [d, e, f] = self.low_bits([d, e, f]);
                return Mac([a, b, c, d, e, f]);
            }
            [0, 0, 0, 0, 0, 0]
            | [0, 0, 0x5e, 0, 1 | 2, _]
            | [0, 0, 0x0c, 7, 0xac, _]
            | [0, 0, 0x0c, 0x9f, 0xf0..=0xff, _]
            | [0, 7, 0xb4, 0, _, _] => return mac,
            _ if a & 1 == 1 => return mac,
            _ => {}
        }
        if let Some(known) = self.macs.get(&mac) {
            return *known;
        }
        let mut digits = [0; 12];
        for (pair, octet) in digits.chunks_exact_mut(2).zip(mac.0) {
            (pair[0], pair[1]) = (octet >> 4, octet & 15);
        }
        let low = digits[1] & 3;
        digits[1] >>= 2;
        let mut radices = [16; 12];
        radices[1] = 4;
        self.secret.permute(Purpose::Mac, &[low], &mut digits, &radices);
        digits[1] = digits[1] << 2 | low;
        let mut octets = [0; 6];
        for (slot, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            *slot = pair[0] << 4 | pair[1];
        }
        let mapped = Mac(octets);
        if self.macs.len() >= super::mapping::REMEMBERED {
            self.macs.clear();
        }
        self.macs.insert(mac, mapped);
        self.note(super::mapping::What::Mac, || mac.to_string(), || mapped.to_string());
        mapped
    }

    /// An address as text, in the same number of characters. `None`: it is none.
    pub(super) fn v4_text(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let ip: Ipv4Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(self.address(Address::v4(ip.octets())).to_string().into_bytes())
    }

    /// As [`Mapping::v4_text`], in the way in which it was written: case, zeros, what is left out.
    pub(super) fn v6_text(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let ip: Ipv6Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
        let mapped = match self.address(Address::v6(ip.octets())).to_ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        let mut out = text.to_vec();
        let words: Vec<(usize, usize)> = words(text);
        let dotted = words.last().filter(|(from, to)| text[*from..*to].contains(&b'.')).copied();
        if let Some((from, to)) = dotted {
            let [.., a, b, c, d] = mapped.octets();
            let inner = Ipv4Addr::new(a, b, c, d).to_string().into_bytes();
            out[from..to].copy_from_slice(inner.get(..to - from)?);
        }
        let groups = mapped.segments();
        let whole = 8 - 2 * usize::from(dotted.is_some());
        let written: Vec<_> = words.iter().filter(|word| Some(**word) != dotted).collect();
        let gap = memchr::memmem::find(text, b"::").unwrap_or(text.len());
        for (n, (from, to)) in written.iter().enumerate() {
            let group = if *from < gap { n } else { (whole + n).checked_sub(written.len())? };
            let digits = format!("{:0width$x}", groups.get(group)?, width = to - from).into_bytes();
            // An IPv4 address in hexadecimal digits may want more of them than there are: then it only stays hidden.
            let digits = digits.into_iter().rev().take(to - from).rev();
            for (slot, digit) in out[*from..*to].iter_mut().zip(digits) {
                *slot = if slot.is_ascii_uppercase() { digit.to_ascii_uppercase() } else { digit };
            }
        }
        Some(out)
    }
}

/// Where the groups of an IPv6 address stand in its text.
fn words(text: &[u8]) -> Vec<(usize, usize)> {
    let mut words = Vec::new();
    let mut from = 0;
    for (at, octet) in text.iter().chain(b":").enumerate() {
        if *octet == b':' {
            if at > from {
                words.push((from, at));
            }
            from = at + 1;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;

    fn mapping() -> Mapping {
        Mapping::new(&key(1), Level::All)
    }

    fn of(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn whole_octets_that_addresses_share_they_share_afterwards() {
        let mut mapping = mapping();
        let all = ["203.0.113.7", "203.0.113.9", "203.0.99.7", "203.7.113.7", "34.0.113.7", "10.1.2.3", "10.1.2.4"];
        let mapped: Vec<_> = all.map(|text| mapping.address(of(text))).to_vec();
        for (a, one) in all.iter().zip(&mapped) {
            for (b, other) in all.iter().zip(&mapped) {
                let shared = |a: &str, b: &str| a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b).count();
                assert_eq!(shared(a, b), shared(&one.to_string(), &other.to_string()), "{a} {b}");
            }
        }
    }

    #[test]
    fn texts_keep_their_length_and_addresses_their_class() {
        let mut mapping = mapping();
        for text in [
            "8.8.8.8",
            "10.0.0.1",
            "172.16.31.250",
            "192.168.1.1",
            "100.64.3.99",
            "169.254.7.8",
            "198.18.0.1",
            "2001:db8::1",
            "fe80::1ff:fe23:4567:890a",
            "fd12:3456:789a:1::5",
            "2a00:1450:4001:81b::200e",
        ] {
            let mapped = mapping.address(of(text));
            assert_eq!(mapped.to_string().len(), text.len(), "{text} {mapped}");
            assert_ne!(mapped, of(text), "{text}");
            let class = |address: Address| match address.to_ip() {
                IpAddr::V4(ip) => {
                    let shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
                    (ip.is_private(), ip.is_link_local(), shared, false)
                }
                IpAddr::V6(ip) => (ip.is_unique_local(), ip.is_unicast_link_local(), false, true),
            };
            assert_eq!(class(mapped), class(of(text)), "{text}");
        }
        for text in
            ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.251", "169.254.169.254", "::1", "::", "ff02::fb"]
        {
            assert_eq!(mapping.address(of(text)), of(text), "{text}");
        }
    }

    #[test]
    fn different_addresses_stay_different() {
        let mut mapping = mapping();
        let mapped: BTreeSet<_> = (0..=255).map(|n| mapping.address(Address::v4([203, 0, 113, n]))).collect();
        assert_eq!(mapped.len(), 256);
    }

    #[test]
    fn text_is_written_as_it_was() {
        let mut mapping = mapping();
        let plain = mapping.v6_text(b"2001:db8::a:1").expect("an address");
        let padded = mapping.v6_text(b"2001:0DB8:0:0::A:0001").expect("an address");
        let read = |text: &[u8]| std::str::from_utf8(text).expect("ASCII").parse::<Ipv6Addr>().expect("an address");
        assert_eq!(read(&plain), read(&padded));
        assert_eq!(Address::v6(read(&plain).octets()), mapping.address(of("2001:db8::a:1")));
        assert_eq!(mapping.v4_text(b"10.0.0.7").expect("v4").len(), 8);
        assert_eq!(mapping.v4_text(b"10.0.0.700"), None);
    }

    #[test]
    fn link_addresses_keep_their_kind() {
        let mut mapping = mapping();
        for octets in [[0xff; 6], [0; 6], [0, 0, 0x5e, 0, 1, 7], [1, 0x80, 0xc2, 0, 0, 0], [0x33, 0x33, 0, 0, 0, 1]] {
            assert_eq!(mapping.mac(Mac(octets)), Mac(octets));
        }
        let global = mapping.mac(Mac([0, 0x1b, 0x21, 1, 2, 3]));
        let local = mapping.mac(Mac([2, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!((global.0[0] & 3, local.0[0] & 3), (0, 2));
        assert_ne!((global.0, local.0), ([0, 0x1b, 0x21, 1, 2, 3], [2, 0x42, 0xac, 0x11, 0, 2]));
    }

    #[test]
    fn the_level_says_what_is_replaced() {
        let (ip, mac) = (of("203.0.113.7"), Mac([2, 0, 0, 0, 0, 1]));
        let mut ids = Mapping::new(&key(1), Level::Ids);
        assert_eq!((ids.address(ip), ids.mac(mac)), (ip, mac));
        let mut ips = Mapping::new(&key(1), Level::IdsIps);
        assert_ne!(ips.address(ip), ip);
        assert_eq!(ips.mac(mac), mac);
    }
}
