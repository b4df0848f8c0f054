//! The lookups on one flow: which DNS question got which answer.

use smallvec::{SmallVec, smallvec};

use crate::event::story::Story;
use crate::event::{PacketRef, Side, What};
use crate::flow::facts::FlowFacts;
use crate::time::Elapsed;
use crate::wire::dns::DnsMessage;

/// The opcode of a query; updates and notifications of servers look nothing up. RFC 1035 §4.1.1.
const QUERY: u8 = 0;

/// One question, its repeats and its answer.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    /// The question as it was first asked.
    pub question: &'a DnsMessage,
    /// Every copy of it: never empty.
    pub asked: SmallVec<[PacketRef; 1]>,
    /// The answer.
    pub answer: Option<(PacketRef, &'a DnsMessage)>,
}

impl Lookup<'_> {
    /// The first copy.
    pub fn first(&self) -> PacketRef {
        self.asked.first().copied().unwrap_or(PacketRef { file: 0, number: 0, time: Default::default() })
    }

    /// From the first copy to the answer.
    pub fn delay(&self) -> Option<Elapsed> {
        Some(self.answer?.0.time.since(self.first().time))
    }
}

/// The lookups of a story in the order of their first copies. An answer belongs to the question with its id, name and type.
pub fn lookups(story: &Story) -> SmallVec<[Lookup<'_>; 1]> {
    let mut list: SmallVec<[Lookup<'_>; 1]> = SmallVec::new();
    for event in story.events() {
        let What::Dns(message) = &event.what else { continue };
        let message: &DnsMessage = message;
        if message.opcode != QUERY {
            continue;
        }
        let same = |known: &&mut Lookup<'_>| {
            let question = known.question;
            question.id == message.id
                && (message.name.is_empty() || (&question.name, question.qtype) == (&message.name, message.qtype))
        };
        match (event.side, message.response) {
            (Side::Client, false) => match list.iter_mut().find(same) {
                Some(known) if known.answer.is_none() => known.asked.push(event.at),
                Some(_) => {}
                None => list.push(Lookup { question: message, asked: smallvec![event.at], answer: None }),
            },
            (Side::Server, true) => {
                if let Some(known) = list.iter_mut().find(same).filter(|known| known.answer.is_none()) {
                    known.answer = Some((event.at, message));
                }
            }
            _ => {}
        }
    }
    list
}

/// Whether one DNS server was asked: multicast DNS, LLMNR and NetBIOS names ask everybody, and nobody must answer. RFC 6762, RFC 4795,
/// RFC 1002 §4.2.
pub fn unicast(facts: &FlowFacts) -> bool {
    let everybody = |port: u16| matches!(port, 137 | 5353 | 5355);
    let one_host = match facts.server.address.to_ip() {
        std::net::IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => !ip.is_multicast(),
    };
    one_host && !everybody(facts.server.port) && !everybody(facts.client.port)
}

/// The name people use for a record type. RFC 1035 §3.2.2.
pub fn type_name(qtype: u16) -> String {
    match qtype {
        1 => "A".into(),
        2 => "NS".into(),
        5 => "CNAME".into(),
        6 => "SOA".into(),
        12 => "PTR".into(),
        15 => "MX".into(),
        16 => "TXT".into(),
        28 => "AAAA".into(),
        33 => "SRV".into(),
        65 => "HTTPS".into(),
        other => format!("TYPE{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, dns_answer, dns_question};

    #[test]
    fn a_repeated_question_is_one_lookup_and_its_answer_ends_it() {
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Client, 1, dns_question(8, "a.example", 28))
            .event(Side::Client, 5001, dns_question(7, "a.example", 1))
            .event(Side::Server, 5003, dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]));
        let list = lookups(&scene.story);
        assert_eq!(list.iter().map(|lookup| lookup.asked.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(list[0].delay(), Some(Elapsed::millis(5003)));
        assert_eq!(list[1].delay(), None);
    }

    #[test]
    fn a_dynamic_update_looks_nothing_up() {
        let update = |message: What| match message {
            What::Dns(message) => What::Dns(Box::new(DnsMessage { opcode: 5, ..*message })),
            other => other,
        };
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .event(Side::Client, 0, update(dns_question(7, "a.example", 6)))
            .event(Side::Server, 3, update(dns_answer(7, "a.example", 6, 5, &[])));
        assert!(lookups(&scene.story).is_empty());
    }

    #[test]
    fn an_answer_to_another_name_is_none() {
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Server, 3, dns_answer(7, "b.example", 1, 0, &["192.0.2.1"]));
        assert!(lookups(&scene.story)[0].answer.is_none());
    }

    #[test]
    fn questions_to_everybody_need_no_answer() {
        let asks = |server: &str| unicast(&Scene::between("10.0.0.1:5353", server).facts);
        assert!(!asks("224.0.0.251:5353"));
        assert!(!unicast(&Scene::between("10.0.0.1:40000", "224.0.0.252:5355").facts));
        assert!(!unicast(&Scene::between("10.0.0.1:137", "10.0.0.255:137").facts));
        assert!(unicast(&Scene::between("10.0.0.1:40000", "10.0.0.53:53").facts));
    }
}
