//! Link, neighbours, and what ICMP says.

pub mod duplicate_address;
pub mod gateway_moved;
pub mod icmp_admin_prohibited;
pub mod icmp_destination_unreachable;
pub mod icmp_port_unreachable;
pub mod icmp_redirect;
pub mod ip_fragments_lost;
pub mod link_restart_signs;
pub mod neighbor_unresolved;
pub mod routing_loop;

use crate::event::{PacketRef, Side, What};
use crate::flow::facts::{Handshake, IpProtocol};
use crate::rule::Rule;
use crate::rule::finding::{Finding, Severity};
use crate::rule::view::FlowView;
use crate::time::Elapsed;
use crate::wire::icmp::IcmpError;

/// The errors of one meaning about one flow.
struct Quoted<'a> {
    /// The packet of the first one.
    at: PacketRef,
    /// Who sent the packet that was not delivered.
    sender: Side,
    error: &'a IcmpError,
    count: usize,
}

/// The errors about `flow` that `meant` accepts, traceroute left out: it asks for errors.
fn quoted<'a>(flow: &FlowView<'a>, meant: impl Fn(&IcmpError) -> bool) -> Option<Quoted<'a>> {
    const TRACEROUTE: std::ops::RangeInclusive<u16> = 33_434..=33_534;
    let traced = flow.facts.transport == IpProtocol::Udp && TRACEROUTE.contains(&flow.facts.server.port);
    let mut errors = flow.story.events().filter_map(|event| match &event.what {
        What::Icmp(error) if meant(error) => Some((event.at, event.side, error.as_ref())),
        _ => None,
    });
    let (at, sender, error) = errors.next().filter(|_| !traced)?;
    Some(Quoted { at, sender, error, count: 1 + errors.count() })
}

/// Whether anything came of the flow: then the errors are an anecdote.
fn worked(flow: &FlowView<'_>) -> bool {
    flow.facts.handshake == Handshake::Full || flow.server().payload > 0 || flow.facts.mid_stream
}

/// The finding of an ICMP rule: critical where a connection or a lookup failed by it.
fn told(rule: &Rule, flow: &FlowView<'_>, quoted: &Quoted<'_>) -> Finding {
    let Quoted { at, sender, error, count } = quoted;
    let shows = format!("ICMP {}/{} from {}: {}", error.kind, error.code, error.from, words(error));
    let mut finding = rule
        .found(flow, *at, sender.other(), shows)
        .with("router", error.from)
        .with("target", error.destination)
        .with("target_host", error.destination.address)
        .with("source_host", error.source.address)
        .with("says", words(error))
        .with("errors", *count as u64);
    let refused = if *sender == Side::Client { flow.client().first } else { flow.server().first };
    let first = if flow.facts.transport == IpProtocol::Udp { "first datagram" } else { "first packet" };
    finding = finding.and_maybe(refused, *sender, format!("{first} of that side"));
    if error.from == error.destination.address {
        // A kernel that translates gives up on the host behind the address only after it has asked for it on the link.
        let after = refused.map(|first| at.time.since(first.time)).unwrap_or_default();
        let late = after >= Elapsed::millis(700) && !worked(flow) && words(error) == "host unreachable";
        finding = finding.note(match late {
            true => {
                "an address that calls itself unreachable so late is translated: the host behind it does not answer"
            }
            false => "the host that was asked says so itself: its own firewall or kernel",
        });
    } else if error.from == error.source.address {
        finding = finding.note("the asking host tells itself: its own routes or firewall, nothing left it");
    } else {
        finding = finding.note(format!("{} is the last device on the way that works", error.from));
    }
    if worked(flow) {
        let notice = "the connection worked all the same";
        return finding.severity(Severity::Notice).note(notice);
    }
    let lookup = flow.saw(crate::event::Kind::Dns);
    if flow.facts.transport == IpProtocol::Udp && !lookup { finding.severity(Severity::Warning) } else { finding }
}

/// What a destination-unreachable code says. RFC 792, RFC 1812 §5.2.7.1, RFC 4443 §3.1.
fn words(error: &IcmpError) -> &'static str {
    match (error.v6, error.code) {
        (false, 0) => "network unreachable",
        (false, 1) => "host unreachable",
        (false, 3) | (true, 4) => "port unreachable",
        (false, 5) => "source route failed",
        (false, 6) => "network unknown",
        (false, 7) => "host unknown",
        (false, 9) => "network administratively prohibited",
        (false, 10) => "host administratively prohibited",
        (false, 11) => "network unreachable for that type of service",
        (false, 12) => "host unreachable for that type of service",
        (false, 13) | (true, 1) => "communication administratively prohibited",
        (true, 0) => "no route to the destination",
        (true, 3) => "address unreachable",
        (true, 5) => "source address failed the policy",
        (true, 6) => "the route rejects it",
        _ => "destination unreachable",
    }
}

/// Destination unreachable: type 3, ICMPv6 type 1.
fn unreachable(error: &IcmpError) -> bool {
    error.kind == if error.v6 { 1 } else { 3 }
}

#[cfg(test)]
mod tests {
    use crate::event::What;
    use crate::rule::testing::{end, host};
    use crate::wire::icmp::IcmpError;

    /// An error about a packet of 10.0.0.1:40000 to 10.0.0.2:443.
    pub(super) fn icmp(from: &str, kind: u8, code: u8) -> What {
        let (source, destination) = (end("10.0.0.1:40000"), end("10.0.0.2:443"));
        let from = host(from);
        What::Icmp(Box::new(IcmpError {
            kind,
            code,
            v6: false,
            from,
            mtu: None,
            gateway: None,
            source,
            destination,
            protocol: 6,
            ttl: 63,
            seq: None,
        }))
    }
}
