//! gzip, zstd and lz4 input, inflated on a thread of its own.
//!
//! Recognised by magic, not by name. A small file that becomes a large one costs time, never memory, because everything is read as a stream;
//! two caps end it: a ratio, looked at only once enough came out (the first packets of a capture say little), and a total.

use std::io::{self, BufReader, Read};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::OpenOptions;
use super::lz4;

/// What a stream is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Lz4,
}

/// Limits of decompression.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Octets out per octet in, looked at from [`Caps::RATIO_FROM`] octets out on.
    ///
    /// 2,000 by default. gzip cannot exceed 1,032 and lz4 255 by their formats, so that this is about zstd, which packs zeros 13,000 to 1. Captures of
    /// repeated packets stay below 200; only large segments (64 KB) of nothing but zeros come near the limit.
    pub ratio: u64,
    /// Octets out in all. 16 TiB by default: what a disk may hold.
    pub total: u64,
}

impl Caps {
    /// Output below which the ratio is not looked at.
    pub const RATIO_FROM: u64 = 256 * 1024 * 1024;
}

impl Default for Caps {
    fn default() -> Self {
        Self { ratio: 2_000, total: 1 << 44 }
    }
}

impl Packing {
    /// What a stream that begins so is packed with.
    pub(super) fn recognise(magic: &[u8]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // The second is a skippable frame (RFC 8878 §3.1.2), which pzstd writes first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// The unpacked stream.
    ///
    /// # Errors
    /// When the system gives no thread, or no memory for the decoder.
    pub(super) fn unpack(
        self,
        packed: Box<dyn Read + Send>,
        options: &OpenOptions,
    ) -> io::Result<Box<dyn Read + Send>> {
        let packed = Counted::new(packed);
        let decoder = match self {
            Self::Gzip => Decoder::Gzip(Box::new(flate2::read::MultiGzDecoder::new(packed))),
            Self::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::new(packed)?),
            Self::Lz4 => Decoder::Lz4(Box::new(lz4::Frames::new(packed))),
        };
        // Four chunks of slack let reading and inflating overlap; more only costs memory.
        let (chunks, receiver) = bounded(4);
        // As many as are on the way, the one that is being read and the one that is being filled.
        let (spent, spare) = bounded(6);
        let unpacker = Unpacker { packing: self, decoder, options: options.clone(), out: 0, chunks, spare };
        std::thread::Builder::new().name(self.name().into()).spawn(move || unpacker.run())?;
        Ok(Box::new(Unpacked { chunks: receiver, spent, chunk: Chunk::default(), at: 0 }))
    }
}

/// Room of a chunk: a block of zstd, which is what its decoder gives at once.
const ROOM: usize = 128 * 1024;

/// A piece of the unpacked stream.
#[derive(Default)]
struct Chunk {
    room: Vec<u8>,
    /// Octets of it that mean something.
    len: usize,
}

/// The sending side, on its own thread.
struct Unpacker {
    packing: Packing,
    decoder: Decoder,
    options: OpenOptions,
    out: u64,
    chunks: Sender<io::Result<Chunk>>,
    /// Chunks that were read, to be filled again.
    spare: Receiver<Chunk>,
}

enum Decoder {
    Gzip(Box<flate2::read::MultiGzDecoder<Counted>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Counted>>),
    Lz4(Box<lz4::Frames>),
}

impl Unpacker {
    fn run(mut self) {
        loop {
            let mut chunk = self.spare.try_recv().unwrap_or_default();
            chunk.room.resize(ROOM, 0);
            let read = self.decoder.read(&mut chunk.room).and_then(|n| {
                self.out += n as u64;
                self.within_caps()?;
                Ok(n)
            });
            let message = match read {
                Ok(0) => return,
                Ok(len) => Ok(Chunk { len, ..chunk }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", self.packing.name()))),
            };
            let failed = message.is_err();
            if failed && self.options.hash {
                // The hash is that of the whole input, readable or not.
                let _ = io::copy(self.decoder.packed(), &mut io::sink());
            }
            // When the reader is gone, nobody wants more.
            if self.chunks.send(message).is_err() || failed {
                return;
            }
        }
    }

    fn within_caps(&mut self) -> io::Result<()> {
        let (out, caps) = (self.out, self.options.caps);
        if out <= caps.total.min(Caps::RATIO_FROM) {
            return Ok(());
        }
        let read = self.decoder.packed().count.max(1);
        if out > caps.total || out > Caps::RATIO_FROM && out / read > caps.ratio {
            let what = format!("{out} octets came out of {read}, more than allowed: stopped as a decompression bomb");
            return Err(io::Error::other(what));
        }
        Ok(())
    }
}

impl Decoder {
    fn packed(&mut self) -> &mut Counted {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut().get_mut(),
            Self::Lz4(decoder) => decoder.packed(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Lz4(decoder) => decoder.read(buffer),
        }
    }
}

/// Counts the packed octets, and knows whether they ended.
pub(super) struct Counted {
    inner: Box<dyn Read + Send>,
    pub(super) count: u64,
    pub(super) ended: bool,
}

impl Counted {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> Self {
        Self { inner, count: 0, ended: false }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        self.ended |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

/// The receiving side.
struct Unpacked {
    chunks: Receiver<io::Result<Chunk>>,
    spent: Sender<Chunk>,
    chunk: Chunk,
    at: usize,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len {
            match self.chunks.recv() {
                Ok(Ok(chunk)) => {
                    // Where nobody wants it back, or has enough of them, it goes.
                    let _ = self.spent.try_send(std::mem::replace(&mut self.chunk, chunk));
                    self.at = 0;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len - self.at);
        buffer[..n].copy_from_slice(&self.chunk.room[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: Vec<u8>, caps: Caps) -> (Vec<u8>, Option<io::Error>) {
        let packing = Packing::recognise(&packed).expect("packed");
        let options = OpenOptions { caps, ..OpenOptions::default() };
        let mut stream = packing.unpack(Box::new(io::Cursor::new(packed)), &options).expect("a thread");
        let mut octets = Vec::new();
        let failure = stream.read_to_end(&mut octets).err();
        (octets, failure)
    }

    #[test]
    fn skippable_frames_before_zstd_data_are_passed_over() {
        let mut packed = vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 9, 9, 9, 9];
        packed.extend(zstd::encode_all(&b"abc"[..], 1).expect("memory"));
        let (octets, failure) = unpack(packed, Caps::default());
        assert_eq!(octets, b"abc");
        assert!(failure.is_none());
    }

    #[test]
    fn a_total_that_is_reached_ends_the_stream_in_words() {
        let packed = zstd::encode_all(&vec![7; 3 << 20][..], 1).expect("memory");
        let (octets, failure) = unpack(packed, Caps { total: 1 << 20, ..Caps::default() });
        assert!(octets.len() <= 1 << 20 && !octets.is_empty());
        assert!(failure.expect("a cap").to_string().contains("decompression bomb"));
    }

    #[test]
    fn a_bomb_of_zeros_ends_at_the_ratio() {
        let zeros = io::repeat(0).take(Caps::RATIO_FROM + (8 << 20));
        let packed = zstd::encode_all(zeros, 1).expect("memory");
        let packing = Packing::recognise(&packed).expect("packed");
        let mut stream = packing.unpack(Box::new(io::Cursor::new(packed)), &OpenOptions::default()).expect("a thread");
        let failure = io::copy(&mut stream, &mut io::sink()).expect_err("a cap");
        assert!(failure.to_string().starts_with("zstd: 268"), "{failure}");
    }

    #[test]
    fn the_caps_hold_for_lz4() {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        io::copy(&mut io::repeat(0).take(3 << 20), &mut encoder).expect("memory");
        let packed = encoder.finish().expect("memory");
        let (octets, failure) = unpack(packed, Caps { total: 1 << 20, ..Caps::default() });
        assert!(octets.len() <= 1 << 20 && !octets.is_empty());
        assert!(failure.expect("a cap").to_string().starts_with("lz4: "));
    }

    #[test]
    fn octets_that_are_not_gzip_after_all_fail_after_what_could_be_read() {
        let mut packed = vec![0x1f, 0x8b];
        packed.extend([0xff; 40]);
        let (octets, failure) = unpack(packed, Caps::default());
        assert!(octets.is_empty() && failure.is_some());
    }
}
