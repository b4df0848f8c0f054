//! The rules, one file each, in families.

pub mod app;
pub mod capture;
pub mod close;
pub mod connect;
pub mod dns;
pub mod http;
pub mod http2;
mod index;
pub mod legs;
pub mod link;
pub mod outage;
pub mod path;
pub mod proxy_header;
pub mod tls;
pub mod transfer;
pub mod wrong_protocol;

use std::sync::LazyLock;

use crate::rule::finding::Finding;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule};
pub use index::RULES;

/// A rule about one flow, with what decides whether it is asked at hand.
pub struct FlowRule {
    /// What it needs to have seen.
    pub needs: Needs,
    /// The check.
    pub check: fn(&FlowView<'_>) -> Option<Finding>,
    /// The rest of it.
    pub rule: &'static Rule,
}

/// The rules about one flow, in the order of [`RULES`].
pub static FLOW_RULES: LazyLock<Vec<FlowRule>> = LazyLock::new(|| {
    let of_flows = |(rule, _): &(&'static Rule, &str)| match rule.check {
        Check::Flow(check) => Some(FlowRule { needs: rule.needs, check, rule }),
        _ => None,
    };
    RULES.iter().filter_map(of_flows).collect()
});

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

/// What a finding is printed with whose rule this build does not know (a merged result of another version).
pub static UNKNOWN: Rule = Rule { id: "unknown", title: "a rule of another version", ..Rule::BLANK };

/// A rule's source without its page: the check itself, for sceptics.
pub fn code(id: &str) -> Option<String> {
    let (_, source) = RULES.iter().find(|(rule, _)| rule.id == id)?;
    let lines = source.lines().skip_while(|line| line.starts_with("//!"));
    let code: Vec<&str> = lines.take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
    Some(code.join("\n").trim().to_owned())
}

/// Rules whose users-see text holds the words, with that text; upper and lower case are alike.
pub fn search(words: &str) -> impl Iterator<Item = (&'static Rule, &'static str)> {
    let words = words.to_lowercase();
    RULES.iter().filter_map(move |(rule, _)| {
        let of_variants = rule.words_of.iter().flat_map(|(_, words)| words.users_see);
        let mut all = rule.users_see.iter().chain(of_variants);
        let text = all.find(|text| text.to_lowercase().contains(&words))?;
        Some((*rule, *text))
    })
}
