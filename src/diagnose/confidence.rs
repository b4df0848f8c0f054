//! What a capture's own limits do to a claim: the modifiers M1 to M8 of the catalogue, in that order, each with its reason in words.
//!
//! M5 (too short a wait) keeps a rule from firing and therefore lives in the checks, and so does M3 where the very octet a rule needs is
//! one that the snaplen hid.

use std::collections::BTreeMap;

use crate::event::Side;
use crate::flow::facts::{Handshake, RoleSource};
use crate::rule::Rule;
use crate::rule::finding::{Confidence, Culprit, Finding, RuleId, Severity};
use crate::rule::view::CaptureView;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// Applies M1, M2, M3 and M4 to one finding.
pub fn limit(finding: &mut Finding, rule: &Rule, capture: &CaptureView<'_>) {
    one_direction(finding, rule, capture);
    guessed_roles(finding, capture);
    cut_short(finding, capture);
    capture_loss(finding, rule, capture);
}

/// M1: an absence cannot be claimed where the silent side was never visible.
fn one_direction(finding: &mut Finding, rule: &Rule, capture: &CaptureView<'_>) {
    if !rule.claims_absence {
        return;
    }
    let Some(flow) = capture.flow_of(finding) else { return };
    let facts = &flow.facts;
    if facts.both_ways() {
        return;
    }
    let sender = if facts.from_client.packets > 0 { Side::Client } else { Side::Server };
    // A sender that acknowledges new octets has an answer, whether or not the capture shows it.
    let hears_answers = facts.handshake == Handshake::None && facts.half(sender).unseen_acks > 0
        || facts.half(sender.other()).unseen > 0;
    if hears_answers || mostly_one_sided(capture) || capture.tally.one_sided > 0 && two_sided_flows(capture) == 0 {
        finding.confidence = Confidence::Low;
        finding.severity = finding.severity.min(Severity::Warning);
        finding.notes.push("this capture shows one direction only: whether an answer came cannot be told".into());
    } else if two_sided_flows(capture) == 0 && finding.confidence > Confidence::Medium {
        finding.confidence = Confidence::Medium;
        finding.notes.push("no other flow of this capture shows that answers would be visible here".into());
    }
}

/// Hardly any connection with octets shows both directions (`capture-one-sided`).
fn mostly_one_sided(capture: &CaptureView<'_>) -> bool {
    let (sided, all) = (capture.tally.one_sided, capture.tally.tcp_with_payload);
    let percent = u64::from(capture.thresholds.one_sided_percent);
    sided >= 2 && sided.saturating_mul(100) >= all.saturating_mul(percent)
}

fn two_sided_flows(capture: &CaptureView<'_>) -> u64 {
    let services = &capture.services.by_end;
    services.values().map(|service| service.accepted.max(service.good)).sum()
}

/// M2: a guessed role never accuses a side above `low`.
fn guessed_roles(finding: &mut Finding, capture: &CaptureView<'_>) {
    let Some(flow) = capture.flow_of(finding) else { return };
    if flow.facts.role == RoleSource::Guess
        && matches!(finding.culprit, Culprit::Client | Culprit::Server)
        && finding.confidence > Confidence::Low
    {
        finding.confidence = Confidence::Low;
        finding.notes.push("which side is the server is a guess: the capture holds no handshake".into());
    }
}

/// M3: where the capture kept only the first octets of a flow's packets, what they were is not known to the last octet. The TCP truth
/// (who opened, who closed, how much was sent) does not suffer.
fn cut_short(finding: &mut Finding, capture: &CaptureView<'_>) {
    let Some(flow) = capture.flow_of(finding) else { return };
    let cut = flow.facts.from_client.cut + flow.facts.from_server.cut;
    if cut > 0 && finding.confidence == Confidence::Certain && !finding.rule.starts_with("connect-") {
        finding.confidence = Confidence::High;
        finding.notes.push("the capture kept only the first octets of this connection's packets".into());
    }
}

/// What was seen of so many flows does not hang on the few packets that a capture loses.
const MANY: u64 = 20;

/// M4: packets that the capture lost within a second of the event may be the very ones that are missing.
fn capture_loss(finding: &mut Finding, rule: &Rule, capture: &CaptureView<'_>) {
    let (first, last) = (finding.first().time, finding.last().time);
    let second = Elapsed::secs(1);
    let lossy = capture.tally.unseen_times.iter().any(|at| *at >= first - second && *at <= last + second);
    let many = !rule.claims_absence && finding.reach.as_ref().is_some_and(|reach| reach.flows >= MANY);
    if !lossy || many || rule.id.starts_with("capture-") {
        return;
    }
    finding.confidence = if rule.claims_absence { Confidence::Low } else { finding.confidence.lowered() };
    finding.notes.push("the capture itself lost packets in that second".into());
}

/// M6 and M8 over all findings: one failure among many healthy siblings weighs less, many alike are surer.
pub fn siblings(findings: &mut [Finding], capture: &CaptureView<'_>) {
    let mut alike: BTreeMap<(RuleId, Endpoint), u32> = BTreeMap::new();
    for finding in findings.iter() {
        if let Some(flow) = capture.flow_of(finding) {
            *alike.entry((finding.rule.clone(), flow.facts.server)).or_default() += 1;
        }
    }
    for finding in findings {
        let Some(server) = capture.flow_of(finding).map(|flow| flow.facts.server) else { continue };
        let count = alike.get(&(finding.rule.clone(), server)).copied().unwrap_or(0);
        // What the capture cannot show is no surer for being met often.
        let hidden = finding.confidence == Confidence::Low
            && crate::catalogue::rule(&finding.rule).is_some_and(|rule| rule.claims_absence);
        if count >= capture.thresholds.many && finding.confidence < Confidence::High && !hidden {
            finding.confidence = finding.confidence.raised();
        }
        let good = capture.service(&server).map_or(0, |service| service.good);
        if finding.reach.is_none()
            && count == 1
            && good >= u64::from(capture.thresholds.healthy_siblings)
            && finding.severity > Severity::Notice
        {
            finding.severity = match finding.severity {
                Severity::Critical => Severity::Warning,
                _ => Severity::Notice,
            };
            finding.notes.push(format!("{good} other flows to {server} worked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    /// Three SYNs without an answer, beside `one_sided` connections of `all` that show one direction only.
    fn judged(one_sided: u64, all: u64) -> (Severity, Confidence) {
        let rule = crate::catalogue::rule("connect-timeout").expect("it exists");
        let scene = Scene::new().syn(0).syn(1000).syn(3000).capture_ends(9000);
        let mut finding = scene.check(rule).expect("no answer");
        let accepted = Scene::starting("10.0.0.7:40000", "10.0.0.1:22", 50, 0).handshake();
        let mut world = World::new().with_good(&accepted).with(&scene);
        (world.tally.one_sided, world.tally.tcp_with_payload) = (one_sided, all);
        limit(&mut finding, rule, &world.view());
        (finding.severity, finding.confidence)
    }

    #[test]
    fn where_answers_are_seen_their_absence_counts() {
        assert_eq!(judged(0, 9), (Severity::Critical, Confidence::High));
        assert_eq!(judged(2, 9), (Severity::Critical, Confidence::High));
    }

    #[test]
    fn where_only_one_direction_is_recorded_no_silence_is_critical() {
        assert_eq!(judged(9, 9), (Severity::Warning, Confidence::Low));
    }

    #[test]
    fn what_the_capture_cannot_show_is_no_surer_for_being_met_often() {
        let rule = crate::catalogue::rule("connect-timeout").expect("it exists");
        let scenes: Vec<Scene> = (0..3)
            .map(|n| Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 1 + n * 10, n as i64 * 20))
            .map(|scene| scene.syn(0).syn(1000).syn(3000).capture_ends(9000))
            .collect();
        let world = scenes.iter().fold(World::new(), |world, scene| world.with(scene));
        let told = |confidence: Confidence| {
            let found = scenes.iter().filter_map(|scene| scene.check(rule));
            let mut findings: Vec<Finding> = found.map(|finding| finding.confidence(confidence)).collect();
            siblings(&mut findings, &world.view());
            findings[0].confidence
        };
        assert_eq!((told(Confidence::Low), told(Confidence::Medium)), (Confidence::Low, Confidence::High));
    }
}
