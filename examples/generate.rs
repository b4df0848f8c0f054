//! Writes generated traffic: `cargo run --release --example generate -- mix 1G mix.pcap` (mix, faults, small, flood, storm; `-` = stdout).

#[path = "../benches/generate/mod.rs"]
mod generate;

use std::fs::File;
use std::io::{self, BufWriter, Write};

use generate::Shape;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [shape, size, path] = arguments.as_slice() else {
        eprintln!("usage: generate mix|faults|small|flood|storm SIZE[K|M|G] FILE|-");
        std::process::exit(2);
    };
    let shape = match shape.as_str() {
        "mix" => Shape::Mix,
        "faults" => Shape::Faults,
        "small" => Shape::Small,
        "flood" => Shape::Flood,
        "storm" => Shape::Storm,
        other => {
            eprintln!("{other} is no shape of traffic");
            std::process::exit(2);
        }
    };
    let (number, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 1,
    };
    let octets = number.parse::<u64>().unwrap_or(0) * unit;
    let out: Box<dyn Write> = if path == "-" { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let totals = generate::write(shape, octets, 1, &mut out)?;
    out.flush()?;
    eprintln!("{} octets, {} packets, {} flows", totals.octets, totals.packets, totals.flows);
    Ok(())
}
