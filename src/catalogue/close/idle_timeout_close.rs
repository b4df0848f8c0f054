//! A side closed an idle connection on its timer: nothing was outstanding, and the pause fits a known setting.
//!
//! ## How tcpwhy knows
//! A FIN came after a pause in which nobody sent an octet. Nothing was asked and unanswered before it. The pause fits the default of a
//! known idle or keep-alive timeout within 3 % or 0.5 s.
//!
//! ## What it is not
//! - `closed-without-answer`: there a request was outstanding.
//! - `http-keepalive-race`: there a request meets this close on the way.
//!
//! ## What people see
//! Nothing, unless a request meets the close on the way.
//!
//! ## False alarms it avoids
//! It is silent and never an incident. It tells which timer runs at which end, for the rules about races and expired state.

use crate::event::{Kind, KindSet, PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "idle-timeout-close",
    title: "a side closed an idle connection on its timer",
    severity: Severity::Silent,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Fin]),
    says: "{closer} closed the idle connection after {pause}",
    not: &[("closed-without-answer", "nothing was outstanding")],
    cannot_show: &["which setting it is, when several have the same default"],
    sources: &["defaults of the vendors' documents, read 2026-11-21; Apache and Node measured"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Idle timeouts in seconds: those of the server's side, then those of the client's.
const SERVER_TIMERS: [(i64, &str); 14] = [
    (5, "Apache KeepAliveTimeout 5, uvicorn 5, Node keepAliveTimeout 5"),
    (6, "Node keepAliveTimeout 5 (closes at 6)"),
    (10, "HAProxy or application timeout 10"),
    (20, "Tomcat or Puma 20"),
    (30, "Jetty 30, or a load balancer's 30"),
    (60, "ALB idle timeout 60, nginx 60, Apache Timeout 60, Tomcat 60"),
    (75, "nginx keepalive_timeout 75"),
    (120, "IIS 120"),
    (180, "Traefik idleTimeout 180"),
    (240, "Azure load balancer 4 min"),
    (350, "AWS NLB or NAT gateway 350"),
    (600, "GCP backend keep-alive 600, VPC idle 10 min"),
    (3600, "Envoy idle timeout 1 h, ALB client keep-alive 3600"),
    (28_800, "MySQL wait_timeout 28800"),
];
const CLIENT_TIMERS: [(i64, &str); 6] = [
    (15, "a client's pool of 15"),
    (30, "a client's pool of 30"),
    (60, "nginx upstream keepalive_timeout 60"),
    (90, "Go IdleConnTimeout 90 or Traefik idleConnTimeout 90"),
    (600, "GCP load balancer to its backend 600"),
    (1800, "HikariCP maxLifetime 1800"),
];
/// Timers are checked in steps.
const STEP: Elapsed = Elapsed::millis(500);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (closer, fin) = flow.facts.closer?;
    if flow.facts.half(closer).fin != Some(fin) {
        return None;
    }
    let quiet_since = last_words(flow, closer, fin)?;
    let pause = fin.time.since(quiet_since.time);
    let timers = match closer {
        Side::Server => SERVER_TIMERS.as_slice(),
        Side::Client => CLIENT_TIMERS.as_slice(),
    };
    // Most leave long before the shortest of them.
    if timers.first().is_some_and(|(s, _)| pause < Elapsed::secs(*s) - STEP) {
        return None;
    }
    let nearest = timers.iter().min_by_key(|(s, _)| (pause - Elapsed::secs(*s)).abs())?;
    let (timer, name) = (Elapsed::secs(nearest.0), nearest.1);
    // ±3 % or ±0.5 s.
    if (pause - timer).abs() > Elapsed(timer.0 / 100 * 3).max(STEP) {
        return None;
    }
    if flow.pending().is_some_and(|pending| pending.asked < fin) {
        return None;
    }
    Some(
        RULE.found(flow, fin, closer, format!("FIN after {pause} of silence"))
            .and(quiet_since, closer, "the last octets before it")
            .with("closer", flow.facts.endpoint(closer))
            .with("pause", pause)
            .with("timer", name)
            .note(format!("the pause fits {name}")),
    )
}

/// The last octets before the close; a TLS alert right before the FIN (close_notify) belongs to the close.
fn last_words(flow: &FlowView<'_>, closer: Side, fin: PacketRef) -> Option<PacketRef> {
    let alerts = const { KindSet::of(&[Kind::AlertEncrypted, Kind::AlertPlain]) };
    let said = if flow.story.seen().meets(&alerts) { Some(flow.story.events()) } else { None };
    let farewell = said
        .into_iter()
        .flat_map(Iterator::rev)
        .find(|e| e.side == closer && matches!(e.what.kind(), Kind::AlertEncrypted | Kind::AlertPlain))
        .map(|e| e.at);
    let mine = flow.facts.half(closer).last_payload.filter(|at| *at < fin && Some(*at) != farewell);
    let theirs = flow.facts.half(closer.other()).last_payload.filter(|at| *at < fin);
    mine.max(theirs).or(flow.facts.established)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Protocol, What};
    use crate::rule::testing::Scene;
    use crate::rule::value::Value;

    fn exchange() -> Scene {
        Scene::open().request(3, "GET", "/", 41).response(5, 200, 235).also(Side::Server, What::ResponseEnd)
    }

    #[test]
    fn a_fin_after_five_quiet_seconds_names_apache() {
        let finding = exchange().fin(Side::Server, 5_010).check(&RULE).expect("a timer");
        assert_eq!(finding.severity, Severity::Silent);
        assert!(
            matches!(finding.values.get("timer"), Some(Value::Text(name)) if name.starts_with("Apache KeepAliveTimeout 5"))
        );
    }

    #[test]
    fn a_request_that_waits_is_no_idle_connection() {
        let scene = Scene::open().request(3, "GET", "/", 41).fin(Side::Server, 5_010);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_pause_of_no_known_timer_is_not_named() {
        assert_eq!(exchange().fin(Side::Server, 2_300).check(&RULE), None);
        assert_eq!(exchange().fin(Side::Server, 42_000).check(&RULE), None);
    }

    #[test]
    fn a_close_notify_before_the_fin_belongs_to_the_close() {
        let scene = Scene::open()
            .data(Side::Client, 3, 300)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Client, 4, 100)
            .also(Side::Client, What::TlsData)
            .data(Side::Server, 5, 500)
            .also(Side::Server, What::TlsData)
            .data(Side::Server, 75_000, 24)
            .also(Side::Server, What::AlertEncrypted { len: 19, alone: false })
            .fin(Side::Server, 75_001);
        let finding = scene.check(&RULE).expect("a timer");
        assert_eq!(finding.values.get("timer"), Some(&"nginx keepalive_timeout 75".into()));
    }
}
