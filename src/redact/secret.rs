//! The key, and what is drawn from it: numbers that nobody can tell from chance without it, and permutations.
//!
//! SipHash-2-4 with a key of 128 bits is a pseudorandom function; a Feistel network over it is a permutation of the words of one shape. So
//! different words stay different, and without the key nothing of a word is in what stands for it beside its shape.

use std::hash::Hasher;
use std::path::Path;

use sha2::Digest;
use siphasher::sip::SipHasher24;

use crate::error::{Error, Result};

/// What everything is replaced by. Two runs with the same key replace alike.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Octets that a key file must hold: shorter ones are guessed.
const SHORTEST: usize = 16;
/// The most that is read of one.
const LONGEST: u64 = 1 << 20;
/// Rounds of a permutation. Four are enough for long words, short ones want more.
const ROUNDS: u8 = 10;

impl Key {
    /// A new one, from the operating system.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn random() -> Result<Self> {
        use std::io::Read;
        let mut octets = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut octets))
            .map_err(|error| Error::io("cannot read /dev/urandom for a key", error))?;
        Ok(Self(octets))
    }

    /// From a file: any octets, 16 or more. A line end behind them does not count.
    ///
    /// # Errors
    /// When it cannot be read or is too short.
    pub fn from_file(path: &Path) -> Result<Self> {
        use std::io::Read;
        let mut octets = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut octets))
            .map_err(|error| Error::io(format!("cannot read the key {}", path.display()), error))?;
        let secret = octets.trim_ascii_end();
        if secret.len() < SHORTEST {
            let message = format!(
                "{} holds {} octets, a key needs {SHORTEST} or more: head -c 32 /dev/urandom > FILE makes one",
                path.display(),
                secret.len()
            );
            return Err(Error::usage(message));
        }
        Ok(Self::from_octets(secret))
    }

    /// From any octets; as secret as they are.
    pub fn from_octets(octets: &[u8]) -> Self {
        let mut hash = sha2::Sha256::new();
        hash.update(b"tcpwhy redaction 1\0");
        hash.update(octets);
        Self(hash.finalize().into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// For what numbers are drawn: the same octets mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Words of text.
    Word = 1,
    /// An octet of an IPv4 address.
    V4 = 2,
    /// A digit of an IPv6 address.
    V6 = 3,
    /// Link addresses.
    Mac = 4,
    /// Octets that mean nothing but themselves.
    Opaque = 5,
    /// The low bits that a multicast address shares with another one.
    Solicited = 6,
    /// Strings in Huffman code.
    Coded = 7,
}

/// Draws numbers.
#[derive(Clone)]
pub(super) struct Secret {
    keys: [[u8; 16]; 2],
}

impl Secret {
    pub(super) fn new(key: &Key) -> Self {
        let mut keys = [[0; 16]; 2];
        for (key, half) in keys.iter_mut().zip(key.0.chunks_exact(16)) {
            key.copy_from_slice(half);
        }
        Self { keys }
    }

    /// A number that depends on the purpose and all octets.
    pub(super) fn number(&self, purpose: Purpose, about: &[u8], counter: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.keys[0]);
        hasher.write(&[purpose as u8]);
        hasher.write(&counter.to_le_bytes());
        hasher.write(about);
        hasher.finish()
    }

    /// As many octets as `about` has, which depend on all of them.
    pub(super) fn octets(&self, purpose: Purpose, about: &[u8]) -> Vec<u8> {
        // Two hashes of 64 bits: what is equal by chance among billions would else be taken for equal.
        let mut seed = [0; 16];
        for (half, key) in seed.chunks_exact_mut(8).zip(&self.keys) {
            let mut hasher = SipHasher24::new_with_key(key);
            hasher.write(&[purpose as u8]);
            hasher.write(about);
            half.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        let mut out = Vec::with_capacity(about.len() + 8);
        let mut counter = 0;
        while out.len() < about.len() {
            out.extend(self.number(purpose, &seed, counter).to_le_bytes());
            counter += 1;
        }
        out.truncate(about.len());
        out
    }

    /// A permutation of all lists of numbers in which each is below its radix, chosen by purpose and `shape`.
    pub(super) fn permute(&self, purpose: Purpose, shape: &[u8], digits: &mut [u8], radices: &[u8]) {
        let (left, right) = digits.split_at_mut(digits.len() / 2);
        let (left_radices, right_radices) = radices.split_at(left.len());
        let mut about = Vec::with_capacity(shape.len() + right.len() + 2);
        for round in 0..ROUNDS {
            let (change, keep, radices) =
                if round % 2 == 0 { (&mut *right, &*left, right_radices) } else { (&mut *left, &*right, left_radices) };
            about.clear();
            about.push(round);
            about.extend_from_slice(keep);
            about.push(0xff);
            about.extend_from_slice(shape);
            let mut number = 0;
            for (place, (digit, radix)) in change.iter_mut().zip(radices).enumerate() {
                if place % 8 == 0 {
                    number = self.number(purpose, &about, place as u32);
                }
                // Of 64 bits eight digits take eight each: what one of radix 26 lacks in evenness is a twentieth.
                let radix = u16::from(*radix).max(1);
                let add = (number & 0xff) as u16 % radix;
                number >>= 8;
                *digit = ((u16::from(*digit) + add) % radix) as u8;
            }
        }
    }

    /// Permutes `members` among themselves: `table[member]` becomes another of them. None stays itself, where there are two, so that what
    /// addresses become is not found among those of the same network.
    pub(super) fn shuffle(&self, purpose: Purpose, about: &[u8], members: &[u8], table: &mut [u8; 256]) {
        let mut drawn = members.to_vec();
        for place in (1..drawn.len()).rev() {
            let number = self.number(purpose, about, place as u32);
            drawn.swap(place, (number % place as u64) as usize);
        }
        for (member, stands_for) in members.iter().zip(drawn) {
            table[usize::from(*member)] = stands_for;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub(in crate::redact) fn key(n: u8) -> Key {
        Key::from_octets(&[n; 32])
    }

    #[test]
    fn a_permutation_gives_every_word_once() {
        let secret = Secret::new(&key(1));
        let radices = [26, 10, 26];
        let mut seen = BTreeSet::new();
        for n in 0..26 * 10 * 26_u32 {
            let mut digits = [(n / 260) as u8, (n / 26 % 10) as u8, (n % 26) as u8];
            secret.permute(Purpose::Word, b"a0a", &mut digits, &radices);
            assert!(digits.iter().zip(radices).all(|(digit, radix)| *digit < radix));
            seen.insert(digits);
        }
        assert_eq!(seen.len(), 26 * 10 * 26);
    }

    #[test]
    fn the_same_octets_give_the_same_and_others_others() {
        let (one, other) = (Secret::new(&key(1)), Secret::new(&key(2)));
        let octets = [7; 33];
        assert_eq!(one.octets(Purpose::Opaque, &octets), one.octets(Purpose::Opaque, &octets));
        assert_ne!(one.octets(Purpose::Opaque, &octets), other.octets(Purpose::Opaque, &octets));
        assert_ne!(one.octets(Purpose::Opaque, &octets), one.octets(Purpose::Opaque, &[8; 33]));
        assert_eq!(one.octets(Purpose::Opaque, &[]), Vec::<u8>::new());
    }

    #[test]
    fn a_shuffle_stays_among_its_members() {
        let secret = Secret::new(&key(3));
        let mut table = std::array::from_fn(|octet| octet as u8);
        secret.shuffle(Purpose::V4, b"10.", &[10, 11, 12, 13, 99], &mut table);
        let images: BTreeSet<u8> = [10, 11, 12, 13, 99].map(|octet: usize| table[octet]).into();
        assert_eq!(images, [10, 11, 12, 13, 99].into());
        assert_eq!(table[14], 14);
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        let path = std::env::temp_dir().join(format!("tcpwhy-key-{}", std::process::id()));
        std::fs::write(&path, "short\n").expect("writable");
        let refused = Key::from_file(&path).map_err(|error| error.to_string());
        std::fs::write(&path, "long enough to be a key\n").expect("writable");
        let read = Key::from_file(&path);
        let _ = std::fs::remove_file(&path);
        assert!(refused.is_err_and(|error| error.contains("5 octets")));
        assert_eq!(read.expect("a key"), Key::from_octets(b"long enough to be a key"));
    }
}
