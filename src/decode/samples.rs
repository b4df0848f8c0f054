//! Frames for tests: the files of `captures/links`, the public corpora when they are near, and a reader just good enough for them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::capture::{Frame, LinkType};
use crate::time::Timestamp;

/// One record of a pcap file.
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) link: LinkType,
    pub(super) wire_len: u32,
    pub(super) bytes: Vec<u8>,
}

impl Record {
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame { number: self.number, ..frame(self.link.0, &self.bytes, self.wire_len) }
    }
}

/// A frame made of nothing but its octets.
pub(super) fn frame(link: u16, bytes: &[u8], wire_len: u32) -> Frame<'_> {
    Frame {
        file: 0,
        point: 0,
        number: 1,
        time: Timestamp(0),
        interface: 0,
        link: LinkType(link),
        wire_len,
        bytes,
        offset: 0,
        flags: 0,
    }
}

/// The records of a sound classic pcap; of any other file those before the damage.
pub(super) fn pcap(data: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let big_endian = match data.first_chunk::<4>() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => false,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => true,
        _ => return records,
    };
    let word = |at: usize| {
        let octets = *data.get(at..)?.first_chunk::<4>()?;
        Some(if big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) })
    };
    let link = LinkType(word(20).unwrap_or(0) as u16);
    let mut at = 24;
    while let (Some(kept), Some(wire_len)) = (word(at + 8), word(at + 12)) {
        let Some(bytes) = data.get(at + 16..at + 16 + kept as usize) else { break };
        records.push(Record { number: records.len() as u64 + 1, link, wire_len, bytes: bytes.to_vec() });
        at += 16 + kept as usize;
    }
    records
}

/// The pcap files of `captures/links` with their stems, sorted.
pub(super) fn links() -> Vec<(String, Vec<Record>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/links");
    let mut files: Vec<PathBuf> = walk(&folder);
    files.sort();
    let is_pcap = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "pcap");
    files
        .iter()
        .filter(is_pcap)
        .map(|path| (stem(path), pcap(&fs::read(path).expect("a file of captures/links"))))
        .collect()
}

/// Every file of the public corpora, when a folder above this one holds them.
pub(super) fn corpora() -> Vec<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    match home.ancestors().map(|folder| folder.join("shared/corpora")).find(|folder| folder.is_dir()) {
        Some(folder) => walk(&folder),
        None => {
            // Once, and past the harness, which hides what passing tests print.
            static TOLD: std::sync::Once = std::sync::Once::new();
            TOLD.call_once(|| {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "skipped: no shared/corpora above {}", home.display());
            });
            Vec::new()
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
