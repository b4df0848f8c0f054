//! What became of every frame: the arithmetic behind "of 4,211 frames, 12 could not be read".

use std::collections::BTreeMap;

use super::{Packet, Transport};
use crate::capture::LinkType;

/// How many frames ended as what. Each frame is in exactly one of `tcp` to `unreadable`; see [`Counts::frames`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// TCP segments, in their own frame or completed by it.
    pub tcp: u64,
    /// UDP datagrams.
    pub udp: u64,
    /// ICMP and ICMPv6 messages.
    pub icmp: u64,
    /// ARP packets.
    pub arp: u64,
    /// Fragments that completed nothing: those that waited, copies, and those whose datagram never came together.
    pub fragment: u64,
    /// IP with another protocol.
    pub other_ip: u64,
    /// Neither IP nor ARP.
    pub not_ip: u64,
    /// Frames of link types nobody here can read.
    pub unknown_link: u64,
    /// Broken or cut headers.
    pub unreadable: u64,
    /// Of all frames: those whose packet lay inside a tunnel.
    pub tunnelled: u64,
    /// Of all frames: those of which the capture kept less than the packet.
    pub cut: u64,
    /// Frames by link type; sums up to [`Counts::frames`].
    pub by_link: Vec<(LinkType, u64)>,
    /// `not_ip` by EtherType (or what stands for it, see [`Transport::NotIp`]).
    pub by_ether_type: BTreeMap<u16, u64>,
    /// `other_ip` by protocol number.
    pub by_protocol: BTreeMap<u8, u64>,
    /// `unreadable` by reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// What became of fragmented datagrams.
    pub fragments: FragmentCounts,
}

/// How many fragmented datagrams ended as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Put together; the frame that completed each is counted as what it carried.
    pub completed: u64,
    /// Given up though their first fragment was seen: the others were lost, or the capture lacks them.
    pub incomplete: u64,
    /// Given up without their first fragment: it was lost, or these were late copies of a datagram already complete.
    pub headless: u64,
    /// Of those given up: for lack of room, not for their age.
    pub evicted: u64,
    /// Fragments that covered octets already there with different ones; the first copy was kept.
    pub conflicting: u64,
}

impl Counts {
    /// All frames.
    pub fn frames(&self) -> u64 {
        self.tcp
            + self.udp
            + self.icmp
            + self.arp
            + self.fragment
            + self.other_ip
            + self.not_ip
            + self.unknown_link
            + self.unreadable
    }

    /// Adds another decoder's counts: the order of additions does not matter.
    pub fn merge(&mut self, other: &Self) {
        self.tcp += other.tcp;
        self.udp += other.udp;
        self.icmp += other.icmp;
        self.arp += other.arp;
        self.fragment += other.fragment;
        self.other_ip += other.other_ip;
        self.not_ip += other.not_ip;
        self.unknown_link += other.unknown_link;
        self.unreadable += other.unreadable;
        self.tunnelled += other.tunnelled;
        self.cut += other.cut;
        for &(link, n) in &other.by_link {
            self.add_link(link, n);
        }
        self.by_link.sort_unstable();
        merge_map(&mut self.by_ether_type, &other.by_ether_type);
        merge_map(&mut self.by_protocol, &other.by_protocol);
        merge_map(&mut self.by_reason, &other.by_reason);
        self.fragments.completed += other.fragments.completed;
        self.fragments.incomplete += other.fragments.incomplete;
        self.fragments.headless += other.fragments.headless;
        self.fragments.evicted += other.fragments.evicted;
        self.fragments.conflicting += other.fragments.conflicting;
    }

    /// Counts one decoded frame.
    #[inline]
    pub(super) fn note(&mut self, link: LinkType, packet: &Packet<'_>) {
        self.add_link(link, 1);
        self.cut += u64::from(packet.cut);
        self.tunnelled += u64::from(packet.ip.is_some_and(|ip| ip.tunnelled));
        match packet.transport {
            Transport::Tcp(_) => self.tcp += 1,
            Transport::Udp(_) => self.udp += 1,
            Transport::Icmp4(_) | Transport::Icmp6(_) => self.icmp += 1,
            Transport::Arp(_) => self.arp += 1,
            Transport::Fragment => self.fragment += 1,
            Transport::OtherIp(protocol) => {
                self.other_ip += 1;
                *self.by_protocol.entry(protocol).or_default() += 1;
            }
            Transport::NotIp(ether_type) => {
                self.not_ip += 1;
                *self.by_ether_type.entry(ether_type).or_default() += 1;
            }
            Transport::UnknownLink => self.unknown_link += 1,
            Transport::Unreadable(reason) => {
                self.unreadable += 1;
                *self.by_reason.entry(reason).or_default() += 1;
            }
        }
    }

    /// A capture has one link type or very few: a list is shorter than a map.
    #[inline]
    fn add_link(&mut self, link: LinkType, n: u64) {
        match self.by_link.iter_mut().find(|(known, _)| *known == link) {
            Some((_, count)) => *count += n,
            None => self.by_link.push((link, n)),
        }
    }
}

fn merge_map<K: Copy + Ord>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (&key, n) in from {
        *into.entry(key).or_default() += n;
    }
}
