//! The rules, one file each, in families.

pub mod connect;

use crate::rule::Rule;

/// Every rule, in catalogue order, with the source file that holds its page.
pub static RULES: &[(&Rule, &str)] = &[(&connect::connect_refused::RULE, include_str!("connect/connect_refused.rs"))];

/// The rule with that id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().map(|(rule, _)| *rule).find(|rule| rule.id == id)
}

/// The page of a rule: its file's `//!` head, without the comment marks.
pub fn page(id: &str) -> Option<String> {
    let (_, source) = RULES.iter().find(|(rule, _)| rule.id == id)?;
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    Some(lines.map(|line| line[3..].strip_prefix(' ').unwrap_or("")).collect::<Vec<_>>().join("\n"))
}
