//! Classic pcap: microseconds and nanoseconds, both byte orders, and the longer record header of patched libpcaps.
//!
//! <https://www.tcpdump.org/manpages/pcap-savefile.5.html>. Damage costs only what is damaged: after a broken record header reading goes
//! on where eight headers in a row make sense again.

use super::buffer::Buffer;
use super::{CaptureInfo, Damage, Interface, LinkType, Record};
use crate::time::{Elapsed, Timestamp};

/// State of one pcap stream.
pub(super) struct Pcap {
    swapped: bool,
    /// Nanoseconds of the unit in which fractions of a second are counted.
    unit: u64,
    header_len: usize,
    link: LinkType,
    /// Longest packet that is believed.
    longest: u32,
    latest: Option<Timestamp>,
}

/// Magic numbers as the writer's host saw them.
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
/// Alexey Kuznetzov's patch: eight octets more per record header (interface, protocol, packet type).
const MODIFIED: u32 = 0xa1b2_cd34;
/// Octets of the file header.
const FILE_HEADER: usize = 24;
/// Longest packet tcpdump ever writes; a larger length is only believed when the snaplen says so.
const LONGEST: u32 = 262_144;
/// Longest record of all: what the buffer may grow to.
const LIMIT: u32 = 64 * 1024 * 1024;
/// Headers in a row that must make sense before reading goes on.
const CHAIN: usize = 8;
/// Octets looked at in one step of the search for such a row. A fixed size: what is found must not depend on how the input is read.
const SEARCH: usize = 1 << 20;
/// Packets that follow each other after damage lie this close in time. Sound files jump further (merged captures), so that this is asked
/// only where it must be decided whether something is a header at all.
const NEARBY: Elapsed = Elapsed::secs(30 * 86_400);

/// A record header.
struct Header {
    time: Timestamp,
    kept: u32,
    wire: u32,
    fraction_fits: bool,
}

impl Pcap {
    /// Whether a stream that begins so is classic pcap.
    pub(super) fn recognises(magic: [u8; 4]) -> bool {
        known(u32::from_le_bytes(magic)) || known(u32::from_be_bytes(magic))
    }

    /// Reads the file header. `None` when the file ends inside it (said in `info.damage`).
    pub(super) fn open(buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Self> {
        info.format = "pcap".into();
        buffer.fill(FILE_HEADER);
        let Some(head) = buffer.ready().get(..FILE_HEADER) else {
            info.cut(buffer, "the file ends inside its header");
            return None;
        };
        let swapped = !known(word(head, 0, false));
        let magic = word(head, 0, swapped);
        let snaplen = word(head, 16, swapped);
        // The upper bits tell of a frame check sequence, not of the link.
        let link = LinkType((word(head, 20, swapped) & 0xffff) as u16);
        match magic {
            NANOS => info.format.push_str(", nanoseconds"),
            MODIFIED => info.format.push_str(", modified"),
            _ => {}
        }
        info.interfaces.push(Interface { link, snaplen, ..Interface::default() });
        buffer.consume(FILE_HEADER);
        let longest = LONGEST.max(snaplen.min(LIMIT));
        let header_len = if magic == MODIFIED { 24 } else { 16 };
        let unit = if magic == NANOS { 1 } else { 1_000 };
        Some(Self { swapped, unit, header_len, link, longest, latest: None })
    }

    /// The next record, which stays at the front of the buffer; `false` at the end.
    #[inline(always)]
    pub(super) fn next(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo, record: &mut Record) -> bool {
        let ready = buffer.ready();
        if let Some(words) = ready.first_chunk()
            && let Some(latest) = self.latest
        {
            let header = self.header(words);
            let len = self.len(&header);
            // Nearly all records are there as a whole, and nothing is odd about them.
            if self.in_order(&header, latest) && len <= ready.len() {
                self.latest = Some(header.time);
                // The rest is as it was looked at in the first one.
                (record.time, record.wire_len) = (header.time, header.wire);
                (record.kept, record.len) = (header.kept, len as u32);
                return true;
            }
        }
        self.look(buffer, info).map(|next| *record = next).is_some()
    }

    /// The same for one that is not there yet, or not in order.
    #[cold]
    #[inline(never)]
    fn look(&mut self, buffer: &mut Buffer, info: &mut CaptureInfo) -> Option<Record> {
        loop {
            if buffer.fill(self.header_len) == 0 {
                info.ended(buffer);
                return None;
            }
            let Some(header) = self.header_at(buffer.ready(), 0) else {
                info.cut(buffer, "the file ends inside a record header");
                return None;
            };
            // The first time there is stands in for that of a packet before it.
            let latest = *self.latest.get_or_insert(header.time);
            let len = self.len(&header);
            if !self.in_order(&header, latest)
                && let Some(what) = self.odd(&header, buffer)
            {
                self.resume(buffer, info, what)?;
                continue;
            }
            let there = buffer.fill(len);
            if there < len {
                self.incomplete(buffer, info, there, len)?;
                continue;
            }
            return Some(self.record(&header));
        }
    }

    /// A record that is there as a whole: the latest from now on.
    #[inline]
    fn record(&mut self, header: &Header) -> Record {
        self.latest = Some(header.time);
        Record {
            time: header.time,
            interface: 0,
            link: self.link,
            wire_len: header.wire.max(header.kept),
            head: self.header_len as u32,
            kept: header.kept,
            len: self.len(header) as u32,
            flags: 0,
        }
    }

    #[inline]
    fn len(&self, header: &Header) -> usize {
        self.header_len + header.kept as usize
    }

    fn header_at(&self, bytes: &[u8], at: usize) -> Option<Header> {
        bytes.get(at..at + self.header_len)?.first_chunk().map(|words| self.header(words))
    }

    #[inline]
    fn header(&self, words: &[u8; 16]) -> Header {
        let words = if self.swapped { swapped(words) } else { *words };
        let [seconds, fraction, kept, wire] = [0, 4, 8, 12].map(|at| word(&words, at, false));
        let nanos = u64::from(fraction) * self.unit;
        Header {
            time: Timestamp((u64::from(seconds) * 1_000_000_000 + nanos) as i64),
            kept,
            wire,
            fraction_fits: nanos < 1_000_000_000,
        }
    }

    /// Whether nothing about a header is odd.
    #[inline]
    fn in_order(&self, header: &Header, latest: Timestamp) -> bool {
        (1..=header.wire).contains(&header.kept)
            && header.wire <= self.longest
            && header.fraction_fits
            && near(header.time, latest)
    }

    /// What is wrong with a header that is not in order, in words; `None` for one that is to be believed.
    ///
    /// Writers break every rule but the length, and clocks jump, so that a header which is merely odd is believed if one in order follows it,
    /// one of about the same time, or the end of the file.
    #[cold]
    fn odd(&self, header: &Header, buffer: &mut Buffer) -> Option<String> {
        if header.kept > self.longest {
            return Some(format!("a record claims {} octets, at most {} are possible", header.kept, self.longest));
        }
        if header.kept == 0 && header.wire == 0 && header.time == Timestamp(0) {
            return Some("zeros where a record header must be".into());
        }
        let in_order = header.kept <= header.wire && header.wire <= self.longest;
        if header.fraction_fits && in_order && self.near_the_last(header.time) {
            return None;
        }
        let len = self.len(header);
        let there = buffer.fill(len + self.header_len);
        let follows = self.header_at(buffer.ready(), len).is_some_and(|next| {
            let near = near(next.time, header.time) || self.near_the_last(next.time);
            self.plausible(&next, None) || near && next.kept > 0 && next.kept <= self.longest
        });
        if follows || there == len {
            return None;
        }
        Some(if !in_order {
            format!("a record claims to keep {} of {} octets", header.kept, header.wire)
        } else if !header.fraction_fits {
            "a record's fraction of a second is longer than a second".into()
        } else {
            "a record is of another time than those before it, and none follows it".into()
        })
    }

    /// The file ends before a record does: it was cut off, or the length is wrong and records follow.
    fn incomplete(&self, buffer: &mut Buffer, info: &mut CaptureInfo, there: usize, len: usize) -> Option<()> {
        let rest = buffer.ready();
        if (1..rest.len()).any(|at| self.row(rest, at, Seen::All)) {
            return self.resume(buffer, info, format!("a record claims {len} octets, but others follow within them"));
        }
        info.cut(buffer, &format!("the file ends inside a record: {there} of {len} octets"));
        None
    }

    /// Looks for the next place where a row of headers makes sense. `None` when there is none.
    fn resume(&self, buffer: &mut Buffer, info: &mut CaptureInfo, what: String) -> Option<()> {
        let from = buffer.offset();
        let after_packet = info.packets;
        buffer.consume(1);
        let resumed_after = search(buffer, self.header_len, |bytes, at, seen| self.row(bytes, at, seen))
            .then(|| buffer.offset() - from);
        info.damaged(Damage { after_packet, offset: from, what, resumed_after, cut_at_end: false });
        resumed_after.map(|_| ())
    }

    /// Eight headers in a row that make sense, or fewer up to the end of what is seen.
    fn row(&self, bytes: &[u8], mut at: usize, seen: Seen) -> bool {
        let mut before = None;
        let mut near_the_last = false;
        for n in 0..CHAIN {
            // One record that ends with the file, or two when it is cut: a few only count when they follow the last good packet in time.
            let Some(header) = self.header_at(bytes, at) else {
                let ends_with_file = at == bytes.len() && seen == Seen::All;
                return near_the_last && n >= if ends_with_file { 1 } else { 2 };
            };
            if !self.plausible(&header, before) {
                return false;
            }
            if n == 0 {
                near_the_last = self.near_the_last(header.time);
            }
            before = Some(header.time);
            at += self.len(&header);
        }
        true
    }

    fn near_the_last(&self, time: Timestamp) -> bool {
        self.latest.is_some_and(|latest| near(time, latest))
    }

    /// What a header must be after damage: stricter than `broken`, because anything may stand there.
    fn plausible(&self, header: &Header, before: Option<Timestamp>) -> bool {
        header.kept > 0
            && header.kept <= self.longest
            && header.wire >= header.kept
            && header.wire <= self.longest
            && header.fraction_fits
            && before.is_none_or(|before| near(header.time, before))
    }
}

/// How much of the rest of the input a search sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Everything up to its end.
    All,
    /// Only a part: more follows.
    Part,
}

/// Moves the buffer to the next place where `sound` holds; no place closer than `least` to the end can be one.
pub(super) fn search(buffer: &mut Buffer, least: usize, sound: impl Fn(&[u8], usize, Seen) -> bool) -> bool {
    loop {
        let there = buffer.fill(SEARCH);
        if there < least {
            buffer.consume(there);
            return false;
        }
        // Places in the second half are looked at again with more octets behind them, unless the input ends here.
        let (seen, places) = if there < SEARCH { (Seen::All, there - least + 1) } else { (Seen::Part, SEARCH / 2) };
        let window = &buffer.ready()[..there.min(SEARCH)];
        match (0..places).find(|at| sound(window, *at, seen)) {
            Some(at) => {
                buffer.consume(at);
                return true;
            }
            None => buffer.consume(places),
        }
    }
}

#[inline]
fn near(time: Timestamp, other: Timestamp) -> bool {
    time.0.abs_diff(other.0) <= NEARBY.0 as u64
}

fn known(magic: u32) -> bool {
    matches!(magic, MICROS | NANOS | MODIFIED)
}

/// Four words in the other byte order. Out of the way of the usual one, which would have to choose for each word.
#[cold]
#[inline(never)]
fn swapped(words: &[u8; 16]) -> [u8; 16] {
    let mut words = *words;
    words.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    words
}

/// A 32-bit word in the writer's byte order; 0 beyond the end.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize, swapped: bool) -> u32 {
    let word = match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(word) => u32::from_le_bytes(*word),
        None => 0,
    };
    if swapped { word.swap_bytes() } else { word }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    const SECOND: u32 = 1_700_000_000;

    /// A file of `n` packets, one each millisecond, of 60 octets that hold no header by chance.
    fn file(n: u32, magic: u32, word: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut file = [word(magic), word(0x0004_0002), word(0), word(0), word(0), word(0x1000_0001)].concat();
        for k in 0..n {
            file.extend(record(k, magic, word));
        }
        file
    }

    fn record(k: u32, magic: u32, word: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let fraction = if magic == NANOS { k * 1_000_000 } else { k * 1_000 };
        let mut record = [word(SECOND), word(fraction), word(60), word(1_500)].concat();
        if magic == MODIFIED {
            record.extend([0; 8]);
        }
        record.extend([0xc0 | (k % 16) as u8; 60]);
        record
    }

    /// (number, millisecond) of every frame, and what is known of the file.
    fn read(file: Vec<u8>) -> (Vec<(u64, i64)>, CaptureInfo) {
        let mut source =
            Source::from_readers(vec![("a".into(), Box::new(std::io::Cursor::new(file)))]).expect("a capture");
        let mut frames = Vec::new();
        while let Some(frame) = source.next().expect("memory") {
            assert_eq!(frame.link, LinkType::ETHERNET);
            let after = frame.time.0 - i64::from(SECOND) * 1_000_000_000;
            frames.push((frame.number, after / 1_000_000));
        }
        (frames, source.finish().remove(0))
    }

    /// Where record `k` of a plain file begins.
    fn at(k: usize) -> usize {
        FILE_HEADER + k * 76
    }

    fn plain(n: u32) -> Vec<u8> {
        file(n, MICROS, u32::to_le_bytes)
    }

    #[test]
    fn every_magic_in_both_byte_orders_gives_the_same_frames() {
        let (expected, _) = read(plain(20));
        assert_eq!(expected[19], (20, 19));
        for magic in [MICROS, NANOS, MODIFIED] {
            for word in [u32::to_le_bytes, u32::to_be_bytes] {
                let (frames, info) = read(file(20, magic, word));
                assert_eq!(frames, expected, "{}", info.format);
                assert!(info.damage.is_empty());
            }
        }
    }

    #[test]
    fn a_wrong_length_costs_what_it_covers_and_two_packets_wherever_it_stands() {
        for k in [0, 1, 100, 290, 297, 298] {
            for length in [0, 1, 59, 61, 76, 1_400, 200_000, 300_000, u32::MAX] {
                let mut damaged = plain(300);
                damaged[at(k) + 8..at(k) + 12].copy_from_slice(&length.to_le_bytes());
                let (frames, info) = read(damaged);
                // Within the packet's length on the wire nothing tells that it is wrong.
                let covered = if length <= 1_500 { length as usize / 76 } else { 0 };
                assert!(
                    frames.len() >= 298 - covered,
                    "length {length} in record {k}: {} {:?}",
                    frames.len(),
                    info.damage
                );
                assert_eq!(info.damage.len(), 1, "length {length} in record {k}: {:?}", info.damage);
                // A length that reaches into the last record takes that one along.
                assert!(k == 298 || frames.last().is_some_and(|frame| frame.1 == 299));
            }
        }
    }

    #[test]
    fn octets_put_in_or_taken_out_cost_their_neighbours_alone() {
        for count in [1, 7, 16, 100, 5_000] {
            let sound = plain(200);
            let put_in = [&sound[..at(50) + 30], &vec![0x5a; count][..], &sound[at(50) + 30..]].concat();
            let (frames, info) = read(put_in);
            assert!(frames.len() >= 198, "{count} put in: {}", frames.len());
            assert_eq!(info.damage.len(), 1);
            let taken_out = [&sound[..at(50) + 30], &sound[at(50) + 30 + count..]].concat();
            let (frames, info) = read(taken_out);
            assert!(frames.len() >= 200 - count / 76 - 3, "{count} taken out: {}", frames.len());
            assert_eq!(info.damage.len(), 1);
        }
    }

    #[test]
    fn headers_that_break_a_rule_all_along_are_read() {
        // Some writers keep more than they say was on the wire; some count fractions beyond a second.
        for (offset, value) in [(12, 10u32), (4, 1_000_001)] {
            let mut odd = plain(30);
            for k in 0..30 {
                odd[at(k) + offset..at(k) + offset + 4].copy_from_slice(&value.to_le_bytes());
            }
            let (frames, info) = read(odd);
            assert_eq!((frames.len(), info.damage.len()), (30, 0));
        }
    }

    #[test]
    fn a_clock_that_jumps_by_years_is_no_damage() {
        let mut file = plain(10);
        file[at(5)..at(5) + 4].copy_from_slice(&1u32.to_le_bytes());
        let (frames, info) = read(file);
        assert_eq!((frames.len(), info.damage.len()), (10, 0));
    }

    #[test]
    fn text_in_place_of_the_rest_is_one_damage_that_nothing_follows() {
        let mut file = plain(10);
        file.extend(b"tcpdump: 10 packets captured\n10 packets received by filter\n0 packets dropped by kernel\n");
        let (frames, info) = read(file);
        assert_eq!((frames.len(), info.damage.len()), (10, 1));
        assert_eq!((info.damage[0].resumed_after, info.damage[0].cut_at_end), (None, false));
    }
}
