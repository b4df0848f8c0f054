//! The report as text, JSON and JSON lines; a flow as a ladder; a rule as its page.

mod beside;
pub mod diff;
pub mod html;
pub mod json;
pub mod ladder;
mod layout;
pub mod markdown;
pub mod page;
pub mod text;

pub use layout::Style;
