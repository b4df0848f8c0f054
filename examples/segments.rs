//! How every segment with payload came: one line of input, packet number and `new`, `late`, `doubled`, `timeout`, `fast`, `tail-probe` or `spurious` (sent again).
//!
//! `cargo run --example segments -- FILE…` For measuring against other tools and against known truth (captures/lab/accuracy.py): the report
//! tells only the first of an episode. Copies that the capture itself made are `new`, segments without payload are left out.

use std::collections::BTreeMap;
use std::process::ExitCode;

use tcpwhy::capture::{OpenOptions, Source};
use tcpwhy::decode::{Decoder, Transport};
use tcpwhy::event::{Event, PacketRef, Retransmission, Side};
use tcpwhy::flow::facts::FlowFacts;
use tcpwhy::flow::table::{FlowTable, Limits};
use tcpwhy::flow::{Came, Ended, FlowHead, Sink, Wants};
use tcpwhy::time::Timestamp;

/// What was said of each packet; the latest word counts.
#[derive(Default)]
struct Judged(BTreeMap<(u16, u64), &'static str>);

impl Sink for Judged {
    type Conversation = ();

    fn open(&mut self, _: &FlowHead) {}

    fn event(&mut self, _: &FlowHead, _: &mut (), _: Event) {}

    fn bytes(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, _: &[u8]) -> Wants {
        Wants::More
    }

    fn gap(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, _: u64) {}

    fn datagram(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, _: &[u8], _: u32) -> Wants {
        Wants::Nothing
    }

    fn end(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef) {}

    fn judged(&mut self, _: &FlowHead, _: &mut (), at: PacketRef, came: Came) {
        let word = match came {
            Came::Late => "late",
            Came::Doubled => "doubled",
            Came::Again(Retransmission::Timeout) => "timeout",
            Came::Again(Retransmission::Fast) => "fast",
            Came::Again(Retransmission::TailProbe) => "tail-probe",
            Came::Again(Retransmission::Spurious) => "spurious",
        };
        self.0.insert((at.file, at.number), word);
    }

    fn closed(&mut self, _: Box<FlowFacts>, _: (), _: Ended, _: Timestamp) {}
}

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: segments FILE…");
        return ExitCode::from(2);
    }
    for (index, file) in files.iter().enumerate() {
        match segments(file) {
            Ok(lines) => lines.iter().for_each(|(number, word)| println!("{index}\t{number}\t{word}")),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

pub fn segments(file: &str) -> tcpwhy::Result<Vec<(u64, &'static str)>> {
    let mut source = Source::open(&[file], &OpenOptions::default())?;
    let (mut decoder, mut judged) = (Decoder::new(Default::default()), Judged::default());
    let mut table = FlowTable::new(Limits::default(), 1);
    let (mut payloads, mut second, mut last) = (Vec::new(), i64::MIN, Timestamp::MIN);
    while let Some(frame) = source.next()? {
        last = last.max(frame.time);
        if last.second() > second {
            second = last.second();
            table.tick(Timestamp(second.saturating_mul(1_000_000_000)), &mut judged);
        }
        let packet = decoder.decode(&frame);
        if matches!(&packet.transport, Transport::Tcp(segment) if segment.payload_len > 0) {
            payloads.push((frame.file, frame.number));
        }
        table.packet(&packet, &mut judged);
    }
    table.finish(last, &mut judged);
    let word = |key: &(u16, u64)| judged.0.get(key).copied().unwrap_or("new");
    Ok(payloads.iter().map(|key| (key.1, word(key))).collect())
}
