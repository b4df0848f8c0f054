//! The handshake passes, then nothing does: a stateful box on the way drops what follows, or accepted for a server that is not there.
//!
//! ## How tcpwhy knows
//! The handshake is complete, the client's first octets are small and sent at least four times over a second or more, and from then on
//! nothing at all comes from the server: no acknowledgment, no repeated SYN+ACK, no RST, no ICMP error.
//!
//! ## What it is not
//! - `pmtu-blackhole`: there only full segments vanish; octets of 600 or more are not judged here.
//! - `accept-queue-overflow`: the octets arrive and the server's kernel drops them; not claimed where the capture stands at the server,
//!   nor where another connection to the port is acknowledged at the same time.
//! - `reply-from-other-address`: the answers come, under another address.
//!
//! ## What people see
//! curl connects and times out, or hangs after "TLS handshake, Client hello"; telnet connects.
//!
//! ## False alarms it avoids
//! Lossy captures and one-sided ones; servers that acknowledge and keep silent.

use crate::event::{Kind, Side};
use crate::flow::facts::{Handshake, IpProtocol, Vantage};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "stateful-drop-after-handshake",
    title: "the handshake passes, then nothing does",
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Established, Kind::FirstPayload]),
    claims_absence: true,
    says: "{server} accepts {client_host}, and nothing passes after the handshake: {octets} octets, {copies} copies, no acknowledgment",
    users_see: &["Operation timed out after", "TLS handshake, Client hello", "connected, then no answer"],
    do_first: &[
        Step {
            says: "On {host}: do the client's octets arrive? Meanwhile one request that fails:",
            command: "tcpdump -nn -c 20 -i any 'tcp port {port} and host {client_host}'",
        },
        Step {
            says: "On each firewall in between: does it know the connection as ESTABLISHED, or count it as INVALID?",
            command: "conntrack -L -d {host} -p tcp --dport {port}",
        },
    ],
    verify: &[Step {
        says: "from the client's host; any answer, even an error, proves the way open:",
        command: "curl -sS -o /dev/null -m 5 http://{host}:{port}/",
    }],
    not: &[("packet-loss", "no copy of it arrives"), ("connect-timeout", "the handshake is complete")],
    cannot_show: &["which box drops it, and whether the SYN+ACK came from the server itself or from a SYN proxy"],
    explains: &[
        Explains("rto-unrecovered", Scope::SameOrLink),
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("tls-handshake-stalled", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
    ],
    sources: &["Open Food Facts, 2022", "RFC 9293 §3.8.1"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Sends of the same octets.
const COPIES: u32 = 4;
/// Over this time.
const SPAN: Elapsed = Elapsed::secs(1);
/// Larger octets may fail for their size.
const SMALL: u32 = 600;
/// A connection of the same port this close tells how the port is.
const BESIDE: Elapsed = Elapsed::secs(10);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (facts, client, server) = (flow.facts, flow.client(), flow.server());
    let waits = client.unacknowledged?;
    let span = waits.last.time.since(waits.first.time);
    let silent = server.packets == 1 && server.syn_count == 1;
    if facts.transport != IpProtocol::Tcp
        || facts.handshake != Handshake::Full
        || !silent
        || client.acknowledged > 0
        || waits.copies < COPIES
        || span < SPAN
        || !(1..SMALL).contains(&waits.len)
        || flow.saw(Kind::Icmp)
        || facts.vantage == Vantage::NearServer
    {
        return None;
    }
    Some(
        RULE.found(flow, server.first?, Side::Server, "SYN+ACK: the last packet of the server")
            .and_maybe(facts.established, Side::Client, "ACK: the handshake is complete")
            .and(waits.first, Side::Client, format!("{} octets", waits.len))
            .and(waits.last, Side::Client, format!("the same, {} copies in {span}, no acknowledgment", waits.copies))
            .with("octets", u64::from(waits.len))
            .with("copies", u64::from(waits.copies)),
    )
}

/// Where the port acknowledges another connection at the same time, the way is open and the server itself drops.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (from, to) = (flow.facts.start() - BESIDE, flow.facts.last.time + BESIDE);
    let heard = capture.began(from, to).any(|digest| {
        digest.id != flow.facts.id
            && digest.server() == flow.facts.server
            && digest.client().address == flow.facts.client.address
            && digest.answered
    });
    if heard { Keep::Drop } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn silent() -> Scene {
        Scene::open()
            .data(Side::Client, 3, 18)
            .again(Side::Client, 205)
            .again(Side::Client, 613)
            .again(Side::Client, 1445)
            .capture_ends(5000)
    }

    #[test]
    fn four_copies_into_silence_after_a_handshake_are_dropped_on_the_way() {
        let finding = silent().check(&RULE).expect("dropped");
        assert_eq!(finding.confidence, Confidence::Medium);
        assert_eq!(finding.values.get("copies"), Some(&4u64.into()));
    }

    #[test]
    fn octets_that_fill_a_segment_may_be_too_large() {
        let mut scene = silent();
        scene.facts.from_client.unacknowledged.as_mut().expect("waits").len = 1400;
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn at_the_server_the_octets_did_arrive() {
        let mut scene = silent();
        scene.facts.vantage = Vantage::NearServer;
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_repeated_syn_ack_is_another_story() {
        assert_eq!(silent().syn_ack(1600).check(&RULE), None);
    }

    #[test]
    fn a_sibling_that_is_answered_proves_the_way_open() {
        let sibling = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 50, 100).handshake();
        let sibling = sibling.data(Side::Client, 3, 18).acked(Side::Client, 4).data(Side::Server, 5, 100);
        let finding = silent().check(&RULE).expect("dropped");
        let world = World::new().with(&silent()).with_good(&sibling);
        assert_eq!(world.corroborated(&RULE, finding), None);
    }
}
