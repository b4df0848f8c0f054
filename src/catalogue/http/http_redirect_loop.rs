//! The site redirects to itself: whoever follows comes back to the same address and is redirected again.
//!
//! ## How tcpwhy knows
//! One client asked for the same address at least three times, each time within 0.5 s of a redirect that led there, and was redirected each
//! time: to the same address, or round over another one. Where the redirect only says https instead of http, it takes five: the client may
//! have come with https to the proxy in front, and the application does not know it.
//!
//! ## What it is not
//! - A redirect from http to https that is followed: the next request is on another port.
//! - A health check that is answered with a redirect: it comes at its own pace.
//!
//! ## What people see
//! `ERR_TOO_MANY_REDIRECTS`, `curl: (47) Maximum (50) redirects followed`, "The page isn't redirecting properly".
//!
//! ## False alarms it avoids
//! Redirects of different users (the forwarded address and User-Agent have to be the same), a login that sends back once. On busy ports
//! only the first and the latest answers that went well are at hand: a loop in between may go unnoticed.

use std::collections::BTreeMap;

use crate::event::{PacketRef, Protocol, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint, ShortText};

pub static RULE: Rule = Rule {
    id: "http-redirect-loop",
    title: "the site redirects to itself",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "{server} redirects {url} to itself: {client_host} was sent round {times} times in {span}",
    variants: &[
        "{server} redirects {url} to https although it came from a proxy: {client_host} asked {times} times in {span}",
    ],
    users_see: &[
        "ERR_TOO_MANY_REDIRECTS",
        "curl: (47) Maximum (50) redirects followed",
        "The page isn't redirecting properly",
        "TooManyRedirects",
    ],
    do_first: &[
        Step {
            says: "Where does it lead, and who says so (Server, Via)?",
            command: "curl -sS -o /dev/null -m 30 -D - http://{host}:{port}{path}",
        },
        Step {
            says: "Does it end when the application is told that the client came with https?",
            command: "curl -sS -o /dev/null -m 30 -w '%{response_code} %{redirect_url}\\n' -H 'X-Forwarded-Proto: https' http://{host}:{port}{path}",
        },
    ],
    verify: &[Step {
        says: "must end with a status, not with (47):",
        command: "curl -sS -L --max-redirs 10 -o /dev/null -m 30 -w '%{response_code} %{num_redirects}\\n' http://{host}:{port}{path}",
    }],
    not: &[("network", "requests and answers arrived")],
    cannot_show: &["which setting of the application or the proxy makes it redirect"],
    sources: &["RFC 9110 §15.4", "measured: an application behind nginx that ends TLS and sends no X-Forwarded-Proto"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Visits that make a loop; of a redirect that only changes the scheme.
const VISITS: usize = 3;
const SCHEME_VISITS: usize = 5;
/// Who follows a redirect does so at once: round trips and a TLS handshake.
const FOLLOWED: Elapsed = Elapsed::millis(500);
/// Packets cited, and redirects looked at.
const CITED: usize = 4;
const LOOKED_AT: usize = 65_536;

/// Who asked: address, forwarded address, User-Agent.
type Asker<'a> = (Endpoint, Address, &'a [(ShortText, ShortText)], Option<&'a str>);

/// One redirect: what was asked, and where it leads.
struct Hop<'a> {
    flow: PacketRef,
    request: PacketRef,
    answer: PacketRef,
    status: u16,
    /// Host and target, lower case host without a default port.
    url: (String, &'a str),
    leads: (String, String),
    /// Location says https.
    secure: bool,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut by_asker: BTreeMap<Asker<'_>, Vec<Hop<'_>>> = BTreeMap::new();
    let http = |flow: &&FlowSummary| flow.digest.protocol == Some(Protocol::Http);
    for flow in capture.flows.values().filter(http).take(LOOKED_AT) {
        for one in exchanges(&flow.story) {
            if let Some(hop) = hop(flow, &one) {
                let agent = one.head.user_agent.as_deref();
                let asker = (flow.facts.server, flow.facts.client.address, one.head.forwarded.as_slice(), agent);
                by_asker.entry(asker).or_default().push(hop);
            }
        }
    }
    let mut findings = Vec::new();
    for ((server, client, forwarded, _), mut hops) in by_asker {
        let proxy = !forwarded.is_empty();
        hops.sort_by_key(|hop| hop.request);
        let follows = |one: &Hop<'_>, next: &Hop<'_>| {
            let gap = next.request.time.since(one.answer.time);
            let same = one.leads.0 == next.url.0 && one.leads.1 == next.url.1;
            same && gap >= Elapsed::ZERO && gap <= FOLLOWED
        };
        findings
            .extend(hops.chunk_by(follows).filter_map(|chain| judge(capture, (server, client, proxy), chain)).next());
    }
    findings.sort_by_key(Finding::first);
    findings
}

/// A redirect that names its goal.
fn hop<'a>(flow: &FlowSummary, one: &Exchange<'a>) -> Option<Hop<'a>> {
    let (answer, head) = one.response.filter(|(_, head)| matches!(head.status, 301 | 302 | 303 | 307 | 308))?;
    let host = bare(one.head.host.as_deref()?);
    let location = head.location.as_deref()?;
    let secure = location.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    let leads = match location.split_once("://") {
        Some((_, rest)) => match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => (bare(&rest[..at]), rest[at..].to_owned()),
            Some(at) => (bare(&rest[..at]), format!("/{}", &rest[at..])),
            None => (bare(rest), "/".to_owned()),
        },
        None if location.starts_with('/') && !location.starts_with("//") => (host.clone(), location.to_owned()),
        None => return None,
    };
    let leads = (leads.0, leads.1.split('#').next().unwrap_or_default().to_owned());
    let url = (host, one.head.target.as_str());
    Some(Hop { flow: flow.facts.id, request: one.request, answer, status: head.status, url, leads, secure })
}

/// A host without the port that its scheme has anyway.
fn bare(host: &str) -> String {
    let host = host.trim_end_matches(":80").trim_end_matches(":443");
    host.to_ascii_lowercase()
}

/// Whether who is sent to https goes there, and asks in plain text again later: its links or its settings are old, and it gets what it wants.
fn seals(capture: &CaptureView<'_>, client: Address, server: Endpoint) -> bool {
    let sealed = |digest: &&Digest| digest.protocol == Some(Protocol::Tls) && digest.client().address == client;
    let there = capture.servers().filter(|(end, _)| end.address == server.address);
    there.flat_map(|(_, flows)| flows).any(sealed)
}

/// `proxy`: the client says that it asks for somebody else.
fn judge(
    capture: &CaptureView<'_>,
    (server, client, proxy): (Endpoint, Address, bool),
    chain: &[Hop<'_>],
) -> Option<Finding> {
    let mut visits: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for hop in chain {
        *visits.entry((hop.url.0.as_str(), hop.url.1)).or_default() += 1;
    }
    let ((host, target), times) = visits.into_iter().max_by_key(|(_, times)| *times)?;
    let secure = chain.iter().any(|hop| hop.secure);
    if times < if secure { SCHEME_VISITS } else { VISITS } {
        return None;
    }
    let (first, last) = (chain.first()?, chain.last()?);
    let to = |hop: &Hop<'_>| {
        format!("{}: to {}{}{}", hop.status, if hop.secure { "https://" } else { "" }, hop.leads.0, hop.leads.1)
    };
    let mut finding = RULE.about(Subject::Flow(first.flow), first.answer, Some(Side::Server), to(first)).and(
        first.request,
        Side::Client,
        format!("asks for {host}{target}"),
    );
    for (number, hop) in chain.iter().enumerate().skip(1).take(CITED) {
        // The first round stands on the first screen, whatever connection it took.
        let own = (number > 1 && hop.flow != first.flow).then_some(hop.flow);
        finding = finding.cites(hop.request, own, format!("then asks for {}{}", hop.url.0, hop.url.1));
        finding = finding.cites(hop.answer, own, to(hop));
    }
    let reach = Reach {
        servers: vec![server],
        sources: vec![client],
        spans: vec![(first.request.time, last.answer.time)],
        flows: chain.iter().map(|hop| hop.flow).collect::<std::collections::BTreeSet<_>>().len() as u64,
        of: capture.service(&server).map_or(0, |service| service.flows).max(1),
        clients: 1,
        standing: Standing::GoesOn,
        ..Reach::default()
    };
    let finding = finding
        .with("url", Value::Packet(format!("{host}{target}")))
        .with("path", super::plain(target))
        .with("times", times as u64)
        .with("span", last.answer.time.since(first.request.time))
        .reaches(reach);
    Some(match (secure, came_sealed(capture, first.flow)) {
        (false, _) => finding,
        (true, true) => finding.confidence(Confidence::High).variant(1),
        (true, false) if !proxy || seals(capture, client, server) => return None,
        (true, false) => finding.confidence(Confidence::Medium).severity(Severity::Warning).variant(1),
    })
}

/// The client came to the proxy in front with TLS.
fn came_sealed(capture: &CaptureView<'_>, flow: PacketRef) -> bool {
    capture
        .links_of(flow)
        .filter(|link| link.backend_leg == flow)
        .any(|link| capture.digest_of(link.client_leg).is_some_and(|digest| digest.protocol == Some(Protocol::Tls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    /// Each request, and where its answer leads.
    fn walk(hops: &[(&str, &str)], gap: i64) -> Vec<Finding> {
        visits(hops, gap, false).check(&RULE)
    }

    /// The same of somebody who says that it asks for another one.
    fn visits(hops: &[(&str, &str)], gap: i64, proxy: bool) -> World {
        let forwarded = if proxy { vec![("x-forwarded-for".into(), "203.0.113.7".into())] } else { Vec::new() };
        let mut scene = Scene::between("10.0.0.1:40000", "10.0.0.2:80").handshake();
        for (n, (target, location)) in (0_i64..).zip(hops) {
            let head = RequestHead {
                method: "GET".into(),
                target: (*target).into(),
                host: Some("www.example".into()),
                forwarded: forwarded.clone(),
                ..Default::default()
            };
            let answer = ResponseHead { status: 302, location: Some((*location).into()), ..Default::default() };
            scene = scene
                .data(Side::Client, 3 + n * gap, 80)
                .speaks(Side::Client, Protocol::Http)
                .also(Side::Client, What::Request(Box::new(head)))
                .also(Side::Client, What::RequestEnd)
                .data(Side::Server, 4 + n * gap, 120)
                .speaks(Side::Server, Protocol::Http)
                .also(Side::Server, What::Response(Box::new(answer)))
                .also(Side::Server, What::ResponseEnd);
        }
        World::new().with(&scene)
    }

    #[test]
    fn three_visits_of_one_address_are_a_loop() {
        let findings = walk(&[("/a", "/a"); 3], 20);
        assert_eq!((findings.len(), findings[0].variant, findings[0].evidence.len()), (1, 0, 6));
        let round = [("/a", "http://www.example/b"), ("/b", "http://WWW.example:80/a")].repeat(3);
        assert_eq!(walk(&round, 20)[0].values.get("times"), Some(&3u64.into()));
    }

    #[test]
    fn two_visits_and_a_way_that_goes_on_are_none() {
        assert!(walk(&[("/a", "/a"); 2], 20).is_empty());
        assert!(walk(&[("/a", "/b"), ("/b", "/c"), ("/c", "/d"), ("/d", "/e")], 20).is_empty());
    }

    #[test]
    fn a_change_of_scheme_takes_five_and_is_less_sure() {
        let secure = [("/", "https://www.example/"); 5];
        assert!(visits(&secure[..4], 20, true).check(&RULE).is_empty());
        let findings = visits(&secure, 20, true).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].confidence), (Severity::Warning, Confidence::Medium));
    }

    #[test]
    fn who_asks_for_itself_or_goes_to_https_is_in_no_loop() {
        let secure = [("/", "https://www.example/"); 9];
        assert!(walk(&secure, 20).is_empty());
        let sealed = Scene::starting("10.0.0.1:40002", "10.0.0.2:443", 900, 0).data(Side::Client, 3, 500);
        let sealed = sealed.speaks(Side::Client, Protocol::Tls).data(Side::Server, 5, 900);
        assert!(visits(&secure, 20, true).with(&sealed).check(&RULE).is_empty());
    }

    #[test]
    fn checks_come_at_their_own_pace() {
        assert!(walk(&[("/", "https://www.example/"); 9], 2_000).is_empty());
    }
}
