//! Fragments: a datagram is rewritten as a whole, and each fragment gets its piece of it, so that names in it are found and its checksum holds.
//!
//! The first pass puts datagrams together and remembers of each frame which piece of which it holds; so the second one knows a datagram
//! before it has seen all of it.

use std::collections::{HashMap, VecDeque};

use super::layout::Fragment;

/// Datagrams that wait for fragments, octets of all that are remembered, and octets of one.
const WAITING: usize = 256;
const REMEMBERED: usize = 64 * 1024 * 1024;
const LONGEST: usize = 65_535;

/// Addresses, protocol and number.
type Name = (Vec<u8>, u8, u32);

/// A datagram that waits for fragments.
struct Waiting {
    name: Name,
    header: Vec<u8>,
    octets: Vec<u8>,
    have: Vec<bool>,
    end: Option<usize>,
    /// Frames, and where in the datagram what they hold begins.
    frames: Vec<(u64, usize)>,
    v6: bool,
    protocol: u8,
}

/// A whole datagram, as a packet without a link header.
pub(super) struct Whole {
    pub(super) packet: Vec<u8>,
    /// Octets of its IP header.
    pub(super) header: usize,
    /// The frame that completed it.
    pub(super) completed: u64,
    /// Where its segments stand in their streams: direction and offset.
    pub(super) places: Vec<Option<(usize, i64)>>,
}

/// Puts datagrams together.
#[derive(Default)]
pub(super) struct Fragments {
    waiting: VecDeque<Waiting>,
    pub(super) whole: Vec<Whole>,
    /// Which piece a frame holds: datagram, and place in it.
    pub(super) frames: HashMap<u64, (usize, usize)>,
    octets: usize,
}

impl Fragments {
    /// Takes a fragment; whether it completed a datagram, which is the last of `whole` then.
    pub(super) fn take(&mut self, frame: u64, bytes: &[u8], fragment: &Fragment) -> bool {
        let Fragment { ip, header, v6, protocol, id, at, end, start, more } = *fragment;
        let addresses = if v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let (Some(addresses), Some(octets)) = (bytes.get(addresses), bytes.get(at..end)) else { return false };
        let until = start + octets.len();
        if until > LONGEST || self.octets > REMEMBERED {
            return false;
        }
        let name = (addresses.to_vec(), protocol, id);
        let place = self.waiting.iter().position(|waiting| waiting.name == name).unwrap_or_else(|| {
            if self.waiting.len() >= WAITING {
                self.waiting.pop_front();
            }
            let (octets, have, frames) = (Vec::new(), Vec::new(), Vec::new());
            self.waiting.push_back(Waiting { name, header: Vec::new(), octets, have, end: None, frames, v6, protocol });
            self.waiting.len() - 1
        });
        let waiting = &mut self.waiting[place];
        if waiting.octets.len() < until {
            waiting.octets.resize(until, 0);
            waiting.have.resize(until, false);
        }
        // The first copy of an octet counts, as in the reassembly of diagnoses.
        for (n, octet) in octets.iter().enumerate() {
            if !std::mem::replace(&mut waiting.have[start + n], true) {
                waiting.octets[start + n] = *octet;
            }
        }
        if start == 0 {
            waiting.header = bytes.get(ip..ip + header).unwrap_or(&[]).to_vec();
        }
        if !more {
            waiting.end = Some(until);
        }
        waiting.frames.push((frame, start));
        let complete =
            waiting.end.is_some_and(|end| end == waiting.octets.len() && waiting.have.iter().all(|have| *have))
                && !waiting.header.is_empty();
        if complete && let Some(waiting) = self.waiting.remove(place) {
            self.complete(frame, waiting);
        }
        complete
    }

    fn complete(&mut self, frame: u64, waiting: Waiting) {
        let Waiting { mut header, octets, frames, v6, protocol, .. } = waiting;
        let len = if v6 { octets.len() } else { header.len() + octets.len() }.min(LONGEST) as u16;
        let (place, at) = if v6 { (4, 6) } else { (2, 9) };
        if let Some(slot) = header.get_mut(place..place + 2) {
            slot.copy_from_slice(&len.to_be_bytes());
        }
        if let Some(slot) = header.get_mut(at) {
            *slot = protocol;
        }
        if let Some(slot) = header.get_mut(6..8).filter(|_| !v6) {
            slot.fill(0);
        }
        self.octets += octets.len();
        for (frame, start) in frames {
            self.frames.insert(frame, (self.whole.len(), start));
        }
        let places = Vec::new();
        self.whole.push(Whole { header: header.len(), packet: [header, octets].concat(), completed: frame, places });
    }
}
