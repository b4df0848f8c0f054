//! What proxies answer when their backend fails, and what a failed connection to a backend looks like.

use super::exchange::{Exchange, exchanges};
use super::summary::FlowSummary;
use super::view::{LegsView, Link};
use crate::event::{PacketRef, ResetKind, What};
use crate::flow::facts::{FlowFacts, Handshake};
use crate::wire::http::{Framing, ResponseHead};

/// Octets of HAProxy's own 503 page; it comes without a Server field.
const HAPROXY_PAGE: u64 = 107;
/// How proxies name themselves in the Server field.
const PROXIES: [&str; 10] =
    ["nginx", "awselb", "cloudflare", "cloudfront", "envoy", "varnish", "traefik", "caddy", "openresty", "apache"];

/// Whether the head is that of a page which gateways make themselves: 502 and 504 are no application's words, and a 503 counts where a
/// proxy signs it. A 503 with Retry-After is meant (maintenance, a limit).
pub fn gateway_error(head: &ResponseHead) -> bool {
    match head.status {
        502 | 504 => true,
        503 => head.retry_after.is_none() && signed_by_proxy(head),
        _ => false,
    }
}

/// Whether a proxy signs the answer: in Server or Via, or with the page that only HAProxy has.
pub fn signed_by_proxy(head: &ResponseHead) -> bool {
    let named = head.server.as_deref().is_some_and(|server| {
        let server = server.to_ascii_lowercase();
        PROXIES.iter().any(|name| server.starts_with(name))
    });
    named || head.via.is_some() || haproxy_page(head)
}

/// HAProxy's pages have no Server field, and forbid caching.
fn haproxy_page(head: &ResponseHead) -> bool {
    let length = matches!(head.framing, Framing::Length(n) if n == HAPROXY_PAGE || head.status != 503);
    head.server.is_none() && head.via.is_none() && length && head.identity == 0
}

/// Why a connection never came to be, and the packet that shows it: refused, an ICMP error, or a SYN that nobody answered.
pub fn failed_connect(flow: &FlowSummary) -> Option<(PacketRef, &'static str)> {
    let facts = &flow.facts;
    if facts.mid_stream || facts.handshake > Handshake::Syn {
        return None;
    }
    if let Some(reset) = facts.from_server.resets.iter().find(|reset| reset.kind == ResetKind::Refused) {
        return Some((reset.at, "refused"));
    }
    let icmp = flow.story.events().find(|e| matches!(e.what, What::Icmp(_)));
    if let Some(event) = icmp {
        return Some((event.at, "answered by an ICMP error"));
    }
    let unanswered = facts.from_server.packets == 0;
    facts.from_client.syns.last().filter(|_| unanswered).map(|syn| (*syn, "never answered"))
}

/// The exchange of the client leg that a link is about: the one it names, or the last one of a flow that is joined as a whole.
pub fn client_exchange<'a>(view: &LegsView<'a>) -> Option<Exchange<'a>> {
    let all = exchanges(&view.client_leg?.story);
    let failed = |exchange: &&Exchange<'_>| exchange.response.is_none_or(|(_, head)| gateway_error(head));
    pairs(view.link, false)
        .filter_map(|n| all.get(n).copied())
        .find(|one| failed(&one))
        .or_else(|| if view.link.exchanges.is_empty() { all.last().copied() } else { None })
}

/// Both exchanges of every joined pair.
pub fn joined<'a>(view: &LegsView<'a>) -> Vec<(Exchange<'a>, Exchange<'a>)> {
    let (Some(client), Some(backend)) = (view.client_leg, view.backend_leg) else { return Vec::new() };
    let (client, backend) = (exchanges(&client.story), exchanges(&backend.story));
    let places = pairs(view.link, false).zip(pairs(view.link, true));
    let both = places.filter_map(|(c, b)| Some((*client.get(c)?, *backend.get(b)?)));
    both.collect()
}

fn pairs(link: &Link, backend: bool) -> impl Iterator<Item = usize> {
    link.exchanges.iter().map(move |pair| (if backend { pair.backend } else { pair.client } as usize).wrapping_sub(1))
}

/// Whether the flow carried nothing from its server.
pub fn unanswered(facts: &FlowFacts) -> bool {
    facts.from_server.payload == 0 && facts.from_server.unseen == 0
}
