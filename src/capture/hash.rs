//! SHA-256 of an input as it is stored, taken while it is read: pipes can be read only once.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

/// The hash, in lower-case hex, and of how many octets, once the whole input was read.
pub(super) type Digest = Arc<OnceLock<(String, u64)>>;

/// Hashes what it passes on.
pub(super) struct Hashed {
    inner: Box<dyn Read + Send>,
    hasher: Sha256,
    octets: u64,
    digest: Digest,
}

impl Hashed {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> (Self, Digest) {
        let digest = Digest::default();
        (Self { inner, hasher: Sha256::new(), octets: 0, digest: digest.clone() }, digest)
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.octets += n as u64;
        if n == 0 && !buffer.is_empty() {
            self.digest.get_or_init(|| {
                let hash = self.hasher.clone().finalize().iter().map(|octet| format!("{octet:02x}")).collect();
                (hash, self.octets)
            });
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_told_only_at_the_end() {
        let (mut hashed, digest) = Hashed::new(Box::new(&b"abc"[..]));
        let mut octets = [0; 8];
        assert_eq!(hashed.read(&mut octets).expect("memory"), 3);
        assert_eq!(digest.get(), None);
        assert_eq!(hashed.read(&mut octets).expect("memory"), 0);
        // FIPS 180-4, the standard's own example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.get(), Some(&(expected.to_owned(), 3)));
    }
}
