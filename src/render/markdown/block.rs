//! What a ticket's text is made of, before it is written in the markup of some tracker. All texts are raw here.

use crate::render::layout::continued;
use crate::wire::harmless::{Sink, harmless};

/// Columns of a block of code that is read without scrolling.
pub(super) const WIDTH: usize = 100;

/// A piece that stands alone: no flavour ever cuts inside one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    /// A heading of a level, 2 or 3.
    Head(u8, String),
    /// A paragraph.
    Text(Vec<Inline>),
    /// A list.
    Bullets(Vec<Vec<Inline>>),
    /// Every row has as many cells as there are heads.
    Table { heads: Vec<&'static str>, rows: Vec<Vec<Inline>> },
    /// Lines as they are: a command, a drawing.
    Code(Vec<String>),
    /// Folded away where the tracker can. The title is ours.
    Fold { title: String, blocks: Vec<Block> },
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Inline {
    Text(String),
    Strong(String),
    Code(String),
}

impl Block {
    /// A paragraph of plain text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(vec![Inline::Text(text.into())])
    }

    /// A paragraph that begins with a word in bold.
    pub(super) fn labelled(label: &str, text: impl Into<String>) -> Self {
        Self::Text(labelled(label, text))
    }

    /// A command on lines of its own; nothing where there is none.
    pub(super) fn command(command: &str) -> Option<Self> {
        let lines = continued(&harmless(command, Sink::Line), WIDTH);
        let line = |(n, line): (usize, String)| if n == 0 { line } else { format!("  {line}") };
        (!command.is_empty()).then(|| Self::Code((0..).zip(lines).map(line).collect()))
    }
}

/// A line that begins with a word in bold.
pub(super) fn labelled(label: &str, text: impl Into<String>) -> Vec<Inline> {
    [Inline::Strong(label.to_owned()), Inline::Text(" ".into())].into_iter().chain(marked(&text.into())).collect()
}

/// A rule's words, in which backticks make code.
fn marked(text: &str) -> Vec<Inline> {
    let pieces: Vec<&str> = text.split('`').collect();
    if pieces.len().is_multiple_of(2) || pieces.iter().skip(1).step_by(2).any(|code| code.trim().is_empty()) {
        return plain(text);
    }
    let piece = |(n, piece): (usize, &&str)| match n % 2 {
        0 => Inline::Text((*piece).to_owned()),
        _ => Inline::Code((*piece).to_owned()),
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// Sentences behind each other. One text would be cut where it is long, as something from a packet is.
pub(super) fn sentences<'s>(texts: impl IntoIterator<Item = &'s str>) -> Vec<Inline> {
    texts.into_iter().flat_map(|text| [Inline::Text(sentence(text)), Inline::Text(" ".into())]).collect()
}

/// A line of plain text.
pub(super) fn plain(text: impl Into<String>) -> Vec<Inline> {
    vec![Inline::Text(text.into())]
}

/// Half a sentence as a whole one: with a capital where it begins with a word, and a full stop.
pub(super) fn sentence(text: &str) -> String {
    // The text report has a section of that name.
    let text = text.trim().replace("(see CHECK)", "(see What to do)");
    let word = text.split([' ', ',', ':']).next().unwrap_or("");
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '\'');
    let mut whole = match text.chars().next() {
        Some(first) if is_word => format!("{}{}", first.to_ascii_uppercase(), &text[1..]),
        _ => text,
    };
    if !whole.is_empty() && !whole.ends_with(['.', '?', '!', ':', '…']) {
        whole.push('.');
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_sentence_becomes_a_whole_one_and_names_stay_as_they_are() {
        assert_eq!(sentence("the server's answer is late"), "The server's answer is late.");
        assert_eq!(sentence("backend.example.com is gone"), "backend.example.com is gone.");
        assert_eq!(sentence("10.0.0.5:443 closes."), "10.0.0.5:443 closes.");
        assert_eq!(sentence("works: it prints OK:"), "Works: it prints OK:");
        assert_eq!(sentence("é"), "é.");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn backticks_of_a_rule_make_code_and_a_lone_one_does_not() {
        let code = |text: &str| Inline::Code(text.into());
        let text = |text: &str| Inline::Text(text.into());
        assert_eq!(marked("set `a b` here"), [text("set "), code("a b"), text(" here")]);
        assert_eq!(marked("a ` b"), [text("a ` b")]);
        assert_eq!(marked("a `` b"), [text("a `` b")]);
    }
}
