//! Several inputs: pieces of one capture, and captures made side by side, are told apart by themselves.

mod support;

use tcpwhy::{Diagnosis, Report};

fn capture(name: &str) -> String {
    support::root().join("captures/rules").join(name).to_string_lossy().into_owned()
}

fn together(inputs: &[String], workers: usize) -> Report {
    Diagnosis::new().workers(workers).open(inputs).and_then(|opened| opened.run()).expect("a report")
}

fn both() -> [String; 2] {
    [capture("reply-from-other-address/client-hangs.pcap"), capture("asymmetric-return-path/two-gateways-hang.pcap")]
}

#[test]
fn the_same_connection_in_two_captures_is_counted_once() {
    let report = together(&both(), 1);
    assert_eq!((report.counts.flows.total, report.incidents.len()), (2, 1));
    let flow = report.flows.iter().find(|flow| flow.server == "193.70.55.124:80").expect("the connection");
    assert_eq!(flow.faces.len(), 1, "{:?}", flow.faces);
    assert!(report.captures[1].clock.as_ref().is_some_and(|clock| clock.of == 0 && clock.says.contains("of input 1")));
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let [one, four] = [1, 4].map(|workers| serde_json::to_string(&together(&both(), workers)).expect("JSON"));
    assert_eq!(one, four);
}

#[test]
fn labels_make_points_too() {
    let [client, server] = both();
    let report = together(&[format!("client={client}"), format!("vm={server}")], 1);
    assert_eq!(report.incidents[0].rule, "asymmetric-return-path");
    let told = report.incidents[0].what_happened.join(" ");
    assert!(told.contains("that are in vm are not in client"), "{told}");
}

/// Splits a pcap after its first `records` packets, as tcpdump -C does.
fn pieces(path: &str, records: usize) -> [std::path::PathBuf; 2] {
    let octets = std::fs::read(path).expect("a capture");
    let mut at = 24;
    for _ in 0..records {
        let length: [u8; 4] = octets[at + 8..at + 12].try_into().expect("a record");
        at += 16 + u32::from_le_bytes(length) as usize;
    }
    let folder = support::folder("points");
    let [one, two] = ["1.pcap", "2.pcap"].map(|name| folder.join(name));
    std::fs::write(&one, &octets[..at]).expect("written");
    std::fs::write(&two, [&octets[..24], &octets[at..]].concat()).expect("written");
    [one, two]
}

#[test]
fn pieces_of_one_capture_are_one_point() {
    let whole = capture("asymmetric-return-path/two-gateways-hang.pcap");
    let parts = pieces(&whole, 9);
    let names = parts.each_ref().map(|part| part.to_string_lossy().into_owned());
    let (split, whole) = (together(&names, 1), together(&[whole], 1));
    std::fs::remove_dir_all(parts[0].parent().expect("a folder")).expect("removed");
    assert_eq!(split.counts.flows, whole.counts.flows);
    assert_eq!(split.incidents[0].headline, whole.incidents[0].headline);
    assert_eq!(split.flows[0].packets, whole.flows[0].packets);
    assert!(split.captures.iter().all(|capture| capture.clock.is_none()));
}

#[test]
fn a_ladder_is_made_of_the_packets_of_one_point() {
    let ladder = Diagnosis::new().ladder(&both(), 1, 2).expect("a ladder");
    assert_eq!((ladder.flow.file, ladder.flow.id), (1, 1));
    let packets: u64 = ladder.steps.iter().map(|rung| rung.count).sum();
    assert_eq!(packets, 25);
}

#[test]
fn translated_packets_in_one_capture_are_one_connection() {
    let report = Diagnosis::new()
        .all_flows(true)
        .open(&[capture("reply-from-other-address/not-destination-nat.pcap")])
        .and_then(|opened| opened.run())
        .expect("a report");
    assert_eq!(report.counts.flows.total, 1);
    assert_eq!(report.flows.len(), 1);
    assert!(report.flows[0].faces[0].contains("(DNAT) 10.224.26.2:80"), "{:?}", report.flows[0].faces);
}

fn incident(name: &str) -> String {
    support::root().join("captures/incidents").join(name).to_string_lossy().into_owned()
}

#[test]
fn files_of_two_interfaces_of_one_host_are_one_capture() {
    for story in ["hang", "rst", "drop"] {
        let inputs = ["eth0", "eth1"].map(|name| incident(&format!("asymmetric/vm-{name}-{story}.pcap")));
        let report = together(&inputs, 1);
        let root = &report.incidents[0];
        assert_eq!((report.incidents.len(), root.rule.as_str()), (1, "asymmetric-return-path"), "{story}");
        assert!(
            root.headline.contains(&format!("asked on the interface of vm-eth1-{story}.pcap")),
            "{}",
            root.headline
        );
        assert_eq!(report.captures[0].together_with, [1]);
        // Requests and answers of every connection are one flow.
        assert_eq!(report.counts.flows.undecided, 0, "{story}");
        let [one, four] = [1, 4].map(|workers| serde_json::to_string(&together(&inputs, workers)).expect("JSON"));
        assert_eq!(one, four, "{story}");
    }
}

#[test]
fn what_came_back_another_way_is_not_called_lost() {
    let inputs = ["asymmetric/client-hang.pcap", "asymmetric/vm-any-hang.pcap"].map(incident);
    let report = together(&[format!("client={}", inputs[0]), format!("vm={}", inputs[1])], 1);
    let root = &report.incidents[0];
    assert_eq!(root.rule, "asymmetric-return-path");
    let told = root.what_happened.join(" ");
    assert!(told.contains("not in client: they came from 192.0.2.137:80"), "{told}");
    assert!(!told.contains("lost in between"), "{told}");
    // Packets of both inputs, in the order of one clock, and said once.
    let files: std::collections::BTreeSet<u16> = root.evidence.iter().map(|evidence| evidence.file).collect();
    assert_eq!(files.len(), 2);
    assert_eq!(told.matches("in the order of one clock").count(), 1, "{told}");
}

#[test]
fn what_a_firewall_on_the_way_drops_is_lost_in_between() {
    let server = incident("asymmetric/not-firewall-on-the-way-back.pcap");
    let octets = std::fs::read(&server).expect("a capture");
    let folder = support::folder("lost");
    let client = folder.join("client.pcap");
    std::fs::write(&client, as_the_client_sees_it(&octets)).expect("written");
    let inputs = [format!("client={}", client.to_string_lossy()), format!("vm={server}")];
    let report = together(&inputs, 1);
    std::fs::remove_dir_all(&folder).expect("removed");
    let told = report.incidents[0].what_happened.join(" ");
    assert!(told.contains("not in client: lost in between"), "{told}");
    assert!(!told.contains("another way"), "{told}");
}

/// The capture without what the router drops: of the server's packets from port 80 only SYN+ACKs pass.
fn as_the_client_sees_it(octets: &[u8]) -> Vec<u8> {
    let mut seen = octets[..24].to_vec();
    let mut at = 24;
    while let Some(head) = octets.get(at..at + 16) {
        let length: [u8; 4] = head[8..12].try_into().expect("a record");
        let end = at + 16 + u32::from_le_bytes(length) as usize;
        // SLL2 has 20 octets, IPv4 without options 20 more.
        let packet = &octets[at + 16 + 20..end];
        let from_web = packet.len() > 34 && packet[9] == 6 && packet[20..22] == [0, 80];
        if !from_web || packet[33] & 0x12 == 0x12 {
            seen.extend_from_slice(&octets[at..end]);
        }
        at = end;
    }
    seen
}
