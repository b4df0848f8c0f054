//! Name resolution.

pub mod dns_broken_aaaa;
pub mod dns_no_answer;
pub mod dns_nxdomain;
pub mod dns_outage;
pub mod dns_port_unreachable;
pub mod dns_refused;
pub mod dns_resolver_failover;
pub mod dns_search_amplification;
pub mod dns_serve_stale;
pub mod dns_servfail;
pub mod dns_slow;
pub mod dns_stale_address;
pub mod dns_truncated_no_tcp;

use crate::event::{PacketRef, Side};
use crate::rule::Rule;
use crate::rule::finding::{Finding, Severity};
use crate::rule::lookup::{Lookup, lookups, type_name, unicast};
use crate::rule::summary::FlowSummary;
use crate::rule::value::{Value, counted};
use crate::rule::view::{CaptureView, FlowView};
use crate::time::Elapsed;

/// A stub resolver asks the next server within this time.
const ROUND: Elapsed = Elapsed::secs(30);
/// Both servers were asked at once.
const PARALLEL: Elapsed = Elapsed::secs(1);

/// Record types of addresses. RFC 1035 §3.2.2, RFC 3596.
const A: u16 = 1;
const AAAA: u16 = 28;
/// The name of an address.
const PTR: u16 = 12;

/// NOERROR and the other response codes that rules speak of. RFC 1035 §4.1.1, RFC 2136 §2.2.
const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const NOTAUTH: u16 = 9;

/// The name of a response code.
pub(in crate::catalogue) fn code_name(rcode: u16) -> &'static str {
    match rcode {
        SERVFAIL => "SERVFAIL",
        NXDOMAIN => "NXDOMAIN",
        NOTIMP => "NOTIMP",
        REFUSED => "REFUSED",
        NOTAUTH => "NOTAUTH",
        _ => "an error",
    }
}

/// What an extended error says. RFC 8914 §4, the codes that decide something.
fn extended(code: u16) -> &'static str {
    match code {
        3 => "stale answer",
        6 => "DNSSEC bogus",
        7 => "signature expired",
        8 => "signature not yet valid",
        9 => "DNSKEY missing",
        10 => "RRSIGs missing",
        15 => "blocked",
        17 => "filtered",
        18 => "prohibited",
        20 => "not authoritative",
        22 => "no reachable authority",
        23 => "network error",
        _ => "other",
    }
}

/// The finding about the first lookup of a flow that was answered with one of `codes`.
fn answered_with(rule: &Rule, flow: &FlowView<'_>, codes: &[u16]) -> Option<Finding> {
    if !unicast(flow.facts) {
        return None;
    }
    let list = lookups(flow.story);
    let with = |lookup: &&Lookup<'_>| lookup.answer.is_some_and(|(_, answer)| codes.contains(&answer.rcode));
    let lookup = list.iter().find(with)?;
    let (at, answer) = lookup.answer?;
    let mut finding = rule
        .found(flow, at, Side::Server, format!("{}{}", code_name(answer.rcode), reason(answer.extended_error)))
        .and(
            lookup.first(),
            Side::Client,
            format!("asks for {} {}", type_name(lookup.question.qtype), lookup.question.name),
        )
        .with("name", Value::Packet(lookup.question.name.to_string()))
        .with("type", type_name(lookup.question.qtype))
        .with("code", code_name(answer.rcode));
    if lookup.question.qtype == PTR {
        finding = finding.severity(Severity::Notice).note("nobody waits for the name of an address, as a rule");
    }
    if let Some(code) = answer.extended_error {
        finding = finding.note(format!("the server says why: extended error {code}, {}", extended(code)));
    }
    let more = list.iter().filter(with).count() - 1;
    Some(if more > 0 {
        finding.note(format!("{} on this flow got the same answer", counted(more, "more question")))
    } else {
        finding
    })
}

fn reason(extended_error: Option<u16>) -> String {
    extended_error.map_or_else(String::new, |code| format!(", extended error {code} ({})", extended(code)))
}

/// The name and type a finding of this family speaks of.
fn asked<'a>(finding: &'a Finding, flow: &'a FlowSummary) -> Option<(&'a str, u16)> {
    let Some(Value::Packet(name)) = finding.values.get("name") else { return None };
    let list = lookups(&flow.story);
    let lookup = list.iter().find(|lookup| lookup.question.name == *name && lookup.asked.contains(&finding.first()))?;
    Some((name.as_str(), lookup.question.qtype))
}

/// The flows of one time, with their lookups.
fn about<'a>(
    capture: &'a CaptureView<'_>,
    from: PacketRef,
    before: Elapsed,
    after: Elapsed,
) -> impl Iterator<Item = &'a FlowSummary> {
    let start = PacketRef { file: 0, number: 0, time: from.time - before };
    let end = PacketRef { file: u16::MAX, number: u64::MAX, time: from.time + after };
    capture.flows.range(start..=end).map(|(_, flow)| flow).filter(|flow| flow.story.seen().has(crate::event::Kind::Dns))
}

/// Where the same client got a good answer to the same question: the flow, and the answer's packet. Who is told no IPv6 address uses the
/// IPv4 one: with `either`, that one is good enough.
fn good_answer<'a>(
    finding: &Finding,
    capture: &'a CaptureView<'_>,
    either: bool,
) -> Option<(&'a FlowSummary, PacketRef)> {
    let flow = capture.flow_of(finding)?;
    let (name, qtype) = asked(finding, flow)?;
    let client = flow.facts.client.address;
    about(capture, finding.first(), ROUND, ROUND)
        .filter(|other| other.facts.client.address == client)
        .flat_map(|other| {
            lookups(&other.story).into_iter().filter_map(move |lookup| Some((other, lookup.question, lookup.answer?)))
        })
        .filter(|(_, question, (at, answer))| {
            question.name == name
                && (question.qtype == qtype || either && (qtype, question.qtype) == (AAAA, A))
                && answer.rcode == NOERROR
                && at.time.since(finding.first().time) >= Elapsed::ZERO - PARALLEL
        })
        .map(|(other, _, (at, _))| (other, at))
        .min_by_key(|(_, at)| *at)
}

/// Whether any flow of the capture shows that answers would be seen where it was made.
fn answers_are_visible(capture: &CaptureView<'_>) -> bool {
    capture.services.by_end.values().any(|service| service.good > 0 || service.accepted > 0)
}

/// A failure that another answer made good weighs less: nothing when both were asked at once, else a delay.
fn made_good(finding: &mut Finding, capture: &CaptureView<'_>, severity: Severity) -> bool {
    let silent = finding.rule == dns_no_answer::RULE.id;
    let Some((other, at)) = good_answer(finding, capture, !silent) else { return false };
    let after = at.time.since(finding.first().time);
    finding.severity = if after <= PARALLEL { Severity::Silent } else { severity };
    let who = if capture.flow_of(finding).is_some_and(|flow| flow.facts.server == other.facts.server) {
        "a repeated question was answered".to_owned()
    } else {
        format!("{} answered", other.facts.server)
    };
    finding.notes.push(format!("{who} {} after the question ({})", after.max(Elapsed::ZERO), capture.cite(at)));
    true
}

/// A resolver that fails because its own questions fail: its clients see a consequence.
fn passed_on(finding: &mut Finding, capture: &CaptureView<'_>) {
    let Some(flow) = capture.flow_of(finding) else { return };
    let Some((name, _)) = asked(finding, flow) else { return };
    let resolver = flow.facts.server.address;
    let upstream = about(capture, finding.first(), PARALLEL, ROUND).find(|other| {
        other.facts.client.address == resolver
            && other.findings.iter().any(|inner| inner.rule.starts_with("dns-") && inner.severity > Severity::Notice)
            && lookups(&other.story).iter().any(|lookup| lookup.question.name == name)
    });
    if let Some(upstream) = upstream {
        finding.severity = finding.severity.min(Severity::Notice);
        let server = upstream.facts.server;
        finding.notes.push(format!(
            "it has no answer itself: its own question to {server} fails ({})",
            capture.cite_flow(upstream.facts.id)
        ));
    }
}
