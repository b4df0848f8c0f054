//! The report as text for a ticket: what broke and what to do, for somebody who has never seen tcpwhy.
//!
//! Blocks are built from the report ([`block`]), then written in the markup of the tracker ([`gfm`], [`jira`]). A tracker takes so many
//! characters and no more: what is told gets less in steps, whole blocks at a time, and the text says what was left out.

mod about;
mod block;
mod gfm;
mod incident;
mod jira;
mod ladder;

use block::Block;

use crate::render::text::TOLD;
use crate::run::dossier::Dossier;

/// Whose markup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// GitHub: tables, folds; at most 65,536 characters.
    #[default]
    Github,
    /// GitLab: the same; at most 1,000,000 characters.
    Gitlab,
    /// CommonMark without HTML and tables, in lines of a mail.
    Plain,
    /// The wiki markup of Jira; at most 32,767 characters.
    Jira,
}

impl Flavour {
    /// Characters the tracker takes, as [`Flavour::size`] counts them.
    pub fn limit(self) -> usize {
        match self {
            Self::Github => 65_536,
            Self::Gitlab | Self::Plain => 1_000_000,
            Self::Jira => 32_767,
        }
    }

    /// The tracker as people call it.
    fn tracker(self) -> &'static str {
        match self {
            Self::Github => "GitHub",
            Self::Gitlab => "GitLab",
            Self::Plain => "A mail",
            Self::Jira => "Jira",
        }
    }

    fn write(self, block: &Block) -> String {
        match self {
            Self::Github | Self::Gitlab => gfm::rich(block),
            Self::Plain => gfm::plain(block),
            Self::Jira => jira::wiki(block),
        }
    }
}

/// Length of a text as the strictest tracker counts: in units of UTF-16, and a browser sends two for the end of a line.
pub fn size(text: &str) -> usize {
    text.chars().map(|c| if c == '\n' { 2 } else { c.len_utf16() }).sum()
}

/// How much is told.
struct Sizes {
    /// Incidents with a section of their own.
    told: usize,
    /// Of these, how many with their folded details, and with a drawing.
    detailed: usize,
    drawn: usize,
    /// Packets of the proof.
    packets: usize,
    /// Steps of a drawing.
    steps: usize,
    /// Items of a list.
    items: usize,
    /// Flows listed at the end.
    flows: usize,
    /// Incidents that are a row of the overview only.
    listed: usize,
    /// What is missing compared to the first, in words.
    without: &'static str,
}

/// From everything to the least.
const SIZES: [Sizes; 6] = [WHOLE, SHORTER, SHORT, TERSE, TERSER, LEAST];

const WHOLE: Sizes = Sizes {
    told: TOLD,
    detailed: TOLD,
    drawn: TOLD,
    packets: 24,
    steps: 30,
    items: 50,
    flows: 40,
    listed: 30,
    without: "",
};
const SHORTER: Sizes = Sizes {
    packets: 8,
    steps: 14,
    items: 20,
    flows: 20,
    without: "further packets of the proof, the middle of drawings",
    ..WHOLE
};
const SHORT: Sizes = Sizes {
    detailed: 1,
    flows: 0,
    without: "further packets of the proof, the middle of drawings, details of later causes, the list of flows",
    ..SHORTER
};
const TERSE: Sizes = Sizes {
    drawn: 1,
    items: 8,
    listed: 15,
    without: "further packets of the proof, drawings and details of later causes, the list of flows",
    ..SHORT
};
const TERSER: Sizes = Sizes {
    told: 2,
    items: 4,
    without: "further packets of the proof, most about later causes, the list of flows, further items of lists",
    ..TERSE
};
const LEAST: Sizes = Sizes {
    told: 1,
    detailed: 0,
    drawn: 0,
    packets: 5,
    items: 2,
    listed: 5,
    without: "most of the proof, the drawings, later causes but for their headlines, the list of flows, most items of lists",
    ..TERSER
};

/// The ticket's text.
pub fn report(dossier: &Dossier, flavour: Flavour) -> String {
    within(dossier, flavour, flavour.limit())
}

/// The same in at most `limit` characters: the first size that fits, or of the smallest those blocks that fit.
fn within(dossier: &Dossier, flavour: Flavour, limit: usize) -> String {
    let mut pieces = Vec::new();
    for sizes in &SIZES {
        pieces = blocks(dossier, flavour, sizes).iter().map(|block| flavour.write(block)).collect::<Vec<String>>();
        if pieces.iter().map(|piece| size(piece)).sum::<usize>() <= limit {
            return finish(pieces);
        }
    }
    let note = flavour.write(&Block::text("… More does not fit here; the attached report holds it."));
    let mut room = limit.saturating_sub(size(&note));
    pieces.retain(|piece| {
        let fits = size(piece) <= room;
        room -= if fits { size(piece) } else { 0 };
        fits
    });
    pieces.push(note);
    finish(pieces)
}

fn finish(pieces: Vec<String>) -> String {
    format!("{}\n", pieces.concat().trim_end())
}

fn blocks(dossier: &Dossier, flavour: Flavour, sizes: &Sizes) -> Vec<Block> {
    let report = &dossier.report;
    let told = report.incidents.len().min(sizes.told);
    let mut blocks = match report.incidents.as_slice() {
        [] => about::nothing_broken(report),
        [_] => Vec::new(),
        _ => about::overview(report, told, sizes),
    };
    for (n, incident) in (1..).zip(&report.incidents[..told]) {
        blocks.extend(incident::blocks(dossier, incident, (n, report.incidents.len()), sizes));
    }
    if !sizes.without.is_empty() {
        let (tracker, limit) = (flavour.tracker(), thousands(flavour.limit()));
        let text = format!(
            "{tracker} takes {limit} characters. Left out here, and in the attached report.html and report.json: {}.",
            sizes.without
        );
        // Behind the headline: what broke is read first.
        blocks.insert(1, Block::labelled("Shortened.", text));
    }
    blocks.extend(about::about(dossier, sizes));
    blocks
}

/// `65,536`
fn thousands(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", thousands(n / 1000), n % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Diagnosis;

    const FLAVOURS: [Flavour; 4] = [Flavour::Github, Flavour::Gitlab, Flavour::Plain, Flavour::Jira];

    fn dossier(path: &str) -> Dossier {
        let path = format!("{}/captures/{path}", env!("CARGO_MANIFEST_DIR"));
        let made = Diagnosis::new().make(&[path]).expect("a capture");
        made.dossier("tcpwhy --format markdown capture.pcap".into()).expect("the same capture")
    }

    #[test]
    fn a_ticket_has_its_sections_in_order() {
        let text = report(&dossier("incidents/gitlab/both-legs.pcap"), Flavour::Github);
        let sections = [
            "## CRITICAL: 10.224.26.1 sends a PROXY header to a port that speaks TLS",
            "STILL FAILING. Certain.**",
            "At fault: the configuration.",
            "### Proof",
            "| `#427` |",
            "* #427",
            "frame.number in {",
            "### What it is not",
            "### What to do",
            "**Risk:**",
            "**Verify:**",
            "<details>",
            "## How to reproduce",
            "tcpwhy --format markdown capture.pcap",
            "tcpwhy report ",
        ];
        let mut from = 0;
        for section in sections {
            from += text[from..].find(section).unwrap_or_else(|| panic!("{section} is missing or misplaced:\n{text}"));
        }
    }

    #[test]
    fn a_healthy_capture_is_said_to_be_one_and_how_far_that_goes() {
        let text = report(&dossier("healthy/16-long-poll.pcap"), Flavour::Github);
        assert!(text.starts_with("## OK: nothing is broken in 1 flow\n"), "{text}");
        assert!(text.contains("## How to reproduce"), "{text}");
    }

    #[test]
    fn whatever_the_limit_no_block_is_cut_and_what_is_missing_is_said() {
        let dossier = dossier("incidents/blackout/all.pcap");
        for flavour in FLAVOURS {
            for limit in [600, 2_000, 5_000, 8_000, 12_000] {
                let text = within(&dossier, flavour, limit);
                assert!(size(&text) <= limit, "{flavour:?} {limit}");
                let said = text.contains("Shortened.") || text.contains("More does not fit");
                let said = said || text == report(&dossier, flavour);
                assert!(said, "{flavour:?} {limit}:\n{text}");
                assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
                let fences = text.lines().filter(|line| line.starts_with("```") || *line == "{noformat}").count();
                assert_eq!(fences % 2, 0, "{flavour:?} {limit}");
            }
        }
    }

    #[test]
    fn length_is_counted_as_the_strictest_tracker_counts() {
        assert_eq!(size("a\né🙂"), 1 + 2 + 1 + 2);
        assert_eq!(
            (thousands(65_536), thousands(1_000_000), thousands(12)),
            ("65,536".into(), "1,000,000".into(), "12".into())
        );
    }
}
