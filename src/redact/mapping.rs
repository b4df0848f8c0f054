//! One mapping for everything that is written: what stands for an address, a name, a word; and a list of what was replaced.

use std::collections::{BTreeMap, HashMap};

use super::address::Octets;
use super::secret::{Key, Purpose, Secret};
use super::{Level, huffman};
use crate::wire::{Address, Mac};

/// Replacements remembered of each kind: they are only remembered for speed.
pub(super) const REMEMBERED: usize = 1 << 17;
/// Entries of the list.
const LISTED: usize = 1 << 20;
/// Letters and digits that are exchanged together.
const LONGEST_WORD: usize = 64;
/// How often another word is drawn until one of the same length in Huffman code comes.
const DRAWS: usize = 400;

/// Kinds of what is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// IP addresses.
    Address,
    /// Link addresses.
    Mac,
    /// Host names: DNS, SNI, Host, certificates.
    Name,
    /// Paths, queries, ids, cookies, users: every other word.
    Word,
    /// Names and descriptions of interfaces.
    Interface,
    /// Comments, which are left out.
    Comment,
    /// Names of addresses in the file, which are left out.
    Resolution,
    /// Decryption secrets in the file, which are left out.
    Secrets,
}

impl What {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "addresses",
            Self::Mac => "link addresses",
            Self::Name => "names",
            Self::Word => "words",
            Self::Interface => "interfaces",
            Self::Comment => "comments left out",
            Self::Resolution => "names of addresses left out",
            Self::Secrets => "decryption secrets left out",
        }
    }
}

/// What everything is replaced by, with one key: the same in all files and outputs.
pub struct Mapping {
    pub(super) secret: Secret,
    pub(super) level: Level,
    pub(super) addresses: HashMap<Address, Address>,
    pub(super) macs: HashMap<Mac, Mac>,
    pub(super) octets: HashMap<(u8, u32), Octets>,
    words: HashMap<Vec<u8>, Vec<u8>>,
    pub(super) names: HashMap<Vec<u8>, Vec<u8>>,
    /// What was replaced by what.
    list: BTreeMap<(What, String), String>,
    /// More was replaced than the list holds.
    pub(super) list_full: bool,
    /// What is counted and not listed.
    pub(super) counts: BTreeMap<What, u64>,
}

impl Mapping {
    /// The mapping of a key.
    pub fn new(key: &Key, level: Level) -> Self {
        Self {
            secret: Secret::new(key),
            level,
            addresses: HashMap::new(),
            macs: HashMap::new(),
            octets: HashMap::new(),
            words: HashMap::new(),
            names: HashMap::new(),
            list: BTreeMap::new(),
            list_full: false,
            counts: BTreeMap::new(),
        }
    }

    /// What was replaced by what: kind, original, replacement; ordered. The first million.
    pub fn list(&self) -> impl Iterator<Item = (What, &str, &str)> {
        self.list.iter().map(|((what, from), to)| (*what, from.as_str(), to.as_str()))
    }

    /// How many different things of each kind were replaced or left out.
    pub fn counts(&self) -> BTreeMap<What, u64> {
        let mut counts = self.counts.clone();
        for (what, _) in self.list.keys() {
            *counts.entry(*what).or_default() += 1;
        }
        counts
    }

    pub(super) fn note(&mut self, what: What, from: impl FnOnce() -> String, to: impl FnOnce() -> String) {
        if self.list.len() < LISTED {
            self.list.insert((what, from()), to());
        } else {
            self.list_full = true;
        }
    }

    pub(super) fn count(&mut self, what: What, n: u64) {
        if n > 0 {
            *self.counts.entry(what).or_default() += n;
        }
    }

    /// What stands for a word of letters, digits and what joins them. The same word becomes the same everywhere, in either case; length,
    /// places of capitals, digits and joints, and the length in the Huffman code of HTTP/2 stay.
    pub fn word(&mut self, word: &[u8]) -> Vec<u8> {
        if let Some(known) = self.words.get(word) {
            return known.clone();
        }
        let mapped: Vec<u8> = word.chunks(LONGEST_WORD).flat_map(|piece| self.exchange(piece)).collect();
        remember(&mut self.words, word, &mapped);
        if mapped != word {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            self.note(What::Word, || text(word), || text(&mapped));
        }
        mapped
    }

    fn exchange(&self, word: &[u8]) -> Vec<u8> {
        let shape = Shape::of(word);
        let Shape { places, radices, mut digits, about, hex } = shape;
        if places.is_empty() {
            return word.to_vec();
        }
        let lower = word.to_ascii_lowercase();
        let wanted: u32 = lower.iter().map(|octet| huffman::bits(*octet)).sum();
        let (mut out, mut drawn) = (lower.clone(), false);
        for _ in 0..DRAWS {
            self.secret.permute(Purpose::Word, &about, &mut digits, &radices);
            for (place, digit) in places.iter().zip(&digits) {
                out[*place] = octet_of(lower[*place], *digit);
            }
            if out.iter().map(|octet| huffman::bits(*octet)).sum::<u32>() == wanted {
                drawn = true;
                break;
            }
        }
        if !drawn {
            self.draw_alike(&lower, hex, &mut out);
        }
        for (slot, octet) in out.iter_mut().zip(word) {
            if octet.is_ascii_uppercase() {
                slot.make_ascii_uppercase();
            }
        }
        out
    }

    /// A word whose letters have the lengths of the original's in Huffman code, in another order: for words of which hardly any other has
    /// the same length.
    fn draw_alike(&self, lower: &[u8], hex: bool, out: &mut [u8]) {
        out.copy_from_slice(lower);
        for digit in [false, true] {
            let places: Vec<usize> = (0..lower.len())
                .filter(|place| if digit { lower[*place].is_ascii_digit() } else { lower[*place].is_ascii_lowercase() })
                .collect();
            let mut lengths: Vec<u32> = places.iter().map(|place| huffman::bits(lower[*place])).collect();
            for n in (1..lengths.len()).rev() {
                let number = self.secret.number(Purpose::Word, lower, n as u32);
                lengths.swap(n, (number % (n as u64 + 1)) as usize);
            }
            for (place, length) in places.into_iter().zip(lengths) {
                let letters = if hex { b'a'..=b'f' } else { b'a'..=b'z' };
                let range = if digit { b'0'..=b'9' } else { letters };
                let fits: Vec<u8> = range.filter(|octet| huffman::bits(*octet) == length).collect();
                let number = self.secret.number(Purpose::Word, lower, 1000 + place as u32);
                if let Some(octet) = fits.get((number % fits.len().max(1) as u64) as usize) {
                    out[place] = *octet;
                }
            }
        }
    }

    /// As many octets, which depend on all of these: equal ones stay equal.
    pub fn opaque(&self, octets: &[u8]) -> Vec<u8> {
        self.secret.octets(Purpose::Opaque, octets)
    }
}

/// Remembers a replacement, unless it is long: those seldom come again.
pub(super) fn remember(known: &mut HashMap<Vec<u8>, Vec<u8>>, from: &[u8], to: &[u8]) {
    if from.len() > 256 {
        return;
    }
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(from.to_vec(), to.to_vec());
}

/// Which places of a word are exchanged, among how many.
struct Shape {
    places: Vec<usize>,
    radices: Vec<u8>,
    digits: Vec<u8>,
    /// What stays: the words of one shape are exchanged among themselves.
    about: Vec<u8>,
    hex: bool,
}

impl Shape {
    fn of(word: &[u8]) -> Self {
        let hex = is_hex(word);
        let letters = if hex { 6 } else { 26 };
        let mut shape =
            Self { places: Vec::new(), radices: Vec::new(), digits: Vec::new(), about: vec![u8::from(hex)], hex };
        for (place, octet) in word.iter().enumerate() {
            let (kind, digit, radix) = match octet.to_ascii_lowercase() {
                letter @ b'a'..=b'z' => (b'a', letter - b'a', letters),
                digit @ b'0'..=b'9' => (b'0', digit - b'0', 10),
                // Octets of UTF-8 behind the first one of a character.
                more @ 0x80..=0xbf => (0x80, more - 0x80, 64),
                other => (other, 0, 0),
            };
            shape.about.push(kind);
            if radix > 0 {
                shape.places.push(place);
                shape.radices.push(radix);
                shape.digits.push(digit);
            }
        }
        shape
    }
}

fn octet_of(like: u8, digit: u8) -> u8 {
    match like {
        b'a'..=b'z' => b'a' + digit,
        b'0'..=b'9' => b'0' + digit,
        _ => 0x80 + digit,
    }
}

/// A number in hexadecimal digits, as ids are: eight and more, letters and digits.
fn is_hex(word: &[u8]) -> bool {
    let digits = word.iter().filter(|octet| octet.is_ascii_digit()).count();
    let letters = word.iter().filter(|octet| matches!(octet, b'a'..=b'f' | b'A'..=b'F')).count();
    let joints = word.iter().filter(|octet| **octet == b'-').count();
    digits > 0 && letters > 0 && digits + letters >= 8 && digits + letters + joints == word.len()
}

#[cfg(test)]
mod tests {
    use super::super::secret::tests::key;
    use super::*;

    fn mapping() -> Mapping {
        Mapping::new(&key(1), Level::All)
    }

    fn word(mapping: &mut Mapping, text: &str) -> String {
        String::from_utf8(mapping.word(text.as_bytes())).expect("text")
    }

    #[test]
    fn a_word_keeps_length_capitals_digits_and_joints() {
        let mut mapping = mapping();
        let mapped = word(&mut mapping, "Payments-api_07");
        assert_ne!(mapped, "Payments-api_07");
        let shape = |text: &str| -> String {
            text.chars()
                .map(|c| {
                    if c.is_ascii_digit() {
                        '0'
                    } else if c.is_ascii_uppercase() {
                        'A'
                    } else if c.is_ascii_lowercase() {
                        'a'
                    } else {
                        c
                    }
                })
                .collect()
        };
        assert_eq!(shape(&mapped), shape("Payments-api_07"));
    }

    #[test]
    fn either_case_becomes_the_same() {
        let mut mapping = mapping();
        assert_eq!(word(&mut mapping, "shop").to_uppercase(), word(&mut mapping, "SHOP"));
    }

    #[test]
    fn the_length_in_huffman_code_stays() {
        let mut mapping = mapping();
        let bits = |text: &str| text.bytes().map(huffman::bits).sum::<u32>();
        for text in ["shop", "jjjjjjjjjjjj", "aaaaaaaaaaaaaaaa", "0", "zq", "4f1c2b7e-8d3a-4c55-9e10-aa77bb8899cc"] {
            assert_eq!(bits(&word(&mut mapping, text)), bits(text), "{text}");
        }
    }

    #[test]
    fn an_id_in_hexadecimal_digits_stays_one() {
        let mapped = word(&mut mapping(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(mapped.bytes().all(|octet| octet.is_ascii_hexdigit()) && !mapped.starts_with("4bf9"), "{mapped}");
    }

    #[test]
    fn different_words_stay_different_and_another_key_says_others() {
        let mut one = mapping();
        let mut other = Mapping::new(&key(2), Level::All);
        let words: Vec<String> = (0..500).map(|n| format!("host{n:03}")).collect();
        let mapped: std::collections::BTreeSet<String> = words.iter().map(|text| word(&mut one, text)).collect();
        assert_eq!(mapped.len(), 500);
        assert_ne!(word(&mut one, "payments"), word(&mut other, "payments"));
    }
}
