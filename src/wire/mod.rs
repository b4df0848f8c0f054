//! Bytes to meaning: one file per format, no state, no input or output.
//!
//! Thin over the field's own crates where one reads with the precision a diagnosis needs; own code elsewhere. All bounds checks live in
//! [`Cursor`]; no function here panics on any octets.

pub mod arp;
pub(crate) mod crc32c;
pub mod dns;
pub(crate) mod fnv;
pub mod h2;
pub mod harmless;
pub mod hpack;
pub mod http;
pub mod icmp;
pub mod proxy;
#[cfg(test)]
pub(crate) mod samples;
pub mod seq;
pub mod sll;
pub mod tcp;
pub mod text;
pub mod tls;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::Utf8Error;

use serde::{Deserialize, Serialize};

/// Why octets could not be read as what they should be: evidence, not an error for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The field or structure that was being read, in the standard's words.
    pub what: &'static str,
    /// Where it begins, in octets from the start of the structure.
    pub offset: u32,
    /// Octets it needs; 0 when the content and not the length is wrong.
    pub need: u32,
    /// Octets there were.
    pub got: u32,
    /// Who set the limit that was hit.
    pub limit: Limit,
}

/// Who set the limit that a structure does not fit into: "cut by the capture" and "lies about its length" are different diagnoses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The octets end here: more may come in the next segment.
    Slice,
    /// The capture kept only the first octets of the packet (snaplen).
    Snaplen,
    /// A length field of the structure itself, or a value its standard forbids.
    Field,
}

impl Malformed {
    /// A value that the standard forbids.
    pub const fn field(what: &'static str, offset: u32) -> Self {
        Self { what, offset, need: 0, got: 0, limit: Limit::Field }
    }

    /// Too few octets so far.
    pub const fn short(what: &'static str, offset: u32, need: u32, got: u32) -> Self {
        Self { what, offset, need, got, limit: Limit::Slice }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Limit::Slice => write!(f, "{}: {} octets needed, {} there", self.what, self.need, self.got),
            Limit::Snaplen => write!(f, "{}: cut by the capture's snaplen", self.what),
            Limit::Field => write!(f, "{} (octet {})", self.what, self.offset),
        }
    }
}

/// What the first octets of a stream say about one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// They are that protocol.
    Yes,
    /// They cannot be.
    No,
    /// They could still become either.
    NeedMore,
}

impl Recognition {
    /// Whether `bytes` begins with `word`.
    pub(crate) fn of_prefix(bytes: &[u8], word: &[u8]) -> Self {
        if !bytes.iter().zip(word).all(|(octet, expected)| octet == expected) {
            Self::No
        } else if bytes.len() < word.len() {
            Self::NeedMore
        } else {
            Self::Yes
        }
    }

    /// One or the other: `Yes` of either decides, else more octets may.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::NeedMore, _) | (_, Self::NeedMore) => Self::NeedMore,
            (Self::No, Self::No) => Self::No,
        }
    }
}

/// A text out of a packet. Up to 24 octets lie in it and need no memory of their own: most methods, names and types of content.
pub type ShortText = compact_str::CompactString;

/// At most `most` octets of `bytes` as text; what is no UTF-8 becomes U+FFFD. Never cut within a character.
pub(crate) fn text_of(bytes: &[u8], most: usize) -> ShortText {
    // A character that begins before the cut is whole three octets behind it.
    let bytes = bytes.get(..most + 3).unwrap_or(bytes);
    // Nearly all of it is UTF-8, which is found out many octets at a time.
    let mut text = match Aligned::default().utf8(bytes) {
        Ok(text) => ShortText::from(text),
        Err(_) => ShortText::from(String::from_utf8_lossy(bytes)),
    };
    while text.len() > most {
        text.pop();
    }
    text
}

/// A place for short octets: [`std::str::from_utf8`] looks at sixteen at a time where they begin at a multiple of eight, and at the last few
/// one by one.
#[derive(Default)]
#[repr(align(16))]
struct Aligned([u8; 32]);

impl Aligned {
    fn utf8<'a>(&'a mut self, octets: &'a [u8]) -> Result<&'a str, Utf8Error> {
        let Some(place) = self.0.get_mut(..octets.len()) else { return std::str::from_utf8(octets) };
        place.copy_from_slice(octets);
        let whole = self.0.get(..octets.len().next_multiple_of(16)).unwrap_or(&self.0);
        // Zeros behind it end no character that it began.
        std::str::from_utf8(whole).map(|text| text.get(..octets.len()).unwrap_or(text))
    }
}

/// At most `most` octets of `text`, never cut within a character.
pub(crate) fn short_of(text: &str, most: usize) -> ShortText {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortText::from(text.get(..end).unwrap_or_default())
}

/// Reads a slice from front to back; running off its end is a [`Malformed`] with [`Limit::Slice`], never a panic.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor on the first octet.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Octets read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// Octets not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` octets.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        match self.bytes.get(self.at..self.at.saturating_add(n)) {
            Some(slice) => {
                self.at += n;
                Ok(slice)
            }
            None => Err(Malformed::short(what, self.at as u32, n as u32, self.remaining() as u32)),
        }
    }

    /// The next `N` octets as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    /// One octet.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two octets in network order.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Three octets in network order.
    pub fn u24(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let [a, b, c] = self.array(what)?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    /// Four octets in network order.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }
}

/// An IPv4 or IPv6 address in 16 octets; IPv4 in its mapped form (`::ffff:a.b.c.d`), so that keys compare as plain integers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u128);

impl Address {
    /// From the four octets of an IPv4 header.
    pub fn v4(octets: [u8; 4]) -> Self {
        Self(0xffff_0000_0000 | u128::from(u32::from_be_bytes(octets)))
    }

    /// From the sixteen octets of an IPv6 header.
    pub fn v6(octets: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(octets))
    }

    /// Whether it is an IPv4 address.
    pub fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// The standard library's form.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() { IpAddr::V4(Ipv4Addr::from(self.0 as u32)) } else { IpAddr::V6(Ipv6Addr::from(self.0)) }
    }

    /// Whether packets to it never leave the host.
    pub fn is_loopback(self) -> bool {
        self.to_ip().is_loopback()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.octets()),
            IpAddr::V6(ip) => Self::v6(ip.octets()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serialised as text: readers of the JSON want `10.0.0.5`, not a number.
impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IpAddr::deserialize(deserializer).map(Self::from)
    }
}

/// An address and a port: one end of a flow. Prints as `10.0.0.5:443` or `[2001:db8::1]:443`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The host.
    pub address: Address,
    /// The port; 0 for protocols without ports.
    pub port: u16,
}

impl Endpoint {
    /// An end from its parts.
    pub fn new(address: Address, port: u16) -> Self {
        Self { address, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.to_ip() {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let socket = std::net::SocketAddr::deserialize(deserializer)?;
        Ok(Self::new(socket.ip().into(), socket.port()))
    }
}

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_says_where_and_how_much() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert_eq!(cursor.u16("number"), Ok(0x0102));
        assert_eq!(cursor.u32("number"), Err(Malformed::short("number", 2, 4, 1)));
        assert_eq!((cursor.position(), cursor.rest()), (2, &[3][..]));
        assert_eq!(cursor.take(usize::MAX, "all").map_err(|malformed| malformed.got), Err(1));
    }

    #[test]
    fn text_is_cut_between_characters() {
        for (text, most) in [("aéb", 2), ("aéb", 3), ("🙂🙂", 7), ("", 3), ("abc", 3)] {
            assert_eq!(short_of(text, most), text_of(text.as_bytes(), most), "{text} {most}");
        }
        assert_eq!(text_of("aéb".as_bytes(), 2), "a");
        assert_eq!(text_of("aéb".as_bytes(), 3), "aé");
        assert_eq!(text_of(b"a\xffb", 4), "a\u{fffd}");
        assert_eq!(text_of("🙂".as_bytes(), 4), "🙂");
        assert_eq!(text_of("🙂🙂".as_bytes(), 7), "🙂");
    }

    #[test]
    fn a_prefix_is_recognised_octet_by_octet() {
        assert_eq!(Recognition::of_prefix(b"", b"ab"), Recognition::NeedMore);
        assert_eq!(Recognition::of_prefix(b"a", b"ab"), Recognition::NeedMore);
        assert_eq!(Recognition::of_prefix(b"abc", b"ab"), Recognition::Yes);
        assert_eq!(Recognition::of_prefix(b"b", b"ab"), Recognition::No);
    }
}
