//! Puts one direction's segments in order and says which octets are missing.
//!
//! RFC 9293 §3.10.7.4: of a segment that straddles old and new octets only the new ones count; where two copies overlap, the first counts.
//! Cost: a segment in order is lent through without a copy; only segments behind a hole are copied, and the caller bounds how many.

use std::collections::VecDeque;

use crate::wire::seq::Seq;

/// What comes out: octets in order, or the news that some will never come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    /// The next octets.
    Octets(&'a [u8]),
    /// So many octets are missing; what follows comes after them.
    Gap(u64),
}

/// A segment, or a part of one, that waits behind a hole.
#[derive(Debug)]
struct Piece {
    start: Seq,
    /// Octets on the wire; `octets` holds fewer when the capture cut the packet.
    len: u32,
    octets: Box<[u8]>,
}

impl Piece {
    fn end(&self) -> Seq {
        self.start.plus(self.len)
    }
}

/// The segments of one direction that wait behind holes, in order and without overlap. The position, up to which everything was handed
/// on, lies with the caller: nearly every flow has nothing but that.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    pieces: VecDeque<Piece>,
    held: usize,
}

impl Assembler {
    /// Octets held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Segments held.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Where the first held segment begins, that is, where the first hole ends.
    pub(super) fn first(&self) -> Option<Seq> {
        self.pieces.front().map(|piece| piece.start)
    }

    /// Whether any octet of a copy differs from the octet held for the same place.
    pub(super) fn conflicts(&self, start: Seq, octets: &[u8]) -> bool {
        self.pieces.iter().any(|piece| {
            let offset = i64::from(start.minus(piece.start));
            let (mine, theirs) = match usize::try_from(offset) {
                Ok(ahead) => (piece.octets.get(ahead..), Some(octets)),
                Err(_) => (Some(&*piece.octets), octets.get(offset.unsigned_abs() as usize..)),
            };
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.iter().zip(theirs).any(|(a, b)| a != b),
                _ => false,
            }
        })
    }

    /// Takes a segment: hands on what is in order now, holds what is not.
    pub(super) fn accept(
        &mut self,
        position: &mut Seq,
        start: Seq,
        len: u32,
        octets: &[u8],
        out: &mut impl FnMut(Chunk<'_>),
    ) {
        let end = start.plus(len);
        self.drain(position, out);
        while !start.after(*position) && end.after(*position) {
            let stop = self.first().filter(|first| end.after(*first)).unwrap_or(end);
            hand(position, start, stop, octets, out);
            self.drain(position, out);
        }
        if end.after(*position) {
            self.hold(start.max(*position), end, start, octets);
        }
    }

    /// Gives up what is missing before `until`; held octets there are handed on, the rest is announced as gaps.
    pub(super) fn skip(&mut self, position: &mut Seq, until: Seq, out: &mut impl FnMut(Chunk<'_>)) {
        self.drain(position, out);
        while until.after(*position) {
            let stop = self.first().filter(|first| until.after(*first)).unwrap_or(until);
            out(Chunk::Gap(u64::from(stop.minus(*position).unsigned_abs())));
            *position = stop;
            self.drain(position, out);
        }
    }

    /// Hands on the held segments that begin at or before the position.
    fn drain(&mut self, position: &mut Seq, out: &mut impl FnMut(Chunk<'_>)) {
        while self.first().is_some_and(|first| !first.after(*position)) {
            let Some(piece) = self.pieces.pop_front() else { return };
            self.held -= piece.octets.len();
            if piece.end().after(*position) {
                hand(position, piece.start, piece.end(), &piece.octets, out);
            }
        }
    }

    /// Copies those octets of `from..end` that are not held yet.
    fn hold(&mut self, mut from: Seq, end: Seq, start: Seq, octets: &[u8]) {
        let mut index = 0;
        while end.after(from) {
            let (stop, resume) = match self.pieces.get(index) {
                Some(piece) if !piece.end().after(from) => {
                    index += 1;
                    continue;
                }
                Some(piece) if end.after(piece.start) => (piece.start, piece.end()),
                _ => (end, end),
            };
            if stop.after(from) {
                let octets = part(octets, start, from, stop);
                self.held += octets.len();
                let len = stop.minus(from).unsigned_abs();
                self.pieces.insert(index, Piece { start: from, len, octets: octets.into() });
                index += 1;
            }
            from = resume;
        }
    }
}

/// Takes a segment that begins at or before the position while nothing is held.
#[inline]
pub(super) fn pass(position: &mut Seq, start: Seq, len: u32, octets: &[u8], out: &mut impl FnMut(Chunk<'_>)) {
    let end = start.plus(len);
    if end.after(*position) {
        hand(position, start, end, octets, out);
    }
}

/// Hands on a segment's octets from the position to `stop`; those that the capture cut off are a gap.
fn hand(position: &mut Seq, start: Seq, stop: Seq, octets: &[u8], out: &mut impl FnMut(Chunk<'_>)) {
    let whole = stop.minus(*position).unsigned_abs();
    let there = part(octets, start, *position, stop);
    if !there.is_empty() {
        out(Chunk::Octets(there));
    }
    let missing = u64::from(whole).saturating_sub(there.len() as u64);
    if missing > 0 {
        out(Chunk::Gap(missing));
    }
    *position = stop;
}

/// The octets of `from..stop` out of a segment that begins at `start`, as far as they were captured.
fn part(octets: &[u8], start: Seq, from: Seq, stop: Seq) -> &[u8] {
    let begin = from.minus(start).unsigned_abs() as usize;
    let end = (stop.minus(start).unsigned_abs() as usize).min(octets.len());
    octets.get(begin..end).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came out, octet by octet; `None` for a missing one.
    fn collect(out: &mut Vec<Option<u8>>) -> impl FnMut(Chunk<'_>) + '_ {
        |chunk| match chunk {
            Chunk::Octets(octets) => out.extend(octets.iter().copied().map(Some)),
            Chunk::Gap(missing) => out.extend((0..missing).map(|_| None)),
        }
    }

    #[test]
    fn a_segment_behind_a_hole_waits_until_the_hole_is_filled() {
        let (mut assembler, mut position, mut out) = (Assembler::default(), Seq(100), Vec::new());
        assembler.accept(&mut position, Seq(103), 3, b"def", &mut collect(&mut out));
        assert!(out.is_empty());
        assert_eq!(assembler.held(), 3);
        assembler.accept(&mut position, Seq(100), 3, b"abc", &mut collect(&mut out));
        assert_eq!(out, b"abcdef".map(Some));
        assert_eq!((assembler.held(), position), (0, Seq(106)));
    }

    #[test]
    fn overlap_keeps_the_first_copy_and_is_a_conflict_only_when_octets_differ() {
        let (mut assembler, mut position, mut out) = (Assembler::default(), Seq(0), Vec::new());
        assembler.accept(&mut position, Seq(2), 2, b"CD", &mut collect(&mut out));
        assert!(!assembler.conflicts(Seq(0), b"abCD"));
        assert!(assembler.conflicts(Seq(0), b"abcd"));
        assembler.accept(&mut position, Seq(0), 6, b"abcdef", &mut collect(&mut out));
        assert_eq!(out, b"abCDef".map(Some));
    }

    #[test]
    fn octets_that_the_snaplen_cut_are_a_gap() {
        let (mut assembler, mut position, mut out) = (Assembler::default(), Seq(0), Vec::new());
        assembler.accept(&mut position, Seq(0), 4, b"ab", &mut collect(&mut out));
        assembler.accept(&mut position, Seq(4), 1, b"e", &mut collect(&mut out));
        assert_eq!(out, [Some(b'a'), Some(b'b'), None, None, Some(b'e')]);
    }

    #[test]
    fn a_hole_that_is_given_up_lets_the_held_octets_go() {
        let (mut assembler, mut position, mut out) = (Assembler::default(), Seq(u32::MAX - 1), Vec::new());
        assembler.accept(&mut position, Seq(2), 2, b"xy", &mut collect(&mut out));
        assembler.skip(&mut position, Seq(2), &mut collect(&mut out));
        assert_eq!(out, [None, None, None, None, Some(b'x'), Some(b'y')]);
        assert_eq!(position, Seq(4));
    }

    proptest! {
        /// The naive model: one cell per octet, the first copy wins, output is the longest filled prefix.
        #[test]
        fn the_assembler_agrees_with_one_cell_per_octet(
            base in any::<u32>(),
            segments in prop::collection::vec((0u32..120, 1u32..30, 0u32..30, any::<u8>()), 1..60),
        ) {
            let mut cells: Vec<Option<Option<u8>>> = vec![None; 160];
            let mut done = 0usize;
            let (mut assembler, mut position, mut out) = (Assembler::default(), Seq(base), Vec::new());
            for (offset, len, captured, salt) in segments {
                let octets: Vec<u8> = (0..len.min(captured)).map(|i| salt.wrapping_add(i as u8)).collect();
                let expected_conflict = (0..octets.len()).any(|i| {
                    let cell = offset as usize + i;
                    cell >= done && matches!(cells[cell], Some(Some(held)) if held != octets[i])
                });
                prop_assert_eq!(assembler.conflicts(Seq(base).plus(offset), &octets), expected_conflict);
                assembler.accept(&mut position, Seq(base).plus(offset), len, &octets, &mut collect(&mut out));
                for i in 0..len as usize {
                    cells[offset as usize + i].get_or_insert(octets.get(i).copied());
                }
                while cells[done].is_some() {
                    done += 1;
                }
                prop_assert_eq!(out.len(), done);
                prop_assert_eq!(position, Seq(base).plus(done as u32));
                let held = cells[done..].iter().filter(|cell| matches!(cell, Some(Some(_)))).count();
                prop_assert_eq!(assembler.held(), held);
            }
            let end = cells.iter().rposition(Option::is_some).map_or(0, |last| last + 1).max(done);
            assembler.skip(&mut position, Seq(base).plus(end as u32), &mut collect(&mut out));
            let model: Vec<Option<u8>> = cells[..end].iter().map(|cell| cell.flatten()).collect();
            prop_assert_eq!(out, model);
            prop_assert_eq!(assembler.held(), 0);
        }
    }
}
