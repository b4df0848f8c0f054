//! What is told of TLS connections.

use super::*;
use crate::event::Kind;
use crate::protocol::script::Play;
use crate::wire::samples::{self, octets};

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;
const CCS: &str = "140303000101";

/// A record of application data of that length.
fn data(len: u16) -> Vec<u8> {
    [&[0x17, 3, 3][..], &len.to_be_bytes(), &vec![0x5a; usize::from(len)]].concat()
}

/// Both hellos of TLS 1.3 with AES_256_GCM_SHA384 and the server's encrypted flight, as OpenSSL sends it.
fn handshake_13() -> Play {
    let mut play = Play::new();
    play.client(&octets(samples::CLIENT_HELLO_JAVA));
    play.server(&octets(&format!("{}{CCS}", samples::SERVER_HELLO_13)));
    for len in [42, 811, 281, 69] {
        play.server(&data(len));
    }
    assert_eq!(kinds(&play, SERVER), [Kind::Recognised, Kind::ServerHello, Kind::ChangeCipherSpec, Kind::TlsFinished]);
    play.client(&octets(CCS));
    play
}

fn kinds(play: &Play, side: Side) -> Vec<Kind> {
    play.events.iter().filter(|e| e.side == side).map(|e| e.what.kind()).collect()
}

/// What a side said behind the first `before` events.
fn later(play: &Play, side: Side, before: usize) -> Vec<Kind> {
    kinds(play, side).split_off(before)
}

#[test]
fn tls_12_is_read_until_both_sides_encrypt() {
    let mut play = Play::new();
    play.client(&octets(samples::CLIENT_HELLO_SNI));
    play.server(&octets(samples::SERVER_FLIGHT_12));
    // ClientKeyExchange, ChangeCipherSpec, Finished, data, close_notify: lengths of OpenSSL.
    let exchange = format!("1603030025100000212099{}", "00".repeat(31));
    play.client(&octets(&format!("{exchange}{CCS}1603030028{}", "00".repeat(40))));
    play.server(&octets(&format!("{CCS}1603030028{}", "01".repeat(40))));
    play.client(&data(101));
    play.server(&data(413));
    play.client(&octets(&format!("150303001a{}", "00".repeat(26))));
    let (hello, chain) = (Kind::ServerHello, Kind::Certificates);
    assert_eq!(
        kinds(&play, SERVER),
        [Kind::Recognised, hello, chain, Kind::ChangeCipherSpec, Kind::TlsFinished, Kind::TlsData]
    );
    assert_eq!(
        later(&play, CLIENT, 2),
        [Kind::ChangeCipherSpec, Kind::TlsFinished, Kind::TlsData, Kind::AlertEncrypted]
    );
}

#[test]
fn an_alert_is_plain_only_before_encryption_and_in_two_octets() {
    let mut play = Play::new();
    play.client(&octets(samples::CLIENT_HELLO_SNI));
    play.server(&octets(samples::SERVER_FLIGHT_12));
    play.client(&octets("1503030002022d"));
    let Some((CLIENT, What::AlertPlain(alert))) = play.said().last().copied() else { panic!("{:?}", play.said()) };
    assert_eq!(alert.name(), "certificate_expired");
    // OpenSSL refuses a certificate of TLS 1.3 in the clear, even behind its ChangeCipherSpec.
    let mut play = handshake_13();
    play.client(&octets("1503030002022d"));
    assert!(matches!(play.said().last(), Some((CLIENT, What::AlertPlain(_)))));
}

#[test]
fn a_refusal_in_tls_13_is_told_by_its_size() {
    for len in [19, 35] {
        let mut play = handshake_13();
        play.client(&data(len));
        assert!(matches!(play.said().last(), Some((CLIENT, What::AlertEncrypted { len: told, .. })) if *told == len));
    }
}

#[test]
fn tickets_are_no_answer() {
    let mut play = handshake_13();
    play.client(&data(69));
    play.client(&data(94));
    assert_eq!(later(&play, CLIENT, 3), [Kind::TlsFinished, Kind::TlsData]);
    play.server(&data(282));
    play.server(&data(282));
    play.settle();
    assert_eq!(later(&play, SERVER, 4), [Kind::TlsTickets], "they crossed what the client asked");
    play.server(&data(167));
    assert_eq!(later(&play, SERVER, 5), [Kind::TlsData]);
    play.client(&data(19));
    assert_eq!(later(&play, CLIENT, 5), []);
    play.end(CLIENT);
    assert_eq!(later(&play, CLIENT, 5), [Kind::AlertEncrypted]);
}

#[test]
fn a_server_without_tickets_is_heard() {
    let mut play = handshake_13();
    play.client(&data(69));
    play.client(&data(94));
    play.server(&data(500));
    assert_eq!(later(&play, SERVER, 4), []);
    play.settle();
    assert_eq!(later(&play, SERVER, 4), [Kind::TlsData]);
    let mut play = handshake_13();
    play.client(&data(69));
    for _ in 0..2 {
        play.client(&data(94));
        play.server(&data(500));
    }
    assert_eq!(later(&play, SERVER, 4), [Kind::TlsData]);
}

#[test]
fn a_missing_client_certificate_is_told_by_its_size() {
    // OpenSSL and Go, then Java: empty Certificate, Finished; the server answers with an alert and closes.
    for (certificate, finished) in [(25, 69), (41, 85)] {
        let mut play = handshake_13();
        play.client(&data(certificate));
        play.client(&data(finished));
        play.server(&data(19));
        play.end(SERVER);
        assert!(
            play.said()
                .iter()
                .any(|(side, what)| *side == CLIENT && matches!(what, What::Certificates(chain) if chain.is_empty()))
        );
        assert_eq!(later(&play, CLIENT, 4), [Kind::TlsFinished]);
        assert_eq!(later(&play, SERVER, 4), [Kind::AlertEncrypted]);
        assert!(matches!(play.said().last(), Some((SERVER, What::AlertEncrypted { alone: true, .. }))));
    }
}

#[test]
fn a_client_certificate_is_told_by_its_size_and_an_alert_behind_a_ticket_is_not_alone() {
    let mut play = handshake_13();
    for len in [880, 96, 69] {
        play.client(&data(len));
    }
    assert_eq!(later(&play, CLIENT, 3), [Kind::CertificateSealed, Kind::TlsFinished]);
    play.server(&data(682));
    play.server(&data(19));
    play.end(SERVER);
    assert!(matches!(play.said().last(), Some((SERVER, What::AlertEncrypted { alone: false, .. }))));
}

#[test]
fn a_small_record_of_a_live_stream_is_no_alert() {
    let mut play = handshake_13();
    play.client(&data(69));
    play.client(&data(19));
    play.client(&data(94));
    play.end(CLIENT);
    assert_eq!(later(&play, CLIENT, 3), [Kind::TlsFinished, Kind::TlsData]);
}

#[test]
fn after_a_retry_request_the_second_hello_is_read() {
    let mut play = Play::new();
    play.client(&octets(samples::CLIENT_HELLO_OPENSSL));
    play.server(&octets(samples::HELLO_RETRY));
    play.client(&octets(&format!("{CCS}{}", samples::CLIENT_HELLO_OPENSSL)));
    play.server(&octets(samples::SERVER_HELLO_13));
    assert_eq!(kinds(&play, CLIENT), [Kind::Recognised, Kind::ClientHello, Kind::ChangeCipherSpec, Kind::ClientHello]);
    assert_eq!(kinds(&play, SERVER), [Kind::Recognised, Kind::ServerHello, Kind::ChangeCipherSpec, Kind::ServerHello]);
}

#[test]
fn a_hello_over_several_records_is_read() {
    let hello = octets(samples::CLIENT_HELLO_GO);
    let mut play = Play::new();
    for part in hello[5..].chunks(50) {
        play.client(&[&[0x16, 3, 1, 0, part.len() as u8][..], part].concat());
    }
    assert_eq!(kinds(&play, CLIENT), [Kind::Recognised, Kind::ClientHello]);
}

#[test]
fn plain_text_on_a_tls_stream_is_told_but_not_behind_a_hole() {
    let mut play = Play::new();
    play.server(&octets(samples::SERVER_HELLO_13));
    assert_eq!(play.server(b"HTTP/1.1 500 "), Wants::Nothing);
    assert_eq!(later(&play, SERVER, 2), [Kind::TlsBroken]);
    let mut play = Play::new();
    play.server(&octets(samples::SERVER_HELLO_13));
    play.gap(SERVER, 5_000);
    assert_eq!(play.server(b"in the middle of a record"), Wants::More);
    assert_eq!(later(&play, SERVER, 2), []);
}

#[test]
fn a_hole_inside_a_record_costs_nothing_and_one_behind_it_is_got_over() {
    let mut play = handshake_13();
    play.client(&data(69));
    play.client(&data(1000)[..500]);
    play.gap(CLIENT, 505);
    play.client(&data(19));
    play.gap(CLIENT, 10_000);
    play.client(b"rest of a record");
    play.client(&data(94));
    play.client(&data(19));
    play.end(CLIENT);
    assert_eq!(later(&play, CLIENT, 3), [Kind::TlsFinished, Kind::TlsData, Kind::AlertEncrypted]);
}

#[test]
fn one_direction_alone_is_understood() {
    let mut play = Play::new();
    play.client(&octets(&format!("{}{CCS}", samples::CLIENT_HELLO_JAVA)));
    for len in [85, 51] {
        play.client(&data(len));
    }
    assert_eq!(later(&play, CLIENT, 3), [Kind::TlsFinished, Kind::TlsData]);
}

#[test]
fn a_stream_caught_in_its_middle_tells_data_and_alerts() {
    let mut play = Play::mid_stream();
    play.client(&[data(100), data(100)].concat());
    play.client(&octets(&format!("150303001a{}", "00".repeat(26))));
    assert_eq!(kinds(&play, CLIENT), [Kind::Recognised, Kind::TlsData, Kind::AlertEncrypted]);
}

#[test]
fn records_follow_a_hello_in_the_old_format() {
    let mut hello = octets("802e 01 0301 0015 0000 0010 000039 000038");
    hello.resize(48, 7);
    hello.extend_from_slice(&octets("15030100020228"));
    for size in [1, 7, hello.len()] {
        let mut play = Play::new();
        hello.chunks(size).for_each(|piece| {
            play.client(piece);
        });
        assert_eq!(kinds(&play, CLIENT), [Kind::Recognised, Kind::AlertPlain], "{size}");
    }
}

#[test]
fn an_end_inside_of_a_record_is_told_and_one_between_two_is_not() {
    let cut = |last: &[u8], hole: bool| {
        let mut play = handshake_13();
        play.client(&data(69));
        play.client(&data(120));
        play.server(&data(600));
        if hole {
            play.gap(SERVER, 9);
        }
        play.server(&[&data(700)[..], last].concat());
        play.end(SERVER);
        play.events.iter().find_map(|e| match e.what {
            What::TlsCut { missing } => Some(missing),
            _ => None,
        })
    };
    assert_eq!(cut(&[], false), None);
    assert_eq!(cut(&data(900)[..300], false), Some(Some(605)));
    assert_eq!(cut(&data(900)[..3], false), Some(None));
    assert_eq!(cut(&data(900)[..300], true), None, "behind a hole");
    let mut play = handshake_13();
    play.server(&data(900)[..300]);
    play.end(SERVER);
    assert!(!kinds(&play, SERVER).contains(&Kind::TlsCut), "the handshake is not over");
}
