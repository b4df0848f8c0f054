//! The network beyond this point went silent: packets went out and nothing came back.
//!
//! ## How tcpwhy knows
//! A host that had been heard at least once a second sends nothing for 5 s or more, while at least three connections go on asking it and
//! repeat themselves. The other way round: a host hears nothing from anybody it asks. The packets that went out meanwhile show that the
//! capture itself was running. Frames of the link itself (spanning tree, IGMP) are no answer from beyond it.
//!
//! ## What it is not
//! - `capture-packet-loss`, or a capture that was paused: then the outgoing packets would be missing too.
//! - `loss-storm`: there some packets still arrive.
//! - `service-down`: there other ports of the host go on answering, or a RST comes.
//! - One dead host: while the host that asks it hears others, and no connection that was open repeats itself, only new connections fail
//!   (`connect-timeout`, `service-down`).
//! - `service-restart`: after a blackout the same connections go on where they stopped; after a restart they draw RSTs.
//!
//! ## What people see
//! One alert, then twelve, then forty: everything at once, time-outs everywhere, then all of it comes back in the same second. Each
//! connection returns with its own next retransmission, up to twice as late as the network.
//!
//! ## False alarms it avoids
//! Quiet hosts (nobody asks them, or they never spoke once a second), one dead connection, copies of one packet made by the capture.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::PacketRef;
use crate::host::grid::Quiet;
use crate::rule::finding::{Culprit, Evidence, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::Digest;
use crate::rule::value::counted;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::Address;

use super::silence::{Blackout, blackouts};

pub static RULE: Rule = Rule {
    id: "network-blackout",
    title: "the network beyond this point went silent for a while",
    severity: Severity::Critical,
    culprit: Culprit::Network,
    says: "nothing came back from {whom} for {span} ({whom} or the path to it): {asks} packets went out",
    variants: &[
        "{whom} heard nothing for {span} from any of the {others} hosts it asked: {asks} packets went out",
        "nothing came back through {hop} for {span}: {whom} and what else lies beyond it; {asks} packets went out",
        "{whom} heard nothing from {peer} for {span}: {asks} packets went out",
    ],
    users_see: &["Connection timed out", "No route to host", "one alert, then twelve, then forty"],
    do_first: &[Step {
        says: "What stands between {asker} and {peer}? Uptime and log of that switch or router, over an out-of-band console; on {asker}:",
        command: "ip -s link",
    }],
    verify: &[Step { says: "from {asker}; every packet must be answered:", command: "ping -c 3 {peer}" }],
    cannot_show: &["which device fell silent, and why"],
    explains: &[
        Explains("neighbor-unresolved", Scope::HopTime),
        Explains("connect-timeout", Scope::HopTime),
        Explains("connect-slow", Scope::HopTime),
        Explains("rto-unrecovered", Scope::HopTime),
        Explains("accept-queue-overflow", Scope::HopTime),
        Explains("handshake-reset-by-client", Scope::HopTime),
        Explains("icmp-destination-unreachable", Scope::HopTime),
        Explains("loss-storm", Scope::HopTime),
        Explains("packet-loss", Scope::HopTime),
        Explains("loss-burst-single", Scope::HopTime),
        Explains("keepalive-probes-unanswered", Scope::HopTime),
        Explains("dns-no-answer", Scope::HopTime),
        Explains("dns-outage", Scope::HopTime),
        Explains("mass-connect-timeout", Scope::HopTime),
        Explains("service-down", Scope::HopTime),
        Explains("client-abandoned", Scope::HopTime),
        Explains("http-gateway-error", Scope::HopTime),
        Explains("upstream-hang", Scope::HopTime),
        Explains("response-stalled", Scope::HopTime),
        Explains("health-check-flapping", Scope::HopTime),
        Explains("idle-flow-expired", Scope::HopTime),
    ],
    sources: &["lobste.rs, 2018: a switch that rebooted in a loop", "RFC 6298", "measured on Linux 6.18"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    blackouts(capture).iter().enumerate().map(|(n, blackout)| finding(n as u32, blackout, capture)).collect()
}

fn finding(n: u32, blackout: &Blackout<'_>, capture: &CaptureView<'_>) -> Finding {
    let first = blackout.silences[0];
    let (from, until) = blackout.span(capture.end);
    let (hosts, others) = (blackout.hosts(), blackout.others());
    let several = blackout.deaf() && others.len() > 1;
    let asks: u64 = blackout.silences.iter().map(|silence| silence.asks).sum();
    let repeats: u64 = blackout.silences.iter().map(|silence| silence.repeats).sum();
    let last = blackout.silences.iter().map(|silence| silence.asked_last).max().unwrap_or(first.asked_last);
    let heard = match first.quiet {
        Quiet::Deaf => "last packet to it",
        Quiet::Mute => "last packet from it",
        Quiet::Hop => "last packet through it",
    };
    let mut finding = RULE
        .about(Subject::Host(n), first.heard, None, format!("{heard}, {} in the ten seconds before", first.rate))
        .confidence(blackout.confidence())
        .variant(match (blackout.hop(), blackout.deaf()) {
            (Some(_), _) => 2,
            (None, true) if !several => 3,
            (None, _) => u8::from(several),
        })
        .cites(first.asked, None, "the first packet that stays unanswered")
        .cites(first.repeated, None, "it is sent again: the capture and the sender go on")
        .cites(last, None, format!("{asks} packets so far, {repeats} of them copies; nothing came back"));
    if let Some(arp) = blackout.silences.iter().filter_map(|silence| silence.arp_first).min() {
        let count: u64 = blackout.silences.iter().map(|silence| silence.arp).sum();
        finding = finding.cites(arp, None, format!("ARP request for a neighbour, {count} in this time"));
    }
    let mut standing = Standing::GoesOn;
    if let Some(back) = blackout.until() {
        let after = back.time.since(from);
        let answers = blackout.answers(back, capture);
        let shows = match answers {
            true => format!("first packet heard again, after {after}"),
            false => format!("it says something itself after {after}; what it is sent stays unanswered"),
        };
        finding.evidence.push(Evidence { at: back, flow: None, side: None, shows });
        if answers {
            standing = Standing::Over(back);
            finding = resumed(finding, blackout, back, capture);
        } else {
            let host = named(if first.quiet == Quiet::Deaf { &others } else { &hosts });
            finding = finding.note(format!(
                "{host} itself runs: what is sent to it is lost before it, or dropped by a filter on it"
            ));
        }
    }
    finding = stayed(finding, blackout, (from, until), capture);
    let dark = if standing == Standing::GoesOn { capture.end } else { until };
    if blackout.deaf() && others.len() == 1 {
        finding = others_hear(finding, (hosts[0], others[0]), (from, dark), capture);
    }
    let reach = reach(blackout, (from, dark), standing, capture);
    let (asker, peer) = match first.quiet {
        Quiet::Deaf => (first.host, first.others.first()),
        Quiet::Mute => (others[0], Some(&first.host)),
        Quiet::Hop => (first.host, first.others.first()),
    };
    finding
        .with("hop", blackout.hop().map(|mac| mac.to_string()).unwrap_or_default())
        .with("whom", named(&hosts))
        .with("others", others.len() as u64)
        .with("asker", asker)
        .with("peer", peer.copied().unwrap_or(first.host))
        .with("span", until.since(from))
        .with("asks", asks)
        .rules_out("a paused capture", format!("it recorded {asks} outgoing packets meanwhile"), &[first.asked, last])
        .reaches(reach)
}

/// Flows that were open or opened in that time, between the silent hosts and anybody.
fn reach(
    blackout: &Blackout<'_>,
    (from, until): (Timestamp, Timestamp),
    standing: Standing,
    capture: &CaptureView<'_>,
) -> Reach {
    let silent = blackout.hosts();
    // One host that hears nothing of one other: the addresses behind its link address do.
    let one = blackout.deaf() && blackout.others().len() == 1;
    let mut hosts = if one { silent.clone() } else { capture.neighbors.machines(&silent) };
    // The next hop itself, whose link address is all that the silence knows.
    hosts.extend(blackout.hop().into_iter().flat_map(|mac| capture.neighbors.of_macs(&[mac]).collect::<Vec<_>>()));
    hosts.sort_unstable();
    hosts.dedup();
    // Addresses behind one link address may be many machines: not those that get through.
    let within = |digest: &Digest| digest.accepted && digest.id.time > from && digest.id.time < until;
    for (client, server, flows) in capture.pairs() {
        if flows.iter().any(|flow| within(flow.digest)) {
            hosts.retain(|host| silent.contains(host) || *host != client && *host != server.address);
        }
    }
    let mut reach = Reach { hosts, spans: vec![(from, until)], standing, ..Reach::default() };
    let mut clients: Vec<Address> = Vec::new();
    let concerned = |host: &Address| reach.hosts.binary_search(host).is_ok();
    for (client, server, flows) in capture.pairs() {
        if concerned(&client) || concerned(&server.address) {
            let open = flows.iter().filter(|flow| flow.digest.id.time <= until && flow.digest.last >= from).count();
            reach.of += flows.len() as u64;
            reach.flows += open as u64;
            clients.extend((open > 0).then_some(client));
        }
    }
    clients.dedup();
    reach.clients = clients.len() as u64;
    reach.last_good = Some(blackout.silences[0].heard);
    reach
}

/// Connections that go on where they stopped: their hosts ran on, the path was cut.
fn resumed(finding: Finding, blackout: &Blackout<'_>, back: PacketRef, capture: &CaptureView<'_>) -> Finding {
    let hosts = blackout.hosts();
    let heard = blackout.silences[0].heard;
    let flows = capture.flows.values().filter(|flow| {
        let facts = &flow.facts;
        let ours = hosts.contains(&facts.client.address) || hosts.contains(&facts.server.address);
        let later = |half: &crate::flow::facts::Half| half.last.is_some_and(|last| last >= back);
        ours && facts.id < heard && later(&facts.from_client) && later(&facts.from_server)
    });
    match flows.count() {
        0 => finding,
        n => finding.rules_out(
            "service-restart",
            format!("{} went on with the same sequence numbers: both ends ran on", counted(n, "connection")),
            &[heard, back],
        ),
    }
}

/// Others whom the same host answered meanwhile show that it is well, and the way to it from elsewhere.
fn others_hear(
    finding: Finding,
    (host, peer): (Address, Address),
    (from, until): (Timestamp, Timestamp),
    capture: &CaptureView<'_>,
) -> Finding {
    let within = |at: &PacketRef| at.time > from && at.time < until;
    let mut others: BTreeMap<Address, (PacketRef, PacketRef)> = BTreeMap::new();
    for (client, server, flows) in capture.pairs() {
        if client == host || server.address != peer {
            continue;
        }
        let answered = flows.iter().find_map(|flow| match flow.whole {
            Some(whole) => whole.facts.from_server.last_payload.filter(within).map(|at| (flow.digest.id, at)),
            None => (flow.digest.accepted && within(&flow.digest.id)).then_some((flow.digest.id, flow.digest.id)),
        });
        if let Some(answered) = answered {
            others.entry(client).or_insert(answered);
        }
    }
    match others.first_key_value() {
        None => finding,
        Some((other, (flow, at))) => {
            let told = counted(others.len(), "other host");
            finding.cites(*at, Some(*flow), format!("meanwhile {peer} answers {other}")).rules_out(
                "service-down",
                format!("{peer} answers {told} meanwhile"),
                &[*at],
            )
        }
    }
}

/// Other hosts that were heard in the meantime say where the path was cut.
fn stayed(
    finding: Finding,
    blackout: &Blackout<'_>,
    (from, until): (Timestamp, Timestamp),
    capture: &CaptureView<'_>,
) -> Finding {
    let (hosts, others) = (blackout.hosts(), blackout.others());
    let mut stayed: Vec<(Address, PacketRef)> = Vec::new();
    let mut known: BTreeSet<Address> = BTreeSet::new();
    for flow in capture.flows.values() {
        let facts = &flow.facts;
        for (near, far, half) in [
            (facts.client.address, facts.server.address, &facts.from_server),
            (facts.server.address, facts.client.address, &facts.from_client),
        ] {
            let within = half.last.filter(|last| last.time > from && last.time < until);
            // Both lists of hosts are sorted.
            let concerned = |_: &PacketRef| others.binary_search(&near).is_ok() && hosts.binary_search(&far).is_err();
            if let Some(last) = within.filter(concerned)
                && known.insert(far)
            {
                stayed.push((far, last));
            }
        }
    }
    match stayed.first() {
        None => finding.note("nobody else was heard in that time by the host that asked"),
        Some((host, at)) => finding
            .cites(*at, None, format!("{host} is still heard"))
            .note(format!("{} other hosts stayed reachable, {host} among them: not the whole network", stayed.len())),
    }
}

fn named(hosts: &[Address]) -> String {
    let mut text = hosts.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if hosts.len() > 3 {
        text.push_str(&format!(" and {} more", hosts.len() - 3));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::host::grid::Silence;
    use crate::host::neighbor::{Answered, Times};
    use crate::rule::finding::Confidence;
    use crate::rule::finding::Standing;
    use crate::rule::testing::{Scene, World, host};
    use crate::time::Elapsed;

    fn at(number: u64, secs: i64) -> PacketRef {
        PacketRef { file: 0, number, time: Timestamp::default() + Elapsed::secs(secs) }
    }

    pub(crate) fn silence(who: &str, quiet: Quiet, others: &[&str], from: i64) -> Silence {
        Silence {
            host: host(who),
            hop: None,
            quiet,
            heard: at(from as u64, from),
            rate: 40,
            asked: at(from as u64 + 1, from),
            asked_last: at(from as u64 + 5, from + 20),
            asks: 40,
            repeats: 30,
            repeated: at(from as u64 + 2, from + 1),
            flows: 5,
            repeating: 4,
            others: others.iter().map(|other| host(other)).collect(),
            arp: 0,
            arp_first: None,
            until: Some(at(from as u64 + 6, from + 25)),
        }
    }

    fn world(silences: Vec<Silence>) -> World {
        let mut world = World::new();
        world.end = Timestamp::default() + Elapsed::secs(1000);
        silences.into_iter().for_each(|silence| world.grid.keep(silence));
        world
    }

    #[test]
    fn one_host_that_falls_silent_is_that_host_or_its_path() {
        let both = vec![
            silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100),
            silence("10.0.0.1", Quiet::Deaf, &["10.0.0.2"], 100),
        ];
        let findings = world(both).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence, findings[0].variant), (1, Confidence::Medium, 0));
        assert_eq!(findings[0].values.get("whom"), Some(&"10.0.0.2".into()));
    }

    #[test]
    fn a_host_that_hears_none_of_many_has_lost_the_network() {
        let all = vec![
            silence("10.0.0.1", Quiet::Deaf, &["192.0.2.1", "192.0.2.2", "192.0.2.3"], 100),
            silence("192.0.2.1", Quiet::Mute, &["10.0.0.1"], 100),
            silence("192.0.2.2", Quiet::Mute, &["10.0.0.1"], 101),
        ];
        let findings = world(all).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence, findings[0].variant), (1, Confidence::Certain, 1));
        assert_eq!(findings[0].reach.as_ref().map(|reach| reach.hosts.clone()), Some(vec![host("10.0.0.1")]));
    }

    #[test]
    fn hosts_beyond_one_router_that_fall_silent_together_are_told_by_the_router() {
        let mut hop = silence("10.0.0.1", Quiet::Hop, &["192.0.2.1", "192.0.2.2"], 100);
        hop.hop = Some(crate::wire::Mac([2, 0, 0, 0, 0, 1]));
        let findings = world(vec![hop, silence("192.0.2.1", Quiet::Mute, &["10.0.0.1"], 100)]).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence, findings[0].variant), (1, Confidence::Certain, 2));
        assert_eq!(findings[0].reach.as_ref().map(|reach| reach.hosts.len()), Some(2));
    }

    #[test]
    fn a_host_that_nobody_asked_for_long_was_not_silent() {
        for quiet in [Quiet::Mute, Quiet::Deaf] {
            assert!(world(vec![silence("10.0.0.2", quiet, &[], 100)]).check(&RULE).is_empty());
        }
    }

    #[test]
    fn a_host_that_was_hardly_ever_heard_may_just_be_quiet() {
        let mut quiet = silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100);
        quiet.rate = 6;
        assert!(world(vec![quiet]).check(&RULE).is_empty());
    }

    #[test]
    fn a_host_that_takes_no_connection_while_others_answer_is_that_host_s_affair() {
        let dead = Scene::starting("10.0.0.1:40000", "10.0.0.2:80", 101, 101_000).syn(0).syn(1000).capture_ends(20_000);
        let other =
            Scene::starting("10.0.0.1:41000", "10.0.0.3:80", 110, 105_000).handshake().request(3, "GET", "/", 40);
        let other = other.response(4, 200, 90);
        let silent = || world(vec![silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100)]);
        assert!(silent().with(&dead).with_good(&other).check(&RULE).is_empty());
        assert_eq!(silent().with(&dead).check(&RULE).len(), 1, "nobody else answers");
        let cut =
            Scene::starting("10.0.0.1:42000", "10.0.0.2:80", 50, 50_000).handshake().data(Side::Client, 51_000, 40);
        let cut = cut.again(Side::Client, 53_000);
        assert_eq!(silent().with(&dead).with(&cut).with_good(&other).check(&RULE).len(), 1, "a connection was cut");
    }

    #[test]
    fn a_host_that_says_something_itself_and_answers_nothing_is_not_back() {
        let cut = |copies: &[i64]| {
            let begun =
                Scene::starting("10.0.0.1:42000", "10.0.0.2:80", 50, 50_000).handshake().data(Side::Client, 51_000, 40);
            copies.iter().fold(begun, |scene, ms| scene.again(Side::Client, *ms)).capture_ends(90_000)
        };
        let silent = || world(vec![silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100)]);
        let standing = |world: World| world.check(&RULE)[0].reach.as_ref().map(|reach| reach.standing);
        let back = at(106, 125);
        assert_eq!(
            standing(silent().with(&cut(&[53_000, 60_000]))),
            Some(Standing::Over(back)),
            "nothing was sent later"
        );
        assert_eq!(standing(silent().with(&cut(&[53_000, 60_000, 80_000]))), Some(Standing::GoesOn));
        let opened = Scene::starting("10.0.0.1:43000", "10.0.0.2:80", 200, 126_000).handshake();
        assert_eq!(standing(silent().with(&cut(&[53_000, 80_000])).with(&opened)), Some(Standing::Over(back)));
    }

    #[test]
    fn a_host_that_speaks_itself_and_takes_no_connection_is_that_host_s_affair() {
        let vain = |number, ms| Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, ms).syn(0).syn(1000);
        let silent = || world(vec![silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100)]);
        let before = vain(101, 101_000).capture_ends(40_000);
        assert_eq!(silent().with(&before).check(&RULE).len(), 1, "nobody asks it any more");
        assert!(silent().with(&before).with(&vain(300, 127_000).capture_ends(9_000)).check(&RULE).is_empty());
    }

    #[test]
    fn resolvers_that_answer_nobody_while_nothing_else_is_asked_there_are_no_blackout() {
        let asks = |port: u16, number| {
            Scene::starting("10.0.0.1:40000", &format!("192.0.2.{}:{port}", number % 2 + 1), number, 101_000).udp()
        };
        let mut hop = silence("10.0.0.1", Quiet::Hop, &["192.0.2.1", "192.0.2.2"], 100);
        hop.hop = Some(crate::wire::Mac([2, 0, 0, 0, 0, 1]));
        let dark = |port| {
            let all = (10..14).map(|number| asks(port, number).data(Side::Client, 0, 30).capture_ends(20_000));
            all.fold(world(vec![hop.clone()]), |world, scene| world.with(&scene)).check(&RULE).len()
        };
        assert_eq!((dark(53), dark(5353)), (0, 1));
    }

    #[test]
    fn who_answers_arp_meanwhile_is_there() {
        let answers = |secs: i64, own: bool| {
            let mut world = world(vec![silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100)]);
            let times = Times { count: 1, first: vec![at(103, secs)], last: Some(at(103, secs)) };
            let mac = crate::wire::Mac([2, 0, 0, 0, 0, 2]);
            let answered = Answered { mac, times, unasked: 0, announced: Times::default(), own };
            world.neighbors.by_address.entry(host("10.0.0.2")).or_default().answers.push(answered);
            world.check(&RULE).len()
        };
        assert_eq!(answers(110, false), 0);
        assert_eq!((answers(90, false), answers(110, true)), (1, 1), "before it; the capturing host's own answer");
    }

    #[test]
    fn one_connection_that_repeats_itself_is_no_blackout() {
        let mut one = silence("10.0.0.2", Quiet::Mute, &["10.0.0.1"], 100);
        (one.flows, one.repeating) = (1, 1);
        assert!(world(vec![one]).check(&RULE).is_empty());
    }
}
