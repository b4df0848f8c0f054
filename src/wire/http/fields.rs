//! What header fields mean together: framing, persistence, lists. RFC 9110 §5.3, RFC 9112 §6, §9.3.

use httparse::Header;

use super::{Conflict, Framing};

macro_rules! names {
    ($( $name:ident = $text:literal, )*) => {
        /// A field that somebody asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Name { $( $name, )* }

        impl Name {
            /// All of them.
            const ALL: &[Self] = &[$( Self::$name, )*];

            /// As it is written in lower case.
            pub(super) const fn text(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

names! {
    B3 = "b3",
    Via = "via",
    Host = "host",
    Date = "date",
    ETag = "etag",
    PseudoPath = ":path",
    Accept = "accept",
    Expect = "expect",
    Server = "server",
    CfRay = "cf-ray",
    Upgrade = "upgrade",
    PseudoMethod = ":method",
    PseudoStatus = ":status",
    Location = "location",
    Forwarded = "forwarded",
    XRealIp = "x-real-ip",
    PseudoProtocol = ":protocol",
    Connection = "connection",
    UserAgent = "user-agent",
    RequestId = "request-id",
    XTraceId = "x-trace-id",
    PseudoAuthority = ":authority",
    RetryAfter = "retry-after",
    Traceparent = "traceparent",
    XUniqueId = "x-unique-id",
    GrpcStatus = "grpc-status",
    ContentType = "content-type",
    XRequestId = "x-request-id",
    XB3Traceid = "x-b3-traceid",
    GrpcTimeout = "grpc-timeout",
    GrpcMessage = "grpc-message",
    LastModified = "last-modified",
    UberTraceId = "uber-trace-id",
    ContentLength = "content-length",
    TrueClientIp = "true-client-ip",
    XForwardedFor = "x-forwarded-for",
    XAmznTraceId = "x-amzn-trace-id",
    CfConnectingIp = "cf-connecting-ip",
    XCorrelationId = "x-correlation-id",
    TransferEncoding = "transfer-encoding",
    XCloudTraceContext = "x-cloud-trace-context",
}

/// Names by their [`hash`].
static BY_HASH: [Option<Name>; 128] = {
    let mut by_hash = [None; 128];
    let mut place = 0;
    while place < Name::ALL.len() {
        let hash = hash(Name::ALL[place].text().as_bytes());
        assert!(by_hash[hash].is_none(), "two names have one hash: it needs another factor");
        by_hash[hash] = Some(Name::ALL[place]);
        place += 1;
    }
    assert!(place <= 64, "one bit each");
    by_hash
};

/// A perfect hash of the names that are asked for, the same in either case: by length, first and middle octet. The factor was found by
/// trying.
const fn hash(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, middle) = (name[0] | 0x20, name[name.len() / 2] | 0x20);
    (name.len() + first as usize + 23 * middle as usize) % 128
}

impl Name {
    /// The one that is written so, in either case.
    fn of(name: &str) -> Option<Self> {
        let name = name.as_bytes();
        BY_HASH[hash(name)].filter(|known| alike(name, known.text().as_bytes()))
    }

    /// A bit for each of `names`.
    pub(super) const fn bits(names: &[Self]) -> u64 {
        let (mut bits, mut i) = (0, 0);
        while i < names.len() {
            bits |= 1 << names[i] as u8;
            i += 1;
        }
        bits
    }
}

/// Whether `name` is `known`, which is in lower case, without regard to case. Eight octets at a time, because every name of every head
/// comes by here.
fn alike(name: &[u8], known: &[u8]) -> bool {
    // Letters in lower case have the bit 0x40, and may differ in the bit 0x20.
    let same = |name: u64, known: u64| (name ^ known) & !((known & 0x4040_4040_4040_4040) >> 1) == 0;
    let word = |name: &[u8; 8], known: &[u8; 8]| same(u64::from_le_bytes(*name), u64::from_le_bytes(*known));
    if name.len() != known.len() {
        return false;
    }
    let (Some(end), Some(known_end)) = (name.last_chunk(), known.last_chunk()) else {
        return match ends(name).zip(ends(known)) {
            Some((name, known)) => same(name, known),
            None => name.eq_ignore_ascii_case(known),
        };
    };
    let mut words = name.as_chunks().0.iter().zip(known.as_chunks().0);
    word(end, known_end) && words.all(|(name, known)| word(name, known))
}

/// The first and the last four octets: all there are of a name of four to eight.
fn ends(name: &[u8]) -> Option<u64> {
    let half = |octets: &[u8; 4]| u64::from(u32::from_le_bytes(*octets));
    Some(half(name.first_chunk()?) << 32 | half(name.last_chunk()?))
}

/// The header fields of one head. Every name is looked at once, so that questions for fields cost nothing.
pub(super) struct Fields<'a> {
    list: &'a [Header<'a>],
    /// A bit for each name that is there, and for each that is there more than once.
    there: u64,
    again: u64,
    /// Where the first field of a name is, if it is there.
    first: [u16; Name::ALL.len()],
}

impl<'a> Fields<'a> {
    /// As they came.
    pub(super) fn of(list: &'a [Header<'a>]) -> Self {
        let mut fields = Self { list, there: 0, again: 0, first: [0; Name::ALL.len()] };
        for (place, field) in list.iter().enumerate() {
            let Some(name) = Name::of(field.name) else { continue };
            let bit = 1 << name as u8;
            if fields.there & bit == 0 {
                fields.first[name as usize] = place as u16;
            }
            fields.again |= fields.there & bit;
            fields.there |= bit;
        }
        fields
    }

    /// The bits of those of `names` that are there.
    pub(super) fn among(&self, names: u64) -> u64 {
        self.there & names
    }

    /// The values of all fields of that name, in order, without blanks around them.
    fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> {
        let several = self.again & 1 << name as u8 != 0;
        let list = if several { self.list } else { &[] };
        let one = if several { None } else { self.first(name) };
        let same = list.iter().filter(move |field| Name::of(field.name) == Some(name));
        one.into_iter().chain(same.map(|field| field.value.trim_ascii()))
    }

    /// The first of them.
    #[inline]
    pub(super) fn first(&self, name: Name) -> Option<&'a [u8]> {
        if self.there & 1 << name as u8 == 0 {
            return None;
        }
        self.list.get(usize::from(self.first[name as usize])).map(|field| field.value.trim_ascii())
    }

    /// The entries of a field whose value is a list, over all fields of that name.
    pub(super) fn entries(&self, name: Name) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|octet| *octet == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|entry| !entry.is_empty())
    }

    /// Whether a list holds a word, in either case, with or without parameters.
    pub(super) fn lists(&self, name: Name, word: &str) -> bool {
        // Most values are the word alone, or shorter.
        self.first(name).is_some_and(|value| value.eq_ignore_ascii_case(word.as_bytes()))
            || self.all(name).any(|value| value.len() >= word.len())
                && self.entries(name).any(|entry| {
                    let bare = entry.split(|octet| *octet == b';').next().unwrap_or(entry);
                    bare.trim_ascii().eq_ignore_ascii_case(word.as_bytes())
                })
    }

    /// How the body ends, and why another may take another end. `without` is what holds when no field says it. RFC 9112 §6.3.
    pub(super) fn framing(&self, without: Framing) -> (Framing, Option<Conflict>) {
        let length = self.content_length();
        if self.first(Name::TransferEncoding).is_some() {
            let last = self.entries(Name::TransferEncoding).last();
            let chunked = last.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            // A request whose last coding is not chunked has no end that could be told (§6.3 rule 4).
            let nonsense = !chunked && without == Framing::None;
            let both = (length != Length::Absent).then_some(Conflict::LengthAndCoding);
            let conflict = both.or_else(|| nonsense.then_some(Conflict::Coding));
            return (if chunked { Framing::Chunked } else { without }, conflict);
        }
        match length {
            Length::Absent => (without, None),
            Length::Octets(octets) => (Framing::Length(octets), None),
            Length::NoNumber => (without, Some(Conflict::Length)),
            Length::Several(first) => (Framing::Length(first), Some(Conflict::Lengths)),
        }
    }

    fn content_length(&self) -> Length {
        let Some(value) = self.first(Name::ContentLength) else { return Length::Absent };
        match number(value) {
            Some(octets) if self.again & Name::bits(&[Name::ContentLength]) == 0 => Length::Octets(octets),
            _ => self.unusual_length(),
        }
    }

    /// Several, a list, or no number.
    #[cold]
    fn unusual_length(&self) -> Length {
        let mut lengths = self.entries(Name::ContentLength).map(number);
        match lengths.next().flatten() {
            // The same length twice is one length (RFC 9110 §8.6).
            Some(first) if lengths.all(|length| length == Some(first)) => Length::Octets(first),
            Some(first) => Length::Several(first),
            None => Length::NoNumber,
        }
    }
}

/// What Content-Length says.
#[derive(PartialEq, Eq)]
enum Length {
    Absent,
    Octets(u64),
    /// The first, and what follows is another or no number.
    Several(u64),
    NoNumber,
}

/// A number in digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, octet: &u8| {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u64::from(digit)) }
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_either_case() {
        for name in Name::ALL {
            assert_eq!(Name::of(name.text()), Some(*name));
            assert_eq!(Name::of(&name.text().to_ascii_uppercase()), Some(*name));
        }
        let strange =
            ["", "x", "hosts", "hose", "x-cloud-trace-contexts", "content\rtype", "x-real\rip", "\x1aprotocol"];
        for name in strange {
            assert_eq!(Name::of(name), None, "{name}");
        }
    }

    #[test]
    fn fields_of_one_name_are_kept_in_their_order() {
        let field = |name, value: &'static str| Header { name, value: value.as_bytes() };
        let list = [field("Via", "a "), field("X", "y"), field("vIA", "b, ,c"), field("Date", "d,e")];
        let fields = Fields::of(&list);
        assert_eq!((fields.first(Name::Via), fields.first(Name::Host)), (Some(&b"a"[..]), None));
        assert_eq!(fields.entries(Name::Via).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(fields.entries(Name::Date).collect::<Vec<_>>(), [b"d", b"e"]);
        assert_eq!(fields.among(Name::bits(&[Name::Date, Name::Host])), Name::bits(&[Name::Date]));
    }

    #[test]
    fn a_number_has_digits_only() {
        let numbers = [&b"0"[..], b"007", b"18446744073709551615", b"18446744073709551616", b"", b"+1", b"1 "];
        let read = numbers.map(number);
        assert_eq!(read, [Some(0), Some(7), Some(u64::MAX), None, None, None, None]);
    }
}
