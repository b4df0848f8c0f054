//! The typed values a check fills into its rule's templates: one place formats times, octets and endpoints; JSON gets values, not prose.

use serde::{Deserialize, Serialize};

use crate::event::PacketRef;
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Words of ours: trusted.
    Text(String),
    /// Words from a packet: made harmless where printed.
    Packet(String),
    /// An end of a flow.
    Endpoint(Endpoint),
    /// A host.
    Address(Address),
    /// A span.
    Elapsed(Elapsed),
    /// A moment.
    Time(Timestamp),
    /// A number.
    Count(u64),
    /// Octets.
    Octets(u64),
    /// A packet number.
    Frame(PacketRef),
}

/// Values by slot name, in the order they were set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(Vec<(std::borrow::Cow<'static, str>, Value)>);

impl Values {
    /// Sets or replaces a slot.
    pub fn set(&mut self, slot: &'static str, value: Value) {
        match self.0.iter_mut().find(|(name, _)| name == slot) {
            Some((_, old)) => *old = value,
            None => self.0.push((slot.into(), value)),
        }
    }

    /// Gives back the room for more.
    pub(super) fn settle(&mut self) {
        self.0.shrink_to_fit();
    }

    /// The value of a slot.
    pub fn get(&self, slot: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == slot).map(|(_, value)| value)
    }

    /// All slots.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

/// `1 more question`, `2 more questions`.
pub fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Fills `{slot}`s of a template; a slot `get` does not know stays as it is (a test proves that none is left).
pub fn fill(template: &str, mut get: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let tail = &rest[open..];
        let name_end = tail[1..].find(|c: char| !c.is_ascii_lowercase() && c != '_').map(|n| n + 1);
        match name_end {
            Some(end) if tail[end..].starts_with('}') && end > 1 => {
                match get(&tail[1..end]) {
                    Some(text) => out.push_str(&text),
                    None => out.push_str(&tail[..=end]),
                }
                rest = &tail[end + 1..];
            }
            _ => {
                out.push('{');
                rest = &tail[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Endpoint> for Value {
    fn from(end: Endpoint) -> Self {
        Self::Endpoint(end)
    }
}

impl From<Address> for Value {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<Elapsed> for Value {
    fn from(span: Elapsed) -> Self {
        Self::Elapsed(span)
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::Count(n)
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Self::Count(n.into())
    }
}

impl From<PacketRef> for Value {
    fn from(at: PacketRef) -> Self {
        Self::Frame(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_and_other_braces_stay() {
        let get = |slot: &str| (slot == "port").then(|| "443".to_owned());
        assert_eq!(fill("ss 'sport = :{port}'", get), "ss 'sport = :443'");
        assert_eq!(fill("-w '%{http_code}' {unknown} {port}", get), "-w '%{http_code}' {unknown} 443");
        assert_eq!(fill("{go .} { {port", get), "{go .} { {port");
    }
}
