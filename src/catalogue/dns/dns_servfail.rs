//! The resolver could not get an answer.
//!
//! ## How tcpwhy knows
//! The response code is 2, SERVFAIL. If the answer carries an extended error (RFC 8914), it says why: 6, 7 and 9 are DNSSEC, 22 and 23 an
//! authority that cannot be reached. One name that fails has a broken zone; many names that fail have a broken resolver or upstream.
//!
//! ## What it is not
//! - `dns-no-answer`: there nothing comes back.
//! - `dns-nxdomain`: there the answer is that the name does not exist.
//!
//! ## What people see
//! `Temporary failure in name resolution` (EAI_AGAIN), `curl: (6) Could not resolve host`, dig's `status: SERVFAIL`.
//!
//! ## False alarms it avoids
//! A failure that the next resolver makes good is a notice. A resolver that passes on what its own upstream failed is a consequence.

use super::{SERVFAIL, answered_with, made_good, passed_on};
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "dns-servfail",
    title: "the resolver could not get an answer",
    confidence: Confidence::Certain,
    culprit: Culprit::Dns,
    needs: Needs::all(&[Kind::Dns, Kind::LookupFailed]),
    says: "{server} answers SERVFAIL for {type} {name}: it could not get an answer itself",
    users_see: &[
        "Temporary failure in name resolution",
        "EAI_AGAIN",
        "curl: (6) Could not resolve host",
        "status: SERVFAIL",
        "Server failure",
    ],
    do_first: &[
        Step {
            says: "Does it work without validation? Then DNSSEC of that zone is broken:",
            command: "dig +cd +tries=1 +time=5 {name} {type} @{host}",
        },
        Step { says: "At which server does the way down from the root end?", command: "dig +trace {name} {type}" },
    ],
    verify: &[Step {
        says: "prints an address once it works:",
        command: "dig +short +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-no-answer", "an answer came"), ("dns-nxdomain", "the code does not say that the name is unknown")],
    cannot_show: &[
        "why the resolver failed, unless it says so by an extended error or its own questions are in the capture",
    ],
    explains: &[Explains("http-gateway-error", Scope::Name)],
    sources: &["RFC 1035 §4.1.1", "RFC 8914"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    answered_with(&RULE, flow, &[SERVFAIL])
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if !made_good(finding, capture, Severity::Notice) {
        passed_on(finding, capture);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Side, What};
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn failed(code: u16) -> Scene {
        Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .udp()
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Server, 90, dns_answer(7, "a.example", 1, code, &[]))
    }

    #[test]
    fn a_server_failure_is_certain_and_cites_question_and_answer() {
        let finding = failed(SERVFAIL).check(&RULE).expect("failed");
        assert_eq!((finding.confidence, finding.severity), (Confidence::Certain, Severity::Critical));
        assert_eq!(finding.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn the_extended_error_is_told() {
        let What::Dns(mut answer) = dns_answer(7, "a.example", 1, SERVFAIL, &[]) else { unreachable!() };
        answer.extended_error = Some(9);
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Server, 90, What::Dns(answer));
        let finding = scene.check(&RULE).expect("failed");
        assert_eq!(finding.notes, ["the server says why: extended error 9, DNSKEY missing"]);
    }

    #[test]
    fn the_next_resolver_makes_it_good() {
        let second = Scene::starting("10.0.0.1:40001", "10.0.0.54:53", 10, 3000)
            .udp()
            .event(Side::Client, 0, dns_question(8, "a.example", 1))
            .event(Side::Server, 2, dns_answer(8, "a.example", 1, 0, &["192.0.2.1"]));
        let world = World::new().with(&failed(SERVFAIL)).with(&second);
        let finding = failed(SERVFAIL).check(&RULE).and_then(|finding| world.corroborated(&RULE, finding));
        assert_eq!(finding.map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn other_codes_are_other_rules() {
        assert_eq!(failed(0).check(&RULE), None);
        assert_eq!(failed(5).check(&RULE), None);
    }
}
