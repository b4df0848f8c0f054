//! TCP sequence numbers: a circle of 2³², on which only differences have an order. RFC 9293 §3.4.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in a TCP direction's sequence space. Compare only through [`Seq::after`] and [`Seq::minus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seq(pub u32);

impl Seq {
    /// The position `n` octets further on.
    pub fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// Signed distance from `other` to `self` in octets; right while both lie within 2³¹ of each other.
    pub fn minus(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` lies beyond `other`.
    pub fn after(self, other: Self) -> bool {
        self.minus(other) > 0
    }

    /// The later of two positions.
    pub fn max(self, other: Self) -> Self {
        if self.after(other) { self } else { other }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(Seq(5).after(Seq(0xffff_fff0)));
        assert_eq!(Seq(5).minus(Seq(0xffff_fff0)), 21);
        assert_eq!(Seq(0xffff_ffff).plus(2), Seq(1));
    }
}
