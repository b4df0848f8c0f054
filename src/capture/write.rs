//! pcapng, written: what was recorded live, and packets that prove something with their comments.
//!
//! draft-ietf-opsawg-pcapng. One section, little-endian, times in nanoseconds. Every block goes out whole, so that a file whose writer was
//! killed is readable up to its last block.

use std::io::{self, Write};
use std::net::IpAddr;

use super::Interface;
use super::pcapng::{ENHANCED_PACKET, INTERFACE, NAMES, SECTION, STATISTICS};
use crate::time::Timestamp;
use crate::wire::Address;

/// One packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Which of the interfaces that were described, from 0.
    pub interface: u32,
    /// When it was seen.
    pub time: Timestamp,
    /// Octets it had on the wire.
    pub wire_len: u32,
    /// Octets kept of it.
    pub bytes: &'a [u8],
    /// `epb_flags` (§4.3.1); 0 leaves them out.
    pub flags: u32,
}

/// What an interface counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets the kernel had for us (`isb_ifrecv`).
    pub received: u64,
    /// Dropped by the interface or its driver (`isb_ifdrop`).
    pub dropped: u64,
    /// Dropped by the kernel for want of room, or by our own queue (`isb_osdrop`).
    pub missed: u64,
    /// Written to this file (`isb_usrdeliv`).
    pub delivered: u64,
}

/// A pcapng file that is being written.
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
    octets: u64,
    packets: u64,
}

/// Octets of an option: its length has 16 bits.
const OPTION: usize = 65_532;
/// Octets of a name.
const TEXT: usize = 255;

impl<W: Write> Writer<W> {
    /// Begins a section; `comment` says what the file is.
    ///
    /// # Errors
    /// When it cannot be written, as with all that follows.
    pub fn new(out: W, comment: Option<&str>) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::with_capacity(512), octets: 0, packets: 0 };
        writer.words(&[0x1a2b_3c4d, 1]);
        // The section's length is not known.
        writer.block.extend([0xff; 8]);
        comment.into_iter().for_each(|comment| writer.option(1, comment.as_bytes()));
        writer.option(4, concat!("tcpwhy ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.end(SECTION)?;
        Ok(writer)
    }

    /// Describes the next interface.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn interface(&mut self, interface: &Interface) -> io::Result<()> {
        self.words(&[u32::from(interface.link.0), interface.snaplen]);
        for (code, text) in [(2, &interface.name), (3, &interface.description)] {
            if !text.is_empty() {
                self.option(code, text.as_bytes());
            }
        }
        self.option(9, &[9]);
        if let Some(filter) = &interface.filter {
            // The first octet tells text from compiled code.
            self.option(11, &[&[0], filter.as_bytes()].concat());
        }
        self.end(INTERFACE)
    }

    /// Adds a packet, with what it shows.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn packet(&mut self, packet: &Written<'_>, comments: &[String]) -> io::Result<()> {
        let nanos = packet.time.0 as u64;
        self.words(&[packet.interface, (nanos >> 32) as u32, nanos as u32]);
        self.words(&[packet.bytes.len() as u32, packet.wire_len]);
        self.block.extend_from_slice(packet.bytes);
        self.pad();
        if packet.flags != 0 {
            self.option(2, &packet.flags.to_le_bytes());
        }
        comments.iter().for_each(|comment| self.option(1, comment.as_bytes()));
        self.packets += 1;
        self.end(ENHANCED_PACKET)
    }

    /// Says what an interface counted, until when it was watched.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn statistics(&mut self, interface: u32, until: Timestamp, counted: &Counted) -> io::Result<()> {
        let Counted { received, dropped, missed, delivered } = *counted;
        self.counters(interface, Some(until), &[(4, received), (5, dropped), (7, missed), (8, delivered)])
    }

    /// Statistics of an interface, §4.6; `counters` by the codes of their options.
    fn counters(&mut self, interface: u32, until: Option<Timestamp>, counters: &[(u16, u64)]) -> io::Result<()> {
        let nanos = until.map_or(0, |until| until.0 as u64);
        let time = [(nanos >> 32) as u32, nanos as u32];
        self.words(&[interface, time[0], time[1]]);
        if until.is_some() {
            self.option(3, &[time[0].to_le_bytes(), time[1].to_le_bytes()].concat());
        }
        for (code, n) in counters {
            self.option(*code, &n.to_le_bytes());
        }
        self.end(STATISTICS)
    }

    /// Names of addresses, §4.5: whoever opens the file reads them beside the addresses.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn names<'a>(&mut self, names: impl IntoIterator<Item = &'a (Address, String)>) -> io::Result<()> {
        for (address, name) in names {
            let (kind, octets) = match address.to_ip() {
                IpAddr::V4(address) => (1_u16, address.octets().to_vec()),
                IpAddr::V6(address) => (2, address.octets().to_vec()),
            };
            // A zero ends a name.
            let name: Vec<u8> = name.bytes().filter(|octet| *octet != 0).take(TEXT).collect();
            let value = [octets, name, vec![0]].concat();
            self.block.extend(kind.to_le_bytes());
            self.block.extend((value.len() as u16).to_le_bytes());
            self.block.extend_from_slice(&value);
            self.pad();
        }
        if self.block.is_empty() {
            return Ok(());
        }
        self.words(&[0]);
        self.end(NAMES)
    }

    /// Says what an interface of another file is known to have counted, which may be little.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn ended(&mut self, id: u32, interface: &Interface) -> io::Result<()> {
        let (until, packets) = interface.until.unzip();
        let counters = [interface.drops.map(|drops| (5, drops)), packets.map(|packets| (8, packets))];
        self.counters(id, until, &counters.into_iter().flatten().collect::<Vec<_>>())
    }

    /// A block that stands for something broken: a packet of an interface that nothing describes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn broken(&mut self) -> io::Result<()> {
        self.words(&[u32::MAX, 0, 0, 0, 0]);
        self.end(ENHANCED_PACKET)
    }

    /// The beginning of a block whose rest is missing: nothing can follow it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn cut(&mut self) -> io::Result<()> {
        let begun: Vec<u8> = [ENHANCED_PACKET, 64, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        self.octets += begun.len() as u64;
        self.out.write_all(&begun)
    }

    /// Octets written.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Packets written.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// What it was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.block.extend(word.to_le_bytes()));
    }

    /// Options, §3.5. Text beyond their size is cut.
    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..OPTION).unwrap_or(value);
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Writes the block at once.
    fn end(&mut self, kind: u32) -> io::Result<()> {
        let len = self.block.len() as u32 + 12;
        self.block.extend(len.to_le_bytes());
        let head = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        self.block.splice(0..0, head);
        let written = self.out.write_all(&self.block);
        self.octets += self.block.len() as u64;
        self.block.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::{LinkType, Source};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() -> io::Result<()> {
        let interfaces = [
            Interface { name: "eth0".into(), link: LinkType::ETHERNET, snaplen: 96, ..Interface::default() },
            Interface { link: LinkType(276), filter: Some("port 443".into()), ..Interface::default() },
        ];
        let mut octets = Vec::new();
        let mut writer = Writer::new(&mut octets, Some("why"))?;
        interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
        let packet = Written {
            interface: 1,
            time: Timestamp(1_700_000_000_123_456_789),
            wire_len: 60,
            bytes: b"packet",
            flags: 2,
        };
        writer.packet(&packet, &["proof".into()])?;
        let counted = Counted { received: 9, dropped: 3, missed: 4, delivered: 1 };
        writer.statistics(1, Timestamp(1_700_000_007_000_000_001), &counted)?;
        let (packets, written) = (writer.packets(), writer.octets());
        assert_eq!((packets, written), (1, octets.len() as u64));

        let mut source = Source::from_readers(vec![("w".into(), Box::new(io::Cursor::new(octets)))]).expect("pcapng");
        let frame = source.next().expect("memory").expect("a frame");
        assert_eq!((frame.interface, frame.time, frame.wire_len), (1, packet.time, 60));
        assert_eq!((frame.bytes, frame.flags, frame.link.0), (&b"packet"[..], 2, 276));
        assert!(source.next().expect("memory").is_none());
        let info = source.finish().remove(0);
        assert_eq!((info.comments, info.drops), (vec!["why".to_owned(), "proof".to_owned()], Some(7)));
        assert_eq!((info.interfaces[0].name.as_str(), info.interfaces[0].snaplen), ("eth0", 96));
        assert_eq!(info.interfaces[1].filter.as_deref(), Some("port 443"));
        assert!(info.damage.is_empty());
        Ok(())
    }

    /// What a process that is killed leaves: each call of `write` reached the operating system.
    #[derive(Clone, Default)]
    struct Blocks(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Blocks {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").push(octets.to_vec());
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_block_is_written_in_one_piece() -> io::Result<()> {
        let blocks = Blocks::default();
        let mut writer = Writer::new(blocks.clone(), None)?;
        writer.interface(&Interface::default())?;
        let packet = Written { interface: 0, time: Timestamp(5), wire_len: 5, bytes: b"seven!!", flags: 0 };
        writer.packet(&packet, &["a".repeat(70_000)])?;
        for block in blocks.0.lock().expect("nobody panics").iter() {
            let len = u32::from_le_bytes(*block[4..].first_chunk().expect("a length")) as usize;
            assert_eq!((len, &block[len - 4..]), (block.len(), &block[4..8]));
        }
        Ok(())
    }
}
