//! Each method beside its look-alike: what it joins, and what it leaves open because two client legs fit equally well.

use super::tests::*;
use super::*;
use crate::event::{Protocol, ResetKind, Side, What};
use crate::rule::testing::{Scene, end};
use crate::wire::http::{Framing, RequestHead, ResponseHead};
use crate::wire::proxy::{Command, Family, ProxyHeader, Tlv};
use crate::wire::tls::ClientHello;

const OTHER: &str = "203.0.113.8:40000";
/// Another client that took the same port.
const TWIN: &str = "203.0.113.9:40000";

/// How many candidates stand for the backend leg 100, where none is taken.
fn open(legs: &Legs) -> Vec<(u64, usize)> {
    legs.open.iter().map(|open| (open.backend_leg.number, open.candidates.len())).collect()
}

fn by(legs: &Legs) -> Vec<(u64, u64, LinkMethod, Confidence)> {
    legs.links
        .iter()
        .map(|link| (link.client_leg.number, link.backend_leg.number, link.methods[0], link.certainty))
        .collect()
}

fn hello(scene: Scene, random: u8, sni: &str) -> Scene {
    let hello = ClientHello { random: [random; 32], sni: Some(sni.into()), ..ClientHello::default() };
    let scene = scene.data(Side::Client, 3, 500).speaks(Side::Client, Protocol::Tls);
    scene.also(Side::Client, What::ClientHello(Box::new(hello)))
}

fn announces(scene: Scene, source: &str, id: Option<&str>) -> Scene {
    let tlvs = id.map(|id| Tlv { kind: 5, len: id.len() as u16, value: id.as_bytes().to_vec() });
    let header = ProxyHeader {
        version: 2,
        command: Command::Proxy,
        family: Family::Tcp4,
        source: Some(end(source)),
        destination: Some(end(FRONT)),
        tlvs: tlvs.into_iter().collect(),
        checksum_fits: None,
        len: 28,
    };
    let scene = scene.data(Side::Client, 2, 28).speaks(Side::Client, Protocol::Proxy);
    scene.also(Side::Client, What::ProxyHeader(Box::new(header)))
}

fn with_ids(target: &str, id: &str) -> RequestHead {
    RequestHead { ids: vec![("x-request-id".into(), id.into())], ..get(target, "shop") }
}

fn answers_with(scene: Scene, ms: i64, id: &str) -> Scene {
    let head = ResponseHead { status: 200, ids: vec![("cf-ray".into(), id.into())], ..ResponseHead::default() };
    scene.data(Side::Server, ms, 80).also(Side::Server, What::Response(Box::new(head)))
}

/// A client leg on which `clear` octets came back sealed.
fn sealed(client: &str, number: u64, clear: u64) -> Scene {
    let scene = hello(opened(client, "10.0.0.2:443", number, 0), number as u8, "a").data(Side::Client, 30, 100);
    let scene = scene.data(Side::Server, 95, clear as u32).also(Side::Server, What::TlsData);
    scene.also(Side::Server, What::TlsSealed { records: 1, clear })
}

#[test]
fn method_1_random_octets_join_a_chain_hop_by_hop_and_a_hello_of_its_own_joins_nothing() {
    let front = hello(opened(CLIENT, FRONT, 1, 0), 7, "shop");
    let other = hello(opened(OTHER, FRONT, 50, 0), 8, "shop");
    let back = hello(opened(OUT, BACK, 100, 4), 7, "shop");
    let last = hello(opened("10.0.0.3:51000", "10.0.0.4:443", 200, 6), 7, "shop");
    let legs = joined(&[front.clone(), other.clone(), back, last]);
    let method = LinkMethod::ClientHelloRandom;
    assert_eq!(by(&legs), [(1, 100, method, Confidence::Certain), (100, 200, method, Confidence::Certain)]);
    // A proxy that ends TLS says hello itself, long after both: which of two it serves cannot be told.
    let own = hello(opened(OUT, BACK, 100, 1000), 9, "shop");
    assert_eq!(by(&joined(&[front, other, own])), []);
}

#[test]
fn method_2_a_header_is_certain_and_behind_translation_the_port_alone_is_high() {
    let front = opened(CLIENT, FRONT, 1, 0);
    let back = announces(opened(OUT, BACK, 100, 4), CLIENT, None);
    let sure = (1, 100, LinkMethod::ProxyHeader, Confidence::Certain);
    assert_eq!(by(&joined(&[front.clone(), back.clone()])), [sure]);
    // The header tells the address before translation.
    let inside = announces(opened(OUT, BACK, 100, 4), "192.168.7.7:40000", None);
    let likely = (1, 100, LinkMethod::ProxyHeader, Confidence::High);
    assert_eq!(by(&joined(&[front.clone().data(Side::Client, 30, 9), inside.clone()])), [likely]);
    let twin = opened(TWIN, FRONT, 50, 1).data(Side::Client, 30, 9);
    let legs = joined(&[front.data(Side::Client, 30, 9), twin, inside]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_2_in_a_chain_the_header_joins_each_hop_with_the_one_before() {
    let front = opened(CLIENT, FRONT, 1, 0);
    let back = announces(opened(OUT, BACK, 100, 4), CLIENT, None);
    let last = announces(opened("10.0.0.3:51000", "10.0.0.4:80", 200, 6), CLIENT, None);
    let pairs: Vec<(u64, u64)> = by(&joined(&[front, back, last])).iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(pairs, [(1, 100), (100, 200)]);
}

#[test]
fn method_2_the_id_in_a_header_joins_the_leg_whose_request_carries_it() {
    let id = "6f1c2a-0001";
    let front = announces(opened(CLIENT, FRONT, 1, 0), "198.51.100.1:1000", Some(id)).data(Side::Client, 20, 9);
    let back = asks(opened(OUT, BACK, 100, 4), 3, with_ids("/a", id));
    let sure = (1, 100, LinkMethod::RequestId, Confidence::Certain);
    assert_eq!(by(&joined(&[front.clone(), back.clone()])), [sure]);
    let read = asks(front.clone(), 5, get("/public", "shop"));
    let later = asks(opened(OUT, BACK, 100, 9), 3, with_ids("/a", id));
    assert_eq!(by(&joined(&[read, later])), [sure]);
    let twin = announces(opened(OTHER, FRONT, 50, 1), "198.51.100.2:1000", Some(id)).data(Side::Client, 20, 9);
    let legs = joined(&[front, twin, back]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_3_two_streams_that_begin_with_the_same_octets_are_two_candidates() {
    let prefix = |scene: Scene| {
        let mut summary = scene.data(Side::Client, 3, 200).data(Side::Client, 90, 20).summary();
        summary.digest = summary.digest.with_prefix(5);
        (summary.facts.id, summary)
    };
    let back = || prefix(opened(OUT, BACK, 100, 20));
    let legs = link(&BTreeMap::from([prefix(opened(CLIENT, FRONT, 1, 0)), back()]), &Digests::default());
    assert_eq!(by(&legs), [(1, 100, LinkMethod::PayloadPrefix, Confidence::Certain)]);
    let both = [prefix(opened(CLIENT, FRONT, 1, 0)), prefix(opened(OTHER, FRONT, 50, 1)), back()];
    let legs = link(&BTreeMap::from(both), &Digests::default());
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_4_an_id_that_only_the_answers_carry_is_high_and_one_used_twice_is_open() {
    let front = |client: &str, number: u64| asks(opened(client, FRONT, number, 0), 3, with_ids("/p", "abcd-0001"));
    let back = || asks(opened(OUT, BACK, 100, 4), 3, with_ids("/x", "abcd-0001"));
    let sure = (1, 100, LinkMethod::RequestId, Confidence::Certain);
    assert_eq!(by(&joined(&[front(CLIENT, 1), back()])), [sure]);
    let legs = joined(&[front(CLIENT, 1), front(OTHER, 50), back()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
    let front = answers_with(asks(opened(CLIENT, FRONT, 1, 0), 3, get("/p", "shop")), 30, "8f00aa11");
    let back = answers_with(asks(opened(OUT, BACK, 100, 4), 3, get("/x", "inner")), 20, "8f00aa11");
    assert_eq!(by(&joined(&[front, back])), [(1, 100, LinkMethod::RequestId, Confidence::High)]);
}

#[test]
fn method_5_a_port_beside_the_address_is_certain_and_two_connections_of_one_address_are_open() {
    let front = |port: u16, number: u64| {
        asks(opened(&format!("203.0.113.7:{port}"), FRONT, number, 0), 3, get(&format!("/{number}"), "shop"))
    };
    let back = |who: &str| {
        let forwarded = vec![("forwarded".into(), who.into())];
        asks(opened(OUT, BACK, 100, 90), 3, RequestHead { forwarded, ..get("/x", "shop") })
    };
    let legs = joined(&[front(40000, 1), front(40001, 50), back("203.0.113.7:40000")]);
    assert_eq!(by(&legs), [(1, 100, LinkMethod::ForwardedFor, Confidence::Certain)]);
    let legs = joined(&[front(40000, 1), front(40001, 50), back("203.0.113.7")]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_6_bodies_and_browsers_tell_requests_of_one_line_apart() {
    let post = |octets: u64| RequestHead { framing: Framing::Length(octets), ..get("/a", "shop") };
    let front = |client: &str, number: u64, head: RequestHead| asks(opened(client, FRONT, number, 0), 3, head);
    let back = |head: RequestHead| asks(opened(OUT, BACK, 100, 90), 3, head);
    let legs = joined(&[front(CLIENT, 1, post(10)), front(OTHER, 50, post(20)), back(post(20))]);
    assert_eq!(by(&legs), [(50, 100, LinkMethod::RequestLine, Confidence::High)]);
    let browser = |name: &str| RequestHead { user_agent: Some(name.into()), ..get("/a", "shop") };
    let legs = joined(&[front(CLIENT, 1, browser("A")), front(OTHER, 50, browser("B")), back(browser("A"))]);
    assert_eq!(by(&legs), [(1, 100, LinkMethod::RequestLine, Confidence::High)]);
    let legs = joined(&[front(CLIENT, 1, browser("A")), front(OTHER, 50, browser("A")), back(browser("A"))]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn where_answers_are_all_alike_the_request_line_decides() {
    let client = |n: u64| format!("203.0.113.{n}:40000");
    let front = |n: u64, path: &str| {
        let at = 1 + 10 * n;
        answers(asks(opened(&client(n), FRONT, at, 0), 3, get(path, "shop")), 60, 200, 7)
    };
    let back = || answers(asks(opened(OUT, BACK, 100, 20), 3, get("/page/3", "shop")), 30, 200, 7);
    let fronts = |same: bool| (1..=5).map(move |n| front(n, &format!("/page/{}", if same { 3 } else { n })));
    let legs = joined(&fronts(false).chain([back()]).collect::<Vec<_>>());
    assert_eq!(by(&legs), [(31, 100, LinkMethod::RequestLine, Confidence::High)]);
    let legs = joined(&fronts(true).chain([back()]).collect::<Vec<_>>());
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 5)]));
}

#[test]
fn method_7_the_same_answer_to_two_clients_is_two_candidates() {
    let front = |client: &str, number: u64| {
        answers(asks(opened(client, FRONT, number, 0), 3, get(&format!("/{number}"), "shop")), 60, 200, 7)
    };
    // The answer has to be found although the paths were rewritten: its fields are the key.
    let back = || answers(asks(opened(OUT, BACK, 100, 20), 3, get("/x", "inner")), 30, 200, 7);
    let legs = joined(&[front(CLIENT, 1), back()]);
    assert_eq!(by(&legs), [(1, 100, LinkMethod::SameAnswer, Confidence::High)]);
    let legs = joined(&[front(CLIENT, 1), front(OTHER, 50), back()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_7_the_size_of_a_sealed_answer_finds_its_client() {
    let back = || {
        let scene = asks(opened(OUT, BACK, 100, 60), 3, get("/a", "inner"));
        let head = ResponseHead { status: 200, ..ResponseHead::default() };
        scene.data(Side::Server, 20, 1000).also(Side::Server, What::Response(Box::new(head)))
    };
    let legs = joined(&[sealed(CLIENT, 1, 1030), sealed(OTHER, 50, 400), back()]);
    assert_eq!(by(&legs), [(1, 100, LinkMethod::AnswerSize, Confidence::Medium)]);
    let legs = joined(&[sealed(CLIENT, 1, 1030), sealed(OTHER, 50, 990), back()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_8_a_stream_opened_at_once_for_one_of_two_clients_is_open() {
    let front =
        |client: &str, number: u64| opened(client, FRONT, number, 0).data(Side::Client, 3, 9).data(Side::Client, 40, 9);
    let back = || opened(OUT, BACK, 100, 5).data(Side::Client, 3, 9);
    assert_eq!(by(&joined(&[front(CLIENT, 1), back()])), [(1, 100, LinkMethod::Timing, Confidence::Medium)]);
    let legs = joined(&[front(CLIENT, 1), front(OTHER, 50), back()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_8_a_refused_connection_while_two_requests_wait_is_open() {
    let front = |client: &str, number: u64| asks(opened(client, FRONT, number, 0), 3, get("/a", "shop"));
    let refused = Scene::starting(OUT, BACK, 100, 90).syn(0).rst(Side::Server, 1, ResetKind::Refused, 0);
    let legs = joined(&[front(CLIENT, 1), front(OTHER, 50), refused]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_9_one_name_on_two_client_legs_is_open() {
    let front = |client: &str, number: u64| {
        let scene = hello(opened(client, "10.0.0.2:443", number, 0), number as u8, "shop.example");
        scene.data(Side::Client, 40, 100).data(Side::Server, 190, 100)
    };
    let back = || asks(opened(OUT, BACK, 100, 60), 3, get("/a", "shop.example"));
    assert_eq!(by(&joined(&[front(CLIENT, 1), back()])), [(1, 100, LinkMethod::ServerName, Confidence::Medium)]);
    let legs = joined(&[front(CLIENT, 1), front(OTHER, 50), back()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn method_10_a_fetch_that_two_pages_may_have_made_is_open() {
    let page =
        |client: &str, number: u64| asks(opened(client, FRONT, number, 0), 3, get(&format!("/{number}"), "shop"));
    let fetch = || asks(opened(OUT, BACK, 100, 10), 3, get("/crl", "ca"));
    assert_eq!(by(&joined(&[page(CLIENT, 1), fetch()])), [(1, 100, LinkMethod::FanOut, Confidence::Medium)]);
    let legs = joined(&[page(CLIENT, 1), page(OTHER, 50), fetch()]);
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}

#[test]
fn a_digest_is_found_by_its_first_request() {
    let kept = |scene: Scene| BTreeMap::from([(scene.facts.id, scene.summary())]);
    let brief = |scenes: &[Scene]| Digests::of(scenes.iter().map(|scene| scene.summary().digest).collect());
    let front = |client: &str, number: u64, head: RequestHead| {
        answers(asks(opened(client, FRONT, number, 0), 3, head), 300, 200, 0)
    };
    let back = |head: RequestHead| asks(opened(OUT, BACK, 100, 90), 3, head);
    let legs = link(&kept(back(with_ids("/x", "abcd-0001"))), &brief(&[front(CLIENT, 1, with_ids("/p", "abcd-0001"))]));
    assert_eq!(by(&legs), [(1, 100, LinkMethod::RequestId, Confidence::High)]);
    let one = front(CLIENT, 1, get("/a", "shop"));
    let legs = link(&kept(back(get("/a", "shop"))), &brief(std::slice::from_ref(&one)));
    assert_eq!(by(&legs), [(1, 100, LinkMethod::RequestLine, Confidence::Medium)]);
    let two = [one, front(OTHER, 50, get("/a", "shop"))];
    let legs = link(&kept(back(get("/a", "shop"))), &brief(&two));
    assert_eq!((by(&legs), open(&legs)), (vec![], vec![(100, 2)]));
}
