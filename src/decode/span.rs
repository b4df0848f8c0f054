//! One layer's octets together with their length on the wire, so that a snaplen cut is never mistaken for a short packet.

/// What was captured of a layer, and how long it was on the wire. `wire` is never below `bytes.len()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// The captured octets.
    pub(super) bytes: &'a [u8],
    /// Octets on the wire.
    pub(super) wire: u32,
}

/// Why a header could not be read, as it is told to people.
pub(super) type Reason = &'static str;

impl<'a> Span<'a> {
    /// A frame's octets. A record that claims fewer octets on the wire than it holds is taken at what it holds.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], wire: u32) -> Self {
        Self { bytes, wire: wire.max(bytes.len() as u32) }
    }

    /// Octets that are all there.
    pub(super) fn whole(bytes: &'a [u8]) -> Self {
        Self::new(bytes, 0)
    }

    /// The layer's first `N` octets and what follows them, or `reason` when they were not captured.
    #[inline]
    pub(super) fn take<const N: usize>(self, reason: Reason) -> Result<(&'a [u8; N], Self), Reason> {
        let (head, bytes) = self.bytes.split_first_chunk::<N>().ok_or(reason)?;
        Ok((head, Self { bytes, wire: self.wire - N as u32 }))
    }

    /// What follows the first `n` octets, or `reason` when those were not captured.
    #[inline]
    pub(super) fn skip(self, n: usize, reason: Reason) -> Result<Self, Reason> {
        let bytes = self.bytes.get(n..).ok_or(reason)?;
        Ok(Self { bytes, wire: self.wire - n as u32 })
    }

    /// The first `wire` octets: drops padding and trailers. A layer that claims more octets than its frame had on the wire has no more than
    /// those.
    #[inline]
    pub(super) fn first(self, wire: u32) -> Self {
        let wire = wire.min(self.wire);
        Self { bytes: self.bytes.get(..wire as usize).unwrap_or(self.bytes), wire }
    }

    /// Whether octets of the layer are missing in the capture.
    #[inline]
    pub(super) fn is_cut(self) -> bool {
        (self.bytes.len() as u64) < u64::from(self.wire)
    }
}
