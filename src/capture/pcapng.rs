//! pcapng: sections in either byte order, several interfaces with their own link types and clocks.
//!
//! draft-ietf-opsawg-pcapng. This file walks the blocks and reads packets; what describes them is read in `blocks`. Section lengths are not
//! needed and not trusted: a section ends where the next begins. A block whose length makes no sense is passed over up to the next place
//! where blocks follow each other again.

use super::blocks::{self, Described, options};
use super::buffer::Buffer;
use super::pcap::{search, word};
use super::{CaptureInfo, Damage, Record};
use crate::time::Timestamp;

/// State of one pcapng stream.
pub(super) struct PcapNg {
    swapped: bool,
    /// Interfaces of the current section by their id.
    interfaces: Vec<Described>,
    latest: Timestamp,
}

/// Where a packet block holds what.
struct Layout {
    interface: usize,
    /// Octets of the block before the frame's.
    head: usize,
    kept: usize,
    wire: u32,
    /// `None` in blocks without a time.
    ticks: Option<u64>,
}

pub(super) const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const NAMES: u32 = 4;
pub(super) const STATISTICS: u32 = 5;
pub(super) const ENHANCED_PACKET: u32 = 6;
const SECRETS: u32 = 10;
const CUSTOM: u32 = 0xbad;
const CUSTOM_NO_COPY: u32 = 0x4000_0bad;

/// Shortest block: type, length, length.
const SHORTEST: usize = 12;
/// Octets of an enhanced packet block before its packet's.
const PLAIN: usize = 28;
/// Longest block: what the buffer may grow to.
const LIMIT: usize = 64 * 1024 * 1024;
/// Blocks in a row that must make sense before reading goes on after damage.
const CHAIN: usize = 8;

impl PcapNg {
    /// Whether a stream that begins so is pcapng.
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        u32::from_le_bytes(magic) == SECTION
    }

    pub(super) fn open(info: &mut CaptureInfo) -> Self {
        info.format = "pcapng".into();
        Self { swapped: false, interfaces: Vec::new(), latest: Timestamp(0) }
    }

    /// The next packet, whose block stays at the front of the buffer; `false` at the end.
    #[inline(never)]
    pub(super) fn next(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo, record: &mut Record) -> bool {
        let next = self.plain(buffer.ready()).or_else(|| self.look(buffer, info));
        next.map(|next| *record = next).is_some()
    }

    /// An enhanced packet block (§4.3) without options that is there as a whole: most of them. `None` for all others and what is odd.
    #[inline]
    fn plain(&mut self, ready: &[u8]) -> Option<Record> {
        let head: &[u8; PLAIN] = ready.first_chunk()?;
        let [kind, len, id, high, low, kept, wire] = [0, 4, 8, 12, 16, 20, 24].map(|at| word(head, at, self.swapped));
        let (whole, octets) = (len as usize, kept as usize);
        if kind != ENHANCED_PACKET
            || !possible(whole)
            || octets > whole
            || octets.next_multiple_of(4) + PLAIN + 4 != whole
        {
            return None;
        }
        if word(ready.get(..whole)?, whole - 4, self.swapped) != len {
            return None;
        }
        let interface = self.interfaces.get(id as usize)?;
        self.latest = interface.clock.time(u64::from(high) << 32 | u64::from(low));
        Some(Record {
            time: self.latest,
            interface: interface.index,
            link: interface.link,
            wire_len: wire.max(kept),
            head: PLAIN as u32,
            kept,
            len,
            flags: 0,
        })
    }

    /// The next packet, whatever its block.
    #[inline(never)]
    fn look(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Record> {
        loop {
            let there = buffer.fill(SHORTEST);
            if there < SHORTEST {
                match there {
                    0 => info.ended(buffer),
                    _ => info.cut(buffer, "the file ends inside a block header"),
                }
                return None;
            }
            let kind = word(buffer.ready(), 0, self.swapped);
            if kind == SECTION {
                match section_order(buffer.ready()) {
                    Some(swapped) => self.swapped = swapped,
                    None => {
                        self.resume(buffer, info, "a section begins without a byte-order magic".into())?;
                        continue;
                    }
                }
            }
            let len = word(buffer.ready(), 4, self.swapped) as usize;
            if !possible(len) {
                self.resume(buffer, info, format!("a block claims {len} octets"))?;
                continue;
            }
            let there = buffer.fill(len);
            if there < len {
                self.incomplete(buffer, info, there, len)?;
                continue;
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
        let body = buffer.ready().get(8..len - 4)?;
        let layout = match kind {
            ENHANCED_PACKET => self.enhanced(body),
            OLD_PACKET => self.old(body),
            SIMPLE_PACKET => self.simple(body),
            other => {
                self.describe(other, body, info);
                return None;
            }
        };
        match self.record(&layout, len, body, info) {
            Ok(record) => Some(record),
            Err(what) => {
                let (after_packet, offset) = (info.packets, buffer.offset());
                let resumed_after = Some(len as u64);
                info.damaged(Damage { after_packet, offset, what, resumed_after, cut_at_end: false });
                None
            }
        }
    }

    /// A block that is no packet.
    fn describe(&mut self, kind: u32, body: &[u8], info: &mut CaptureInfo) {
        match kind {
            SECTION => {
                self.interfaces.clear();
                let after = body.get(16..).unwrap_or(&[]);
                options(after, self.swapped).filter(|(code, _)| *code == 1).for_each(|(_, text)| info.comment(text));
            }
            INTERFACE => self.interfaces.extend(blocks::interface(body, self.swapped, info)),
            STATISTICS => {
                let interface = self.interfaces.get(word(body, 0, self.swapped) as usize);
                blocks::statistics(body, self.swapped, interface, info);
            }
            NAMES => blocks::names(body, self.swapped, info),
            SECRETS => info.secrets += 1,
            CUSTOM | CUSTOM_NO_COPY => {}
            other => blocks::unknown(other, info),
        }
    }

    /// Enhanced packet block, §4.3.
    fn enhanced(&self, body: &[u8]) -> Layout {
        Layout { interface: word(body, 0, self.swapped) as usize, ..self.timed(body) }
    }

    /// Packet block, obsolete, appendix A: a short interface id and a count of drops share the first word.
    fn old(&self, body: &[u8]) -> Layout {
        Layout { interface: usize::from(blocks::half(body, 0, self.swapped)), ..self.timed(body) }
    }

    /// What both blocks with a time have in common.
    fn timed(&self, body: &[u8]) -> Layout {
        let word = |at| word(body, at, self.swapped);
        let ticks = u64::from(word(4)) << 32 | u64::from(word(8));
        Layout { interface: 0, head: 20, kept: word(12) as usize, wire: word(16), ticks: Some(ticks) }
    }

    /// Simple packet block, §4.4: no time, the first interface.
    fn simple(&self, body: &[u8]) -> Layout {
        let wire = word(body, 0, self.swapped);
        let snaplen = self.interfaces.first().map_or(0, |interface| interface.snaplen);
        let most = if snaplen == 0 { wire } else { wire.min(snaplen) } as usize;
        Layout { interface: 0, head: 4, kept: most.min(body.len().saturating_sub(4)), wire, ticks: None }
    }

    /// The packet of a block, or what is wrong with it.
    fn record(&mut self, layout: &Layout, len: usize, body: &[u8], info: &mut CaptureInfo) -> Result<Record, String> {
        let Layout { interface: id, head, kept, wire, ticks } = *layout;
        let Some(interface) = self.interfaces.get(id) else {
            return Err(format!("a packet of interface {id}, which no block describes"));
        };
        let Some(after) = head.checked_add(kept).and_then(|end| body.get(end..)) else {
            return Err(format!("a packet claims {kept} octets in a block of {len}"));
        };
        // A block without a time belongs where it stands.
        self.latest = ticks.map_or(self.latest, |ticks| interface.clock.time(ticks));
        let mut flags = 0;
        if ticks.is_some() {
            let padding = kept.next_multiple_of(4) - kept;
            for (code, value) in options(after.get(padding..).unwrap_or(&[]), self.swapped) {
                match code {
                    1 => info.comment(value),
                    2 => flags = word(value, 0, self.swapped),
                    _ => {}
                }
            }
        }
        Ok(Record {
            time: self.latest,
            interface: interface.index,
            link: interface.link,
            wire_len: wire.max(kept as u32),
            head: 8 + head as u32,
            kept: kept as u32,
            len: len as u32,
            flags,
        })
    }

    /// The file ends before a block does: it was cut off, or the length is wrong and blocks follow.
    fn incomplete(&self, buffer: &mut Buffer, info: &mut CaptureInfo, there: usize, len: usize) -> Option<()> {
        let rest = buffer.ready();
        if (4..rest.len()).any(|at| self.row(rest, at)) {
            return self.resume(buffer, info, format!("a block claims {len} octets, but others follow within them"));
        }
        info.cut(buffer, &format!("the file ends inside a block: {there} of {len} octets"));
        None
    }

    /// Passes over octets up to the next row of blocks that makes sense. `None` when there is none.
    fn resume(&self, buffer: &mut Buffer, info: &mut CaptureInfo, what: String) -> Option<()> {
        let from = buffer.offset();
        let after_packet = info.packets;
        buffer.consume(4);
        let resumed_after =
            search(buffer, SHORTEST, |bytes, at, _| self.row(bytes, at)).then(|| buffer.offset() - from);
        info.damaged(Damage { after_packet, offset: from, what, resumed_after, cut_at_end: false });
        resumed_after.map(|_| ())
    }

    /// A known block, then up to seven whose two lengths agree, or fewer up to the end of what is seen.
    fn row(&self, bytes: &[u8], mut at: usize) -> bool {
        let mut swapped = self.swapped;
        for n in 0..CHAIN {
            let Some(block) = bytes.get(at..).filter(|block| block.len() >= SHORTEST) else { return n > 0 };
            let kind = word(block, 0, swapped);
            if kind == SECTION {
                match section_order(block) {
                    Some(order) => swapped = order,
                    None => return false,
                }
            } else if n == 0 && !matches!(kind, INTERFACE..=ENHANCED_PACKET | SECRETS) {
                return false;
            }
            let len = word(block, 4, swapped) as usize;
            if !possible(len) {
                return false;
            }
            if len > block.len() {
                // Cut with the file, or going on beyond the window: the blocks before it decide.
                return n > 0;
            }
            if word(block, len - 4, swapped) as usize != len {
                return false;
            }
            at += len;
        }
        true
    }
}

/// Whether a block can have this length.
fn possible(len: usize) -> bool {
    (SHORTEST..=LIMIT).contains(&len) && len.is_multiple_of(4)
}

/// Whether a section is written in the other byte order than this file reads words in; `None` when it does not say. Its magic stands behind
/// its length, which is already written in that order.
fn section_order(block: &[u8]) -> Option<bool> {
    match word(block, 8, false) {
        0x1a2b_3c4d => Some(false),
        0x4d3c_2b1a => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    /// Writes blocks in one byte order.
    #[derive(Clone, Copy, Debug)]
    enum Order {
        Little,
        Big,
    }

    impl Order {
        fn u16(self, n: u16) -> [u8; 2] {
            match self {
                Self::Little => n.to_le_bytes(),
                Self::Big => n.to_be_bytes(),
            }
        }

        fn u32(self, n: u32) -> [u8; 4] {
            match self {
                Self::Little => n.to_le_bytes(),
                Self::Big => n.to_be_bytes(),
            }
        }

        fn block(self, kind: u32, parts: &[&[u8]]) -> Vec<u8> {
            let mut body = parts.concat();
            body.resize(body.len().next_multiple_of(4), 0);
            let len = self.u32(body.len() as u32 + 12);
            [&self.u32(kind)[..], &len, &body, &len].concat()
        }

        fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
            let mut option = [&self.u16(code)[..], &self.u16(value.len() as u16), value].concat();
            option.resize(option.len().next_multiple_of(4), 0);
            option
        }

        fn section(self) -> Vec<u8> {
            let magic = self.u32(0x1a2b_3c4d);
            self.block(SECTION, &[&magic, &self.u16(1), &self.u16(0), &[0xff; 8]])
        }

        fn interface(self, link: u16, snaplen: u32, options: &[Vec<u8>]) -> Vec<u8> {
            self.block(INTERFACE, &[&self.u16(link), &[0, 0], &self.u32(snaplen), &options.concat()])
        }

        /// A packet of six octets at `ticks`.
        fn packet(self, interface: u32, ticks: u64, options: &[Vec<u8>]) -> Vec<u8> {
            let (high, low) = (self.u32((ticks >> 32) as u32), self.u32(ticks as u32));
            let lengths = [self.u32(6), self.u32(60)].concat();
            let id = self.u32(interface);
            self.block(ENHANCED_PACKET, &[&id, &high, &low, &lengths, b"packet\0\0", &options.concat()])
        }
    }

    use Order::{Big, Little};

    /// Number, time, interface, link type, flags.
    type Taken = (u64, i64, u16, u16, u32);

    /// Every frame, and what is known of the file.
    fn read(blocks: &[Vec<u8>]) -> (Vec<Taken>, CaptureInfo) {
        let input = Box::new(std::io::Cursor::new(blocks.concat()));
        let mut source = Source::from_readers(vec![("a.pcapng".into(), input)]).expect("a capture");
        let mut frames = Vec::new();
        while let Some(frame) = source.next().expect("memory") {
            assert_eq!((frame.bytes, frame.wire_len), (&b"packet"[..], 60));
            frames.push((frame.number, frame.time.0, frame.interface, frame.link.0, frame.flags));
        }
        (frames, source.finish().remove(0))
    }

    fn start(order: Order) -> Vec<u8> {
        [order.section(), order.interface(1, 0, &[])].concat()
    }

    #[test]
    fn sections_of_both_byte_orders_keep_their_own_interfaces() {
        for (first, second) in [(Little, Big), (Big, Little)] {
            let nanos = [second.option(9, &[9]), second.option(2, b"eth1")];
            let (frames, info) = read(&[
                first.section(),
                first.interface(1, 0, &[]),
                first.interface(276, 0, &[first.option(2, b"any")]),
                first.packet(0, 1, &[]),
                first.packet(1, 2, &[]),
                second.section(),
                second.interface(101, 96, &nanos),
                second.packet(0, 3_000, &[second.option(2, &second.u32(2))]),
            ]);
            assert_eq!(frames, [(1, 1_000, 0, 1, 0), (2, 2_000, 1, 276, 0), (3, 3_000, 2, 101, 2)]);
            let names: Vec<_> = info.interfaces.iter().map(|interface| interface.name.as_str()).collect();
            assert_eq!(names, ["", "any", "eth1"]);
            assert!(info.damage.is_empty(), "{:?}", info.damage);
        }
    }

    #[test]
    fn an_offset_moves_the_clock_of_its_interface_alone() {
        let seconds = Little.option(14, &(-7i64).to_le_bytes());
        let late = Little.interface(1, 0, &[seconds]);
        let (frames, _) = read(&[start(Little), late, Little.packet(0, 0, &[]), Little.packet(1, 0, &[])]);
        assert_eq!((frames[0].1, frames[1].1), (0, -7_000_000_000));
    }

    #[test]
    fn packets_of_old_and_simple_blocks_count() {
        for order in [Little, Big] {
            let old = order.block(OLD_PACKET, &[&order.u16(0), &order.u16(3), &order.packet(0, 5, &[])[12..36]]);
            let simple = order.block(SIMPLE_PACKET, &[&order.u32(60), b"packet"]);
            let head = [order.section(), order.interface(1, 6, &[])];
            let (frames, info) = read(&[head.concat(), old, simple]);
            // The simple block has no time and takes that of its predecessor.
            assert_eq!(frames, [(1, 5_000, 0, 1, 0), (2, 5_000, 0, 1, 0)], "{:?}", info.damage);
        }
    }

    #[test]
    fn what_is_no_packet_is_remembered_counted_or_passed_over() {
        let drops = |n: u64| Little.option(7, &n.to_le_bytes());
        let statistics = |n| Little.block(STATISTICS, &[&[0; 12], &drops(n)]);
        let resolved = Little.block(NAMES, &[b"\x01\0\x08\0\x0a\0\0\x05db\0\0\0\0\0\0"]);
        let comment = Little.option(1, "retried".as_bytes());
        let (frames, info) = read(&[
            start(Little),
            resolved,
            Little.packet(0, 1, &[comment]),
            Little.block(SECRETS, &[b"CLIENT_RANDOM"]),
            Little.block(CUSTOM, &[&[0; 8]]),
            Little.block(0x1234, &[&[0; 8]]),
            Little.block(0x1234, &[]),
            statistics(3),
            statistics(17),
        ]);
        assert_eq!(frames.len(), 1);
        assert_eq!((info.drops, info.secrets, info.unknown_blocks), (Some(17), 1, vec![(0x1234, 2)]));
        assert_eq!((info.comments, info.names[0].1.as_str()), (vec!["retried".to_owned()], "db"));
        assert!(info.damage.is_empty());
    }

    #[test]
    fn packets_of_no_interface_are_damage_and_the_others_go_on() {
        let lost = vec![Little.packet(7, 1, &[]); 100].concat();
        let (frames, info) = read(&[start(Little), lost, Little.packet(0, 2, &[])]);
        assert_eq!(frames, [(1, 2_000, 0, 1, 0)]);
        assert_eq!((info.damage.len(), info.damage_left_out), (64, 36));
        assert_eq!(info.damage[0].what, "a packet of interface 7, which no block describes");
    }

    #[test]
    fn a_wrong_length_costs_its_own_block_alone() {
        for length in [13, 0, 20, 4_000, 0x7fff_fff0] {
            for at in [4, 36] {
                let mut broken = Little.packet(0, 2, &[]);
                broken[at..at + 4].copy_from_slice(&u32::to_le_bytes(length));
                let lost = broken.len() as u64;
                let (frames, info) =
                    read(&[start(Little), Little.packet(0, 1, &[]), broken, Little.packet(0, 3, &[]), start(Big)]);
                let numbers: Vec<_> = frames.iter().map(|(number, time, ..)| (*number, *time)).collect();
                assert_eq!(numbers, [(1, 1_000), (2, 3_000)], "length {length} at {at}");
                assert_eq!((info.damage.len(), info.damage[0].resumed_after), (1, Some(lost)));
                assert_eq!((info.damage[0].after_packet, info.damage[0].cut_at_end), (1, false));
            }
        }
    }

    #[test]
    fn a_block_that_ends_behind_the_file_is_a_cut() {
        let last = Little.packet(0, 2, &[]);
        let (frames, info) = read(&[start(Little), Little.packet(0, 1, &[]), last[..30].to_vec()]);
        assert_eq!(frames.len(), 1);
        assert_eq!(info.damage[0].what, "the file ends inside a block: 30 of 40 octets");
        assert!(info.damage[0].cut_at_end);
    }
}
