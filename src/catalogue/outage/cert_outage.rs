//! Every TLS client refuses the same server certificate.
//!
//! ## How tcpwhy knows
//! At least three handshakes of at least two clients for one name are refused for one readable reason (expired, not valid yet, issuer not
//! trusted, another name), two of them by alert, and from the first to the last of them nobody is served under that name. Refusals whose
//! reason TLS 1.3 seals belong to it when another client says why. Several servers that send the certificate are one outage.
//!
//! ## What it is not
//! - One client with a wrong clock or without the authority's certificate: others are served (`tls-cert-untrusted`, `tls-cert-not-yet-valid`).
//! - `tls-chain-incomplete`: some clients accept what others refuse.
//! - A consequence of an outage before it: a certificate ends on its date, whatever the network does.
//!
//! ## What people see
//! All users get a certificate warning at once; every API client fails.
//!
//! ## False alarms it avoids
//! One client alone, however often. A success under the name ends it only when the certificate was changed, or a client that objected to a
//! date is now served; else it was no outage. Nothing is claimed of a time whose successes are forgotten. Clients that finish the
//! handshake and leave without a word count, but never alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary, name_key};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step, trust};
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

/// Handshakes and clients that are refused, and refusals in words among them.
const HANDSHAKES: usize = 3;
const CLIENTS: usize = 2;
const WORDS: usize = 2;
/// Refusals cited.
const CITED: usize = 4;

pub static RULE: Rule = Rule {
    id: "cert-outage",
    title: "every TLS client refuses the same server certificate",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "the certificate of {name} expired on {not_after}: all {clients} refuse it, {failures} handshakes in {span}",
    variants: &[
        "the certificate of {name} has expired, its clients say: all {clients} refuse it, {failures} handshakes in {span}",
        "the certificate of {name} is not valid before {not_before}: all {clients} refuse it, {failures} handshakes in {span}",
        "nobody trusts the issuer of the certificate of {name}: all {clients} refuse it, {failures} handshakes in {span}",
        "{server} answers {name} with a certificate for other names: all {clients} refuse it, {failures} handshakes in {span}",
    ],
    users_see: &[
        "SSL certificate problem",
        "x509: certificate",
        "NET::ERR_CERT_",
        "PKIX path",
        "certificate has expired",
        "unable to get local issuer certificate",
    ],
    do_first: &[
        Step {
            says: "Which certificate does {server} send now? Compare the serial with the one on its disk: replaced, but not loaded?",
            command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -serial -issuer -dates",
        },
        Step {
            says: "On {host}: which certificates lie there, and until when are they valid?",
            command: "certbot certificates",
        },
        Step { says: "On {host}: does the renewal run at all?", command: "systemctl list-timers --all" },
    ],
    verify: &[Step {
        says: "prints Verification: OK once it is mended, at every server of the name:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "every server flight arrived and was answered")],
    cannot_show: &["which certificate lies on the server's disk"],
    explains: &[
        Explains("tls-cert-expired", Scope::PeerName),
        Explains("tls-cert-untrusted", Scope::PeerName),
        Explains("tls-cert-name-mismatch", Scope::PeerName),
        Explains("tls-cert-rejected", Scope::PeerName),
        Explains("tls-cert-not-yet-valid", Scope::PeerName),
    ],
    sources: &["RFC 5280 section 4.1.2.5", "RFC 8446 section 6.2", "lobste.rs outage, 2018"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// The rules whose findings are refusals: with their reason, the last one without.
const MEMBERS: [&str; 5] =
    ["tls-cert-expired", "tls-cert-not-yet-valid", "tls-cert-untrusted", "tls-cert-name-mismatch", "tls-cert-rejected"];

/// A client that refused.
#[derive(Clone, Copy)]
struct Refusal<'a> {
    flow: &'a FlowSummary,
    found: &'a Finding,
    /// The rule that names the reason; `None` = sealed.
    reason: Option<&'static str>,
}

/// Refusals at one server under one name, without a success between them.
struct Run<'a> {
    server: Endpoint,
    name: Option<String>,
    reason: &'static str,
    refusals: Vec<Refusal<'a>>,
    last_good: Option<PacketRef>,
    standing: Standing,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut places: BTreeMap<(Endpoint, Option<String>), Vec<Refusal<'_>>> = BTreeMap::new();
    for rule in MEMBERS {
        for flow in capture.found_by(rule) {
            let Some(found) = flow.findings.iter().find(|finding| finding.rule == rule) else { continue };
            // Where the server is not heard, nobody can be seen to be served; a clock that is wrong is the client's.
            let clock = rule == "tls-cert-not-yet-valid" && found.variant == 1;
            if found.severity < Severity::Warning || flow.facts.from_server.payload == 0 || clock {
                continue;
            }
            let name = trust::asked(&flow.story).map(|name| name.trim_end_matches('.').to_ascii_lowercase());
            let reason = (rule != "tls-cert-rejected").then_some(rule);
            places.entry((flow.facts.server, name)).or_default().push(Refusal { flow, found, reason });
        }
    }
    let mut runs = Vec::new();
    for ((server, name), refusals) in places {
        runs.extend(runs_of(server, name, refusals, capture));
    }
    let outages = join(runs, capture);
    outages.iter().enumerate().filter_map(|(n, outage)| judge(n as u32, outage, capture)).collect()
}

/// The refusals of one name at one server in runs between which somebody was served.
fn runs_of<'a>(
    server: Endpoint,
    name: Option<String>,
    mut refusals: Vec<Refusal<'a>>,
    capture: &CaptureView<'_>,
) -> Vec<Run<'a>> {
    refusals.sort_by_key(|refusal| refusal.flow.facts.id);
    let key = name_key(name.as_deref());
    let refused: BTreeSet<PacketRef> = refusals.iter().map(|refusal| refusal.flow.facts.id).collect();
    let good: Vec<&Digest> = capture
        .began_to(&server, Timestamp::MIN, Timestamp::MAX)
        .filter(|digest| digest.served && digest.protocol == Some(Protocol::Tls) && digest.name == key)
        .filter(|digest| !refused.contains(&digest.id))
        .collect();
    let next = |id: PacketRef| good.get(good.partition_point(|digest| digest.id <= id)).copied();
    let parts = refusals.chunk_by(|one, other| {
        let served = next(one.flow.facts.id);
        served.is_none_or(|served| served.id > other.flow.facts.id)
    });
    let run = |part: &[Refusal<'a>]| {
        let (first, last) = (part.first()?, part.last()?);
        if !all_known_since(first.flow.facts.id, &server, capture) {
            return None;
        }
        let standing = match next(last.flow.facts.id) {
            None => Standing::GoesOn,
            Some(served) if mended(served, part) => Standing::Over(served.id),
            Some(_) => return None,
        };
        let before = good.partition_point(|digest| digest.id < first.flow.facts.id);
        let last_good = before.checked_sub(1).and_then(|place| good.get(place)).map(|digest| digest.id);
        let reason = one_reason(part)?;
        let run = Run { server, name: name.clone(), reason, refusals: part.to_vec(), last_good, standing };
        // A date comes to pass; but an issuer or a name that was accepted before is still accepted by those clients.
        let accepted = run.leaf().is_some_and(|leaf| good.iter().any(|digest| digest.leaf == leaf));
        (dated(reason) || !accepted).then_some(run)
    };
    parts.filter_map(run).collect()
}

/// The reason that at least four of five of those that tell one name: an odd client among many has its own trouble besides.
fn one_reason(refusals: &[Refusal<'_>]) -> Option<&'static str> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for reason in refusals.iter().filter_map(|refusal| refusal.reason) {
        *counts.entry(reason).or_default() += 1;
    }
    let told: usize = counts.values().sum();
    let (reason, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    (count * 5 >= told * 4).then_some(reason)
}

/// Whether every success at the server since a flow is still known: flows that worked are forgotten after a while.
fn all_known_since(first: PacketRef, server: &Endpoint, capture: &CaptureView<'_>) -> bool {
    let Some(service) = capture.service(server) else { return true };
    let known = || capture.began_to(server, Timestamp::MIN, Timestamp::MAX);
    let whole = service.flows <= known().count() as u64;
    let none_since = service.last_good.is_none_or(|good| good < first);
    let recent = first.time >= capture.end - capture.thresholds.window;
    whole || none_since || recent && known().next().is_some_and(|oldest| oldest.id < first)
}

/// Whether a success shows that the certificate was replaced, and not that its client does not mind. Sealed certificates cannot be compared:
/// a date is got over by a client that objected before; authorities and names are a matter of each program behind one address.
fn mended(served: &Digest, refusals: &[Refusal<'_>]) -> bool {
    let known = refusals.iter().map(|refusal| refusal.flow.digest.leaf).find(|leaf| *leaf != 0);
    match known.filter(|_| served.leaf != 0) {
        Some(leaf) => leaf != served.leaf,
        None => {
            let refused = |refusal: &Refusal<'_>| refusal.flow.facts.client.address == served.client().address;
            one_reason(refusals).is_some_and(dated) && refusals.iter().any(refused)
        }
    }
}

/// Whether the reason is a matter of dates: the same for every client.
fn dated(reason: &str) -> bool {
    matches!(reason, "tls-cert-expired" | "tls-cert-not-yet-valid")
}

impl Run<'_> {
    /// From its first to its last refusal.
    fn span(&self) -> (Timestamp, Timestamp) {
        let from = self.refusals.iter().map(|refusal| refusal.found.first().time).min();
        let until = self.refusals.iter().map(|refusal| refusal.found.last().time).max();
        (from.unwrap_or_default(), until.unwrap_or_default())
    }

    /// The certificate's key, where one of them shows it.
    fn leaf(&self) -> Option<u32> {
        self.refusals.iter().map(|refusal| refusal.flow.digest.leaf).find(|leaf| *leaf != 0)
    }

    /// Whether both tell of one certificate of one name at two servers.
    fn alike(&self, other: &Self, capture: &CaptureView<'_>) -> bool {
        let group = capture.thresholds.group;
        let ((a, b), (c, d)) = (self.span(), other.span());
        let same_leaf = self.leaf().zip(other.leaf()).is_none_or(|(one, other)| one == other);
        let same_name = self.name.is_some() && self.name == other.name;
        let near = a - group <= d && c - group <= b;
        self.server != other.server && same_name && self.reason == other.reason && same_leaf && near
    }
}

/// Runs of one name with one reason at the same time are one outage, whatever the number of servers; two certificates are two.
fn join<'a>(runs: Vec<Run<'a>>, capture: &CaptureView<'_>) -> Vec<Vec<Run<'a>>> {
    let mut outages: Vec<Vec<Run<'a>>> = Vec::new();
    for run in runs {
        match outages.iter_mut().find(|outage| outage.iter().all(|known| known.alike(&run, capture))) {
            Some(outage) => outage.push(run),
            None => outages.push(vec![run]),
        }
    }
    outages
}

fn judge(n: u32, runs: &[Run<'_>], capture: &CaptureView<'_>) -> Option<Finding> {
    let one = runs.first()?;
    let mut refusals: Vec<Refusal<'_>> = runs.iter().flat_map(|run| run.refusals.iter().copied()).collect();
    refusals.sort_by_key(|refusal| refusal.flow.facts.id);
    let clients: BTreeSet<Address> = refusals.iter().map(|refusal| refusal.flow.facts.client.address).collect();
    let words = refusals.iter().filter(|refusal| refusal.found.severity == Severity::Critical);
    if refusals.len() < HANDSHAKES || clients.len() < CLIENTS || words.count() < WORDS {
        return None;
    }
    // The surest refusal that tells the reason, with the certificate where it is readable.
    let shown = refusals.iter().filter(|refusal| refusal.reason == Some(one.reason)).max_by_key(|refusal| {
        let readable = refusal.flow.digest.leaf != 0;
        (refusal.found.confidence, readable, std::cmp::Reverse(refusal.flow.facts.id))
    })?;
    let (first, last) = (refusals.first()?, refusals.last()?);
    let until = refusals.iter().map(|refusal| refusal.found.last()).max()?;
    let servers: Vec<Endpoint> = runs.iter().map(|run| run.server).collect();
    let standing = runs.iter().map(|run| run.standing).reduce(later).unwrap_or_default();
    let last_good = runs.iter().filter_map(|run| run.last_good).max();
    let (more, of) = sizes(runs, first.flow.facts.id, until, capture);
    let failures = refusals.len() as u64 + more;
    let mut finding = cite(n, shown, &refusals);
    if let Some(good) = last_good {
        let shows = "the last handshake before it that was accepted";
        finding.evidence.push(Evidence { at: good, flow: Some(good), side: None, shows: shows.into() });
    }
    if let Standing::Over(back) = standing {
        finding = finding.cites(back, Some(back), "the first handshake that is accepted again");
    }
    finding = remarks(finding, one, shown, &refusals, runs.len());
    let reach = Reach {
        servers: servers.clone(),
        name: one.name.clone(),
        spans: vec![(first.found.first().time, until.time)],
        flows: failures,
        of: of.max(failures),
        clients: clients.len() as u64,
        last_good,
        standing,
        ..Reach::default()
    };
    let name = match &one.name {
        Some(name) => Value::Packet(name.clone()),
        None => Value::Address(one.server.address),
    };
    Some(
        finding
            .confidence(shown.found.confidence)
            .with("name", name)
            .with("server", one.server)
            .with("host", one.server.address)
            .with("clients", format!("{} clients", clients.len()))
            .with("failures", failures)
            .with("span", last.found.last().time.since(first.found.first().time))
            .reaches(reach),
    )
}

/// It goes on while it does so at one server.
fn later(one: Standing, other: Standing) -> Standing {
    match (one, other) {
        (Standing::Over(a), Standing::Over(b)) => Standing::Over(a.max(b)),
        (Standing::Over(_), other) => other,
        (one, _) => one,
    }
}

/// Refused flows that are only counted, and handshakes for the name in all while it lasted.
fn sizes(runs: &[Run<'_>], first: PacketRef, until: PacketRef, capture: &CaptureView<'_>) -> (u64, u64) {
    let (mut more, mut of) = (0, 0);
    for run in runs {
        let key = name_key(run.name.as_deref());
        let asked = capture.began_to(&run.server, first.time, until.time);
        of += asked.filter(|digest| digest.hello != 0 && digest.name == key).count() as u64;
        let members = |beyond: &&crate::rule::tally::Beyond| {
            beyond.server == run.server
                && beyond.rule == run.reason
                && beyond.first.time <= until.time
                && beyond.last.time >= first.time
        };
        more += capture.tally.beyond.iter().filter(members).map(|beyond| beyond.flows).sum::<u64>();
    }
    (more, of)
}

/// The refusal that tells the reason, with the certificate, then others of another kind first, and the last.
fn cite(n: u32, shown: &Refusal<'_>, refusals: &[Refusal<'_>]) -> Finding {
    let id = shown.flow.facts.id;
    let word = |refusal: &Refusal<'_>| {
        let told = refusal.found.evidence.first();
        told.map(|told| (told.at, told.shows.clone())).unwrap_or((refusal.found.first(), String::new()))
    };
    let (at, shows) = word(shown);
    let mut finding = RULE.about(Subject::Host(n), at, Some(Side::Client), shows).on_flow(id);
    if let Some((at, chain)) = trust::chain(&shown.flow.story) {
        finding = finding.cites(at, Some(id), trust::described(chain));
        if let Some(leaf) = chain.first() {
            finding = finding.with("subject", Value::Packet(leaf.subject.clone()));
        }
    }
    let mut told: BTreeSet<String> = BTreeSet::from([word(shown).1]);
    for refusal in refusals {
        let (at, shows) = word(refusal);
        if told.len() < CITED && told.insert(shows.clone()) {
            finding = finding.cites(at, Some(refusal.flow.facts.id), shows);
        }
    }
    if let Some(last) = refusals.last().filter(|last| finding.evidence.iter().all(|known| known.at != word(last).0)) {
        let shows = format!("the last of {} refusals: {}", refusals.len(), word(last).1);
        finding = finding.cites(word(last).0, Some(last.flow.facts.id), shows);
    }
    finding
}

/// The headline's reason, and what else the refusals tell.
fn remarks(finding: Finding, run: &Run<'_>, shown: &Refusal<'_>, refusals: &[Refusal<'_>], servers: usize) -> Finding {
    let slot = |slot: &str| shown.found.values.get(slot).cloned();
    let mut finding = match run.reason {
        "tls-cert-expired" => match slot("not_after") {
            Some(date) => finding.with("not_after", date),
            None => finding.variant(1),
        }
        .note("A certificate ends on its date: nothing else in this capture made it expire."),
        "tls-cert-not-yet-valid" => {
            let finding = finding.note("Its clients and the clock of this capture agree: no clock is wrong.");
            finding.with("not_before", slot("not_before").unwrap_or_else(|| "a later date".into())).variant(2)
        }
        "tls-cert-untrusted" => finding.variant(3),
        _ => finding.variant(4),
    };
    let sealed = refusals.iter().filter(|refusal| refusal.reason.is_none()).count();
    if sealed > 0 {
        finding = finding.note(format!("{sealed} of them seal their reason (TLS 1.3); the others tell it."));
    }
    if servers > 1 {
        finding = finding.note(format!("{servers} servers send it: compare the serial of each after the repair."));
    }
    let kinds: BTreeSet<&[u16]> = refusals.iter().filter_map(|refusal| trust::ciphers(&refusal.flow.story)).collect();
    if kinds.len() > 1 {
        let because = format!("clients with {} different lists of ciphers refuse it", kinds.len());
        finding = finding.rules_out("one broken client", because, &[]);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::{alert, certificate, tls_12_on, tls_13, works};
    use crate::wire::tls::Certificate;

    const SERVER: &str = "10.0.0.2:443";

    fn judged(mut scene: Scene) -> Scene {
        for rule in MEMBERS {
            let rule = crate::catalogue::rule(rule).expect("built");
            scene.findings.extend(scene.check(rule));
        }
        scene
    }

    /// The n-th second: that client refuses, with that alert.
    fn refuses(n: u64, client: u8, server: &str, chain: Certificate, description: u8) -> Scene {
        let scene = Scene::starting(&format!("10.0.1.{client}:40000"), server, n * 20, n as i64 * 1000).handshake();
        judged(alert(tls_12_on(scene, vec![chain]), Side::Client, description))
    }

    fn accepts(n: u64, client: u8, chain: Certificate) -> Scene {
        let scene = Scene::starting(&format!("10.0.1.{client}:50000"), SERVER, n * 20, n as i64 * 1000).handshake();
        works(tls_12_on(scene, vec![chain]))
    }

    fn expired() -> Certificate {
        certificate(-90, -1)
    }

    fn three() -> World {
        (1..=3).fold(World::new(), |world, n| world.with(&refuses(n, n as u8, SERVER, expired(), 45)))
    }

    #[test]
    fn three_clients_that_refuse_an_expired_certificate_are_an_outage() {
        let found = three().with_good(&accepts(0, 9, expired())).check(&RULE);
        let reach = found[0].reach.as_ref().expect("it speaks for many");
        assert_eq!((found.len(), found[0].confidence, reach.flows), (1, Confidence::Certain, 3));
        assert_eq!((reach.standing, reach.last_good.is_some()), (Standing::GoesOn, true));
    }

    #[test]
    fn sealed_refusals_belong_to_it() {
        let scene = Scene::starting("10.0.1.4:40000", SERVER, 80, 4000).handshake();
        let sealed = tls_13(scene).data(Side::Client, 5, 24);
        let what = crate::event::What::AlertEncrypted { len: 19, alone: false };
        let sealed = judged(sealed.also(Side::Client, what).fin(Side::Client, 6).gone(9));
        let found = three().with(&sealed).check(&RULE);
        assert_eq!(found[0].reach.as_ref().map(|reach| reach.flows), Some(4));
    }

    #[test]
    fn a_new_certificate_ends_it() {
        let mut renewed = certificate(-1, 89);
        renewed.serial = "2000".into();
        let found = three().with_good(&accepts(9, 9, renewed)).check(&RULE);
        assert!(matches!(found[0].reach.as_ref().map(|reach| reach.standing), Some(Standing::Over(_))));
    }

    #[test]
    fn a_client_that_accepts_the_same_certificate_makes_it_no_outage() {
        assert!(three().with_good(&accepts(9, 9, expired())).check(&RULE).is_empty());
        let untrusted = |n: u64| refuses(n, n as u8, SERVER, certificate(-1, 80), 48);
        let world = (1..=3).fold(World::new(), |world, n| world.with(&untrusted(n)));
        assert_eq!(world.check(&RULE).len(), 1);
        assert!(world.with_good(&accepts(0, 9, certificate(-1, 80))).check(&RULE).is_empty());
    }

    #[test]
    fn successes_that_are_forgotten_forbid_the_claim() {
        let mut world = three();
        let service = world.services.by_end.get_mut(&crate::rule::testing::end(SERVER)).expect("learnt");
        service.flows += 100;
        let at = PacketRef { number: 45, ..world.flows.keys().next().copied().expect("a flow") };
        service.last_good = Some(PacketRef { time: at.time + crate::time::Elapsed::secs(1), ..at });
        assert!(world.check(&RULE).is_empty());
        let service = world.services.by_end.get_mut(&crate::rule::testing::end(SERVER)).expect("learnt");
        service.last_good = Some(PacketRef { number: 1, time: Timestamp::default(), ..at });
        assert_eq!(world.check(&RULE).len(), 1, "all of them came before");
    }

    #[test]
    fn one_client_and_two_handshakes_are_too_few() {
        let one = (1..=5).fold(World::new(), |world, n| world.with(&refuses(n, 1, SERVER, expired(), 45)));
        assert!(one.check(&RULE).is_empty());
        let two = (1..=2).fold(World::new(), |world, n| world.with(&refuses(n, n as u8, SERVER, expired(), 45)));
        assert!(two.check(&RULE).is_empty());
    }

    #[test]
    fn an_odd_client_among_many_changes_nothing_and_two_reasons_are_no_outage() {
        let odd = |n: u64| refuses(n, n as u8, SERVER, expired(), 48);
        let world = three().with(&refuses(4, 4, SERVER, expired(), 42));
        assert_eq!(world.with(&odd(5)).check(&RULE).len(), 1);
        assert!(three().with(&odd(5)).with(&odd(6)).check(&RULE).is_empty());
    }

    #[test]
    fn a_wrong_clock_is_the_clients() {
        let world =
            (1..=3).fold(World::new(), |world, n| world.with(&refuses(n, n as u8, SERVER, certificate(-1, 80), 45)));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn two_servers_of_one_name_are_one_outage() {
        let world = (1..=4).fold(World::new(), |world, n| {
            let server = ["10.0.0.2:443", "10.0.0.3:443"][n as usize % 2];
            world.with(&refuses(n, n as u8, server, expired(), 45))
        });
        let found = world.check(&RULE);
        assert_eq!((found.len(), found[0].reach.as_ref().map(|reach| reach.servers.len())), (1, Some(2)));
    }
}
