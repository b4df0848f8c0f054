//! The options of a TCP header that tell about the flow: MSS, window scale, SACK, timestamps. RFC 9293 §3.2, RFC 7323, RFC 2018.

use crate::wire::Cursor;
use crate::wire::seq::Seq;

/// What the options of one segment say. A broken option ends the reading; what came before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Kind 2.
    pub(super) mss: Option<u16>,
    /// Kind 3, at most 14 (RFC 7323 §2.3).
    pub(super) window_scale: Option<u8>,
    /// Kind 4.
    pub(super) sack_permitted: bool,
    /// Kind 8: value and echo.
    pub(super) timestamps: Option<(u32, u32)>,
    /// Kind 5: up to four blocks, left edge and right edge.
    pub(super) sack: [Option<(Seq, Seq)>; 4],
}

impl Options {
    /// Reads the option octets of one header.
    #[inline]
    pub(super) fn read(octets: &[u8]) -> Self {
        // Nearly every segment of an established flow has exactly this: two fillers and the timestamps; or nothing.
        if let [1, 1, 8, 10, a, b, c, d, e, f, g, h] = *octets {
            let timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            return Self { timestamps, ..Self::default() };
        }
        if octets.is_empty() { Self::default() } else { Self::read_all(octets) }
    }

    #[inline(never)]
    fn read_all(octets: &[u8]) -> Self {
        let mut options = Self::default();
        let mut cursor = Cursor::new(octets);
        while options.next(&mut cursor).is_some() {}
        options
    }

    fn next(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let kind = cursor.u8("option kind").ok()?;
        match kind {
            0 => return None,
            1 => return Some(()),
            _ => {}
        }
        let len = usize::from(cursor.u8("option length").ok()?).checked_sub(2)?;
        let mut body = Cursor::new(cursor.take(len, "option").ok()?);
        match (kind, len) {
            (2, 2) => self.mss = body.u16("MSS").ok(),
            (3, 1) => self.window_scale = body.u8("window scale").ok().map(|shift| shift.min(14)),
            (4, 0) => self.sack_permitted = true,
            (5, _) => {
                for block in &mut self.sack {
                    let (Ok(left), Ok(right)) = (body.u32("SACK"), body.u32("SACK")) else { break };
                    *block = Some((Seq(left), Seq(right)));
                }
            }
            (8, 8) => self.timestamps = body.u32("TSval").ok().zip(body.u32("TSecr").ok()),
            _ => {}
        }
        Some(())
    }

    /// The SACK block that reports octets received twice (RFC 2883 §4): the first one, when it lies below the acknowledgment or inside the
    /// second one.
    pub(super) fn dsack(&self, ack: Seq) -> Option<(Seq, Seq)> {
        let (left, right) = self.sack[0]?;
        let below = !right.after(ack);
        let inside = self.sack[1].is_some_and(|(outer, end)| !outer.after(left) && !right.after(end));
        (right.after(left) && (below || inside)).then_some((left, right))
    }

    /// How many octets are reported as received beyond the acknowledgment.
    pub(super) fn sacked_octets(&self, ack: Seq) -> u32 {
        let beyond = self.sack.iter().flatten().filter(|(left, _)| left.after(ack));
        beyond.map(|(left, right)| right.minus(*left).max(0).unsigned_abs()).fold(0, u32::saturating_add)
    }

    /// The highest octet reported as received beyond the acknowledgment.
    pub(super) fn sacked(&self, ack: Seq) -> Option<Seq> {
        self.sack.iter().flatten().map(|block| block.1).filter(|right| right.after(ack)).reduce(Seq::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_linux_syn_are_read() {
        let octets = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let options = Options::read(&octets);
        assert_eq!(options.mss, Some(1460));
        assert_eq!(options.window_scale, Some(7));
        assert!(options.sack_permitted);
        assert_eq!(options.timestamps, Some((9, 0)));
    }

    #[test]
    fn the_usual_twelve_octets_are_the_timestamps() {
        let octets = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 0, 2];
        assert_eq!(Options::read(&octets).timestamps, Some((256, 2)));
    }

    #[test]
    fn a_cut_or_lying_option_ends_the_reading() {
        assert_eq!(Options::read(&[2, 4, 5]), Options::default());
        assert_eq!(Options::read(&[2, 0, 5, 0xb4]), Options::default());
        assert_eq!(Options::read(&[3, 3, 200, 8, 90]).window_scale, Some(14));
    }

    #[test]
    fn a_block_below_the_acknowledgment_is_a_dsack() {
        let mut octets = vec![1, 1, 5, 10];
        octets.extend_from_slice(&1000u32.to_be_bytes());
        octets.extend_from_slice(&2000u32.to_be_bytes());
        let options = Options::read(&octets);
        assert_eq!(options.dsack(Seq(2000)), Some((Seq(1000), Seq(2000))));
        assert_eq!(options.dsack(Seq(900)), None);
        assert_eq!(options.sacked(Seq(900)), Some(Seq(2000)));
    }
}
