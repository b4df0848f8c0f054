//! What two places together show of one connection, and neither alone: a server that spoke though nobody heard it, ACKs that got lost.

use super::Merged;
use super::faces::ENDED;
use crate::catalogue::transfer::rto_unrecovered;
use crate::rule::finding::{Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;

/// Takes back that the server is silent where another place shows what it said, and what the network did to it.
pub(super) fn take_back_silence(whole: &mut FlowSummary, judged: &FlowSummary, members: &[&FlowSummary]) {
    let heard = judged.facts.from_server.payload;
    let said_more = |face: &&&FlowSummary| {
        let network = |finding: &Finding| finding.culprit == Culprit::Network && finding.severity >= Severity::Warning;
        face.facts.id.file != judged.facts.id.file
            && face.facts.from_server.payload > heard
            && face.findings.iter().any(network)
    };
    if members.iter().any(|face| said_more(&face)) {
        whole.findings.retain(|finding| {
            let absence = crate::catalogue::rule(&finding.rule).is_some_and(|rule| rule.claims_absence);
            !(absence && matches!(finding.culprit, Culprit::Server | Culprit::Upstream))
        });
    }
}

/// Octets that nobody acknowledges at one place were acknowledged at another: then the ACKs got lost, not the octets.
pub(super) fn name_lost_acks(whole: &mut FlowSummary, members: &[&FlowSummary], merged: &Merged) {
    for finding in whole.findings.iter_mut().filter(|finding| finding.rule == rto_unrecovered::RULE.id) {
        let Some((file, side)) = finding.evidence.first().and_then(|first| Some((first.at.file, first.side?))) else {
            continue;
        };
        let Some(made) = members.iter().find(|face| face.facts.id.file == file) else { continue };
        let waits = made.facts.half(side).unacknowledged.map_or(0, |waits| u64::from(waits.len.max(1)));
        let known = made.facts.half(side).acknowledged + waits;
        let elsewhere = members.iter().any(|face| {
            face.facts.id.file != file
                && face.facts.half(side).acknowledged >= known
                && !ended_before(made, face, merged)
        });
        if waits > 0 && elsewhere {
            finding.variant = rto_unrecovered::ACKS_LOST;
            finding.evidence[0].shows = "octets whose ACK does not come here".into();
        }
    }
}

/// `made`'s capture ended before `other` saw the last of the connection.
fn ended_before(made: &FlowSummary, other: &FlowSummary, merged: &Merged) -> bool {
    let ended = merged.infos.get(usize::from(made.facts.id.file)).and_then(|info| info.last);
    ended.is_some_and(|ended| other.facts.last.time.since(ended) > ENDED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::faces::join;
    use crate::diagnose::faces::tests::{at_file, merged};
    use crate::event::Side;
    use crate::rule::testing::Scene;

    #[test]
    fn a_server_that_speaks_at_its_own_end_is_not_silent() {
        let found = |rule: &str, scene: &Scene| {
            let rule = crate::catalogue::rule(rule).expect("a rule");
            rule.found(&scene.view(), scene.facts.id, Side::Server, "x").severity(Severity::Critical)
        };
        let rules = |server_said: u32| {
            let near = Scene::open().data(Side::Client, 3, 40);
            let far = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 9, 0).handshake().data(Side::Client, 3, 40);
            let far = at_file(far.data(Side::Server, 4, server_said), 1);
            let mut merged = merged(&[near, far]);
            for (flow, rule) in merged.flows.values_mut().zip(["upstream-hang", "rto-unrecovered"]) {
                flow.findings.push(found(rule, &Scene::open()));
            }
            let (joined, _) = join(&merged).expect("two faces");
            let flow = joined.flows.into_values().next().expect("one");
            flow.findings.iter().map(|finding| finding.rule.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(rules(1448), ["rto-unrecovered"]);
        assert_eq!(rules(0), ["upstream-hang", "rto-unrecovered"]);
    }

    #[test]
    fn octets_acknowledged_at_the_other_place_were_not_lost_their_acks_were() {
        let variant = |heard: bool| {
            let near = Scene::open().data(Side::Client, 3, 40);
            let far = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 9, 0).handshake().data(Side::Client, 3, 40);
            let far = at_file(if heard { far.acked(Side::Client, 4) } else { far }, 1);
            let rule = crate::catalogue::rule("rto-unrecovered").expect("a rule");
            let waits = near.facts.from_client.unacknowledged.expect("waits").first;
            let finding = rule.found(&near.view(), waits, Side::Client, "octets that nobody acknowledges");
            let mut merged = merged(&[near, far]);
            merged.flows.values_mut().next().expect("the near one").findings.push(finding);
            let (joined, _) = join(&merged).expect("two faces");
            let flow = joined.flows.into_values().next().expect("one");
            flow.findings[0].variant
        };
        assert_eq!((variant(true), variant(false)), (rto_unrecovered::ACKS_LOST, 0));
    }
}
