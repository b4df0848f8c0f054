//! Hashes of a flow's two ends: the same number for both directions.

use crate::wire::Endpoint;

/// Digits of π after the point: constants nobody chose.
const PI: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

/// The lowest IPv4 address as an [`Address`](crate::wire::Address).
const V4: u128 = 0xffff_0000_0000;

/// The fixed hash by which flows are dealt out to shards: the same in every run, equal for both directions.
///
/// Anybody can make flows that collide in it, so it must not place keys in a table: see [`keyed_flow_hash`].
#[inline]
pub fn flow_hash(source: Endpoint, destination: Endpoint, protocol: u8) -> u64 {
    keyed_flow_hash(source, destination, protocol, 0)
}

/// The hash for tables: equal for both directions, different for each seed. Two folded multiplications for IPv4, four for IPv6.
///
/// The seed should be random in each run, because whoever sent the captured packets chose the addresses and ports.
#[inline]
pub fn keyed_flow_hash(source: Endpoint, destination: Endpoint, protocol: u8, seed: u64) -> u64 {
    let protocol = u64::from(protocol);
    let [k0, k1, k2, k3] = PI.map(|digits| digits ^ seed);
    // IPv4 addresses have their upper bits in common.
    if ((source.address.0 ^ V4) | (destination.address.0 ^ V4)) >> 32 == 0 {
        let (source, destination) = (packed(source), packed(destination));
        let ends = fold(source.min(destination) ^ k0, source.max(destination) ^ k1);
        return fold(ends ^ protocol, k2);
    }
    let (a, b) = if source <= destination { (source, destination) } else { (destination, source) };
    let ports = u64::from(a.port) << 24 | u64::from(b.port) << 8 | protocol;
    let first = fold(high(a) ^ k0, low(a) ^ k1);
    let both = fold(first ^ high(b), low(b) ^ k2);
    // One multiplication does not carry a port's low bits into all high ones; hence the last.
    fold(fold(both ^ ports, k3), k1)
}

/// Multiplies to 128 bits and folds the halves together, so that every input bit reaches every output bit.
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// An IPv4 end in 48 bits, which are in the order of the ends.
#[inline]
fn packed(end: Endpoint) -> u64 {
    (end.address.0 as u32 as u64) << 16 | u64::from(end.port)
}

#[inline]
fn high(end: Endpoint) -> u64 {
    (end.address.0 >> 64) as u64
}

#[inline]
fn low(end: Endpoint) -> u64 {
    end.address.0 as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::wire::Address;

    fn v4(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Address::v4([10, 0, 0, last]), port)
    }

    fn v6(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Address(0x2001_0db8 << 96 | u128::from(last)), port)
    }

    #[test]
    fn both_directions_of_a_flow_have_one_hash() {
        for (a, b) in [(v4(1, 40_000), v4(2, 443)), (v6(1, 40_000), v6(2, 443)), (v4(9, 1), v6(1, 1))] {
            assert_eq!(keyed_flow_hash(a, b, 6, 7), keyed_flow_hash(b, a, 6, 7));
            assert_eq!(flow_hash(a, b, 6), flow_hash(b, a, 6));
        }
    }

    #[test]
    fn protocol_ports_and_seed_all_count() {
        for end in [v4, v6] {
            let base = keyed_flow_hash(end(1, 1000), end(2, 443), 6, 1);
            assert_ne!(base, keyed_flow_hash(end(1, 1000), end(2, 443), 17, 1));
            assert_ne!(base, keyed_flow_hash(end(1, 443), end(2, 1000), 6, 1));
            assert_ne!(base, keyed_flow_hash(end(1, 1000), end(2, 443), 6, 2));
        }
    }

    #[test]
    fn neighbouring_ports_spread_over_the_low_and_the_high_bits() {
        for end in [v4, v6] {
            let hashes: Vec<u64> = (1..=4096).map(|port| flow_hash(end(1, port), end(2, 443), 6)).collect();
            let full: HashSet<u64> = hashes.iter().copied().collect();
            assert_eq!(full.len(), 4096);
            // 4096 balls thrown at random into 4096 bins fill 63 % of them; it may be more even, not less.
            for shift in [0, 20, 52] {
                let bins: HashSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 0xfff).collect();
                assert!(bins.len() > 2500, "{} bins at bit {shift}", bins.len());
            }
        }
    }
}
