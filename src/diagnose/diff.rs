//! What differs between a good and a bad capture of the same service. Pure: two merged results in, one comparison out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Merged;
use super::explain::server_name;
use crate::event::{Protocol, What};
use crate::flow::facts::IpProtocol;
use crate::rule::summary::{Digest, FlowSummary, Verdict};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// The schema's name.
pub const SCHEMA: &str = "tcpwhy.diff/1";
/// Round trips differ from this factor on …
const RTT_FACTOR: i64 = 3;
/// … and this distance: less is noise.
const RTT_DISTANCE: Elapsed = Elapsed::millis(5);
/// Different values of one kind that are kept for a server.
const VALUES: usize = 32;

/// Two captures, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diff {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The capture in which all was well: its names, flows and flows that failed.
    pub good: Total,
    /// The other one.
    pub bad: Total,
    /// Servers (ip:port) in both that differ, most failing first.
    pub servers: Vec<Changed>,
    /// Servers in both in which nothing differs.
    pub alike: u64,
    /// Servers that only the good capture has: ports no longer used.
    pub gone: Vec<Lone>,
    /// Servers that only the bad capture has.
    pub new: Vec<Lone>,
    /// Names whose addresses differ.
    pub names: Vec<Moved>,
}

/// One capture as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Total {
    /// Its files.
    pub captures: Vec<String>,
    /// Flows, TCP and UDP.
    pub flows: u64,
    /// Flows with a critical finding.
    pub failed: u64,
}

/// A server in both captures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Changed {
    /// ip:port.
    pub server: String,
    /// Flows and failed flows, good capture first.
    pub flows: [u64; 2],
    /// Flows that failed, likewise.
    pub failed: [u64; 2],
    /// What differs, with both values in words.
    pub differences: Vec<Difference>,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Difference {
    /// `failing`, `first octets`, `name`, `certificate`, `status`, `round trip`.
    pub what: String,
    /// In the good capture.
    pub good: String,
    /// In the bad one.
    pub bad: String,
}

/// A server in one capture only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Lone {
    /// ip:port.
    pub server: String,
    /// Flows to it.
    pub flows: u64,
    /// Flows that failed.
    pub failed: u64,
    /// What was spoken to it.
    pub speaks: String,
}

/// A name that the DNS gave other addresses in each capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Moved {
    /// The name.
    pub name: String,
    /// Addresses in the good capture.
    pub good: Vec<String>,
    /// Addresses in the bad one.
    pub bad: Vec<String>,
}

/// What one capture shows of one server.
#[derive(Default)]
struct Profile {
    flows: u64,
    failed: u64,
    openings: BTreeMap<String, u64>,
    names: BTreeSet<String>,
    serials: BTreeSet<String>,
    statuses: BTreeMap<u16, u64>,
    round_trips: Vec<Elapsed>,
}

/// Compares two captures.
pub fn diff(good: &Merged, bad: &Merged) -> Diff {
    let (mut before, mut after) = (profiles(good), profiles(bad));
    let both: BTreeSet<Endpoint> = before.keys().filter(|end| after.contains_key(end)).copied().collect();
    let mut servers = Vec::new();
    let mut alike = 0;
    for end in both {
        let (Some(one), Some(other)) = (before.remove(&end), after.remove(&end)) else { continue };
        let differences = differences(&one, &other);
        if differences.is_empty() {
            alike += 1;
            continue;
        }
        let (flows, failed) = ([one.flows, other.flows], [one.failed, other.failed]);
        servers.push(Changed { server: end.to_string(), flows, failed, differences });
    }
    servers.sort_by_key(|server| (std::cmp::Reverse(server.failed[1]), server.server.clone()));
    Diff {
        schema: SCHEMA.into(),
        good: total(good),
        bad: total(bad),
        servers,
        alike,
        gone: lone(&before),
        new: lone(&after),
        names: moved(good, bad),
    }
}

fn total(merged: &Merged) -> Total {
    let kept = merged.flows.values().filter(|flow| flow.digest.verdict == Verdict::Failed).count() as u64;
    Total {
        captures: merged.infos.iter().map(|info| info.file.clone()).collect(),
        flows: merged.tally.flows,
        failed: kept + merged.tally.dropped_failed,
    }
}

fn profiles(merged: &Merged) -> BTreeMap<Endpoint, Profile> {
    let mut profiles: BTreeMap<Endpoint, Profile> = BTreeMap::new();
    for digest in merged.digests.iter() {
        profiles.entry(digest.server()).or_default().count(digest);
    }
    for flow in merged.flows.values() {
        let profile = profiles.entry(flow.facts.server).or_default();
        profile.count(&flow.digest);
        profile.look_into(flow);
    }
    // Clients of UDP take a new port for each question; a "server" that was only guessed is no service.
    profiles.retain(|_, profile| !profile.openings.is_empty() || profile.failed > 0);
    profiles
}

impl Profile {
    fn count(&mut self, digest: &Digest) {
        self.flows += 1;
        self.failed += u64::from(digest.verdict == Verdict::Failed);
        let opening = match (digest.behind_proxy(), digest.protocol) {
            (false, None) if digest.transport == IpProtocol::Udp => return,
            (false, None) => "nothing".to_owned(),
            (false, Some(protocol)) => protocol.name().to_owned(),
            (true, None | Some(Protocol::Proxy)) => "PROXY header".to_owned(),
            (true, Some(protocol)) => format!("PROXY header, then {}", protocol.name()),
        };
        *self.openings.entry(opening).or_default() += 1;
    }

    fn look_into(&mut self, flow: &FlowSummary) {
        self.round_trips.extend(flow.facts.rtt_server);
        if let Some(name) = server_name(&flow.story).filter(|_| flow.digest.protocol != Some(Protocol::Dns)) {
            insert(&mut self.names, name.to_string());
        }
        for event in flow.story.events() {
            match &event.what {
                What::Certificates(chain) => {
                    if let Some(leaf) = chain.first() {
                        insert(&mut self.serials, leaf.serial.clone());
                    }
                }
                What::Response(head) if head.status >= 200 => *self.statuses.entry(head.status).or_default() += 1,
                _ => {}
            }
        }
    }

    fn round_trip(&self) -> Option<Elapsed> {
        let mut all = self.round_trips.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }
}

fn insert(set: &mut BTreeSet<String>, value: String) {
    if set.len() < VALUES {
        set.insert(value);
    }
}

fn differences(good: &Profile, bad: &Profile) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut note = |what: &str, good: String, bad: String| found.push(Difference { what: what.into(), good, bad });
    if share(good) != share(bad) {
        let words = |of: &Profile| format!("{} of {}", of.failed, of.flows);
        note("failing", words(good), words(bad));
    }
    if good.openings.keys().ne(bad.openings.keys()) {
        note("first octets", counted(&good.openings), counted(&bad.openings));
    }
    if good.names != bad.names {
        note("name", listed(&good.names), listed(&bad.names));
    }
    // A capture without a readable handshake says nothing about the certificate.
    if good.serials != bad.serials && !good.serials.is_empty() && !bad.serials.is_empty() {
        note("certificate", listed(&good.serials), listed(&bad.serials));
    }
    if good.statuses.keys().ne(bad.statuses.keys()) {
        note("status", counted(&good.statuses), counted(&bad.statuses));
    }
    if let (Some(one), Some(other)) = (good.round_trip(), bad.round_trip()) {
        let (small, large) = (one.min(other), one.max(other));
        if large.0 >= small.0.saturating_mul(RTT_FACTOR) && large - small >= RTT_DISTANCE {
            note("round trip", one.to_string(), other.to_string());
        }
    }
    found
}

/// 0 none, 1 some, 2 all: how many flows a capture holds is chance, whether they fail is not.
fn share(profile: &Profile) -> u8 {
    match profile.failed {
        0 => 0,
        failed if failed < profile.flows => 1,
        _ => 2,
    }
}

fn counted<K: std::fmt::Display>(values: &BTreeMap<K, u64>) -> String {
    let mut words: Vec<String> = values.iter().take(VALUES).map(|(value, n)| format!("{value} ×{n}")).collect();
    if words.is_empty() {
        words.push("none".into());
    }
    words.join(", ")
}

fn listed(values: &BTreeSet<String>) -> String {
    if values.is_empty() { "none".into() } else { values.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn lone(profiles: &BTreeMap<Endpoint, Profile>) -> Vec<Lone> {
    let lone = profiles.iter().map(|(end, profile)| Lone {
        server: end.to_string(),
        flows: profile.flows,
        failed: profile.failed,
        speaks: counted(&profile.openings),
    });
    lone.collect()
}

fn moved(good: &Merged, bad: &Merged) -> Vec<Moved> {
    let (before, after) = (good.names.by_name(), bad.names.by_name());
    let words = |addresses: &Vec<Address>| addresses.iter().map(Address::to_string).collect();
    let both = before.iter().filter_map(|(name, addresses)| Some((name, addresses, after.get(name)?)));
    both.filter(|(_, one, other)| one != other)
        .map(|(name, one, other)| Moved { name: name.to_string(), good: words(one), bad: words(other) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, Side};
    use crate::rule::testing::Scene;

    fn merged(scenes: &[Scene]) -> Merged {
        let mut merged = Merged::default();
        for scene in scenes {
            let summary = scene.summary();
            merged.tally.flows += 1;
            merged.flows.insert(summary.facts.id, summary);
        }
        merged
    }

    fn failed(mut merged: Merged, number: u64) -> Merged {
        for flow in merged.flows.values_mut().filter(|flow| flow.facts.id.number == number) {
            flow.digest.verdict = Verdict::Failed;
        }
        merged
    }

    fn fine(number: u64, server: &str) -> Scene {
        Scene::starting("10.0.0.1:40000", server, number, number as i64 * 1000)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
            .speaks(Side::Server, Protocol::Http)
    }

    fn refused(number: u64, server: &str) -> Scene {
        Scene::starting("10.0.0.1:40000", server, number, number as i64 * 1000).syn(0).rst(
            Side::Server,
            1,
            ResetKind::Refused,
            0,
        )
    }

    #[test]
    fn a_server_that_began_to_refuse_stands_first_and_one_that_did_not_change_is_only_counted() {
        let good = merged(&[fine(1, "10.0.0.2:80"), fine(100, "10.0.0.3:80")]);
        let bad = failed(merged(&[fine(1, "10.0.0.2:80"), refused(100, "10.0.0.3:80")]), 100);
        let diff = diff(&good, &bad);
        assert_eq!((diff.alike, diff.servers.len()), (1, 1));
        let failing = &diff.servers[0].differences[0];
        assert_eq!(
            (failing.what.as_str(), failing.good.as_str(), failing.bad.as_str()),
            ("failing", "0 of 1", "1 of 1")
        );
    }

    #[test]
    fn a_port_that_is_no_longer_used_and_a_new_one_are_named() {
        let diff = diff(&merged(&[fine(1, "10.0.0.2:2443")]), &merged(&[fine(1, "10.0.0.2:1443")]));
        assert_eq!((diff.gone[0].server.as_str(), diff.new[0].server.as_str()), ("10.0.0.2:2443", "10.0.0.2:1443"));
    }

    #[test]
    fn a_name_with_other_addresses_has_moved_and_one_with_the_same_has_not() {
        use crate::event::PacketRef;
        use crate::time::Timestamp;
        use crate::wire::dns::DnsMessage;
        let told = |address: u8| {
            let mut merged = Merged::default();
            let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
            for (name, address) in [("moved.example", address), ("same.example", 9)] {
                let addresses = vec![(Address::v4([192, 0, 2, address]), 60)];
                let message = DnsMessage { response: true, name: name.into(), addresses, ..DnsMessage::default() };
                merged.names.learn(at, &message, Address::v4([10, 0, 0, 1]));
            }
            merged
        };
        let names = diff(&told(1), &told(2)).names;
        assert_eq!(names.len(), 1);
        assert_eq!((&names[0].good[0], &names[0].bad[0]), (&"192.0.2.1".to_owned(), &"192.0.2.2".to_owned()));
    }
}
