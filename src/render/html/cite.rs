//! Packets that a sentence names, `#14` or `2#14`, as buttons that copy the display filter for them.

use crate::wire::harmless::{Sink, harmless};

/// The sentence as HTML.
pub(super) fn cited(text: &str) -> String {
    let visible = harmless(text, Sink::Terminal);
    let mut html = String::with_capacity(visible.len() + 64);
    let mut rest: &str = &visible;
    while let Some((before, packet, number, behind)) = next(rest) {
        html.push_str(&harmless(before, Sink::HtmlLine));
        html.push_str(&format!(
            r#"<button type="button" class="cite" data-copy="frame.number == {number}" title="copy the display filter: frame.number == {number}">{packet}</button>"#
        ));
        rest = behind;
    }
    html.push_str(&harmless(rest, Sink::HtmlLine));
    html
}

/// What stands before the next packet, the packet, its number, and what stands behind it.
fn next(text: &str) -> Option<(&str, &str, &str, &str)> {
    for (at, _) in text.match_indices('#') {
        let (before, behind) = (text.get(..at)?, text.get(at + 1..)?);
        let number = behind.get(..behind.bytes().take_while(u8::is_ascii_digit).count())?;
        let file = before.bytes().rev().take_while(u8::is_ascii_digit).count();
        let start = at - file;
        let apart = text.get(..start)?.chars().next_back().is_none_or(|c| c == ' ' || c == '(' || c == '–');
        let rest = behind.get(number.len()..)?;
        let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '#' || c == '\\');
        if !number.is_empty() && number.len() < 19 && file < 6 && apart && ends {
            return Some((text.get(..start)?, text.get(start..at + 1 + number.len())?, number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_sentence_can_be_copied() {
        let html = cited("closed (#427, 14 times), then 2#9.");
        assert!(html.starts_with("closed (<button"), "{html}");
        assert!(html.contains(r#"data-copy="frame.number == 427""#), "{html}");
        assert!(html.contains(">#427</button>, 14 times), then <button"), "{html}");
        assert!(html.ends_with(">2#9</button>."), "{html}");
    }

    #[test]
    fn what_is_no_packet_stays_text_and_markup_is_harmless() {
        assert_eq!(cited("C#4 a#b # \"<#x>\" &#39;"), "C#4 a#b # &quot;&lt;#x&gt;&quot; &amp;#39;");
        assert!(!cited("<script>#1</script>").contains("<script"));
    }
}
