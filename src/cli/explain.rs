//! `tcpwhy explain`, `rules` and `thresholds`: the catalogue for people.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table, presets};

use tcpwhy::render::page;
use tcpwhy::{Thresholds, catalogue};

/// The page of a rule; without such a rule, those whose users-see text holds the words.
pub(crate) fn explain(words: &str, code: bool) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if let Some(text) = catalogue::page(words) {
        write!(out, "{}", page::reflowed(&text, WIDTH))?;
        if code && let Some(source) = catalogue::code(words) {
            writeln!(out, "\n## The check\n```rust\n{source}\n```")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let found: Vec<_> = catalogue::search(words).collect();
    if found.is_empty() {
        let nearest = nearest(words, catalogue::RULES.iter().map(|(rule, _)| rule.id));
        match nearest {
            Some(id) => bail!("no rule is called {words:?}, and no user sees these words: did you mean {id}?"),
            None => bail!("no rule is called {words:?}, and no user sees these words (tcpwhy rules lists the rules)"),
        }
    }
    writeln!(out, "People see {words:?} with:\n")?;
    for (rule, text) in found {
        writeln!(out, "  {:<34} {}", rule.id, rule.title)?;
        writeln!(out, "  {:<34}   as: {text}", "")?;
    }
    writeln!(out, "\ntcpwhy explain ID prints the page of one.")?;
    Ok(ExitCode::SUCCESS)
}

/// Columns of everything printed here.
const WIDTH: usize = 100;

/// All rules in a table.
pub(crate) fn rules() -> Result<ExitCode> {
    let mut table = plain_table(&["rule", "severity", "confidence", "what it says"]);
    for (rule, _) in catalogue::RULES {
        table.add_row([
            rule.id.to_owned(),
            format!("{:?}", rule.severity).to_lowercase(),
            format!("{:?}", rule.confidence).to_lowercase(),
            rule.title.to_owned(),
        ]);
    }
    print_table(&table)
}

/// All thresholds in a table.
pub(crate) fn thresholds(thresholds: &Thresholds) -> Result<ExitCode> {
    let mut table = plain_table(&["threshold", "value", "why"]);
    for (name, value, why) in thresholds.list() {
        table.add_row([name, &value, why]);
    }
    print_table(&table)
}

fn plain_table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH as u16);
    table.set_header(head.iter().copied());
    table
}

fn print_table(table: &Table) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The candidate that differs least from what was typed, if it is near at all.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = typed.chars().count() / 3 + 1;
    candidates
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near || candidate.starts_with(typed))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_rule() {
        let rules = ["connect-refused", "connect-timeout"];
        assert_eq!(nearest("connect-refusd", rules.into_iter()), Some("connect-refused"));
        assert_eq!(nearest("zzz", rules.into_iter()), None);
    }
}
