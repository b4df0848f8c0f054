//! Which flows are reported when the user asks for some hosts, names or paths. Everything is read; only the report is restricted.
//!
//! A flow is meant when each of the questions fits it, the legs it is linked to, the addresses it has before or after a translation, or what
//! its PROXY header or forwarded addresses say: the backend leg of a client's request is that client's too.

use std::collections::{BTreeMap, BTreeSet};

use super::explain::server_name;
use super::faces::Faces;
use super::report::FlowCounts;
use super::{Finding, Merged};
use crate::event::{PacketRef, What};
use crate::rule::finding::{Confidence, Subject};
use crate::rule::summary::{Digest, FlowSummary, Verdict};
use crate::rule::view::CaptureView;
use crate::wire::Address;

/// Which flows are asked for; every list that is not empty must fit.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Either end must be one of these, when not empty.
    pub clients: Vec<Address>,
    /// Either end must be one of these, when not empty.
    pub servers: Vec<Address>,
    /// SNI, Host or queried name must be one of these or end with `.name`, when not empty.
    pub names: Vec<String>,
    /// The target of a request must begin with one of these, when not empty.
    pub paths: Vec<String>,
}

/// Whether each of the four questions fits.
type Fits = [bool; 4];

/// The flows that are meant.
pub(super) struct Selected(BTreeSet<PacketRef>);

impl Ends {
    fn everything(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty() && self.names.is_empty() && self.paths.is_empty()
    }

    /// The flows that are meant; `None` = all.
    pub(super) fn select(&self, capture: &CaptureView<'_>, faces: &Faces) -> Option<Selected> {
        if self.everything() {
            return None;
        }
        let mut own: BTreeMap<PacketRef, Fits> =
            capture.digests.iter().map(|digest| (digest.id, self.digest(digest))).collect();
        own.extend(capture.flows.iter().map(|(id, flow)| (*id, self.flow(flow))));
        for (id, others) in &faces.others {
            let Some(fits) = own.get_mut(id) else { continue };
            for face in others {
                let [client, server, ..] = self.ends([face.client.address, face.server.address]);
                (fits[0], fits[1]) = (fits[0] || client, fits[1] || server);
            }
        }
        let meant = own.iter().filter(|(id, fits)| {
            let links = capture.links_of(**id).filter(|link| link.certainty >= Confidence::Medium);
            let others = links.flat_map(|link| [link.client_leg, link.backend_leg]).filter_map(|leg| own.get(&leg));
            let whole = others.fold(**fits, |whole, fits| std::array::from_fn(|i| whole[i] || fits[i]));
            whole == [true; 4]
        });
        Some(Selected(meant.map(|(id, _)| *id).collect()))
    }

    fn digest(&self, digest: &Digest) -> Fits {
        self.ends([digest.client().address, digest.server().address])
    }

    fn ends(&self, ends: [Address; 2]) -> Fits {
        let among = |list: &[Address]| list.is_empty() || ends.iter().any(|end| list.contains(end));
        [among(&self.clients), among(&self.servers), self.names.is_empty(), self.paths.is_empty()]
    }

    fn flow(&self, flow: &FlowSummary) -> Fits {
        let [client, server, ..] = self.digest(&flow.digest);
        let told = flow.story.events().any(|event| match &event.what {
            What::ProxyHeader(header) => header.source.is_some_and(|source| self.clients.contains(&source.address)),
            What::Request(head) => {
                head.forwarded.iter().any(|(_, who)| self.clients.iter().any(|one| names(who, *one)))
            }
            _ => false,
        });
        let target = |path: &String| {
            flow.story
                .events()
                .any(|event| matches!(&event.what, What::Request(head) if head.target.starts_with(path.as_str())))
        };
        let name = self.names.is_empty() || server_name(&flow.story).is_some_and(|name| self.named(&name));
        [client || told, server, name, self.paths.is_empty() || self.paths.iter().any(target)]
    }

    fn named(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let bare = name.split(':').next().unwrap_or(&name);
        self.names.iter().map(|wanted| wanted.to_ascii_lowercase()).any(|wanted| {
            let fits = |name: &str| {
                name == wanted || name.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.ends_with('.'))
            };
            fits(&name) || fits(bare)
        })
    }
}

/// Whether `192.0.2.1`, `192.0.2.1:4711` or `[2001:db8::1]:4711` is that address.
fn names(who: &str, address: Address) -> bool {
    let rest = who.trim_start_matches('[').strip_prefix(address.to_string().as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(']') || (rest.starts_with(':') && address.is_v4()))
}

impl Selected {
    /// Whether the flow is meant.
    pub(super) fn holds(&self, flow: &PacketRef) -> bool {
        self.0.contains(flow)
    }

    /// Whether the finding is about a flow that is meant, or about the capture itself.
    pub(super) fn wants(&self, finding: &Finding) -> bool {
        match finding.subject {
            Subject::Legs(client, backend) => self.holds(&client) || self.holds(&backend),
            Subject::Flow(flow) | Subject::Exchange(flow, _) => self.holds(&flow),
            Subject::Host(_) => {
                let mut flows = finding.evidence.iter().filter_map(|evidence| evidence.flow).peekable();
                flows.peek().is_none() || flows.any(|flow| self.holds(&flow))
            }
            Subject::Capture => true,
        }
    }

    /// The flows that are meant and no longer kept whole.
    pub(super) fn count(&self, merged: &Merged) -> FlowCounts {
        let mut counts = FlowCounts { total: self.0.len() as u64, healthy: 0, undecided: 0, degraded: 0, failed: 0 };
        for digest in self.0.iter().filter(|id| !merged.flows.contains_key(id)).filter_map(|id| merged.digests.get(*id))
        {
            match digest.verdict {
                Verdict::Healthy => counts.healthy += 1,
                Verdict::Undecided => counts.undecided += 1,
                Verdict::Degraded => counts.degraded += 1,
                Verdict::Failed => counts.failed += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::super::faces::Face;
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World, end, host};
    use crate::rule::view::{Link, LinkMethod};
    use crate::wire::http::RequestHead;

    fn world() -> World {
        let client = Scene::open().request(3, "GET", "/shop/cart", 80);
        let backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake();
        let other = Scene::starting("10.0.0.9:40000", "10.0.0.2:443", 200, 9).handshake();
        let mut world = World::new().with(&client).with(&backend).with(&other);
        world.links = vec![Link::whole(client.facts.id, backend.facts.id, LinkMethod::Timing, Confidence::Medium)];
        world
    }

    fn selected(world: &World, ends: Ends) -> Vec<u64> {
        let selected = ends.select(&world.view(), &Faces::default()).expect("something is asked for");
        selected.0.iter().map(|id| id.number).collect()
    }

    #[test]
    fn both_legs_of_a_clients_request_are_meant() {
        let world = world();
        assert_eq!(selected(&world, Ends { clients: vec![host("10.0.0.1")], ..Ends::default() }), [1, 100]);
        assert_eq!(selected(&world, Ends { servers: vec![host("10.0.0.3")], ..Ends::default() }), [1, 100]);
        assert_eq!(selected(&world, Ends { paths: vec!["/shop".into()], ..Ends::default() }), [1, 100]);
        let both = Ends { clients: vec![host("10.0.0.1")], servers: vec![host("10.0.0.3")], ..Ends::default() };
        assert_eq!(selected(&world, both), [1, 100]);
        assert!(Ends::default().select(&world.view(), &Faces::default()).is_none());
    }

    #[test]
    fn an_address_before_translation_is_meant() {
        let (world, mut faces) = (world(), Faces::default());
        let judged = *world.flows.keys().next_back().expect("flows");
        let before =
            Face { id: judged, client: end("10.244.0.2:40000"), server: end("10.96.0.10:80"), translated: None };
        faces.others.insert(judged, vec![before]);
        let clients = Ends { clients: vec![host("10.244.0.2")], ..Ends::default() };
        let selected = clients.select(&world.view(), &faces).expect("something is asked for");
        assert_eq!(selected.0.iter().copied().collect::<Vec<_>>(), [judged]);
        assert!(clients.select(&world.view(), &Faces::default()).is_some_and(|none| none.0.is_empty()));
    }

    #[test]
    fn a_forwarded_address_names_the_client_whole() {
        let head = |who: &str| RequestHead {
            forwarded: vec![("x-forwarded-for".into(), who.into())],
            ..RequestHead::default()
        };
        for (who, meant) in [("10.0.0.1", true), ("10.0.0.1:4711", true), ("10.0.0.12", false)] {
            let scene =
                Scene::between("10.0.0.7:1", "10.0.0.8:80").also(Side::Client, What::Request(Box::new(head(who))));
            let ends = Ends { clients: vec![host("10.0.0.1")], ..Ends::default() };
            assert_eq!(!selected(&World::new().with(&scene), ends).is_empty(), meant, "{who}");
        }
    }
}
