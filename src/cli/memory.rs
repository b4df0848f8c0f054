//! How much memory a run may take: what the user says, or else a part of what the machine has.

use std::fs::read_to_string;

/// Less cannot be kept: the program, its buffers, what it keeps of judged flows and the report take three quarters of it.
const LEAST: usize = 128 << 20;
/// No more than this unless asked for.
const MOST: usize = 2 << 30;

/// `512M` and the like, not below what a run takes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    match octets(text)? {
        octets if octets >= LEAST => Ok(octets),
        _ => Err("at least 128M are needed".into()),
    }
}

/// `512M` and the like; units are powers of 1,024, as memory is sold.
pub(super) fn octets(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or("").to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        _ => None,
    };
    let octets = unit.zip(digits.parse::<usize>().ok()).and_then(|(unit, n)| n.checked_mul(1 << unit));
    octets.ok_or_else(|| "write a size, such as 512M or 2G".into())
}

/// A quarter of the machine's memory, or of what its container is allowed.
pub(super) fn default() -> usize {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let container = read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let quarter = machine.into_iter().chain(container).min().map_or(MOST, |octets| octets / 4);
    quarter.clamp(LEAST, MOST)
}

/// `MemTotal` of proc_meminfo(5), in octets.
fn total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_and_is_no_less_than_what_is_needed() {
        assert_eq!((size("512M"), size("2g"), size("1GiB")), (Ok(512 << 20), Ok(2 << 30), Ok(1 << 30)));
        assert_eq!(size("200000000"), Ok(200_000_000));
        for wrong in ["", "M", "12X", "1.5G", "-1G", "99999999999G", "127M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_machine_tells_its_memory_in_units_of_1024() {
        assert_eq!(total("MemTotal:       24683312 kB\nMemFree: 1 kB\n"), Some(24_683_312 << 10));
        assert_eq!(total("nothing"), None);
        assert!((LEAST..=MOST).contains(&default()));
    }
}
