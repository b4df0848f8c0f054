//! `--evidence`: the packets that prove the incidents, as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tcpwhy::run::dossier::Made;
use tcpwhy::run::proof::{Proof, ProofFile};

/// Said instead of evidence.
pub(super) const NONE: &str = "there is no incident, so there is no evidence";

/// Writes the evidence to `path`; of several points of capture each has a file of its own beside it.
pub(super) fn file(made: &Made, path: &Path, quiet: bool) -> Result<()> {
    if made.report.incidents.is_empty() {
        if !quiet {
            eprintln!("tcpwhy: {NONE}");
        }
        return Ok(());
    }
    let proof = made.proof()?;
    let mut written = Vec::new();
    for (n, file) in proof.files.iter().enumerate() {
        let path = path.with_file_name(name(path, &proof, file, n));
        std::fs::write(&path, &file.octets).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    if !quiet {
        eprintln!("tcpwhy: {}", says(made, &proof, &written));
    }
    Ok(())
}

/// `evidence.pcapng`; of several points `evidence-client.pcapng` by its label, else `evidence-2.pcapng`.
pub(super) fn name(path: &Path, proof: &Proof, file: &ProofFile, n: usize) -> String {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let (stem, end) = (part(path.file_stem()).unwrap_or_default(), part(path.extension()));
    let end = end.map(|end| format!(".{end}")).unwrap_or_default();
    match &file.label {
        _ if proof.files.len() < 2 => format!("{stem}{end}"),
        Some(label) => format!("{stem}-{}{end}", label.replace(|c: char| !c.is_ascii_alphanumeric(), "_")),
        None => format!("{stem}-{}{end}", n + 1),
    }
}

/// What was written, and whether it suffices.
pub(super) fn says(made: &Made, proof: &Proof, written: &[PathBuf]) -> String {
    let read: u64 = made.report.captures.iter().map(|capture| capture.packets).sum();
    let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let mut says = format!("evidence: {} of {read} packets in {}", proof.packets, files.join(" and "));
    says.push_str(match proof.holds {
        true => "; alone they lead to the same causes",
        false => "; alone they do not lead to the same causes: keep the whole capture",
    });
    if proof.full {
        says.push_str("; more belongs to it than fits");
    }
    says
}
