//! A window over a stream: grows to what one record needs, keeps what was not consumed, never waits for more than was asked for.
//!
//! A record is handed out as soon as its last octet is there, so that a live pipe is read packet by packet. The window grows only with octets
//! that arrived: a length field alone costs no memory.

use std::io::{self, Read};

/// Refillable octets in front of a reader.
pub(super) struct Buffer {
    source: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of the first of `bytes` in the stream.
    base: u64,
    end_of_stream: Option<End>,
}

/// How the stream ended.
enum End {
    Clean,
    Failed(io::Error),
}

impl Buffer {
    /// Fits the second-level cache twice (measured: 128 KB to 4 MB make no difference).
    const FIRST: usize = 256 * 1024;

    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, bytes: vec![0; Self::FIRST], start: 0, end: 0, base: 0, end_of_stream: None }
    }

    /// Makes `need` octets available if the stream holds them; says how many there are.
    #[inline]
    pub(super) fn fill(&mut self, need: usize) -> usize {
        if self.end - self.start < need {
            self.read_up_to(need);
        }
        self.end - self.start
    }

    /// Gives up the first `n` octets.
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// What is there.
    #[inline]
    pub(super) fn ready(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The `len` octets behind the first `head` that are ready.
    #[inline]
    pub(super) fn part(&self, head: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(self.start + head..self.end)?.get(..len)
    }

    /// Position of the first octet that is ready.
    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Why the stream ended; `None` while it goes on and when it simply was over.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        match &self.end_of_stream {
            Some(End::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// The error itself, for the caller that could not read anything.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        match self.end_of_stream.replace(End::Clean) {
            Some(End::Failed(error)) => Some(error),
            _ => None,
        }
    }

    #[cold]
    #[inline(never)]
    fn read_up_to(&mut self, need: usize) {
        while self.end - self.start < need && self.end_of_stream.is_none() {
            self.make_room(need);
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(0) => self.end_of_stream = Some(End::Clean),
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end_of_stream = Some(End::Failed(error)),
            }
        }
    }

    /// Leaves room behind `end` for the next read.
    fn make_room(&mut self, need: usize) {
        // Half a buffer free is enough to read on; moving the rest to the front costs less than many short reads.
        let crowded = self.bytes.len() - self.start < need || self.bytes.len() - self.end < Self::FIRST / 2;
        if crowded && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dribble(Vec<u8>);

    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(octet) = self.0.pop() else { return Ok(0) };
            buffer[0] = octet;
            Ok(1)
        }
    }

    #[test]
    fn a_record_larger_than_the_buffer_grows_it() {
        let mut buffer = Buffer::new(Box::new(Dribble(vec![7; 600_000])));
        assert_eq!(buffer.fill(3), 3);
        buffer.consume(2);
        assert_eq!(buffer.fill(500_000), 500_000);
        assert!(buffer.ready().iter().all(|octet| *octet == 7));
        buffer.consume(500_000);
        assert_eq!(buffer.offset(), 500_002);
        assert_eq!(buffer.fill(200_000), 99_998);
    }

    #[test]
    fn a_length_without_its_octets_costs_no_memory() {
        let mut buffer = Buffer::new(Box::new(Dribble(vec![7; 100])));
        assert_eq!(buffer.fill(64 * 1024 * 1024), 100);
        assert_eq!(buffer.bytes.len(), Buffer::FIRST);
    }

    #[test]
    fn no_more_is_awaited_than_was_asked_for() {
        // A third read would fail the test: a pipe would block there.
        struct TwoReads(u8);
        impl Read for TwoReads {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                assert!(self.0 < 2, "waits for octets nobody asked for");
                self.0 += 1;
                buffer[..10].fill(self.0);
                Ok(10)
            }
        }
        let mut buffer = Buffer::new(Box::new(TwoReads(0)));
        assert_eq!(buffer.fill(4), 10);
        assert_eq!(buffer.fill(16), 20);
    }
}
