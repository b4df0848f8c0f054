//! A window over a stream: grows to what one record needs, keeps what was not consumed, never reads further than asked while live.

use std::io::{self, Read};

/// Refillable octets in front of a reader.
pub(super) struct Buffer {
    source: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `start` in the stream.
    offset: u64,
    /// The stream is over; the reason when it ended with an error.
    over: Option<Option<io::Error>>,
}

impl Buffer {
    /// Fits the second-level cache twice (measured: 128 KB to 4 MB make no difference).
    const FIRST: usize = 256 * 1024;

    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, bytes: vec![0; Self::FIRST], start: 0, end: 0, offset: 0, over: None }
    }

    /// What is there.
    pub(super) fn ready(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Makes `need` octets available if the stream holds them; says how many there are.
    pub(super) fn fill(&mut self, need: usize) -> usize {
        while self.end - self.start < need && self.over.is_none() {
            self.make_room(need);
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(0) => self.over = Some(None),
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.over = Some(Some(error)),
            }
        }
        self.end - self.start
    }

    fn make_room(&mut self, need: usize) {
        // Half a buffer free is enough to read on; moving the rest to the front costs less than many short reads.
        if self.bytes.len() - self.start < need || self.bytes.len() - self.end < Self::FIRST / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < need {
            self.bytes.resize(need.next_power_of_two(), 0);
        }
        if self.bytes.len() == self.end {
            self.bytes.resize(self.end * 2, 0);
        }
    }

    /// Gives up the first `n` octets.
    pub(super) fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.offset += n as u64;
    }

    /// Position of the first octet that is ready.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the stream ended, when it was an error.
    pub(super) fn failure(&self) -> Option<String> {
        self.over.as_ref()?.as_ref().map(ToString::to_string)
    }

    /// The error itself, for the caller that could not read anything.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.over.as_mut()?.take()
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
}
