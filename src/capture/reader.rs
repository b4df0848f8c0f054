//! One input: opened, its format sniffed, its records read one by one.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::buffer::Buffer;
use super::compressed::Packing;
use super::hash::{Digest, Hashed};
use super::pcap::Pcap;
use super::pcapng::PcapNg;
use super::{CaptureInfo, Frame, OpenOptions, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// One open input.
pub(super) struct Reader {
    buffer: Buffer,
    format: Format,
    digest: Option<Digest>,
    current: Record,
    /// How many records there were up to that.
    number: u64,
}

/// Counts what it passes on.
struct Metered {
    inner: Box<dyn Read + Send>,
    meter: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.meter.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
    /// Nothing to read: an empty file, or one that ends inside its header.
    Nothing,
}

impl Reader {
    /// Opens a path, or standard input for `-`; tells `info` what it is.
    pub(super) fn open(path: &str, options: &OpenOptions, info: &mut CaptureInfo) -> Result<Self> {
        if path == "-" {
            return Self::new(Box::new(io::stdin()), options, info);
        }
        let failed = |error| Error::io(format!("cannot open {path}"), error);
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(Error::new(
                ErrorKind::NotACapture,
                format!("{path} is a folder: name the capture files in it"),
            ));
        }
        Self::new(Box::new(file), options, info)
    }

    /// Reads any stream; `info.file` is its name for messages.
    pub(super) fn new(source: Box<dyn Read + Send>, options: &OpenOptions, info: &mut CaptureInfo) -> Result<Self> {
        let name = if info.file == "-" { "standard input" } else { &info.file };
        let failed = |error| Error::io(format!("cannot read {name}"), error);
        let source = match &options.meter {
            Some(meter) => Box::new(Metered { inner: source, meter: meter.clone() }),
            None => source,
        };
        let (mut source, digest) = match options.hash {
            true => {
                let (hashed, digest) = Hashed::new(source);
                (Box::new(hashed) as Box<dyn Read + Send>, Some(digest))
            }
            false => (source, None),
        };
        let mut magic = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        let packing = Packing::recognise(&magic);
        let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic).chain(source));
        let mut buffer = Buffer::new(match packing {
            Some(packing) => packing.unpack(source, options).map_err(failed)?,
            None => source,
        });
        let format = format(&mut buffer, info)?;
        if let Some(packing) = packing {
            info.format = format!("{}, {}", info.format, packing.name());
        }
        Ok(Self { buffer, format, digest, current: Record::default(), number: 0 })
    }

    /// Goes to the next record; `false` at the end.
    #[inline(always)]
    pub(super) fn advance(&mut self, info: &mut CaptureInfo) -> bool {
        self.buffer.consume(self.current.len as usize);
        let record = &mut self.current;
        let more = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.buffer, info, record),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.buffer, info, record),
            Format::Nothing => false,
        };
        if !more {
            self.end(info);
            return false;
        }
        info.packets += 1;
        self.number = info.packets;
        info.octets += u64::from(record.wire_len);
        // As long as times do not run backwards, the first remains the first.
        match &mut info.last {
            Some(last) if record.time >= *last => *last = record.time,
            _ => among(record.time, info),
        }
        if let Some(interface) = info.interfaces.get_mut(usize::from(record.interface)) {
            interface.packets += 1;
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn end(&mut self, info: &mut CaptureInfo) {
        self.current.len = 0;
        (info.sha256, info.stored) = self.digest.as_ref().and_then(|digest| digest.get().cloned()).unzip();
    }

    /// Time of the current record.
    #[inline]
    pub(super) fn time(&self) -> Option<Timestamp> {
        (self.current.len > 0).then_some(self.current.time)
    }

    /// The current record as a frame of input `file`, recorded at `point`.
    #[inline]
    pub(super) fn frame(&self, file: u16, point: u16) -> Option<Frame<'_>> {
        let record = &self.current;
        if record.len == 0 {
            return None;
        }
        Some(Frame {
            file,
            point,
            number: self.number,
            time: record.time,
            interface: record.interface,
            link: record.link,
            wire_len: record.wire_len,
            bytes: self.buffer.part(record.head as usize, record.kept as usize)?,
            // The record stays at the front of the buffer until the next one is asked for.
            offset: self.buffer.offset(),
            flags: record.flags,
        })
    }
}

/// The time of a record that is the first one, or earlier than one before it.
#[cold]
#[inline(never)]
fn among(time: Timestamp, info: &mut CaptureInfo) {
    info.first = Some(info.first.map_or(time, |first| first.min(time)));
    info.last = Some(info.last.map_or(time, |last| last.max(time)));
}

/// Sniffs the magic of an unpacked stream.
fn format(buffer: &mut Buffer, info: &mut CaptureInfo) -> Result<Format> {
    if buffer.fill(4) == 0 {
        if let Some(error) = buffer.take_failure() {
            return Err(Error::io(format!("cannot read {}", info.file), error));
        }
        info.format = "empty file".into();
        info.cut(buffer, "the file is empty");
        return Ok(Format::Nothing);
    }
    match buffer.ready().first_chunk() {
        Some(magic) if Pcap::recognises(*magic) => Ok(Pcap::open(buffer, info).map_or(Format::Nothing, Format::Pcap)),
        Some(magic) if PcapNg::recognises(*magic) => Ok(Format::PcapNg(PcapNg::open(info))),
        _ => Err(not_a_capture(&info.file, buffer)),
    }
}

/// Says what the file is instead.
fn not_a_capture(name: &str, buffer: &mut Buffer) -> Error {
    let name = if name == "-" { "standard input" } else { name };
    buffer.fill(8);
    let begins = &buffer.ready()[..buffer.ready().len().min(8)];
    let known = [
        (&b"snoop\0\0\0"[..], "a Sun snoop capture"),
        (b"GMBU", "a Microsoft Network Monitor capture"),
        (b"RTSS", "a Microsoft Network Monitor capture"),
        (b"TRSNIFF", "a Sniffer capture"),
        (&[0x02, 0x21, 0x4c, 0x18], "packed with lz4 in its old format"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "packed with xz"),
        (b"BZh", "packed with bzip2"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1f\x8b", "packed twice"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "packed twice"),
        (&[0x04, 0x22, 0x4d, 0x18], "packed twice"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| begins.starts_with(magic)) {
        let message = format!("{name} is {what}: unpack it, or convert it with editcap -F pcapng");
        return Error::new(ErrorKind::Unsupported, message);
    }
    let shown: String = begins.iter().flat_map(|octet| std::ascii::escape_default(*octet)).map(char::from).collect();
    let message =
        format!("not a capture file: {name} begins with \"{shown}\" (pcap and pcapng begin with a magic number)");
    Error::new(ErrorKind::NotACapture, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, bytes: &'static [u8]) -> Error {
        let mut info = CaptureInfo { file: name.into(), ..CaptureInfo::default() };
        Reader::new(Box::new(bytes), &OpenOptions::default(), &mut info).err().expect("no capture")
    }

    #[test]
    fn a_log_file_is_refused_with_its_first_octets() {
        let error = refusal("incident.log", b"2026-11-21 04:12 upstream timed out");
        let expected = "not a capture file: incident.log begins with \"2026-11-\" \
                        (pcap and pcapng begin with a magic number)";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotACapture, expected));
        assert!(refusal("-", b"ab").to_string().contains("standard input begins with \"ab\""));
    }

    #[test]
    fn other_captures_and_packings_are_named() {
        let error = refusal("a.pcap.xz", b"\xfd7zXZ\0\0\0");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("a.pcap.xz is packed with xz: unpack it"));
    }

    #[test]
    fn folders_and_missing_files_are_told_apart() {
        let open = |path: &str| Reader::open(path, &OpenOptions::default(), &mut CaptureInfo::default()).err();
        let folder = std::env::temp_dir();
        let error = open(&folder.to_string_lossy()).expect("a folder");
        assert!(error.to_string().contains("is a folder"));
        let error = open("/nowhere/a.pcap").expect("no such file");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, "cannot open /nowhere/a.pcap"));
    }

    #[test]
    fn an_empty_input_is_damaged_and_holds_nothing() {
        let mut info = CaptureInfo::default();
        let mut reader = Reader::new(Box::new(io::empty()), &OpenOptions::default(), &mut info).expect("no error");
        assert!(!reader.advance(&mut info));
        assert_eq!((info.packets, info.damage[0].what.as_str()), (0, "the file is empty"));
    }
}
