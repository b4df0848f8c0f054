//! lz4 frames, one behind another. <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>
//!
//! The crate reads one frame and takes the end of the input between two blocks for the end of the frame. Here it is known where frames
//! end, so that a file that was cut there is told from one that is whole. At most 8 MiB and a window are held.

use std::io::{self, Read};

use lz4_flex::frame::{Error, FrameDecoder};

use super::compressed::Counted;

/// The octets of all frames of a stream; skippable frames are passed over.
pub(super) struct Frames {
    frame: FrameDecoder<Counted>,
    /// Packed octets up to the end of the latest whole frame.
    whole: u64,
}

impl Frames {
    pub(super) fn new(packed: Counted) -> Self {
        Self { frame: FrameDecoder::new(packed), whole: 0 }
    }

    /// The input.
    pub(super) fn packed(&mut self) -> &mut Counted {
        self.frame.get_mut()
    }

    /// A decoder of its own for the next frame: the crate's buffer fits one kind of frame.
    fn renew(&mut self) {
        let done = std::mem::replace(&mut self.frame, FrameDecoder::new(Counted::new(Box::new(io::empty()))));
        let packed = done.into_inner();
        self.whole = packed.count;
        self.frame = FrameDecoder::new(packed);
    }

    /// Passes over `len` octets and counts them as a whole frame.
    fn skip(&mut self, len: u32) -> io::Result<()> {
        match io::copy(&mut self.packed().take(len.into()), &mut io::sink())? == u64::from(len) {
            true => self.renew(),
            false => return Err(cut()),
        }
        Ok(())
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.frame.read(buffer).map_err(Error::from) {
                Ok(0) if buffer.is_empty() => return Ok(0),
                Ok(0) => {
                    let packed = self.frame.get_ref();
                    if packed.ended {
                        return if packed.count == self.whole { Ok(0) } else { Err(cut()) };
                    }
                    self.renew();
                }
                Ok(n) => return Ok(n),
                Err(Error::SkippableFrame(len)) => self.skip(len)?,
                Err(error) => return Err(in_words(error)),
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the input ends inside a frame")
}

/// The crate's errors are names of variants.
fn in_words(error: Error) -> io::Error {
    let what = match error {
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => return cut(),
        Error::IoError(error) => return error,
        Error::WrongMagicNumber => "octets behind the last frame are no frame",
        Error::DictionaryNotSupported => "packed with a dictionary of its own, which is not in the file",
        Error::HeaderChecksumError | Error::BlockChecksumError | Error::ContentChecksumError => "a checksum is wrong",
        Error::ContentLengthError { .. } => "more or fewer octets came out than the frame says",
        _ => "the frame makes no sense",
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    /// Text that packs well and is no repetition of 64 KB.
    fn plain() -> Vec<u8> {
        (0..60_000_u32).flat_map(|n| format!("packet {} ", n * n % 9973).into_bytes()).collect()
    }

    fn pack(plain: &[u8], mode: BlockMode) -> Vec<u8> {
        let info = FrameInfo::new()
            .block_size(BlockSize::Max64KB)
            .block_mode(mode)
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(plain.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    fn unpack(packed: &[u8]) -> (Vec<u8>, Option<String>) {
        let mut octets = Vec::new();
        let failure =
            Frames::new(Counted::new(Box::new(io::Cursor::new(packed.to_vec())))).read_to_end(&mut octets).err();
        (octets, failure.map(|error| error.to_string()))
    }

    #[test]
    fn frames_behind_each_other_are_one_stream() {
        let plain = plain();
        let linked = pack(&plain, BlockMode::Linked);
        assert!(linked.len() * 2 < plain.len());
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 7, 7, 7];
        let both = [&linked[..], &skippable, &pack(&plain, BlockMode::Independent)].concat();
        let (octets, failure) = unpack(&both);
        assert_eq!((octets == [&plain[..], &plain].concat(), failure), (true, None));
    }

    #[test]
    fn a_cut_is_told_wherever_it_falls() {
        let plain: Vec<u8> = plain().into_iter().take(150_000).collect();
        let packed = pack(&plain, BlockMode::Linked);
        for cut in (1..packed.len()).filter(|n| n % 97 == 0 || packed.len() - n < 100) {
            let (octets, failure) = unpack(&packed[..cut]);
            assert!(plain.starts_with(&octets) && failure.is_some(), "{cut}");
        }
        // Right behind a block, where the crate alone sees a whole frame.
        let first_block = 15 + 4 + u32::from_le_bytes(*packed[15..].first_chunk().expect("a block")) as usize + 4;
        let (octets, failure) = unpack(&packed[..first_block]);
        assert_eq!((octets.len(), failure.as_deref()), (65_536, Some("the input ends inside a frame")));
    }

    #[test]
    fn wrong_octets_are_told_in_words() {
        let packed = pack(b"some octets of a capture, some octets of a capture", BlockMode::Linked);
        let mut wrong = packed.clone();
        wrong[20] ^= 1;
        assert_eq!(unpack(&wrong).1.as_deref(), Some("a checksum is wrong"));
        let (octets, failure) = unpack(&[&packed[..], b"and more"].concat());
        assert_eq!((octets.len(), failure.as_deref()), (50, Some("octets behind the last frame are no frame")));
    }

    #[test]
    fn bent_frames_never_panic() {
        let plain: Vec<u8> = plain().into_iter().take(300_000).collect();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 16) as usize % n
        };
        for mode in [BlockMode::Linked, BlockMode::Independent] {
            // Without checksums, so that wrong octets reach the decoder.
            let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(mode);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&plain).expect("memory");
            let packed = encoder.finish().expect("memory");
            for _ in 0..150 {
                let mut bent = packed.clone();
                for _ in 0..=random(4) {
                    // Half of them at the block's header and first sequences.
                    let at = if random(2) == 0 { 7 + random(40) } else { random(bent.len()) };
                    bent[at] ^= 1 << random(8);
                }
                unpack(&bent);
            }
        }
    }
}
