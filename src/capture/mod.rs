//! Where frames come from: files, pipes, several of them merged in time order.

mod blocks;
mod buffer;
mod compressed;
mod damage;
#[cfg(feature = "live")]
pub mod feed;
pub mod filter;
#[cfg(feature = "live")]
pub mod follow;
mod hash;
mod link_type;
#[cfg(feature = "live")]
pub mod live;
mod lz4;
mod merge;
mod pcap;
mod pcapng;
mod reader;
#[cfg(feature = "live")]
mod steady;
pub mod window;
pub mod write;

pub use compressed::Caps;
pub use merge::{Source, labelled};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::wire::Address;

/// One recorded frame. Borrows the reader's buffer and dies with the next frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which input it came from: index into [`Source::infos`].
    pub file: u16,
    /// Where it was recorded: rotated pieces of one capture have one point, captures made side by side have different ones.
    pub point: u16,
    /// 1-based number in that input: the one Wireshark shows. Counts every packet record, also those passed over by a filter.
    pub number: u64,
    /// When the capturing host saw it.
    pub time: Timestamp,
    /// Index into [`CaptureInfo::interfaces`] of its input.
    pub interface: u16,
    /// How the first octets are to be read.
    pub link: LinkType,
    /// Octets on the wire.
    pub wire_len: u32,
    /// The octets that were kept: `wire_len` of them, or fewer when the snaplen cut the frame.
    pub bytes: &'a [u8],
    /// Octet offset of the record in the (uncompressed) input.
    pub offset: u64,
    /// pcapng's `epb_flags` (§4.3.1); 0 when the record has none. The lowest two bits tell the direction: 1 inbound, 2 outbound.
    pub flags: u32,
}

/// How inputs are opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Put the input's SHA-256 into its [`CaptureInfo`].
    pub hash: bool,
    /// Limits of decompression.
    pub caps: Caps,
    /// Counts the octets read of all inputs, as they are stored.
    pub meter: Option<Arc<AtomicU64>>,
}

/// One record at the front of the buffer. Small, because one is made for every packet.
#[derive(Default)]
struct Record {
    time: Timestamp,
    interface: u16,
    link: LinkType,
    wire_len: u32,
    /// Octets before the frame's.
    head: u32,
    /// Octets of the frame.
    kept: u32,
    /// Octets of the whole record; 0 when there is none.
    len: u32,
    flags: u32,
}

/// A link-layer header type from the tcpdump registry (LINKTYPE_ value as it stands in files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkType(pub u16);

/// What is known of one input apart from its frames.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptureInfo {
    /// As given on the command line; `-` for standard input.
    pub file: String,
    /// `name` of `name=path`.
    pub label: Option<String>,
    /// `pcap`, `pcap, nanoseconds`, `pcap, modified`, `pcapng`, `empty file`; then `, gzip`, `, zstd` or `, lz4` when packed.
    pub format: String,
    /// Interfaces of all sections in the order they were described.
    pub interfaces: Vec<Interface>,
    /// Packet records read.
    pub packets: u64,
    /// Their octets on the wire.
    pub octets: u64,
    /// Earliest packet time.
    pub first: Option<Timestamp>,
    /// Latest packet time.
    pub last: Option<Timestamp>,
    /// What was broken in the file, in file order, the first 64 places. Empty for a sound file.
    pub damage: Vec<Damage>,
    /// Broken places beyond those.
    pub damage_left_out: u64,
    /// Blocks whose type no reader knows, with their count.
    pub unknown_blocks: Vec<(u32, u64)>,
    /// Comments of sections and packets, the first 64, of 256 octets at most; harmless text is the printer's business.
    pub comments: Vec<String>,
    /// Names of addresses that the file resolves, the first 1024.
    pub names: Vec<(Address, String)>,
    /// Blocks with decryption secrets: counted, never kept.
    pub secrets: u64,
    /// Drops reported by interface statistics; `None` when the file has none.
    pub drops: Option<u64>,
    /// SHA-256 of the input as stored, when asked for.
    pub sha256: Option<String>,
    /// Octets of the input as stored, when the hash was asked for.
    pub stored: Option<u64>,
}

/// One capture interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// `if_name`, empty for pcap.
    pub name: String,
    /// `if_description`.
    pub description: String,
    /// Its link type.
    pub link: LinkType,
    /// Longest frame kept; 0 = no limit.
    pub snaplen: u32,
    /// The capture filter it was made with, when the file says so (`if_filter`).
    pub filter: Option<String>,
    /// Packets seen on it.
    pub packets: u64,
    /// `isb_ifdrop` + `isb_osdrop`, the latest statistics.
    pub drops: Option<u64>,
    /// Until when it was watched (`isb_endtime`), and how many packets it had seen by then. Beyond the last packet nothing was sent.
    pub until: Option<(Timestamp, u64)>,
}

impl CaptureInfo {
    /// Format of packets that are written to no file.
    pub const LIVE: &str = "live";

    /// Until when all its interfaces were watched: a silence behind the last packet is then known to be one. `None` unless statistics tell,
    /// and were made for these very packets: tools that cut a file copy the statistics of the whole.
    pub fn until(&self) -> Option<Timestamp> {
        let told = self.interfaces.iter().filter(|interface| interface.packets > 0).map(|interface| {
            let (until, packets) = interface.until?;
            (packets == interface.packets).then_some(until)
        });
        told.collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}

impl Default for LinkType {
    fn default() -> Self {
        Self::ETHERNET
    }
}

/// One broken place of a file. Everything before it was read; whether reading went on is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Damage {
    /// Number of the last packet before it; 0 when there is none.
    pub after_packet: u64,
    /// Octet offset in the (uncompressed) input.
    pub offset: u64,
    /// What is wrong there, in plain words.
    pub what: String,
    /// Octets passed over before reading went on; `None` when the rest could not be read.
    pub resumed_after: Option<u64>,
    /// Only the last record is incomplete: a file still being written, or tcpdump killed.
    pub cut_at_end: bool,
}
