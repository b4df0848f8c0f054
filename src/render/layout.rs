//! Lines of a terminal: wrapping with a hanging label, two columns, colour, and nothing harmful from packets.

use crate::wire::harmless::{Sink, harmless};

/// How text is to look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns.
    pub width: usize,
    /// ANSI colours.
    pub color: bool,
    /// Silent findings and all details.
    pub verbose: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 100, color: false, verbose: false }
    }
}

/// Width of the label column.
pub(super) const LABEL: usize = 10;

/// Collects lines.
#[derive(Debug)]
pub(super) struct Page {
    pub style: Style,
    lines: Vec<String>,
}

/// What a label means, for its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Bad,
    Warn,
    Good,
}

impl Page {
    pub(super) fn new(style: Style) -> Self {
        Self { style, lines: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn blank(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
    }

    /// A label and text wrapped beside it, at most `most` lines.
    pub(super) fn labelled(&mut self, label: &str, text: &str, tone: Tone, most: usize) {
        let lines = wrap(&clean(text), self.style.width.saturating_sub(LABEL));
        for (i, line) in shortened(lines, most).into_iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            let padded = format!("{label:<LABEL$}");
            let full = format!("{}{line}", self.toned(&padded, tone));
            self.lines.push(full.trim_end().to_owned());
        }
    }

    /// As many of `items`, joined by `between`, as fit whole into `most` lines beside a label.
    pub(super) fn fitting(&mut self, label: &str, items: &[String], between: &str, most: usize) {
        let width = self.style.width.saturating_sub(LABEL);
        let mut text = String::new();
        for item in items {
            let longer = if text.is_empty() { clean(item) } else { format!("{text}{between}{}", clean(item)) };
            if !text.is_empty() && wrap(&longer, width).len() > most {
                continue;
            }
            text = longer;
        }
        if !text.is_empty() {
            self.labelled(label, &text, Tone::Plain, most.max(2));
        }
    }

    /// What is pasted, one item on a line, each whole.
    pub(super) fn whole(&mut self, label: &str, items: &[String]) {
        for (i, item) in items.iter().enumerate() {
            let label = self.toned(&format!("{:<LABEL$}", if i == 0 { label } else { "" }), Tone::Plain);
            self.lines.push(format!("{label}{}", harmless(item, Sink::Line)));
        }
    }

    /// A name that may be pasted and text about it. The name stays whole; where both do not fit, the text begins on the next line.
    pub(super) fn named(&mut self, label: &str, name: &str, text: &str, most: usize) {
        let width = self.style.width.saturating_sub(LABEL);
        let name = harmless(name, Sink::Line);
        if wrap(&format!("{name} {}", clean(text)), width).iter().any(|line| line.contains(name.as_ref())) {
            self.labelled(label, &format!("{name} {text}"), Tone::Plain, most);
        } else {
            self.whole(label, &[name.into_owned()]);
            self.labelled("", text, Tone::Plain, most);
        }
    }

    /// A command, alone on its lines: one too long is continued as a shell continues it, so that it can be pasted as it stands.
    pub(super) fn command(&mut self, command: &str) {
        for (i, line) in self.continued(command, 2).into_iter().enumerate() {
            self.lines.push(format!("{}{line}", if i == 0 { "  " } else { "    " }));
        }
    }

    /// Commands beside a label, continued in the same way.
    pub(super) fn commands(&mut self, label: &str, commands: &[String]) {
        for (i, command) in commands.iter().enumerate() {
            let label = self.toned(&format!("{:<LABEL$}", if i == 0 { label } else { "" }), Tone::Plain);
            for (i, line) in self.continued(command, LABEL).into_iter().enumerate() {
                self.lines.push(if i == 0 { format!("{label}{line}") } else { format!("{:LABEL$}  {line}", "") });
            }
        }
    }

    /// A command in lines that stand `indent` columns from the left, all but the first two more.
    fn continued(&self, command: &str, indent: usize) -> Vec<String> {
        if command.is_empty() {
            return Vec::new();
        }
        continued(&harmless(command, Sink::Line), self.style.width.saturating_sub(indent))
    }

    /// A packet number and text in its column, at most `most` lines.
    pub(super) fn packet(&mut self, number: &str, text: &str, column: Column, most: usize) {
        let label = format!("   {number:<6} ");
        let (indent, width) = self.column(column);
        for (i, line) in shortened(wrap(&clean(text), width), most).into_iter().enumerate() {
            let label = if i == 0 { label.clone() } else { " ".repeat(label.chars().count()) };
            self.lines.push(format!("{label}{}{line}", " ".repeat(indent)).trim_end().to_owned());
        }
    }

    /// Lines such a packet takes when nothing is shortened.
    pub(super) fn packet_lines(&self, text: &str, column: Column) -> usize {
        wrap(&clean(text), self.column(column).1).len()
    }

    /// Indent and width of a column.
    fn column(&self, column: Column) -> (usize, usize) {
        let space = self.style.width.saturating_sub(LABEL);
        let left = (space * 2 / 5).max(20);
        match column {
            Column::Whole => (0, space),
            Column::Left => (0, left.saturating_sub(1)),
            Column::Right => (left, space.saturating_sub(left)),
        }
    }

    /// Two column heads beside a label.
    pub(super) fn heads(&mut self, label: &str, left: &str, right: &str) {
        let (half, _) = self.column(Column::Right);
        let padded = self.toned(&format!("{label:<LABEL$}"), Tone::Plain);
        self.lines.push(format!("{padded}{:<half$}{}", clean(left), clean(right)).trim_end().to_owned());
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) {
        self.lines.push(clean(text));
    }

    /// All lines of another page.
    pub(super) fn append(&mut self, other: Page) {
        self.lines.extend(other.lines);
    }

    /// Lines that are already harmless (a table).
    pub(super) fn table(&mut self, text: &str) {
        self.lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
    }

    fn toned(&self, text: &str, tone: Tone) -> String {
        if !self.style.color || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Plain => "1",
            Tone::Bad => "1;31",
            Tone::Warn => "1;33",
            Tone::Good => "1;32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(super) fn finish(mut self) -> String {
        while self.lines.last().is_some_and(String::is_empty) {
            self.lines.pop();
        }
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }
}

/// Where a packet's text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Whole,
    Left,
    Right,
}

/// Text for a terminal.
pub(super) fn clean(text: &str) -> String {
    harmless(text, Sink::Terminal).into_owned()
}

/// A command in lines of at most `width` characters, all but the first of two less: broken between words outside quotes. A word longer than
/// a line stays whole.
pub(super) fn continued(command: &str, width: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut quote, mut escaped, mut open) = (None, false, false);
    for c in command.chars() {
        if c == ' ' && quote.is_none() && !escaped {
            open = false;
            continue;
        }
        match words.last_mut().filter(|_| open) {
            Some(word) => word.push(c),
            None => words.push(c.into()),
        }
        open = true;
        match quote {
            _ if escaped => escaped = false,
            Some('\'') if c != '\'' => {}
            _ if c == '\\' => escaped = true,
            Some(mark) if mark == c => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
    }
    if command.chars().count() <= width {
        return vec![command.to_owned()];
    }
    // Two columns of indentation, and the continuation's own two characters.
    let mut lines = filled(words.iter().map(String::as_str), |_| width.saturating_sub(4));
    let last = lines.len().saturating_sub(1);
    lines.iter_mut().take(last).for_each(|line| line.push_str(" \\"));
    lines
}

/// A word that no line holds begins on the line before, where at least so many characters of it find room.
const BEGINS: usize = 16;

/// Words in lines of at most `width` characters; a longer word is broken.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let (mut pieces, mut used) = (Vec::new(), 0);
    for word in text.split(' ') {
        let mut rest = word;
        loop {
            let (len, room) = (rest.chars().count(), if used == 0 { width } else { width.saturating_sub(used + 1) });
            if len <= width {
                used = if used > 0 && len <= room { used + 1 + len } else { len };
                pieces.push(rest);
                break;
            }
            let taken = if room >= BEGINS.min(width) { room } else { width };
            let at = rest.char_indices().nth(taken).map_or(rest.len(), |(at, _)| at);
            pieces.push(&rest[..at]);
            (rest, used) = (&rest[at..], width);
        }
    }
    filled(pieces.into_iter(), |_| width)
}

/// Words in lines, each of at most the characters there is room for on it (lines count from 0). A word longer than a line stays whole.
pub(super) fn filled<'a>(words: impl Iterator<Item = &'a str>, room: impl Fn(usize) -> usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in words {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > room(lines.len()) {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += len;
    }
    lines.push(line);
    lines
}

/// Octets of a word that are given up so that a shortened text ends with a whole one.
const LOST: usize = 48;

/// At most `most` lines; the last one says that there is more.
pub(super) fn shortened(mut lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            match last.rfind(' ') {
                Some(space) if last.len() - space <= LOST => {
                    last.truncate(space);
                    last.push_str(" …");
                }
                _ => {
                    last.pop();
                    last.push('…');
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_continued_between_words_outside_quotes() {
        assert_eq!(continued("ls -l", 18), ["ls -l"]);
        assert_eq!(continued("echo 'a  b c' \"d e\" | wc -c", 18), ["echo 'a  b c' \\", "\"d e\" | wc -c"]);
        assert_eq!(continued("printf 'it is a long one' >x", 14), ["printf \\", "'it is a long one' \\", ">x"]);
    }

    #[test]
    fn words_wrap_and_long_ones_break() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghijkl m", 8), ["abcdefgh", "ijkl m"]);
        let lines = wrap("GET /0123456789abcdefghijklmnopqrstuvwxyz HTTP", 24);
        assert_eq!(lines, ["GET /0123456789abcdefghi", "jklmnopqrstuvwxyz HTTP"]);
        assert_eq!(wrap("twelve chars", 13).len(), 1);
        assert_eq!(wrap("no room left for /0123456789abcdefghijklmnopq", 24)[0], "no room left for");
        assert_eq!(shortened(lines, 1), ["GET …"]);
        let url = format!("GET /{}", "a".repeat(66));
        assert_eq!(shortened(vec![url.clone(), "a".into()], 1), [format!("{}…", &url[..70])]);
        assert_eq!(shortened(vec!["one two three".into(), "four".into()], 1), ["one two …"]);
    }

    #[test]
    fn a_packet_number_of_millions_stands_apart_from_its_text() {
        let mut page = Page::new(Style::default());
        page.packet("#12", "a SYN", Column::Whole, 1);
        page.packet("#1812393", "the last", Column::Whole, 1);
        assert_eq!(page.finish(), "   #12    a SYN\n   #1812393 the last\n");
    }

    #[test]
    fn a_command_is_never_cut() {
        let mut page = Page::new(Style::default());
        let long = format!("tcpdump 'host {}'", "2001:db8::1 or host ".repeat(60));
        page.command(&long);
        page.commands("MORE", std::slice::from_ref(&long));
        let text = page.finish();
        // What a shell reads of the continued one is the command, to the letter.
        let joined = text.replace(&format!(" \\\n  {:LABEL$}", ""), " ").replace(" \\\n    ", " ");
        assert_eq!(joined.lines().count(), 2);
        assert!(joined.lines().all(|line| line.ends_with(&long)), "{text}");
    }

    #[test]
    fn a_name_longer_than_a_line_stays_whole() {
        let mut page = Page::new(Style { width: 60, ..Style::default() });
        page.named("READ", &"x".repeat(70), "and 3 packets", 3);
        page.named("READ", "a b.pcap", "and 3 packets", 3);
        assert_eq!(
            page.finish(),
            format!("READ      {}\n          and 3 packets\nREAD      a b.pcap and 3 packets\n", "x".repeat(70))
        );
    }
}
