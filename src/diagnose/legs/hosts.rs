//! Where two legs meet: the host at which the client leg ends and the backend leg begins.
//!
//! The same address, the same link address, or the capturing host itself: a proxy often has one address towards its users and another one
//! towards its backends.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::event::PacketRef;
use crate::flow::facts::{Half, Vantage};
use crate::rule::summary::FlowSummary;
use crate::wire::{Address, Mac};

/// What a host is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// An address of it.
    Address(Address),
    /// A link address of it, in that input.
    Mac(u16, Mac),
    /// The host on which that input was captured.
    Capturing(u16),
}

/// Flow and the names of both of its hosts.
pub(super) struct Hosts(BTreeMap<PacketRef, (Names, Names)>);

/// Names of one host: one of each kind at most.
pub(super) type Names = SmallVec<[Host; 3]>;

impl Hosts {
    /// The hosts of all flows that are kept whole.
    pub(super) fn of(flows: &BTreeMap<PacketRef, FlowSummary>) -> Self {
        Self(flows.iter().map(|(id, flow)| (*id, (runs_client(flow), runs_server(flow)))).collect())
    }

    /// Names of the host that opened the flow.
    pub(super) fn client(&self, flow: PacketRef) -> &[Host] {
        self.0.get(&flow).map_or(&[], |(client, _)| client)
    }

    /// Names of the host that was asked.
    pub(super) fn server(&self, flow: PacketRef) -> &[Host] {
        self.0.get(&flow).map_or(&[], |(_, server)| server)
    }
}

/// Whether `client` ends where `backend` begins.
pub(super) fn meet(client: &FlowSummary, backend: &FlowSummary) -> bool {
    let by_name = || {
        let ends = runs_server(client);
        runs_client(backend).iter().any(|host| ends.contains(host))
    };
    client.facts.server.address == backend.facts.client.address || by_name()
}

/// Names of the host that opened the flow.
fn runs_client(flow: &FlowSummary) -> Names {
    let near = flow.facts.vantage == Vantage::NearClient;
    names(flow, flow.facts.client.address, &flow.facts.from_client, near)
}

/// Names of the host that was asked.
fn runs_server(flow: &FlowSummary) -> Names {
    let near = flow.facts.vantage == Vantage::NearServer;
    names(flow, flow.facts.server.address, &flow.facts.from_server, near)
}

fn names(flow: &FlowSummary, address: Address, half: &Half, near: bool) -> Names {
    let file = flow.facts.id.file;
    let mut names = Names::new();
    names.push(Host::Address(address));
    // A router's copies come in at one side and go out at the other; what only goes out was sent here.
    let sent_here = !half.faces.is_empty() && half.faces.iter().all(|face| face.direction == 2);
    // Round trips tell where the capture point is, but a router beside the host looks the same: only where nothing better is known.
    let unmarked = half.faces.iter().all(|face| face.direction == 0 && face.source.is_none());
    if sent_here || address.is_loopback() || (near && unmarked) {
        names.push(Host::Capturing(file));
    }
    if let [face] = half.faces.as_slice()
        && let Some(mac) = face.source.filter(|mac| mac.0 != [0; 6])
    {
        names.push(Host::Mac(file, mac));
    }
    names
}
