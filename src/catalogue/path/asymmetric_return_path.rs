//! Replies leave the host by another interface than the one the requests come in on.
//!
//! ## How tcpwhy knows
//! The capture tells for each packet the interface and whether it came in or went out (`tcpdump -i any -y LINUX_SLL2`, or pcapng with
//! directions). For the far end of a connection two sets are made: the interfaces on which packets *from* it arrive, and those by which
//! packets *to* it leave. Both are known and have nothing in common. Copies of one packet on several interfaces (veth and bridge, VLAN and
//! parent) are all counted before they are compared, so a host that forwards has both sets equal. From one interface alone: the client's
//! octets follow its SYN, so it has a SYN+ACK that this interface never sent, and it repeats them without an answer (medium).
//!
//! ## What it is not
//! - A router, NAT box, bridge or container host: there every far end is heard and answered by the same interfaces.
//! - Direct server return and several uplinks: the way is asymmetric on purpose and the connections work; that is a notice here.
//! - `return-path-lost`: that says that replies vanish; this says which way they take.
//!
//! ## What people see
//! Ping works, `nc -vz` says "connected", and every request hangs or is reset after 0.2 s. From inside everything works.
//!
//! ## False alarms it avoids
//! Connections that work are no incident. Captures without directions or interface numbers are not judged: different hardware addresses
//! of two routers are usual with VRRP and say nothing.

use std::collections::BTreeSet;

use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::{Close, Face, Half, IpProtocol};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, Words};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "asymmetric-return-path",
    title: "replies leave by another way than the requests came",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::any(&[Kind::Syn, Kind::SynAck, Kind::MidStream]),
    says: "{host} is asked on {in} and answers on {out}: {outcome}",
    variants: &[
        "{client_host} asks by {out} and is answered on {in}: {outcome}",
        "{host} answers {client_host} by a way that is not in this capture, and its answers get lost",
        "{host} is asked by {out} of this router and answers {client_host} by {in}: {outcome}",
    ],
    users_see: &["connected, then no answer", "Connection reset by peer", "Operation timed out after"],
    words_of: &[(
        ROUTED,
        Words {
            users_see: &["connected, then no answer", "Connection reset by peer", "Operation timed out after"],
            do_first: &[
                Step {
                    says: "On {host}: by which gateway does it answer {client_host}? This router sends to it by {out}:",
                    command: "ip route get {client_host} from {host}",
                },
                Step {
                    says: "On the router of this capture: is the way to {host} the one its answers take ({in})?",
                    command: "ip route get {host}",
                },
            ],
            verify: &[Step {
                says: "from the client's host; it should not wait:",
                command: "nc -vz -w 5 {host} {port}",
            }],
            cannot_show: &[
                "whether this router drops what it saw one half of (firewall, reverse path filter), or a device behind it",
            ],
        },
    )],
    do_first: &[
        Step {
            says: "On {near}: by which interface does it answer {far}? It should be {in}:",
            command: "ip route get {far} from {near}",
        },
        Step { says: "How many default routes has it? Two of them race at boot:", command: "ip route show default" },
    ],
    fix: &[
        Fix {
            says: "Keep one gateway, that of {in}; set it in the interface configuration too, or it comes back at the next boot:",
            command: "ip route replace default via GATEWAY dev INTERFACE",
            risk: "it can cut your ssh session: from the console; paths that use the other gateway stop",
        },
        Fix {
            says: "Or keep both by policy routing, a table of its own for {near}:",
            command: "ip rule add from {near} table 55",
            risk: "table 55 needs a default route first, else {near} is unreachable",
        },
    ],
    verify: &[Step {
        says: "on {near}; it should name {in} (ip -o link numbers them):",
        command: "ip route get {far} from {near}",
    }],
    not: &[
        ("service-down", "it answers, on the other interface"),
        ("packet-loss", "every packet of one way is on one interface"),
    ],
    cannot_show: &["which device on the way out drops or rewrites the replies"],
    explains: &[
        Explains("reply-from-other-address", Scope::Same),
        Explains("return-path-lost", Scope::Same),
        Explains("stateful-drop-after-handshake", Scope::Same),
        Explains("connect-timeout", Scope::Same),
        Explains("middlebox-reset", Scope::Same),
        Explains("stray-reset", Scope::Same),
        Explains("upstream-hang", Scope::Same),
        Explains("rto-unrecovered", Scope::Same),
        Explains("rto-unrecovered", Scope::PeerTime),
        Explains("client-abandoned", Scope::Same),
    ],
    sources: &["Open Food Facts, 2022", "RFC 3704", "measured on Linux 6.18, two gateways"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Variant of the headline at a router: neither end is the capturing host.
const ROUTED: u8 = 3;
const IN: u8 = 1;
const OUT: u8 = 2;
/// The file does not tell.
const UNKNOWN: u8 = 0;
/// Packets each way that make one connection enough.
const ENOUGH: u64 = 3;

/// An interface: its index in the file, and the kernel's.
type Interface = (u16, u32);

/// The faces of one direction with one sense, or `None` when the file does not tell senses or interfaces.
fn interfaces(faces: &[Face], sense: u8) -> impl Iterator<Item = Interface> {
    let known = faces.iter().filter(move |face| face.direction == sense && (face.ifindex != 0 || face.interface != 0));
    // Index 0 of a file with several interfaces is one of them as well; whether there are several is seen from the others.
    known.map(|face| (face.interface, face.ifindex))
}

fn set(faces: &[Face], sense: u8) -> BTreeSet<Interface> {
    interfaces(faces, sense).collect()
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.transport != IpProtocol::Tcp {
        return None;
    }
    [Side::Client, Side::Server].into_iter().find_map(|far| judge(flow, far)).or_else(|| one_sided(flow))
}

/// Sends of the same octets, and the time over which, that show a client without an answer.
const COPIES: u32 = 4;
const SPAN: Elapsed = Elapsed::secs(1);

/// The capture has the client's packets only, and they show that a SYN+ACK reached it and nothing after that.
fn one_sided(flow: &FlowView<'_>) -> Option<Finding> {
    let (facts, client) = (flow.facts, flow.client());
    let waits = client.unacknowledged.filter(|waits| u64::from(waits.len) == client.payload && waits.len > 0)?;
    let span = waits.last.time.since(waits.first.time);
    let heard = client.syn_count == 1 && client.syns.first().is_some_and(|syn| *syn < waits.first);
    // A RST in the client's name that the client knows nothing of: it answers what came to it from elsewhere.
    let reset = client.resets.first().filter(|reset| waits.first < reset.at && reset.at < waits.last);
    let unanswered = waits.copies >= COPIES && span >= SPAN || waits.copies > 1 && reset.is_some();
    if facts.mid_stream || flow.server().packets > 0 || !heard || !unanswered {
        return None;
    }
    let reset = reset.map(|reset| reset.at);
    Some(
        RULE.found(flow, facts.id, Side::Client, "SYN, and no SYN+ACK here")
            .and(waits.first, Side::Client, "octets: so the SYN+ACK did arrive, by a way that is not in this capture")
            .and_maybe(reset, Side::Client, "RST in the client's name, yet the client goes on")
            .and(waits.last, Side::Client, format!("the same, {} copies in {span}: no answer arrives", waits.copies))
            .severity(Severity::Warning)
            .confidence(Confidence::Medium)
            .note("a capture filter for one direction looks the same: capture on all interfaces to be sure")
            .variant(2)
            .with("in", "this interface".to_owned())
            .with("near", facts.server.address)
            .with("far", facts.client.address),
    )
}

fn judge(flow: &FlowView<'_>, far: Side) -> Option<Finding> {
    let (theirs, ours) = (flow.facts.half(far), flow.facts.half(far.other()));
    let (mut ins, outs) = (interfaces(&theirs.faces, IN), || interfaces(&ours.faces, OUT));
    let come = interfaces(&theirs.faces, IN).next().is_some() && outs().next().is_some();
    let apart = come && ins.all(|one| outs().all(|other| one != other));
    let by_files = !apart && far == Side::Client && in_two_files(theirs, ours);
    if !apart && !by_files {
        return None;
    }
    // A lone RST may be a firewall's, sent in the name of an end that has no part in it.
    if !ours.spoke() {
        return None;
    }
    let routed = far == Side::Server && interfaces(&ours.faces, IN).next().is_some();
    let sense = |sense: u8| if by_files { UNKNOWN } else { sense };
    let (first_in, first_out) = (first(&theirs.faces, sense(IN))?, first(&ours.faces, sense(OUT))?);
    let fails = fails(flow);
    let (near, away) = (flow.facts.endpoint(far.other()).address, flow.facts.endpoint(far).address);
    let outcome = match fails {
        true if far == Side::Client => "its replies get lost on that way",
        true => "the connection fails",
        false => "the connection works",
    };
    let seen = |face: &Face, side: Side, verb: &str| {
        let begins = flow.facts.half(side).syns.first() == Some(&face.first);
        let what = match (begins, side) {
            (true, Side::Client) => "SYN, ",
            (true, Side::Server) => "SYN+ACK, ",
            _ => "",
        };
        let place = if by_files { "this interface".to_owned() } else { name(face.interface, face.ifindex) };
        format!("{what}{verb} {place}")
    };
    let mut finding = RULE
        .found(flow, first_in.first, far, seen(first_in, far, "in on"))
        .and(first_out.first, far.other(), seen(first_out, far.other(), "out by"))
        .severity(if fails { Severity::Critical } else { Severity::Notice })
        .variant(match far {
            Side::Server if routed => ROUTED,
            far => u8::from(far == Side::Server),
        })
        .with("in", name(first_in.interface, first_in.ifindex))
        .with("out", name(first_out.interface, first_out.ifindex))
        .with("near", near)
        .with("far", away)
        .with("outcome", outcome.to_owned());
    if let Some(waits) = ours.unacknowledged.filter(|waits| waits.copies > 1) {
        let copies = format!("octets out that way, {} copies, never acknowledged", waits.copies);
        finding = finding.and(waits.first, far.other(), copies).and(waits.last, far.other(), "the latest of them");
    }
    if let Some(again) = theirs.loss.worst.first().filter(|_| fails) {
        finding = finding.and(again.copy, far, "sent again: the answer did not arrive");
    }
    if let Some(reset) = flow.facts.reset(far) {
        finding = finding.and(reset.at, far, "RST");
    }
    if by_files {
        return Some(finding.confidence(Confidence::High));
    }
    if theirs.packets < ENOUGH || ours.packets < ENOUGH {
        finding = finding.confidence(Confidence::High).note("few packets each way");
    }
    Some(finding)
}

/// One direction is in one input and the other, at the same time, in another one: files of two interfaces. The pieces of one capture follow
/// each other.
fn in_two_files(theirs: &Half, ours: &Half) -> bool {
    let span = |half: &Half| Some((half.first?, half.last?));
    let (Some((a, b)), Some((x, y))) = (span(theirs), span(ours)) else { return false };
    let enough = theirs.packets >= ENOUGH && ours.packets >= ENOUGH;
    enough && a.file == b.file && x.file == y.file && a.file != x.file && a.time <= y.time && x.time <= b.time
}

fn first(faces: &[Face], sense: u8) -> Option<&Face> {
    faces.iter().filter(|face| face.direction == sense).min_by_key(|face| face.first)
}

fn name(interface: u16, ifindex: u32) -> String {
    if ifindex != 0 { format!("interface {ifindex}") } else { format!("interface {interface} of the file") }
}

/// The connection does not do what it is for.
fn fails(flow: &FlowView<'_>) -> bool {
    let (client, server) = (flow.client(), flow.server());
    // Asked, and given up without one octet of an answer.
    let patience = flow.thresholds.gave_up;
    let in_vain = client.payload > 0
        && server.payload + server.unseen == 0
        && flow.facts.closer.is_some_and(|(side, at)| {
            side == Side::Client && client.last_payload.is_some_and(|asked| at.time.since(asked.time) >= patience)
        });
    let stuck = |waits: Option<crate::flow::facts::Unacknowledged>| waits.is_some_and(|waits| waits.copies >= 3);
    let reset = matches!(flow.facts.close, Close::Reset(..)) && server.acknowledged == 0;
    let unheard = client.syn_count >= flow.thresholds.syn_copies && flow.facts.established.is_none();
    // The server repeats its answer and the client its question: neither hears that the other has it.
    let talks_past = client.loss.total() > 0
        && server
            .unacknowledged
            .is_some_and(|waits| waits.copies > 1 && waits.last.time.since(waits.first.time) >= SPAN);
    in_vain || reset || unheard || talks_past || stuck(client.unacknowledged) || stuck(server.unacknowledged)
}

/// Names interfaces where the file does, and shows a connection that takes one way only.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if finding.variant == 2 {
        // Many alike are still one interface: what the other one carries nobody has seen.
        finding.confidence = finding.confidence.min(Confidence::Medium);
        return Keep::Yes;
    }
    let far = if matches!(finding.variant, 1 | ROUTED) { Side::Server } else { Side::Client };
    if in_two_files(flow.facts.half(far), flow.facts.half(far.other())) {
        name_files(finding, flow, capture);
        return Keep::Yes;
    }
    let near = flow.facts.endpoint(far.other()).address;
    for (slot, faces, sense) in
        [("in", &flow.facts.half(far).faces, IN), ("out", &flow.facts.half(far.other()).faces, OUT)]
    {
        let named = first(faces, sense).and_then(|face| {
            let info = capture.infos.get(usize::from(face.first.file))?;
            let name = &info.interfaces.get(usize::from(face.interface))?.name;
            (face.ifindex == 0 && !name.is_empty()).then(|| name.clone())
        });
        if let Some(name) = named {
            finding.values.set(slot, crate::rule::value::Value::Packet(name));
        }
    }
    if let Some((control, at)) = control(capture, flow.facts.id, far) {
        finding.evidence.push(Evidence {
            at,
            flow: Some(control),
            side: None,
            shows: "control: a connection that comes in and goes out by one interface, and works".into(),
        });
    }
    // The host forwards for others and the connection is not its own: it is no end of it.
    let forwarded = flow.facts.half(far.other()).faces.iter().any(|face| face.direction == IN);
    if finding.variant == ROUTED {
        // Its own words say where it was seen.
        finding.confidence = finding.confidence.min(Confidence::High);
    } else if forwarded {
        finding.confidence = finding.confidence.min(Confidence::Medium);
        finding.notes.push(format!("{near} is not the capturing host itself: packets of it come in as well"));
    }
    Keep::Yes
}

/// Names the inputs; where each of them holds other connections in both directions, no filter by direction explains it.
fn name_files(finding: &mut Finding, flow: &FlowSummary, capture: &CaptureView<'_>) {
    let files = [Side::Client, Side::Server].map(|side| flow.facts.half(side).first.map_or(0, |at| at.file));
    for (slot, file) in ["in", "out"].into_iter().zip(files) {
        let Some(info) = capture.infos.get(usize::from(file)) else { continue };
        let name = info.file.rsplit('/').next().unwrap_or(&info.file);
        finding.values.set(slot, crate::rule::value::Value::Packet(format!("the interface of {name}")));
    }
    let whole = |one: &&FlowSummary| {
        let halves = [&one.facts.from_client, &one.facts.from_server];
        let file = halves.map(|half| half.first.map(|at| at.file));
        file[0].is_some() && file[0] == file[1] && files.contains(&one.facts.id.file)
    };
    match capture.flows.values().find(whole) {
        Some(control) => finding.evidence.extend(control.facts.from_server.first.map(|at| Evidence {
            at,
            flow: Some(control.facts.id),
            side: None,
            shows: "control: another connection that comes in and goes out by one interface".into(),
        })),
        None => {
            finding.confidence = finding.confidence.min(Confidence::Medium);
            finding.notes.push("two captures of one direction each (tcpdump -Q in, -Q out) look the same".into());
        }
    }
}

/// A connection of the same side that has one way and an answer.
fn control(capture: &CaptureView<'_>, except: PacketRef, far: Side) -> Option<(PacketRef, PacketRef)> {
    let fits = capture.flows.values().find(|flow| {
        let (ins, outs) = (set(&flow.facts.half(far).faces, IN), set(&flow.facts.half(far.other()).faces, OUT));
        flow.facts.id != except && !ins.is_empty() && ins == outs && flow.facts.from_server.acknowledged > 0
    })?;
    Some((fits.facts.id, fits.facts.from_server.first_payload?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;

    fn faces(mut scene: Scene, client: &[(u32, u8)], server: &[(u32, u8)]) -> Scene {
        let at = scene.facts.id;
        let face = |(ifindex, direction): &(u32, u8)| Face {
            interface: 0,
            ifindex: *ifindex,
            direction: *direction,
            source: None,
            destination: None,
            first: PacketRef { number: u64::from(*ifindex), ..at },
            packets: 3,
        };
        scene.facts.from_client.faces = client.iter().map(face).collect();
        scene.facts.from_server.faces = server.iter().map(face).collect();
        scene
    }

    fn lost_replies() -> Scene {
        Scene::open()
            .request(3, "GET", "/", 41)
            .acked(Side::Client, 4)
            .response(5, 200, 300)
            .again(Side::Server, 205)
            .again(Side::Server, 605)
    }

    #[test]
    fn in_on_one_interface_and_out_by_another_is_certain() {
        let finding = faces(lost_replies(), &[(3, IN)], &[(2, OUT)]).check(&RULE).expect("asymmetric");
        assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Certain));
        assert_eq!(finding.values.get("out"), Some(&"interface 2".into()));
    }

    #[test]
    fn a_reset_before_any_answer_fails_too() {
        let scene =
            Scene::open().request(3, "GET", "/", 41).acked(Side::Client, 4).rst(Side::Client, 5, ResetKind::Stray, 0);
        let finding = faces(scene, &[(3, IN)], &[(2, OUT)]).check(&RULE).expect("asymmetric");
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn an_asymmetric_way_that_works_is_a_notice() {
        let scene = Scene::open()
            .request(3, "GET", "/", 41)
            .acked(Side::Client, 4)
            .response(5, 200, 300)
            .acked(Side::Server, 6);
        let finding = faces(scene, &[(3, IN)], &[(2, OUT)]).check(&RULE).expect("asymmetric");
        assert_eq!(finding.severity, Severity::Notice);
    }

    #[test]
    fn a_router_hears_and_answers_each_end_by_one_interface() {
        let scene = faces(lost_replies(), &[(3, IN), (2, OUT)], &[(2, IN), (3, OUT)]);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn veth_and_bridge_are_one_way() {
        let scene = faces(lost_replies(), &[(5, IN), (3, IN)], &[(3, OUT), (5, OUT)]);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_got_a_syn_ack_from_elsewhere_and_then_nothing_is_medium() {
        let scene = Scene::new().syn(0).data(Side::Client, 2, 18).again(Side::Client, 205);
        assert_eq!(scene.check(&RULE), None);
        let scene = scene.again(Side::Client, 613).again(Side::Client, 1445);
        let finding = scene.check(&RULE).expect("asymmetric");
        assert_eq!((finding.variant, finding.confidence), (2, Confidence::Medium));
    }

    #[test]
    fn a_reset_that_its_own_sender_ignores_answers_what_came_from_elsewhere() {
        let scene = Scene::new()
            .syn(0)
            .data(Side::Client, 2, 75)
            .rst(Side::Client, 3, ResetKind::Stray, 0)
            .again(Side::Client, 205);
        let finding = scene.check(&RULE).expect("asymmetric");
        assert_eq!((finding.variant, finding.confidence, finding.evidence.len()), (2, Confidence::Medium, 4));
        let ended = Scene::new().syn(0).data(Side::Client, 2, 75).again(Side::Client, 205);
        assert_eq!(ended.rst(Side::Client, 300, ResetKind::Abort, 0).check(&RULE), None);
    }

    #[test]
    fn both_sides_repeat_themselves_in_the_middle_of_a_connection() {
        let scene = Scene::new()
            .mid_stream()
            .data(Side::Client, 1, 75)
            .data(Side::Server, 2, 253)
            .again(Side::Client, 1500)
            .acked(Side::Client, 1501)
            .again(Side::Server, 1600);
        let finding = faces(scene, &[(3, IN)], &[(2, OUT)]).check(&RULE).expect("asymmetric");
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn a_file_without_directions_is_not_judged() {
        assert_eq!(faces(lost_replies(), &[(3, 0)], &[(2, 0)]).check(&RULE), None);
    }
}
