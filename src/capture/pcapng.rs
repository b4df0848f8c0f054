//! pcapng: sections in either byte order, several interfaces with their own link types, clocks and drops.
//!
//! draft-ietf-opsawg-pcapng. Blocks nobody knows are counted; secrets (DSB) are never kept. A block whose length makes no sense is passed
//! over up to the next place where a known block begins and ends with the same length.

use super::buffer::Buffer;
use super::pcap::{cut, word};
use super::{CaptureInfo, Damage, Interface, LinkType, Record};
use crate::time::Timestamp;
use crate::wire::Address;

/// State of one pcapng stream.
pub(super) struct PcapNg {
    swapped: bool,
    /// Interfaces of the current section: index of the first in `CaptureInfo::interfaces`, and their clocks.
    first_interface: usize,
    clocks: Vec<Clock>,
    latest: Timestamp,
}

#[derive(Clone, Copy)]
struct Clock {
    /// Ticks per second.
    per_second: u128,
    /// Seconds added to every time stamp.
    offset: i64,
    snaplen: u32,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const SECRETS: u32 = 10;
const CUSTOM: u32 = 0xbad;
const CUSTOM_NO_COPY: u32 = 0x4000_0bad;

/// Longest block: what the buffer may grow to.
const LIMIT: usize = 64 * 1024 * 1024;
/// Comments and names kept per input.
const KEPT: usize = 64;

impl PcapNg {
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        u32::from_le_bytes(magic) == SECTION
    }

    pub(super) fn open(info: &mut CaptureInfo) -> Self {
        info.format = "pcapng".into();
        Self { swapped: false, first_interface: 0, clocks: Vec::new(), latest: Timestamp(0) }
    }

    /// The next packet, whose block stays at the front of the buffer; `None` at the end.
    pub(super) fn next(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Record> {
        loop {
            let there = buffer.fill(12);
            if there < 12 {
                if there > 0 {
                    info.damage.push(cut(info.packets, buffer.offset(), "the file ends inside a block header"));
                } else if let Some(why) = buffer.failure() {
                    info.damage.push(cut(info.packets, buffer.offset(), &format!("reading failed: {why}")));
                }
                return None;
            }
            let kind = word(buffer.ready(), 0, self.swapped);
            if kind == SECTION {
                // The section's byte order stands behind the length, which is written in it.
                match word(buffer.ready(), 8, false) {
                    0x1a2b_3c4d => self.swapped = false,
                    0x4d3c_2b1a => self.swapped = true,
                    _ => {
                        self.resume(buffer, info, "a section begins without a byte-order magic".into())?;
                        continue;
                    }
                }
            }
            let len = word(buffer.ready(), 4, self.swapped) as usize;
            if !(12..=LIMIT).contains(&len) || !len.is_multiple_of(4) {
                self.resume(buffer, info, format!("a block claims {len} octets"))?;
                continue;
            }
            let there = buffer.fill(len);
            if there < len {
                let what = format!("the file ends inside a block: {there} of {len} octets");
                info.damage.push(cut(info.packets, buffer.offset(), &what));
                return None;
            }
            if word(buffer.ready(), len - 4, self.swapped) as usize != len {
                self.resume(buffer, info, "a block's two lengths differ".into())?;
                continue;
            }
            if let Some(record) = self.block(kind, len, buffer, info) {
                return Some(record);
            }
            buffer.consume(len);
        }
    }

    /// One whole block: a packet, or something to remember.
    fn block(&mut self, kind: u32, len: usize, buffer: &Buffer, info: &mut CaptureInfo) -> Option<Record> {
        let block = &buffer.ready()[..len];
        let body = &block[8..len - 4];
        let at = buffer.offset();
        match kind {
            SECTION => {
                self.first_interface = info.interfaces.len();
                self.clocks.clear();
                self.comments(body.get(16..).unwrap_or(&[]), info);
            }
            INTERFACE => self.interface(body, info),
            ENHANCED_PACKET => return self.packet(body, len, at, 20, info),
            OLD_PACKET => return self.old_packet(body, len, at, info),
            SIMPLE_PACKET => return self.simple_packet(body, len, at, info),
            STATISTICS => self.statistics(body, info),
            NAMES => self.names(body, info),
            SECRETS => info.secrets += 1,
            CUSTOM | CUSTOM_NO_COPY => {}
            other => match info.unknown_blocks.iter().position(|(kind, _)| *kind == other) {
                Some(n) => info.unknown_blocks[n].1 += 1,
                None if info.unknown_blocks.len() < KEPT => info.unknown_blocks.push((other, 1)),
                None => {}
            },
        }
        None
    }

    fn interface(&mut self, body: &[u8], info: &mut CaptureInfo) {
        let link = LinkType(self.half(body, 0));
        let snaplen = word(body, 4, self.swapped);
        let mut interface = Interface { link, snaplen, ..Interface::default() };
        let mut clock = Clock { per_second: 1_000_000, offset: 0, snaplen };
        for (code, value) in options(body.get(8..).unwrap_or(&[]), self.swapped) {
            match (code, value) {
                (2, name) => interface.name = text(name),
                (3, description) => interface.description = text(description),
                (9, [resolution, ..]) => clock.per_second = ticks_per_second(*resolution),
                (11, [0, filter @ ..]) => interface.filter = Some(text(filter)),
                (14, [..]) if value.len() == 8 => {
                    let (a, b) = (word(value, 0, self.swapped), word(value, 4, self.swapped));
                    let (low, high) = if self.swapped { (b, a) } else { (a, b) };
                    clock.offset = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
                _ => {}
            }
        }
        self.clocks.push(clock);
        if info.interfaces.len() < usize::from(u16::MAX) {
            info.interfaces.push(interface);
        }
    }

    /// Enhanced packet block, §4.3; `fixed` octets stand before the data.
    fn packet(&mut self, body: &[u8], len: usize, at: u64, fixed: usize, info: &mut CaptureInfo) -> Option<Record> {
        let id = word(body, 0, self.swapped) as usize;
        let kept = word(body, 12, self.swapped) as usize;
        let wire = word(body, 16, self.swapped);
        let high_low = (word(body, 4, self.swapped), word(body, 8, self.swapped));
        let after = body.get(fixed + kept.div_ceil(4) * 4..).unwrap_or(&[]);
        let mut flags = 0;
        for (code, value) in options(after, self.swapped) {
            match code {
                1 => comment(value, info),
                2 => flags = word(value, 0, self.swapped),
                _ => {}
            }
        }
        self.record(id, kept, wire, Some(high_low), fixed, len, at, flags, body, info)
    }

    /// Obsolete packet block, appendix A.
    fn old_packet(&mut self, body: &[u8], len: usize, at: u64, info: &mut CaptureInfo) -> Option<Record> {
        let id = usize::from(self.half(body, 0));
        let kept = word(body, 12, self.swapped) as usize;
        let high_low = (word(body, 4, self.swapped), word(body, 8, self.swapped));
        let wire = word(body, 16, self.swapped);
        self.record(id, kept, wire, Some(high_low), 20, len, at, 0, body, info)
    }

    /// Simple packet block, §4.4: no time, the first interface.
    fn simple_packet(&mut self, body: &[u8], len: usize, at: u64, info: &mut CaptureInfo) -> Option<Record> {
        let wire = word(body, 0, self.swapped);
        let snaplen = self.clocks.first().map_or(0, |clock| clock.snaplen);
        let most = if snaplen == 0 { wire } else { wire.min(snaplen) } as usize;
        let kept = most.min(body.len().saturating_sub(4));
        self.record(0, kept, wire, None, 4, len, at, 0, body, info)
    }

    #[expect(clippy::too_many_arguments, reason = "three packet blocks with the same fields in other places")]
    fn record(
        &mut self,
        id: usize,
        kept: usize,
        wire: u32,
        ticks: Option<(u32, u32)>,
        fixed: usize,
        len: usize,
        offset: u64,
        flags: u32,
        body: &[u8],
        info: &mut CaptureInfo,
    ) -> Option<Record> {
        let damaged = |what: String| Damage {
            after_packet: info.packets,
            offset,
            what,
            resumed_after: Some(len as u64),
            cut_at_end: false,
        };
        let Some(clock) = self.clocks.get(id) else {
            let damage = damaged(format!("a packet of interface {id}, which no block describes"));
            info.damage.push(damage);
            return None;
        };
        if body.len() < fixed + kept {
            let damage = damaged(format!("a packet claims {kept} octets in a block of {len}"));
            info.damage.push(damage);
            return None;
        }
        if let Some((high, low)) = ticks {
            let ticks = u128::from(u64::from(high) << 32 | u64::from(low));
            let nanos = ticks * 1_000_000_000 / clock.per_second;
            let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
            self.latest = Timestamp(nanos.saturating_add(clock.offset.saturating_mul(1_000_000_000)));
        }
        let interface = self.first_interface + id;
        Some(Record {
            time: self.latest,
            interface: interface.min(usize::from(u16::MAX)) as u16,
            link: info.interfaces.get(interface).map_or(LinkType::ETHERNET, |interface| interface.link),
            wire_len: wire.max(kept as u32),
            head: 8 + fixed,
            kept,
            len,
            flags,
            offset,
        })
    }

    /// Interface statistics, §4.6: the latest of each interface counts.
    fn statistics(&self, body: &[u8], info: &mut CaptureInfo) {
        let id = self.first_interface + word(body, 0, self.swapped) as usize;
        let mut drops = None;
        for (code, value) in options(body.get(12..).unwrap_or(&[]), self.swapped) {
            // 5 isb_ifdrop, 7 isb_osdrop
            if (code == 5 || code == 7) && value.len() == 8 {
                let (a, b) = (word(value, 0, self.swapped), word(value, 4, self.swapped));
                let (low, high) = if self.swapped { (b, a) } else { (a, b) };
                *drops.get_or_insert(0u64) += u64::from(high) << 32 | u64::from(low);
            }
        }
        if let Some(interface) = info.interfaces.get_mut(id) {
            interface.drops = drops.or(interface.drops);
        }
        let told = info.interfaces.iter().filter_map(|interface| interface.drops);
        info.drops = told.fold(None, |sum, n| Some(sum.unwrap_or(0) + n));
    }

    /// Name resolution, §4.5: record type 1 IPv4, 2 IPv6, then zero-terminated names.
    fn names(&self, body: &[u8], info: &mut CaptureInfo) {
        let mut rest = body;
        while rest.len() >= 4 && info.names.len() < 1024 {
            let (kind, len) = (self.half(rest, 0), usize::from(self.half(rest, 2)));
            let Some(value) = rest.get(4..4 + len) else { return };
            let (address, names) = match (kind, value.len()) {
                (0, _) => return,
                (1, 4..) => (Address::v4([value[0], value[1], value[2], value[3]]), &value[4..]),
                (2, 16..) => {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&value[..16]);
                    (Address::v6(octets), &value[16..])
                }
                _ => (Address(0), &[][..]),
            };
            let given = names.split(|octet| *octet == 0).filter(|name| !name.is_empty());
            info.names.extend(given.map(|name| (address, text(name))));
            rest = rest.get(4 + len.div_ceil(4) * 4..).unwrap_or(&[]);
        }
    }

    fn comments(&self, bytes: &[u8], info: &mut CaptureInfo) {
        options(bytes, self.swapped).filter(|(code, _)| *code == 1).for_each(|(_, value)| comment(value, info));
    }

    fn half(&self, bytes: &[u8], at: usize) -> u16 {
        match bytes.get(at..at + 2) {
            Some(&[a, b]) if self.swapped => u16::from_be_bytes([a, b]),
            Some(&[a, b]) => u16::from_le_bytes([a, b]),
            _ => 0,
        }
    }

    /// Passes over octets up to the next block that makes sense. `None` when there is none.
    fn resume(&self, buffer: &mut Buffer, info: &mut CaptureInfo, what: String) -> Option<()> {
        let from = buffer.offset();
        let mut damage =
            Damage { after_packet: info.packets, offset: from, what, resumed_after: None, cut_at_end: false };
        buffer.consume(4);
        loop {
            let there = buffer.fill(1 << 20);
            if there < 12 {
                info.damage.push(damage);
                return None;
            }
            let last = there < 1 << 20;
            let limit = if last { there - 11 } else { there / 2 };
            match (0..limit).find(|at| self.sound(&buffer.ready()[*at..])) {
                Some(at) => {
                    buffer.consume(at);
                    damage.resumed_after = Some(buffer.offset() - from);
                    info.damage.push(damage);
                    return Some(());
                }
                None => buffer.consume(limit),
            }
        }
    }

    /// A known block whose two lengths agree.
    fn sound(&self, bytes: &[u8]) -> bool {
        let kind = word(bytes, 0, self.swapped);
        let known = matches!(kind, SECTION | INTERFACE..=ENHANCED_PACKET | SECRETS);
        let len = word(bytes, 4, self.swapped) as usize;
        known
            && len >= 12
            && len.is_multiple_of(4)
            && bytes.len() >= len
            && word(bytes, len - 4, self.swapped) as usize == len
    }
}

/// if_tsresol, §4.2: a power of ten, or of two with the top bit set.
fn ticks_per_second(resolution: u8) -> u128 {
    match resolution & 0x80 {
        0 => 10u128.pow(u32::from(resolution).min(30)),
        _ => 1u128 << (resolution & 0x7f).min(100),
    }
}

/// Options, §3.5: code, length, value padded to 32 bits, up to code 0.
fn options(mut rest: &[u8], swapped: bool) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head: [u8; 4] = rest.get(..4)?.try_into().ok()?;
        let half = |a, b| if swapped { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
        let (code, len) = (half(head[0], head[1]), usize::from(half(head[2], head[3])));
        if code == 0 {
            return None;
        }
        let value = rest.get(4..4 + len)?;
        rest = rest.get(4 + len.div_ceil(4) * 4..).unwrap_or(&[]);
        Some((code, value))
    })
}

fn comment(value: &[u8], info: &mut CaptureInfo) {
    if info.comments.len() < KEPT {
        info.comments.push(text(&value[..value.len().min(256)]));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
