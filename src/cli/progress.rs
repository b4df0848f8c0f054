//! One line on the terminal while a long diagnosis runs, rewritten in place and gone before the report.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tcpwhy::Progress;

/// What takes less needs no line.
const FIRST: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(300);

/// The line; dropping it clears it.
pub(super) struct Line {
    /// Closed, it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// `None` where nobody would see it: standard error is no terminal, or one that cannot go back.
    pub(super) fn begin(progress: &Arc<Progress>) -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stderr().is_terminal() {
            return None;
        }
        let (end, ended) = mpsc::channel();
        let progress = progress.clone();
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            let (mut pause, mut shown) = (FIRST, false);
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = PAUSE;
                if progress.octets() > 0 {
                    show(&line(&progress, begin.elapsed()));
                    shown = true;
                }
            }
            if shown {
                show("");
            }
        });
        Some(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From the first column; whatever stood there goes. Without wrapping, so that a narrow terminal cuts it off instead of scrolling.
fn show(line: &str) {
    let _ = write!(io::stderr().lock(), "\r\x1b[?7l{line}\x1b[K\x1b[?7h");
}

fn line(progress: &Progress, elapsed: Duration) -> String {
    let (octets, packets, seconds) = (progress.octets(), progress.packets(), elapsed.as_secs_f64().max(0.001));
    let mut parts = Vec::new();
    let left = progress.total().filter(|total| (1..*total).contains(&octets)).map(|total| {
        parts.push(format!("{:2.0} % of {}", 100.0 * octets as f64 / total as f64, scaled(total as f64, "B")));
        seconds * (total - octets) as f64 / octets as f64
    });
    if left.is_none() {
        parts.push(scaled(octets as f64, "B"));
    }
    parts.push(scaled(octets as f64 / seconds, "B/s"));
    parts.push(scaled(packets as f64, "packets"));
    parts.push(scaled(packets as f64 / seconds, "/s"));
    match left {
        _ if progress.concluding() => parts.push("concluding".into()),
        Some(left) => parts.push(format!("{} left", clock(left))),
        None => {}
    }
    let (failed, degraded) = progress.suspects();
    if failed + degraded > 0 {
        parts.push(format!("{} suspect flows", failed + degraded));
    }
    parts.join(", ")
}

/// `3.14 M packets`, `418 k/s`, `390 MB/s`: three digits and a power of a thousand.
fn scaled(value: f64, unit: &str) -> String {
    let (mut value, mut power) = (value, 0);
    while value >= 999.5 && power < 4 {
        (value, power) = (value / 1000.0, power + 1);
    }
    let digits = match value {
        _ if power == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let between = if unit == "packets" && power > 0 { " " } else { "" };
    format!("{value:.digits$} {}{between}{unit}", ["", "k", "M", "G", "T"][power])
}

/// `45 s`, `3:20`, `1:02:03`.
fn clock(seconds: f64) -> String {
    let whole = seconds.ceil() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(scaled(0.0, "packets"), "0 packets");
        assert_eq!(scaled(999.0, "B/s"), "999 B/s");
        assert_eq!(scaled(999.6, "B"), "1.00 kB");
        assert_eq!(scaled(3_140_000.0, "packets"), "3.14 M packets");
        assert_eq!(scaled(390_400_000.0, "B/s"), "390 MB/s");
        assert_eq!(scaled(417_600.0, "/s"), "418 k/s");
    }

    #[test]
    fn the_time_that_is_left_reads_like_a_clock() {
        assert_eq!([clock(0.2), clock(45.0), clock(200.0), clock(3_723.0)], ["1 s", "45 s", "3:20", "1:02:03"]);
    }

    #[test]
    fn nothing_is_promised_of_a_pipe() {
        assert_eq!(line(&Progress::default(), Duration::from_secs(2)), "0 B, 0 B/s, 0 packets, 0 /s");
    }
}
