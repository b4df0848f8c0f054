//! Blocks in Jira's wiki markup, which has no folds: what would be folded stands in a panel.

use super::block::{Block, Inline};
use crate::wire::harmless::{Sink, harmless};

/// One block.
pub(super) fn wiki(block: &Block) -> String {
    match block {
        Block::Head(level, text) => format!("h{level}. {}\n\n", harmless(text.trim(), Sink::Jira)),
        Block::Text(line) => format!("{}\n\n", inlines(line)),
        Block::Bullets(items) => {
            let items: String = items.iter().map(|item| format!("* {}\n", inlines(item))).collect();
            format!("{items}\n")
        }
        Block::Table { heads, rows } => {
            let mut table = format!("||{}||\n", heads.join("||"));
            for row in rows {
                // A cell without anything would make a head of the next one.
                let cells =
                    row.iter().map(|cell| Some(inline(cell)).filter(|cell| !cell.is_empty()).unwrap_or(" ".into()));
                table.push_str(&format!("|{}|\n", cells.collect::<Vec<_>>().join("|")));
            }
            format!("{table}\n")
        }
        Block::Code(lines) => {
            let inside: String = lines.iter().map(|line| format!("{}\n", harmless(line, Sink::JiraBlock))).collect();
            format!("{{noformat}}\n{inside}{{noformat}}\n\n")
        }
        Block::Fold { title, blocks } => {
            let inside: String = blocks.iter().map(wiki).collect();
            format!("{{panel:title={}}}\n{}\n{{panel}}\n\n", harmless(title, Sink::Jira), inside.trim_end())
        }
    }
}

fn inlines(line: &[Inline]) -> String {
    line.iter().map(inline).collect::<String>().trim().to_owned()
}

fn inline(one: &Inline) -> String {
    match one {
        Inline::Text(text) => harmless(text, Sink::Jira).into_owned(),
        Inline::Strong(text) if text.trim().is_empty() => String::new(),
        Inline::Strong(text) => format!("*{}*", harmless(text.trim(), Sink::Jira)),
        Inline::Code(text) => {
            let shown = harmless(text, Sink::Jira);
            // Behind the braces it begins no line.
            let shown = shown.strip_prefix("&#35;").map(|rest| format!("#{rest}")).unwrap_or(shown.into_owned());
            format!("{{{{{shown}}}}}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_blocks_and_panels_end_where_they_should() {
        let row = vec![Inline::Text("a|b".into()), Inline::Text(String::new()), Inline::Code("#1".into())];
        let table = wiki(&Block::Table { heads: vec!["x", "y", "z"], rows: vec![row] });
        assert_eq!(table, "||x||y||z||\n|a\\|b| |{{#1}}|\n\n");
        let code = wiki(&Block::Code(vec!["a {noformat} {panel}".into()]));
        assert_eq!(code, "{noformat}\na { noformat} {panel}\n{noformat}\n\n");
        let fold = wiki(&Block::Fold { title: "more".into(), blocks: vec![Block::text("{panel}")] });
        assert_eq!(fold, "{panel:title=more}\n\\{panel\\}\n{panel}\n\n");
    }
}
