//! A rule's page for a terminal: its prose broken at the width of the screen.

use super::layout::filled;

/// A page with its paragraphs and list items broken anew at `width` characters. Headings, tables and code stay as they are, and so does a
/// word longer than a line.
pub fn reflowed(page: &str, width: usize) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let (mut code, mut open) = (false, false);
    for line in page.lines() {
        let fence = line.trim_start().starts_with("```");
        let fixed = code || fence || line.trim().is_empty() || line.starts_with(['#', '|']);
        code ^= fence;
        match blocks.last_mut() {
            Some(block) if open && !fixed && !item(line) => {
                block.push(' ');
                block.push_str(line.trim());
            }
            _ => blocks.push(line.to_owned()),
        }
        open = !fixed;
        if fixed {
            // Marked, so that it is not broken below.
            blocks.last_mut().into_iter().for_each(|block| block.insert(0, '\0'));
        }
    }
    let mut text = String::new();
    for block in &blocks {
        match block.strip_prefix('\0') {
            Some(line) => text.push_str(line),
            None => text.push_str(&broken(block, width)),
        }
        text.push('\n');
    }
    text
}

/// Whether a line begins a list item.
fn item(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("- ") || line.starts_with("* ") || (numbered.len() < line.len() && numbered.starts_with(". "))
}

/// One paragraph or list item; the lines after the first hang below its text.
fn broken(block: &str, width: usize) -> String {
    let text = block.trim_start();
    let indent = block.len() - text.len();
    let hang = indent + if item(block) { text.find(' ').map_or(0, |space| space + 1) } else { 0 };
    let margin = |line: usize| if line == 0 { indent } else { hang };
    let lines = filled(text.split_whitespace(), |line| width.saturating_sub(margin(line)));
    let lines = (0..).zip(lines).map(|(i, line)| format!("{:1$}{line}", "", margin(i)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn pages_fit_the_screen_and_lose_no_word() {
        const WIDTH: usize = 100;
        for (rule, _) in catalogue::RULES {
            let Some(page) = catalogue::page(rule.id) else { panic!("{} has no page", rule.id) };
            let text = reflowed(&page, WIDTH);
            let wide = text.lines().find(|line| line.chars().count() > WIDTH && line.trim().contains(' '));
            assert_eq!(wide, None, "{}", rule.id);
            assert!(text.split_whitespace().eq(page.split_whitespace()), "{}", rule.id);
        }
    }

    #[test]
    fn items_hang_and_code_stays() {
        let page = "# A\none two\nthree\n\n- four five\n  six\n- seven\n```\nno   break at all\n```";
        let text = "# A\none two\nthree\n\n- four\n  five six\n- seven\n```\nno   break at all\n```\n";
        assert_eq!(reflowed(page, 10), text);
    }
}
