//! The report as one HTML file that needs nothing else.

use crate::run::dossier::Dossier;
use crate::wire::harmless::{Sink, harmless};

/// The page.
pub fn report(dossier: &Dossier) -> String {
    let headlines = dossier.report.incidents.iter().map(|incident| incident.headline.as_str());
    headlines.map(|headline| format!("<h2>{}</h2>\n", harmless(headline, Sink::Html))).collect()
}
