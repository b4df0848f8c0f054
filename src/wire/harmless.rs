//! Makes text from packets harmless for the place where it will be shown. Whoever made the packets chose the octets: a server's banner may
//! hold escape sequences for the terminal, markup for the ticket, a formula for the spreadsheet, a command for the shell.
//!
//! The one place for this: no other code writes text from packets to an output. JSON keeps every character, escaped by `render::json` where
//! [`is_hidden`] says so.

use std::borrow::Cow;
use std::fmt::Write;

/// Where a text will be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A terminal or a plain text file.
    Terminal,
    /// Running text or a table cell of Markdown, as GitHub and GitLab read it.
    Markdown,
    /// Text or a quoted attribute of HTML or SVG.
    Html,
    /// One field of a CSV file, which a spreadsheet will open; quoted when it must be.
    Csv,
    /// One word of a command for sh, to be pasted.
    Shell,
    /// A whole line for a terminal, such as a command, or of a fenced block of Markdown: as `Terminal`, but never cut. The fence has to be
    /// longer than any run of backticks in the block.
    Line,
    /// Running text or a table cell of Jira's wiki markup.
    Jira,
    /// A whole line of a `{noformat}` block of Jira, never cut.
    JiraBlock,
    /// A whole line of HTML, such as a command: as `Html`, but never cut.
    HtmlLine,
}

/// Characters shown before the text is cut and an ellipsis added; a word for the shell and a whole line are never cut.
const LONGEST: usize = 512;

/// What splits a word for software that looks for links and names, and is not seen by people: an entity for U+2060, at which no line breaks.
const SPLIT: &str = "&#8288;";

/// `text` made harmless for `sink`, in one line of at most 512 characters before escaping.
///
/// Control characters, marks that change the direction of writing and characters without width become visible: `\x1b`, `\n`, `\u{202e}`.
/// For [`Sink::Shell`] the result is one word of sh; a word that begins with `-` stays an option to the command, which is for the caller
/// to prevent.
pub fn harmless(text: &str, sink: Sink) -> Cow<'_, str> {
    match visible(text.chars().map(Ok), text, sink) {
        Cow::Borrowed(text) => escape(text, sink),
        Cow::Owned(text) => Cow::Owned(escape(&text, sink).into_owned()),
    }
}

/// As [`harmless`], for octets that may be no UTF-8: each octet that is none becomes visible as `\xff`.
pub fn harmless_octets(bytes: &[u8], sink: Sink) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return harmless(text, sink);
    }
    let characters = bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().copied().map(Err)));
    Cow::Owned(escape(&visible(characters, "", sink), sink).into_owned())
}

/// Writes out what cannot be seen and cuts what is too long; `whole` itself when it needs neither. `Err` is an octet that is no UTF-8.
fn visible<'a>(characters: impl Iterator<Item = Result<char, u8>>, whole: &'a str, sink: Sink) -> Cow<'a, str> {
    // Characters are at most as many as octets.
    let cut = !matches!(sink, Sink::Shell | Sink::Line | Sink::JiraBlock | Sink::HtmlLine);
    let fits = !cut || whole.len() <= LONGEST;
    if !whole.is_empty() && fits && !whole.chars().any(is_hidden) {
        return Cow::Borrowed(whole);
    }
    let mut shown = String::new();
    for (count, character) in characters.enumerate() {
        if cut && count == LONGEST {
            shown.push('…');
            break;
        }
        let _ = match character {
            Ok('\n') => shown.write_str("\\n"),
            Ok('\r') => shown.write_str("\\r"),
            Ok('\t') => shown.write_str("\\t"),
            Ok(hidden) if is_hidden(hidden) && (hidden as u32) < 0x100 => write!(shown, "\\x{:02x}", hidden as u32),
            Ok(hidden) if is_hidden(hidden) => write!(shown, "\\u{{{:x}}}", hidden as u32),
            Ok(plain) => shown.write_char(plain),
            Err(octet) => write!(shown, "\\x{octet:02x}"),
        };
    }
    Cow::Owned(shown)
}

/// Whether a character acts on what shows it, or cannot be seen.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Takes away the meaning that characters have to the sink itself.
fn escape(text: &str, sink: Sink) -> Cow<'_, str> {
    match sink {
        Sink::Terminal | Sink::Line => Cow::Borrowed(text),
        Sink::Markdown => markdown(text),
        Sink::Html | Sink::HtmlLine => html(text),
        Sink::Csv => csv(text),
        Sink::Shell => shell(text),
        Sink::Jira => jira(text),
        Sink::JiraBlock => jira_block(text),
    }
}

/// Backslashes before markup; words that become links, pictures or notify people are split, because for these a backslash changes nothing.
fn markdown(text: &str) -> Cow<'_, str> {
    let leading = leads(text);
    let mut escaped = String::with_capacity(text.len() + 16);
    for (at, character) in text.char_indices() {
        let (before, behind) = (text.get(..at).unwrap_or(""), text.get(at + character.len_utf8()..).unwrap_or(""));
        let digit = behind.starts_with(|next: char| next.is_ascii_digit());
        let name = behind.starts_with(|next: char| next.is_alphanumeric() || next == '"');
        let marks = match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '$' => true,
            '#' | '!' => digit,
            _ => false,
        };
        // What refers to something: an issue, a merge request, an epic, a snippet, a label, a milestone, a person, a page, a picture.
        let refers = match character {
            '#' | '!' | '&' | '$' => digit,
            '~' | '%' => name,
            '-' => digit && ends_with(before, "gh"),
            '@' => true,
            ':' => behind.starts_with("//") || is_picture(behind),
            _ => false,
        };
        if marks || leading == Some(at) {
            escaped.push('\\');
        }
        if character == '.' && ends_with(before, "www") {
            escaped.push_str(SPLIT);
        }
        escaped.push(character);
        escaped.push_str(if refers { SPLIT } else { "" });
    }
    whole_or(text, escaped)
}

/// `text` itself where escaping, which only adds, added nothing.
fn whole_or(text: &str, escaped: String) -> Cow<'_, str> {
    if escaped.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(escaped) }
}

/// The character that makes more than text of a line it begins: a list, a heading, a rule, a command to GitLab (`/close`).
fn leads(text: &str) -> Option<usize> {
    if text.starts_with(['-', '+', '=', '#', '/', '!']) {
        return Some(0);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let list = digits > 0 && text.get(digits..).is_some_and(|rest| rest.starts_with(['.', ')']));
    let ends = text.get(digits + 1..).is_none_or(|rest| rest.is_empty() || rest.starts_with(' '));
    (list && ends).then_some(digits)
}

fn ends_with(text: &str, word: &str) -> bool {
    let begin = text.len().saturating_sub(word.len());
    text.get(begin..).is_some_and(|end| end.eq_ignore_ascii_case(word))
}

/// Whether what stands behind a colon makes it a picture: `:smile:`. Of IPv6 addresses only groups that are names of one: in `db8:b::2`
/// GitHub sees one.
fn is_picture(behind: &str) -> bool {
    const OF_DIGITS: [&str; 10] = ["a", "b", "ab", "abc", "abcd", "100", "1234", "de", "bee", "bed"];
    let Some((name, _)) = behind.split_once(':') else { return false };
    let address = name.bytes().all(|octet| octet.is_ascii_hexdigit());
    let word = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_+-".contains(&octet));
    !name.is_empty() && word && (!address || OF_DIGITS.contains(&name))
}

/// What Jira makes pictures of in parentheses.
const FACES: [&str; 17] =
    ["y", "n", "i", "/", "x", "!", "+", "-", "?", "on", "off", "*", "*r", "*g", "*b", "*y", "flag"];

/// Backslashes before what the wiki markup gives a meaning; entities where a backslash has one itself or does not help.
fn jira(text: &str) -> Cow<'_, str> {
    let heading = matches!(text.as_bytes(), [b'h', b'1'..=b'6', b'.', ..] | [b'b', b'q', b'.', ..]);
    let mut escaped = String::with_capacity(text.len() + 16);
    for (at, character) in text.char_indices() {
        let (before, behind) = (text.get(..at).unwrap_or(""), text.get(at + character.len_utf8()..).unwrap_or(""));
        let inside = before.ends_with(char::is_alphanumeric) && behind.starts_with(char::is_alphanumeric);
        let as_number = match character {
            '\\' => true,
            '&' => behind.starts_with(|next: char| next == '#' || next.is_alphanumeric()),
            // A heading, a quotation, a list.
            'h' | 'b' => at == 0 && heading,
            '#' => at == 0,
            // A link; a face.
            '/' => before.ends_with(':') && behind.starts_with('/'),
            ':' | ';' => behind.starts_with(['D', 'P', ')', '(']),
            _ => false,
        };
        let marked = match character {
            '*' | '^' | '~' | '{' | '}' | '[' | ']' | '|' | '!' | '@' => true,
            '-' | '_' | '+' => !inside,
            '?' => before.ends_with('?') || behind.starts_with('?'),
            '(' => behind.split_once(')').is_some_and(|(name, _)| FACES.contains(&name)),
            _ => false,
        };
        if as_number {
            let _ = write!(escaped, "&#{};", character as u32);
            continue;
        }
        if marked {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    whole_or(text, escaped)
}

/// The block ends at the next `{noformat}`, whatever stands before it: only a space can prevent that.
fn jira_block(text: &str) -> Cow<'_, str> {
    const END: &str = "{noformat";
    let mut escaped = String::with_capacity(text.len() + 8);
    for (at, character) in text.char_indices() {
        escaped.push(character);
        let begins = text.get(at..at + END.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(END));
        escaped.extend(begins.then_some(' '));
    }
    whole_or(text, escaped)
}

fn html(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            plain => escaped.push(plain),
        }
    }
    Cow::Owned(escaped)
}

/// A spreadsheet takes a field that begins like a formula for one; an apostrophe before it makes it text.
fn csv(text: &str) -> Cow<'_, str> {
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    let quoted = text.contains([',', ';', '"', ' ']);
    if !formula && !quoted {
        return Cow::Borrowed(text);
    }
    let mark = if formula { "'" } else { "" };
    if quoted {
        Cow::Owned(format!("\"{mark}{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Owned(format!("{mark}{text}"))
    }
}

fn shell(text: &str) -> Cow<'_, str> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._:/@%+=-".contains(&octet);
    // zsh replaces a leading = by the path of a command.
    if !text.is_empty() && !text.starts_with('=') && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SINKS: [Sink; 9] = [
        Sink::Terminal,
        Sink::Markdown,
        Sink::Html,
        Sink::Csv,
        Sink::Shell,
        Sink::Line,
        Sink::Jira,
        Sink::JiraBlock,
        Sink::HtmlLine,
    ];

    #[test]
    fn plain_text_is_left_alone_and_not_copied() {
        for sink in SINKS {
            assert!(matches!(harmless("nginx/1-22", sink), Cow::Borrowed("nginx/1-22")), "{sink:?}");
        }
        assert_eq!(harmless("Grüße, 世界 🙂", Sink::Terminal), "Grüße, 世界 🙂");
        assert_eq!(harmless("", Sink::Terminal), "");
    }

    #[test]
    fn escape_sequences_and_control_characters_become_visible() {
        for (text, shown) in [
            ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
            ("\x1b[2J", r"\x1b[2J"),
            ("a\r\nb\tc\0\x7f", r"a\r\nb\tc\x00\x7f"),
            ("\u{9b}31m", r"\x9b31m"),
        ] {
            assert_eq!(harmless(text, Sink::Terminal), shown);
        }
    }

    #[test]
    fn marks_of_direction_and_characters_without_width_become_visible() {
        assert_eq!(harmless("a\u{202e}fdp.exe", Sink::Terminal), r"a\u{202e}fdp.exe");
        assert_eq!(harmless("x\u{200b}\u{2066}\u{feff}\u{ad}", Sink::Terminal), r"x\u{200b}\u{2066}\u{feff}\xad");
        assert_eq!(harmless("\u{e0041}\u{2028}", Sink::Line), r"\u{e0041}\u{2028}");
    }

    #[test]
    fn octets_that_are_no_text_become_visible() {
        assert_eq!(harmless_octets(b"ok\xff\xfe\xc3\x28\x1b", Sink::Terminal), r"ok\xff\xfe\xc3(\x1b");
        assert_eq!(harmless_octets("é".as_bytes(), Sink::Terminal), "é");
        assert_eq!(harmless_octets(b"\xff'", Sink::Shell), r"'\xff'\'''");
    }

    #[test]
    fn markdown_shows_what_was_sent() {
        for (text, shown) in [
            ("a|b", r"a\|b"),
            ("<img src=x>", r"\<img src=x\>"),
            ("**x** `y` [l](u)", r"\*\*x\*\* \`y\` \[l\](u)"),
            ("# h", r"\# h"),
            ("a ![i]", r"a !\[i\]"),
            ("a\\b", r"a\\b"),
            ("a\nb", r"a\\nb"),
            ("- item", r"\- item"),
            ("&lt;", r"\&lt;"),
            ("hi @all", "hi @&#8288;all"),
            ("see #12 !3", r"see \#&#8288;12 \!&#8288;3"),
            ("http://evil.example", "http:&#8288;//evil.example"),
            ("WWW.evil.example", "WWW&#8288;.evil.example"),
            ("10.0.0.5:443", "10.0.0.5:443"),
            ("/close", r"\/close"),
            ("12. item", r"12\. item"),
            ("12.5 ms (at most)", "12.5 ms (at most)"),
            ("a %b ~c 50 %", r"a %&#8288;b \~&#8288;c 50 %"),
            ("a $1 &2", r"a \$&#8288;1 \&&#8288;2"),
            ("GH-12 SHA-256", "GH-&#8288;12 SHA-256"),
            (":tada: 10:04:12", ":&#8288;tada: 10:04:12"),
            ("2001:db8:b::2, 2001:db8::2", "2001:db8:&#8288;b::2, 2001:db8::2"),
        ] {
            assert_eq!(harmless(text, Sink::Markdown), shown);
        }
    }

    #[test]
    fn jira_shows_what_was_sent() {
        for (text, shown) in [
            ("a|b ||c", r"a\|b \|\|c"),
            ("{code}x{code}", r"\{code\}x\{code\}"),
            ("[~admin] [l|http://evil]", r"\[\~admin\] \[l\|http:&#47;/evil\]"),
            ("h1. x", "&#104;1. x"),
            ("# x - y", r"&#35; x \- y"),
            ("proxy-header a_b SYN+ACK", "proxy-header a_b SYN+ACK"),
            (r"\r\n", "&#92;r&#92;n"),
            ("&amp; & b", "&#38;amp; & b"),
            ("!x.png! *b*", r"\!x.png\! \*b\*"),
            ("(!) (certain) :) :D", r"\(\!) (certain) &#58;) &#58;D"),
            ("a\nb", "a&#92;nb"),
        ] {
            assert_eq!(harmless(text, Sink::Jira), shown);
        }
        assert_eq!(harmless("a{NoFormat}b", Sink::JiraBlock), "a{ NoFormat}b");
        assert_eq!(harmless("a {b} \\", Sink::JiraBlock), "a {b} \\");
    }

    #[test]
    fn html_shows_what_was_sent() {
        assert_eq!(harmless("<a href=\"x\" b='y'>&", Sink::Html), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
        assert_eq!(harmless("<\x1b", Sink::Html), r"&lt;\x1b");
    }

    #[test]
    fn no_field_of_a_spreadsheet_is_a_formula() {
        for (text, shown) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-2", "'-2"),
            ("@SUM", "'@SUM"),
            ("  =x", "\"'  =x\""),
            ("=HYPERLINK(\"u\",\"t\")", "\"'=HYPERLINK(\"\"u\"\",\"\"t\"\")\""),
            ("a,b", "\"a,b\""),
            ("\t=x", "\\t=x"),
        ] {
            assert_eq!(harmless(text, Sink::Csv), shown);
        }
    }

    #[test]
    fn a_word_for_the_shell_stays_one_word() {
        for (text, shown) in [
            ("app.example:443", "app.example:443"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("x'; reboot; '", r"'x'\''; reboot; '\'''"),
            ("a\nreboot", r"'a\nreboot'"),
            ("=ls", "'=ls'"),
            ("~root", "'~root'"),
            ("*", "'*'"),
        ] {
            assert_eq!(harmless(text, Sink::Shell), shown);
        }
    }

    #[test]
    fn long_text_is_cut_except_for_what_is_pasted() {
        let long = "é".repeat(600);
        assert_eq!(harmless(&long, Sink::Terminal).chars().count(), 513);
        assert!(harmless(&long, Sink::Html).ends_with('…'));
        assert_eq!(harmless(&"x".repeat(600), Sink::Shell).len(), 600);
        assert_eq!(harmless(&"x".repeat(600), Sink::Line).len(), 600);
        assert_eq!(harmless(&"<".repeat(600), Sink::HtmlLine).len(), 600 * "&lt;".len());
        assert_eq!(harmless(&"é".repeat(512), Sink::Terminal).chars().count(), 512);
        assert_eq!(harmless_octets(&[0xff; 600], Sink::Terminal).len(), 512 * 4 + "…".len());
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(bytes: Vec<u8>, text: String) {
            for sink in SINKS {
                for shown in [harmless_octets(&bytes, sink), harmless(&text, sink)] {
                    prop_assert!(!shown.chars().any(is_hidden), "{sink:?} {shown:?}");
                }
            }
        }

        #[test]
        fn a_quoted_word_ends_only_at_its_end(text in "[a'\\\\ $`\"\n]{0,20}") {
            let word = harmless(&text, Sink::Shell).into_owned();
            let unquoted = word.replace("'\\''", "");
            let bare = unquoted.bytes().all(|octet| octet == b'a') && !unquoted.is_empty();
            let inner = unquoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            prop_assert!(bare || inner.is_some_and(|inner| !inner.contains('\'')), "{word}");
        }
    }
}
