//! Large packets vanish on the way while small ones pass, and nobody tells the sender.
//!
//! ## How tcpwhy knows
//! A full segment (1200 octets or more, or as much as the peer's MSS allows) is sent at least three times and never acknowledged, while
//! the peer reports by SACK that it has the small rest behind it. The sizes of the copies count: with segmentation offload the first one
//! may be larger than anything on the wire. Or the peer closed meanwhile, got the small ACK of its FIN (it does not repeat it), and the full
//! segment that went out after that was lost all the same. Or nothing of an answer passes on two connections of the same hosts, of which the
//! second was opened while full segments of the first were lost: both hosts are there, and small packets pass. An ICMP "fragmentation needed" either did not come or was not heeded.
//!
//! At the receiver's end the large segments are not in the capture. There a small packet of the sender tells, one that came 3 s or more after the
//! peer's last octets: its number says that a full segment or more was sent before it, and none of that ever came, in full or in part. The
//! small end of the same flight may have come.
//!
//! ## What it is not
//! - Random loss: there sizes are mixed and it recovers.
//! - `pmtu-discovered`: there the sizes shrink.
//! - A server that hangs: it acknowledges the request.
//!
//! ## What people see
//! Connections open, small answers come, large ones hang; TLS stalls after the ClientHello; ssh hangs at SSH2_MSG_KEX_ECDH_REPLY.
//!
//! ## False alarms it avoids
//! An outage in the middle of a transfer (full segments reported by SACK, or nothing reported at all), segments larger than the MSS that
//! offload makes on the capturing host. At the receiver's end: octets that came after all or were acknowledged, a capture that loses packets.

use crate::event::{Kind, PacketRef, Side, What};
use crate::flow::facts::{FlowFacts, Handshake, Unacknowledged};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "pmtu-blackhole",
    title: "big packets vanish, small ones pass",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::any(&[Kind::Retransmitted, Kind::PassedOver, Kind::Fin]),
    says: "packets of {size} octets from {sender} to {peer} vanish, small ones pass: a smaller MTU on the way, and no ICMP that says so",
    variants: &[
        "packets of {size} octets from {sender} to {peer} vanish, small ones pass, and {sender} does not heed the ICMP that says so",
        "{sender} sent {size} octets that never came to {peer}, its small packets do: large ones seem to vanish on the way",
    ],
    users_see: &["Operation timed out after", "expecting SSH2_MSG_KEX_ECDH_REPLY", "TLS handshake, Client hello"],
    do_first: &[
        Step { says: "On {sender}: does a full packet pass? It should:", command: "ping -M do -s 1472 -c 3 {peer}" },
        Step { says: "Where does the MTU shrink?", command: "tracepath -n {peer}" },
    ],
    fix: &[
        Fix {
            says: "On the router before the narrow link (tunnel, PPPoE, VPN): clamp the MSS:",
            command: "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            risk: "new connections only; harmless",
        },
        Fix {
            says: "On {sender}, until ICMP type 3 code 4 (ICMPv6 type 2) is let through:",
            command: "sysctl -w net.ipv4.tcp_mtu_probing=1",
            risk: "the first large packets still stall for seconds",
        },
    ],
    verify: &[
        Step {
            says: "on {sender}; it fails as long as the fault is there:",
            command: "ping -M do -s 1472 -c 3 {peer}",
        },
        Step { says: "and this works:", command: "ping -M do -s 1200 -c 3 {peer}" },
    ],
    not: &[("packet-loss", "every copy of the full segment is lost, and what is small arrives at once")],
    cannot_show: &[
        "which link on the way has the smaller MTU",
        "at the receiver's end: how large the lost packets were, and whether others were lost in that time, too",
    ],
    explains: &[
        Explains("rto-unrecovered", Scope::Same),
        Explains("tls-handshake-stalled", Scope::Same),
        Explains("tls-clienthello-lost", Scope::Same),
        Explains("http-request-incomplete", Scope::Same),
        Explains("response-stalled", Scope::Same),
        Explains("client-abandoned", Scope::Same),
        Explains("half-closed-stuck", Scope::Same),
        Explains("banner-delayed", Scope::Same),
    ],
    sources: &["RFC 1191", "RFC 8201", "RFC 4821", "RFC 2923", "measured on Linux 6.18 with a narrow link"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Sends of the full segment, the first included.
const COPIES: u32 = 4;
/// Over this time.
const SPAN: Elapsed = Elapsed::secs(1);
/// An answer to the latest copy would have come by then.
const HEARD: Elapsed = Elapsed::millis(500);
/// Full for any usual link.
const FULL: u32 = 1200;
/// The smallest segment that may be called full.
const FEWEST: u32 = 500;
/// Variant of the headline at the receiver's end.
const UNHEARD: u8 = 2;
/// What TCP options take of the MSS.
const OPTIONS: u32 = 12;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let sides = [Side::Server, Side::Client];
    sides
        .into_iter()
        .find_map(|side| judge(flow, side))
        .or_else(|| sides.into_iter().find_map(|side| unheard(flow, side)))
}

/// At the receiver's end: a number of `side` that says that full segments went out before, none of which came.
fn unheard(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let full = u32::from(mine.mss?.min(peer.mss?)).saturating_sub(OPTIONS);
    let missing = mine.never_came();
    // What came, all of it together, is smaller than one full segment.
    let small = mine.payload < u64::from(full) && mine.oversized == 0 && mine.unseen == 0 && peer.unseen == 0;
    if missing < full || full < FEWEST || !small || mine.loss.total() > 0 {
        return None;
    }
    let proof = mine.last?;
    let asked = peer.last_payload.or(flow.facts.established)?;
    if proof.time.since(asked.time) < flow.thresholds.tail {
        return None;
    }
    // Behind the hole: it came at once, what lies before it never. What came in order is acknowledged.
    let behind = mine.payload.saturating_sub(mine.acknowledged);
    let rest = mine.last_payload.filter(|rest| behind > 0 && *rest > asked && *rest < proof);
    let took = peer.first_payload_acked.filter(|ack| *ack > asked && *ack < proof);
    let shows = format!("a small packet whose number says that {missing} octets went before it: none of them came");
    Some(
        RULE.found(flow, asked, side.other(), "what it sends last: small, and it arrives")
            .confidence(Confidence::Medium)
            .and_maybe(took, side, "the ACK of it: small, and it arrives")
            .and_maybe(rest, side, format!("{behind} octets from behind what is missing: small, and they arrive"))
            .and(proof, side, shows)
            .rules_out("upstream-hang", "it did answer: its later number says so", &[proof])
            .variant(UNHEARD)
            .with("size", u64::from(missing))
            .with("sender", flow.facts.endpoint(side).address)
            .with("peer", flow.facts.endpoint(side.other()).address),
    )
}

/// Where the capture itself lost packets, what it does not have proves nothing.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if finding.variant == UNHEARD && capture.tally.unseen > 0 {
        return Keep::Drop;
    }
    if finding.confidence > Confidence::Low {
        return Keep::Yes;
    }
    let alike = finding.subject.flow().and_then(|id| capture.flows.get(&id)).and_then(|flow| alike(flow, capture));
    let Some((other, handshake)) = alike else { return Keep::Drop };
    finding.evidence.push(Evidence {
        at: handshake,
        flow: Some(other),
        side: Some(Side::Client),
        shows: "small packets pass: a connection is opened while full segments of another are lost".into(),
    });
    finding.confidence = Confidence::Medium;
    Keep::Yes
}

/// Another connection of the same two hosts that was opened while full segments of this one were lost again and again, and whose own are lost
/// as well: neither host was gone, nor the way between them. None where a full segment passed on any connection of theirs.
fn alike(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<(PacketRef, PacketRef)> {
    let side = [Side::Server, Side::Client].into_iter().find(|side| lost(&flow.facts, *side).is_some())?;
    let waits = lost(&flow.facts, side)?;
    let client = flow.facts.client.address;
    let theirs = || {
        let all = capture.flows_to_host(flow.facts.server.address);
        all.filter(move |other| other.facts.client.address == client && other.facts.id != flow.facts.id)
    };
    let passed = |other: &FlowSummary| {
        let half = other.facts.half(side);
        half.acknowledged >= u64::from(2 * waits.copy_len) && half.last_payload.is_some_and(|last| last > waits.first)
    };
    if theirs().any(passed) {
        return None;
    }
    let within = |at: PacketRef, waits: &Unacknowledged| at > waits.first && at.time + HEARD < waits.last.time;
    theirs().find_map(|other| {
        let theirs = lost(&other.facts, side)?;
        let opened = other.facts.established.filter(|at| within(*at, &waits));
        let opened = opened.or(flow.facts.established.filter(|at| within(*at, &theirs)))?;
        Some((other.facts.id, opened))
    })
}

/// Full segments of which none was ever acknowledged, sent again and again to a peer that opened the connection and acknowledges nothing.
fn lost(facts: &FlowFacts, side: Side) -> Option<Unacknowledged> {
    let (mine, peer) = (facts.half(side), facts.half(side.other()));
    let waits = mine.unacknowledged?;
    let filled = peer.mss.is_some_and(|mss| waits.copy_len >= FEWEST && waits.copy_len + OPTIONS >= u32::from(mss));
    let again = waits.copies >= COPIES && waits.last.time.since(waits.first.time) >= SPAN;
    let none = mine.acknowledged < u64::from(waits.copy_len) && waits.sacked == 0 && peer.reset_count == 0;
    (again && none && (filled || waits.copy_len >= FULL)).then_some(waits)
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let waits = mine.unacknowledged?;
    let size = waits.copy_len;
    let filled = peer.mss.is_some_and(|mss| size >= FEWEST && size + OPTIONS >= u32::from(mss));
    let span = waits.last.time.since(waits.first.time);
    let rest = (1..FULL).contains(&waits.sacked);
    let passed = small_passed(flow, side).filter(|_| waits.sacked == 0);
    if waits.copies < COPIES || span < SPAN || !(filled || size >= FULL) || peer.reset_count > 0 {
        return None;
    }
    // One connection of which nothing passes may be a peer that is gone: only another one beside it tells.
    let alone = !rest && passed.is_none();
    if alone && (flow.facts.handshake != Handshake::Full || lost(flow.facts, side).is_none()) {
        return None;
    }
    let heard = flow.story.events().find(|event| matches!(event.what, What::Icmp(_))).map(|event| event.at);
    let sack = peer.last.filter(|last| rest && *last > waits.first);
    let confidence = match (rest, alone) {
        (true, _) => Confidence::High,
        (false, false) => Confidence::Medium,
        (false, true) => Confidence::Low,
    };
    Some(
        RULE.found(flow, waits.first, side, format!("octets that begin with the lost segment of {size}"))
            .confidence(confidence)
            .and_maybe(sack, side.other(), format!("SACK: the {} octets behind it arrived", waits.sacked))
            .and_maybe(passed, side.other(), "closes, and does not repeat it: the small ACK of this FIN arrived")
            .and(waits.last, side, format!("the segment of {size} octets again, {} copies in {span}", waits.copies))
            .and_maybe(heard, side.other(), "ICMP error: not heeded, the size stays")
            .variant(u8::from(heard.is_some()))
            .with("size", u64::from(size))
            .with("sender", flow.facts.endpoint(side).address)
            .with("peer", flow.facts.endpoint(side.other()).address),
    )
}

/// The peer's FIN, whose ACK reached it although the full segments before and after did not.
fn small_passed(flow: &FlowView<'_>, side: Side) -> Option<PacketRef> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let waits = mine.unacknowledged?;
    let fin = peer.fin.filter(|fin| *fin > waits.first && peer.fin_count == 1 && peer.unacknowledged.is_none())?;
    let full_after = waits.last.time.since(fin.time) >= SPAN && flow.now.since(waits.last.time) >= HEARD;
    (full_after && peer.last.is_none_or(|last| last < waits.last)).then_some(fin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn stuck(size: u32, sacked: u32) -> Scene {
        let mut scene = Scene::open()
            .data(Side::Client, 3, 5000)
            .again(Side::Client, 12)
            .again(Side::Client, 220)
            .again(Side::Client, 640)
            .again(Side::Client, 1470);
        let waits = scene.facts.from_client.unacknowledged.as_mut().expect("waits");
        (waits.copy_len, waits.sacked) = (size, sacked);
        scene.facts.from_server.mss = Some(1460);
        scene
    }

    #[test]
    fn a_full_segment_lost_again_and_again_before_a_small_rest_is_too_large() {
        let finding = stuck(1448, 656).check(&RULE).expect("a black hole");
        assert_eq!((finding.confidence, finding.values.get("size")), (Confidence::High, Some(&1448u64.into())));
    }

    #[test]
    fn full_segments_reported_by_sack_did_pass() {
        assert_eq!(stuck(1448, 2896).check(&RULE), None);
    }

    #[test]
    fn two_connections_of_which_nothing_but_small_packets_passes_show_the_size() {
        let at = |number: u64, port: u16, start: i64| {
            let begun = Scene::starting(&format!("10.0.0.1:{port}"), "10.0.0.2:80", number, start).handshake();
            let mut scene = [220, 640, 1470, 3100]
                .iter()
                .fold(
                    begun.request(3, "GET", "/", 40).acked(Side::Client, 4).data(Side::Server, 5, 5000),
                    |scene, ms| scene.again(Side::Server, *ms),
                )
                .capture_ends(9000);
            let waits = scene.facts.from_server.unacknowledged.as_mut().expect("waits");
            waits.copy_len = 1448;
            scene.facts.from_client.mss = Some(1460);
            scene
        };
        let (one, alone) = (at(1, 40_000, 0), World::new().with(&at(1, 40_000, 0)));
        let told = |world: World| world.corroborated(&RULE, one.check(&RULE)?).map(|finding| finding.confidence);
        let both = |second: i64| World::new().with(&at(1, 40_000, 0)).with(&at(2, 40_001, second));
        assert_eq!(told(both(1000)), Some(Confidence::Medium));
        assert_eq!(told(alone), None, "its peer may be gone");
        assert_eq!(told(both(0)), None, "both may have gone at once");
        let fine = Scene::starting("10.0.0.1:40002", "10.0.0.2:80", 3, 500).handshake().data(Side::Server, 5, 9000);
        assert_eq!(told(both(1000).with(&fine.acked(Side::Server, 700))), None, "full segments pass");
    }

    #[test]
    fn silence_alone_may_be_an_outage() {
        assert_eq!(World::new().corroborated(&RULE, stuck(1448, 0).check(&RULE).expect("a question")), None);
    }

    #[test]
    fn the_ack_of_a_fin_that_passes_between_full_segments_that_do_not_shows_their_size() {
        let closed = |fins: &[i64]| {
            let fins =
                fins.iter().fold(stuck(1448, 0), |scene, ms| scene.fin(Side::Server, *ms)).acked(Side::Server, 9_001);
            let found = fins.again(Side::Client, 12_800).capture_ends(14_000).check(&RULE);
            found.and_then(|finding| World::new().corroborated(&RULE, finding))
        };
        assert_eq!(closed(&[9_000]).map(|finding| finding.confidence), Some(Confidence::Medium));
        assert_eq!(closed(&[8_000, 9_000]), None, "a FIN that is repeated was not answered: nothing passes");
    }

    /// At the client: asked, acknowledged, silence, and the ACK of the FIN whose number is `ahead` octets ahead.
    fn silent(ahead: u32, ms: i64) -> Scene {
        let scene = Scene::open().data(Side::Client, 3, 80).acked(Side::Client, 4).fin(Side::Client, ms);
        let scene = scene.acked(Side::Client, ms + 20).also(Side::Server, What::PassedOver);
        let mut scene = scene.capture_ends(ms + 4000);
        let server = &mut scene.facts.from_server;
        server.next = server.next.map(|next| next.plus(ahead));
        (server.mss, scene.facts.from_client.mss) = (Some(1460), Some(1460));
        scene
    }

    #[test]
    fn the_number_of_a_small_packet_shows_what_never_came() {
        let finding = silent(15_928, 20_000).check(&RULE).expect("full segments vanish");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((finding.variant, finding.confidence), (UNHEARD, Confidence::Medium));
        assert_eq!((cited.as_slice(), finding.values.get("size")), ([4, 5, 7].as_slice(), Some(&15_928u64.into())));
    }

    #[test]
    fn the_small_end_of_a_flight_that_arrived_is_cited() {
        let scene = Scene::open().data(Side::Client, 3, 517).acked(Side::Client, 4).data(Side::Server, 10, 419);
        let mut scene = scene.fin(Side::Client, 12_000).acked(Side::Client, 12_040).capture_ends(16_000);
        let server = &mut scene.facts.from_server;
        server.next = server.next.map(|next| next.plus(2896));
        (server.mss, scene.facts.from_client.mss) = (Some(1460), Some(1460));
        let finding = scene.check(&RULE).expect("full segments vanish");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((finding.variant, cited.as_slice()), (UNHEARD, [4, 5, 6, 8].as_slice()));
    }

    #[test]
    fn less_than_a_full_segment_a_short_wait_and_a_large_packet_that_came_are_silent() {
        assert_eq!(silent(1447, 20_000).check(&RULE), None, "nothing shows that it was a full segment");
        assert_eq!(silent(15_928, 1_000).check(&RULE), None, "it may be sent again and come");
        assert_eq!(silent(0, 20_000).check(&RULE), None, "nothing was sent");
        let mut came = silent(15_928, 20_000);
        came.facts.from_server.payload = 1448;
        assert_eq!(came.check(&RULE), None);
        let mut holed = silent(15_928, 20_000);
        holed.facts.from_server.unseen = 10;
        assert_eq!(holed.check(&RULE), None, "the capture misses what the client acknowledged");
    }

    #[test]
    fn small_octets_are_not_lost_for_their_size() {
        assert_eq!(stuck(400, 100).check(&RULE), None);
    }
}
