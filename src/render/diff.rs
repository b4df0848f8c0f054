//! Two captures side by side, for a terminal.

use super::layout::{Page, Style, Tone};
use crate::diagnose::diff::{Diff, Lone, Total};
use crate::diagnose::format::count;

/// Servers of one list that are shown without `-v`.
const SHOWN: usize = 12;

/// The comparison for a terminal.
pub fn text(diff: &Diff, style: Style) -> String {
    let mut page = Page::new(style);
    let most = if style.verbose { usize::MAX } else { SHOWN };
    page.labelled("GOOD", &total(&diff.good), Tone::Good, 2);
    page.labelled("BAD", &total(&diff.bad), Tone::Bad, 2);
    page.blank();
    for server in diff.servers.iter().take(most) {
        let tone = if server.failed[1] > server.failed[0] { Tone::Bad } else { Tone::Plain };
        page.labelled(
            "SERVER",
            &format!("{}: flows {} -> {}", server.server, server.flows[0], server.flows[1]),
            tone,
            2,
        );
        for difference in &server.differences {
            let text = format!("{}: {}  ->  {}", difference.what, difference.good, difference.bad);
            page.labelled("", &text, Tone::Plain, 3);
        }
    }
    more(&mut page, diff.servers.len().saturating_sub(most), "servers differ");
    for name in &diff.names {
        let text = format!("{}: {}  ->  {}", name.name, name.good.join(", "), name.bad.join(", "));
        page.labelled("DNS", &text, Tone::Warn, 3);
    }
    for (label, list, words) in
        [("GONE", &diff.gone, "only in the good capture"), ("NEW", &diff.new, "only in the bad capture")]
    {
        for lone in list.iter().take(most) {
            page.labelled(label, &format!("{} ({words})", alone(lone)), Tone::Plain, 2);
        }
        more(&mut page, list.len().saturating_sub(most), words);
    }
    let same = diff.alike;
    let nothing = diff.servers.is_empty() && diff.gone.is_empty() && diff.new.is_empty() && diff.names.is_empty();
    if nothing && same == 0 {
        page.labelled("SAME", "neither capture has a server to compare", Tone::Warn, 1);
    } else if nothing {
        page.labelled("SAME", &format!("nothing differs at {}", count(same, "server")), Tone::Good, 1);
    } else if same > 0 {
        page.labelled("SAME", &format!("nothing differs at {}", count(same, "other server")), Tone::Plain, 1);
    }
    page.labelled(
        "COMPARED",
        "per server: failing share, first octets, SNI or Host, certificate serial (TLS 1.2), status, round trip; per name: addresses",
        Tone::Plain,
        2,
    );
    page.finish()
}

fn total(total: &Total) -> String {
    format!("{}: {}, {} failed", total.captures.join(" "), count(total.flows, "flow"), total.failed)
}

fn alone(lone: &Lone) -> String {
    format!("{}: {}, {} failed; {}", lone.server, count(lone.flows, "flow"), lone.failed, lone.speaks)
}

fn more(page: &mut Page, n: usize, words: &str) {
    if n > 0 {
        page.labelled("", &format!("{n} more {words} (-v shows them)"), Tone::Plain, 1);
    }
}
