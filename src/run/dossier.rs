//! A report for somebody who has not got the capture: with the flows that show its incidents, packet by packet.

use std::collections::BTreeSet;

use super::Diagnosis;
use super::ladder::{Ladder, assemble};
use super::second::{Tracks, read};
use crate::diagnose::report::{FlowRef, Incident, Report};
use crate::diagnose::{Merged, report};
use crate::error::Result;
use crate::rule::summary::FlowSummary;

/// What travels.
#[derive(Clone, Debug)]
pub struct Dossier {
    /// The report.
    pub report: Report,
    /// Flows that show an incident, and their other legs: in the order in which incidents name them, each once. Empty where the input
    /// cannot be read twice.
    pub ladders: Vec<Ladder>,
    /// What was typed to make it, ready to paste.
    pub command: String,
}

/// Packets of the beginning of a flow; what is cited or means something is there in any case.
pub(super) const MOST: usize = 400;

impl Dossier {
    /// The flow packet by packet, where it is there.
    pub fn ladder(&self, flow: FlowRef) -> Option<&Ladder> {
        self.ladders.iter().find(|ladder| ladder.flow.key() == flow)
    }

    /// The flow that shows an incident best: the first of its own that is drawn, else one that its evidence is about; with its other leg,
    /// where it has one.
    pub fn shows(&self, incident: &Incident) -> Vec<&Ladder> {
        let proof = incident.evidence.iter().filter_map(|evidence| evidence.flow);
        let flow = incident.flows.iter().copied().chain(proof).find(|flow| self.ladder(*flow).is_some());
        let Some(flow) = flow else { return Vec::new() };
        let link = incident.links.iter().find(|link| link.client_leg == flow || link.backend_leg == flow);
        let legs = link.map_or(vec![flow], |link| vec![link.client_leg, link.backend_leg]);
        legs.into_iter().filter_map(|leg| self.ladder(leg)).collect()
    }
}

/// The flows that incidents name, and their other legs.
fn named(report: &Report) -> Vec<FlowRef> {
    let mut seen = BTreeSet::new();
    let all = report.incidents.iter().flat_map(|incident| {
        let legs = incident.links.iter().flat_map(|link| [link.client_leg, link.backend_leg]);
        incident.flows.iter().copied().chain(legs)
    });
    all.filter(|flow| seen.insert(*flow)).collect()
}

/// A diagnosis that was made, and what is needed to look at its inputs again.
pub struct Made {
    pub(super) diagnosis: Diagnosis,
    pub(super) inputs: Vec<String>,
    pub(super) merged: Merged,
    /// What was found.
    pub report: Report,
}

impl Diagnosis {
    /// Diagnoses inputs that can be read again.
    ///
    /// # Errors
    /// When the inputs cannot be read.
    pub fn make<S: AsRef<str>>(self, inputs: &[S]) -> Result<Made> {
        let merged = self.clone().open(inputs)?.merged()?;
        let report = report(&merged, &self.settings);
        let inputs = inputs.iter().map(|input| input.as_ref().to_owned()).collect();
        // The second look needs no hash, and nobody waits for it.
        let mut diagnosis = Diagnosis { progress: None, ..self };
        diagnosis.open.hash = false;
        Ok(Made { diagnosis, inputs, merged, report })
    }
}

impl Made {
    /// The report with the flows that show its incidents. Reads the inputs once more; `command` is what was typed.
    ///
    /// # Errors
    /// When the inputs cannot be read again.
    pub fn dossier(&self, command: String) -> Result<Dossier> {
        let Self { diagnosis, inputs, merged, report } = self;
        let named = named(report);
        let of = |flow: &FlowRef| merged.flows.values().find(|summary| FlowRef::from(summary.facts.id) == *flow);
        let flows: Vec<&FlowSummary> = named.iter().filter_map(of).collect();
        let cited: BTreeSet<(u16, u64)> = report
            .incidents
            .iter()
            .flat_map(|incident| &incident.evidence)
            .map(|evidence| (evidence.file, evidence.packet))
            .collect();
        let means = |summary: &FlowSummary| {
            let mut wanted = cited.clone();
            wanted.extend(summary.story.events().map(|event| (event.at.file, event.at.number)));
            wanted
        };
        let mut tracks = Tracks::new(flows, MOST, means);
        if !named.is_empty() && !diagnosis.stopped() {
            read(diagnosis, inputs, &merged.one_place, |frame, packet| {
                tracks.packet(frame, packet);
                Ok(())
            })?;
        }
        let drawn = tracks.finish().filter(|(_, steps, _)| !steps.is_empty());
        let ladders = drawn.map(|(summary, steps, left_out)| assemble(summary, report, steps, left_out)).collect();
        Ok(Dossier { report: report.clone(), ladders, command })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// That of an incident's capture.
    pub(crate) fn dossier(path: &str) -> Dossier {
        let path = format!("{}/captures/incidents/{path}", env!("CARGO_MANIFEST_DIR"));
        let made = Diagnosis::new().make(&[path]).expect("a capture");
        made.dossier("tcpwhy capture.pcap".into()).expect("the same capture")
    }

    #[test]
    fn every_flow_an_incident_names_is_drawn_with_every_packet_it_cites() {
        let dossier = dossier("gitlab/both-legs.pcap");
        let incident = &dossier.report.incidents[0];
        let flows = incident.links.iter().flat_map(|link| [link.client_leg, link.backend_leg]);
        assert!(flows.chain(incident.flows.iter().copied()).all(|flow| dossier.ladder(flow).is_some()));
        for evidence in &incident.evidence {
            let ladder = evidence.flow.and_then(|flow| dossier.ladder(flow));
            let Some(ladder) = ladder else { continue };
            assert!(ladder.points.iter().any(|point| point.packet == evidence.packet), "packet {}", evidence.packet);
            let rung = ladder.steps.iter().find(|rung| rung.packet == evidence.packet);
            assert!(rung.is_some_and(|rung| !rung.means.is_empty()), "packet {}", evidence.packet);
        }
        assert_eq!(dossier.shows(incident).len(), 2, "both legs");
    }
}
