//! FNV-1a: a hash of octets that come one by one, the same in every run, for keys that are stored or compared.

/// FNV-1a in 64 bits. Odd, so that 0 can stand for "there is none".
pub(crate) fn fnv(octets: impl Iterator<Item = u8>) -> u64 {
    octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)) | 1
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
    }
}
