//! gzip and zstd input, inflated on a thread of its own.
//!
//! Recognised by magic, not by name. Two caps keep a small file from becoming a large problem: a ratio, looked at only once enough came out
//! (headers of many small packets compress well), and a total.

use std::io::{self, Read};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What a stream is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

/// Limits of decompression.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Octets out per octet in, looked at from `Caps::RATIO_FROM` octets out on. gzip cannot exceed 1,032 by its format; captures of
    /// repeated packets stay below 200 in practice.
    pub ratio: u64,
    /// Octets out in all.
    pub total: u64,
}

impl Caps {
    /// Output below which the ratio is not looked at.
    const RATIO_FROM: u64 = 256 * 1024 * 1024;
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
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The unpacked stream.
    pub(super) fn unpack(self, packed: Box<dyn Read + Send>, caps: Caps) -> Box<dyn Read + Send> {
        // Four chunks of slack let reading and inflating overlap; more only costs memory.
        let (sender, receiver) = bounded(4);
        std::thread::spawn(move || self.run(packed, caps, &sender));
        Box::new(Unpacked { chunks: receiver, chunk: Vec::new(), at: 0 })
    }

    fn run(self, packed: Box<dyn Read + Send>, caps: Caps, sender: &Sender<io::Result<Vec<u8>>>) {
        let counter = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let packed = Counted { inner: packed, count: counter.clone() };
        let mut unpacked: Box<dyn Read> = match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Zstd => match zstd::stream::read::Decoder::new(packed) {
                Ok(decoder) => Box::new(decoder),
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            },
        };
        let mut out = 0;
        loop {
            let mut chunk = vec![0; 256 * 1024];
            match unpacked.read(&mut chunk) {
                Ok(0) => return,
                Ok(n) => {
                    out += n as u64;
                    chunk.truncate(n);
                    let read = counter.load(std::sync::atomic::Ordering::Relaxed).max(1);
                    if out > caps.total || out > Caps::RATIO_FROM && out / read > caps.ratio {
                        let what = format!("{out} octets came out of {read}: stopped as a decompression bomb");
                        let _ = sender.send(Err(io::Error::other(what)));
                        return;
                    }
                    // The reader is gone: nobody wants more.
                    if sender.send(Ok(chunk)).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = sender.send(Err(io::Error::new(error.kind(), format!("{}: {error}", self.name()))));
                    return;
                }
            }
        }
    }
}

struct Counted<R> {
    inner: R,
    count: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

struct Unpacked {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            match self.chunks.recv() {
                Ok(Ok(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
