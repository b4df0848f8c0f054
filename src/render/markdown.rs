//! The report as Markdown, for a ticket.

use crate::run::dossier::Dossier;
use crate::wire::harmless::{Sink, harmless};

/// The ticket's text.
pub fn report(dossier: &Dossier) -> String {
    let headlines = dossier.report.incidents.iter().map(|incident| incident.headline.as_str());
    headlines.map(|headline| format!("## {}\n", harmless(headline, Sink::Markdown))).collect()
}
