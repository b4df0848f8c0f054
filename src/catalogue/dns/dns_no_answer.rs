//! The DNS server does not answer.
//!
//! ## How tcpwhy knows
//! A question (same id, name and type) had no answer when 3 s had passed since its first copy, and it was repeated or 5 s had passed. Stub
//! resolvers repeat after 1 to 5 s. The server may be dead, a firewall may drop UDP port 53, or connection tracking lost one of two
//! questions sent from one port at once (the 5 s delays of Kubernetes). On a TCP connection it counts where another question was answered.
//!
//! ## What it is not
//! - `dns-slow`: there the answer came late.
//! - `dns-port-unreachable`: there ICMP says that nothing listens.
//! - `dns-refused`, `dns-servfail`: there an answer came.
//!
//! ## What people see
//! `Temporary failure in name resolution` (EAI_AGAIN), `curl: (6) Could not resolve host` after 5 to 30 s, or everything works with steps
//! of 5 s.
//!
//! ## False alarms it avoids
//! Questions to two servers at once of which one answers, multicast DNS, a capture that ends too early, or before the time that the same
//! server took for the same name a little earlier. When a repeated question or the next server is answered, users only waited: a warning.
//! Who gets no answer asks again: where nobody does and the capture holds no answer of that server at all, or where it holds answers
//! without their questions, the answers may just be missing in it: a warning of low confidence.

use super::{about, answers_are_visible, asked, made_good, passed_on};
use crate::event::{Kind, Side, What};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::lookup::{Lookup, lookups, type_name, unicast};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

/// A stub resolver of glibc gives a server this long.
const STUB: Elapsed = Elapsed::secs(5);

/// Every resolver library has asked again, or asked the next server, by then (glibc, dig, Go: 5 s).
const AGAIN: Elapsed = Elapsed::secs(6);

/// Answers without a question that make the capture a selection.
const ODD: usize = 3;

/// Nobody waits for an answer any longer than this.
const PATIENCE: Elapsed = Elapsed::secs(60);

pub static RULE: Rule = Rule {
    id: "dns-no-answer",
    title: "the DNS server does not answer",
    confidence: Confidence::High,
    culprit: Culprit::Dns,
    needs: Needs::all(&[Kind::Dns]),
    claims_absence: true,
    says: "{server} does not answer {client_host}: {type} {name}, asked {copies} times, nothing came in {after}",
    variants: &["{server} does not answer {client_host}: {type} {name}, nothing came in {after}"],
    users_see: &[
        "Temporary failure in name resolution",
        "EAI_AGAIN",
        "curl: (6) Could not resolve host",
        "curl: (28) Resolving timed out",
        "no servers could be reached",
    ],
    do_first: &[
        Step {
            says: "From {client_host}: does it answer over UDP?",
            command: "dig +tries=1 +time=3 {name} {type} @{host}",
        },
        Step {
            says: "And over TCP? Then UDP port {port} is filtered on the way:",
            command: "dig +tcp +tries=1 +time=3 {name} {type} @{host}",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; prints an address once it answers:",
        command: "dig +short +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-slow", "no answer came at all"), ("dns-port-unreachable", "no ICMP error quotes the question")],
    cannot_show: &["whether the server never got the question or its answer was lost on the way"],
    explains: &[
        Explains("dns-resolver-failover", Scope::Peer),
        Explains("dns-slow", Scope::Same),
        Explains("http-gateway-error", Scope::Name),
        Explains("slow-response", Scope::Host),
        Explains("proxy-retries-hide-failure", Scope::Host),
        Explains("proxy-adds-latency", Scope::Host),
    ],
    sources: &["RFC 1035 §4.2.1", "resolv.conf(5): timeout, attempts, single-request-reopen"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let closed_port = flow.saw(Kind::Icmp) && flow.story.events().any(|event| {
        matches!(&event.what, What::Icmp(error) if event.side == Side::Client && error.kind == if error.v6 { 1 } else { 3 }
            && error.code == if error.v6 { 4 } else { 3 })
    });
    let tcp = flow.facts.transport == IpProtocol::Tcp;
    let hidden = flow.facts.mid_stream || [flow.client(), flow.server()].iter().any(|half| half.unseen + half.cut > 0);
    // Where events were given up, an answer may be among them.
    if !unicast(flow.facts) || closed_port || flow.story.left_out() > 0 || tcp && hidden {
        return None;
    }
    // A connection that is closed brings no answer any more.
    let until = flow.facts.closer.filter(|_| tcp).map_or(flow.now, |(_, close)| close.time);
    let waited = |lookup: &Lookup<'_>| until.since(lookup.first().time);
    let silent = |lookup: &&Lookup<'_>| {
        lookup.answer.is_none()
            && waited(lookup) >= flow.thresholds.tail
            && (lookup.asked.len() > 1 || waited(lookup) >= STUB)
    };
    let list = lookups(flow.story);
    let lookup = list.iter().find(silent)?;
    let answered = list.iter().any(|other| other.answer.is_some());
    if tcp && !answered {
        // Nothing shows that the server speaks DNS at all.
        return None;
    }
    let question = lookup.question;
    let asks = format!("asks for {} {}", type_name(question.qtype), question.name);
    let mut finding = RULE.found(flow, lookup.first(), Side::Client, asks);
    for copy in lookup.asked.iter().skip(1).take(4) {
        let after = copy.time.since(lookup.first().time);
        finding = finding.and(*copy, Side::Client, format!("the same question again after {after}"));
    }
    let others = list.iter().filter(silent).count() - 1;
    if others > 0 {
        finding = finding.note(match others {
            1 => "another question on this flow has no answer either".to_owned(),
            _ => format!("{others} more questions on this flow have no answer either"),
        });
    } else if tcp {
        finding = finding.note("another question on this connection was answered: the server passed this one over");
    } else if answered {
        finding = finding
            .note("another question from the same port was answered: connection tracking may have lost this one");
    }
    let finding = finding
        .with("name", Value::Packet(question.name.to_string()))
        .with("type", type_name(question.qtype))
        .with("copies", lookup.asked.len() as u64)
        .with(
            "after",
            waited(lookup)
                .min(lookup.asked.last().map_or(STUB, |last| last.time.since(lookup.first().time)) + PATIENCE),
        );
    Some(if lookup.asked.len() == 1 { finding.variant(1) } else { finding })
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if made_good(finding, capture, Severity::Warning) {
        return if finding.severity == Severity::Silent { Keep::Drop } else { Keep::Yes };
    }
    passed_on(finding, capture);
    if !answers_are_visible(capture) {
        finding.confidence = finding.confidence.min(Confidence::Medium);
    }
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let Some((name, qtype)) = asked(finding, flow).map(|(name, qtype)| (name.to_owned(), qtype)) else {
        return Keep::Yes;
    };
    if may_still_come(finding, flow, &name, capture) {
        return Keep::Drop;
    }
    doubt(finding, flow, (&name, qtype), capture);
    let answered = |lookup: &Lookup<'_>| lookup.answer.is_some_and(|(at, _)| at > finding.first());
    let works = about(capture, finding.first(), STUB, STUB)
        .filter(|other| other.facts.server == flow.facts.server && other.facts.id != flow.facts.id)
        .find(|other| lookups(&other.story).iter().any(|lookup| lookup.question.name != name && answered(lookup)));
    let note = match (works, capture.service(&flow.facts.server).and_then(|service| service.last_good)) {
        (Some(other), _) => Some(format!(
            "it answers other questions at that time ({}): the way to it works",
            capture.cite_flow(other.facts.id)
        )),
        (None, Some(good)) if good < flow.facts.id => Some(format!(
            "its last answer before went to {}, {} earlier",
            capture.cite_flow(good),
            flow.facts.id.time.since(good.time)
        )),
        (None, Some(_)) => None,
        (None, None) => Some("nobody got an answer from it in this capture".into()),
    };
    finding.notes.extend(note);
    Keep::Yes
}

/// The same server took longer over the same name for the same host a little earlier, and answered: the capture ends before this question's turn.
fn may_still_come(finding: &Finding, flow: &FlowSummary, name: &str, capture: &CaptureView<'_>) -> bool {
    let waited = capture.end.since(finding.first().time);
    about(capture, finding.first(), capture.thresholds.window, Elapsed::ZERO)
        .filter(|other| other.facts.client.address == flow.facts.client.address)
        .filter(|other| other.facts.server == flow.facts.server && other.facts.id != flow.facts.id)
        .flat_map(|other| lookups(&other.story))
        .any(|lookup| lookup.question.name == name && lookup.delay().is_some_and(|delay| delay > waited))
}

/// Signs that the answers are missing in the capture and nowhere else.
fn doubt(finding: &mut Finding, flow: &FlowSummary, (name, qtype): (&str, u16), capture: &CaptureView<'_>) {
    let (client, first) = (flow.facts.client.address, finding.first());
    let odd = capture.dns_answers_alone();
    let again = || {
        about(capture, first, PATIENCE, PATIENCE).any(|other| {
            other.facts.client.address == client
                && other.facts.id != flow.facts.id
                && lookups(&other.story)
                    .iter()
                    .any(|lookup| (lookup.question.name.as_str(), lookup.question.qtype) == (name, qtype))
        })
    };
    let silent = capture.service(&flow.facts.server).is_none_or(|service| service.last_good.is_none());
    let late = capture.end.since(first.time) >= AGAIN || !answers_are_visible(capture);
    let alone = finding.variant == 1 && silent && late && !again();
    let why = if odd >= ODD {
        format!("the capture holds {odd} answers of DNS servers without their questions: it is a selection of packets")
    } else if alone {
        format!(
            "{client} did not ask again, as one does without an answer: the answers may be missing in this capture only"
        )
    } else {
        return;
    };
    finding.confidence = Confidence::Low;
    finding.severity = finding.severity.min(Severity::Warning);
    finding.notes.push(why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn asked_at(times: &[i64]) -> Scene {
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53").udp();
        times.iter().fold(scene, |scene, ms| scene.event(Side::Client, *ms, dns_question(7, "a.example", 1)))
    }

    #[test]
    fn a_question_passed_over_on_a_tcp_connection_is_told() {
        let scene = |answers: &[u16], end: i64| {
            let open = Scene::between("10.0.0.1:40000", "10.0.0.53:53").handshake();
            let asked = open
                .event(Side::Client, 3, dns_question(7, "a.example", 1))
                .also(Side::Client, dns_question(8, "a.example", 28));
            let told = answers.iter().fold(asked, |scene, id| {
                scene.event(
                    Side::Server,
                    5,
                    dns_answer(*id, "a.example", if *id == 7 { 1 } else { 28 }, 0, &["192.0.2.1"]),
                )
            });
            told.capture_ends(end).check(&RULE)
        };
        let finding = scene(&[7], 9_000).expect("one is left");
        assert_eq!(finding.values.get("type"), Some(&"AAAA".into()));
        assert_eq!(scene(&[7, 8], 9_000), None);
        assert_eq!(scene(&[7], 2_000), None, "the capture ends too early");
        assert_eq!(scene(&[], 9_000), None, "nothing shows that it speaks DNS");
    }

    #[test]
    fn a_repeated_question_without_an_answer_is_told_after_three_seconds() {
        let finding = asked_at(&[0, 2000]).capture_ends(3500).check(&RULE).expect("silent");
        assert_eq!((finding.evidence.len(), finding.variant), (2, 0));
        assert_eq!(asked_at(&[0, 2000]).capture_ends(2900).check(&RULE), None);
    }

    #[test]
    fn one_question_must_wait_five_seconds() {
        assert_eq!(asked_at(&[0]).capture_ends(4900).check(&RULE), None);
        assert_eq!(asked_at(&[0]).capture_ends(5000).check(&RULE).map(|finding| finding.variant), Some(1));
    }

    #[test]
    fn an_answer_however_late_is_one() {
        let late = asked_at(&[0, 2000]).event(Side::Server, 9000, dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]));
        assert_eq!(late.capture_ends(20_000).check(&RULE), None);
    }

    #[test]
    fn the_next_servers_answer_makes_it_a_delay() {
        let second = Scene::starting("10.0.0.1:40001", "10.0.0.54:53", 10, 5000)
            .udp()
            .event(Side::Client, 0, dns_question(8, "a.example", 1))
            .event(Side::Server, 2, dns_answer(8, "a.example", 1, 0, &["192.0.2.1"]));
        let finding = asked_at(&[0]).capture_ends(9000).check(&RULE).expect("silent");
        let world = World::new().with(&asked_at(&[0])).with(&second);
        let finding = world.corroborated(&RULE, finding).expect("a delay");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.notes, ["10.0.0.54:53 answered 5.0 s after the question (#11)"]);
    }

    #[test]
    fn of_two_servers_asked_at_once_one_answer_is_enough() {
        let second = Scene::starting("10.0.0.1:40000", "10.0.0.54:53", 10, 0)
            .udp()
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Server, 2, dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]));
        let finding = asked_at(&[0]).capture_ends(9000).check(&RULE).expect("silent");
        assert_eq!(World::new().with(&asked_at(&[0])).with(&second).corroborated(&RULE, finding), None);
    }

    fn world_of(scene: &Scene) -> World {
        World::new().with_good(&Scene::starting("10.0.0.1:40009", "10.0.0.2:80", 90, 0).handshake()).with(scene)
    }

    #[test]
    fn a_client_that_does_not_ask_again_has_its_answer_perhaps() {
        let looked_at = |times: &[i64]| {
            let scene = asked_at(times).capture_ends(20_000);
            let mut world = world_of(&scene);
            world.end = scene.now;
            let finding = world.corroborated(&RULE, scene.check(&RULE).expect("silent")).expect("told");
            (finding.severity, finding.confidence)
        };
        assert_eq!(looked_at(&[0]), (Severity::Warning, Confidence::Low));
        assert_eq!(looked_at(&[0, 5000]), (Severity::Critical, Confidence::High));
    }

    #[test]
    fn in_a_selection_of_packets_an_answer_may_be_left_out() {
        let scene = asked_at(&[0, 5000]).capture_ends(20_000);
        let mut world = world_of(&scene);
        (world.end, world.packets.first) = (scene.now, Some(scene.facts.id));
        for n in 0..3 {
            let other = Scene::starting(&format!("10.0.0.1:4100{n}"), "10.0.0.54:53", 200 + n, 6000 + n as i64).udp();
            let answer = dns_answer(n as u16, "b.example", 1, 0, &["192.0.2.1"]);
            world = world.with_good(&other.data(Side::Server, 0, 60).event(Side::Server, 1, answer));
        }
        let finding = world.corroborated(&RULE, scene.check(&RULE).expect("silent")).expect("told");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Low));
    }

    #[test]
    fn a_server_that_took_longer_for_that_name_before_may_still_answer() {
        let before = Scene::between("10.0.0.1:41000", "10.0.0.53:53")
            .udp()
            .event(Side::Client, 0, dns_question(6, "a.example", 1))
            .event(Side::Server, 11_400, dns_answer(6, "a.example", 1, 2, &[]));
        let ends = |after: i64| {
            let scene = Scene::starting("10.0.0.1:40000", "10.0.0.53:53", 50, 40_000).udp();
            let scene = [0, 2000]
                .iter()
                .fold(scene, |scene, ms| scene.event(Side::Client, *ms, dns_question(7, "a.example", 1)));
            let scene = scene.capture_ends(after);
            let mut world = world_of(&scene).with(&before);
            world.end = scene.now;
            world.corroborated(&RULE, scene.check(&RULE).expect("silent")).is_some()
        };
        assert!(!ends(4000));
        assert!(ends(12_000));
    }

    #[test]
    fn multicast_dns_need_not_be_answered() {
        let scene = Scene::between("10.0.0.1:5353", "224.0.0.251:5353").udp();
        let scene = scene.event(Side::Client, 0, dns_question(0, "printer.local", 1)).capture_ends(60_000);
        assert_eq!(scene.check(&RULE), None);
    }
}
