//! Several inputs as one stream in time order: a rotated ring given in any order, or captures of several points.
//!
//! Of every input one record is held. Inputs are opened when their first packet is due, so that a ring of a thousand files needs neither a
//! thousand descriptors nor a thousand buffers.

use std::io::Read;

use super::reader::Reader;
use super::{CaptureInfo, Frame, OpenOptions};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// All inputs of a run.
pub struct Source {
    inputs: Vec<Input>,
    options: OpenOptions,
    /// The input whose record was handed out last.
    current: Option<usize>,
}

struct Input {
    path: String,
    label: Option<String>,
    state: State,
}

enum State {
    /// Time of its first packet is known; it is opened when that is due.
    Waiting(Timestamp),
    Open(Box<Reader>),
    Done(Box<CaptureInfo>),
}

impl Source {
    /// Opens `path`, `name=path` or `-` (standard input, once).
    ///
    /// # Errors
    /// When an input cannot be opened or is no capture.
    pub fn open(inputs: &[&str], options: &OpenOptions) -> Result<Self> {
        if inputs.iter().filter(|input| **input == "-").count() > 1 {
            return Err(Error::usage("standard input (-) can be read only once"));
        }
        if inputs.len() > usize::from(u16::MAX) {
            return Err(Error::usage(format!("{} inputs are more than {}", inputs.len(), u16::MAX)));
        }
        let alone = inputs.len() == 1;
        let mut opened = Vec::with_capacity(inputs.len());
        for input in inputs {
            let (label, path) = labelled(input);
            let mut reader = Reader::open(path, label, options)?;
            let state = if alone || path == "-" {
                State::Open(Box::new(reader))
            } else if reader.advance() {
                // Closed again until its first packet is due.
                State::Waiting(reader.time().unwrap_or(Timestamp::MIN))
            } else {
                State::Done(Box::new(reader.info))
            };
            opened.push(Input { path: path.to_owned(), label: label.map(str::to_owned), state });
        }
        let mut source = Self { inputs: opened, options: options.clone(), current: None };
        source.first_records();
        Ok(source)
    }

    /// Reads any streams; the names are for messages and the report.
    ///
    /// # Errors
    /// When one is no capture.
    pub fn from_readers(readers: Vec<(String, Box<dyn Read + Send>)>) -> Result<Self> {
        let options = OpenOptions::default();
        let open = |(name, reader): (String, _)| -> Result<Input> {
            let reader = Reader::new(&name, reader, &options)?;
            Ok(Input { path: name, label: None, state: State::Open(Box::new(reader)) })
        };
        let inputs = readers.into_iter().map(open).collect::<Result<_>>()?;
        let mut source = Self { inputs, options, current: None };
        source.first_records();
        Ok(source)
    }

    /// Readers that are open stand on their first record.
    fn first_records(&mut self) {
        for input in &mut self.inputs {
            input.advance();
        }
    }

    /// The next frame in time order, ties by input.
    ///
    /// # Errors
    /// When an input that waited for its turn can no longer be opened.
    #[expect(clippy::should_implement_trait, reason = "a lending iterator: the frame borrows the source")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if let Some(current) = self.current.take() {
            self.inputs[current].advance();
        }
        loop {
            let due = self.inputs.iter().enumerate().filter_map(|(n, input)| Some((input.time()?, n))).min();
            let Some((_, n)) = due else { return Ok(None) };
            if matches!(self.inputs[n].state, State::Waiting(_)) {
                let input = &mut self.inputs[n];
                let reader = Reader::open(&input.path, input.label.as_deref(), &self.options)?;
                input.state = State::Open(Box::new(reader));
                input.advance();
                continue;
            }
            self.current = Some(n);
            return Ok(match &self.inputs[n].state {
                State::Open(reader) => reader.frame(n as u16),
                _ => None,
            });
        }
    }

    /// What is known of the inputs, complete once `next` gave `None`.
    pub fn finish(self) -> Vec<CaptureInfo> {
        let hash = self.options.hash;
        let info = |input: Input| {
            let mut info = match input.state {
                State::Open(reader) => reader.info,
                State::Done(info) => *info,
                State::Waiting(_) => CaptureInfo { file: input.path.clone(), ..CaptureInfo::default() },
            };
            info.label = input.label;
            if hash && input.path != "-" {
                info.sha256 = sha256(&input.path);
            }
            info
        };
        self.inputs.into_iter().map(info).collect()
    }
}

impl Input {
    fn time(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(time) => Some(*time),
            State::Open(reader) => reader.time(),
            State::Done(_) => None,
        }
    }

    fn advance(&mut self) {
        if let State::Open(reader) = &mut self.state
            && !reader.advance()
        {
            self.state = State::Done(Box::new(std::mem::take(&mut reader.info)));
        }
    }
}

/// `name=path`; a path that exists as a whole is no label.
fn labelled(input: &str) -> (Option<&str>, &str) {
    match input.split_once('=') {
        Some((label, path)) if !label.is_empty() && !label.contains('/') && !std::path::Path::new(input).exists() => {
            (Some(label), path)
        }
        _ => (None, input),
    }
}

/// Hash of the input as it is stored; a second read, which only `--hash` asks for.
fn sha256(path: &str) -> Option<String> {
    use sha2::Digest;
    let mut file = std::fs::File::open(path).ok()?;
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Some(hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect()),
            Ok(n) => hash.update(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
