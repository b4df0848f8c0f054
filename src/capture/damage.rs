//! Broken places of an input: told in plain words, bounded in number.

use super::buffer::Buffer;
use super::{CaptureInfo, Damage};

/// Broken places kept per input; of the rest only the number is.
const KEPT: usize = 64;

impl CaptureInfo {
    /// Remembers a broken place.
    pub(super) fn damaged(&mut self, damage: Damage) {
        if self.damage.len() < KEPT {
            self.damage.push(damage);
        } else {
            self.damage_left_out += 1;
        }
    }

    /// The input ends here although `what` is not complete.
    pub(super) fn cut(&mut self, buffer: &Buffer, what: &str) {
        let what = match buffer.failure() {
            Some(why) => format!("{what} ({why})"),
            None => what.to_owned(),
        };
        self.damaged(self.at_the_end(buffer, what));
    }

    /// The input ends between two records: in order, or because it could not be read on.
    pub(super) fn ended(&mut self, buffer: &Buffer) {
        if let Some(why) = buffer.failure() {
            self.damaged(self.at_the_end(buffer, format!("reading failed: {why}")));
        }
    }

    fn at_the_end(&self, buffer: &Buffer, what: String) -> Damage {
        // A packed file that stops early is cut like any other; every other failure is more than a cut.
        let cut_at_end = buffer.failure().is_none_or(|why| why.kind() == std::io::ErrorKind::UnexpectedEof);
        Damage { after_packet: self.packets, offset: buffer.offset(), what, resumed_after: None, cut_at_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_broken_places_are_counted_but_not_kept() {
        let mut info = CaptureInfo::default();
        for offset in 0..10_000 {
            let what = "a packet of interface 7".into();
            info.damaged(Damage { after_packet: 0, offset, what, resumed_after: Some(4), cut_at_end: false });
        }
        assert_eq!((info.damage.len(), info.damage_left_out), (64, 9_936));
        assert_eq!(info.damage[63].offset, 63);
    }
}
