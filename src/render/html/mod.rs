//! The report as one HTML file that needs nothing else: for whoever has no tcpwhy, at a desk, on a phone, on paper.
//!
//! Nothing is loaded and nothing but the page's own script runs (`policy.rs`). Without the script the incidents, their proof and the first
//! flows can be read all the same; it sorts, filters, copies, and shows the other flows. What templates print passes `engine.rs`, what
//! drawings print passes `svg.rs`, and both make it harmless.

mod card;
mod cite;
mod engine;
mod flows;
mod ladder;
mod moment;
mod policy;
mod sequence;
mod svg;
#[cfg(test)]
mod tests;
mod timeline;
mod view;
mod words;

use crate::run::dossier::Dossier;
use view::Page;

/// The page.
pub fn report(dossier: &Dossier) -> String {
    engine::render(&Page::of(dossier)).unwrap_or_else(|error| {
        debug_assert!(false, "a template: {error}");
        "<!doctype html><title>tcpwhy</title><p>This page could not be written; --format text and json can.".to_owned()
    })
}
