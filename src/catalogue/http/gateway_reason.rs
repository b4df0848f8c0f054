//! What a gateway did while a request waited for its error: it asked nobody because what it may open was busy, it closed a TLS connection to
//! its backend before it had asked for anything, or it had no address of the backend.

use std::collections::BTreeSet;

use super::super::dns::code_name;
use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::IpProtocol;
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Finding, WAITED_FOR};
use crate::rule::lookup::{Lookup, lookups, type_name};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Address;

/// Variant of the headline where the proxy asked no backend, and all its connections were busy.
pub(super) const QUEUED: u8 = 1;
/// Variant where the proxy does not accept the certificate of its backend.
pub(super) const DISTRUSTED: u8 = 2;
/// Variant where the DNS gave the proxy no address.
pub(super) const NAMELESS: u8 = 3;
/// Variant where nobody answers for the link address of the backend that it had.
pub(super) const ABSENT: u8 = 4;
/// A resolver remembers for about so long that a name has no address.
const REMEMBERED: Elapsed = Elapsed::secs(5);
/// A question that waited for so long was given up.
const GIVEN_UP: Elapsed = Elapsed::secs(1);
/// A host asks for a link address three times in this time.
const ASKING: Elapsed = Elapsed::secs(2);
/// Requests that come together are passed on together.
const BESIDE: Elapsed = Elapsed::millis(5);
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
    let opened: Vec<&FlowSummary> =
        begun.iter().filter_map(|digest| capture.flows.get(&digest.id)).filter(|flow| opens(front, flow)).collect();
    // What is known to be another request's says nothing of this one.
    let of_another = |flow: &FlowSummary| {
        let id = flow.facts.id;
        capture.links_of(id).any(|link| link.backend_leg == id && link.client_leg != front.facts.id)
    };
    let alone: Vec<&FlowSummary> = opened.iter().copied().filter(|flow| !of_another(flow)).collect();
    if let Some((backend, closed)) = distrusted(&alone, answered) {
        let own = Some(backend.facts.id);
        return finding
            .and_on(own, backend.facts.id, Side::Client, format!("the proxy connects to {}", backend.facts.server))
            .and_on(own, closed, Side::Client, "it closes that TLS connection without a request")
            .with("backend", backend.facts.server)
            .with(WAITED_FOR, backend.facts.server)
            .confidence(Confidence::Medium)
            .variant(DISTRUSTED);
    }
    let asked_one = capture.links_of(front.facts.id).next().is_some();
    if !asked_one && !opened.iter().any(|flow| flow.facts.transport == IpProtocol::Tcp) {
        // What the proxy asked a moment before it remembers, or still waits for.
        let before = capture.began(asked.time - REMEMBERED, answered.time).take(LOOKED_AT);
        let before = before.filter_map(|digest| capture.flows.get(&digest.id)).filter(|flow| opens(front, flow));
        if let Some(nameless) = nameless(before, answered) {
            return nameless.told(finding);
        }
        if let Some((host, at)) = absent(front, asked, answered, capture) {
            return finding
                .cites(at, None, format!("the proxy asks who has {host}, and nobody answers"))
                .with("absent", host)
                .with(WAITED_FOR, host)
                .variant(ABSENT);
        }
    }
    let Some((busy, count)) = queued(front, asked, answered, &begun, capture).filter(|_| status == 503) else {
        return finding;
    };
    let (own, backend) = (Some(busy.leg.facts.id), busy.leg.facts.server);
    let finding = finding.and_on(own, busy.request, Side::Client, format!("another request is sent to {backend}"));
    let finding = match busy.answer {
        Some(answer) => finding.and_on(own, answer, Side::Server, "its answer: that connection was busy until then"),
        None => finding,
    };
    finding.with("backend", backend).with("busy", count).confidence(Confidence::Medium).variant(QUEUED)
}

/// A host that was a backend of this port before, for which the proxy asks in vain while the request waits.
fn absent(
    front: &FlowSummary,
    asked: PacketRef,
    answered: PacketRef,
    capture: &CaptureView<'_>,
) -> Option<(Address, PacketRef)> {
    let others = capture.began_to(&front.facts.server, Timestamp::MIN, asked.time).take(LOOKED_AT);
    let others = others.map(|other| other.id);
    let legs = others.flat_map(|other| capture.links_of(other).filter(move |link| link.client_leg == other));
    let pairs: BTreeSet<(Address, Address)> = legs
        .filter_map(|link| capture.digest_of(link.backend_leg))
        .map(|backend| (backend.client().address, backend.server().address))
        .collect();
    // Another request may have begun to ask.
    let meanwhile = |at: &&PacketRef| at.time >= asked.time - ASKING && **at <= answered;
    pairs.into_iter().find_map(|(proxy, backend)| {
        let known = capture.neighbors.by_address.get(&backend)?;
        let times = known.askers.get(&proxy)?;
        let answers = || known.answers.iter().flat_map(|told| told.times.first.iter().chain(&told.times.last));
        let vain = |at: &&PacketRef| !answers().any(|answer| answer > *at && *answer <= answered);
        let at = times.first.iter().chain(&times.last).filter(meanwhile).find(vain)?;
        Some((backend, *at))
    })
}

/// The only connection that the proxy opened meanwhile: TLS to the end of the handshake, and then its own close without a request, right
/// before it answers. That is how nginx refuses a certificate.
fn distrusted<'a>(own: &[&'a FlowSummary], answered: PacketRef) -> Option<(&'a FlowSummary, PacketRef)> {
    let mut tcp = own.iter().filter(|flow| flow.facts.transport == IpProtocol::Tcp);
    let (Some(flow), None) = (tcp.next(), tcp.next()) else { return None };
    // Its close_notify: the backend may well be the first to send a FIN then.
    let closed = flow.story.first(Kind::AlertEncrypted, Side::Client)?.at;
    let alerts = [Kind::AlertPlain, Kind::AlertEncrypted];
    let first = alerts.iter().all(|kind| flow.story.first(*kind, Side::Server).is_none_or(|alert| alert.at > closed));
    let nothing = flow.story.first(Kind::TlsData, Side::Client).is_none() && flow.facts.from_client.unseen == 0;
    let then = closed <= answered && answered.time.since(closed.time) <= AT_ONCE;
    (first && nothing && then && flow.story.seen().has(Kind::ServerHello)).then_some((flow, closed))
}

/// A question of the proxy that brought no address.
struct Nameless<'a> {
    flow: &'a FlowSummary,
    lookup: Lookup<'a>,
    how: String,
}

/// The proxy asked the DNS, and no answer had an address.
fn nameless<'a>(own: impl Iterator<Item = &'a FlowSummary>, answered: PacketRef) -> Option<Nameless<'a>> {
    let asked = own.filter(|flow| flow.story.seen().has(Kind::Dns));
    let all: Vec<(&FlowSummary, Lookup<'_>)> =
        asked.flat_map(|flow| lookups(&flow.story).into_iter().map(move |lookup| (flow, lookup))).collect();
    let address = |lookup: &Lookup<'_>| lookup.answer.is_some_and(|(at, answer)| at <= answered && answer.rcode == 0);
    if all.iter().any(|(_, lookup)| address(lookup)) {
        return None;
    }
    all.into_iter().rev().find_map(|(flow, lookup)| {
        let how = match lookup.answer.filter(|(at, _)| *at <= answered) {
            Some((_, answer)) => code_name(answer.rcode).to_owned(),
            None => {
                let waited = answered.time.since(lookup.first().time);
                (waited >= GIVEN_UP).then(|| format!("no answer in {waited}"))?
            }
        };
        Some(Nameless { flow, lookup, how })
    })
}

impl Nameless<'_> {
    fn told(self, finding: Finding) -> Finding {
        let (id, question) = (self.flow.facts.id, self.lookup.question);
        let asks = format!("the proxy asks for {} {}", type_name(question.qtype), question.name);
        let finding = finding.and_on(Some(id), self.lookup.first(), Side::Client, asks);
        let finding = match self.lookup.answer.filter(|(at, _)| *at <= finding.last()) {
            Some((at, _)) => finding.and_on(Some(id), at, Side::Server, self.how.clone()),
            None => finding,
        };
        finding
            .with("resolver", self.flow.facts.server)
            .with("resolver_host", self.flow.facts.server.address)
            .with("asked_name", Value::Packet(question.name.to_string()))
            .with("how", self.how)
            .with(WAITED_FOR, id)
            .variant(NAMELESS)
    }
}

/// Whether the host that `front` asks opened the connection: by its address, or because both leave the capturing host.
fn opens(front: &FlowSummary, flow: &FlowSummary) -> bool {
    const OUT: u8 = 2;
    let here =
        |half: &crate::flow::facts::Half| !half.faces.is_empty() && half.faces.iter().all(|face| face.direction == OUT);
    let both =
        front.facts.id.file == flow.facts.id.file && here(&front.facts.from_server) && here(&flow.facts.from_client);
    let (client, server) = (flow.facts.client.address, front.facts.server.address);
    let within = front.facts.id.file == flow.facts.id.file && client.is_loopback();
    front.facts.id != flow.facts.id && (both || within || client == server)
}

/// A connection to a backend that was busy with another request, from before `asked` until after `answered`.
struct Busy<'a> {
    leg: &'a FlowSummary,
    request: PacketRef,
    answer: Option<PacketRef>,
}

/// A busy connection for another request of the same port, and how many there were; `None` where the proxy opened one meanwhile that may have
/// been for this request.
fn queued<'a>(
    front: &FlowSummary,
    asked: PacketRef,
    answered: PacketRef,
    begun: &[&Digest],
    capture: &'a CaptureView<'_>,
) -> Option<(Busy<'a>, u64)> {
    if answered.time.since(asked.time) < QUEUE || capture.links_of(front.facts.id).next().is_some() {
        return None;
    }
    let others = capture.flows_to(&front.facts.server).take(LOOKED_AT).filter(|other| other.facts.id != front.facts.id);
    let legs =
        others.flat_map(|other| capture.links_of(other.facts.id).filter(|link| link.client_leg == other.facts.id));
    // Of like requests nobody knows which is which, but they belong to this port.
    let here = |id: &PacketRef| capture.digest_of(*id).is_some_and(|flow| flow.server() == front.facts.server);
    let open = capture.open_links.iter().filter(|open| open.alike() && open.candidates.iter().any(here));
    let legs: BTreeSet<PacketRef> =
        legs.map(|link| link.backend_leg).chain(open.map(|open| open.backend_leg)).collect();
    let legs: Vec<&FlowSummary> = legs.iter().filter_map(|leg| capture.flows.get(leg)).collect();
    let proxies: BTreeSet<Address> = legs.iter().map(|leg| leg.facts.client.address).collect();
    let mine = |digest: &&&Digest| {
        // A health check that only connects asks for nothing.
        let checks = digest.accepted && !digest.answered && digest.last < answered.time;
        proxies.contains(&digest.client().address) && !checks && !legs.iter().any(|leg| leg.facts.id == digest.id)
    };
    let mut all = legs.iter().filter_map(|leg| busy(leg, asked, answered));
    let first = all.next().filter(|_| begun.iter().find(mine).is_none())?;
    Some((first, 1 + all.count() as u64))
}

fn busy(leg: &FlowSummary, asked: PacketRef, answered: PacketRef) -> Option<Busy<'_>> {
    let all = exchanges(&leg.story);
    let one = all.iter().find(|one| {
        let end = one.response_end.or(one.response.map(|(at, _)| at)).unwrap_or(leg.facts.last);
        one.request.time < asked.time + BESIDE && end > answered
    })?;
    Some(Busy { leg, request: one.request, answer: one.response.map(|(at, _)| at) })
}

#[cfg(test)]
mod tests {
    use super::super::http_gateway_error::RULE;
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question, end};
    use crate::rule::view::{ExchangePair, Link, LinkMethod};
    use crate::wire::http::ResponseHead;

    /// A request at 3 ms that a proxy answers with `status` at `ms`.
    fn front(status: u16, ms: i64) -> Scene {
        let head = ResponseHead { status, server: Some("nginx".into()), ..Default::default() };
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.2:80").handshake().request(3, "GET", "/", 80);
        scene.data(Side::Server, ms, 300).also(Side::Server, What::Response(Box::new(head)))
    }

    fn told(front: &Scene, others: &[&Scene], links: Vec<Link>) -> Finding {
        let finding = front.check(&RULE).expect("a gateway's");
        let mut world = others.iter().fold(World::new().with(front), |world, other| world.with(other));
        world.links = links;
        world.corroborated(&RULE, finding).expect("kept")
    }

    fn lookup(ms: i64, answer: Option<u16>) -> Scene {
        let scene = Scene::starting("10.0.0.2:50000", "10.0.0.53:53", 50, ms).udp();
        let scene = scene.event(Side::Client, 0, dns_question(7, "app.example", 1));
        match answer {
            Some(0) => scene.event(Side::Server, 5, dns_answer(7, "app.example", 1, 0, &["192.0.2.1"])),
            Some(code) => scene.event(Side::Server, 5, dns_answer(7, "app.example", 1, code, &[])),
            None => scene,
        }
    }

    #[test]
    fn a_name_without_an_address_is_why_nobody_was_asked() {
        let finding = told(&front(502, 40), &[&lookup(10, Some(2))], Vec::new());
        assert_eq!((finding.variant, finding.values.get("how")), (NAMELESS, Some(&"SERVFAIL".into())));
        assert_eq!(finding.evidence.len(), 4);
        assert_eq!(finding.values.get("resolver"), Some(&end("10.0.0.53:53").into()));
        assert_eq!(told(&front(502, 3_010), &[&lookup(10, None)], Vec::new()).variant, NAMELESS);
        assert_eq!(told(&front(502, 40), &[&lookup(10, None)], Vec::new()).variant, 0, "it did not wait for it");
        assert_eq!(told(&front(502, 40), &[&lookup(10, Some(0))], Vec::new()).variant, 0, "it has one");
        let connects = Scene::starting("10.0.0.2:50002", "10.0.0.3:80", 70, 20).handshake();
        assert_eq!(told(&front(502, 40), &[&lookup(10, Some(2)), &connects], Vec::new()).variant, 0);
    }

    #[test]
    fn a_backend_that_was_there_and_has_no_link_address_any_more_is_named() {
        let told = |answered: bool| {
            let served = Scene::starting("10.0.0.9:40000", "10.0.0.2:80", 100, -5_000).handshake();
            let backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:8080", 150, -4_990).handshake();
            let link = Link::whole(served.facts.id, backend.facts.id, LinkMethod::RequestLine, Confidence::High);
            let front = front(504, 2_003);
            let mut world = World::new().with(&front).with_good(&served).with_good(&backend);
            let at = |ms: i64| PacketRef { file: 0, number: 500, time: Timestamp::default() + Elapsed::millis(ms) };
            let times = |ms: i64| crate::host::neighbor::Times { count: 1, first: vec![at(ms)], last: Some(at(ms)) };
            let known = world.neighbors.by_address.entry(crate::rule::testing::host("10.0.0.3")).or_default();
            known.askers.insert(crate::rule::testing::host("10.0.0.2"), times(4));
            if answered {
                known.answers.push(crate::host::neighbor::Answered {
                    mac: crate::wire::Mac([2; 6]),
                    times: times(5),
                    unasked: 0,
                    announced: crate::host::neighbor::Times::default(),
                    own: false,
                });
            }
            world.links = vec![link];
            world.corroborated(&RULE, front.check(&RULE).expect("a gateway's")).expect("kept")
        };
        let finding = told(false);
        assert_eq!((finding.variant, finding.evidence.len()), (ABSENT, 3));
        assert_eq!(finding.values.get(WAITED_FOR), Some(&crate::rule::testing::host("10.0.0.3").into()));
        assert_eq!(told(true).variant, 0);
    }

    /// The proxy's TLS connection that it closes by an alert at 25 ms, or asks on.
    fn tls(asks: bool) -> Scene {
        let scene = Scene::starting("10.0.0.2:50000", "10.0.0.3:443", 50, 10).handshake();
        let scene = crate::rule::trust::samples::tls_12_on(scene, Vec::new());
        let scene = if asks { scene.data(Side::Client, 12, 90).also(Side::Client, What::TlsData) } else { scene };
        scene.event(Side::Client, 15, What::AlertEncrypted { len: 26, alone: true })
    }

    #[test]
    fn a_tls_connection_that_the_proxy_closes_before_it_asks_is_refused_by_it() {
        let finding = told(&front(502, 40), &[&tls(false)], Vec::new());
        assert_eq!((finding.variant, finding.confidence), (DISTRUSTED, Confidence::Medium));
        assert_eq!(told(&front(502, 40), &[&tls(true)], Vec::new()).variant, 0, "it asked");
        assert_eq!(told(&front(502, 2_000), &[&tls(false)], Vec::new()).variant, 0, "long before");
    }

    #[test]
    fn a_503_while_the_only_connection_was_busy_is_a_queue() {
        let (waits, mut first) = (front(503, 1_005), Scene::starting("10.0.0.1:40002", "10.0.0.2:80", 100, -900));
        first = first.handshake().request(3, "GET", "/a", 80).response(2_500, 200, 40);
        let leg = |ms: i64, answer: i64| {
            let scene = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 200, ms).handshake();
            scene.request(3, "GET", "/a", 80).response(answer, 200, 40)
        };
        let link = |leg: &Scene| {
            let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
            let link = Link::whole(first.facts.id, leg.facts.id, LinkMethod::RequestLine, Confidence::High);
            vec![Link { exchanges: vec![pair], ..link }]
        };
        let variant = |leg: &Scene, beside: &[&Scene]| {
            let others: Vec<&Scene> = [&first, leg].into_iter().chain(beside.iter().copied()).collect();
            told(&waits, &others, link(leg)).variant
        };
        assert_eq!(variant(&leg(-800, 2_300), &[]), QUEUED);
        assert_eq!(variant(&leg(-800, 1_200), &[]), 0, "it was free in between");
        let tried = Scene::starting("10.0.0.2:50002", "10.0.0.3:80", 300, 10).syn(0);
        assert_eq!(variant(&leg(-800, 2_300), &[&tried]), 0, "a backend was asked");
    }
}
