//! A large ClientHello does not get through, small ones do.
//!
//! ## How tcpwhy knows
//! A ClientHello of 1,300 octets or more (key shares against quantum computers, long session tickets and many application protocols make it so
//! large) stays unacknowledged though it is sent at least three times, or the server closes on it without a word; and a smaller ClientHello
//! with the same name was taken by the same server. High where two were lost and two got through.
//!
//! ## What it is not
//! - `pmtu-blackhole`: it shows that full segments are lost and small ones pass; it explains this one.
//! - `tls-closed-after-clienthello` alone: there size makes no difference.
//! - `tls-handshake-stalled`: there the ClientHello is acknowledged and the server waits.
//!
//! ## What people see
//! `ERR_CONNECTION_RESET` or a handshake that times out in a new browser only; curl works, or works with `--curves X25519`.
//!
//! ## False alarms it avoids
//! Where one ClientHello of the same size was taken, size is not the difference. Other names are no control: a server may choose by name.

use crate::event::{Kind, PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::offer::{self, Taken};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

/// From here a ClientHello does not fit into one segment on every path.
const LARGE: u32 = 1300;
/// Sends of one segment, the first included, before it is lost for good.
const COPIES: u32 = 3;
/// Lost and taken ones that make it sure.
const BOTH: usize = 2;

pub static RULE: Rule = Rule {
    id: "tls-clienthello-lost",
    title: "a large ClientHello does not get through",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::ClientHello]),
    says: "a ClientHello of {size} octets from {client_host} does not get through to {server}; one of {small} octets does",
    variants: &["{server} closes on a ClientHello of {size} octets from {client_host}; one of {small} octets is taken"],
    users_see: &["ERR_CONNECTION_RESET", "ERR_TIMED_OUT", "TLS handshake timeout", "SSL_ERROR_SYSCALL"],
    do_first: &[
        Step {
            says: "From the same host, does a ClientHello that fits into one segment pass? It prints a certificate then.",
            command: "openssl s_client -connect {server} -servername {name} -groups X25519 </dev/null",
        },
        Step {
            says: "And a large one? It must print the same.",
            command: "openssl s_client -connect {server} -servername {name} -alpn http/1.1,$(seq -s, 100000 100250) </dev/null",
        },
        Step { says: "Do full packets reach {host} at all?", command: "ping -c 3 -M do -s 1472 {host}" },
    ],
    verify: &[Step {
        says: "prints a certificate once large ClientHellos pass:",
        command: "openssl s_client -connect {server} -servername {name} -alpn http/1.1,$(seq -s, 100000 100250) </dev/null",
    }],
    not: &[("packet-loss", "smaller ClientHellos pass")],
    cannot_show: &["which box drops it: one with a smaller MTU, or one that reads the first segment only"],
    explains: &[
        Explains("rto-unrecovered", Scope::Same),
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("client-abandoned", Scope::Same),
        Explains("server-reset-mid-response", Scope::Same),
    ],
    sources: &[
        "RFC 8446 §4.1.2",
        "measured with a relay that reads once, and OpenSSL 3.0 with a long list of ALPN names",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let silent = server.payload + server.unseen == 0 && client.unseen == 0 && !flow.facts.mid_stream;
    let (hello_at, hello) = if silent { flow.client_hello()? } else { return None };
    if hello.len < LARGE {
        return None;
    }
    let (at, side, shows, variant) = lost(flow).or_else(|| closed(flow, hello_at))?;
    let name = match &hello.sni {
        Some(name) => Value::Packet(name.to_string()),
        None => flow.facts.server.address.into(),
    };
    Some(
        RULE.found(flow, hello_at, Side::Client, format!("ClientHello of {} octets", hello.len))
            .and(at, side, shows)
            .variant(variant)
            .with("size", u64::from(hello.len))
            .with("small", 0u64)
            .with("name", name),
    )
}

/// A part of it is sent again and again.
fn lost(flow: &FlowView<'_>) -> Option<(PacketRef, Side, String, u8)> {
    let waits = flow.client().unacknowledged.filter(|waits| waits.copies >= COPIES && waits.len > 0)?;
    let shows = format!("the same octets, copy {}: nobody acknowledges them", waits.copies);
    Some((waits.last, Side::Client, shows, 0))
}

/// The server closes on it.
fn closed(flow: &FlowView<'_>, hello_at: PacketRef) -> Option<(PacketRef, Side, String, u8)> {
    let (_, close) = flow.facts.closer.filter(|(side, close)| *side == Side::Server && *close > hello_at)?;
    let after = close.time.since(hello_at.time);
    let shows = format!("{} {after} later: 0 octets, no alert", flow.close_word(Side::Server));
    (after <= flow.thresholds.refusal).then_some((close, Side::Server, shows, 1))
}

/// Size must be the difference: a smaller one with the same name was taken, and none as large.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Drop };
    let Some(hello) = offer::hello(own) else { return Keep::Drop };
    let same_name = |taken: &Taken<'_>| taken.hello.sni == hello.sni;
    if offer::taken(capture, own).any(|taken| taken.hello.len >= hello.len) {
        return Keep::Drop;
    }
    let small: Vec<Taken<'_>> =
        offer::taken(capture, own).filter(|taken| taken.hello.len < LARGE && same_name(taken)).collect();
    let Some(control) = small.iter().max_by_key(|taken| std::cmp::Reverse(taken.at)) else { return Keep::Drop };
    let server = own.facts.server;
    let alike = capture.found_by(RULE.id).filter(|flow| flow.facts.server == server).count();
    if alike >= BOTH && small.len() >= BOTH {
        finding.confidence = Confidence::High;
    }
    let size = control.hello.len;
    offer::control(finding, control, &format!("a ClientHello of {size} octets is taken"));
    *finding = finding.clone().with("small", u64::from(size));
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{makes, offer, other, takes};
    use crate::rule::testing::{Scene, World};
    use crate::wire::tls::ClientHello;

    fn of(len: u32) -> ClientHello {
        ClientHello { len, ..offer() }
    }

    fn unheard() -> Scene {
        makes(Scene::open(), of(1700)).again(Side::Client, 300).again(Side::Client, 900).capture_ends(5_000)
    }

    fn closed() -> Scene {
        makes(Scene::open(), of(1700)).acked(Side::Client, 4).fin(Side::Server, 5)
    }

    #[test]
    fn one_that_nobody_acknowledges_and_one_that_the_server_closes_on_are_told_beside_a_small_one() {
        for (scene, variant) in [(unheard(), 0), (closed(), 1)] {
            let finding = scene.check(&RULE).expect("lost");
            let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), of(300), 0x0303));
            let told = world.corroborated(&RULE, finding).expect("kept");
            assert_eq!((told.variant, told.confidence), (variant, Confidence::Medium));
            assert_eq!(told.values.get("small"), Some(&300u64.into()));
        }
    }

    #[test]
    fn without_a_small_one_or_with_a_large_one_that_is_taken_nothing_is_said() {
        let scene = closed();
        let finding = scene.check(&RULE).expect("lost");
        assert!(World::new().with(&scene).corroborated(&RULE, finding.clone()).is_none());
        let small = takes(other(50, "10.0.0.9:40000"), of(300), 0x0303);
        let large = takes(other(90, "10.0.0.8:40000"), of(1800), 0x0303);
        let world = World::new().with(&scene).with(&small).with(&large);
        assert!(world.corroborated(&RULE, finding.clone()).is_none());
        let other_name = ClientHello { sni: Some("shop.example.net".into()), ..of(300) };
        let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), other_name, 0x0303));
        assert!(world.corroborated(&RULE, finding).is_none());
    }

    #[test]
    fn small_ones_answers_and_a_single_retransmission_are_silent() {
        assert!(makes(Scene::open(), of(500)).fin(Side::Server, 5).check(&RULE).is_none());
        assert!(takes(Scene::open(), of(1700), 0x0303).fin(Side::Server, 5).check(&RULE).is_none());
        let once = makes(Scene::open(), of(1700)).again(Side::Client, 300).capture_ends(900);
        assert!(once.check(&RULE).is_none());
    }
}
