//! Frames of HTTP/2: where they begin and end, and what the ones that matter say. RFC 9113 §4, §6.
//!
//! Headers and small frames are put together; DATA is stepped over by its length. Nothing that a frame holds stops the reader: it goes by
//! lengths, and what a hole swallowed it finds again where a segment begins with frames that fit each other.

use serde::{Deserialize, Serialize};

use super::{Cursor, Malformed, Recognition, text_of};

/// Frame types, §6. Others are to be ignored (§4.1).
#[expect(missing_docs, reason = "the names of the standard")]
pub mod kind {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Frame flags, §6.
#[expect(missing_docs, reason = "the names of the standard")]
pub mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes by number, §7.
const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// The standard's name of an error code, as logs show it.
pub fn error_name(code: u32) -> &'static str {
    ERRORS.get(code as usize).copied().unwrap_or("an unknown error code")
}

/// Nine octets in front of every frame: length (3), type (1), flags (1), a reserved bit and the stream (31 bits). §4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// Octets of the payload that follows.
    pub len: u32,
    /// Type, see [`kind`].
    pub kind: u8,
    /// Flags, see [`flag`].
    pub flags: u8,
    /// Stream; 0 is the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Octets of it.
    pub const LEN: usize = 9;
    /// The largest payload that nobody has to allow first (§4.2).
    const USUAL: u32 = 16_384;

    /// Reads it; every nine octets are one.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        const WHAT: &str = "HTTP/2 frame header";
        Ok(Self {
            len: cursor.u24(WHAT)?,
            kind: cursor.u8(WHAT)?,
            flags: cursor.u8(WHAT)?,
            stream: cursor.u32(WHAT)? & 0x7fff_ffff,
        })
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The stream ends with this frame (its CONTINUATIONs and body included).
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(flag::END_STREAM)
    }

    /// Length, flags and stream fit the type, as in hardly any other protocol's octets.
    fn fits(&self) -> bool {
        let (flags, streams, len) = match self.kind {
            kind::DATA => (0x09, true, self.len <= Self::USUAL),
            kind::HEADERS => (0x2d, true, (1..=Self::USUAL).contains(&self.len)),
            kind::PRIORITY => (0, true, self.len == 5),
            kind::RST_STREAM => (0, true, self.len == 4),
            kind::SETTINGS => (0x01, false, self.len.is_multiple_of(6) && self.len <= 120),
            kind::PUSH_PROMISE => (0x0c, true, (5..=Self::USUAL).contains(&self.len)),
            kind::PING => (0x01, false, self.len == 8),
            kind::GOAWAY => (0, false, (8..=Self::USUAL).contains(&self.len)),
            kind::WINDOW_UPDATE => return self.flags == 0 && self.len == 4,
            kind::CONTINUATION => (0x04, true, (1..=Self::USUAL).contains(&self.len)),
            _ => return false,
        };
        self.flags & !flags == 0 && (self.stream != 0) == streams && len
    }
}

/// Whether octets in the middle of a stream are frames: each fits, and the last one ends with the octets or, if it is large, behind them.
pub fn looks_like_frames(bytes: &[u8]) -> Recognition {
    let mut rest = bytes;
    let mut whole = 0;
    loop {
        let header = match FrameHeader::parse(rest) {
            Ok(header) if header.fits() => header,
            Ok(_) => return Recognition::No,
            // The beginning of one more frame behind whole ones.
            Err(_) if whole > 0 => return Recognition::Yes,
            // A frame's length is below 2^16 nearly always.
            Err(_) if rest.first().is_some_and(|octet| *octet != 0) => return Recognition::No,
            Err(_) => return Recognition::NeedMore,
        };
        match rest.get(FrameHeader::LEN + header.len as usize..) {
            // An empty frame alone, nine octets with many zeros, is too little.
            Some([]) if whole > 0 || header.len > 0 || header.kind == kind::SETTINGS => return Recognition::Yes,
            Some([]) => return Recognition::NeedMore,
            Some(behind) => rest = behind,
            None if whole > 0 => return Recognition::Yes,
            None => return Recognition::NeedMore,
        }
        whole += 1;
    }
}

/// Whether a side's first octets are the SETTINGS frame with which a server begins (§3.4).
pub fn looks_like_settings(bytes: &[u8]) -> Recognition {
    const LONGEST: u8 = 120;
    let fits = |(place, octet): (usize, &u8)| match place {
        2 => *octet <= LONGEST && octet.is_multiple_of(6),
        3 => *octet == kind::SETTINGS,
        _ => *octet == 0,
    };
    let header = bytes.get(..FrameHeader::LEN).unwrap_or(bytes);
    match header.iter().enumerate().all(fits) {
        false => Recognition::No,
        true if header.len() < FrameHeader::LEN => Recognition::NeedMore,
        true => Recognition::Yes,
    }
}

/// What a SETTINGS frame announces to the other side; `None` = the default holds. §6.5.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Octets of the table that decodes the other side's header fields (4,096).
    pub header_table: Option<u32>,
    /// Streams that the other side may have open at once (no limit).
    pub concurrent: Option<u32>,
    /// Octets that the other side may send on a new stream (65,535).
    pub window: Option<u32>,
    /// Octets of the largest frame (16,384).
    pub frame: Option<u32>,
}

impl Settings {
    /// Reads the payload; unknown settings are ignored, as §6.5.2 demands.
    pub fn parse(payload: &[u8]) -> Self {
        let mut settings = Self::default();
        for entry in payload.chunks_exact(6) {
            let mut cursor = Cursor::new(entry);
            let (Ok(name), Ok(value)) = (cursor.u16("setting"), cursor.u32("setting")) else { break };
            match name {
                1 => settings.header_table = Some(value),
                3 => settings.concurrent = Some(value),
                4 => settings.window = Some(value),
                5 => settings.frame = Some(value),
                _ => {}
            }
        }
        settings
    }
}

/// What a GOAWAY frame says. §6.8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// The last stream of the other side that its sender worked on, or may have.
    pub last: u32,
    /// Error code, see [`error_name`].
    pub code: u32,
    /// Words of the sender, cut to 96 octets.
    pub debug: String,
}

impl GoAway {
    /// The last stream of an announcement that leaves the number open (§6.8): the real one follows.
    pub const OPEN: u32 = 0x7fff_ffff;

    /// Reads the payload.
    ///
    /// # Errors
    /// When it is shorter than its two numbers.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        let (last, code) = (cursor.u32("GOAWAY")? & 0x7fff_ffff, cursor.u32("GOAWAY")?);
        Ok(Self { last, code, debug: text_of(cursor.rest(), 96).into() })
    }
}

/// The part of a header block in a frame: padding, priority and a promised stream taken off. §6.2, §6.6, §6.10.
///
/// # Errors
/// When the frame is shorter than these.
pub fn block_part<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<&'a [u8], Malformed> {
    const WHAT: &str = "header block";
    let mut cursor = Cursor::new(payload);
    let padded = header.kind != kind::CONTINUATION && header.has(flag::PADDED);
    let padding = if padded { usize::from(cursor.u8(WHAT)?) } else { 0 };
    match header.kind {
        kind::HEADERS if header.has(flag::PRIORITY) => {
            cursor.take(5, WHAT)?;
        }
        kind::PUSH_PROMISE => {
            cursor.take(4, WHAT)?;
        }
        _ => {}
    }
    let rest = cursor.rest();
    rest.len().checked_sub(padding).and_then(|len| rest.get(..len)).ok_or(Malformed::short(
        WHAT,
        0,
        padding as u32,
        rest.len() as u32,
    ))
}

/// Payload of a frame that is put together; a longer one is stepped over.
const LONGEST: usize = 64 * 1024;

/// Finds the frames of one direction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FrameReader {
    state: State,
    /// A frame's header or payload that is not complete yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum State {
    /// A header comes next.
    #[default]
    Header,
    /// A payload that is put together.
    Payload(FrameHeader),
    /// So many octets are stepped over.
    Over(FrameHeader, u32),
    /// A hole swallowed a frame's beginning.
    Lost,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The header of a frame that is stepped over: DATA, and what is too long.
    Begun(FrameHeader),
    /// The end of such a frame.
    Passed(FrameHeader),
    /// A whole frame.
    Whole(FrameHeader, Vec<u8>),
    /// Nothing yet.
    Nothing,
}

impl FrameReader {
    /// Octets it holds of a frame that is not complete yet.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Takes octets from the front of `bytes`, which must not be empty: how many, and what they complete.
    pub fn next(&mut self, bytes: &[u8]) -> (usize, Found) {
        match self.state {
            State::Lost if looks_like_frames(bytes) == Recognition::Yes => {
                self.state = State::Header;
                (0, Found::Nothing)
            }
            State::Lost => (bytes.len(), Found::Nothing),
            State::Header => self.header(bytes),
            State::Payload(header) => {
                let used = self.hold(bytes, header.len as usize);
                if self.held.len() < header.len as usize {
                    return (used, Found::Nothing);
                }
                self.state = State::Header;
                (used, Found::Whole(header, std::mem::take(&mut self.held)))
            }
            State::Over(header, left) => {
                let used = (left as usize).min(bytes.len());
                let left = left - used as u32;
                self.state = if left == 0 { State::Header } else { State::Over(header, left) };
                (used, if left == 0 { Found::Passed(header) } else { Found::Nothing })
            }
        }
    }

    fn header(&mut self, bytes: &[u8]) -> (usize, Found) {
        let used = self.hold(bytes, FrameHeader::LEN);
        let Ok(header) = FrameHeader::parse(&self.held) else { return (used, Found::Nothing) };
        self.held.clear();
        if header.len == 0 {
            return (used, Found::Whole(header, Vec::new()));
        }
        let needed = header.kind != kind::DATA && header.kind <= kind::CONTINUATION;
        if needed && header.len as usize <= LONGEST {
            self.state = State::Payload(header);
            return (used, Found::Nothing);
        }
        self.state = State::Over(header, header.len);
        (used, Found::Begun(header))
    }

    /// Holds octets until there are `len`; how many were taken.
    fn hold(&mut self, bytes: &[u8], len: usize) -> usize {
        let used = len.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(bytes.get(..used).unwrap_or(bytes));
        used
    }

    /// `missing` octets never come. Whether all of them belong to a frame that is stepped over: then nothing is lost.
    pub fn gap(&mut self, missing: u64) -> bool {
        if let State::Over(_, left) = &mut self.state
            && u64::from(*left) > missing
        {
            *left -= missing as u32;
            return true;
        }
        self.held.clear();
        self.state = State::Lost;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::octets;

    /// SETTINGS, WINDOW_UPDATE and HEADERS, as curl 7.88 sends them behind the preface.
    const BEGIN: &str = "000012 04 00 00000000 000300000064 000402000000 000200000000
        000004 08 00 00000000 01ff0001  00001e 01 05 00000001 8286418aa0e41d139d09b8f01e07847a8825b650c3cbbcb87f53032a2f2a";

    fn found(bytes: &[u8], size: usize) -> Vec<(u8, usize)> {
        let mut reader = FrameReader::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, found) = reader.next(rest);
                rest = &rest[used..];
                match found {
                    Found::Whole(header, payload) => all.push((header.kind, payload.len())),
                    Found::Passed(header) => all.push((header.kind, header.len as usize)),
                    Found::Begun(_) | Found::Nothing => {}
                }
            }
        }
        all
    }

    #[test]
    fn frames_are_found_however_the_octets_are_split() {
        let mut bytes = octets(BEGIN);
        bytes.extend(octets("000003 00 01 00000001 616263  000000 04 01 00000000"));
        let expected = [(4, 18), (8, 4), (1, 30), (0, 3), (4, 0)];
        for size in 1..bytes.len() {
            assert_eq!(found(&bytes, size), expected, "{size}");
        }
    }

    #[test]
    fn data_and_frames_that_are_too_long_are_stepped_over() {
        let mut reader = FrameReader::default();
        let (used, begun) = reader.next(&octets("ffffff 01 04 00000001 82"));
        assert!(matches!((used, begun), (9, Found::Begun(header)) if header.len == 0xff_ffff));
        assert!(reader.held.is_empty());
        assert!(reader.gap(0xff_fffe), "a hole inside does no harm");
        assert_eq!(reader.next(&[0]).0, 1);
        assert!(!reader.gap(1), "a hole at a header does");
    }

    #[test]
    fn behind_a_hole_frames_are_found_where_a_segment_begins_with_them() {
        let mut reader = FrameReader::default();
        reader.gap(100);
        assert_eq!(reader.next(b"the rest of something"), (21, Found::Nothing));
        let ping = octets("000008 06 00 00000000 0102030405060708");
        assert_eq!(reader.next(&ping), (0, Found::Nothing));
        assert_eq!(reader.next(&ping).0, 9);
    }

    #[test]
    fn frames_in_the_middle_are_told_from_other_octets() {
        assert_eq!(looks_like_frames(&octets(BEGIN)), Recognition::Yes);
        assert_eq!(looks_like_frames(&octets("000004 08 00 00000001 00001000")), Recognition::Yes);
        // A frame whose end is not there; a MySQL packet, Kafka, a database's row, HTTP/1, TLS.
        assert_eq!(looks_like_frames(&octets("000400 00 00 00000001 6162")), Recognition::NeedMore);
        for other in
            ["0e000000 03 73656c656374", "00000017 00120003 00000001", "44000000 0b 0001", "474554202f", "1603010200"]
        {
            assert_eq!(looks_like_frames(&octets(other)), Recognition::No, "{other}");
        }
        assert_eq!(looks_like_frames(&octets("000000 00 00 00000000")), Recognition::No);
    }

    #[test]
    fn settings_and_goaway_are_read() {
        let settings = Settings::parse(&octets("000300000064 000402000000 000200000000 00ff00000001 0001"));
        assert_eq!((settings.concurrent, settings.window, settings.header_table), (Some(100), Some(33_554_432), None));
        let away = GoAway::parse(&octets("00000003 0000000b 746f6f5f6d616e795f70696e6773")).expect("whole");
        assert_eq!((away.last, error_name(away.code), away.debug.as_str()), (3, "ENHANCE_YOUR_CALM", "too_many_pings"));
        assert!(GoAway::parse(&octets("00000003 0000")).is_err());
        assert_eq!(error_name(99), "an unknown error code");
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let header = |kind, flags| FrameHeader { kind, flags, stream: 1, len: 0 };
        assert_eq!(block_part(&header(1, 0x28), &octets("02 80000000 ff 8286 0000")), Ok(&octets("8286")[..]));
        assert_eq!(block_part(&header(5, 0x04), &octets("00000002 82")), Ok(&octets("82")[..]));
        assert_eq!(block_part(&header(9, 0x0c), &octets("02 82")), Ok(&octets("0282")[..]));
        assert!(block_part(&header(1, 0x08), &octets("05 82")).is_err());
        assert!(block_part(&header(1, 0x20), &octets("80")).is_err());
    }
}
