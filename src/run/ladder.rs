//! One flow, packet by packet: the second pass over the input, for the packets of one pair of ends.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Diagnosis, Ends};
use crate::capture::Source;
use crate::decode::{Decoder, Flags, Packet, Transport};
use crate::diagnose::format::rfc3339;
use crate::diagnose::report::{FindingEntry, FlowEntry, FlowRef, Incident};
use crate::diagnose::{Merged, report};
use crate::error::{Error, Result};
use crate::event::{Event, PacketRef, Side};
use crate::rule::summary::FlowSummary;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;
use crate::wire::h2::{Settings, error_name};
use crate::wire::seq::Seq;

/// A flow with everything known of it and its packets.
#[derive(Clone, Debug, Serialize)]
pub struct Ladder {
    /// The inputs, as given.
    pub captures: Vec<String>,
    /// The flow as the report lists it.
    pub flow: FlowEntry,
    /// Findings on it.
    pub findings: Vec<FindingEntry>,
    /// Headlines of the incidents it belongs to.
    pub incidents: Vec<String>,
    /// The other legs it is linked to, in words.
    pub links: Vec<String>,
    /// Its packets, repeats collapsed.
    pub steps: Vec<Rung>,
}

/// One packet, or several alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// Index of the input in `captures`.
    pub file: u16,
    /// Frame number of the first.
    pub packet: u64,
    /// Frame number of the last of several.
    pub until: Option<u64>,
    /// How many.
    pub count: u64,
    /// Time since the flow's first packet.
    pub after: Elapsed,
    /// Who sent it.
    pub side: Side,
    /// Flags and lengths: `SYN`, `ACK 19`, `517 octets`.
    pub what: String,
    /// What happened there, in words.
    pub means: Vec<String>,
}

impl Diagnosis {
    /// The flow that packet `number` of input `file` (0 is the first) belongs to. Reads the inputs twice.
    ///
    /// # Errors
    /// When the inputs cannot be read, when they hold no such packet, or when it belongs to no TCP or UDP flow.
    pub fn ladder<S: AsRef<str>>(self, inputs: &[S], file: u16, number: u64) -> Result<Ladder> {
        let ends = ends_of(&self, inputs, file, number)?;
        let settings = crate::diagnose::Settings { all_flows: true, only: Ends::default(), ..self.settings.clone() };
        let whole = self.clone().keep_all(ends).all_flows(true).open(inputs)?.merged()?;
        let summary = flow_with(&whole, ends, (file, number))
            .ok_or_else(|| Error::usage(format!("packet {number} belongs to no TCP or UDP flow that is looked at")))?;
        let told = report(&whole, &settings);
        let packets = packets(&self, inputs, &whole.one_place, summary)?;
        Ok(assemble(summary, told, packets))
    }
}

/// The ends of packet `number`.
fn ends_of<S: AsRef<str>>(diagnosis: &Diagnosis, inputs: &[S], file: u16, number: u64) -> Result<(Endpoint, Endpoint)> {
    let mut source = open(diagnosis, inputs)?;
    let mut decoder = Decoder::new(Default::default());
    while let Some(frame) = source.next()? {
        let packet = decoder.decode(&frame);
        if frame.file == file && frame.number == number {
            return packet
                .source()
                .zip(packet.destination())
                .ok_or_else(|| Error::usage(format!("packet {number} is neither TCP nor UDP: it belongs to no flow")));
        }
    }
    let read = source.finish().get(usize::from(file)).map_or(0, |info| info.packets);
    Err(Error::usage(format!("there is no packet {number}: the capture holds {read}")))
}

fn open<S: AsRef<str>>(diagnosis: &Diagnosis, inputs: &[S]) -> Result<Source> {
    let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
    Source::open(&inputs, &diagnosis.open)
}

/// The flow between these ends that was alive at packet `number`.
fn flow_with(merged: &Merged, (a, b): (Endpoint, Endpoint), at: (u16, u64)) -> Option<&FlowSummary> {
    let between = |flow: &&FlowSummary| {
        let pair = (flow.facts.client, flow.facts.server);
        pair == (a, b) || pair == (b, a)
    };
    let number = |flow: &FlowSummary| (flow.facts.id.file, flow.facts.id.number);
    // A flow of a rotated capture may have begun in an earlier piece.
    let began_before = |flow: &&FlowSummary| number(flow) <= at;
    merged.flows.values().filter(between).filter(began_before).max_by_key(|flow| number(flow))
}

struct Step {
    at: PacketRef,
    side: Side,
    what: String,
}

/// Second pass: the flow's packets with their flags and lengths.
fn packets<S: AsRef<str>>(
    diagnosis: &Diagnosis,
    inputs: &[S],
    together: &[(u16, u16)],
    summary: &FlowSummary,
) -> Result<Vec<Step>> {
    let (a, b) = (summary.facts.client, summary.facts.server);
    let mut source = open(diagnosis, inputs)?;
    source.at_one_place(together);
    let mut decoder = Decoder::new(Default::default());
    let mut steps = Vec::new();
    let mut origin: BTreeMap<Endpoint, Seq> = BTreeMap::new();
    // The same packets at another point of capture are another flow.
    let mut point = None;
    while let Some(frame) = source.next()? {
        let at = PacketRef { file: frame.file, number: frame.number, time: frame.time };
        if at == summary.facts.id {
            point = Some(frame.point);
        }
        if at < summary.facts.id || at > summary.facts.last || point != Some(frame.point) {
            continue;
        }
        let packet = decoder.decode(&frame);
        let (Some(source), Some(destination)) = (packet.source(), packet.destination()) else { continue };
        if (source, destination) != (a, b) && (source, destination) != (b, a) {
            continue;
        }
        let side = if source == summary.facts.client { Side::Client } else { Side::Server };
        steps.push(Step { at, side, what: describe(&packet, source, destination, &mut origin) });
    }
    Ok(steps)
}

/// Flags, relative numbers and length, as Wireshark counts them.
fn describe(packet: &Packet<'_>, from: Endpoint, to: Endpoint, origin: &mut BTreeMap<Endpoint, Seq>) -> String {
    let segment = match &packet.transport {
        Transport::Tcp(segment) => segment,
        Transport::Udp(datagram) => return format!("datagram, {} octets", datagram.payload_len),
        _ => return String::new(),
    };
    if segment.flags.has(Flags::SYN) {
        origin.insert(from, segment.seq);
    }
    let base = *origin.entry(from).or_insert(segment.seq);
    let mut words = Vec::new();
    for (flag, name) in [(Flags::SYN, "SYN"), (Flags::FIN, "FIN"), (Flags::RST, "RST")] {
        if segment.flags.has(flag) {
            words.push(name.to_owned());
        }
    }
    if segment.payload_len > 0 {
        words.push(format!("{} octets at {}", segment.payload_len, segment.seq.minus(base)));
    }
    if segment.flags.has(Flags::ACK) {
        let acked = origin.entry(to).or_insert(segment.ack);
        words.push(format!("ACK {}", segment.ack.minus(*acked)));
    }
    if segment.window == 0 && !segment.flags.has(Flags::RST) {
        words.push("window 0".into());
    }
    words.join(", ")
}

fn assemble(summary: &FlowSummary, told: crate::diagnose::report::Report, packets: Vec<Step>) -> Ladder {
    let id = FlowRef::from(summary.facts.id);
    let captures: Vec<String> = told.captures.iter().map(|capture| capture.file.clone()).collect();
    let mut means = Means::new();
    for event in summary.story.events() {
        if let Some(words) = meaning(event) {
            means.entry((event.at.file, event.at.number)).or_default().push(words);
        }
    }
    let findings: Vec<FindingEntry> = told.findings.into_iter().filter(|f| f.flow == Some(id)).collect();
    for evidence in findings.iter().flat_map(|finding| &finding.evidence) {
        let list = means.entry((evidence.file, evidence.packet)).or_default();
        // What the event said already is not said again in the finding's words.
        let begins = |text: &str| text.split(' ').next().unwrap_or("").to_owned();
        if !list.iter().any(|known| begins(known) == begins(&evidence.shows)) {
            list.push(evidence.shows.clone());
        }
    }
    let belongs = |incident: &&Incident| incident.flows.contains(&id);
    let incidents: Vec<&Incident> = told.incidents.iter().filter(belongs).collect();
    let links = incidents.iter().flat_map(|incident| &incident.links).map(|link| {
        let [client, backend] = [link.client_leg, link.backend_leg].map(|leg| leg.name(captures.len()));
        format!("client leg {client} and backend leg {backend} {}", link.says)
    });
    let links = links.collect();
    let flow = told
        .flows
        .into_iter()
        .find(|flow| flow.key() == id)
        .unwrap_or_else(|| crate::diagnose::flow_entry(summary, summary.digest.verdict, String::new()));
    Ladder {
        incidents: incidents.iter().map(|incident| incident.headline.clone()).collect(),
        links,
        captures,
        flow,
        findings,
        steps: collapse(packets, &means, summary.facts.id.time),
    }
}

/// What packets mean, by input and number.
type Means = BTreeMap<(u16, u64), Vec<String>>;

/// Packets of one side that say nothing new are one rung.
fn collapse(packets: Vec<Step>, means: &Means, start: Timestamp) -> Vec<Rung> {
    let mut rungs: Vec<Rung> = Vec::new();
    for step in packets {
        let means = means.get(&(step.at.file, step.at.number)).cloned().unwrap_or_default();
        if let Some(last) = rungs.last_mut()
            && (last.file, last.side) == (step.at.file, step.side)
            && means.is_empty()
            && kind(&last.what) == kind(&step.what)
            && (last.count > 1 || last.means.is_empty())
        {
            last.until = Some(step.at.number);
            last.count += 1;
            continue;
        }
        rungs.push(Rung {
            file: step.at.file,
            packet: step.at.number,
            until: None,
            count: 1,
            after: step.at.time.since(start),
            side: step.side,
            what: step.what,
            means,
        });
    }
    rungs
}

/// A step's words without its numbers.
fn kind(what: &str) -> String {
    what.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn on_stream(number: u32) -> String {
    if number == 0 { String::new() } else { format!("stream {number}: ") }
}

fn path(target: &str) -> &str {
    // A placeholder of HTTP/2 begins with a question mark.
    if target.starts_with('?') { target } else { target.split('?').next().unwrap_or("") }
}

/// A status; 0 where the field that holds it was never seen.
fn status(status: u16) -> String {
    if status == 0 { "status unknown".into() } else { status.to_string() }
}

fn settings_in_words(settings: &Settings) -> String {
    let list = [
        ("at most", settings.concurrent, "streams at once"),
        ("window", settings.window, "octets"),
        ("header table", settings.header_table, "octets"),
        ("frames of", settings.frame, "octets"),
    ];
    let known = list.iter().filter_map(|(what, value, unit)| value.map(|value| format!("{what} {value} {unit}")));
    let words: Vec<String> = known.collect();
    if words.is_empty() { "SETTINGS".into() } else { format!("SETTINGS: {}", words.join(", ")) }
}

/// An event in a few words; `None` for those the flags say already.
fn meaning(event: &Event) -> Option<String> {
    use crate::event::What;
    Some(match &event.what {
        What::SynRetransmitted { after } => format!("the same SYN again, {after} after the first"),
        What::SynAckRetransmitted { after } => format!("the same SYN+ACK again, {after} after the first"),
        What::Reset { kind, unread } if *unread > 0 => format!("{kind:?} reset, {unread} octets unread").to_lowercase(),
        What::Reset { kind, .. } => format!("{kind:?} reset").to_lowercase(),
        What::Retransmitted { kind, .. } => format!("retransmission ({kind:?})").to_lowercase(),
        What::Reordered => "came late, out of order".into(),
        What::CaptureHole { missing } => format!("acknowledges {missing} octets the capture never saw"),
        What::OverlapConflict => "other octets than the first copy had".into(),
        What::KeepAlive => "keep-alive probe".into(),
        What::KeepAliveAnswered => "answers the keep-alive".into(),
        What::ZeroWindow => "receive window closed".into(),
        What::WindowOpened { after } => format!("receive window open again after {after}"),
        What::ZeroWindowProbe => "probes the closed window".into(),
        What::CutShort => "cut short by the capture".into(),
        What::Icmp(error) => format!("ICMP type {} code {} about this flow", error.kind, error.code),
        What::ProxyHeader(header) => match header.source {
            Some(source) => format!("PROXY v{} header, {} octets, client {source}", header.version, header.len),
            None => format!("PROXY v{} header, {} octets, no client address", header.version, header.len),
        },
        What::ProxyHeaderAgain(_) => "a second PROXY header".into(),
        What::ProxyBroken(broken) => {
            format!("PROXY v{} header that breaks a rule: {}", broken.version, broken.rule.says())
        }
        What::ClientHello(hello) => match &hello.sni {
            Some(name) => format!("ClientHello for {name}"),
            None => "ClientHello without a name".into(),
        },
        What::ServerHello(hello) if hello.retry_request => "HelloRetryRequest".into(),
        What::ServerHello(hello) => format!("ServerHello, {}", crate::wire::tls::version_name(hello.version)),
        What::Certificates(chain) => match chain.first() {
            Some(leaf) => format!("Certificate of {}, valid until {}", leaf.subject, rfc3339(leaf.not_after)),
            None => "empty Certificate".into(),
        },
        What::AlertPlain(alert) => {
            let level = if alert.fatal() { "fatal" } else { "warning" };
            format!("{level} alert {} {}", alert.description, alert.name())
        }
        What::CertificateSealed { len } => format!("sealed Certificate (by its size, {len} octets)"),
        What::AlertEncrypted { .. } => "encrypted alert (by its size)".into(),
        What::TlsData => "application data begins".into(),
        What::TlsBroken => "plain text where a TLS record must begin".into(),
        // Query values may be secrets: they are shown by no text output.
        What::Request(head) => format!("{}{} {}", on_stream(head.stream), head.method, path(&head.target)),
        What::Response(head) if head.stream > 0 => format!("{}{}", on_stream(head.stream), status(head.status)),
        What::Response(head) => format!("{} {}", head.status, head.reason),
        What::Settings(settings) => settings_in_words(settings),
        What::SettingsTaken => "confirms the SETTINGS".into(),
        What::StreamEnd { stream } => format!("stream {stream}: complete"),
        What::StreamReset(reset) => format!("stream {}: reset, {}", reset.stream.number, error_name(reset.code)),
        What::GoAway(farewell) => match farewell.away.debug.as_str() {
            "" => format!("GOAWAY, {}, last stream {}", error_name(farewell.away.code), farewell.away.last),
            words => format!("GOAWAY, {}, last stream {}: {words}", error_name(farewell.away.code), farewell.away.last),
        },
        What::GrpcStatus(call) => {
            format!("stream {}: grpc-status {} {}", call.stream.number, call.status, call.message)
        }
        What::StreamWindowClosed { stream, whole: false } => format!("stream {stream}: its window is used up"),
        What::StreamWindowClosed { stream, whole: true } => {
            format!("stream {stream}: the connection's window is used up")
        }
        What::StreamWindowOpened { stream, after } => format!("stream {stream}: the window opens again after {after}"),
        What::FieldsUnknown => "header fields that were sent before the capture or in a hole: ?62 and so on".into(),
        What::ResponseTruncated { .. } => "the response ends before its promised length".into(),
        What::Dns(message) if message.response => format!("DNS answer for {}, rcode {}", message.name, message.rcode),
        What::Dns(message) => format!("DNS query for {}", message.name),
        What::Greeting(greeting) => greeting.text.clone(),
        _ => return None,
    })
}

impl Diagnosis {
    /// Keeps every flow between two hosts whole and looks at no others' ladders.
    fn keep_all(mut self, (a, b): (Endpoint, Endpoint)) -> Self {
        self.keep = Some((a, b));
        self.settings.only = Ends::default();
        self
    }
}
