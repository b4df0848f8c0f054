//! Every number of the catalogue: unit, default, reason. The only place where such numbers live.

use serde::{Deserialize, Serialize};

use crate::time::Elapsed;

macro_rules! thresholds {
    ($( $(#[doc = $why:literal])* $name:ident: $ty:ty = $default:expr, )*) => {
        /// The thresholds of all rules; each can be set with `--threshold name=value`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct Thresholds { $( $(#[doc = $why])* pub $name: $ty, )* }

        impl Default for Thresholds {
            fn default() -> Self { Self { $( $name: $default, )* } }
        }

        impl Thresholds {
            /// Name, current value and reason of every threshold, in the order of the catalogue.
            pub fn list(&self) -> Vec<(&'static str, String, &'static str)> {
                vec![$( (stringify!($name), self.$name.to_string(), concat!($($why),*).trim()), )*]
            }

            /// Sets one by name; `Err` says what was expected.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
                match name {
                    $( stringify!($name) => { self.$name = Parse::parse_threshold(value)?; Ok(()) } )*
                    _ => Err(format!("no threshold is called {name}")),
                }
            }

            /// All names.
            pub const NAMES: &[&'static str] = &[$( stringify!($name), )*];
        }
    };
}

trait Parse: Sized {
    fn parse_threshold(text: &str) -> Result<Self, String>;
}

impl Parse for Elapsed {
    fn parse_threshold(text: &str) -> Result<Self, String> {
        parse_span(text).ok_or_else(|| format!("{text} is no duration (write 500ms, 3s, 2m or 1h)"))
    }
}

impl Parse for u32 {
    fn parse_threshold(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text} is no whole number"))
    }
}

/// Reads `500ms`, `3s`, `1.5s`, `2m`, `1h`, `7d`.
pub fn parse_span(text: &str) -> Option<Elapsed> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = match unit {
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return None,
    };
    let nanos = number * unit;
    (nanos < i64::MAX as f64).then_some(Elapsed(nanos as i64))
}

thresholds! {
    /// Silence means something only from here: a second SYN comes at 1 s, a third at 2 to 3 s, delayed ACKs take up to 500 ms. Measured from the first copy.
    tail: Elapsed = Elapsed::secs(3),
    /// SYN copies that make a real retry and no truncated capture.
    syn_copies: u32 = 2,
    /// Shortest time between the first and the last of those copies (initial RTO 1 s, RFC 6298).
    syn_span: Elapsed = Elapsed::millis(900),
    /// No first octet of an answer for this long is a warning.
    hang: Elapsed = Elapsed::secs(10),
    /// From here it is critical: the default read timeout of nginx, Apache and ALB.
    hang_critical: Elapsed = Elapsed::secs(60),
    /// A side that gives up before `hang` must have waited at least this long (and 20 round trips).
    gave_up: Elapsed = Elapsed::secs(1),
    /// A response is slow from here, if the ACK of its request was at least 5 times faster.
    slow: Elapsed = Elapsed::secs(1),
    /// Requests of one client to one server that wait at once before it is a pile-up: more than any pool keeps busy by chance.
    pile: u32 = 20,
    /// Shortest silent expiry in common use (UDP conntrack 30 s, load balancers 60 s).
    idle: Elapsed = Elapsed::secs(30),
    /// A closed window shorter than this is buffer tuning.
    zero_window: Elapsed = Elapsed::millis(100),
    /// Nothing heard for this long, while connections repeat themselves, is a blackout.
    black: Elapsed = Elapsed::secs(5),
    /// A closed window this long holds users up; below it a slow reader is at work.
    zero_window_long: Elapsed = Elapsed::secs(1),
    /// Percent of a direction's segments lost that is worth a notice, and from where TCP's throughput collapses (RFC 5681 halves at each loss).
    loss_notice: u32 = 1,
    /// Percent of a direction's segments lost that is a warning.
    loss_warning: u32 = 3,
    /// Percent of a direction's segments lost at which hardly anything works any more.
    loss_critical: u32 = 10,
    /// Failures of one cause this close together are one incident.
    group: Elapsed = Elapsed::secs(12),
    /// Digests of closed flows are kept this long for links; an incident closes after it without new members.
    window: Elapsed = Elapsed::secs(600),
    /// A half-closed flow is stuck from here.
    half_closed: Elapsed = Elapsed::secs(60),
    /// A server that closes this soon after the handshake did not wait for a request.
    closed_early: Elapsed = Elapsed::secs(5),
    /// A refusal of wrong first octets comes within this time (measured: 5 ms; round trips and loaded servers included).
    refusal: Elapsed = Elapsed::secs(1),
    /// A certificate that ends within this time is worth a notice: two weeks are left to mend its renewal.
    cert_soon: Elapsed = Elapsed::secs(14 * 86_400),
    /// A certificate that ends within this time is a warning: a weekend lies between.
    cert_very_soon: Elapsed = Elapsed::secs(3 * 86_400),
    /// The proxy passes a close on within this time.
    close_relay: Elapsed = Elapsed::millis(50),
    /// ACKs of octets the capture never saw that make it lossy.
    capture_loss_acks: u32 = 3,
    /// Percent of TCP flows with one direction only that make the capture one-sided.
    one_sided_percent: u32 = 90,
    /// Share of packets recorded more than once, in percent, that is worth a notice.
    duplicate_percent: u32 = 5,
    /// Backward step of the clock that is a fault.
    clock_step: Elapsed = Elapsed::millis(1),
    /// Periods that make a series of empty connections a health check.
    check_periods: u32 = 3,
    /// Flows with the same diagnosis that raise its confidence by one level.
    many: u32 = 3,
    /// Healthy sibling flows that make a single failure less severe.
    healthy_siblings: u32 = 20,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(parse_span("1.5s"), Some(Elapsed::millis(1500)));
        assert_eq!(parse_span("2m"), Some(Elapsed::secs(120)));
        assert_eq!(parse_span("5"), None);
        assert_eq!(parse_span("5 parsecs"), None);
    }

    #[test]
    fn every_threshold_can_be_set_and_says_why() {
        let mut thresholds = Thresholds::default();
        for (name, value, why) in Thresholds::default().list() {
            assert!(why.len() > 20, "{name} has no reason");
            assert!(!value.is_empty());
        }
        thresholds.set("hang", "5s").expect("hang takes a duration");
        assert_eq!(thresholds.hang, Elapsed::secs(5));
        assert!(thresholds.set("hangs", "5s").is_err());
        assert!(thresholds.set("many", "5s").is_err());
    }
}
