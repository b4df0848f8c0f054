//! The name does not exist.
//!
//! ## How tcpwhy knows
//! The response code is 3, NXDOMAIN, for a question about an address (A or AAAA), and it is the last candidate: no form of the name was
//! found within 2 s.
//!
//! ## What it is not
//! - `dns-servfail`: there the server could not tell.
//! - `dns-refused`: there it did not want to.
//!
//! ## What people see
//! `Name or service not known` (EAI_NONAME), `curl: (6) Could not resolve host`, nginx `host not found in upstream`.
//!
//! ## False alarms it avoids
//! The search list (a stub tries `name.domain` first), block lists (the absence of `4.3.2.1.list` is good news), names for addresses,
//! browsers' probes and service discovery (single words, `_` labels, `wpad`, `.local`).

use super::{NXDOMAIN, about, answered_with, asked};
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::lookup::lookups;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};
use crate::time::Elapsed;

/// All candidates of a search list are tried within this time.
const SEARCH: Elapsed = Elapsed::secs(2);

pub static RULE: Rule = Rule {
    id: "dns-nxdomain",
    title: "the name does not exist",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Dns, Kind::LookupFailed]),
    says: "{server} says that {name} does not exist",
    users_see: &[
        "Name or service not known",
        "EAI_NONAME",
        "curl: (6) Could not resolve host",
        "host not found in upstream",
        "status: NXDOMAIN",
        "ENOTFOUND",
    ],
    do_first: &[
        Step {
            says: "Is it spelt as you mean it, and does the zone's own server know it?",
            command: "dig +trace {name}",
        },
        Step {
            says: "For how long is the absence remembered (last number of the SOA)?",
            command: "dig +noall +authority {name} @{host}",
        },
    ],
    verify: &[Step {
        says: "prints an address once it exists:",
        command: "dig +short +tries=1 +time=3 {name} @{host}",
    }],
    not: &[("dns-servfail", "the server is sure of its answer")],
    cannot_show: &["whether another view of the zone (inside, outside) has the name"],
    explains: &[Explains("http-gateway-error", Scope::Name)],
    sources: &["RFC 1035 §4.1.1", "RFC 2308", "resolv.conf(5): search, ndots"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::SameFlow,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let finding = answered_with(&RULE, flow, &[NXDOMAIN])?;
    let Some(Value::Packet(name)) = finding.values.get("name") else { return None };
    let Some(Value::Text(qtype)) = finding.values.get("type") else { return None };
    (matches!(qtype.as_str(), "A" | "AAAA") && meant(name)).then_some(finding)
}

/// Whether somebody needs the name: no word without a domain, no discovery, no block list, no reverse name.
fn meant(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let numbers = labels.iter().take(4).filter(|label| label.parse::<u8>().is_ok()).count();
    let first = labels.first().copied().unwrap_or_default();
    let last = labels.last().copied().unwrap_or_default();
    labels.len() > 1
        && numbers < 4
        && !labels.iter().any(|label| label.starts_with('_'))
        && !matches!(first, "wpad" | "isatap" | "teredo")
        // Firefox asks for it, and "no such name" is how a network says that it wants no DNS over HTTPS.
        && !name.eq_ignore_ascii_case("use-application-dns.net")
        && !matches!(last, "local" | "arpa" | "lan" | "home" | "localdomain" | "localhost")
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let Some((name, _)) = asked(finding, flow) else { return Keep::Yes };
    let client = flow.facts.client.address;
    let first_label = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    for other in about(capture, finding.first(), SEARCH, SEARCH).filter(|other| other.facts.client.address == client) {
        for lookup in lookups(&other.story) {
            let Some((at, answer)) = lookup.answer else { continue };
            let candidate = lookup.question.name.as_str();
            let found = answer.rcode == 0 && (candidate == name || first_label(candidate) == first_label(name));
            // The shorter form stands for all: `name.domain` was a try of the search list.
            let longer = name.strip_prefix(candidate).is_some_and(|rest| rest.starts_with('.'));
            if found || longer && answer.rcode == NXDOMAIN {
                finding.severity = Severity::Silent;
                let at = capture.cite(at);
                finding.notes.push(format!("a candidate of a search list: {candidate} was asked too ({at})"));
                return Keep::Yes;
            }
        }
    }
    let again = about(capture, finding.first(), capture.thresholds.window, capture.thresholds.window)
        .filter(|other| other.facts.client.address == client)
        .find(|other| {
            lookups(&other.story).iter().any(|lookup| {
                lookup.question.name == name && lookup.answer.is_some_and(|(_, answer)| answer.rcode == 0)
            })
        });
    if let Some(again) = again {
        finding
            .notes
            .push(format!("at another time the name did exist (flow {}): it came or went", again.facts.id.number));
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn answered(number: u64, name: &str, code: u16) -> Scene {
        let addresses: &[&str] = if code == 0 { &["192.0.2.1"] } else { &[] };
        Scene::starting("10.0.0.1:40000", "10.0.0.53:53", number, number as i64)
            .udp()
            .event(Side::Client, 0, dns_question(7, name, 1))
            .event(Side::Server, 1, dns_answer(7, name, 1, code, addresses))
    }

    #[test]
    fn a_name_nobody_knows_is_told() {
        let finding = answered(1, "backend.example.com", 3).check(&RULE).expect("unknown");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
    }

    #[test]
    fn a_candidate_of_the_search_list_is_not_told() {
        let scene = answered(1, "www.example.com.corp.example", 3);
        let world = World::new().with(&scene).with(&answered(10, "www.example.com", 0));
        let finding = scene.check(&RULE).and_then(|finding| world.corroborated(&RULE, finding));
        assert_eq!(finding.map(|finding| finding.severity), Some(Severity::Silent));
    }

    #[test]
    fn of_a_name_that_nowhere_exists_only_the_shortest_form_is_told() {
        let (long, short) = (answered(1, "www.exmaple.com.corp.example", 3), answered(10, "www.exmaple.com", 3));
        let world = World::new().with(&long).with(&short);
        let told = |scene: &Scene| scene.check(&RULE).and_then(|f| world.corroborated(&RULE, f)).map(|f| f.severity);
        assert_eq!((told(&long), told(&short)), (Some(Severity::Silent), Some(Severity::Warning)));
    }

    #[test]
    fn block_lists_reverse_names_and_probes_are_no_faults() {
        for name in [
            "4.3.2.1.zen.example.org",
            "qwmzpfxk",
            "wpad.example.com",
            "_ldap._tcp.example.com",
            "printer.local",
            "use-application-dns.net",
        ] {
            assert_eq!(answered(1, name, 3).check(&RULE), None, "{name}");
        }
    }
}
