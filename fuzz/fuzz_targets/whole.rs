//! Any octets through the whole pipeline: open, read, decode, flows, protocols, rules, report, text and JSON.
//! Nothing may panic, hang or grow without bound, and the text must hold no control character.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpwhy::capture::Source;
use tcpwhy::{Diagnosis, render};

fuzz_target!(|octets: &[u8]| {
    let reader = Box::new(std::io::Cursor::new(octets.to_vec()));
    let Ok(source) = Source::from_readers(vec![("x".into(), reader as _)]) else { return };
    let Ok(opened) = Diagnosis::new().workers(1).all_flows(true).source(source) else { return };
    let Ok(report) = opened.run() else { return };
    let text = render::text::report(&report, Default::default());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character reached the terminal");
    let mut json = Vec::new();
    render::json::document(&report, &mut json).expect("writing to memory");
    let back: tcpwhy::Report = serde_json::from_slice(&json).expect("its own JSON");
    assert_eq!(back, report);
});
