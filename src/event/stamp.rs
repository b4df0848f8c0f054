//! A packet's place in half the room: what is kept of every flow and host for every packet.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::PacketRef;
use crate::time::Timestamp;

/// A [`PacketRef`] in 16 octets, also when optional: 16 bits of file above 48 bits of frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PacketRef", into = "PacketRef")]
pub(crate) struct Stamp {
    packed: NonZeroU64,
    time: Timestamp,
}

impl Stamp {
    const NUMBER: u64 = (1 << 48) - 1;

    /// When.
    pub(crate) fn time(self) -> Timestamp {
        self.time
    }

    /// Which packet.
    pub(crate) fn packet(self) -> PacketRef {
        let packed = self.packed.get();
        PacketRef { file: (packed >> 48) as u16, number: packed & Self::NUMBER, time: self.time }
    }
}

impl From<PacketRef> for Stamp {
    fn from(at: PacketRef) -> Self {
        // Frame numbers begin with 1.
        let number = at.number.clamp(1, Self::NUMBER);
        let packed = NonZeroU64::MIN.saturating_add((u64::from(at.file) << 48 | number) - 1);
        Self { packed, time: at.time }
    }
}

impl From<Stamp> for PacketRef {
    fn from(stamp: Stamp) -> Self {
        stamp.packet()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_keeps_file_number_and_time() {
        let at = PacketRef { file: 65_535, number: 123_456_789_012, time: Timestamp(-7) };
        assert_eq!(Stamp::from(at).packet(), at);
        assert_eq!(size_of::<Option<Stamp>>(), 16);
    }
}
