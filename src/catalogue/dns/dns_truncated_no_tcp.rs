//! The answer is too big for UDP, and the client does not get it over TCP either.
//!
//! ## How tcpwhy knows
//! A DNS server answered over UDP with the TC bit: the rest is to be asked for over TCP. Then the client opened no connection to port 53 of
//! that server within 5 s, or that connection was refused, not answered, or closed without an answer. No other answer to the same question
//! came in that time.
//!
//! ## What it is not
//! - `dns-no-answer`: there nothing came back at all.
//! - `connect-refused`, `connect-timeout` at port 53: what becomes of the connection. It explains them.
//!
//! ## What people see
//! Names with many addresses or long TXT records do not resolve, others do: `Temporary failure in name resolution`, dig's `Truncated,
//! retrying in TCP mode` and then `connection timed out`.
//!
//! ## False alarms it avoids
//! The retry over TCP that works; a repeat with a larger EDNS buffer that is answered in full; another server that answers. A client that
//! takes the addresses that did fit, and connects to one of them, is a notice. Where the capture holds no TCP at all it may have been made
//! without: then it is a possibility only.

use super::{ROUND, about};
use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::failed_connect;
use crate::rule::lookup::{Lookup, lookups, type_name, unicast};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "dns-truncated-no-tcp",
    title: "the answer is too big for UDP and TCP/53 fails or is not tried",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Dns,
    needs: Needs::all(&[Kind::Dns, Kind::LookupCut]),
    claims_absence: true,
    says: "{server} cut its answer for {type} {name} short, and {client_host} did not ask again over TCP",
    variants: &["{server} cut its answer for {type} {name} short, and TCP to it {failed}"],
    users_see: &[
        "Truncated, retrying in TCP mode",
        "Temporary failure in name resolution",
        "connection timed out; no servers could be reached",
        "curl: (6) Could not resolve host",
    ],
    do_first: &[
        Step {
            says: "From {client_host}: is the server reached over TCP?",
            command: "dig +tcp +tries=1 +time=3 {name} {type} @{host}",
        },
        Step {
            says: "How large is the answer (MSG SIZE)? Does it come over UDP with a larger buffer?",
            command: "dig +ignore +bufsize=4096 +tries=1 +time=3 {name} {type} @{host}",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; must print the whole answer:",
        command: "dig +tcp +short +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-no-answer", "the server answers over UDP")],
    cannot_show: &["whether a firewall or the server itself keeps TCP/53 closed"],
    explains: &[Explains("connect-refused", Scope::PeerTime), Explains("connect-timeout", Scope::PeerTime)],
    sources: &["RFC 1035 §4.1.1", "RFC 7766 §5", "RFC 6891 §6.2.3"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Who asks again over TCP does so at once; a busy client within this time.
const RETRY: Elapsed = Elapsed::secs(5);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.transport != IpProtocol::Udp || !unicast(flow.facts) {
        return None;
    }
    let list = lookups(flow.story);
    let lookup = list.iter().find(|lookup| lookup.answer.is_some_and(|(_, answer)| answer.truncated))?;
    let (at, answer) = lookup.answer?;
    let (question, fits) = (lookup.question, answer.addresses.len());
    let shows = match fits {
        0 => "answers with TC: the rest is to be asked for over TCP".to_owned(),
        n => format!("answers with TC and {n} addresses: the rest is to be asked for over TCP"),
    };
    let asks = format!("asks for {} {}", type_name(question.qtype), question.name);
    Some(
        RULE.found(flow, at, Side::Server, shows)
            .and(lookup.first(), Side::Client, asks)
            .with("name", Value::Packet(question.name.to_string()))
            .with("type", type_name(question.qtype)),
    )
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Drop };
    let at = finding.last();
    if answered_in_full(finding, flow, at, capture) {
        return Keep::Drop;
    }
    let retries: Vec<&Digest> = capture
        .began_to(&flow.facts.server, at.time, at.time + RETRY)
        .filter(|digest| digest.transport == IpProtocol::Tcp && digest.client().address == flow.facts.client.address)
        .collect();
    if retries.iter().any(|digest| digest.answered) {
        return Keep::Drop;
    }
    let failed = retries.iter().find_map(|digest| {
        let retry = capture.flows.get(&digest.id)?;
        Some((retry, failure(retry, capture)?))
    });
    if let Some((retry, (packet, words))) = failed {
        *finding = finding
            .clone()
            .cites(retry.facts.id, Some(retry.facts.id), "asks again over TCP")
            .cites(packet, Some(retry.facts.id), words)
            .confidence(Confidence::Certain)
            .with("failed", words)
            .variant(1);
        return Keep::Yes;
    }
    // A retry whose end is not known yet, or one that could still come.
    if !retries.is_empty() || capture.end.since(at.time) < RETRY {
        return Keep::Drop;
    }
    if let Some(used) = used_what_fits(flow, at, capture) {
        finding.severity = Severity::Notice;
        finding.notes.push(format!("the client used what did fit: flow {} goes to an address of it", used.number));
    } else if capture.packets.tcp == 0 {
        (finding.severity, finding.confidence) = (Severity::Warning, Confidence::Low);
        finding.notes.push("the capture holds no TCP at all: it may have been made without".into());
    }
    Keep::Yes
}

/// Whether the client got the whole answer to that question otherwise, over UDP or TCP.
fn answered_in_full(finding: &Finding, flow: &FlowSummary, at: PacketRef, capture: &CaptureView<'_>) -> bool {
    let Some(Value::Packet(name)) = finding.values.get("name") else { return false };
    let Some(qtype) = qtype(flow, at) else { return false };
    let whole = |lookup: &Lookup<'_>| {
        let asked = lookup.question.name == *name && lookup.question.qtype == qtype;
        asked && lookup.answer.is_some_and(|(_, answer)| !answer.truncated && matches!(answer.rcode, 0 | 3))
    };
    about(capture, at, ROUND, ROUND)
        .filter(|other| other.facts.client.address == flow.facts.client.address)
        .any(|other| lookups(&other.story).iter().any(whole))
}

fn qtype(flow: &FlowSummary, at: PacketRef) -> Option<u16> {
    let list = lookups(&flow.story);
    list.iter().find(|lookup| lookup.answer.is_some_and(|(answer, _)| answer == at)).map(|lookup| lookup.question.qtype)
}

/// How the connection failed, and the packet that shows it.
fn failure(retry: &FlowSummary, capture: &CaptureView<'_>) -> Option<(PacketRef, &'static str)> {
    if let Some((packet, words)) = failed_connect(retry) {
        let waited = capture.end.since(retry.facts.id.time);
        return match words {
            "refused" => Some((packet, "is refused")),
            "answered by an ICMP error" => Some((packet, "is answered by an ICMP error")),
            _ => (waited >= capture.thresholds.tail).then_some((packet, "is never answered")),
        };
    }
    let (side, close) = retry.facts.closer?;
    let unanswered = retry.facts.from_server.payload + retry.facts.from_server.unseen == 0;
    (unanswered && side == Side::Server).then_some((close, "is closed without an answer"))
}

/// A connection of the client to one of the addresses that did fit.
fn used_what_fits(flow: &FlowSummary, at: PacketRef, capture: &CaptureView<'_>) -> Option<PacketRef> {
    let list = lookups(&flow.story);
    let (_, answer) = list.iter().find_map(|lookup| lookup.answer.filter(|(answer, _)| *answer == at))?;
    let told = |digest: &&Digest| {
        digest.client().address == flow.facts.client.address
            && answer.addresses.iter().any(|(address, _)| *address == digest.server().address)
    };
    capture.began(at.time, at.time + RETRY).find(told).map(|digest| digest.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, What};
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};
    use crate::time::Timestamp;
    use crate::wire::dns::DnsMessage;

    const CLIENT: &str = "10.0.0.1:40000";
    const SERVER: &str = "10.0.0.53:53";

    fn truncated(addresses: &[&str]) -> Scene {
        let What::Dns(answer) = dns_answer(7, "big.example", 16, 0, addresses) else { unreachable!() };
        let answer = What::Dns(Box::new(DnsMessage { truncated: true, ..*answer }));
        Scene::between(CLIENT, SERVER).udp().event(Side::Client, 0, dns_question(7, "big.example", 16)).event(
            Side::Server,
            1,
            answer,
        )
    }

    fn judged(scene: &Scene, world: World) -> Option<Finding> {
        let mut world = world.with(scene);
        (world.end, world.packets.tcp) = (Timestamp::default() + Elapsed::secs(20), 5);
        world.corroborated(&RULE, scene.check(&RULE)?)
    }

    fn retry() -> Scene {
        Scene::starting("10.0.0.1:41000", SERVER, 10, 2)
    }

    #[test]
    fn no_connection_to_port_53_is_told_and_a_refused_one_for_certain() {
        let none = judged(&truncated(&[]), World::new()).expect("not tried");
        assert_eq!((none.variant, none.severity, none.evidence[0].at.number), (0, Severity::Critical, 2));
        let refused = retry().syn(0).rst(Side::Server, 1, ResetKind::Refused, 0);
        let told = judged(&truncated(&[]), World::new().with(&refused)).expect("refused");
        assert_eq!((told.variant, told.confidence), (1, Confidence::Certain));
        assert_eq!(told.values.get("failed"), Some(&"is refused".into()));
    }

    #[test]
    fn a_retry_over_tcp_that_is_answered_is_how_it_should_be() {
        let good = retry().handshake().data(Side::Client, 3, 40).data(Side::Server, 4, 900);
        assert_eq!(judged(&truncated(&[]), World::new().with_good(&good)), None);
    }

    #[test]
    fn a_larger_answer_over_udp_is_good_enough() {
        let again = Scene::starting("10.0.0.1:42000", SERVER, 20, 3)
            .udp()
            .event(Side::Client, 0, dns_question(8, "big.example", 16))
            .event(Side::Server, 1, dns_answer(8, "big.example", 16, 0, &[]));
        assert_eq!(judged(&truncated(&[]), World::new().with(&again)), None);
    }

    #[test]
    fn a_capture_that_ends_at_once_or_holds_no_tcp_proves_little() {
        let scene = truncated(&[]);
        let finding = scene.check(&RULE).expect("truncated");
        assert_eq!(World::new().with(&scene).corroborated(&RULE, finding.clone()), None);
        let mut world = World::new().with(&scene);
        world.end = Timestamp::default() + Elapsed::secs(20);
        assert_eq!(world.corroborated(&RULE, finding).map(|told| told.confidence), Some(Confidence::Low));
    }

    #[test]
    fn who_takes_what_fits_is_served() {
        let connection = Scene::starting("10.0.0.1:43000", "192.0.2.1:443", 30, 5).handshake();
        let told = judged(&truncated(&["192.0.2.1"]), World::new().with_good(&connection)).expect("kept");
        assert_eq!(told.severity, Severity::Notice);
    }
}
