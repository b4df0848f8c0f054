//! `tcpwhy redact FILE -o OUT.pcapng`: copies that name nobody.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::args::Redact;
use tcpwhy::capture::labelled;
use tcpwhy::redact::{Key, Mapping, redact as redact_files};
use tcpwhy::wire::harmless::{Sink, harmless};

/// Redacts, proves, and says what was done.
pub(crate) fn redact(args: &Redact) -> Result<ExitCode> {
    let files = outputs(args)?;
    let key = match &args.key {
        Some(path) => Key::from_file(path)?,
        None => Key::random()?,
    };
    let mut mapping = Mapping::new(&key, args.redact);
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
