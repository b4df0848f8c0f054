//! What became of fragmented datagrams.

/// How many fragmented datagrams ended as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Put together; the frame that completed each is counted as what it carried.
    pub completed: u64,
    /// Given up though their first fragment was seen: the others were lost, or the capture lacks them.
    pub incomplete: u64,
    /// Given up without their first fragment: it was lost, or these were late copies of a datagram already complete.
    pub headless: u64,
    /// Of those given up: for lack of room, not for their age.
    pub evicted: u64,
    /// Fragments that covered octets already there with different ones; the first copy was kept.
    pub conflicting: u64,
}
