//! Which legs are joined, and which are not.

use std::collections::BTreeMap;

use super::*;
use crate::event::{Protocol, Side, What};
use crate::rule::testing::Scene;
use crate::wire::http::{RequestHead, ResponseHead};
use crate::wire::tls::ClientHello;

pub(super) const CLIENT: &str = "203.0.113.7:40000";
pub(super) const FRONT: &str = "10.0.0.2:80";
pub(super) const OUT: &str = "10.0.0.2:50000";
pub(super) const BACK: &str = "10.0.0.3:8080";

pub(super) fn joined(scenes: &[Scene]) -> Legs {
    let flows: BTreeMap<PacketRef, FlowSummary> =
        scenes.iter().map(|scene| (scene.facts.id, scene.summary())).collect();
    link(&flows, &Digests::default())
}

/// Client leg and backend leg by number, methods, certainty.
pub(super) fn told(legs: &Legs) -> Vec<(u64, u64, Vec<LinkMethod>, Confidence)> {
    let row = |link: &Link| (link.client_leg.number, link.backend_leg.number, link.methods.clone(), link.certainty);
    legs.links.iter().map(row).collect()
}

/// A connection with its own initial sequence number.
pub(super) fn opened(client: &str, server: &str, number: u64, start: i64) -> Scene {
    let mut scene = Scene::starting(client, server, number, start).handshake();
    scene.facts.from_client.isn = Some(crate::wire::seq::Seq(number as u32));
    scene
}

pub(super) fn asks(scene: Scene, ms: i64, head: RequestHead) -> Scene {
    let scene = scene.data(Side::Client, ms, 80).speaks(Side::Client, Protocol::Http);
    scene.also(Side::Client, What::Request(Box::new(head))).also(Side::Client, What::RequestEnd)
}

pub(super) fn get(target: &str, host: &str) -> RequestHead {
    RequestHead { method: "GET".into(), target: target.into(), host: Some(host.into()), ..RequestHead::default() }
}

pub(super) fn answers(scene: Scene, ms: i64, status: u16, identity: u64) -> Scene {
    let head = ResponseHead { status, identity, ..ResponseHead::default() };
    scene
        .data(Side::Server, ms, 80)
        .also(Side::Server, What::Response(Box::new(head)))
        .also(Side::Server, What::ResponseEnd)
}

#[test]
fn the_same_request_line_at_the_proxys_host_joins_two_requests() {
    let front = answers(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop")), 30, 200, 7);
    let back = answers(asks(opened(OUT, BACK, 100, 4), 3, get("/a", "shop")), 20, 200, 7);
    let legs = joined(&[front, back]);
    let methods = vec![LinkMethod::RequestLine, LinkMethod::SameAnswer];
    assert_eq!(told(&legs), [(1, 100, methods, Confidence::High)]);
    assert_eq!((legs.links[0].exchanges[0].client, legs.links[0].exchanges[0].backend), (1, 1));
}

#[test]
fn a_request_at_another_host_or_after_the_answer_is_no_leg() {
    let front = || answers(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop")), 10, 200, 0);
    let stranger = asks(opened("10.0.0.9:50000", BACK, 100, 4), 3, get("/a", "shop"));
    assert_eq!(told(&joined(&[front(), stranger])), []);
    let late = asks(opened(OUT, BACK, 100, 400), 3, get("/a", "shop"));
    assert_eq!(told(&joined(&[front(), late])), []);
}

#[test]
fn keep_alive_joins_requests_and_not_connections() {
    let other = asks(opened("203.0.113.8:40000", FRONT, 50, 1), 103, get("/b", "shop"));
    let front = asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop"));
    let back = answers(asks(opened(OUT, BACK, 100, 4), 3, get("/a", "shop")), 20, 200, 0);
    let back = asks(back, 103, get("/b", "shop"));
    let legs = joined(&[front, other, back]);
    let pairs: Vec<(u64, u32, u32)> = legs
        .links
        .iter()
        .flat_map(|link| link.exchanges.iter().map(|pair| (link.client_leg.number, pair.client, pair.backend)))
        .collect();
    assert_eq!(pairs, [(1, 1, 1), (50, 1, 2)]);
}

#[test]
fn a_request_id_is_certain_whatever_the_path() {
    let id = |value: &str| vec![("traceparent".into(), value.into())];
    let trace = "00-0af7651916cd43dd8448eb211c80319c";
    let head = RequestHead { ids: id(&format!("{trace}-b7ad6b7169203331-01")), ..get("/public", "shop") };
    let front = asks(opened(CLIENT, FRONT, 1, 0), 3, head);
    let head = RequestHead { ids: id(&format!("{trace}-00f067aa0ba902b7-01")), ..get("/x", "inner") };
    let back = asks(opened(OUT, BACK, 100, 4), 3, head);
    assert_eq!(told(&joined(&[front, back])), [(1, 100, vec![LinkMethod::RequestId], Confidence::Certain)]);
}

#[test]
fn a_forwarded_address_is_high_with_the_request_line_and_medium_alone() {
    let forwarded = |target: &str| RequestHead {
        forwarded: vec![("x-forwarded-for".into(), "203.0.113.7".into())],
        ..get(target, "shop")
    };
    let front = || asks(opened(CLIENT, FRONT, 1, 0), 3, get("/public", "shop"));
    let legs = joined(&[front(), asks(opened(OUT, BACK, 100, 4), 3, forwarded("/public"))]);
    let methods = vec![LinkMethod::ForwardedFor, LinkMethod::RequestLine];
    assert_eq!(told(&legs), [(1, 100, methods, Confidence::High)]);
    let legs = joined(&[front(), asks(opened(OUT, BACK, 100, 4), 3, forwarded("/x"))]);
    assert_eq!(told(&legs), [(1, 100, vec![LinkMethod::ForwardedFor], Confidence::Medium)]);
}

#[test]
fn two_that_fit_equally_well_are_named_and_none_is_taken() {
    let one = asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop"));
    let other = asks(opened("203.0.113.8:40000", FRONT, 50, 1), 3, get("/a", "shop"));
    let back = asks(opened(OUT, BACK, 100, 90), 3, get("/a", "shop"));
    let legs = joined(&[one, other, back]);
    assert_eq!(told(&legs), []);
    assert_eq!((legs.open.len(), legs.open[0].candidates.len()), (1, 2));
}

#[test]
fn a_chain_of_proxies_is_joined_hop_by_hop() {
    let first = asks(opened(CLIENT, "10.0.0.1:80", 1, 0), 3, get("/a", "shop"));
    let second = asks(opened("10.0.0.1:50000", FRONT, 50, 4), 3, get("/a", "shop"));
    let third = asks(opened(OUT, BACK, 100, 8), 3, get("/a", "shop"));
    let pairs: Vec<(u64, u64)> = told(&joined(&[first, second, third])).iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(pairs, [(1, 50), (50, 100)]);
}

#[test]
fn the_same_first_octets_join_streams_through_the_proxys_host_only() {
    let prefix = |scene: Scene, key: u64| {
        let mut summary = scene.data(Side::Client, 3, 200).data(Side::Server, 9, 20).summary();
        summary.digest = summary.digest.with_prefix(key);
        (summary.facts.id, summary)
    };
    let front = prefix(opened(CLIENT, FRONT, 1, 0), 5);
    let back = prefix(opened(OUT, BACK, 100, 4), 5);
    let stranger = prefix(opened("10.0.0.9:50000", BACK, 200, 5), 5);
    let other = prefix(opened(OUT, "10.0.0.4:8080", 300, 2000), 6);
    let flows = BTreeMap::from([front, back, stranger, other]);
    let legs = link(&flows, &Digests::default());
    assert_eq!(told(&legs), [(1, 100, vec![LinkMethod::PayloadPrefix], Confidence::Certain)]);
}

#[test]
fn a_refused_connection_while_a_request_waits_belongs_to_it() {
    let front = answers(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop")), 10, 502, 0);
    let refused = Scene::starting(OUT, BACK, 100, 4).syn(0).rst(Side::Server, 1, crate::event::ResetKind::Refused, 0);
    let legs = joined(&[front, refused]);
    assert_eq!(told(&legs), [(1, 100, vec![LinkMethod::Timing], Confidence::Medium)]);
    assert_eq!(legs.links[0].exchanges[0].backend, 0);
}

#[test]
fn sni_and_host_join_what_the_proxy_decrypts() {
    let hello = ClientHello { sni: Some("shop.example".into()), ..ClientHello::default() };
    let front = opened(CLIENT, "10.0.0.2:443", 1, 0).data(Side::Client, 3, 500).speaks(Side::Client, Protocol::Tls);
    let front = front.also(Side::Client, What::ClientHello(Box::new(hello))).data(Side::Client, 40, 100);
    let front = front.data(Side::Server, 90, 100);
    let back = asks(opened(OUT, BACK, 100, 41), 3, get("/a", "Shop.example:8080"));
    let legs = joined(&[front, back]);
    assert_eq!(told(&legs), [(1, 100, vec![LinkMethod::ServerName], Confidence::Medium)]);
}

#[test]
fn a_request_that_leads_to_another_one_is_fan_out_and_often_it_is_sure() {
    let page = |n: u64| {
        let start = n as i64 * 1000;
        let page =
            asks(opened(&format!("203.0.113.7:{}", 40000 + n), FRONT, 1 + n * 200, start), 3, get("/page", "shop"));
        let fetch =
            asks(opened(&format!("10.0.0.2:{}", 50000 + n), BACK, 100 + n * 200, start + 10), 3, get("/crl", "ca"));
        [page, fetch]
    };
    let legs = joined(&page(0));
    assert_eq!(told(&legs), [(1, 100, vec![LinkMethod::FanOut], Confidence::Medium)]);
    let five: Vec<Scene> = (0..5).flat_map(page).collect();
    let sure: Vec<Confidence> = told(&joined(&five)).iter().map(|row| row.3).collect();
    assert_eq!(sure, [Confidence::High; 5]);
}

/// A page at `ms` whose fetch follows 10 ms later; both stay open.
fn hanging(n: u64, ms: i64) -> [Scene; 2] {
    let page = asks(opened(&format!("203.0.113.7:{}", 40000 + n), FRONT, 1 + n * 200, ms), 3, get("/page", "shop"));
    let fetch = asks(opened(&format!("10.0.0.2:{}", 50000 + n), BACK, 100 + n * 200, ms + 10), 3, get("/crl", "ca"));
    [page, fetch]
}

#[test]
fn fetches_of_a_server_whose_requests_all_hang_are_told_apart_by_the_time_they_begin() {
    let scenes: Vec<Scene> = (0..6).flat_map(|n| hanging(n, n as i64 * 1000)).collect();
    let pairs: Vec<(u64, u64, Confidence)> = told(&joined(&scenes)).iter().map(|row| (row.0, row.1, row.3)).collect();
    let expected: Vec<(u64, u64, Confidence)> =
        (0..6).map(|n| (1 + n * 200, 100 + n * 200, Confidence::High)).collect();
    assert_eq!(pairs, expected);
    let few: Vec<Scene> = (0..3).flat_map(|n| hanging(n, n as i64 * 1000)).collect();
    assert_eq!(told(&joined(&few)).len(), 1, "beside others that wait three are no habit");
}

#[test]
fn pages_that_come_at_once_take_their_fetches_in_order_where_that_is_a_habit() {
    let mut scenes: Vec<Scene> = (0..6).flat_map(|n| hanging(n, n as i64 * 1000)).collect();
    scenes.extend(hanging(10, 9000).into_iter().chain(hanging(11, 9002)));
    let rows = told(&joined(&scenes));
    let last: Vec<(u64, u64, Confidence)> = rows.iter().skip(6).map(|row| (row.0, row.1, row.3)).collect();
    assert_eq!(last, [(2001, 2100, Confidence::Medium), (2201, 2300, Confidence::Medium)]);
}

#[test]
fn a_fetch_that_ended_before_the_page_was_answered_belongs_to_it_and_one_that_outlived_the_answer_does_not() {
    let page = || answers(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/page", "shop")), 9000, 502, 0);
    let fetch = || asks(opened(OUT, BACK, 100, 10), 3, get("/crl", "ca"));
    assert_eq!(told(&joined(&[page(), fetch().fin(Side::Client, 8980)])).len(), 1);
    assert_eq!(told(&joined(&[page(), fetch()])), []);
}

#[test]
fn fifty_thousand_flows_are_joined_in_no_time() {
    let mut digests = Vec::new();
    let mut flows = BTreeMap::new();
    for n in 0..25_000u64 {
        let start = n as i64;
        let ports = 1024 + n % 60_000;
        let front = asks(opened(&format!("203.0.113.7:{ports}"), FRONT, 1 + n * 20, start), 3, get("/a", "shop"));
        let back = asks(opened(&format!("10.0.0.2:{ports}"), BACK, 11 + n * 20, start + 4), 3, get("/a", "shop"));
        for scene in [front, back] {
            let mut summary = scene.summary();
            summary.digest = summary.digest.with_prefix(1 + 2 * (n % 3));
            if n % 2 == 0 {
                flows.insert(scene.facts.id, summary);
            } else {
                digests.push(summary.digest);
            }
        }
    }
    let digests = Digests::of(digests);
    let before = std::time::Instant::now();
    link(&flows, &digests);
    assert!(before.elapsed().as_secs() < 30, "{:?}", before.elapsed());
}

#[test]
fn what_a_backend_has_already_is_not_passed_on_again() {
    let front = || answers(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop")), 3_000, 200, 0);
    let first = || asks(opened(OUT, BACK, 100, 0), 4, get("/a", "shop"));
    let second = answers(asks(opened("10.0.0.2:50002", "10.0.0.4:8080", 200, 0), 900, get("/a", "shop")), 905, 200, 0);
    let pairs = |legs: &Legs| told(legs).iter().map(|row| (row.0, row.1)).collect::<Vec<_>>();
    let slow = answers(first(), 2_990, 200, 0);
    assert_eq!(pairs(&joined(&[front(), slow, second.clone()])), [(1, 100)], "another client's, inside TLS perhaps");
    let failed = answers(first(), 800, 502, 0);
    assert_eq!(pairs(&joined(&[front(), failed, second])), [(1, 100), (1, 200)], "tried again at another one");
}

#[test]
fn a_request_that_names_another_client_is_not_this_ones() {
    let front = asks(opened(CLIENT, FRONT, 1, 0), 3, get("/a", "shop"));
    let sealed = opened("203.0.113.9:41000", "10.0.0.2:443", 50, 0);
    let named = |who: &str| {
        let head = RequestHead { forwarded: vec![("x-forwarded-for".into(), who.into())], ..get("/a", "shop") };
        let back = asks(opened(OUT, BACK, 100, 0), 4, head);
        joined(&[front.clone(), sealed.clone(), back]).links.len()
    };
    assert_eq!((named("203.0.113.9"), named("203.0.113.7"), named("198.51.100.1")), (0, 1, 1));
}
