//! When a warning becomes critical: nobody is served by that port any more (catalogue 8).
//!
//! The other lift of the catalogue (a notice on many flows becomes a warning) is left to the rules: a server that closes idle connections
//! does so on all of them, and a long path loses a segment on every tenth connection; both are healthy.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::Verdict;
use crate::rule::view::CaptureView;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;

/// Nobody was served for so long.
const DEAD: Elapsed = Elapsed::secs(10);
/// Connections that must have failed alike.
const FLOWS: usize = 3;

/// Makes warnings critical that are all that ever happens on a server port.
pub fn lift(findings: &mut [Finding], capture: &CaptureView<'_>) {
    let mut alike: BTreeMap<(String, Endpoint), Vec<usize>> = BTreeMap::new();
    for (i, finding) in findings.iter().enumerate() {
        let foretold = catalogue::rule(&finding.rule).is_none_or(|rule| rule.foretells);
        let counts = finding.severity == Severity::Warning && finding.confidence > Confidence::Low && !foretold;
        // Whether anybody was served can only be seen where both directions are.
        if let Some(flow) = capture.flow_of(finding).filter(|flow| counts && flow.facts.both_ways()) {
            alike.entry((finding.rule.to_string(), flow.facts.server)).or_default().push(i);
        }
    }
    for ((rule, server), members) in alike {
        if members.len() >= FLOWS && dead(&rule, server, &members, findings, capture) {
            for i in members {
                let finding = &mut findings[i];
                finding.severity = Severity::Critical;
                finding.notes.push(format!("critical because no connection to {server} was served any more"));
            }
        }
    }
}

/// Every connection to the port that began since the first of these failed, over ten seconds and more.
fn dead(rule: &str, server: Endpoint, members: &[usize], findings: &[Finding], capture: &CaptureView<'_>) -> bool {
    let flows: Vec<_> = members.iter().filter_map(|i| capture.flow_of(&findings[*i])).collect();
    let starts = || flows.iter().map(|flow| flow.facts.start());
    let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return false };
    let clients: BTreeSet<_> = flows.iter().map(|flow| flow.facts.client.address).collect();
    let of_a_client = catalogue::rule(rule).is_none_or(|rule| rule.culprit == Culprit::Client);
    last.since(first) >= DEAD
        && (clients.len() > 1 || !of_a_client)
        && capture
            .began_to(&server, first, Timestamp::MAX)
            .all(|digest| digest.verdict != Verdict::Healthy && !digest.served)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World};

    /// A client's request at `second`, given up after six seconds without an answer.
    fn given_up(client: u8, second: i64) -> Scene {
        let ends = (format!("10.0.0.{client}:{}", 40_000 + second), second as u64 * 10 + 1);
        let scene = Scene::starting(&ends.0, "10.0.0.9:80", ends.1, second * 1000).handshake();
        scene.request(3, "GET", "/", 40).fin(Side::Client, 6_000)
    }

    fn severities(scenes: &[Scene], world: World) -> Vec<Severity> {
        let rule = catalogue::rule("client-abandoned").expect("it exists");
        let mut findings: Vec<Finding> = scenes.iter().filter_map(|scene| scene.check(rule)).collect();
        let world = scenes.iter().fold(world, |world, scene| world.with(scene));
        lift(&mut findings, &world.view());
        findings.into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn a_port_that_serves_nobody_for_ten_seconds_is_critical() {
        let scenes = [given_up(1, 0), given_up(2, 6), given_up(3, 12)];
        assert_eq!(severities(&scenes, World::new()), [Severity::Critical; 3]);
    }

    #[test]
    fn one_that_was_served_meanwhile_is_enough_to_leave_it_a_warning() {
        let scenes = [given_up(1, 0), given_up(2, 6), given_up(3, 12)];
        let served = Scene::starting("10.0.0.4:50000", "10.0.0.9:80", 900, 8_000).handshake();
        let served = served.request(3, "GET", "/", 40).response(5, 200, 90);
        assert_eq!(severities(&scenes, World::new().with_good(&served)), [Severity::Warning; 3]);
    }

    #[test]
    fn neither_a_few_seconds_nor_a_single_impatient_client_show_that_nobody_is_served() {
        let soon = [given_up(1, 0), given_up(2, 3), given_up(3, 6)];
        assert_eq!(severities(&soon, World::new()), [Severity::Warning; 3]);
        let alone = [given_up(1, 0), given_up(1, 6), given_up(1, 12)];
        assert_eq!(severities(&alone, World::new()), [Severity::Warning; 3]);
    }
}
