//! One input: opened, its format sniffed, its records read one by one.

use std::fs::File;
use std::io::{self, Read};

use super::buffer::Buffer;
use super::compressed::Packing;
use super::pcap::{Pcap, cut};
use super::pcapng::PcapNg;
use super::{CaptureInfo, Frame, OpenOptions, Record};
use crate::error::{Error, ErrorKind, Result};

/// One open input.
pub(super) struct Reader {
    buffer: Buffer,
    format: Format,
    pub(super) info: CaptureInfo,
    current: Option<Record>,
}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
    /// Nothing to read: an empty file, or one that ends inside its header.
    Nothing,
}

impl Reader {
    /// Opens a path, or standard input for `-`.
    pub(super) fn open(path: &str, label: Option<&str>, options: &OpenOptions) -> Result<Self> {
        let source: Box<dyn Read + Send> = match path {
            "-" => Box::new(io::stdin()),
            _ => {
                let file = File::open(path).map_err(|error| Error::io(format!("cannot open {path}"), error))?;
                if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(Error::new(ErrorKind::NotACapture, format!("{path} is a folder, not a capture file")));
                }
                Box::new(file)
            }
        };
        let mut reader = Self::new(path, source, options)?;
        reader.info.label = label.map(str::to_owned);
        Ok(reader)
    }

    /// Reads any stream; `name` is for messages.
    pub(super) fn new(name: &str, mut source: Box<dyn Read + Send>, options: &OpenOptions) -> Result<Self> {
        let mut magic = Vec::with_capacity(8);
        let failed = |error| Error::io(format!("cannot read {name}"), error);
        source.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        let packing = Packing::recognise(&magic);
        let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic).chain(source));
        let mut buffer = Buffer::new(match packing {
            Some(packing) => packing.unpack(source, options.caps),
            None => source,
        });
        let mut info = CaptureInfo { file: name.into(), ..CaptureInfo::default() };
        let format = format(name, &mut buffer, &mut info)?;
        if let Some(packing) = packing {
            info.format = format!("{}, {}", info.format, packing.name());
        }
        Ok(Self { buffer, format, info, current: None })
    }

    /// Goes to the next record; `false` at the end.
    pub(super) fn advance(&mut self) -> bool {
        if let Some(record) = self.current.take() {
            self.buffer.consume(record.len);
        }
        let next = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.buffer, &mut self.info),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.buffer, &mut self.info),
            Format::Nothing => None,
        };
        let Some(record) = next else { return false };
        let info = &mut self.info;
        info.packets += 1;
        info.octets += u64::from(record.wire_len);
        info.first = Some(info.first.map_or(record.time, |first| first.min(record.time)));
        info.last = info.last.max(Some(record.time));
        if let Some(interface) = info.interfaces.get_mut(usize::from(record.interface)) {
            interface.packets += 1;
        }
        self.current = Some(record);
        true
    }

    /// Time of the current record.
    pub(super) fn time(&self) -> Option<crate::time::Timestamp> {
        self.current.as_ref().map(|record| record.time)
    }

    /// The current record as a frame of input `file`.
    pub(super) fn frame(&self, file: u16) -> Option<Frame<'_>> {
        let record = self.current.as_ref()?;
        Some(Frame {
            file,
            number: self.info.packets,
            time: record.time,
            interface: record.interface,
            link: record.link,
            wire_len: record.wire_len,
            bytes: self.buffer.ready().get(record.head..record.head + record.kept)?,
            offset: record.offset,
            flags: record.flags,
        })
    }
}

/// Sniffs the magic of an unpacked stream.
fn format(name: &str, buffer: &mut Buffer, info: &mut CaptureInfo) -> Result<Format> {
    let there = buffer.fill(4);
    if there == 0 {
        if let Some(error) = buffer.take_failure() {
            return Err(Error::io(format!("cannot read {name}"), error));
        }
        info.format = "empty file".into();
        info.damage.push(cut(0, 0, "the file is empty"));
        return Ok(Format::Nothing);
    }
    let magic: Option<[u8; 4]> = buffer.ready().get(..4).and_then(|bytes| bytes.try_into().ok());
    match magic {
        Some(magic) if Pcap::recognises(magic) => Ok(Pcap::open(buffer, info).map_or_else(
            || {
                info.format = "pcap".into();
                Format::Nothing
            },
            Format::Pcap,
        )),
        Some(magic) if PcapNg::recognises(magic) => Ok(Format::PcapNg(PcapNg::open(info))),
        _ => Err(not_a_capture(name, buffer)),
    }
}

/// Says what the file is instead.
fn not_a_capture(name: &str, buffer: &mut Buffer) -> Error {
    buffer.fill(8);
    let begins = &buffer.ready()[..buffer.ready().len().min(8)];
    let known = [
        (&b"snoop\0\0\0"[..], "a Sun snoop capture"),
        (b"GMBU", "a Microsoft Network Monitor capture"),
        (b"RTSS", "a Microsoft Network Monitor capture"),
        (b"TRSNIFF", "a Sniffer capture"),
        (&[0x04, 0x22, 0x4d, 0x18], "packed with lz4"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "packed with xz"),
        (b"BZh", "packed with bzip2"),
        (b"PK\x03\x04", "a zip archive"),
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
