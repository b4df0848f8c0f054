//! FNV-1a: a hash of octets that come one by one, the same in every run, for keys that are stored or compared.

/// FNV-1a in 64 bits. Odd, so that 0 can stand for "there is none".
pub(crate) fn fnv(octets: impl Iterator<Item = u8>) -> u64 {
    let mut hash = Fnv::default();
    octets.for_each(|octet| hash.octet(octet));
    hash.key()
}

/// The same of octets that come in pieces.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// The next octet.
    #[inline]
    pub(crate) fn octet(&mut self, octet: u8) {
        self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }

    /// The next octets.
    #[inline]
    pub(crate) fn push(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.octet(*octet));
    }

    /// As of [`fnv`].
    pub(crate) fn key(self) -> u64 {
        self.0 | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_counts_and_none_is_nothing() {
        assert_eq!(fnv(b"".iter().copied()) & 1, 1);
        assert_ne!(fnv(b"ab".iter().copied()), fnv(b"ba".iter().copied()));
        // Known value of FNV-1a for "foobar", made odd.
        assert_eq!(fnv(b"foobar".iter().copied()), 0x8594_4171_f739_67e8 | 1);
        let mut pieces = Fnv::default();
        [&b"foo"[..], b"", b"bar"].into_iter().for_each(|piece| pieces.push(piece));
        assert_eq!(pieces.key(), fnv(b"foobar".iter().copied()));
    }
}
