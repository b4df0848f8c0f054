//! The requests to one server that hang together: how many, since when, which were answered beside them, and who sets no timeout.

use super::poll;
use crate::event::{PacketRef, Side};
use crate::flow::facts::Close;
use crate::rule::finding::Finding;
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::time::{Elapsed, Timestamp};

/// Flows looked at per server: enough for any number on the first screen, bounded on any capture.
const MEMBERS: usize = 4096;
/// Somebody who waits this long without closing has no total timeout.
const NO_TIMEOUT: Elapsed = Elapsed::secs(120);
/// Members cited with a packet.
const CITED: usize = 4;

/// One flow that hangs.
struct Member<'a> {
    flow: &'a FlowSummary,
    asked: PacketRef,
    until: Timestamp,
}

/// All that hang at one server.
pub(super) struct Group<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Group<'a> {
    /// The group of a flow, if it is the one to speak for it: the earliest among the surest.
    pub(super) fn led_by(leader: &'a FlowSummary, capture: &'a CaptureView<'a>) -> Option<Self> {
        let mine = hang(leader)?.confidence;
        let mut members = Vec::new();
        for flow in capture.flows_to(&leader.facts.server) {
            let Some(finding) = hang(flow) else { continue };
            if finding.confidence > mine || finding.confidence == mine && flow.facts.id < leader.facts.id {
                return None;
            }
            let closed = flow.facts.closer.map(|(_, close)| close.time);
            members.push(Member { flow, asked: finding.first(), until: closed.unwrap_or(capture.end) });
            if members.len() == MEMBERS {
                break;
            }
        }
        Some(Self { members })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The most that waited at one moment.
    pub(super) fn most_at_once(&self) -> usize {
        let begin = self.members.iter().map(|member| (member.asked.time, 1i64));
        let end = self.members.iter().map(|member| (member.until, -1i64));
        let mut steps: Vec<(Timestamp, i64)> = begin.chain(end).collect();
        steps.sort_unstable();
        let mut waiting = 0i64;
        let most = steps.into_iter().map(|(_, step)| {
            waiting += step;
            waiting
        });
        most.max().unwrap_or(0).unsigned_abs() as usize
    }

    /// Writes what the group shows into the finding that speaks for it.
    pub(super) fn tell(&self, finding: &mut Finding, capture: &CaptureView<'_>) {
        let mut told = finding.clone().with("count", self.len() as u64);
        for member in self.members.iter().skip(1).take(CITED - 1) {
            let wait = member.until.since(member.asked.time);
            told =
                told.cites(member.asked, Some(member.flow.facts.id), format!("another request: no answer for {wait}"));
        }
        told = self.control(told, capture);
        if let Some((short, long)) = self.timeout() {
            told = told.with("timeout", Value::Text(format!("; {short}"))).note(long);
        }
        if let Some(limit) = self.limit(capture) {
            told = told.note(limit);
        }
        *finding = told;
    }

    /// What the ends of the waits say about the callers' timeouts.
    fn timeout(&self) -> Option<(String, String)> {
        let waits: Vec<Elapsed> = self.members.iter().map(|member| member.until.since(member.asked.time)).collect();
        let (shortest, longest) = (waits.iter().min()?, waits.iter().max()?);
        let open = |member: &&Member<'_>| matches!(member.flow.facts.close, Close::Open);
        let silent = |member: &Member<'_>| member.flow.facts.from_client.keepalives == 0;
        let for_ever = self
            .members
            .iter()
            .filter(open)
            .filter(|member| member.until.since(member.asked.time) >= NO_TIMEOUT && silent(member));
        match for_ever.count() {
            0 => {}
            n => {
                let says = format!(
                    "{n} of them neither closed nor probed within {longest}: the caller has no total timeout \
                     (curl and PHP: CURLOPT_TIMEOUT, 0 = for ever)"
                );
                return Some(("the caller sets no timeout".into(), says));
            }
        }
        if self.len() > 1 && self.members.iter().all(|member| open(&member)) && self.members.iter().all(silent) {
            let says = format!("none of them was given up within {longest}: no timeout of the caller shows");
            return Some((format!("no caller gave up within {longest}"), says));
        }
        let given_up = |member: &Member<'_>| matches!(member.flow.facts.closer, Some((Side::Client, _)));
        let alike = (longest.0 - shortest.0).saturating_mul(100) <= longest.0.saturating_mul(3);
        (self.len() > 1 && alike && self.members.iter().all(given_up)).then(|| {
            let says = format!("every wait ended after {longest}: that is the caller's total timeout");
            (format!("the caller gives up after {longest}"), says)
        })
    }

    /// The latest request to the server that was answered before the first one hung, preferably the same one.
    fn control(&self, told: Finding, capture: &CaptureView<'_>) -> Finding {
        let Some(first) = self.members.first() else { return told };
        let wanted = poll::latest_path(&first.flow.story);
        let mut best: Option<(bool, PacketRef, PacketRef, Elapsed)> = None;
        for flow in capture.flows_to(&first.flow.facts.server).take(MEMBERS) {
            for known in poll::answered(&flow.story) {
                let same = wanted.is_some_and(|path| poll::path(&known.head.target) == path);
                let candidate = (same, known.asked, flow.facts.id, known.took());
                if known.answer < first.asked && best.is_none_or(|best| (best.0, best.1) < (same, known.asked)) {
                    best = Some(candidate);
                }
            }
        }
        match best {
            Some((same, asked, flow, took)) => {
                let what = if same { "the same request" } else { "another request" };
                // It may have come on the very connection that hung then, and does not date what failed.
                let onset = told.first();
                told.cites(asked, Some(flow), format!("{what} was answered in {took} before"))
                    .with("onset", Value::Frame(onset))
            }
            None => told,
        }
    }

    /// Whether silence begins with the number of connections open at once: a guess at a limit.
    fn limit(&self, capture: &CaptureView<'_>) -> Option<String> {
        let first = self.members.first()?;
        let flows: Vec<&FlowSummary> = capture.flows_to(&first.flow.facts.server).take(256).collect();
        let open_at = |at: PacketRef, own: PacketRef| {
            let still = |flow: &&&FlowSummary| {
                flow.facts.id != own && flow.facts.id < at && flow.facts.closer.is_none_or(|(_, close)| close > at)
            };
            flows.iter().filter(still).count()
        };
        let hung = self.members.iter().take(256).map(|member| open_at(member.asked, member.flow.facts.id)).min()?;
        let fine = flows
            .iter()
            .flat_map(|flow| poll::answered(&flow.story).into_iter().map(|known| open_at(known.asked, flow.facts.id)))
            .max()?;
        (self.len() > 1 && hung > 0 && fine < hung).then(|| {
            format!(
                "requests were answered while at most {fine} other connections were open, and none from {hung} on: \
                 a limit of about {hung} at once is a guess"
            )
        })
    }
}

/// The flow's finding that nobody answered.
fn hang(flow: &FlowSummary) -> Option<&Finding> {
    flow.findings.iter().rev().find(|finding| finding.rule == super::upstream_hang::RULE.id && finding.variant == 0)
}
