//! Whether a TCP checksum fits. RFC 9293 §3.1, RFC 1071, RFC 8200 §8.1.

use crate::decode::{Flags, Ip, Segment};

/// `None` when it cannot be told: the payload is not all there, or the segment has an urgent pointer, which decoding does not keep.
pub(super) fn fits(ip: &Ip, segment: &Segment<'_>) -> Option<bool> {
    if segment.payload.len() as u32 != segment.payload_len || segment.flags.has(Flags::URG) || ip.reassembled {
        return None;
    }
    let len = 20 + segment.options.len() as u64 + segment.payload.len() as u64;
    let offset = (20 + segment.options.len() as u64) / 4;
    let mut sum = 6 + len;
    for address in [ip.source.0, ip.destination.0] {
        // The mapped form's 0xffff must not be added for IPv4.
        let address = if ip.source.is_v4() { address & 0xffff_ffff } else { address };
        sum += (0..4).map(|i| (address >> (32 * i)) as u64 & 0xffff_ffff).sum::<u64>();
    }
    sum += u64::from(segment.source_port) + u64::from(segment.destination_port);
    sum += u64::from(segment.seq.0 >> 16) + u64::from(segment.seq.0 & 0xffff);
    sum += u64::from(segment.ack.0 >> 16) + u64::from(segment.ack.0 & 0xffff);
    sum += offset << 12 | u64::from(segment.flags.0);
    sum += u64::from(segment.window) + u64::from(segment.checksum);
    sum += words(segment.options) + words(segment.payload);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Some(sum == 0xffff)
}

/// Sum of the 16-bit words, eight octets at a time, added as two halves of which 2³² fit the accumulator. Added in the machine's own order
/// and turned at the end: the sum does not mind (RFC 1071 §2(B)).
fn words(octets: &[u8]) -> u64 {
    let (chunks, rest) = octets.as_chunks::<8>();
    let (mut high, mut low) = (0, 0);
    for chunk in chunks {
        let eight = u64::from_ne_bytes(*chunk);
        high += eight >> 32;
        low += eight & 0xffff_ffff;
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    let mut sum = high + low;
    for pair in pairs {
        sum += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [octet] = odd {
        sum += u64::from(u16::from_ne_bytes([*octet, 0]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u64::from(u16::from_be(sum as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;
    use crate::wire::seq::Seq;

    #[test]
    fn a_checksum_fits_until_one_octet_changes() {
        let (a, b) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
        let ip = Ip { source: a, destination: b, ttl: 64, id: None, len: 43, reassembled: false, tunnelled: false };
        let mut segment = Segment {
            source_port: 1,
            destination_port: 2,
            seq: Seq(3),
            ack: Seq(4),
            flags: Flags::ACK,
            window: 5,
            options: &[],
            payload: b"abc",
            payload_len: 3,
            checksum: 0,
        };
        // 0a00+0001+0a00+0002 + 6+23 + 1+2 + 3 + 4 + 5010 + 5 + 6162+6300 = 0x128a1 -> 0x28a2; complement 0xd75d
        segment.checksum = 0xd75d;
        assert_eq!(fits(&ip, &segment), Some(true));
        segment.payload = b"abd";
        assert_eq!(fits(&ip, &segment), Some(false));
        segment.payload = b"ab";
        assert_eq!(fits(&ip, &segment), None);
    }
}
