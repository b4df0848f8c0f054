//! How packets become flows, and when these leave.

use super::*;
use crate::event::{Kind, ResetKind, Side};
use crate::flow::facts::{Close, Handshake, RoleSource};
use crate::flow::script::{Script, Shot, UNREACHABLE};

#[test]
fn the_sender_of_the_syn_is_the_client_whatever_the_ports() {
    let mut script = Script::new();
    script.handshake();
    let facts = script.facts();
    assert_eq!((facts.role, facts.handshake, facts.mid_stream), (RoleSource::Handshake, Handshake::Full, false));
    assert_eq!(facts.client, Script::CLIENT);
}

#[test]
fn a_flow_without_syn_takes_its_roles_from_the_ports() {
    let mut script = Script::new();
    script.server(0, "A", 700, 300, b"x");
    let facts = script.facts();
    assert_eq!((facts.client, facts.role, facts.mid_stream), (Script::CLIENT, RoleSource::Port, true));
    assert_eq!(script.kinds(), [Kind::MidStream, Kind::FirstPayload]);
}

#[test]
fn a_guess_the_sink_knows_better_is_turned_round() {
    let mut script = Script::new();
    script.sink.flip = true;
    script.server(0, "A", 700, 300, b"hello");
    script.server(1, "A", 705, 300, b" you");
    let facts = script.facts();
    assert_eq!((facts.client, facts.role), (Script::SERVER, RoleSource::Layer7));
    assert_eq!(facts.from_client.payload, 9);
}

#[test]
fn a_handshake_cannot_be_turned_round() {
    let mut script = Script::new();
    script.sink.flip = true;
    script.handshake();
    script.client(10, "PA", 1, 1, b"hello");
    assert_eq!(script.facts().client, Script::CLIENT);
}

#[test]
fn a_syn_with_another_number_begins_another_flow() {
    let mut script = Script::new();
    script.handshake();
    let first = script.facts().id;
    script.client(5_000, "S", 7_000_000, 0, b"");
    assert_eq!(script.sink.closed.len(), 1);
    assert_eq!(script.sink.closed[0].1, Ended::Replaced);
    assert_eq!(script.facts().reuses, Some(first));
    assert!(script.kinds().contains(&Kind::PortReused));
    script.client(5_100, "S", 7_000_000, 0, b"");
    assert_eq!(script.sink.closed.len(), 1, "a copy of the same SYN begins nothing");
}

#[test]
fn what_comes_out_does_not_depend_on_the_seed() {
    let run = |seed: u64| {
        let mut script = Script::seeded(seed);
        for port in 1000..1200 {
            script.send(0, Shot { port, flags: "S", ..Shot::default() });
            script.send(1, Shot { port, flags: "RA", ack: 1, from_server: true, ..Shot::default() });
        }
        script.tick(100);
        script.sink.closed
    };
    assert!(run(1) == run(0xdead_beef_0bad_cafe));
}

#[test]
fn an_icmp_error_finds_the_flow_it_quotes() {
    let mut script = Script::new();
    script.client(0, "S", 0, 0, b"");
    let mut error = UNREACHABLE;
    let at = PacketRef { file: 0, number: 2, time: Timestamp(1) };
    assert!(script.table.icmp(at, &error, &mut script.sink));
    assert_eq!(
        script.sink.events.last().map(|event| (event.side, event.what.kind())),
        Some((Side::Client, Kind::Icmp))
    );
    error.protocol = 17;
    assert!(!script.table.icmp(at, &error, &mut script.sink));
}

#[test]
fn copies_on_a_second_interface_are_left_out_and_their_face_is_kept() {
    let mut script = Script::new();
    for interface in 0..2 {
        script.send(0, Shot { flags: "S", id: Some(7), interface, ..Shot::default() });
        script.send(10, Shot { flags: "SA", ack: 1, from_server: true, interface, ..Shot::default() });
    }
    let facts = script.facts();
    assert_eq!((facts.duplicates, facts.from_client.syn_count, facts.from_server.syn_count), (1, 1, 2));
    let numbers = facts.duplicate.map(|(original, copy)| (original.number, copy.number));
    assert_eq!((facts.from_client.faces.len(), numbers), (2, Some((1, 3))));
}

#[test]
fn a_refused_connection_is_told_at_once() {
    let mut script = Script::new();
    script.client(0, "S", 0, 0, b"");
    script.send(1, Shot { flags: "RA", seq: 0, ack: 1, from_server: true, absolute: true, ..Shot::default() });
    let refused = What::Reset { kind: ResetKind::Refused, unread: 0 };
    assert_eq!(script.sink.events.last().map(|event| event.what.clone()), Some(refused));
    assert_eq!(script.facts().close, Close::Reset(Side::Server, ResetKind::Refused));
}

proptest::proptest! {
    /// Whatever comes: nothing panics, every flow is closed once, every direction ends once, and no octet is lent twice.
    #[test]
    fn senseless_packets_keep_the_books_in_order(
        shots in proptest::collection::vec(
            (0u8..64, 0u32..60, 0u32..60, 0usize..12, 0u8..8, 0u16..3, proptest::bool::ANY),
            1..80,
        ),
    ) {
        const FLAGS: [&str; 8] = ["A", "PA", "S", "SA", "FA", "R", "RA", "FPA"];
        let mut script = Script::with(Limits { max_flows: 4, held_octets_per_direction: 16, ..Limits::default() });
        let mut ms = 0;
        for (time, seq, ack, len, flags, wild, from_server) in shots {
            ms += i64::from(time) * i64::from(time);
            let seq = if wild == 2 { seq.wrapping_mul(0x0901_0203) } else { seq };
            let ack = if wild == 1 { ack.wrapping_mul(0x0411_0203) } else { ack };
            let payload = &b"abcdefghijkl"[..len];
            let port = 40_000 + u16::from(time % 6);
            let (flags, window) = (FLAGS[usize::from(flags)], u16::from(time % 3));
            script.send(ms, Shot { seq, ack, payload, flags, port, window, from_server, ..Shot::default() });
            script.tick(ms / 1000);
        }
        script.finish();
        let counts = script.table.counts();
        proptest::prop_assert_eq!(script.sink.closed.len() as u64, counts.opened);
        proptest::prop_assert_eq!(u64::from(script.sink.ends_total), 2 * counts.opened);
        let lent: u64 = script.sink.octets.iter().map(|octets| octets.len() as u64).sum();
        let unique: u64 = script.sink.closed.iter().map(|(f, _)| f.from_client.payload + f.from_server.payload).sum();
        proptest::prop_assert!(lent <= unique, "{lent} octets lent of {unique}");
    }
}
