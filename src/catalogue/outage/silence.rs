//! Silences of hosts put together to blackouts: who fell silent toward whom, seen once.

use crate::event::PacketRef;
use crate::host::grid::{Quiet, Silence};
use crate::rule::finding::Confidence;
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::{CaptureView, Known};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Mac};

/// Packets in ten seconds that make a host one whose silence means something (one a second).
const HEARD: u32 = 10;
/// Connections that ask, and those of them that ask again.
const FLOWS: u32 = 3;
const REPEATING: u32 = 3;
/// Silences that begin this close together are one event.
const TOGETHER: Elapsed = Elapsed::secs(3);
/// An answer this close to the ends of a blackout may belong to the time before or behind it.
const MARGIN: Elapsed = Elapsed::secs(1);
/// The port of resolvers.
const DNS: u16 = 53;
/// Blackouts told; a network that flaps for hours says nothing new after these.
const TOLD: usize = 64;

/// One time in which nothing came from (or to) one or more hosts.
pub(super) struct Blackout<'a> {
    /// The silences of its hosts, the earliest first.
    pub silences: Vec<&'a Silence>,
}

impl Blackout<'_> {
    /// The hosts that were silent, or heard nothing; behind a hop the first ones that did not answer.
    pub fn hosts(&self) -> Vec<Address> {
        let of = |silence: &&Silence| match silence.quiet {
            Quiet::Hop => silence.others.clone(),
            Quiet::Mute | Quiet::Deaf => vec![silence.host],
        };
        let mut hosts: Vec<Address> = self.silences.iter().flat_map(of).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The hosts on the other side.
    pub fn others(&self) -> Vec<Address> {
        let of = |silence: &&Silence| match silence.quiet {
            Quiet::Hop => vec![silence.host],
            Quiet::Mute | Quiet::Deaf => silence.others.clone(),
        };
        let mut others: Vec<Address> = self.silences.iter().flat_map(of).collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Nothing came to a host that asked several others: all of the network is gone for it.
    pub fn deaf(&self) -> bool {
        self.silences[0].quiet == Quiet::Deaf
    }

    /// The link address behind which they are, when all of them are.
    pub fn hop(&self) -> Option<Mac> {
        self.silences[0].hop
    }

    /// First unanswered packet to first packet heard again (or the capture's end).
    pub fn span(&self, end: Timestamp) -> (Timestamp, Timestamp) {
        let spans = self.silences.iter().map(|silence| silence.span(end));
        spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((end, end))
    }

    /// First packet heard again; `None` while one of them is still silent. Whether it answers again, [`Blackout::answers`] says.
    pub fn until(&self) -> Option<PacketRef> {
        self.silences.iter().map(|silence| silence.until).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Whether a silent host does not only say something of its own accord, as probes of idle connections are, but answers again what it is
    /// sent. Where nothing was sent to it that shows either, it is taken to answer.
    pub fn answers(&self, back: PacketRef, capture: &CaptureView<'_>) -> bool {
        let (hosts, others) = (silent(self), if self.deaf() { self.hosts() } else { self.others() });
        let from = self.silences[0].asked.time;
        let mut vain = false;
        for (client, server, flows) in capture.pairs() {
            let asked = hosts.contains(&server.address) && others.contains(&client);
            if !(asked || hosts.contains(&client) && others.contains(&server.address)) {
                continue;
            }
            for flow in flows.iter().filter(|flow| flow.digest.last >= back.time) {
                let began = flow.digest.id.time >= from;
                if began && (flow.digest.accepted || flow.digest.answered) {
                    return true;
                }
                match flow.whole {
                    None if !began => return true,
                    None => vain |= asked,
                    Some(whole) => match heard(whole, asked, from, back) {
                        Some(true) => return true,
                        Some(false) => vain = true,
                        None => {}
                    },
                }
            }
        }
        !vain
    }

    /// What several hosts or the link's own silence prove beyond one host's.
    pub fn confidence(&self) -> Confidence {
        let arp: u64 = self.silences.iter().map(|silence| silence.arp).sum();
        let many = match self.silences[0].quiet {
            Quiet::Mute => false,
            Quiet::Deaf | Quiet::Hop => self.silences[0].others.len() >= 2,
        };
        if arp >= 3 || many {
            Confidence::Certain
        } else if self.silences.len() >= 2 {
            Confidence::High
        } else {
            Confidence::Medium
        }
    }
}

/// Every blackout in order of time. A host that hears nothing from one other host is told as that other's silence; the silence of many
/// toward one host as its own deafness.
pub(super) fn blackouts<'a>(capture: &CaptureView<'a>) -> Vec<Blackout<'a>> {
    let real: Vec<&Silence> = capture.grid.silences.iter().filter(|silence| means_something(silence)).collect();
    let shadowed = |one: &Silence| real.iter().any(|other| shadows(other, one) && overlap(one, other, capture.end));
    let mut blackouts: Vec<Blackout<'a>> = Vec::new();
    for silence in real.iter().copied().filter(|silence| !shadowed(silence)) {
        let together = blackouts.iter_mut().rev().take(TOLD).find(|known| {
            let first = known.silences[0];
            first.quiet == silence.quiet
                && silence.asked.time.since(first.asked.time) <= TOGETHER
                && overlap(first, silence, capture.end)
        });
        match together {
            Some(known) => known.silences.push(silence),
            None => blackouts.push(Blackout { silences: vec![silence] }),
        }
    }
    blackouts.truncate(TOLD);
    blackouts.retain(|blackout| {
        let own = one_dead_host(blackout, capture) || one_dead_port(blackout, capture);
        !own && !only_resolvers(blackout, capture) && !alive_on_link(blackout, capture)
    });
    blackouts
}

/// The hosts of which nothing came.
fn silent(blackout: &Blackout<'_>) -> Vec<Address> {
    if blackout.deaf() { blackout.others() } else { blackout.hosts() }
}

/// Resolvers that do not answer, where nothing else was asked of them: that is theirs (`dns-outage`), and the way to them was not tried.
fn only_resolvers(blackout: &Blackout<'_>, capture: &CaptureView<'_>) -> bool {
    let silent = silent(blackout);
    let (from, until) = blackout.span(capture.end);
    let meanwhile = |digest: &&Digest| digest.last >= from && digest.id.time <= until;
    let mut asked = capture
        .servers()
        .filter(|(server, flows)| silent.contains(&server.address) && flows.iter().copied().any(|one| meanwhile(&one)));
    let mut any = false;
    asked.all(|(server, _)| {
        any = true;
        server.port == DNS
    }) && any
}

/// Whether one of the silent hosts answered ARP or neighbour discovery meanwhile: the way to it works.
fn alive_on_link(blackout: &Blackout<'_>, capture: &CaptureView<'_>) -> bool {
    let (from, until) = blackout.span(capture.end);
    let within = |at: &PacketRef| at.time > from + MARGIN && at.time + MARGIN < until;
    silent(blackout).iter().filter_map(|host| capture.neighbors.by_address.get(host)).any(|known| {
        known
            .answers
            .iter()
            .filter(|answered| !answered.own)
            .flat_map(|answered| answered.times.first.iter().chain(&answered.times.last))
            .any(within)
    })
}

/// Whether what was sent to the silent side of a flow from then on had an effect on it; `None` where nothing was.
fn heard(flow: &FlowSummary, asked: bool, from: Timestamp, back: PacketRef) -> Option<bool> {
    let (to, by) = match asked {
        true => (&flow.facts.from_client, &flow.facts.from_server),
        false => (&flow.facts.from_server, &flow.facts.from_client),
    };
    let sent = to.last_payload.is_some_and(|last| last.time >= from)
        || to.fin.is_some_and(|fin| fin.time >= from)
        || to.syns.last().is_some_and(|last| *last >= back);
    // It may say something itself without having heard: an acknowledgment tells.
    let waits = to.unacknowledged.is_some() || by.packets == 0 || by.last.is_none_or(|last| last < back);
    sent.then_some(!waits)
}

/// Whether either side sent something again from then on.
fn repeats(flow: &FlowSummary, from: Timestamp) -> bool {
    [&flow.facts.from_client, &flow.facts.from_server].into_iter().any(|half| {
        half.unacknowledged.is_some_and(|waits| waits.copies > 1 && waits.last.time >= from)
            || half.loss.span.is_some_and(|(_, last)| last.time >= from)
    })
}

/// One host that accepts no new connection, while the host that asks it hears others and no open connection was cut: that is the host's own
/// affair (`connect-timeout`, `service-down`), not the network's.
fn one_dead_host(blackout: &Blackout<'_>, capture: &CaptureView<'_>) -> bool {
    let (silent, askers) = match (blackout.hop(), blackout.deaf()) {
        (Some(_), _) => return false,
        (None, true) => (blackout.others(), blackout.hosts()),
        (None, false) => (blackout.hosts(), blackout.others()),
    };
    let [silent] = silent.as_slice() else { return false };
    let (from, until) = blackout.span(capture.end);
    let mut here = capture.neighbors.machines(&askers);
    // A proxy has another address towards its clients.
    for link in capture.links {
        let ends = (capture.flows.get(&link.client_leg), capture.flows.get(&link.backend_leg));
        if let (Some(client), Some(backend)) = ends
            && here.contains(&backend.facts.client.address)
            && !here.contains(&client.facts.server.address)
        {
            here.push(client.facts.server.address);
        }
    }
    // It says something itself and is asked on, in vain.
    let mut others_answer = blackout.until().is_some_and(|back| !blackout.answers(back, capture));
    let open = |digest: &Digest| (digest.accepted || digest.answered) && digest.last > from && digest.id.time < until;
    for (client, server, flows) in capture.pairs() {
        let mut meanwhile = flows.iter().filter(|flow| open(flow.digest));
        let cut = |flow: &Known<'_>| flow.whole.map_or(flow.digest.last > until, |flow| repeats(flow, from));
        if client == *silent || server.address == *silent {
            if meanwhile.any(cut) {
                return false;
            }
        } else if here.contains(&client) != here.contains(&server.address) {
            others_answer |= meanwhile.next().is_some();
        }
    }
    others_answer
}

/// One host that hears nothing of one other, because all it asks there is one port, and that port answers others as little.
fn one_dead_port(blackout: &Blackout<'_>, capture: &CaptureView<'_>) -> bool {
    let (hosts, others) = (blackout.hosts(), blackout.others());
    let ([host], [other], true) = (hosts.as_slice(), others.as_slice(), blackout.deaf()) else { return false };
    let (from, until) = blackout.span(capture.end);
    let vain = |digest: &&Digest| !digest.accepted && !digest.answered && digest.last >= from;
    let mut ports = capture.servers().filter_map(|(server, flows)| {
        let here = server.address == *other;
        let mut meanwhile = flows.iter().copied().filter(|digest| here && digest.id.time < until).filter(vain);
        meanwhile.any(|digest| digest.client().address == *host).then_some(*server)
    });
    let (Some(port), None) = (ports.next(), ports.next()) else { return false };
    let mut all = capture.began_to(&port, from, until).filter(vain);
    all.any(|digest| digest.client().address != *host)
}

/// Whether the wider silence is all there is to say of the narrower one.
fn shadows(wider: &Silence, one: &Silence) -> bool {
    let (more, fewer) = (wider.others.len(), one.others.len());
    match (wider.quiet, one.quiet) {
        // Of one pair the host that does not answer is told.
        (Quiet::Mute, Quiet::Deaf) => one.others == [wider.host] && more >= fewer,
        (Quiet::Deaf, Quiet::Mute) => one.others == [wider.host] && more > fewer,
        (Quiet::Deaf, Quiet::Hop) => {
            let shared = one.others.iter().any(|other| wider.others.contains(other));
            more > 1 && (wider.host == one.host || shared)
        }
        (Quiet::Hop, Quiet::Mute) => more > 1 && wider.others.contains(&one.host),
        (Quiet::Hop, Quiet::Deaf) => fewer == 1 && more > 1 && wider.others.contains(&one.others[0]),
        (Quiet::Mute, Quiet::Hop) => fewer == 1 && one.others == [wider.host],
        (Quiet::Mute, Quiet::Mute) | (Quiet::Deaf, Quiet::Deaf) | (Quiet::Hop, Quiet::Hop) => false,
    }
}

fn means_something(silence: &Silence) -> bool {
    // One host behind a link address is that host's own silence, and where nobody was asked for long nobody was silent.
    silence.others.len() > usize::from(silence.quiet == Quiet::Hop)
        && silence.rate >= HEARD
        && silence.flows >= FLOWS
        && (silence.repeating >= REPEATING || silence.arp >= 3)
}

/// Whether both share at least four fifths of the shorter one's time.
fn overlap(one: &Silence, other: &Silence, end: Timestamp) -> bool {
    let (a, b) = (one.span(end), other.span(end));
    let shared = a.1.min(b.1).since(a.0.max(b.0));
    let shorter = a.1.since(a.0).min(b.1.since(b.0));
    shared.0 > 0 && shared.0 / 4 >= shorter.0 / 5
}
