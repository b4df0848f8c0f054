//! What a gateway did while a request waited for its error: it asked nobody because what it may open was busy, or it closed a TLS connection
//! to its backend before it had asked for anything.

use std::collections::BTreeSet;

use crate::event::{Kind, PacketRef, Side};
use crate::rule::finding::{Confidence, Finding};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::CaptureView;
use crate::time::Elapsed;
use crate::wire::Address;

/// Variant of the headline where the proxy asked no backend, and all its connections were busy.
pub(super) const QUEUED: u8 = 1;
/// Variant where the proxy does not accept the certificate of its backend.
pub(super) const DISTRUSTED: u8 = 2;
/// A shorter wait ran into no queue's timeout.
const QUEUE: Elapsed = Elapsed::millis(100);
/// Flows of one port, and connections of the time in question, that are looked at.
const LOOKED_AT: usize = 256;
/// A gateway that gave a connection up answers within this time.
const AT_ONCE: Elapsed = Elapsed::millis(50);

/// The finding about an error with what the proxy's other connections say about it; `asked` and `answered` are the packets of the exchange.
pub(super) fn told(
    finding: Finding,
    front: &FlowSummary,
    (asked, answered): (PacketRef, PacketRef),
    status: u16,
    capture: &CaptureView<'_>,
) -> Finding {
    let begun: Vec<&Digest> = capture.began(asked.time, answered.time).take(LOOKED_AT).collect();
    if begun.len() == LOOKED_AT || asked.file != answered.file {
        return finding;
    }
    let finding = match distrusted(front, answered, &begun, capture) {
        Some((backend, closed)) => {
            return finding
                .cites(backend.facts.id, Some(backend.facts.id), format!("the proxy asks {}", backend.facts.server))
                .cites(closed, Some(backend.facts.id), "it closes that TLS connection without a request")
                .with("backend", backend.facts.server)
                .confidence(Confidence::Medium)
                .variant(DISTRUSTED);
        }
        None => finding,
    };
    let Some((backend, busy)) = queued(front, asked, answered, &begun, capture).filter(|_| status == 503) else {
        return finding;
    };
    let (begins, ends) = (backend.facts.id, backend.facts.last);
    let own = Some(begins);
    finding
        .cites(
            begins,
            own,
            format!("a connection to {} that was busy for the whole time: its first packet", backend.facts.server),
        )
        .cites(ends, own, "and its last")
        .with("backend", backend.facts.server)
        .with("busy", busy)
        .confidence(Confidence::Medium)
        .variant(QUEUED)
}

/// The only connection that the proxy opened meanwhile: TLS to the end of the handshake, and then its own close without a request, right
/// before it answers. That is how nginx refuses a certificate.
fn distrusted<'a>(
    front: &FlowSummary,
    answered: PacketRef,
    begun: &[&Digest],
    capture: &'a CaptureView<'_>,
) -> Option<(&'a FlowSummary, PacketRef)> {
    let mut own = begun.iter().filter_map(|digest| capture.flows.get(&digest.id)).filter(|flow| opens(front, flow));
    let (Some(flow), None) = (own.next(), own.next()) else { return None };
    // Its close_notify: the backend may well be the first to send a FIN then.
    let closed = flow.story.first(Kind::AlertEncrypted, Side::Client)?.at;
    let alerts = [Kind::AlertPlain, Kind::AlertEncrypted];
    let first = alerts.iter().all(|kind| flow.story.first(*kind, Side::Server).is_none_or(|alert| alert.at > closed));
    let nothing = flow.story.first(Kind::TlsData, Side::Client).is_none() && flow.facts.from_client.unseen == 0;
    let then = closed <= answered && answered.time.since(closed.time) <= AT_ONCE;
    (first && nothing && then && flow.story.seen().has(Kind::ServerHello)).then_some((flow, closed))
}

/// Whether the host that `front` asks opened the connection: by its address, or because both leave the capturing host.
fn opens(front: &FlowSummary, flow: &FlowSummary) -> bool {
    const OUT: u8 = 2;
    let here =
        |half: &crate::flow::facts::Half| !half.faces.is_empty() && half.faces.iter().all(|face| face.direction == OUT);
    let both =
        front.facts.id.file == flow.facts.id.file && here(&front.facts.from_server) && here(&flow.facts.from_client);
    front.facts.id != flow.facts.id && (both || flow.facts.client.address == front.facts.server.address)
}

/// A connection for another request of the same port that was busy before, after and all the time between, and how many there were; `None`
/// where the proxy opened one meanwhile that may have been for this request.
fn queued<'a>(
    front: &FlowSummary,
    asked: PacketRef,
    answered: PacketRef,
    begun: &[&Digest],
    capture: &'a CaptureView<'_>,
) -> Option<(&'a FlowSummary, u64)> {
    if answered.time.since(asked.time) < QUEUE || capture.links_of(front.facts.id).next().is_some() {
        return None;
    }
    let others = capture.flows_to(&front.facts.server).take(LOOKED_AT).filter(|other| other.facts.id != front.facts.id);
    let legs =
        others.flat_map(|other| capture.links_of(other.facts.id).filter(|link| link.client_leg == other.facts.id));
    let legs: BTreeSet<PacketRef> = legs.map(|link| link.backend_leg).collect();
    let legs: Vec<&FlowSummary> = legs.iter().filter_map(|leg| capture.flows.get(leg)).collect();
    let proxies: BTreeSet<Address> = legs.iter().map(|leg| leg.facts.client.address).collect();
    let mine = |digest: &&&Digest| {
        proxies.contains(&digest.client().address) && !legs.iter().any(|leg| leg.facts.id == digest.id)
    };
    let busy = |leg: &&&FlowSummary| leg.facts.id < asked && leg.facts.last > answered && waits(leg, asked, answered);
    let mut all = legs.iter().filter(busy);
    let first = all.next().filter(|_| begun.iter().find(mine).is_none())?;
    Some((first, 1 + all.count() as u64))
}

/// Whether the backend was asked before `asked` and answered only after `answered`.
fn waits(leg: &FlowSummary, asked: PacketRef, answered: PacketRef) -> bool {
    crate::rule::exchange::exchanges(&leg.story).iter().any(|one| {
        one.request < asked && one.response_end.or(one.response.map(|(at, _)| at)).is_none_or(|at| at > answered)
    })
}
