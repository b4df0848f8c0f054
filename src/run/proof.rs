//! The packets that prove a report's incidents, as a capture of their own: small, commented, and enough to judge them again.
//!
//! What is enough is not guessed: the packets are diagnosed by themselves, and where the same causes do not come out, more is taken.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};

use super::Diagnosis;
use super::dossier::Made;
use super::second::read;
use crate::capture::write::{Writer, Written};
use crate::capture::{CaptureInfo, Frame, Interface, Source};
use crate::decode::Packet;
use crate::diagnose::evidence::{Reach, Selection};
use crate::diagnose::report::Report;
use crate::diagnose::{Settings, report};
use crate::error::{Error, Result};
use crate::rule::finding::Severity;
use crate::wire::harmless::{Sink, harmless};

/// Evidence of a report: one pcapng for each point of capture.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The files.
    pub files: Vec<ProofFile>,
    /// Packets in them.
    pub packets: u64,
    /// Whether they alone lead to the same causes.
    pub holds: bool,
    /// How far packets were taken.
    pub reach: Reach,
    /// More packets belonged to it than fit.
    pub full: bool,
}

/// The evidence of one point of capture.
#[derive(Clone, Debug)]
pub struct ProofFile {
    /// Its inputs, by index.
    pub inputs: Vec<u16>,
    /// What the point was called (`name=path`).
    pub label: Option<String>,
    /// The file.
    pub octets: Vec<u8>,
}

/// Octets of packets in all files together; of cited packets there may be more.
const MOST: usize = 32 << 20;

/// Octets of a capture in which everything that some hosts sent is more than fits; looking for it would take another pass.
const LARGE: u64 = 8 * MOST as u64;

/// What one reach takes.
struct Collected {
    reach: Reach,
    selection: Selection,
    drafts: Vec<Draft>,
    octets: usize,
    full: bool,
}

impl Collected {
    fn packet(&mut self, frame: &Frame<'_>, packet: &Packet<'_>, files: usize) -> io::Result<()> {
        if !self.selection.holds(frame.file, frame.number, packet) {
            return Ok(());
        }
        let comments = self.selection.comments(frame.file, frame.number, files);
        if self.octets + frame.bytes.len() > MOST && comments.is_empty() {
            self.full = true;
            return Ok(());
        }
        self.octets += frame.bytes.len();
        let place = self.drafts.iter_mut().find(|draft| draft.inputs.contains(&frame.file));
        place.map_or(Ok(()), |draft| draft.packet(frame, &comments))
    }

    fn finish(self, infos: &[CaptureInfo]) -> io::Result<Proof> {
        let packets = self.drafts.iter().map(|draft| draft.writer.packets()).sum();
        let files: io::Result<Vec<ProofFile>> = self.drafts.into_iter().map(|draft| draft.finish(infos)).collect();
        Ok(Proof { files: files?, packets, holds: false, reach: self.reach, full: self.full })
    }
}

/// A file in the making.
struct Draft {
    inputs: Vec<u16>,
    writer: Writer<Vec<u8>>,
    /// For each input of the capture, where its interfaces begin in this file.
    first_interface: Vec<u32>,
    /// Packets by interface of this file.
    packets: Vec<u64>,
}

impl Made {
    /// The evidence for the report. Reads the inputs once more, or several times where little is not enough.
    ///
    /// # Errors
    /// When the inputs cannot be read again.
    pub fn proof(&self) -> Result<Proof> {
        let octets: u64 = self.merged.infos.iter().map(|info| info.octets).sum();
        let [shown, flows, hosts, everything] = Reach::ALL;
        let mut best: Option<Proof> = None;
        // What is near is collected in one pass, what is far only where it may fit.
        for reaches in [[shown, flows], [hosts, everything]] {
            for mut proof in self.collect(reaches)? {
                proof.holds = self.leads_to_the_same(&proof, &self.report)?;
                if proof.holds || self.report.incidents.is_empty() {
                    return Ok(proof);
                }
                // Where nothing suffices, the least is easiest to look at.
                best.get_or_insert(proof);
            }
            if octets > LARGE {
                break;
            }
        }
        best.ok_or_else(|| Error::usage("there is nothing to prove"))
    }

    fn collect(&self, reaches: [Reach; 2]) -> Result<Vec<Proof>> {
        let Self { diagnosis, inputs, merged, report } = self;
        let infos = &merged.infos;
        let unwritten = |error| Error::io("evidence cannot be written".to_owned(), error);
        let mut all = Vec::new();
        for reach in reaches {
            let selection = Selection::whole(report, merged, reach);
            let mut drafts: Vec<Draft> = Vec::new();
            for point in merged.points.iter().copied().collect::<BTreeSet<u16>>() {
                let own: Vec<u16> = (0..).zip(&merged.points).filter(|(_, at)| **at == point).map(|(n, _)| n).collect();
                drafts.push(Draft::begin(own, infos, &about(report, infos), &selection).map_err(unwritten)?);
            }
            all.push(Collected { reach, selection, drafts, octets: 0, full: false });
        }
        let mut failed = None;
        read(diagnosis, inputs, &merged.one_place, |frame, packet| {
            for one in &mut all {
                if let Err(error) = one.packet(frame, packet, infos.len()) {
                    failed = Some(error);
                }
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            return Err(unwritten(error));
        }
        all.into_iter().map(|one| one.finish(infos).map_err(unwritten)).collect()
    }

    /// Whether the files alone lead to the same causes: all of them, the same first, and none that is worse than what was found.
    fn leads_to_the_same(&self, proof: &Proof, told: &Report) -> Result<bool> {
        let readers = proof.files.iter().enumerate().map(|(n, file)| {
            let name = file.label.clone().unwrap_or_else(|| n.to_string());
            (name, Box::new(Cursor::new(file.octets.clone())) as Box<dyn Read + Send>)
        });
        let settings = Settings { all_flows: false, ..self.diagnosis.settings.clone() };
        let again = Diagnosis { settings: settings.clone(), ..self.diagnosis.clone() };
        let again = again.source(Source::from_readers(readers.collect())?)?.merged()?;
        let again = report(&again, &settings);
        let causes = |report: &Report| -> BTreeSet<String> {
            report.incidents.iter().map(|incident| incident.rule.clone()).collect()
        };
        let worst = |report: &Report| -> BTreeSet<String> {
            let critical = report.incidents.iter().filter(|incident| incident.severity == Severity::Critical);
            critical.map(|incident| incident.rule.clone()).collect()
        };
        let first = |report: &Report| report.incidents.first().map(|incident| incident.rule.clone());
        Ok(causes(told).is_subset(&causes(&again))
            && worst(&again).is_subset(&causes(told))
            && first(told) == first(&again))
    }
}

/// What the file is, for whoever opens it elsewhere.
fn about(report: &Report, infos: &[CaptureInfo]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for incident in &report.incidents {
        lines.push(harmless(&incident.headline, Sink::Line).into_owned());
        lines.push(format!("  {} ({}, incident {})", incident.scope_line, incident.rule, incident.id));
    }
    let packets: u64 = infos.iter().map(|info| info.packets).sum();
    let flows = &report.counts.flows;
    lines.push(format!(
        "evidence out of a capture of {packets} packets, {} flows: {} healthy, {} degraded, {} failed, {} undecided; packet numbers in comments \
         are those of that capture",
        flows.total, flows.healthy, flows.degraded, flows.failed, flows.undecided
    ));
    lines.join("\n")
}

impl Draft {
    fn begin(inputs: Vec<u16>, infos: &[CaptureInfo], about: &str, selection: &Selection) -> io::Result<Self> {
        let mut writer = Writer::new(Vec::new(), Some(about))?;
        let (mut first_interface, mut interfaces) = (vec![0; infos.len()], 0);
        for n in &inputs {
            let Some(info) = infos.get(usize::from(*n)) else { continue };
            if let Some(first) = first_interface.get_mut(usize::from(*n)) {
                *first = interfaces;
            }
            info.interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
            interfaces += info.interfaces.len() as u32;
            writer.names(info.names.iter().filter(|(address, _)| selection.about(*address)))?;
        }
        Ok(Self { inputs, writer, first_interface, packets: vec![0; interfaces as usize] })
    }

    fn packet(&mut self, frame: &Frame<'_>, comments: &[String]) -> io::Result<()> {
        let first = self.first_interface.get(usize::from(frame.file)).copied().unwrap_or(0);
        let interface = first + u32::from(frame.interface);
        if let Some(packets) = self.packets.get_mut(interface as usize) {
            *packets += 1;
        }
        let Frame { time, wire_len, bytes, flags, .. } = *frame;
        self.writer.packet(&Written { interface, time, wire_len, bytes, flags }, comments)
    }

    /// What the interfaces counted stays true of the whole capture; until when they were watched, also of this part of it.
    fn finish(mut self, infos: &[CaptureInfo]) -> io::Result<ProofFile> {
        let own = |n: &u16| infos.get(usize::from(*n));
        let label = self.inputs.first().and_then(own).and_then(|info| info.label.clone());
        let interfaces = self
            .inputs
            .iter()
            .filter_map(own)
            .flat_map(|info| info.interfaces.iter().map(|interface| (interface, info.until().or(info.last))));
        for ((n, (interface, until)), packets) in (0..).zip(interfaces).zip(&self.packets) {
            let watched = interface.until.is_some() || interface.drops.is_some();
            if let Some(until) = until.filter(|_| watched) {
                self.writer.ended(n, &Interface { until: Some((until, *packets)), ..interface.clone() })?;
            }
        }
        Ok(ProofFile { inputs: self.inputs, label, octets: self.writer.into_inner() })
    }
}
