//! The server's kernel answered the SYN with RST: nothing listens on that port.
//!
//! ## How tcpwhy knows
//! A SYN was answered by RST+ACK whose acknowledgment number is the SYN's sequence number + 1 (RFC 9293 §3.10.7.1). One is enough: no
//! live connection sends such a packet. That the connection was *refused* is certain; that *nothing listens* is the most common reason,
//! and a firewall that rejects with a TCP reset looks the same.
//!
//! ## What it is not
//! - `icmp-port-unreachable`: there a firewall says so by ICMP, with no RST.
//! - A load balancer without healthy targets (IPVS, NLB) refuses in the same form: compare the address with your list of balancers.
//!
//! ## What people see
//! `curl: (7) Failed to connect … Connection refused`, `connect() failed (111: Connection refused)` in nginx's error log, HAProxy's
//! termination state `SC`, Apache's `AH00957` with `(111)`.
//!
//! ## False alarms it avoids
//! A refusal followed by a success to the same port within 5 s is a restart window (notice). The losing family of a client that tries
//! IPv6 and IPv4 side by side is no fault of the service.

use crate::event::{Kind, ResetKind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "connect-refused",
    title: "nothing listens on that port",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Syn, Kind::Reset]),
    says: "{server} refuses connections: its kernel answered the SYN with RST after {after}",
    users_see: &[
        "curl: (7) Failed to connect",
        "connect() failed (111: Connection refused)",
        "ECONNREFUSED",
        "AH00957",
    ],
    do_first: &[Step {
        says: "Does anything listen on port {port} of {host}, and on that address?",
        command: "ss -ltnp 'sport = :{port}'",
    }],
    verify: &[Step {
        says: "from the client's host; prints succeeded once the port is open:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[("connect-timeout", "an answer came, in the first round trip")],
    cannot_show: &["whether nothing listens or a firewall rejects with a TCP reset"],
    sources: &["RFC 9293 §3.10.7.1"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let reset = flow.story.events().find(|e| matches!(e.what, What::Reset { kind: ResetKind::Refused, .. }))?;
    let syn = *flow.client().syns.last()?;
    Some(
        RULE.found(flow, reset.at, Side::Server, "RST+ACK that acknowledges the SYN: refused")
            .and(syn, Side::Client, "SYN")
            .with("after", reset.at.time.since(syn.time)),
    )
}

/// A success to the same port within 5 s of the refusal is a restart window.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let good = capture.service(&flow.facts.server).and_then(|service| service.last_good);
    if let Some(good) = good {
        let gap = good.time.since(flow.facts.id.time);
        if gap > Elapsed::ZERO && gap <= Elapsed::secs(5) {
            finding.severity = Severity::Notice;
            finding.notes.push(format!("a connection to the same port worked {gap} later: a restart window"));
        }
    }
    Keep::Yes
}
