//! What can be typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
#[cfg(feature = "live")]
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use super::memory;
use tcpwhy::Severity;
use tcpwhy::render::markdown;

/// Says why: reads packet captures and names the root cause, with the packets that prove it.
#[derive(Debug, Parser)]
#[command(
    name = "tcpwhy",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  tcpwhy incident.pcap                     the first screen names the root cause\n  \
                  tcpwhy live -i eth0 port 443             as it happens\n  \
                  tcpdump -i eth0 -w - | tcpwhy -          from a pipe\n  \
                  tcpwhy client=c.pcap server=s.pcap       two capture points of the same traffic\n  \
                  tcpwhy flow 17 incident.pcap             the flow that packet 17 belongs to, as a ladder\n  \
                  tcpwhy flow 2#17 c.pcap s.pcap           packet 17 of the second capture\n  \
                  tcpwhy report incident.pcap -o t.zip     all a ticket needs; --redact makes it safe to share\n  \
                  tcpwhy diff good.pcap bad.pcap           what differs, server by server\n  \
                  tcpwhy capture-plan 10.0.0.5:443         what to capture, where, how long\n  \
                  tcpwhy explain SSL_ERROR_SYSCALL         which diagnoses users see with these words\n\n\
                  Exit codes:\n  \
                  0  diagnosed, whatever was found; also damaged or empty captures\n  \
                  1  --fail-on was reached, or an expectation was not met\n  \
                  2  wrong usage, nothing readable, or the output could not be written\n  \
                  3  only with --fail-on: not reached, but more than half of the flows could not be judged"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub input: Input,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One flow as a ladder, with its facts and findings
    Flow {
        /// Any packet number of the flow; with several inputs 2#17 is packet 17 of the second
        #[arg(value_parser = packet)]
        number: (u16, u64),
        #[command(flatten)]
        input: Box<Input>,
    },
    /// Watch interfaces: findings as they become known, and the report in the end
    #[cfg(feature = "live")]
    Live(Box<Live>),
    /// What differs between a good and a bad capture of the same service
    Diff {
        /// The capture in which all was well
        good: String,
        /// The other one
        bad: String,
        /// Output format (jsonl is json)
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Everything that is shortened by default
        #[arg(short, long)]
        verbose: bool,
    },
    /// A copy of a capture that names nobody and is diagnosed alike; the diagnosis proves it
    Redact(Redact),
    /// What to capture, where, how long, as lines to paste
    CapturePlan {
        /// ADDRESS or ADDRESS:PORT of clients, proxies and servers involved
        ends: Vec<String>,
    },
    /// The page of a diagnosis, or the diagnoses whose users see these words
    Explain {
        /// A rule's id, or words from a screen or log
        #[arg(required = true)]
        words: Vec<String>,
        /// Also show the check itself
        #[arg(long)]
        code: bool,
    },
    /// All diagnoses
    Rules,
    /// All numbers the diagnoses use, with their reasons
    Thresholds {
        /// Set one before listing (name=value)
        #[arg(long, value_name = "NAME=VALUE")]
        threshold: Vec<String>,
    },
    /// Everything a ticket needs, into the folder or .zip file that -o names: report.md, report.html, report.json, evidence.pcapng, SHA256SUMS
    Report {
        #[command(flatten)]
        input: Box<Input>,
    },
    /// Check captures against expectations written in TOML
    Expect {
        /// Files with [[expect]] tables
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// `tcpwhy redact`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Redact {
    /// Capture files; of several each becomes one
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,
    /// Where the copy goes (pcapng); of several files a folder
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The same key replaces alike in all files: 16 octets or more (a new one for each run by default)
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// ids: names, URLs, cookies, credentials, bodies; ids+ips: addresses too; all: link addresses too
    #[arg(long, value_name = "LEVEL", default_value = "all")]
    pub redact: tcpwhy::redact::Level,
    /// Write down what was replaced by what: as secret as the original
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
}

/// Files and which part of them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Input {
    /// Capture files (pcap, pcapng; gzip, zstd and lz4 too), several at once; `-` = standard input; name=path labels a file
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
    #[command(flatten)]
    pub options: Options,
    /// Put the packets that prove the incidents into a file, commented: a small capture that alone leads to the same causes
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub evidence: Option<PathBuf>,
    /// Replace names, contents and addresses before anything is diagnosed, so that what comes out may be given away; ids or ids+ips leave
    /// addresses or link addresses as they are
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "all", help_heading = "Output")]
    pub redact: Option<tcpwhy::redact::Level>,
    /// With --redact: the same key replaces alike in all runs (a new one for each by default)
    #[arg(long, value_name = "FILE", requires = "redact", help_heading = "Output")]
    pub key: Option<PathBuf>,
    /// Put the input's SHA-256 into the report
    #[arg(long, help_heading = "Output")]
    pub hash: bool,
    /// Only packets that match an expression in tcpdump's language; numbers stay those of the file
    #[arg(long, value_name = "EXPRESSION", help_heading = "What to look at")]
    pub filter: Option<String>,
    /// Only packets from this time on: RFC 3339, HH:MM[:SS], or +30s after the first packet
    #[arg(long, value_name = "TIME", help_heading = "What to look at")]
    pub since: Option<String>,
    /// Only packets up to this time
    #[arg(long, value_name = "TIME", help_heading = "What to look at")]
    pub until: Option<String>,
}

impl std::ops::Deref for Input {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// What files and interfaces have in common.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Output")]
    pub format: Format,
    /// Whose Markdown (github by default): its markup, and how many characters it takes
    #[arg(long, value_enum, value_name = "TRACKER", help_heading = "Output")]
    pub flavour: Option<Flavour>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// List every flow with its explanation
    #[arg(long, help_heading = "Output")]
    pub all_flows: bool,
    /// Exit with 1 when a finding of this severity or above was made
    #[arg(long, value_enum, value_name = "SEVERITY", help_heading = "Output")]
    pub fail_on: Option<FailOn>,
    /// Time zone of the times in sentences (UTC by default)
    #[arg(long, value_name = "ZONE", help_heading = "Output")]
    pub tz: Option<String>,
    /// Columns of the text report (100 by default)
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub width: Option<usize>,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto, help_heading = "Output")]
    pub color: Color,
    /// Silent findings and everything that is shortened by default
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// No line on the terminal that tells how far it is (it never goes to a pipe or file)
    #[arg(short, long, visible_alias = "no-progress", help_heading = "Output")]
    pub quiet: bool,
    /// Report only flows of this address, with the legs linked to them (repeatable)
    #[arg(long, value_name = "ADDRESS", help_heading = "What to look at")]
    pub client: Vec<IpAddr>,
    /// As --client; with both, both must fit (repeatable)
    #[arg(long, value_name = "ADDRESS", help_heading = "What to look at")]
    pub server: Vec<IpAddr>,
    /// Report only flows whose SNI, Host or queried name is this or ends with .NAME, with the legs linked to them (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "What to look at")]
    pub name: Vec<String>,
    /// Report only flows with a request whose target begins like this, with the legs linked to them (repeatable)
    #[arg(long, value_name = "PATH", help_heading = "What to look at")]
    pub path: Vec<String>,
    /// Where the proxy's backends are meant to be; a leg that goes elsewhere is told (repeatable: name every server)
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "What to look at")]
    pub expect_upstream: Vec<SocketAddr>,
    /// What `ss -tnpoi` says on the capturing host: names connections that wait and send nothing
    #[arg(long, value_name = "FILE", help_heading = "What to look at")]
    pub sockets: Option<PathBuf>,
    /// Set a number of the diagnoses, such as hang=5s (repeatable; see tcpwhy thresholds)
    #[arg(long, value_name = "NAME=VALUE", help_heading = "How to work")]
    pub threshold: Vec<String>,
    /// Worker threads (all cores by default); the report does not depend on it
    #[arg(long, value_name = "N", help_heading = "How to work")]
    pub threads: Option<usize>,
    /// Memory to get by with, such as 512M (a quarter of the machine's by default, at most 2G); beyond it flows are judged early, and the
    /// report says how many
    #[arg(long, value_name = "SIZE", value_parser = memory::size, help_heading = "How to work")]
    pub max_memory: Option<usize>,
}

/// `tcpwhy live`: which packets, how long, and where to put them.
#[cfg(feature = "live")]
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Live {
    /// Which packets, in tcpdump's language; the kernel passes on no others
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub filter: Vec<String>,
    /// Interface to listen on; `any` is all of them (repeatable)
    #[arg(short, long, value_name = "INTERFACE", help_heading = "Capture")]
    pub interface: Vec<String>,
    /// Instead of interfaces: a file that tcpdump is still writing, and those of its rotation that come after it
    #[arg(long, value_name = "FILE", help_heading = "Capture")]
    pub follow: Option<PathBuf>,
    /// List the interfaces and leave
    #[arg(short = 'D', long, help_heading = "Capture")]
    pub list_interfaces: bool,
    /// Octets kept of a frame
    #[arg(short, long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(64..=262_144),
          help_heading = "Capture")]
    pub snaplen: u32,
    /// The kernel's buffer for each interface, in KiB as tcpdump counts
    #[arg(short = 'B', long, value_name = "KIB", default_value_t = 32_768, help_heading = "Capture")]
    pub buffer_size: usize,
    /// Not in promiscuous mode: only what is meant for this host
    #[arg(short = 'p', long, help_heading = "Capture")]
    pub no_promiscuous_mode: bool,
    /// Only packets that go this way
    #[arg(short = 'Q', long, value_enum, default_value_t = Direction::Inout, help_heading = "Capture")]
    pub direction: Direction,
    /// The user to go on as once the interfaces are open, when started by root: the one who called sudo, or else nobody
    #[arg(short = 'Z', long, value_name = "USER", help_heading = "Capture")]
    pub relinquish_privileges: Option<String>,
    /// End after this time, such as 10m
    #[arg(long = "for", value_name = "TIME", value_parser = duration, help_heading = "How long")]
    pub time: Option<Duration>,
    /// End once something of this severity or above was found
    #[arg(long, value_enum, value_name = "SEVERITY", help_heading = "How long")]
    pub until_finding: Option<FailOn>,
    /// Also write a whole report every so often, such as 5m (SIGUSR1 asks for one at any time)
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Output")]
    pub every: Option<Duration>,
    /// Write the packets to a file (pcapng): numbers in findings are numbers of that file
    #[arg(short, long, value_name = "FILE", help_heading = "Packets")]
    pub write: Option<PathBuf>,
    /// Begin another file after so many millions of octets
    #[arg(short = 'C', long, value_name = "MILLIONS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Packets")]
    pub file_size: Option<u64>,
    /// Begin another file after so many seconds; the name holds a time, such as %H%M%S
    #[arg(short = 'G', long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Packets")]
    pub rotate_seconds: Option<u32>,
    /// With -C: so many files, the oldest is written over; with -G alone: end after so many
    #[arg(short = 'W', long, value_name = "FILES", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Packets")]
    pub file_count: Option<u32>,
    /// Put the packets that prove an incident into this folder, one commented pcapng for each; it is made if need be
    #[arg(long, value_name = "FOLDER", help_heading = "Packets")]
    pub evidence: Option<PathBuf>,
    /// What all evidence may take on disk; beyond it the oldest goes
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory::octets, help_heading = "Packets")]
    pub evidence_limit: usize,
    /// Memory for the latest packets, from which evidence is taken: so far back it reaches
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = memory::octets, help_heading = "Packets")]
    pub ring: usize,
    #[command(flatten)]
    pub options: Options,
}

#[cfg(feature = "live")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    In,
    Out,
    Inout,
}

/// `10m`, `1h30m`, `90` for seconds.
#[cfg(feature = "live")]
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time, such as 30s, 10m or 1h30m".to_owned();
    let seconds = text.parse::<u64>().map(Duration::from_secs).ok();
    let time = seconds.or_else(|| text.parse::<jiff::SignedDuration>().ok()?.try_into().ok());
    time.filter(|time| !time.is_zero()).ok_or_else(wrong)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Text,
    /// One document, schema tcpwhy.report/1
    Json,
    /// One object per line; lists every flow
    Jsonl,
    /// For a ticket
    Markdown,
    /// One page that needs nothing else
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flavour {
    /// Tables, folds; 65,536 characters
    Github,
    /// Tables, folds; 1,000,000 characters
    Gitlab,
    /// For a mail: no HTML, no tables
    Plain,
    /// Jira's wiki markup; 32,767 characters
    Jira,
}

impl From<Flavour> for markdown::Flavour {
    fn from(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Github => Self::Github,
            Flavour::Gitlab => Self::Gitlab,
            Flavour::Plain => Self::Plain,
            Flavour::Jira => Self::Jira,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    Critical,
    Warning,
    Notice,
}

impl FailOn {
    /// The level as findings have it.
    pub(crate) fn severity(self) -> Severity {
        match self {
            Self::Critical => Severity::Critical,
            Self::Warning => Severity::Warning,
            Self::Notice => Severity::Notice,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// `17`, `#17`, or `2#17` for packet 17 of the second input.
fn packet(text: &str) -> Result<(u16, u64), String> {
    let (file, number) = text.split_once('#').unwrap_or(("", text));
    let file = match file {
        "" => Some(0),
        file => file.parse::<u16>().ok().and_then(|file| file.checked_sub(1)),
    };
    let number = number.parse().ok();
    file.zip(number).ok_or_else(|| "write a packet number, 17, or 2#17 for packet 17 of the second input".to_owned())
}
