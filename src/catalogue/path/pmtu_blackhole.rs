//! Large packets vanish on the way while small ones pass, and nobody tells the sender.
//!
//! ## How tcpwhy knows
//! A full segment (1200 octets or more, or as much as the peer's MSS allows) is sent at least three times and never acknowledged, while
//! the peer reports by SACK that it has the small rest behind it. The sizes of the copies count: with segmentation offload the first one
//! may be larger than anything on the wire. Or the peer closed meanwhile, got the small ACK of its FIN (it does not repeat it), and the full
//! segment that went out after that was lost all the same. An ICMP "fragmentation needed" either did not come or was not heeded.
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
//! offload makes on the capturing host.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "pmtu-blackhole",
    title: "big packets vanish, small ones pass",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Retransmitted]),
    says: "packets of {size} octets from {sender} to {peer} vanish, small ones pass: a smaller MTU on the way, and no ICMP that says so",
    variants: &[
        "packets of {size} octets from {sender} to {peer} vanish, small ones pass, and {sender} does not heed the ICMP that says so",
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
    not: &[("packet-loss", "every copy of the full segment is lost, the small rest arrives at once")],
    cannot_show: &["which link on the way has the smaller MTU"],
    explains: &[
        Explains("rto-unrecovered", Scope::Same),
        Explains("tls-handshake-stalled", Scope::Same),
        Explains("tls-clienthello-lost", Scope::Same),
        Explains("http-request-incomplete", Scope::Same),
        Explains("response-stalled", Scope::Same),
        Explains("client-abandoned", Scope::Same),
        Explains("banner-delayed", Scope::Same),
    ],
    sources: &["RFC 1191", "RFC 8201", "RFC 4821", "RFC 2923", "measured on Linux 6.18 with a narrow link"],
    check: Check::Flow(check),
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
/// What TCP options take of the MSS.
const OPTIONS: u32 = 12;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Server, Side::Client].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let waits = mine.unacknowledged?;
    let size = waits.copy_len;
    let filled = peer.mss.is_some_and(|mss| size >= 500 && size + OPTIONS >= u32::from(mss));
    let span = waits.last.time.since(waits.first.time);
    let rest = (1..FULL).contains(&waits.sacked);
    let passed = small_passed(flow, side).filter(|_| waits.sacked == 0);
    if waits.copies < COPIES
        || span < SPAN
        || !(filled || size >= FULL)
        || !rest && passed.is_none()
        || peer.reset_count > 0
    {
        return None;
    }
    let heard = flow.story.events().find(|event| matches!(event.what, What::Icmp(_))).map(|event| event.at);
    let sack = peer.last.filter(|last| rest && *last > waits.first);
    let confidence = if rest { Confidence::High } else { Confidence::Medium };
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
    use crate::rule::testing::Scene;

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
    fn silence_alone_may_be_an_outage() {
        assert_eq!(stuck(1448, 0).check(&RULE), None);
    }

    #[test]
    fn the_ack_of_a_fin_that_passes_between_full_segments_that_do_not_shows_their_size() {
        let closed = |fins: &[i64]| {
            let fins =
                fins.iter().fold(stuck(1448, 0), |scene, ms| scene.fin(Side::Server, *ms)).acked(Side::Server, 9_001);
            fins.again(Side::Client, 12_800).capture_ends(14_000).check(&RULE)
        };
        assert_eq!(closed(&[9_000]).map(|finding| finding.confidence), Some(Confidence::Medium));
        assert_eq!(closed(&[8_000, 9_000]), None, "a FIN that is repeated was not answered: nothing passes");
    }

    #[test]
    fn small_octets_are_not_lost_for_their_size() {
        assert_eq!(stuck(400, 100).check(&RULE), None);
    }
}
