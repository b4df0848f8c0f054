//! Flows that seemed healthy when they were closed, until what else is in the capture told more: they are no example of what works.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::explain;
use super::incident::Good;
use crate::event::PacketRef;
use crate::host::service::Services;
use crate::rule::finding::{Finding, Severity};
use crate::rule::summary::Verdict;
use crate::rule::view::CaptureView;

/// The numbers of those flows: a notice of theirs, or one about the whole connection, became a warning.
pub(super) fn raised(findings: &[Finding], capture: &CaptureView<'_>) -> BTreeSet<PacketRef> {
    let told = findings.iter().filter(|finding| finding.severity >= Severity::Warning);
    told.filter_map(|finding| capture.flow_of(finding))
        .filter(|flow| flow.digest.verdict == Verdict::Healthy)
        .map(|flow| flow.facts.id)
        .collect()
}

/// What is known of the servers without them.
pub(super) fn services<'a>(
    raised: &BTreeSet<PacketRef>,
    good: &Good<'_>,
    capture: &CaptureView<'a>,
) -> Cow<'a, Services> {
    let mut services = Cow::Borrowed(capture.services);
    for flow in raised.iter().filter_map(|id| capture.flows.get(id)) {
        let mut others = good.to(&flow.facts.server).map(|digest| digest.id);
        let (first, last) = (others.next(), others.next_back());
        let lesson = explain::lesson(&flow.facts, &flow.story, flow.digest.verdict);
        services.to_mut().distrust(&lesson, first, last.or(first));
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World};

    /// Two flows that worked, as far as each of them tells.
    fn both() -> [Scene; 2] {
        [(1, 0), (100, 50)].map(|(number, ms)| {
            Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, ms)
                .handshake()
                .request(3, "GET", "/", 80)
                .response(4, 200, 40)
        })
    }

    #[test]
    fn a_flow_about_which_a_warning_was_earned_is_no_example() {
        let [one, two] = both();
        let mut world = World::new().with_good(&one).with_good(&two);
        let mut kept = one.summary();
        kept.digest.verdict = Verdict::Healthy;
        world.flows.insert(one.facts.id, kept);
        let capture = world.view();
        let rule = crate::catalogue::rule("slow-response").expect("it exists");
        let found = rule.found(&one.view(), one.facts.id, Side::Server, "late");
        let notice = raised(&[found.clone().severity(Severity::Notice)], &capture);
        assert!(notice.is_empty());
        let late = raised(&[found.severity(Severity::Warning)], &capture);
        assert_eq!(late.iter().copied().collect::<Vec<_>>(), [one.facts.id]);
        let left = services(&late, &Good::of(&capture, &late), &capture);
        let known = (capture.service(&one.facts.server), left.get(&one.facts.server));
        let (Some(before), Some(after)) = known else { panic!("known") };
        assert_eq!((before.good, before.first_good), (2, Some(one.facts.id)));
        assert_eq!((after.flows, after.good, after.first_good), (before.flows, 1, Some(two.facts.id)));
    }
}
