//! `tcpwhy report`: everything a ticket needs in one folder or zip file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use tcpwhy::render::{html, json, markdown};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::args::Input;
use super::{evidence, exit_code, flavour, make};

/// Makes it.
pub(super) fn bundle(input: &Input) -> Result<ExitCode> {
    let Some(output) = &input.output else {
        bail!("where to? tcpwhy report FILE -o FOLDER, or -o FILE.zip");
    };
    if input.files.is_empty() {
        bail!("no capture given: tcpwhy report FILE -o {}", output.display());
    }
    let ready = make(input, true)?;
    let made = &ready.made;
    let mut into = Bundle::begin(output)?;
    // Two looks at the inputs, side by side.
    let (dossier, proof) = std::thread::scope(|scope| {
        let proof = scope.spawn(|| (!made.report.incidents.is_empty()).then(|| made.proof()).transpose());
        let dossier = made.dossier(ready.command.clone());
        (dossier, proof.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (dossier, proof) = (dossier?, proof?);
    into.add("report.md", markdown::report(&dossier, flavour(input)).as_bytes())?;
    into.add("report.html", html::report(&dossier).as_bytes())?;
    let mut document = Vec::new();
    json::document(&dossier.report, &mut document)?;
    into.add("report.json", &document)?;
    let mut says = evidence::NONE.to_owned();
    if let Some(proof) = proof {
        let mut names = Vec::new();
        for (n, file) in proof.files.iter().enumerate() {
            let name = evidence::name(Path::new("evidence.pcapng"), &proof, file, n);
            into.add(&name, &file.octets)?;
            names.push(PathBuf::from(name));
        }
        says = evidence::says(made, &proof, &names);
    }
    into.finish()?;
    if !input.quiet {
        eprintln!("tcpwhy: {says}");
        eprintln!("tcpwhy: {} holds the report; sha256sum -c SHA256SUMS checks it", output.display());
    }
    Ok(exit_code(&made.report, input.fail_on))
}

/// Files that travel together.
struct Bundle {
    path: PathBuf,
    place: Place,
    /// Lines of SHA256SUMS.
    sums: String,
}

enum Place {
    Folder,
    Zip(Box<ZipWriter<BufWriter<File>>>),
}

impl Bundle {
    /// A folder that is made if need be, or a file that ends with `.zip`.
    fn begin(path: &Path) -> Result<Self> {
        let zipped = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")) && !path.is_dir();
        let place = if zipped {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Place::Zip(Box::new(ZipWriter::new(BufWriter::new(file))))
        } else {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            Place::Folder
        };
        Ok(Self { path: path.to_owned(), place, sums: String::new() })
    }

    fn add(&mut self, name: &str, octets: &[u8]) -> Result<()> {
        let hash: String = Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect();
        self.sums.push_str(&format!("{hash}  {name}\n"));
        self.put(name, octets)
    }

    fn put(&mut self, name: &str, octets: &[u8]) -> Result<()> {
        let path = &self.path;
        match &mut self.place {
            Place::Folder => {
                let file = path.join(name);
                fs::write(&file, octets).with_context(|| format!("cannot write {}", file.display()))
            }
            Place::Zip(zip) => {
                let written = zip.start_file(name, SimpleFileOptions::default()).map_err(io::Error::from);
                let written = written.and_then(|()| zip.write_all(octets));
                written.with_context(|| format!("cannot write {name} into {}", path.display()))
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        let sums = std::mem::take(&mut self.sums);
        self.put("SHA256SUMS", sums.as_bytes())?;
        if let Place::Zip(zip) = self.place {
            let done = zip.finish().map_err(io::Error::from).and_then(|mut out| out.flush());
            done.with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(())
    }
}
