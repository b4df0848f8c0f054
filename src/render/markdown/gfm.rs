//! Blocks as Markdown: with tables and folds as GitHub and GitLab read it, or as plain CommonMark that reads well in a mail.

use super::block::{Block, Inline};
use crate::render::layout::filled;
use crate::wire::harmless::{Sink, harmless};

/// Columns of a mail.
const MAIL: usize = 78;

/// Blocks for a tracker that knows tables and folds.
pub(super) fn rich(block: &Block) -> String {
    match block {
        Block::Head(level, text) => head(*level, text),
        Block::Text(line) => format!("{}\n\n", inlines(line, Place::Line)),
        Block::Bullets(items) => {
            let items: String = items.iter().map(|item| format!("- {}\n", inlines(item, Place::Line))).collect();
            format!("{items}\n")
        }
        Block::Table { heads, rows } => table(heads, rows),
        Block::Code(lines) => fenced(lines),
        Block::Fold { title, blocks } => {
            let inside: String = blocks.iter().map(rich).collect();
            // Without the blank lines what is inside would be no Markdown.
            format!("<details>\n<summary>{}</summary>\n\n{inside}</details>\n\n", harmless(title, Sink::Html))
        }
    }
}

/// Blocks for a mail: no HTML, no tables, lines of `MAIL` columns where they are prose.
pub(super) fn plain(block: &Block) -> String {
    match block {
        Block::Head(level, text) => head(*level, text),
        Block::Text(line) => format!("{}\n", wrapped(&inlines(line, Place::Line), "")),
        Block::Bullets(items) => {
            let items: String = items.iter().map(|item| wrapped(&inlines(item, Place::Line), "- ")).collect();
            format!("{items}\n")
        }
        Block::Table { rows, .. } => {
            let items: String = rows.iter().map(|row| wrapped(&in_one_line(row), "- ")).collect();
            format!("{items}\n")
        }
        Block::Code(lines) => fenced(lines),
        Block::Fold { title, blocks } => {
            let inside: String = blocks.iter().map(plain).collect();
            format!("{}{inside}", head(4, title))
        }
    }
}

fn head(level: u8, text: &str) -> String {
    format!("{} {}\n\n", "#".repeat(usize::from(level)), harmless(text.trim(), Sink::Markdown))
}

fn table(heads: &[&str], rows: &[Vec<Inline>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut table = line(heads.iter().map(|head| harmless(head, Sink::Markdown).into_owned()).collect());
    table.push_str(&format!("|{}\n", " --- |".repeat(heads.len())));
    for row in rows {
        table.push_str(&line(row.iter().map(|cell| inline(cell, Place::Cell)).collect()));
    }
    format!("{table}\n")
}

/// A row without a table: its cells behind each other, the last after a colon.
fn in_one_line(row: &[Inline]) -> String {
    let cells: Vec<String> = row.iter().map(|cell| inline(cell, Place::Line)).collect();
    match cells.split_last() {
        Some((last, before)) => {
            let before: Vec<&str> = before.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
            format!("{}: {last}", before.join(", "))
        }
        None => String::new(),
    }
}

/// A fence longer than any run of backticks inside.
fn fenced(lines: &[String]) -> String {
    let longest = lines.iter().map(|line| longest_run(line)).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let inside: String = lines.iter().map(|line| format!("{}\n", harmless(line, Sink::Line))).collect();
    format!("{fence}\n{inside}{fence}\n\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Where a piece of a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Line,
    Cell,
}

fn inlines(line: &[Inline], place: Place) -> String {
    line.iter().map(|one| inline(one, place)).collect::<String>().trim().to_owned()
}

fn inline(one: &Inline, place: Place) -> String {
    match one {
        Inline::Text(text) => running(text),
        Inline::Strong(text) if text.trim().is_empty() => String::new(),
        Inline::Strong(text) => format!("**{}**", harmless(text.trim(), Sink::Markdown)),
        Inline::Code(text) => {
            let shown = harmless(text, Sink::Line);
            let mark = "`".repeat(longest_run(&shown) + 1);
            // A space beside a backtick is taken away again.
            let space = if shown.starts_with('`') || shown.ends_with('`') { " " } else { "" };
            // The bar ends a cell even inside code.
            let shown = if place == Place::Cell { shown.replace('|', "\\|") } else { shown.into_owned() };
            format!("{mark}{space}{shown}{space}{mark}")
        }
    }
}

/// Running text, in which numbers of packets (`#14`, `2#14`) are code: as text a tracker would take them for issues.
fn running(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    // What is longer than anything of ours is cut as a whole.
    while let Some((before, number, behind)) = packet(rest).filter(|_| text.len() <= 512) {
        shown.extend([harmless(before, Sink::Markdown).as_ref(), "`", number, "`"]);
        rest = behind;
    }
    shown.push_str(&harmless(rest, Sink::Markdown));
    shown
}

/// The first number of a packet in a text, with what stands before and behind it.
fn packet(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('#').find_map(|(at, _)| {
        let before = text[..at].trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let end = at + 1 + digits;
        let alone = |c: char| !c.is_alphanumeric() && !"`#&/\\".contains(c);
        let stands = before.chars().next_back().is_none_or(alone) && text[end..].chars().next().is_none_or(alone);
        (digits > 0 && stands).then(|| (before, &text[before.len()..end], &text[end..]))
    })
}

/// Prose in lines of a mail. A line must not begin with what would make a list or a heading of it.
fn wrapped(text: &str, mark: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if begins_markup(word) => last.extend([" ", word]),
            _ => words.push(word.to_owned()),
        }
    }
    let indent = " ".repeat(mark.len());
    let lines = filled(words.iter().map(String::as_str), |_| MAIL - mark.len());
    let line = |(n, line): (usize, &String)| format!("{}{line}\n", if n == 0 { mark } else { &indent });
    lines.iter().enumerate().map(line).collect()
}

/// Whether a word at the beginning of a line makes more of the line than text.
fn begins_markup(word: &str) -> bool {
    let number = word.trim_start_matches(|c: char| c.is_ascii_digit());
    word.chars().all(|c| "-+*=_".contains(c))
        || word.starts_with(['#', '>', '/', '|'])
        || word.starts_with("```")
        || word.starts_with("~~~")
        || number.len() < word.len() && (number == "." || number == ")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_what_is_in_it() {
        let block = Block::Code(vec!["a ```` b".into(), "\x1b[2J\0".into()]);
        assert_eq!(rich(&block), "`````\na ```` b\n\\x1b[2J\\x00\n`````\n\n");
    }

    #[test]
    fn code_in_a_line_holds_backticks_and_in_a_cell_bars() {
        let code = Inline::Code("`a|b".into());
        assert_eq!(inline(&code, Place::Line), "`` `a|b ``");
        assert_eq!(inline(&code, Place::Cell), "`` `a\\|b ``");
    }

    #[test]
    fn numbers_of_packets_are_code_and_no_issues() {
        assert_eq!(running("it answered (#7 2#14), 3 times"), "it answered (`#7` `2#14`), 3 times");
        assert_eq!(running("a#7 #7a `#7` &#7;"), "a\\#&#8288;7 \\#&#8288;7a \\`\\#&#8288;7\\` \\&\\#&#8288;7;");
        assert_eq!(running("#7 #"), "`#7` #");
    }

    #[test]
    fn a_row_has_its_cells_whatever_is_in_them() {
        let row = vec![Inline::Text("a|b\n|c".into()), Inline::Code("d|e".into())];
        let table = rich(&Block::Table { heads: vec!["x", "y"], rows: vec![row.clone()] });
        assert_eq!(table, "| x | y |\n| --- | --- |\n| a\\|b\\\\n\\|c | `d\\|e` |\n\n");
        assert_eq!(in_one_line(&row), "a\\|b\\\\n\\|c: `d|e`");
    }

    #[test]
    fn a_line_of_a_mail_never_begins_with_markup() {
        let text = format!("{} - 12. # b", "x".repeat(MAIL - 1));
        assert_eq!(wrapped(&text, ""), format!("{} - 12. #\nb\n", "x".repeat(MAIL - 1)));
        assert!(wrapped(&"word ".repeat(60), "- ").lines().all(|line| line.len() <= MAIL));
    }

    #[test]
    fn a_fold_leaves_room_for_markdown_inside() {
        let block = Block::Fold { title: "a <b>".into(), blocks: vec![Block::text("x")] };
        assert_eq!(rich(&block), "<details>\n<summary>a &lt;b&gt;</summary>\n\nx\n\n</details>\n\n");
        assert_eq!(plain(&block), "#### a \\<b\\>\n\nx\n\n");
    }
}
