//! What a ticket's text is made of, before it is written in the markup of some tracker. All texts are raw here.

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
        (!command.is_empty()).then(|| Self::Code(vec![command.to_owned()]))
    }
}

/// A line that begins with a word in bold.
pub(super) fn labelled(label: &str, text: impl Into<String>) -> Vec<Inline> {
    vec![Inline::Strong(label.to_owned()), Inline::Text(format!(" {}", text.into()))]
}

/// A line of plain text.
pub(super) fn plain(text: impl Into<String>) -> Vec<Inline> {
    vec![Inline::Text(text.into())]
}

/// Half a sentence as a whole one: with a capital where it begins with a word, and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let text = text.trim();
    let word = text.split([' ', ',']).next().unwrap_or("");
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '\'');
    let mut whole = match text.chars().next() {
        Some(first) if is_word => format!("{}{}", first.to_ascii_uppercase(), &text[1..]),
        _ => text.to_owned(),
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
        assert_eq!(sentence("é"), "é.");
        assert_eq!(sentence(""), "");
    }
}
