//! The certificate that works today ends within days.
//!
//! ## How tcpwhy knows
//! TLS 1.2: the leaf is readable, and its notAfter lies less than 14 days behind the packet that carries it (3 days: a warning). Certificates
//! that live less than 15 days by design are told when a sixth of their life is left.
//!
//! ## What it is not
//! - `tls-cert-expired`: there the day has come.
//!
//! ## What people see
//! Nothing yet; monitoring may say `certificate expires in N days`.
//!
//! ## False alarms it avoids
//! Dates are compared with the capture's clock, never with today. TLS 1.3 hides the certificate: then nothing is said.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;

/// Certificates with a shorter life are renewed by machines, late in it.
const SHORT_LIFE: Elapsed = Elapsed::secs(15 * 86_400);
/// Of a short life, the part that is left when renewal is overdue.
const LAST_PART: i64 = 6;

pub static RULE: Rule = Rule {
    id: "tls-cert-expiring-soon",
    title: "the certificate will expire within days",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Certificates]),
    foretells: true,
    says: "the certificate of {server} for {name} expires in {left}, on {not_after}",
    users_see: &["certificate expires in"],
    do_first: &[Step {
        says: "Does the renewal run, and is what it wrote loaded? This certificate is sent now:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -serial -dates",
    }],
    verify: &[Step {
        says: "prints Certificate will not expire once it is renewed and loaded:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -checkend 1209600",
    }],
    not: &[("tls-cert-expired", "the certificate is still valid at the time of the capture")],
    cannot_show: &["whether a renewed certificate lies on the server's disk already"],
    sources: &["RFC 5280 section 4.1.2.5"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, chain) = trust::chain(flow.story)?;
    let leaf = chain.first()?;
    let left = leaf.not_after.since(at.time);
    let life = leaf.not_after.since(leaf.not_before);
    let (notice, warning) = match life < SHORT_LIFE {
        true => (Elapsed(life.0 / LAST_PART), Elapsed(life.0 / LAST_PART / 2)),
        false => (flow.thresholds.cert_soon, flow.thresholds.cert_very_soon),
    };
    if left <= Elapsed::ZERO || left >= notice || at.time < leaf.not_before {
        return None;
    }
    let finding = RULE.found(flow, at, Side::Server, format!("valid until {}", trust::moment(leaf.not_after)));
    let severity = if left < warning { Severity::Warning } else { Severity::Notice };
    let finding = trust::named(finding, flow).severity(severity);
    Some(finding.with("left", left).with("not_after", trust::moment(leaf.not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::trust::samples;

    fn told(from: i64, to: i64) -> Option<Severity> {
        let scene = samples::works(samples::tls_12(vec![samples::certificate(from, to)]));
        scene.check(&RULE).map(|finding| finding.severity)
    }

    #[test]
    fn two_weeks_are_a_notice_and_a_weekend_is_a_warning() {
        assert_eq!([told(-80, 13), told(-88, 2)], [Some(Severity::Notice), Some(Severity::Warning)]);
    }

    #[test]
    fn a_month_and_a_day_of_the_past_are_none_of_it() {
        assert_eq!([told(-60, 30), told(-90, -1)], [None, None]);
    }

    #[test]
    fn a_life_of_six_days_is_short_by_design() {
        assert_eq!([told(-3, 3), told(-12, 1)], [None, Some(Severity::Warning)]);
    }
}
