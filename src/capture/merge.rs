//! Several inputs as one stream in time order: a rotated ring given in any order, or captures of several points.
//!
//! Of every input one record is held. A file is opened when its first packet is due, so that a ring of a thousand files needs neither a
//! thousand descriptors nor a thousand buffers; what can be read only once (a pipe) stays open from the start.

use std::io::Read;
use std::path::Path;

use super::reader::Reader;
use super::{CaptureInfo, Frame, OpenOptions};
use crate::error::{Error, Result};
use crate::time::{Elapsed, Timestamp};

/// All inputs of a run.
pub struct Source {
    inputs: Vec<Input>,
    /// One for each input.
    infos: Vec<CaptureInfo>,
    options: OpenOptions,
    /// The input whose record was handed out last.
    current: Option<Current>,
    /// Inputs that were recorded at one place, found out by an earlier reading.
    together: Vec<(u16, u16)>,
    /// The input that is due when the current one is past it.
    rival: Option<Due>,
}

/// Packets of one capture are in order but for this: several queues of a card are read in turn.
const DISORDER: Elapsed = Elapsed::millis(10);

/// When an input's next record is due: by time, then by the order in which inputs were named.
type Due = (Timestamp, usize);

struct Input {
    path: String,
    state: State,
    /// Where it was recorded; known from its first packet on.
    point: Option<u16>,
}

enum State {
    /// Time of its first packet is known; it is opened when that is due.
    Waiting(Timestamp),
    Open(Box<Reader>),
    /// Open, and its reader is at hand.
    Current,
    Done,
}

/// An input at hand: what each of its packets would have to be asked for.
struct Current {
    n: usize,
    point: u16,
    reader: Box<Reader>,
}

impl Source {
    /// Opens `path`, `name=path` or `-` (standard input, once).
    ///
    /// # Errors
    /// When an input cannot be opened or is no capture.
    pub fn open(inputs: &[&str], options: &OpenOptions) -> Result<Self> {
        let inputs: Vec<_> = inputs.iter().map(|input| labelled(input)).collect();
        if inputs.iter().filter(|(_, path)| *path == "-").count() > 1 {
            return Err(Error::usage("standard input (-) can be read only once"));
        }
        if inputs.len() > usize::from(u16::MAX) {
            return Err(Error::usage(format!("{} inputs are more than {}", inputs.len(), u16::MAX)));
        }
        let alone = inputs.len() == 1;
        let mut source = Self::empty(options.clone());
        for (label, path) in inputs {
            let named = named(path, label);
            let mut info = named.clone();
            let mut reader = Reader::open(path, options, &mut info)?;
            reader.advance(&mut info);
            let state = match reader.time() {
                Some(time) if !alone && Path::new(path).is_file() => {
                    // Read anew from its beginning when its first packet is due.
                    info = named;
                    State::Waiting(time)
                }
                _ => State::of(Box::new(reader)),
            };
            source.inputs.push(Input { path: path.to_owned(), state, point: None });
            source.infos.push(info);
        }
        Ok(source)
    }

    /// Reads any streams; the names are for messages and the report.
    ///
    /// # Errors
    /// When one is no capture.
    pub fn from_readers(readers: Vec<(String, Box<dyn Read + Send>)>) -> Result<Self> {
        let mut source = Self::empty(OpenOptions::default());
        for (name, reader) in readers {
            let mut info = named(&name, None);
            let mut reader = Reader::new(reader, &source.options, &mut info)?;
            reader.advance(&mut info);
            source.inputs.push(Input { path: name, state: State::of(Box::new(reader)), point: None });
            source.infos.push(info);
        }
        Ok(source)
    }

    fn empty(options: OpenOptions) -> Self {
        Self { inputs: Vec::new(), infos: Vec::new(), options, current: None, together: Vec::new(), rival: None }
    }

    /// The next frame in time order, ties by input. Frames of one input keep their order, whatever their times.
    ///
    /// # Errors
    /// When an input that waited for its turn can no longer be opened.
    #[expect(clippy::should_implement_trait, reason = "a lending iterator: the frame borrows the source")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if !self.goes_on() {
            self.turn()?;
        }
        Ok(self.frame())
    }

    /// Goes to the next record of the current input. As long as that is before all others, nobody else needs to be looked at: rings do not
    /// overlap.
    #[inline(always)]
    fn goes_on(&mut self) -> bool {
        let Some(Current { n, reader, .. }) = &mut self.current else { return false };
        let Some(info) = self.infos.get_mut(*n) else { return false };
        reader.advance(info) && self.rival.is_none_or(|rival| reader.time().is_some_and(|time| (time, *n) < rival))
    }

    /// The current record.
    #[inline]
    fn frame(&self) -> Option<Frame<'_>> {
        let Current { n, point, reader } = self.current.as_ref()?;
        reader.frame(*n as u16, *point)
    }

    /// Another input is due, or the first one, or none.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) -> Result<()> {
        if let Some(Current { n, reader, .. }) = self.current.take() {
            self.inputs[n].state = State::of(reader);
        }
        let Some(n) = self.first_due()? else { return Ok(()) };
        let point = self.inputs[n].point.unwrap_or_else(|| self.place(n));
        let input = &mut self.inputs[n];
        input.point = Some(point);
        if let State::Open(reader) = std::mem::replace(&mut input.state, State::Current) {
            self.current = Some(Current { n, point, reader });
        }
        Ok(())
    }

    /// What is known of the inputs so far, in the order in which they were named; complete once `next` gave `None`.
    pub fn infos(&self) -> &[CaptureInfo] {
        &self.infos
    }

    /// Until when the inputs were watched, where they tell and were recorded at one place; once `next` gave `None`.
    pub fn until(&self) -> Option<Timestamp> {
        let one_place = self.inputs.iter().all(|input| input.point.is_none_or(|point| point == 0));
        self.infos.iter().filter(|_| one_place).filter_map(CaptureInfo::until).max()
    }

    /// What is known of the inputs, complete once `next` gave `None`.
    pub fn finish(self) -> Vec<CaptureInfo> {
        self.infos
    }

    /// Pairs of inputs, by index, that are one point: files of the interfaces of one host. To be said before the first frame.
    pub fn at_one_place(&mut self, pairs: &[(u16, u16)]) {
        self.together = pairs.to_vec();
    }

    /// The point of capture of each input, as far as its first packet was read; else that of the first one.
    pub fn points(&self) -> Vec<u16> {
        self.inputs.iter().map(|input| input.point.unwrap_or(0)).collect()
    }

    /// The point of input `n`, whose first packet is due: that of its label, else the first that no capture beside it has.
    fn place(&self, n: usize) -> u16 {
        let beside = |(a, b): &(u16, u16)| match n {
            n if n == usize::from(*a) => Some(usize::from(*b)),
            n if n == usize::from(*b) => Some(usize::from(*a)),
            _ => None,
        };
        let known = |other: usize| self.inputs.get(other).and_then(|input| input.point);
        if let Some(point) = self.together.iter().filter_map(beside).find_map(known) {
            return point;
        }
        let label = self.infos[n].label.as_deref();
        let mut taken = Vec::new();
        for other in (0..self.inputs.len()).filter(|other| *other != n) {
            let Some(point) = self.inputs[other].point else { continue };
            match (label, self.infos[other].label.as_deref()) {
                (Some(mine), Some(theirs)) if mine == theirs => return point,
                (None, None) if !self.beside(other, n) => {}
                _ => taken.push(point),
            }
        }
        (0..=u16::MAX).find(|point| !taken.contains(point)).unwrap_or(0)
    }

    /// Whether `other` goes on while `n` has begun. The pieces of a rotated capture follow each other, give or take the disorder of
    /// a few packets.
    fn beside(&self, other: usize, n: usize) -> bool {
        let Some((begins, _)) = self.due(n) else { return false };
        if !matches!(self.inputs[other].state, State::Open(_)) {
            return false;
        }
        let path = &self.inputs[other].path;
        if !Path::new(path).is_file() {
            return true;
        }
        let mut info = CaptureInfo::default();
        let Ok(mut reader) =
            Reader::open(path, &OpenOptions { hash: false, meter: None, ..self.options.clone() }, &mut info)
        else {
            return true;
        };
        while reader.advance(&mut info) {
            if reader.time().is_some_and(|time| time > begins + DISORDER) {
                return true;
            }
        }
        false
    }

    /// The input that is due first, opened; remembers the second.
    fn first_due(&mut self) -> Result<Option<usize>> {
        loop {
            let (mut first, mut second): (Option<Due>, Option<Due>) = (None, None);
            for due in (0..self.inputs.len()).filter_map(|n| self.due(n)) {
                if first.is_none_or(|first| due < first) {
                    (first, second) = (Some(due), first);
                } else if second.is_none_or(|second| due < second) {
                    second = Some(due);
                }
            }
            self.rival = second;
            let Some((_, n)) = first else { return Ok(None) };
            if !matches!(self.inputs[n].state, State::Waiting(_)) {
                return Ok(Some(n));
            }
            let mut reader = Reader::open(&self.inputs[n].path, &self.options, &mut self.infos[n])?;
            reader.advance(&mut self.infos[n]);
            self.inputs[n].state = State::of(Box::new(reader));
        }
    }

    fn due(&self, n: usize) -> Option<Due> {
        let time = match &self.inputs[n].state {
            State::Waiting(time) => Some(*time),
            State::Open(reader) => reader.time(),
            State::Current | State::Done => None,
        };
        Some((time?, n))
    }
}

impl State {
    /// A reader that went on: it is closed at its end.
    fn of(reader: Box<Reader>) -> Self {
        if reader.time().is_some() { Self::Open(reader) } else { Self::Done }
    }
}

fn named(file: &str, label: Option<&str>) -> CaptureInfo {
    CaptureInfo { file: file.into(), label: label.map(str::to_owned), ..CaptureInfo::default() }
}

/// `name=path`; a path that exists as a whole is no label.
pub fn labelled(input: &str) -> (Option<&str>, &str) {
    match input.split_once('=') {
        Some((label, path)) if !label.is_empty() && !label.contains('/') && !Path::new(input).exists() => {
            (Some(label), path)
        }
        _ => (None, input),
    }
}
