//! Writes SVG. Every text goes through one door; there are no `style` attributes, which the page's policy would forbid.

use std::fmt::Write;

use crate::wire::harmless::{Sink, harmless};

/// One drawing.
pub(super) struct Svg {
    out: String,
}

/// Which end of a text stands at its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// What a screen reader says of a drawing.
pub(super) struct About<'a> {
    /// Unique in the page.
    pub id: &'a str,
    pub title: &'a str,
    pub description: &'a str,
}

/// A number with one decimal at most.
fn short(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl Svg {
    /// Begins a drawing of this size in pixels.
    pub fn begin(about: &About<'_>, class: &str, width: f64, height: f64) -> Self {
        let (width, height) = (short(width), short(height));
        let mut svg = Self { out: String::new() };
        let id = about.id;
        let _ = write!(
            svg.out,
            r#"<svg class="{class}" role="img" aria-labelledby="{id}-t {id}-d" viewBox="0 0 {width} {height}" width="{width}" height="{height}"><title id="{id}-t">{}</title><desc id="{id}-d">{}</desc>"#,
            harmless(about.title, Sink::Html),
            harmless(about.description, Sink::Html)
        );
        svg
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(short);
        let _ = write!(self.out, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        let [x, y, width, height] = [at.0, at.1, size.0, size.1].map(short);
        let _ = write!(self.out, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="3"/>"#);
    }

    pub fn circle(&mut self, class: &str, at: (f64, f64), radius: f64) {
        let [x, y, radius] = [at.0, at.1, radius].map(short);
        let _ = write!(self.out, r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/>"#);
    }

    /// A line through points; closed ones are an area.
    pub fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let _ = write!(self.out, r#"<path class="{class}" d=""#);
        for (n, (x, y)) in points.iter().enumerate() {
            let _ = write!(self.out, "{}{} {}", if n == 0 { 'M' } else { 'L' }, short(*x), short(*y));
        }
        self.out.push_str(if closed { "Z\"/>" } else { "\"/>" });
    }

    /// One line of text, which may be anybody's.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y) = (short(x), short(y));
        let _ =
            write!(self.out, r#"<text class="{class}" x="{x}" y="{y}"{anchor}>{}</text>"#, harmless(text, Sink::Html));
    }

    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

/// `text` in at most `lines` lines of `width` characters; what does not fit ends in an ellipsis.
pub(super) fn wrapped(text: &str, width: usize, lines: usize) -> Vec<String> {
    let visible = harmless(text, Sink::Terminal);
    let mut done: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in visible.split(' ').filter(|word| !word.is_empty()) {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let space = usize::from(used > 0);
            if used + space + rest.len() > width && used > 0 {
                done.push(String::new());
                used = 0;
                continue;
            }
            let part: String = rest.drain(..rest.len().min(width.max(1))).collect();
            if let Some(line) = done.last_mut() {
                line.push_str(if space > 0 { " " } else { "" });
                line.push_str(&part);
            }
            used += space + part.chars().count();
        }
    }
    if done.len() > lines {
        done.truncate(lines);
        if let Some(line) = done.last_mut() {
            let kept: String = line.chars().take(width.saturating_sub(1)).collect();
            *line = format!("{kept}…");
        }
    }
    done
}

/// Steps of 1, 2 or 5 times a power of ten, at most `most` of them up to `end`.
pub(super) fn step(end: f64, most: f64) -> f64 {
    let rough = (end / most).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0].into_iter().find(|n| n * power >= rough).unwrap_or(10.0);
    nice * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_drawing_cannot_leave_its_element() {
        let about = About { id: "a", title: "</title><script>", description: "\u{202e}" };
        let mut svg = Svg::begin(&about, "x", 10.0, 10.0);
        svg.text("t", (1.0, 2.0), Anchor::End, "</text><script>\0");
        let text = svg.finish();
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;/text&gt;&lt;script&gt;\\x00"), "{text}");
        assert!(text.contains(r"\u{202e}"), "{text}");
    }

    #[test]
    fn lines_break_between_words_and_long_words_anywhere() {
        assert_eq!(wrapped("one two three", 7, 3), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4, 9), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("one two three four", 7, 2), ["one two", "three…"]);
        assert_eq!(wrapped("", 7, 2), [""]);
    }

    #[test]
    fn steps_of_an_axis_are_round() {
        assert_eq!(step(10.0, 5.0), 2.0);
        assert_eq!(step(7.0, 6.0), 2.0);
        assert_eq!(step(0.9, 6.0), 0.2);
    }
}
