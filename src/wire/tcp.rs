//! TCP options (RFC 9293 §3.1, RFC 7323, RFC 2018, RFC 7413) and the checksum of TCP and UDP. Called per segment: no allocation.

use super::seq::Seq;
use super::{Address, Cursor, Malformed};

/// Option kinds of the IANA registry.
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
    pub(super) const FAST_OPEN: u8 = 34;
    pub(super) const EXPERIMENT: u8 = 254;
}

/// What the options of one segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Largest segment the sender wants to get. Only on SYN.
    pub mss: Option<u16>,
    /// Shift of the sender's window, as sent: values above 14 count as 14 (RFC 7323 §2.3). Only on SYN.
    pub window_scale: Option<u8>,
    /// The sender can read SACK. Only on SYN.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// Octets of the fast open cookie; 0 asks for one.
    pub fast_open_cookie: Option<u8>,
    /// Options of other kinds.
    pub unknown: u8,
    /// The last option contradicts its own length or runs over the end.
    pub damaged: bool,
    blocks: [(Seq, Seq); 4],
    block_count: u8,
}

impl TcpOptions {
    /// Reads the options of a segment: what lies between the fixed 20 octets and the payload. Never fails: what comes before damage is kept.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        // Nearly every segment of an established connection: NOP, NOP, timestamps and nothing else.
        if let &[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10, a, b, c, d, e, f, g, h] = bytes {
            options.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            return options;
        }
        let mut cursor = Cursor::new(bytes);
        while let Ok(kind) = cursor.u8("option kind") {
            match kind {
                kind::END => break,
                kind::NOP => continue,
                _ => {}
            }
            if options.take(kind, &mut cursor).is_err() {
                options.damaged = true;
                break;
            }
        }
        options
    }

    /// The SACK blocks in the order sent, as (left edge, right edge); the first may be a D-SACK (RFC 2883).
    pub fn sack(&self) -> &[(Seq, Seq)] {
        self.blocks.get(..usize::from(self.block_count)).unwrap_or(&[])
    }

    fn take(&mut self, kind: u8, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        const WHAT: &str = "TCP option";
        let len = usize::from(cursor.u8(WHAT)?).checked_sub(2).ok_or(Malformed::field(WHAT, 1))?;
        let value = cursor.take(len, WHAT)?;
        match (kind, value) {
            (kind::MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (kind::WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift),
            (kind::SACK_PERMITTED, []) => self.sack_permitted = true,
            (kind::TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            }
            (kind::SACK, blocks) if len.is_multiple_of(8) => self.take_blocks(blocks)?,
            (kind::FAST_OPEN, cookie) => self.fast_open_cookie = Some(cookie.len() as u8),
            // The form used before kind 34 was assigned.
            (kind::EXPERIMENT, &[0xf9, 0x89, ref cookie @ ..]) => self.fast_open_cookie = Some(cookie.len() as u8),
            (kind::MSS | kind::WINDOW_SCALE | kind::SACK_PERMITTED | kind::TIMESTAMPS | kind::SACK, _) => {
                return Err(Malformed::field(WHAT, 1));
            }
            // A header has room for 20; who calls may have more.
            _ => self.unknown = self.unknown.saturating_add(1),
        }
        Ok(())
    }

    fn take_blocks(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(bytes);
        let mut count = 0;
        for block in &mut self.blocks {
            if cursor.remaining() == 0 {
                break;
            }
            *block = (Seq(cursor.u32("SACK block")?), Seq(cursor.u32("SACK block")?));
            count += 1;
        }
        self.block_count = count;
        Ok(())
    }
}

/// What a TCP or UDP checksum is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It fits.
    Fits,
    /// It holds the sum of the pseudo header alone: captured on the sending host before the network card finished it. Says nothing.
    Offloaded,
    /// UDP over IPv4 without one.
    Absent,
    /// It does not fit.
    Wrong,
}

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Judges the checksum of a whole TCP segment or UDP datagram (header first), RFC 9293 §3.1, RFC 768, RFC 8200 §8.1.
///
/// `None` when `protocol` is neither or the header is cut. The caller must know that the capture holds all of the segment.
pub fn checksum(source: Address, destination: Address, protocol: u8, segment: &[u8]) -> Option<Checksum> {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let &[high, low] = segment.get(at..at + 2)? else { return None };
    let field = u16::from_be_bytes([high, low]);
    if protocol == UDP && field == 0 && source.is_v4() {
        return Some(Checksum::Absent);
    }
    let pseudo = pseudo_header_sum(source, destination, protocol, segment.len() as u32);
    Some(match fold(pseudo + sum(segment)) {
        0xffff => Checksum::Fits,
        _ if field == fold(pseudo) => Checksum::Offloaded,
        _ => Checksum::Wrong,
    })
}

/// The sum of the pseudo header, not yet folded. Mapped IPv4 addresses count as their four octets.
fn pseudo_header_sum(source: Address, destination: Address, protocol: u8, len: u32) -> u64 {
    let address = |address: Address| {
        if address.is_v4() { sum(&(address.0 as u32).to_be_bytes()) } else { sum(&address.0.to_be_bytes()) }
    };
    address(source) + address(destination) + u64::from(protocol) + u64::from(len)
}

/// The sum of the octets as numbers in network order; not folded, so that sums may be added. RFC 1071.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    whole + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum into 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::octets;

    #[test]
    fn more_options_than_a_header_holds_are_counted_up_to_255() {
        assert_eq!(TcpOptions::parse(&[253, 2].repeat(300)).unknown, 255);
    }

    #[test]
    fn the_options_of_a_linux_syn_are_read() {
        let options = TcpOptions::parse(&octets("020405b4 0402 080a0b6ab9b200000000 01 030307"));
        assert_eq!((options.mss, options.window_scale, options.sack_permitted), (Some(1460), Some(7), true));
        assert_eq!(options.timestamps, Some((0x0b6a_b9b2, 0)));
        assert_eq!((options.unknown, options.damaged), (0, false));
    }

    #[test]
    fn timestamps_alone_and_with_blocks_are_read() {
        assert_eq!(TcpOptions::parse(&octets("0101080a0000000100000002")).timestamps, Some((1, 2)));
        let options =
            TcpOptions::parse(&octets("0101080a0000000100000002 0101 0512 00000010 00000020 fffffff0 00000004"));
        assert_eq!(options.timestamps, Some((1, 2)));
        assert_eq!(options.sack(), [(Seq(0x10), Seq(0x20)), (Seq(0xffff_fff0), Seq(4))]);
    }

    #[test]
    fn fast_open_is_read_in_both_forms() {
        assert_eq!(TcpOptions::parse(&octets("2202")).fast_open_cookie, Some(0));
        assert_eq!(TcpOptions::parse(&octets("220a1122334455667788")).fast_open_cookie, Some(8));
        assert_eq!(TcpOptions::parse(&octets("fe08f98911223344")).fast_open_cookie, Some(4));
    }

    #[test]
    fn unknown_options_are_counted_and_stepped_over() {
        let options = TcpOptions::parse(&octets("1e0400aa 1312 00000000000000000000000000000000 020405b4 00 ff"));
        assert_eq!((options.unknown, options.mss, options.damaged), (2, Some(1460), false));
    }

    #[test]
    fn what_comes_before_damage_is_kept() {
        for damage in ["0300", "0301", "03", "030a07", "050a0000000000", "0203", "020305", "0509000000010000 00"] {
            let options = TcpOptions::parse(&octets(&format!("020405b4{damage}")));
            assert_eq!((options.mss, options.damaged), (Some(1460), true), "{damage}");
        }
    }

    #[test]
    fn every_truncation_of_options_is_read_or_damaged() {
        let bytes = octets("020405b40402080a0b6ab9b20000000001030307");
        for end in 0..bytes.len() {
            let whole = [0, 4, 6, 16, 17].contains(&end);
            assert_eq!(TcpOptions::parse(&bytes[..end]).damaged, !whole, "{end}");
        }
    }

    /// A UDP datagram and its ends.
    fn udp() -> (Address, Address, Vec<u8>) {
        // Ports 1 and 2, length 9, checksum, one octet of data.
        (Address::v4([192, 0, 2, 1]), Address::v4([192, 0, 2, 2]), octets("00010002 0009 3ad5 41"))
    }

    #[test]
    fn checksums_are_judged() {
        let (source, destination, mut datagram) = udp();
        assert_eq!(checksum(source, destination, UDP, &datagram), Some(Checksum::Fits));
        datagram[8] ^= 1;
        assert_eq!(checksum(source, destination, UDP, &datagram), Some(Checksum::Wrong));
        datagram[6..8].copy_from_slice(&[0, 0]);
        assert_eq!(checksum(source, destination, UDP, &datagram), Some(Checksum::Absent));
        assert_eq!(checksum(source, destination, UDP, &datagram[..7]), None);
        assert_eq!(checksum(source, destination, 1, &datagram), None);
    }

    #[test]
    fn a_checksum_the_card_would_have_finished_is_told_apart() {
        let (source, destination, mut datagram) = udp();
        // c000 + 0201 + c000 + 0202 + 0011 + 0009, folded.
        datagram[6..8].copy_from_slice(&[0x84, 0x1e]);
        assert_eq!(checksum(source, destination, UDP, &datagram), Some(Checksum::Offloaded));
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            TcpOptions::parse(&bytes).sack();
            checksum(Address(0), Address(1), TCP, &bytes);
            checksum(Address(0), Address(1), UDP, &bytes);
        }

        #[test]
        fn checksums_agree_with_etherparse(a: [u8; 4], b: [u8; 4], payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let header = etherparse::TcpHeader::new(1, 2, 3, 4);
            let sum = header.calc_checksum_ipv4_raw(a, b, &payload).expect("short");
            let mut segment = header.to_bytes().to_vec();
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            segment.extend(&payload);
            prop_assert_eq!(checksum(Address::v4(a), Address::v4(b), TCP, &segment), Some(Checksum::Fits));
        }

        #[test]
        fn checksums_over_ipv6_agree_with_etherparse(a: [u8; 16], b: [u8; 16], payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let header = etherparse::TcpHeader::new(1, 2, 3, 4);
            let sum = header.calc_checksum_ipv6_raw(a, b, &payload).expect("short");
            let mut segment = header.to_bytes().to_vec();
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            segment.extend(&payload);
            prop_assert_eq!(checksum(Address::v6(a), Address::v6(b), TCP, &segment), Some(Checksum::Fits));
        }
    }
}
