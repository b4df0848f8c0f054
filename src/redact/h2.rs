//! HTTP/2: frames, kinds, flags, streams and error codes stay; strings in header blocks are replaced by strings of the same length, in the
//! same code. RFC 9113, RFC 7541.

use super::mapping::Mapping;
use super::secret::Purpose;
use super::stream::{Reader, Step, put_back};
use crate::wire::h2::{FrameHeader, flag, kind, looks_like_frames};
use crate::wire::hpack::{Decoder, Field, huffman};
use crate::wire::http::PREFACE;
use crate::wire::{Cursor, Malformed, Recognition};

/// Header blocks that are put together.
const LONGEST: usize = 128 * 1024;
/// Larger frames than these hold no settings, pings and farewells.
const SMALL: usize = 16 * 1024;

/// Reads one side of HTTP/2.
pub(super) struct Http2 {
    decoder: Decoder,
    lost: bool,
}

impl Http2 {
    pub(super) fn new() -> Self {
        let mut decoder = Decoder::default();
        // Whatever size the other side allows: it is not looked at here.
        decoder.forget();
        Self { decoder, lost: false }
    }

    /// HEADERS or PUSH_PROMISE with the CONTINUATION frames behind it. `None`: more is needed.
    fn headers(&mut self, map: &mut Mapping, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut places = Vec::new();
        let mut at = 0;
        loop {
            let header = FrameHeader::parse(&bytes[at..]).ok()?;
            let (mut from, mut to) = (at + FrameHeader::LEN, at + FrameHeader::LEN + header.len as usize);
            let payload = bytes.get(from..to)?;
            let end = to;
            if at == 0 {
                if header.has(flag::PADDED) {
                    to = to.saturating_sub(payload.first().copied().unwrap_or(0).into());
                    from += 1;
                }
                from += match header.kind {
                    kind::PUSH_PROMISE => 4,
                    _ if header.has(flag::PRIORITY) => 5,
                    _ => 0,
                };
            } else if header.kind != kind::CONTINUATION {
                break;
            }
            places.push(from.min(to)..to);
            at = end;
            if header.has(flag::END_HEADERS) {
                break;
            }
        }
        let block: Vec<u8> = places.iter().flat_map(|place| &bytes[place.clone()]).copied().collect();
        let mapped = map.header_block(&mut self.decoder, &block);
        Some(put_back(&bytes[..at], places, &mapped))
    }
}

impl Reader for Http2 {
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        if bytes.starts_with(b"PRI") {
            return match bytes.get(..PREFACE.len()) {
                Some(preface) => Step::Replace(preface.to_vec()),
                None if last => Step::Replace(bytes.to_vec()),
                None => Step::More,
            };
        }
        let Ok(header) = FrameHeader::parse(bytes) else {
            return if last { Step::Replace(bytes.to_vec()) } else { Step::More };
        };
        let len = header.len as usize;
        let payload = &bytes[FrameHeader::LEN..];
        let begin = bytes[..FrameHeader::LEN].to_vec();
        let whole = payload.get(..len).filter(|_| len <= SMALL);
        let small = matches!(
            header.kind,
            kind::PRIORITY | kind::RST_STREAM | kind::SETTINGS | kind::PING | kind::GOAWAY | kind::WINDOW_UPDATE
        );
        match header.kind {
            kind::HEADERS | kind::PUSH_PROMISE => match self.headers(map, bytes) {
                Some(out) => Step::Replace(out),
                None if !last && bytes.len() < LONGEST => Step::More,
                None => {
                    self.decoder.forget();
                    Step::ReplaceAndFill(begin, len as u64)
                }
            },
            _ if small && whole.is_none() && !last && len <= SMALL => Step::More,
            kind::PING => Step::Replace([begin, map.opaque(&payload[..len.min(payload.len())])].concat()),
            kind::GOAWAY => {
                let payload = &payload[..len.min(payload.len()).min(SMALL)];
                let (fixed, words) = payload.split_at(payload.len().min(8));
                let left = (len - payload.len()) as u64;
                Step::ReplaceAndFill([&begin, fixed, &map.message(words)].concat(), left)
            }
            _ if small => {
                let there = len.min(payload.len()).min(SMALL);
                Step::ReplaceAndFill(bytes[..FrameHeader::LEN + there].to_vec(), (len - there) as u64)
            }
            _ => Step::ReplaceAndFill(begin, len as u64),
        }
    }

    fn hole(&mut self) {
        self.lost = true;
        self.decoder.forget();
    }

    fn resume(&mut self, piece: &[u8]) -> bool {
        self.lost &= looks_like_frames(piece) != Recognition::Yes;
        !self.lost
    }
}

/// A string in a header block.
struct Text {
    /// Its octets as sent.
    place: std::ops::Range<usize>,
    packed: bool,
    /// Which field it belongs to, and whether it is the value.
    field: usize,
    value: bool,
}

impl Mapping {
    /// A header block, as long as before.
    fn header_block(&mut self, decoder: &mut Decoder, block: &[u8]) -> Vec<u8> {
        let mut fields: Vec<Field> = Vec::new();
        let whole = decoder.block(block, &mut fields);
        let mut out = block.to_vec();
        let mut texts = Vec::new();
        let read = texts_of(block, &mut texts);
        let _ = read;
        for text in &texts {
            let mapped = match fields.get(text.field).filter(|_| whole.is_ok()) {
                // Names of fields are words of programs, not of people.
                Some(_) if !text.value => continue,
                Some(field) => self.header_text(&field.name, &field.value, text.packed, text.place.len()),
                None => self.code_alike(b"", text.place.len(), text.packed),
            };
            if mapped.len() == text.place.len() {
                out[text.place.clone()].copy_from_slice(&mapped);
            }
        }
        out
    }

    fn header_text(&mut self, name: &[u8], value: &[u8], packed: bool, len: usize) -> Vec<u8> {
        let mapped = self.field(name, value);
        if !packed {
            return if mapped.len() == len { mapped } else { self.code_alike(value, len, packed) };
        }
        let coded = huffman::encode(&mapped);
        if coded.len() == len { coded } else { self.code_alike(value, len, packed) }
    }

    /// A string that takes as many octets as it did: each letter or digit becomes one whose code is as long. For values that do not keep
    /// their length otherwise, as addresses.
    fn code_alike(&mut self, value: &[u8], len: usize, packed: bool) -> Vec<u8> {
        let mapped: Vec<u8> = value
            .iter()
            .enumerate()
            .map(|(place, octet)| {
                let range = match octet {
                    b'0'..=b'9' => b'0'..=b'9',
                    b'a'..=b'z' => b'a'..=b'z',
                    b'A'..=b'Z' => b'A'..=b'Z',
                    _ => return *octet,
                };
                let alike: Vec<u8> = range.filter(|other| huffman::bits(*other) == huffman::bits(*octet)).collect();
                let number = self.secret.number(Purpose::Coded, value, place as u32);
                alike[(number % alike.len() as u64) as usize]
            })
            .collect();
        let mapped = if packed { huffman::encode(&mapped) } else { mapped };
        if mapped.len() == len {
            return mapped;
        }
        // Nothing of it is known: digits whose codes fill the octets.
        let filling = vec![b'0'; if packed { len * 8 / 5 } else { len }];
        if packed { huffman::encode(&filling) } else { filling }
    }
}

/// Where the strings of a block stand.
fn texts_of(block: &[u8], texts: &mut Vec<Text>) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(block);
    let mut field = 0;
    while cursor.remaining() > 0 {
        let first = cursor.u8("field")?;
        match first {
            0x80.. => {
                integer(&mut cursor, first, 7)?;
            }
            0x20..=0x3f => {
                integer(&mut cursor, first, 5)?;
                continue;
            }
            _ => {
                let bits = if first >= 0x40 { 6 } else { 4 };
                if integer(&mut cursor, first, bits)? == 0 {
                    texts.push(text(&mut cursor, field, false)?);
                }
                texts.push(text(&mut cursor, field, true)?);
            }
        }
        field += 1;
    }
    Ok(())
}

fn text(cursor: &mut Cursor<'_>, field: usize, value: bool) -> Result<Text, Malformed> {
    let first = cursor.u8("string")?;
    let len = integer(cursor, first, 7)?;
    let from = cursor.position();
    cursor.take(len, "string")?;
    Ok(Text { place: from..from + len, packed: first & 0x80 != 0, field, value })
}

/// RFC 7541 §5.1.
fn integer(cursor: &mut Cursor<'_>, first: u8, bits: u32) -> Result<usize, Malformed> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(first) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let octet = cursor.u8("integer")?;
        value += usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::field("integer", cursor.position() as u32))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;

    fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut block = vec![0x40];
        for text in [name, value] {
            let coded = huffman::encode(text);
            block.push(0x80 | coded.len() as u8);
            block.extend(coded);
        }
        block
    }

    #[test]
    fn a_block_keeps_its_length_and_says_what_http_1_says() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        let block =
            [literal(b":authority", b"shop.example.com"), literal(b":path", b"/accounts/47?x=y"), vec![0x82]].concat();
        let mapped = mapping.header_block(&mut Http2::new().decoder, &block);
        assert_eq!(mapped.len(), block.len());
        let mut fields = Vec::new();
        Decoder::default().block(&mapped, &mut fields).expect("a block");
        assert_eq!(fields[0].value[..], mapping.name(b"shop.example.com")[..]);
        assert_eq!(fields[1].value[..], mapping.target(b"/accounts/47?x=y")[..]);
        assert_eq!(fields[2].value[..], *b"GET");
    }

    #[test]
    fn addresses_that_would_change_their_length_become_something_else() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        for n in 0..50 {
            let value = format!("203.0.{n}.{}", 250 - n);
            let block = literal(b"x-forwarded-for", value.as_bytes());
            let mapped = mapping.header_block(&mut Http2::new().decoder, &block);
            assert_eq!(mapped.len(), block.len());
            let mut fields = Vec::new();
            Decoder::default().block(&mapped, &mut fields).expect("a block");
            assert_ne!(fields[0].value[..], *value.as_bytes());
        }
    }

    #[test]
    fn blocks_that_break_off_keep_their_length() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        let block = literal(b"x-forwarded-for", b"203.0.113.7");
        for len in 0..block.len() {
            assert_eq!(mapping.header_block(&mut Http2::new().decoder, &block[..len]).len(), len);
        }
    }
}
