//! The hash of a client's first octets: what a proxy that passes octets on repeats on its backend leg.
//!
//! A leading PROXY header is left out, because only the backend leg has it. A header that comes in several pieces is given up: such a leg
//! is linked by the addresses in it. Sixteen octets per flow, nothing is held.

use serde::{Deserialize, Serialize};

use crate::rule::summary::{Mill, PREFIX};
use crate::wire::proxy::{self, ProxyStart};

/// The octets so far.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Prefix {
    mill: Mill,
    state: State,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
enum State {
    /// A PROXY header may come.
    #[default]
    Beginning,
    Open,
    /// Octets are missing, or a header is not whole.
    Lost,
}

impl Prefix {
    /// The client's next octets.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        if !self.open() {
            return;
        }
        if self.state == State::Beginning && !bytes.is_empty() {
            self.state = State::Open;
            match proxy::parse(bytes) {
                ProxyStart::Header(header) => bytes = bytes.get(header.len as usize..).unwrap_or(&[]),
                ProxyStart::No => {}
                _ => self.state = State::Lost,
            }
        }
        if self.state == State::Open {
            let room = u64::from(*PREFIX.end()).saturating_sub(self.mill.len()) as usize;
            self.mill.push(bytes.get(..room).unwrap_or(bytes));
        }
    }

    /// Octets so far, at most so many as count.
    fn len(&self) -> u16 {
        self.mill.len() as u16
    }

    /// Octets before the next ones are missing.
    pub(super) fn gap(&mut self) {
        if self.len() < *PREFIX.end() {
            self.state = State::Lost;
        }
    }

    /// Whether more octets would change it.
    pub(super) fn open(&self) -> bool {
        self.state != State::Lost && self.len() < *PREFIX.end()
    }

    /// For [`crate::rule::summary::Digest::prefix`].
    pub(super) fn key(&self) -> u64 {
        if self.state == State::Open && PREFIX.contains(&self.len()) { self.mill.key() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pieces: &[&[u8]]) -> u64 {
        let mut prefix = Prefix::default();
        pieces.iter().for_each(|piece| prefix.push(piece));
        prefix.key()
    }

    #[test]
    fn a_leading_header_is_left_out_and_segments_do_not_matter() {
        let text = [b'a'; 300];
        let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n";
        let whole = key(&[&text]);
        assert_ne!(whole, 0);
        assert_eq!(whole, key(&[&text[..7], &text[7..]]));
        assert_eq!(whole, key(&[&[&header[..], &text[..]].concat()]));
        assert_eq!(whole, key(&[&text[..256]]));
        assert_ne!(whole, key(&[&text[..255]]));
    }

    #[test]
    fn too_few_octets_and_octets_behind_a_hole_have_no_key() {
        assert_eq!(key(&[&[b'a'; 63]]), 0);
        let mut prefix = Prefix::default();
        prefix.gap();
        prefix.push(&[b'a'; 300]);
        assert_eq!(prefix.key(), 0);
    }
}
