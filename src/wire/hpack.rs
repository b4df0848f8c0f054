//! Header blocks of HTTP/2. RFC 7541.
//!
//! A passive reader may have missed the beginning of a connection, or a part of it. Then the dynamic table holds fields that it does not
//! know. Newer fields stand before older ones, so that whatever is added from then on has its true index; an index behind them becomes a
//! placeholder (`?62`), and the block is read on. Nothing but octets that break the format themselves stops a block.

mod fixed;
pub(crate) mod huffman;

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cursor, Malformed};

/// The table's size until the decoder's side announces another one (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE: usize = 4096;
/// The largest table that is kept; of a larger one the newest fields.
const LARGEST_TABLE: usize = 64 * 1024;
/// What a field costs in the table beside its octets (§4.1).
const OVERHEAD: usize = 32;
/// Fields of a block, and octets in them, that are given out; the rest is read for the table's sake only.
const MOST_FIELDS: usize = 512;
const MOST_OCTETS: usize = 128 * 1024;
/// Huffman-coded strings that are decoded; of a longer one nothing is known but that it was there.
const LONGEST_STRING: usize = 64 * 1024;

/// One header field as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Name, in lower case; `?` and an index where it is not known.
    pub name: Text,
    /// Value; `?` and an index where it is not known.
    pub value: Text,
}

/// Octets of a name or a value. A block may refer to the same entry a thousand times: no octet is copied for that.
#[derive(Clone, Debug)]
pub enum Text {
    /// Of the static table.
    Fixed(&'static [u8]),
    /// Of the connection.
    Sent(Arc<[u8]>),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Fixed(octets) => octets,
            Self::Sent(octets) => octets,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octets;

        impl serde::de::Visitor<'_> for Octets {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("octets")
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Text, E> {
                Ok(Text::Sent(octets.into()))
            }
        }

        deserializer.deserialize_bytes(Octets)
    }
}

impl From<Vec<u8>> for Text {
    fn from(octets: Vec<u8>) -> Self {
        Self::Sent(octets.into())
    }
}

/// The decoder of one direction.
#[derive(Debug, Serialize, Deserialize)]
pub struct Decoder {
    /// Dynamic table, newest first.
    entries: VecDeque<Field>,
    /// Octets in it, as §4.1 counts them.
    size: usize,
    /// What the encoder keeps it below.
    max: usize,
    /// The most that the decoder's side allowed; `None` where its SETTINGS may have been missed.
    allowed: Option<usize>,
    /// Behind the known entries others may stand.
    unknown: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: DEFAULT_TABLE, allowed: Some(DEFAULT_TABLE), unknown: false }
    }
}

impl Decoder {
    /// Octets the table takes, about: its own measure counts 32 octets for each entry (RFC 7541 §4.1).
    pub fn weight(&self) -> usize {
        self.size + self.entries.capacity() * size_of::<Field>()
    }

    /// Header blocks were missed, or are about to be: all that the table holds may be moved.
    pub fn forget(&mut self) {
        self.entries.clear();
        (self.size, self.max, self.allowed, self.unknown) = (0, LARGEST_TABLE, None, true);
    }

    /// Whether the table may hold fields that were never seen.
    pub fn is_blind(&self) -> bool {
        self.unknown
    }

    /// The decoder's side announced SETTINGS_HEADER_TABLE_SIZE. The encoder says itself when it makes use of it (§4.2), and blocks that are
    /// under way were made for the size before: what was allowed once stays allowed.
    pub fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.map(|known| known.max(size as usize));
    }

    /// Reads a whole header block; each field is given out in order. `false`: some were left out, because there were too many.
    ///
    /// # Errors
    /// When the octets break the format. The table is no longer known then.
    pub fn block(&mut self, bytes: &[u8], fields: &mut Vec<Field>) -> Result<bool, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let (mut octets, mut whole) = (0, true);
        while cursor.remaining() > 0 {
            let field = match self.instruction(&mut cursor) {
                Ok(field) => field,
                Err(malformed) => {
                    self.forget();
                    return Err(malformed);
                }
            };
            let Some(field) = field else { continue };
            octets += field.name.len() + field.value.len();
            whole &= octets <= MOST_OCTETS && fields.len() < MOST_FIELDS;
            if whole {
                fields.push(field);
            }
        }
        Ok(whole)
    }

    /// One field representation, or a change of the table's size (§6).
    fn instruction(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Field>, Malformed> {
        let first = cursor.u8("header field")?;
        Ok(match first {
            0x80.. => Some(self.indexed(integer(cursor, first, 7)?)?),
            0x40.. => {
                let field = self.literal(cursor, first, 6)?;
                self.insert(field.clone());
                Some(field)
            }
            0x20.. => {
                self.resize(integer(cursor, first, 5)?)?;
                None
            }
            _ => Some(self.literal(cursor, first, 4)?),
        })
    }

    fn indexed(&self, index: usize) -> Result<Field, Malformed> {
        if let Some((name, value)) = fixed::field(index) {
            return Ok(Field { name: Text::Fixed(name), value: Text::Fixed(value) });
        }
        let place = index.checked_sub(fixed::COUNT + 1).ok_or(Malformed::field("header field index", 0))?;
        match self.entries.get(place) {
            Some(field) => Ok(field.clone()),
            None if self.unknown && place <= LARGEST_TABLE / OVERHEAD => {
                let name = Text::from(format!("?{index}").into_bytes());
                Ok(Field { value: name.clone(), name })
            }
            None => Err(Malformed::field("header field index", 0)),
        }
    }

    /// A name, by index or in full, and a value in full.
    fn literal(&self, cursor: &mut Cursor<'_>, first: u8, bits: u32) -> Result<Field, Malformed> {
        let name = match integer(cursor, first, bits)? {
            0 => string(cursor)?.into(),
            index => self.indexed(index)?.name,
        };
        Ok(Field { name, value: string(cursor)?.into() })
    }

    /// §4.4: a field larger than the table empties it.
    fn insert(&mut self, field: Field) {
        let size = field.name.len() + field.value.len() + OVERHEAD;
        self.evict(size);
        if size <= self.max {
            self.size += size;
            self.entries.push_front(field);
        } else {
            // Nothing is left, also of what was not known; a table that is only held smaller than it is goes on without this field.
            self.unknown &= self.max == LARGEST_TABLE;
        }
    }

    fn resize(&mut self, size: usize) -> Result<(), Malformed> {
        if self.allowed.is_some_and(|allowed| size > allowed) {
            return Err(Malformed::field("dynamic table size", 0));
        }
        self.max = size.min(LARGEST_TABLE);
        self.evict(0);
        self.unknown = (self.unknown && size > 0) || size > LARGEST_TABLE;
        Ok(())
    }

    fn evict(&mut self, room: usize) {
        while self.size.saturating_add(room) > self.max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.name.len() + oldest.value.len() + OVERHEAD;
        }
    }
}

/// An integer whose first octet gives `bits` bits (§5.1).
fn integer(cursor: &mut Cursor<'_>, first: u8, bits: u32) -> Result<usize, Malformed> {
    const WHAT: &str = "HPACK integer";
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(first) & mask;
    if value < mask {
        return Ok(value);
    }
    // Four more octets hold whatever a block can need.
    for shift in [0, 7, 14, 21] {
        let octet = cursor.u8(WHAT)?;
        value += usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::field(WHAT, cursor.position() as u32))
}

/// A string, plain or in Huffman code (§5.2).
fn string(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Malformed> {
    const WHAT: &str = "HPACK string";
    let first = cursor.u8(WHAT)?;
    let len = integer(cursor, first, 7)?;
    let octets = cursor.take(len, WHAT)?;
    match first & 0x80 {
        0 => Ok(octets.to_vec()),
        _ if len > LONGEST_STRING => Err(Malformed::field(WHAT, cursor.position() as u32)),
        _ => huffman::decode(octets),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::octets;

    fn read(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        decoder.block(&octets(block), &mut fields).expect("a sound block");
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        fields.iter().map(|field| (text(&field.name), text(&field.value))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_requests_of_the_standard_are_decoded_one_after_the_other() {
        // RFC 7541 C.4
        let mut decoder = Decoder::default();
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(read(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"), pairs(&first));
        let second = [&first[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(read(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf"), pairs(&second));
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(read(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"), pairs(&third));
        assert_eq!((decoder.entries.len(), decoder.size), (3, 164));
    }

    #[test]
    fn a_small_table_gives_up_its_oldest_fields() {
        // RFC 7541 C.5, with the table of 256 octets that it speaks of.
        let mut decoder = Decoder::default();
        read(&mut decoder, "3fe101");
        let block = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                     3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
        assert_eq!(read(&mut decoder, block)[3].1, "https://www.example.com");
        assert_eq!((decoder.entries.len(), decoder.size), (4, 222));
        assert_eq!(read(&mut decoder, "4803 3330 37c1 c0bf")[0], (":status".into(), "307".into()));
        assert_eq!((decoder.entries.len(), decoder.size), (4, 222));
    }

    #[test]
    fn what_was_never_seen_is_a_placeholder_and_what_came_since_is_known() {
        let mut decoder = Decoder::default();
        decoder.forget();
        assert!(decoder.is_blind());
        assert_eq!(read(&mut decoder, "82be"), pairs(&[(":method", "GET"), ("?62", "?62")]));
        // An unknown name with a value, kept in the table: it is 62 now, and what was 62 is 63.
        assert_eq!(read(&mut decoder, "7e 02 6f6b"), pairs(&[("?62", "ok")]));
        assert_eq!(read(&mut decoder, "bebf"), pairs(&[("?62", "ok"), ("?63", "?63")]));
        // A table of size 0 holds nothing that could be unknown.
        read(&mut decoder, "20 3fe11f");
        assert!(!decoder.is_blind());
    }

    #[test]
    fn a_table_is_no_larger_than_allowed() {
        let mut decoder = Decoder::default();
        let mut fields = Vec::new();
        assert!(decoder.block(&octets("3fe27f"), &mut fields).is_err(), "16,385 octets were not allowed");
        assert!(decoder.is_blind());
        let mut decoder = Decoder::default();
        decoder.allow(16_385);
        decoder.allow(0);
        assert_eq!(decoder.block(&octets("3fe27f"), &mut fields), Ok(true));
        assert_eq!(decoder.max, 16_385);
    }

    #[test]
    fn an_index_of_nothing_breaks_a_block_and_the_next_one_is_read() {
        let mut decoder = Decoder::default();
        let mut fields = Vec::new();
        for block in ["80", "be", "c0", "ffffffffff0f", "41", "4103", "418cff"] {
            assert!(decoder.block(&octets(block), &mut fields).is_err(), "{block}");
            decoder = Decoder::default();
        }
        decoder.forget();
        assert_eq!(read(&mut decoder, "88"), pairs(&[(":status", "200")]));
    }

    #[test]
    fn a_block_of_endless_repetitions_is_cut() {
        let mut decoder = Decoder::default();
        let mut fields = Vec::new();
        let mut block = octets("40 01 61 7f 81 1e");
        block.extend([b'x'; 285]);
        block.resize(block.len() + 20_000, 0xbe);
        assert_eq!(decoder.block(&block, &mut fields), Ok(false));
        assert!(fields.len() <= MOST_FIELDS);
    }

    /// One representation: its kind, an index for the field or its name (0 = in full), name, value, whether both are in Huffman code.
    type Sent = (u8, usize, Vec<u8>, Vec<u8>, bool);

    fn sent() -> impl Strategy<Value = Sent> {
        let name = proptest::collection::vec(b'a'..=b'z', 1..12);
        (0u8..5, 0usize..70, name, proptest::collection::vec(any::<u8>(), 0..300), any::<bool>())
    }

    fn number(first: u8, bits: u32, value: usize, block: &mut Vec<u8>) {
        let mask = (1 << bits) - 1;
        if value < mask {
            return block.push(first | value as u8);
        }
        block.push(first | mask as u8);
        let mut rest = value - mask;
        while rest >= 128 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }

    fn text(octets: &[u8], packed: bool, block: &mut Vec<u8>) {
        let octets = if packed { huffman::encode(octets) } else { octets.to_vec() };
        number(if packed { 0x80 } else { 0 }, 7, octets.len(), block);
        block.extend(octets);
    }

    fn encode((kind, index, name, value, packed): &Sent, block: &mut Vec<u8>) {
        let (first, bits) = match kind {
            0 => return number(0x80, 7, (*index).max(1), block),
            1 => (0x00, 4),
            2 => (0x10, 4),
            _ => (0x40, 6),
        };
        number(first, bits, *index, block);
        if *index == 0 {
            text(name, *packed, block);
        }
        text(value, *packed, block);
    }

    proptest! {
        #[test]
        fn another_decoder_reads_the_same(blocks in proptest::collection::vec(proptest::collection::vec(sent(), 0..12), 1..12)) {
            let (mut ours, mut theirs) = (Decoder::default(), fluke_hpack::Decoder::new());
            for fields in blocks {
                let mut block = Vec::new();
                fields.iter().for_each(|sent| encode(sent, &mut block));
                let mut read = Vec::new();
                let whole = ours.block(&block, &mut read);
                let Ok(expected) = theirs.decode(&block) else {
                    prop_assert!(whole.is_err(), "an index of nothing");
                    return Ok(());
                };
                let read: Vec<(Vec<u8>, Vec<u8>)> =
                    read.into_iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
                prop_assert_eq!((whole, read), (Ok(true), expected));
            }
        }

        #[test]
        fn whatever_octets_two_decoders_agree_on_says_the_same(block: Vec<u8>) {
            let mut ours = Decoder::default();
            let mut read = Vec::new();
            // The other one panics on some octets, an index of nothing in a size update among them: then it says nothing.
            let theirs = std::panic::catch_unwind(|| fluke_hpack::Decoder::new().decode(&block));
            if let (Ok(true), Ok(Ok(expected))) = (ours.block(&block, &mut read), theirs) {
                let read: Vec<(Vec<u8>, Vec<u8>)> =
                    read.into_iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
                prop_assert_eq!(read, expected);
            }
        }

        #[test]
        fn no_octets_panic_and_the_table_stays_bounded(blocks: Vec<Vec<u8>>, blind: bool) {
            let mut decoder = Decoder::default();
            if blind {
                decoder.forget();
            }
            for block in blocks {
                let mut fields = Vec::new();
                let _ = decoder.block(&block, &mut fields);
                let size: usize = decoder.entries.iter().map(|f| f.name.len() + f.value.len() + OVERHEAD).sum();
                prop_assert_eq!(size, decoder.size);
                prop_assert!(size <= decoder.max && decoder.max <= LARGEST_TABLE);
            }
        }
    }
}
