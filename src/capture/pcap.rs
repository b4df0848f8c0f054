//! Classic pcap: microseconds and nanoseconds, both byte orders, and the modified header of patched libpcaps.
//!
//! <https://www.tcpdump.org/manpages/pcap-savefile.5.html>. Damage costs only what is damaged: after a broken record header reading goes
//! on where eight headers in a row make sense again.

use super::buffer::Buffer;
use super::{CaptureInfo, Damage, Interface, LinkType, Record};
use crate::time::{Elapsed, Timestamp};

/// State of one pcap stream.
pub(super) struct Pcap {
    swapped: bool,
    nanos: bool,
    header_len: usize,
    link: LinkType,
    longest: u32,
    latest: Option<Timestamp>,
}

/// Octets of the file header.
const FILE_HEADER: usize = 24;
/// Longest packet tcpdump ever writes; a larger length is only believed when the snaplen says so.
const LONGEST: u32 = 262_144;
/// Longest record of all: what the buffer may grow to.
const LIMIT: u32 = 64 * 1024 * 1024;
/// Headers in a row that must make sense before reading goes on.
const CHAIN: usize = 8;
/// After damage a packet's time must lie this close to the last good one.
const NEARBY: Elapsed = Elapsed::secs(30 * 86_400);

struct Header {
    time: Timestamp,
    kept: u32,
    wire: u32,
    fraction_fits: bool,
}

impl Pcap {
    /// Whether a stream that begins so is classic pcap.
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        matches!(u32::from_le_bytes(magic), 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34)
            || matches!(u32::from_be_bytes(magic), 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34)
    }

    /// Reads the file header. `None` when the file ends inside it (said in `info.damage`).
    pub(super) fn open(buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Self> {
        if buffer.fill(FILE_HEADER) < FILE_HEADER {
            info.damage.push(cut(0, 0, "the file ends inside its header"));
            return None;
        }
        let head = &buffer.ready()[..FILE_HEADER];
        let magic = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let swapped = !matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34);
        let magic = if swapped { magic.swap_bytes() } else { magic };
        let word = |at: usize| word(head, at, swapped);
        let nanos = magic == 0xa1b2_3c4d;
        let modified = magic == 0xa1b2_cd34;
        let snaplen = word(16);
        // The upper bits tell of a frame check sequence, not of the link.
        let link = LinkType((word(20) & 0xffff) as u16);
        info.format = match (nanos, modified) {
            (true, _) => "pcap, nanoseconds",
            (_, true) => "pcap, modified",
            _ => "pcap",
        }
        .into();
        info.interfaces.push(Interface { link, snaplen, ..Interface::default() });
        buffer.consume(FILE_HEADER);
        let longest = LONGEST.max(snaplen.min(LIMIT));
        let header_len = if modified { 24 } else { 16 };
        Some(Self { swapped, nanos, header_len, link, longest, latest: None })
    }

    /// The next record, which stays at the front of the buffer; `None` at the end.
    pub(super) fn next(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Record> {
        loop {
            let there = buffer.fill(self.header_len);
            if there == 0 {
                return end(buffer, info);
            }
            if there < self.header_len {
                info.damage.push(cut(info.packets, buffer.offset(), "the file ends inside a record header"));
                return None;
            }
            let header = self.header(buffer.ready(), 0)?;
            if !self.believable(&header) {
                self.resume(buffer, info, &header)?;
                continue;
            }
            let len = self.header_len + header.kept as usize;
            if buffer.fill(len) < len {
                let what = format!("the file ends inside a record: {} of {len} octets", buffer.ready().len());
                let what = match buffer.failure() {
                    Some(why) => format!("{what} ({why})"),
                    None => what,
                };
                info.damage.push(cut(info.packets, buffer.offset(), &what));
                return None;
            }
            self.latest = Some(header.time);
            return Some(Record {
                time: header.time,
                interface: 0,
                link: self.link,
                wire_len: header.wire,
                head: self.header_len,
                kept: header.kept as usize,
                len,
                flags: 0,
                offset: buffer.offset(),
            });
        }
    }

    fn header(&self, bytes: &[u8], at: usize) -> Option<Header> {
        let bytes = bytes.get(at..at + self.header_len)?;
        let (seconds, fraction) = (word(bytes, 0, self.swapped), word(bytes, 4, self.swapped));
        let (unit, limit) = if self.nanos { (1, 1_000_000_000) } else { (1_000, 1_000_000) };
        let time = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * unit;
        Some(Header {
            time: Timestamp(time),
            kept: word(bytes, 8, self.swapped),
            wire: word(bytes, 12, self.swapped),
            fraction_fits: fraction < limit,
        })
    }

    /// What is read without second thoughts: real writers break every rule but the length.
    fn believable(&self, header: &Header) -> bool {
        let zeros = header.kept == 0 && header.wire == 0 && header.time == Timestamp(0);
        header.kept <= self.longest && !zeros
    }

    /// What reading goes on with after damage: stricter, because anything may stand there.
    fn plausible(&self, header: &Header) -> bool {
        let near = self.latest.is_none_or(|latest| header.time.since(latest).abs() <= NEARBY);
        header.kept > 0
            && header.kept <= self.longest
            && header.wire >= header.kept
            && header.wire <= self.longest.max(LONGEST)
            && header.fraction_fits
            && near
    }

    /// Looks for the next place where a chain of headers makes sense. `None` when there is none.
    fn resume(&self, buffer: &mut Buffer, info: &mut CaptureInfo, broken: &Header) -> Option<()> {
        let what = match (broken.kept, broken.wire) {
            (0, 0) => "zeros where a record header must be".to_owned(),
            (kept, _) => format!("a record claims {kept} octets, at most {} are possible", self.longest),
        };
        let from = buffer.offset();
        let mut damage =
            Damage { after_packet: info.packets, offset: from, what, resumed_after: None, cut_at_end: false };
        buffer.consume(1);
        loop {
            let there = buffer.fill(1 << 20);
            if there < self.header_len {
                info.damage.push(damage);
                return None;
            }
            // Candidates beyond half of the window are looked at again with more octets behind them, unless the file ends here.
            let last = there < 1 << 20;
            let limit = if last { there - self.header_len + 1 } else { there / 2 };
            let found = (0..limit).find(|at| self.chain(buffer.ready(), *at, last));
            match found {
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

    /// Eight plausible headers in a row, or fewer that end exactly with the file.
    fn chain(&self, bytes: &[u8], mut at: usize, last: bool) -> bool {
        for n in 0..CHAIN {
            if at == bytes.len() && n > 0 {
                return last;
            }
            match self.header(bytes, at) {
                Some(header) if self.plausible(&header) => at += self.header_len + header.kept as usize,
                Some(_) => return false,
                None => return n >= 2,
            }
        }
        true
    }
}

/// The end of a stream: clean, or an error of the system that gave it.
fn end(buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Record> {
    if let Some(why) = buffer.failure() {
        info.damage.push(cut(info.packets, buffer.offset(), &format!("reading failed: {why}")));
    }
    None
}

/// Damage at the end of a file.
pub(super) fn cut(after_packet: u64, offset: u64, what: &str) -> Damage {
    Damage { after_packet, offset, what: what.into(), resumed_after: None, cut_at_end: true }
}

/// A 32-bit word in the writer's byte order.
pub(super) fn word(bytes: &[u8], at: usize, swapped: bool) -> u32 {
    let word = match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    if swapped { word.swap_bytes() } else { word }
}
