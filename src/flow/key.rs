//! The name of a flow: both ends and the protocol, the same for packets of either direction.
//!
//! The ends are put in numeric order, so a packet and its answer have one key; [`Way`] says which of the two ends sent. Roles come later
//! and may be swapped without touching the key.

use std::num::NonZeroU64;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::facts::IpProtocol;
use crate::decode::fold;
use crate::wire::{Address, Endpoint};

/// Which of the two ends of a [`Key`] sent a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// The numerically lower end.
    #[default]
    Low = 0,
    /// The higher end.
    High = 1,
}

impl Way {
    /// Both, in order.
    pub(super) const BOTH: [Self; 2] = [Self::Low, Self::High];

    /// The opposite direction.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Something kept for each direction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pair<T>([T; 2]);

impl<T> Index<Way> for Pair<T> {
    type Output = T;
    fn index(&self, way: Way) -> &T {
        &self.0[way as usize]
    }
}

impl<T> IndexMut<Way> for Pair<T> {
    fn index_mut(&mut self, way: Way) -> &mut T {
        &mut self.0[way as usize]
    }
}

/// Both ends in numeric order, as integers of 8 octets: the record keeps its size, and what is written in words can be read again at once,
/// while a processor lets a load that covers several stores wait until all of them have reached the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    low: [u64; 2],
    high: [u64; 2],
    /// The lower end's port, the higher one's, one bit for UDP, and a bit that is always set.
    rest: NonZeroU64,
}

fn rest(ports: [u16; 2], protocol: IpProtocol) -> NonZeroU64 {
    NonZeroU64::MIN | u64::from(ports[0]) << 32 | u64::from(ports[1]) << 8 | (protocol as u64) << 1
}

/// The flow of a packet by name, and which of its ends sent the packet.
pub struct Name {
    pub(super) key: Key,
    pub(super) hash: u64,
    pub(super) way: Way,
}

fn halves(address: Address) -> [u64; 2] {
    [(address.0 >> 64) as u64, address.0 as u64]
}

fn whole(halves: [u64; 2]) -> Address {
    Address(u128::from(halves[0]) << 64 | u128::from(halves[1]))
}

impl Key {
    /// The key of a packet and the end that sent it.
    pub(super) fn of(source: Endpoint, destination: Endpoint, protocol: IpProtocol) -> (Self, Way) {
        let (low, high, way) =
            if source <= destination { (source, destination, Way::Low) } else { (destination, source, Way::High) };
        let rest = rest([low.port, high.port], protocol);
        (Self { low: halves(low.address), high: halves(high.address), rest }, way)
    }

    /// The end that sends in direction `way`.
    pub(super) fn end(&self, way: Way) -> Endpoint {
        match way {
            Way::Low => Endpoint::new(whole(self.low), self.ports()[0]),
            Way::High => Endpoint::new(whole(self.high), self.ports()[1]),
        }
    }

    /// TCP or UDP.
    pub(super) fn protocol(&self) -> IpProtocol {
        if self.rest.get() & 2 == 0 { IpProtocol::Tcp } else { IpProtocol::Udp }
    }

    /// Its five words, for who keeps many; the upper 16 bits of the last are free.
    pub(super) fn words(&self) -> [u64; 5] {
        [self.low[0], self.low[1], self.high[0], self.high[1], self.rest.get()]
    }

    /// The key of such words, whatever the free bits hold.
    pub(super) fn of_words([a, b, c, d, rest]: [u64; 5]) -> Self {
        Self { low: [a, b], high: [c, d], rest: NonZeroU64::MIN | (rest & ((1 << Self::FREE) - 1)) }
    }

    /// The first free bit of the last word.
    pub(super) const FREE: u32 = 48;

    fn ports(&self) -> [u16; 2] {
        [(self.rest.get() >> 32) as u16, (self.rest.get() >> 8) as u16]
    }

    /// All of it in 13 octets, or 37 for IPv6: `flags low high port port`; flags: 1 IPv6, 2 UDP.
    pub(super) fn short(&self) -> SmallVec<[u8; 64]> {
        let wide = !(whole(self.low).is_v4() && whole(self.high).is_v4());
        let mut short = SmallVec::new();
        short.push(u8::from(wide) | u8::from(self.protocol() == IpProtocol::Udp) << 1);
        for end in [self.low, self.high] {
            let octets = whole(end).0.to_be_bytes();
            short.extend_from_slice(if wide { &octets } else { octets.last_chunk::<4>().unwrap_or(&[0; 4]) });
        }
        for port in self.ports() {
            short.extend_from_slice(&port.to_be_bytes());
        }
        short
    }

    /// The key that a [`Key::short`] stands for, and what lies behind it.
    pub(super) fn of_short(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (flags, rest) = octets.split_first()?;
        let (low, high, rest) = if flags & 1 == 0 {
            let (ends, rest) = rest.split_first_chunk::<8>()?;
            let [a, b, c, d, e, f, g, h] = *ends;
            (Address::v4([a, b, c, d]), Address::v4([e, f, g, h]), rest)
        } else {
            let (low, rest) = rest.split_first_chunk::<16>()?;
            let (high, rest) = rest.split_first_chunk::<16>()?;
            (Address(u128::from_be_bytes(*low)), Address(u128::from_be_bytes(*high)), rest)
        };
        let ([a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
        let ports = [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])];
        let protocol = if flags & 2 == 0 { IpProtocol::Tcp } else { IpProtocol::Udp };
        Some((Self { low: halves(low), high: halves(high), rest: self::rest(ports, protocol) }, rest))
    }

    /// Two folded multiplications over a secret seed: what a capture holds is chosen by strangers, who must not choose the buckets.
    pub(super) fn hash(&self, seed: u64) -> u64 {
        const K: u64 = 0x9e37_79b9_7f4a_7c15;
        let one = fold(self.low[0] ^ seed, self.low[1] ^ seed.rotate_left(23) ^ K);
        let two = fold(self.high[0] ^ seed.rotate_left(41), self.high[1] ^ seed.rotate_left(7) ^ K);
        fold(one ^ self.rest.get() ^ K, two.rotate_left(32) ^ seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_and_its_answer_have_one_key() {
        let a = Endpoint::new(Address::v4([10, 0, 0, 1]), 40_000);
        let b = Endpoint::new(Address::v4([10, 0, 0, 2]), 80);
        let (there, way) = Key::of(a, b, IpProtocol::Tcp);
        let (back, other) = Key::of(b, a, IpProtocol::Tcp);
        assert_eq!(there, back);
        assert_eq!(there.hash(7), back.hash(7));
        assert_eq!(way.other(), other);
        assert_eq!(there.end(way), a);
        assert_eq!(there.end(other), b);
    }

    #[test]
    fn a_short_key_stands_for_the_whole_one() {
        let ends = [Address::v4([10, 0, 0, 1]), Address::v4([255, 255, 255, 255]), Address::v6([1; 16]), Address(0)];
        for (a, b) in ends.iter().flat_map(|a| ends.map(|b| (*a, b))) {
            for protocol in [IpProtocol::Tcp, IpProtocol::Udp] {
                let (key, _) = Key::of(Endpoint::new(a, 65_535), Endpoint::new(b, 1), protocol);
                let mut short = key.short();
                assert_eq!(short.len(), if a.is_v4() && b.is_v4() { 13 } else { 37 });
                short.push(7);
                assert_eq!(Key::of_short(&short), Some((key, &[7][..])));
                assert_eq!(Key::of_short(&short[..12]), None);
            }
        }
    }

    #[test]
    fn tcp_and_udp_between_the_same_ports_are_two_flows() {
        let a = Endpoint::new(Address::v6([1; 16]), 53);
        let b = Endpoint::new(Address::v6([2; 16]), 53);
        assert_ne!(Key::of(a, b, IpProtocol::Tcp).0, Key::of(a, b, IpProtocol::Udp).0);
    }
}
