//! Writes generated traffic as pcap, the same for the same arguments:
//! `cargo run --release --example generate -- mix 1G mix.pcap` (shapes: healthy, benign, mix, small, outage, flood, storm, evil; `-` is standard output).
//! Of `evil` there is each attack by its name as well: `generate attacks` lists them.

#[path = "../benches/generate/mod.rs"]
mod generate;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use generate::Shape;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["attacks"] {
        Shape::attacks().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let asked = match arguments.as_slice() {
        [word, size, path] => Shape::named(word).zip(octets(size)).map(|(shape, octets)| (shape, octets, path)),
        _ => None,
    };
    let Some((shape, octets, path)) = asked else {
        eprintln!(
            "usage: generate healthy|benign|mix|small|outage|flood|storm|evil|ATTACK SIZE[K|M|G] FILE|-, or: generate attacks"
        );
        return ExitCode::from(2);
    };
    match write(shape, octets, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {path}: {error}");
            ExitCode::from(2)
        }
    }
}

fn write(shape: Shape, octets: u64, path: &str) -> io::Result<()> {
    let out: Box<dyn Write> = if path == "-" { Box::new(io::stdout().lock()) } else { Box::new(File::create(path)?) };
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let totals = generate::write(shape, octets, 1, &mut out)?;
    out.flush()?;
    eprintln!("{} octets, {} packets, {} flows", totals.octets, totals.packets, totals.flows);
    Ok(())
}

/// `1G` and the like; units are powers of 1,000, as packet rates and disks are counted.
fn octets(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(char::is_alphabetic);
    let unit = match &size[digits.len()..] {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
