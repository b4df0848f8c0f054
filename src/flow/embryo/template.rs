//! What many packed SYNs have in common: link, interface, length and options, kept once for all of them.

use std::hash::{Hash, Hasher};

use hashbrown::HashTable;

use super::{OPTIONS, Said, Syn};
use crate::decode::{Flags, Ip, Link, Packet, Segment};
use crate::wire::Address;
use crate::wire::seq::Seq;

/// Templates at one time. A SYN that would need one more is not packed.
pub(super) const TEMPLATES: usize = 4096;

/// What the SYNs of one program on one link have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Template {
    interface: u16,
    link: Link,
    len: u32,
    has_id: bool,
    tunnelled: bool,
    flags: Flags,
    own: Own,
    options: [u8; OPTIONS],
    options_len: u8,
}

/// What else a SYN says for itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Own {
    /// The value of its timestamp, which stands so far into the options.
    Clock(u8),
    /// An acknowledgment number, although it acknowledges nothing.
    Ack,
}

impl Template {
    /// What a SYN has in common with others, and what is its own.
    pub(super) fn of(packet: &Packet<'_>, ip: &Ip, segment: &Segment<'_>) -> (Self, u32) {
        let mut options = [0; OPTIONS];
        if let Some(room) = options.get_mut(..segment.options.len()) {
            room.copy_from_slice(segment.options);
        }
        let (mut own, mut value) = (Own::Ack, segment.ack.0);
        if value == 0
            && let Some(at) = clock(segment.options)
            && let Some(octets) = options.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>())
        {
            (own, value) = (Own::Clock(at as u8), u32::from_be_bytes(*octets));
            *octets = [0; 4];
        }
        let template = Self {
            interface: packet.interface,
            link: packet.link,
            len: ip.len,
            has_id: ip.id.is_some(),
            tunnelled: ip.tunnelled,
            flags: segment.flags,
            own,
            options,
            options_len: segment.options.len() as u8,
        };
        (template, value)
    }

    fn hash(&self) -> u64 {
        let mut state = std::hash::BuildHasher::build_hasher(&foldhash::fast::FixedState::default());
        (self.link.source, self.link.destination, self.link.ifindex, self.link.vlan).hash(&mut state);
        (self.interface, self.len, self.own, self.options).hash(&mut state);
        state.finish()
    }

    /// A SYN with what it said for itself.
    pub(super) fn syn(self, said: &Said, source: Address, destination: Address) -> Syn {
        let mut options = self.options;
        let mut ack = Seq(0);
        match self.own {
            Own::Ack => ack = Seq(said.own),
            Own::Clock(at) => {
                if let Some(octets) = options.get_mut(usize::from(at)..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    *octets = said.own.to_be_bytes();
                }
            }
        }
        let ip = Ip {
            source,
            destination,
            ttl: said.ttl,
            id: self.has_id.then_some(said.id),
            len: self.len,
            reassembled: false,
            tunnelled: self.tunnelled,
        };
        let segment = Segment {
            source_port: said.ports[0],
            destination_port: said.ports[1],
            seq: said.seq,
            ack,
            flags: self.flags,
            window: said.window,
            options: &[],
            payload: &[],
            payload_len: 0,
            checksum: said.checksum,
        };
        let (at, options_len) = (said.at.packet(), usize::from(self.options_len));
        Syn { at, interface: self.interface, link: self.link, ip, segment, options, options_len }
    }
}

/// Where the value of the timestamp stands (RFC 7323 §3.2).
fn clock(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match (options.get(at)?, options.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (8, Some(10)) if options.len() >= at + 10 => return Some(at + 2),
            (_, Some(len)) if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}

/// The templates in use, each once.
#[derive(Default)]
pub(super) struct Templates {
    all: Vec<(Template, usize)>,
    free: Vec<u16>,
    index: HashTable<u16>,
}

impl Templates {
    /// The number of a template, with one more SYN that uses it; `None` when there are too many.
    pub(super) fn take(&mut self, template: Template) -> Option<u16> {
        let (hash, all) = (template.hash(), &mut self.all);
        if let Some(number) = self.index.find(hash, |number| all[usize::from(*number)].0 == template) {
            all[usize::from(*number)].1 += 1;
            return Some(*number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if all.len() < TEMPLATES => {
                all.push((template, 0));
                all.len() as u16 - 1
            }
            None => return None,
        };
        all[usize::from(number)] = (template, 1);
        self.index.insert_unique(hash, number, |number| all[usize::from(*number)].0.hash());
        Some(number)
    }

    /// A SYN with it is gone.
    pub(super) fn give_back(&mut self, number: u16) -> Option<Template> {
        let (template, users) = self.all.get_mut(usize::from(number))?;
        *users = users.saturating_sub(1);
        let (template, users) = (*template, *users);
        if users == 0
            && let Ok(entry) = self.index.find_entry(template.hash(), |other| *other == number)
        {
            entry.remove();
            self.free.push(number);
        }
        Some(template)
    }
}
