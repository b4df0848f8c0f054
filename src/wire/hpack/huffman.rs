//! Strings in HPACK's Huffman code. RFC 7541 §5.2 and Appendix B.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their octets, so that the lengths alone define it.

use crate::wire::Malformed;

/// Bits of the code of each octet. Appendix B.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
/// The longest code.
const LONGEST: usize = 30;

/// The codes, by their length.
struct Codes {
    /// The octets in the order of their codes.
    octets: [u8; 256],
    /// For each length: its first code, the place of that code's octet, and how many codes have the length.
    by_length: [(u32, u16, u16); LONGEST + 1],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut octets = [0; 256];
    let mut by_length = [(0, 0, 0); LONGEST + 1];
    let (mut length, mut code, mut place) = (1, 0_u32, 0);
    while length <= LONGEST {
        let first = place;
        let mut octet = 0;
        while octet < 256 {
            if LENGTHS[octet] as usize == length {
                octets[place] = octet as u8;
                place += 1;
            }
            octet += 1;
        }
        let count = (place - first) as u16;
        by_length[length] = (code, first as u16, count);
        code = (code + count as u32) << 1;
        length += 1;
    }
    Codes { octets, by_length }
}

/// Decodes a string. It grows by less than eight fifths: the shortest code has 5 bits.
///
/// # Errors
/// When it holds the code that ends no string (EOS), or is filled up with something else than at most seven ones.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut text = Vec::with_capacity(bytes.len() + bytes.len() / 2);
    let (mut code, mut length) = (0_u32, 0);
    for octet in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(octet >> bit & 1);
            length += 1;
            let Some((first, place, count)) = CODES.by_length.get(length) else {
                return Err(Malformed::field("Huffman code", 0));
            };
            if let Some(offset) = code.checked_sub(*first).filter(|offset| *offset < u32::from(*count)) {
                text.extend(CODES.octets.get(usize::from(*place) + offset as usize));
                (code, length) = (0, 0);
            }
        }
    }
    if length < 8 && code == (1 << length) - 1 { Ok(text) } else { Err(Malformed::field("Huffman padding", 0)) }
}

/// Bits of an octet's code.
pub(crate) fn bits(octet: u8) -> u32 {
    u32::from(LENGTHS[usize::from(octet)])
}

/// In Huffman code, filled up with ones.
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut waiting, mut have) = (0_u64, 0);
    for octet in text {
        let place = CODES.octets.iter().position(|known| known == octet).unwrap_or(0) as u32;
        let length = bits(*octet);
        let (first, from, _) = CODES.by_length[length as usize];
        waiting = waiting << length | u64::from(first + place - u32::from(from));
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((waiting >> have) as u8);
        }
    }
    if have > 0 {
        out.push((waiting << (8 - have)) as u8 | (0xff >> have) as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::octets;

    #[test]
    fn strings_of_the_standard_are_decoded() {
        for (code, text) in [
            ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", "www.example.com"),
            ("a8eb 1064 9cbf", "no-cache"),
            ("6402", "302"),
            ("aec3 771a 4b", "private"),
            ("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decode(&octets(code)).as_deref(), Ok(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_end_code_zeros_and_a_whole_octet_of_filling_are_refused() {
        for code in ["ffff ffff", "60", "6402 ff", "f800"] {
            assert!(decode(&octets(code)).is_err(), "{code}");
        }
    }

    #[test]
    fn every_octet_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Ok(all));
    }
}
