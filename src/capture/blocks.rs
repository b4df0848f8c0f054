//! pcapng blocks that describe packets: interfaces, statistics, names, and the options of all of them.
//!
//! draft-ietf-opsawg-pcapng. Everything here is bounded, because the file decides how much of it there is.

use super::pcap::word;
use super::{CaptureInfo, Interface, LinkType};
use crate::time::Timestamp;
use crate::wire::Address;

/// What a packet takes from its interface.
#[derive(Clone, Copy)]
pub(super) struct Described {
    /// Index into [`CaptureInfo::interfaces`].
    pub(super) index: u16,
    pub(super) link: LinkType,
    pub(super) snaplen: u32,
    pub(super) clock: Clock,
}

/// How an interface counts time: if_tsresol and if_tsoffset, §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    resolution: Resolution,
    /// Seconds added to every time.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// A tick is so many nanoseconds.
    Nanos(u64),
    /// So many ticks are a nanosecond.
    PerNano(u64),
    /// 2ⁿ ticks are a second.
    PowerOfTwo(u32),
}

/// Comments, and kinds of unknown blocks, kept per input.
const KEPT: usize = 64;
/// Names kept per input.
const NAMES_KEPT: usize = 1024;
/// Interfaces whose names, descriptions and filters are kept per input.
const INTERFACES_NAMED: usize = 1024;
/// Octets kept of a comment, a name, a description; DNS names have at most 255.
const TEXT: usize = 256;
/// Octets kept of a capture filter.
const FILTER: usize = 4096;

impl Clock {
    const MICROS: Self = Self { resolution: Resolution::Nanos(1_000), offset: 0 };

    /// The moment of so many ticks.
    #[inline]
    pub(super) fn time(self, ticks: u64) -> Timestamp {
        let nanos = match self.resolution {
            Resolution::Nanos(nanos) => ticks.checked_mul(nanos).and_then(|nanos| i64::try_from(nanos).ok()),
            Resolution::PerNano(ticks_per_nano) => i64::try_from(ticks / ticks_per_nano).ok(),
            Resolution::PowerOfTwo(n) => i64::try_from((u128::from(ticks) * 1_000_000_000) >> n).ok(),
        };
        let nanos = nanos.unwrap_or(i64::MAX);
        Timestamp(nanos.saturating_add(self.offset.saturating_mul(1_000_000_000)))
    }
}

impl Resolution {
    /// A power of ten, or of two with the top bit set.
    fn of(octet: u8) -> Self {
        match octet {
            0..=9 => Self::Nanos(10u64.pow(9 - u32::from(octet))),
            // Beyond 10⁻²⁸ every 64-bit time is zero nanoseconds anyway.
            10..0x80 => Self::PerNano(10u64.pow((u32::from(octet) - 9).min(19))),
            _ => Self::PowerOfTwo(u32::from(octet & 0x7f)),
        }
    }
}

/// Interface description, §4.2. `None` when there are more interfaces than a [`super::Frame`] can tell apart.
pub(super) fn interface(body: &[u8], swapped: bool, info: &mut CaptureInfo) -> Option<Described> {
    let index = u16::try_from(info.interfaces.len()).ok()?;
    let link = LinkType(half(body, 0, swapped));
    let snaplen = word(body, 4, swapped);
    let mut interface = Interface { link, snaplen, ..Interface::default() };
    let mut clock = Clock::MICROS;
    let named = info.interfaces.len() < INTERFACES_NAMED;
    for (code, value) in options(body.get(8..).unwrap_or(&[]), swapped) {
        match (code, value) {
            (1, comment) => info.comment(comment),
            (2, name) if named => interface.name = text(name, TEXT),
            (3, description) if named => interface.description = text(description, TEXT),
            (9, [resolution, ..]) => clock.resolution = Resolution::of(*resolution),
            // The first octet tells text from compiled code.
            (11, [0, filter @ ..]) if named => interface.filter = Some(text(filter, FILTER)),
            (14, seconds) => clock.offset = long(seconds, swapped).map_or(0, |seconds| seconds as i64),
            _ => {}
        }
    }
    info.interfaces.push(interface);
    Some(Described { index, link, snaplen, clock })
}

/// Interface statistics, §4.6: the latest of each interface counts. Options: 3 isb_endtime, 4 isb_ifrecv, 5 isb_ifdrop, 7 isb_osdrop,
/// 8 isb_usrdeliv.
pub(super) fn statistics(body: &[u8], swapped: bool, of: Option<&Described>, info: &mut CaptureInfo) {
    let Some(of) = of else { return };
    let (mut drops, mut received, mut delivered, mut end) = (None, None, None, None);
    for (code, value) in options(body.get(12..).unwrap_or(&[]), swapped) {
        match code {
            // The upper half of a time comes first, in either byte order.
            3 if value.len() >= 8 => {
                end = Some(u64::from(word(value, 0, swapped)) << 32 | u64::from(word(value, 4, swapped)));
            }
            4 => received = long(value, swapped),
            5 | 7 => drops = long(value, swapped).map(|n| n.saturating_add(drops.unwrap_or(0))).or(drops),
            8 => delivered = long(value, swapped),
            _ => {}
        }
    }
    let Some(interface) = info.interfaces.get_mut(usize::from(of.index)) else { return };
    interface.until = end.zip(delivered.or(received)).map(|(ticks, packets)| (of.clock.time(ticks), packets));
    if drops.is_some() {
        interface.drops = drops;
        info.drops = info.interfaces.iter().filter_map(|interface| interface.drops).reduce(u64::saturating_add);
    }
}

/// Name resolution, §4.5: record type 1 IPv4, 2 IPv6, then zero-terminated names; type 0 ends the list.
pub(super) fn names(body: &[u8], swapped: bool, info: &mut CaptureInfo) {
    let mut rest = body;
    loop {
        let (kind, len) = (half(rest, 0, swapped), usize::from(half(rest, 2, swapped)));
        let Some(value) = rest.get(4..4 + len).filter(|_| kind != 0) else { return };
        let address = match kind {
            1 => value.split_first_chunk().map(|(octets, names)| (Address::v4(*octets), names)),
            2 => value.split_first_chunk().map(|(octets, names)| (Address::v6(*octets), names)),
            _ => None,
        };
        if let Some((address, names)) = address {
            let room = NAMES_KEPT.saturating_sub(info.names.len());
            let names = names.split(|octet| *octet == 0).filter(|name| !name.is_empty());
            info.names.extend(names.take(room).map(|name| (address, text(name, TEXT))));
        }
        rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or(&[]);
    }
}

/// Counts a block nobody knows.
pub(super) fn unknown(kind: u32, info: &mut CaptureInfo) {
    if let Some((_, count)) = info.unknown_blocks.iter_mut().find(|(known, _)| *known == kind) {
        *count += 1;
    } else if info.unknown_blocks.len() < KEPT {
        info.unknown_blocks.push((kind, 1));
    }
}

impl CaptureInfo {
    /// Keeps a comment while there is room.
    pub(super) fn comment(&mut self, bytes: &[u8]) {
        if self.comments.len() < KEPT {
            self.comments.push(text(bytes, TEXT));
        }
    }
}

/// Options, §3.5: code, length, value padded to 32 bits, up to code 0.
pub(super) fn options(mut rest: &[u8], swapped: bool) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, len) = (half(rest, 0, swapped), usize::from(half(rest, 2, swapped)));
        let value = rest.get(4..4 + len).filter(|_| code != 0)?;
        rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((code, value))
    })
}

/// A 16-bit word in the writer's byte order; 0 beyond the end.
pub(super) fn half(bytes: &[u8], at: usize, swapped: bool) -> u16 {
    let half = bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |half| u16::from_le_bytes(*half));
    if swapped { half.swap_bytes() } else { half }
}

/// A 64-bit option value in the writer's byte order.
fn long(value: &[u8], swapped: bool) -> Option<u64> {
    let long = u64::from_le_bytes(value.try_into().ok()?);
    Some(if swapped { long.swap_bytes() } else { long })
}

fn text(bytes: &[u8], most: usize) -> String {
    let bytes = &bytes[..bytes.len().min(most)];
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(resolution: u8, offset: i64) -> Clock {
        Clock { resolution: Resolution::of(resolution), offset }
    }

    #[test]
    fn resolutions_are_powers_of_ten_or_two() {
        assert_eq!(clock(6, 0).time(1_500_000), Timestamp(1_500_000_000));
        assert_eq!(clock(9, 0).time(1_500_000), Timestamp(1_500_000));
        assert_eq!(clock(0, 0).time(3), Timestamp(3_000_000_000));
        assert_eq!(clock(12, 0).time(3_999), Timestamp(3));
        assert_eq!(clock(0x80 | 10, 0).time(1_536), Timestamp(1_500_000_000));
        assert_eq!(clock(0x80 | 32, 0).time(1 << 31), Timestamp(500_000_000));
    }

    #[test]
    fn no_resolution_and_no_offset_overflows() {
        for resolution in 0..=u8::MAX {
            for offset in [i64::MIN, -1, 0, 1, i64::MAX] {
                for ticks in [0, 1, u64::MAX] {
                    clock(resolution, offset).time(ticks);
                }
            }
        }
        assert_eq!(clock(6, 3_600).time(0), Timestamp(3_600_000_000_000));
        assert_eq!(clock(6, 0).time(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn names_of_ipv4_and_ipv6_are_kept_and_other_records_passed_over() {
        let mut body = vec![3, 0, 2, 0, 0xff, 0xff, 0, 0];
        body.extend(b"\x01\0\x0c\0\x0a\0\0\x05db.test\0");
        body.extend([2, 0, 19, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        body.extend(b"v6\0\0\0\0\0\0");
        let mut info = CaptureInfo::default();
        names(&body, false, &mut info);
        let shown: Vec<_> = info.names.iter().map(|(address, name)| format!("{} {name}", address.to_ip())).collect();
        assert_eq!(shown, ["10.0.0.5 db.test", "2001:db8::5 v6"]);
    }

    #[test]
    fn options_end_at_code_0_and_at_a_length_beyond_the_block() {
        let bytes = [1, 0, 1, 0, b'a', 0, 0, 0, 2, 0, 9, 0, b'b', 0, 0, 0];
        assert_eq!(options(&bytes, false).collect::<Vec<_>>(), [(1, &b"a"[..])]);
        let ended = [0, 0, 0, 0, 1, 0, 1, 0, b'a', 0, 0, 0];
        assert_eq!(options(&ended, false).count(), 0);
    }

    #[test]
    fn absurd_drop_counts_do_not_overflow() {
        let mut info = CaptureInfo::default();
        let described = interface(&[1, 0, 0, 0, 0, 0, 0, 0], false, &mut info).expect("the first interface");
        let mut body = vec![0; 12];
        for code in [5, 7] {
            body.extend([code, 0, 8, 0]);
            body.extend(u64::MAX.to_le_bytes());
        }
        statistics(&body, false, Some(&described), &mut info);
        assert_eq!(info.drops, Some(u64::MAX));
    }
}
