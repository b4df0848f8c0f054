//! `tcpwhy redact FILE -o OUT.pcapng`: copies that name nobody.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::args::{Input, Redact};
use tcpwhy::capture::labelled;
use tcpwhy::redact::{Key, Level, Mapping, redact as redact_files, rewrite};
use tcpwhy::run::Original;
use tcpwhy::wire::harmless::{Sink, harmless};

/// Redacts, proves, and says what was done.
pub(crate) fn redact(args: &Redact) -> Result<ExitCode> {
    let files = outputs(args)?;
    let mut mapping = Mapping::new(&key(args.key.as_deref())?, args.redact);
    let outcome = redact_files(&files, &mut mapping)?;
    if let Some(path) = &args.list {
        write_list(path, &mapping)?;
    }
    for (_, out) in &files {
        println!("{}", out.display());
    }
    println!("{} packets; the same {} findings before and after", outcome.packets, outcome.findings);
    for (what, n) in &outcome.counts {
        println!("{n:>9} {}", what.name());
    }
    Ok(ExitCode::SUCCESS)
}

fn key(file: Option<&Path>) -> Result<Key> {
    Ok(match file {
        Some(path) => Key::from_file(path)?,
        None => Key::random()?,
    })
}

/// Redacted copies of inputs that a report is made of. They are gone when this is.
pub(super) struct Copies {
    /// Where they are, with the labels of the inputs.
    pub(super) files: Vec<String>,
    /// What they stand for, by names that say nothing.
    pub(super) originals: Vec<Original>,
    /// What is to be typed to see the same.
    pub(super) command: String,
    _folder: TempDir,
}

/// Makes copies of the inputs. `hash`: the originals' SHA-256 is wanted.
pub(super) fn copies(input: &Input, level: Level, hash: bool) -> Result<Copies> {
    let looks = input.filter.is_some() || !input.expect_upstream.is_empty() || input.sockets.is_some();
    let asks = [input.client.len(), input.server.len(), input.name.len(), input.path.len()].iter().any(|n| *n > 0);
    if looks || asks {
        bail!(
            "with --redact nothing can be chosen by addresses and names, which are replaced: make a copy (tcpwhy redact FILE -o COPY.pcapng) \
             and choose in that"
        );
    }
    let folder = tempfile::Builder::new().prefix("tcpwhy-").tempdir().context("no room for a redacted copy")?;
    let mut mapping = Mapping::new(&key(input.key.as_deref())?, level);
    let (mut files, mut originals) = (Vec::new(), Vec::new());
    for (n, file) in input.files.iter().enumerate() {
        let name = format!("capture-{}.pcapng", n + 1);
        let place = folder.path().join(&name);
        let (label, path) = labelled(file);
        let label = label.map(|label| format!("{label}=")).unwrap_or_default();
        files.push(format!("{label}{}", place.display()));
        originals.push(Original { name, hash: hash.then(|| hashed(Path::new(path))).transpose()? });
        let failed = || format!("cannot write {}", place.display());
        let mut out = BufWriter::with_capacity(1 << 18, File::create(&place).with_context(failed)?);
        rewrite(file, &mut out, &mut mapping)?;
        out.flush().with_context(failed)?;
    }
    let names: Vec<&str> = originals.iter().map(|original| original.name.as_str()).collect();
    let command = format!("tcpwhy {}", names.join(" "));
    Ok(Copies { files, originals, command, _folder: folder })
}

/// SHA-256 of a file as it is stored, and its octets.
fn hashed(path: &Path) -> Result<(String, u64)> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).with_context(failed)?);
    let (mut hasher, mut octets) = (Sha256::new(), 0);
    loop {
        let piece = file.fill_buf().with_context(failed)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        let len = piece.len();
        octets += len as u64;
        file.consume(len);
    }
    Ok((hasher.finalize().iter().map(|octet| format!("{octet:02x}")).collect(), octets))
}

/// Each file with where its copy goes.
fn outputs(args: &Redact) -> Result<Vec<(String, PathBuf)>> {
    let same = |out: &Path, file: &String| {
        let file = Path::new(labelled(file).1);
        matches!((out.canonicalize(), file.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    let files: Vec<(String, PathBuf)> = match args.files.as_slice() {
        [file] if !args.output.is_dir() => vec![(file.clone(), args.output.clone())],
        files if args.output.is_dir() => {
            let out = |file: &String| {
                let name = Path::new(labelled(file).1).file_name().unwrap_or_default().to_string_lossy().into_owned();
                let stem = name.split(".pcap").next().unwrap_or(&name);
                (file.clone(), args.output.join(format!("{stem}.redacted.pcapng")))
            };
            files.iter().map(out).collect()
        }
        files => bail!("{} files need a folder to go to: {} is none", files.len(), args.output.display()),
    };
    for (n, (file, out)) in files.iter().enumerate() {
        if args.files.iter().any(|file| same(out, file)) {
            bail!("{} is an original", out.display());
        }
        if files.iter().take(n).any(|(_, other)| other == out) {
            bail!("two files would become {}: name them apart ({file})", out.display());
        }
    }
    Ok(files)
}

fn write_list(path: &Path, mapping: &Mapping) -> Result<()> {
    let mut text = String::from("# kind\toriginal\treplacement\n");
    for (what, from, to) in mapping.list() {
        let _ = writeln!(text, "{}\t{}\t{}", what.name(), harmless(from, Sink::Line), harmless(to, Sink::Line));
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
