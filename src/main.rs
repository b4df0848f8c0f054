//! `tcpwhy`: parse, run, print the error chain, exit code.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

// A capture is millions of short-lived flows: a third of the time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcpwhy: {error:#}");
            ExitCode::from(2)
        }
    }
}
