//! The one place where values become HTML: every text that a template prints is made harmless here, whoever wrote it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};

use super::cite::cited;
use super::policy::policy;
use super::view::Page;
use crate::wire::harmless::{Sink, harmless};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");
const TEMPLATES: &[(&str, &str)] = &[
    ("page.html", include_str!("page/page.html")),
    ("incident.html", include_str!("page/incident.html")),
    ("tables.html", include_str!("page/tables.html")),
    ("capture.html", include_str!("page/capture.html")),
    ("parts.html", include_str!("page/parts.html")),
];

/// The page as a document.
///
/// # Errors
/// When a template names what is not there; no report can cause it.
pub(super) fn render(page: &Page<'_>) -> Result<String, Error> {
    let environment = environment()?;
    environment.get_template("page.html")?.render(minijinja::context! {
        page => Value::from(Serde(page)),
        policy => policy(STYLE, SCRIPT),
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
    })
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out, _, value| {
        match value.as_str() {
            Some(text) if value.is_safe() => out.write_str(text)?,
            Some(text) => out.write_str(&harmless(text, Sink::Html))?,
            None => out.write_str(&harmless(&value.to_string(), Sink::Html))?,
        }
        Ok(())
    });
    // A command is never cut: it is pasted.
    environment.add_filter("whole", |text: &str| Value::from_safe_string(harmless(text, Sink::HtmlLine).into_owned()));
    environment.add_filter("cited", |text: &str| Value::from_safe_string(cited(text)));
    environment.add_filter("count", |n: u64, noun: &str| crate::diagnose::format::count(n, noun));
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}
