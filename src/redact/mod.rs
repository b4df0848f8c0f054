//! Redaction: a copy of a capture that names nobody and is diagnosed alike.
//!
//! Captures are redacted first and diagnosed then, so that every output made of the copy agrees with it and with every other: one mapping
//! (`mapping.rs`) says what stands for an address, a name, a word, everywhere. Two passes: the first reads the streams (`track.rs`,
//! `stream.rs` and a reader for each protocol) and plans what their octets become, by their place in the stream, so that every copy of an
//! octet becomes the same; the second writes the frames (`layout.rs`, `frame.rs`). What is not understood is filled. In the end the copy is
//! diagnosed, and must give the findings of the original (`proof.rs`).
//!
//! ```no_run
//! use tcpwhy::redact::{Key, Level, Mapping, rewrite};
//!
//! let mut mapping = Mapping::new(&Key::random()?, Level::All);
//! let copy = std::fs::File::create("copy.pcapng").map_err(|error| tcpwhy::Error::io("copy.pcapng", error))?;
//! rewrite("incident.pcap", std::io::BufWriter::new(copy), &mut mapping)?;
//! # Ok::<(), tcpwhy::Error>(())
//! ```

mod address;
mod der;
mod dns;
mod fields;
mod fragments;
mod frame;
mod h2;
mod http;
mod layout;
mod mapping;
mod proof;
mod proxy;
mod secret;
mod services;
mod stream;
mod text;
mod tls;
mod track;
mod words;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::capture::write::{Writer, Written};
use crate::capture::{CaptureInfo, Interface, OpenOptions, Source};
use crate::error::{Error, Result};
use crate::wire::hpack::huffman;
pub use mapping::{Mapping, What};
use proof::same_findings;
pub use proof::{differences, same};
pub use secret::Key;

/// What is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Names, URLs, cookies, credentials, ids, bodies, banners, comments, names of interfaces.
    Ids,
    /// These, and IP addresses.
    IdsIps,
    /// These, and link addresses.
    #[default]
    All,
}

impl Level {
    fn addresses(self) -> bool {
        self >= Self::IdsIps
    }

    fn macs(self) -> bool {
        self >= Self::All
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ids" => Ok(Self::Ids),
            "ids+ips" => Ok(Self::IdsIps),
            "all" => Ok(Self::All),
            _ => Err("write ids, ids+ips or all".into()),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many different things of each kind were replaced or left out.
    pub counts: BTreeMap<What, u64>,
    /// Packets written.
    pub packets: u64,
    /// Findings of both diagnoses.
    pub findings: usize,
}

/// Redacts files, each into one of its own, with one mapping, and proves that the copies are diagnosed alike. Nothing is left of them when
/// they are not.
///
/// # Errors
/// When a file cannot be read or written, or when the copies are diagnosed otherwise.
pub fn redact(files: &[(String, PathBuf)], mapping: &mut Mapping) -> Result<Outcome> {
    let parts: Vec<PathBuf> = files.iter().map(|(_, out)| beside(out)).collect();
    let done = redact_to(files, &parts, mapping);
    if done.is_err() {
        for part in &parts {
            let _ = std::fs::remove_file(part);
        }
    }
    done
}

fn redact_to(files: &[(String, PathBuf)], parts: &[PathBuf], mapping: &mut Mapping) -> Result<Outcome> {
    let mut packets = 0;
    for ((input, out), part) in files.iter().zip(parts) {
        let writing = |error| Error::io(format!("cannot write {}", out.display()), error);
        let mut file = BufWriter::with_capacity(1 << 18, std::fs::File::create(part).map_err(writing)?);
        packets += rewrite(input, &mut file, mapping)?;
        file.flush().map_err(writing)?;
    }
    let inputs: Vec<String> = files.iter().map(|(input, _)| input.clone()).collect();
    let outputs: Vec<String> = files.iter().zip(parts).map(|((input, _), part)| labelled_as(input, part)).collect();
    let findings = same_findings(&inputs, &outputs)?;
    for ((_, out), part) in files.iter().zip(parts) {
        std::fs::rename(part, out).map_err(|error| Error::io(format!("cannot write {}", out.display()), error))?;
    }
    Ok(Outcome { counts: mapping.counts(), packets, findings })
}

/// Where a file is written before it is proved.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    out.with_file_name(name)
}

/// The copy is where the original is said to be.
fn labelled_as(input: &str, part: &Path) -> String {
    match crate::capture::labelled(input) {
        (Some(label), _) => format!("{label}={}", part.display()),
        (None, _) => part.display().to_string(),
    }
}

/// Writes a redacted copy of one file, as pcapng; how many packets. The file is read twice. Every packet keeps its number.
///
/// # Errors
/// When the file cannot be read, is standard input, or the copy cannot be written.
pub fn rewrite(input: &str, out: impl Write, mapping: &mut Mapping) -> Result<u64> {
    let path = Path::new(crate::capture::labelled(input).1);
    if path == Path::new("-") || path.metadata().is_ok_and(|file| !file.is_file()) {
        return Err(Error::usage("redaction reads its input twice: write it to a file first"));
    }
    let open = || Source::open(&[input], &OpenOptions::default());
    let mut source = open()?;
    let (mut planner, mut fragments) = (track::Planner::default(), fragments::Fragments::default());
    while let Some(frame) = source.next()? {
        frame::plan(&frame, mapping, &mut planner, &mut fragments);
    }
    let info = source.finish().pop().unwrap_or_default();
    let rewriter = frame::Rewriter::new(planner.finish(mapping), fragments);
    note_left_out(&info, mapping);
    write(&info, open()?, out, rewriter, mapping).map_err(|error| match error {
        Failed::Reading(error) => error,
        Failed::Writing(error) => Error::io("cannot write the redacted capture", error),
    })
}

/// Which side of a copy failed.
enum Failed {
    Reading(Error),
    Writing(std::io::Error),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Writing(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Reading(error)
    }
}

fn write(
    info: &CaptureInfo,
    mut source: Source,
    out: impl Write,
    mut rewriter: frame::Rewriter,
    mapping: &mut Mapping,
) -> Result<u64, Failed> {
    let mut writer = Writer::new(out, Some("redacted"))?;
    for interface in &info.interfaces {
        writer.interface(&interface_of(interface, mapping))?;
    }
    // What is broken in the original is broken at the same packet of the copy: it is a finding.
    let mut damage = info.damage.iter().filter(|damage| !damage.cut_at_end).peekable();
    while let Some(frame) = source.next()? {
        while damage.next_if(|damage| damage.after_packet < frame.number).is_some() {
            writer.broken()?;
        }
        let bytes = rewriter.frame(&frame, mapping);
        let written = Written {
            interface: frame.interface.into(),
            time: frame.time,
            wire_len: frame.wire_len,
            bytes,
            flags: frame.flags,
        };
        writer.packet(&written, &[])?;
    }
    for _ in damage {
        writer.broken()?;
    }
    for (n, interface) in info.interfaces.iter().enumerate() {
        if interface.drops.is_some() || interface.until.is_some() {
            writer.ended(n as u32, interface)?;
        }
    }
    if info.damage.iter().any(|damage| damage.cut_at_end) {
        writer.cut()?;
    }
    writer.flush()?;
    Ok(writer.packets())
}

/// An interface whose name is replaced, and of whose filter only the language and numbers stay.
fn interface_of(interface: &Interface, mapping: &mut Mapping) -> Interface {
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    let name = text(mapping.text(interface.name.as_bytes()));
    if !interface.name.is_empty() {
        mapping.note(What::Interface, || interface.name.clone(), || name.clone());
    }
    let filter = interface.filter.as_ref().map(|filter| {
        let word = |word: &str| match word.bytes().all(|octet| octet.is_ascii_digit()) {
            true => word.to_owned(),
            false => text(mapping.message(word.as_bytes())),
        };
        filter.split(' ').map(word).collect::<Vec<_>>().join(" ")
    });
    Interface { name, description: String::new(), filter, ..interface.clone() }
}

fn note_left_out(info: &CaptureInfo, mapping: &mut Mapping) {
    mapping.count(What::Comment, info.comments.len() as u64);
    mapping.count(What::Resolution, info.names.len() as u64);
    mapping.count(What::Secrets, info.secrets);
}
