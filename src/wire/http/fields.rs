//! What header fields mean together: framing, persistence, lists. RFC 9110 §5.3, RFC 9112 §6, §9.3.

use httparse::Header;

use super::Framing;

/// The header fields of one head, asked by name without regard to case.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    list: &'a [Header<'a>],
    /// The marks of their names: most questions are for fields that are not there.
    names: u64,
}

/// One bit for a name; many names share it.
const fn mark(name: &str) -> u64 {
    match name.as_bytes() {
        [] => 0,
        [first, .., last] => 1 << ((name.len() + 7 * (*first | 0x20) as usize + 3 * (*last | 0x20) as usize) % 64),
        [_] => 1,
    }
}

/// The bits of many.
pub(super) const fn marks(names: &[&str]) -> u64 {
    let (mut bits, mut i) = (0, 0);
    while i < names.len() {
        bits |= mark(names[i]);
        i += 1;
    }
    bits
}

impl<'a> Fields<'a> {
    /// As they came.
    pub(super) fn of(list: &'a [Header<'a>]) -> Self {
        Self { list, names: list.iter().fold(0, |bits, field| bits | mark(field.name)) }
    }

    /// Whether a name with one of these `marks` is among them.
    pub(super) fn any(self, marks: u64) -> bool {
        self.names & marks != 0
    }

    /// The values of all fields of that name, in order, without blanks around them.
    #[inline]
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let list = if self.any(mark(name)) { self.list } else { &[] };
        list.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
    }

    /// The first of them.
    pub(super) fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The entries of a field whose value is a list, over all fields of that name.
    pub(super) fn entries(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|octet| *octet == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|entry| !entry.is_empty())
    }

    /// Whether a list holds a word, in either case, with or without parameters.
    pub(super) fn lists(self, name: &str, word: &str) -> bool {
        self.entries(name).any(|entry| {
            let bare = entry.split(|octet| *octet == b';').next().unwrap_or(entry);
            bare.trim_ascii().eq_ignore_ascii_case(word.as_bytes())
        })
    }

    /// How the body ends, and whether the fields contradict each other. `without` is what holds when no field says it. RFC 9112 §6.3.
    pub(super) fn framing(self, without: Framing) -> (Framing, bool) {
        let length = self.content_length();
        if self.first("transfer-encoding").is_some() {
            let chunked =
                self.entries("transfer-encoding").last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            // A request whose last coding is not chunked has no end that could be told (§6.3 rule 4).
            let nonsense = !chunked && without == Framing::None;
            return (if chunked { Framing::Chunked } else { without }, length != Length::Absent || nonsense);
        }
        match length {
            Length::Absent => (without, false),
            Length::Octets(octets) => (Framing::Length(octets), false),
            Length::Wrong(first) => (first.map_or(without, Framing::Length), true),
        }
    }

    fn content_length(self) -> Length {
        let mut lengths = self.entries("content-length").map(number);
        let Some(first) = lengths.next() else {
            let empty = self.first("content-length").is_some();
            return if empty { Length::Wrong(None) } else { Length::Absent };
        };
        match first {
            // The same length twice is one length (RFC 9110 §8.6).
            Some(octets) if lengths.all(|length| length == first) => Length::Octets(octets),
            _ => Length::Wrong(first),
        }
    }
}

/// What Content-Length says.
#[derive(PartialEq, Eq)]
enum Length {
    Absent,
    Octets(u64),
    /// It is no number, or several that differ; the first number.
    Wrong(Option<u64>),
}

/// A number in digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.bytes().all(|octet| octet.is_ascii_digit()) { digits.parse().ok() } else { None }
}
