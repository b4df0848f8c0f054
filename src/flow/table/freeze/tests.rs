//! Nothing shows of the frost but the memory it saves.

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Kind, PacketRef};
use crate::flow::limits::Limits;
use crate::flow::script::{Script, Shot, Sum, Tape, UNREACHABLE};
use crate::wire::Endpoint;

/// Freezes everything behind every packet.
fn freezing() -> Limits {
    Limits { frozen_from: 0, frozen_after: Elapsed::ZERO, ..Limits::default() }
}

/// The client's port of the first of many flows, less one.
const FIRST: u16 = 40_000;

/// Many flows in the middle of something, one packet each, ten milliseconds apart.
fn many(limits: Limits, count: u16) -> Script {
    let mut script = Script::with(limits);
    for port in 1..=count {
        script.send(i64::from(port) * 10, Shot { port: FIRST + port, payload: b"x", ..Shot::default() });
    }
    script
}

fn ports(script: &Script) -> Vec<u16> {
    script.sink.closed.iter().map(|(facts, _)| facts.client.port - FIRST).collect()
}

#[test]
fn only_where_many_are_open_those_that_are_idle_are_frozen() {
    let frozen = |limits, count| many(limits, count).table.frozen.len();
    let limits = Limits { frozen_from: 100, ..Limits::default() };
    assert_eq!(frozen(limits.clone(), 100), 0);
    assert!((1..10).contains(&frozen(limits.clone(), 110)));
    let script = many(limits.clone(), 1000);
    assert!((100..150).contains(&script.table.live), "{}", script.table.live);
    assert_eq!(script.table.len(), 1000);
    let hasty = Limits { frozen_after: Elapsed::secs(10_000), ..limits };
    let script = many(hasty, 1000);
    assert!(script.table.live > 150, "the pressure has to grow: {}", script.table.live);
    assert_eq!(frozen(Limits { frozen_from: 4096, ..Limits::default() }, 4000), 0);
}

#[test]
fn flows_that_come_back_stay_until_they_are_silent_for_long() {
    const FLOWS: u16 = 300;
    let mut script = many(Limits { frozen_from: 100, ..Limits::default() }, FLOWS);
    let table = |script: &Script| (script.table.live, script.table.frozen.len());
    let (live, frozen) = table(&script);
    assert!(live < 150 && frozen > 150, "{live} open, {frozen} frozen");
    // All of them say something every three seconds.
    for second in 3..60 {
        script.tick(second);
        for port in (1..=FLOWS).filter(|port| i64::from(port % 3) == second % 3) {
            let (ms, seq) = (second * 1000 + i64::from(port), 1 + second as u32);
            script.send(ms, Shot { port: FIRST + port, seq, payload: b"x", ..Shot::default() });
        }
    }
    let (live, frozen) = table(&script);
    assert!(frozen < 30, "{live} open, {frozen} frozen");
    (60..400).for_each(|second| script.tick(second));
    for port in 1..=FLOWS {
        script.send(400_000 + i64::from(port), Shot { port: 2 * FLOWS + port, payload: b"x", ..Shot::default() });
    }
    let (live, frozen) = table(&script);
    assert!(live < 2 * usize::from(FLOWS) - 200 && frozen > 200, "{live} open, {frozen} frozen");
}

#[test]
fn a_frozen_flow_takes_some_hundred_octets_and_they_are_counted() {
    let script = many(freezing(), 5000);
    assert_eq!((script.table.live, script.table.frozen.len()), (0, 5000));
    let each = script.table.memory() / 5000;
    assert!((100..300).contains(&each), "{each}");
}

#[test]
fn frozen_flows_leave_at_the_second_and_in_the_order_they_would_have() {
    let told = |limits| {
        let mut script = Script::with(limits);
        for (port, ms) in [(1, 3_000), (2, 1_000), (3, 2_000), (4, 90_000)] {
            script.send(ms, Shot { port, flags: "S", ..Shot::default() });
        }
        script.handshake();
        script.datagram(91_000, false, 1, b"query");
        let mut lens = Vec::new();
        for second in (91..2_000).chain((2_000..90_000).step_by(7)) {
            script.tick(second);
            lens.push((script.table.len(), script.sink.closed.len()));
        }
        (lens, script.sink.closed)
    };
    let (lens, closed) = told(freezing());
    assert_eq!(closed.len(), 6);
    assert!((lens, closed) == told(Limits::default()));
}

#[test]
fn the_end_of_the_capture_finds_frozen_flows_and_others_in_the_order_of_their_packets() {
    let mut script = many(Limits { frozen_from: 3, ..freezing() }, 9);
    assert_eq!((script.table.live, script.table.frozen.len()), (3, 6));
    script.finish();
    assert_eq!(ports(&script), (1..=9).collect::<Vec<_>>());
    assert!(script.table.is_empty());
    assert_eq!((script.table.shared.weight, script.table.memory() > 1 << 20), (0, false));
}

#[test]
fn in_a_full_table_the_frozen_flow_that_is_idle_for_longest_makes_room() {
    let mut script = many(Limits { max_flows: 5, ..freezing() }, 8);
    assert_eq!((ports(&script), script.table.counts().evicted), (vec![1, 2, 3], 3));
    script.send(100, Shot { port: FIRST + 4, payload: b"again", ..Shot::default() });
    script.send(110, Shot { port: FIRST + 9, payload: b"x", ..Shot::default() });
    assert_eq!(ports(&script), [1, 2, 3, 5]);
    assert!(script.sink.closed.iter().all(|(_, why)| *why == Ended::Evicted));
}

#[test]
fn a_table_that_weighs_too_much_holds_more_frozen_flows() {
    let limits = |freeze: Limits| Limits { memory: 1 << 20, ..freeze };
    let (frozen, open) = (many(limits(freezing()), 4000), many(limits(Limits::default()), 4000));
    for script in [&frozen, &open] {
        assert!(script.table.memory() <= 1 << 20, "{}", script.table.memory());
        let counts = script.table.counts();
        assert_eq!((counts.relieved as usize, counts.opened), (4000 - script.table.len(), 4000));
    }
    assert!(frozen.table.len() > 4 * open.table.len(), "{} against {}", frozen.table.len(), open.table.len());
}

#[test]
fn who_makes_room_does_not_depend_on_the_seed() {
    let told = |seed| {
        let limits = Limits { memory: 500_000, frozen_from: 20, packed_from: 20, ..freezing() };
        let mut script = Script::with(limits.clone());
        script.table = FlowTable::new(limits, seed);
        for n in 0..30_000_u32 {
            let (ms, port) = (i64::from(n) * 10, FIRST + (n.wrapping_mul(2_654_435_761) >> 20) as u16);
            let flags = ["S", "S", "PA", "FA", "R"][n as usize % 5];
            let payload: &[u8] = if flags == "PA" { b"x" } else { b"" };
            script.send(ms, Shot { port, flags, seq: 1, payload, ..Shot::default() });
            script.tick(ms / 1000);
        }
        let closed: Vec<(u16, Ended)> =
            script.sink.closed.iter().map(|(facts, why)| (facts.client.port, *why)).collect();
        (closed, script.table.memory(), script.table.counts())
    };
    let (closed, memory, counts) = told(1);
    assert!(counts.relieved > 1000, "{counts:?}");
    assert!((closed, memory, counts) == told(0xdead_beef_0bad_cafe));
}

#[test]
fn an_icmp_error_finds_a_frozen_flow() {
    let mut script = Script::with(freezing());
    script.client(0, "S", 0, 0, b"");
    assert_eq!(script.table.frozen.len(), 1);
    let at = PacketRef { file: 0, number: 2, time: Timestamp(1) };
    assert!(script.table.icmp(at, &UNREACHABLE, &mut script.sink));
    assert_eq!(script.sink.events.last().map(|event| event.what.kind()), Some(Kind::Icmp));
}

#[test]
fn a_frozen_flow_is_lent_and_frozen_again() {
    let mut script = many(freezing(), 3);
    let client = Endpoint { port: FIRST + 2, ..Script::CLIENT };
    let id = PacketRef { file: 0, number: 2, time: Timestamp(20_000_000) };
    let mut shown = None;
    script.table.lend(id, (Script::SERVER, client), |facts, head, ()| shown = Some((facts, head.id)));
    assert_eq!(shown.map(|(facts, head)| (facts.client, head)), Some((client, id)));
    let other = PacketRef { number: 3, ..id };
    script.table.lend(other, (Script::SERVER, client), |_, _, ()| panic!("another flow"));
    assert_eq!((script.table.live, script.table.frozen.len()), (0, 3));
    assert_eq!(script.table.counts().opened, 3);
}

#[test]
fn who_has_something_to_tell_tells_it_frozen_or_not() {
    let told = |limits| {
        let mut script = many(limits, 5);
        script.client(60, "S", 0, 0, b"");
        script.send(70, Shot { port: FIRST + 3, flags: "FA", seq: 1, ..Shot::default() });
        script.datagram(80, false, 1, b"query");
        [false, true].map(|all| {
            let mut shown = Vec::new();
            script.table.telling(all, |()| false, |facts, (), closed| shown.push((facts, closed)));
            shown
        })
    };
    let shown = told(freezing());
    assert_eq!(shown.each_ref().map(Vec::len), [3, 7]);
    assert!(shown == told(Limits::default()));
}

#[test]
fn a_flow_that_waits_for_octets_stays_open() {
    let mut script = Script::with(freezing());
    script.handshake();
    assert_eq!(script.table.live, 0);
    script.client(10, "PA", 100, 1, b"behind a hole");
    assert_eq!(script.table.live, 1);
    script.client(11, "PA", 1, 1, &[b'x'; 99]);
    assert_eq!(script.table.live, 0);
    script.client(12, "R", 113, 1, b"");
    assert_eq!(script.table.live, 1, "it leaves soon");
}

#[test]
fn visits_of_flows_that_freeze_and_thaw_do_not_pile_up() {
    let mut script = Script::with(freezing());
    for round in 0..200_000 {
        script.client(round, "A", 1, 1, b"");
        if round % 1000 == 0 {
            script.tick(round / 1000);
        }
    }
    assert!(script.table.wheel.planned() < 70_000, "{}", script.table.wheel.planned());
}

/// Packets that may follow one another, and times between them.
fn shots() -> impl Strategy<Value = Vec<(i64, Shot)>> {
    const FLAGS: [&str; 8] = ["A", "PA", "S", "SA", "FA", "R", "RA", "FPA"];
    const OPTIONS: [&[u8]; 4] =
        [&[], &[8, 10, 9, 9, 9, 9, 0, 0, 0, 1], &[5, 10, 0, 0, 0, 5, 0, 0, 0, 9], &[2, 4, 5, 0xb4, 3, 3, 7]];
    let numbers = (0u32..60, 0u32..60, 0usize..12, 0u16..3, 0u16..3);
    let parts = (0i64..64, numbers, 0..FLAGS.len(), 0..OPTIONS.len(), any::<bool>(), 0u8..4);
    let shot = parts.prop_map(|(pause, (seq, ack, len, window, client), flags, options, from_server, odd)| {
        let shot = Shot {
            seq: if odd == 3 { seq.wrapping_mul(0x0901_0203) } else { seq },
            ack,
            payload: &b"abcdefghijkl"[..len],
            flags: FLAGS[flags],
            options: OPTIONS[options],
            port: 40_000 + client,
            window,
            from_server,
            sum: if odd == 2 { Sum::Wrong } else { Sum::Right },
            ttl: 64 - odd,
            ..Shot::default()
        };
        (pause * pause * pause / 16, shot)
    });
    prop::collection::vec(shot, 1..80)
}

fn told(mut script: Script, shots: &[(i64, Shot)]) -> (Vec<usize>, Tape, u64) {
    let (mut ms, mut lens) = (0, Vec::new());
    for (pause, shot) in shots {
        ms += pause;
        script.tick(ms / 1000);
        script.send(ms, *shot);
        lens.push(script.table.len());
    }
    script.tick(ms / 1000 + 400);
    lens.push(script.table.len());
    script.finish();
    let counts = script.table.counts();
    (lens, script.sink, counts.opened + counts.late + counts.duplicates + counts.held_dropped)
}

proptest! {
    #[test]
    fn nothing_shows_of_the_frost(shots in shots()) {
        let (lens, tape, counts) = told(Script::with(freezing()), &shots);
        let (lens_open, tape_open, counts_open) = told(Script::new(), &shots);
        prop_assert_eq!((lens, counts), (lens_open, counts_open));
        // Flows of which holes are confirmed on one tick are looked at in no order; nobody above hears of more than one.
        let of = |tape: &Tape, port: u16| -> Vec<Event> {
            let shot = |event: &&Event| shots.get(event.at.number as usize - 1).is_some_and(|(_, shot)| shot.port == port);
            tape.events.iter().filter(shot).cloned().collect()
        };
        for port in 40_000..40_003 {
            prop_assert_eq!(of(&tape, port), of(&tape_open, port));
        }
        let sorted = |tape: &Tape| tape.octets.clone().map(|mut octets| {
            octets.sort_unstable();
            octets
        });
        prop_assert_eq!((sorted(&tape), tape.gaps), (sorted(&tape_open), tape_open.gaps));
        prop_assert_eq!(tape.closed, tape_open.closed);
    }

    #[test]
    fn what_is_thawed_is_what_was_frozen(shots in shots()) {
        let mut script = Script::new();
        let (mut ms, mut templates) = (0, Templates::default());
        for (pause, shot) in shots {
            ms += pause;
            script.send(ms, shot);
        }
        for place in &script.table.places {
            let Some(detail) = &place.detail else { continue };
            if !restful(&place.flow, detail, &script.table.shared.limits) {
                continue;
            }
            let octets = write::<Tape>(&place.flow, detail, &(), &mut templates).expect("plain values");
            let (key, from) = Cold::new((Timestamp(0), Timestamp(0)), false, octets).open(&templates).expect("a flow");
            let (flow, mut back, ()) = read::<Tape>(key, from).expect("the same");
            (back.due, back.weight) = (detail.due, detail.weight);
            prop_assert_eq!(format!("{flow:?} {back:?}"), format!("{:?} {detail:?}", place.flow));
        }
    }
}
