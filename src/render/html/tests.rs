//! The page as a whole: well formed, bounded, and harmless whatever the packets say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::diagnose::report::Report;
use crate::run::Diagnosis;
use crate::wire::harmless::is_hidden;

fn dossier(path: &str) -> Dossier {
    let path = format!("{}/captures/{path}", env!("CARGO_MANIFEST_DIR"));
    let made = Diagnosis::new().hash(true).all_flows(true).make(&[path]).expect("a capture");
    made.dossier("tcpwhy capture.pcap".into()).expect("the same capture")
}

const CAPTURES: &[&str] = &[
    "incidents/gitlab/both-legs.pcap",
    "incidents/blackout/all.pcap",
    "incidents/certificates/all-expired-mixed.pcap",
    "incidents/stale-address/haproxy-both-legs.pcap",
    "incidents/asymmetric/vm-any-drop.pcap",
    "healthy/01-rst-after-fin.pcap",
    "broken/empty-file.pcap",
    "broken/header-only.pcap",
    "broken/cut-inside-a-record.pcap",
    "broken/unknown-link-type.pcap",
    "broken/zeros-in-the-middle.pcap",
];

/// A start or end tag with its attributes.
struct Tag<'a> {
    name: &'a str,
    attributes: &'a str,
    end: bool,
}

/// The tags of a page; what is inside scripts and styles is none.
fn tags(html: &str) -> Vec<Tag<'_>> {
    let (mut tags, mut rest) = (Vec::new(), html);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let close = rest.find('>').expect("a tag ends");
        let inside = &rest[..close];
        rest = &rest[close + 1..];
        let end = inside.starts_with('/');
        let inside = inside.trim_start_matches('/');
        let (name, attributes) = inside.split_once([' ', '\n']).unwrap_or((inside, ""));
        tags.push(Tag { name: name.trim_end_matches('/'), attributes, end });
        if !end && (name == "script" || name == "style") {
            rest = &rest[rest.find(&format!("</{name}")).expect("it ends")..];
        }
    }
    tags
}

fn attribute<'a>(tag: &Tag<'a>, name: &str) -> Option<&'a str> {
    let (_, behind) = tag.attributes.split_once(&format!("{name}=\""))?;
    behind.split_once('"').map(|(value, _)| value)
}

/// Tags nest, ids are unique, nothing acts but the page's own script.
fn sound(html: &str) {
    const VOID: &[&str] = &["meta", "link", "input", "br", "!doctype"];
    const DRAWN: &[&str] = &["line", "rect", "circle", "path"];
    let mut open: Vec<&str> = Vec::new();
    let mut ids = BTreeSet::new();
    let mut scripts = 0;
    for tag in tags(html) {
        if VOID.contains(&tag.name) || DRAWN.contains(&tag.name) {
            continue;
        }
        if tag.end {
            assert_eq!(open.pop(), Some(tag.name), "of {open:?}");
            continue;
        }
        open.push(tag.name);
        if let Some(id) = attribute(&tag, " id").or(attribute(&tag, "id").filter(|_| tag.attributes.starts_with("id=")))
        {
            assert!(ids.insert(id.to_owned()), "twice: {id}");
        }
        assert!(!tag.attributes.contains("style="), "{}", tag.attributes);
        for handler in ["onclick", "onload", "onerror", "onmouseover", "src=", "srcset", "action="] {
            let outside: String = tag.attributes.split('"').step_by(2).collect();
            assert!(!outside.contains(handler), "{}", tag.attributes);
        }
        scripts += usize::from(tag.name == "script");
    }
    assert_eq!(open, Vec::<&str>::new());
    assert_eq!(scripts, 2, "the data and the page's own");
    assert!(html.chars().all(|c| c == '\n' || !is_hidden(c)), "something hidden is left");
}

/// The data of the flows.
fn data(html: &str) -> Value {
    let (_, behind) = html.split_once(r#"id="flow-data">"#).expect("data");
    let (json, _) = behind.split_once("</script>").expect("its end");
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn pages_of_real_captures_are_well_formed() {
    for path in CAPTURES {
        let dossier = dossier(path);
        let html = report(&dossier);
        sound(&html);
        for incident in &dossier.report.incidents {
            assert!(html.contains(&incident.id), "{path}: {}", incident.id);
            for evidence in &incident.evidence {
                assert!(html.contains(&format!("frame.number == {}", evidence.packet)), "{path}: {}", evidence.packet);
            }
        }
        assert_eq!(data(&html)["rows"].as_array().map(Vec::len), Some(dossier.report.flows.len()), "{path}");
    }
}

#[test]
fn the_policy_names_the_style_and_the_script_that_are_in_the_page() {
    let html = report(&dossier("incidents/gitlab/both-legs.pcap"));
    let between = |open: &str, close: &str| {
        let (_, behind) = html.split_once(open).expect("it begins");
        behind.split_once(close).expect("it ends").0.to_owned()
    };
    let policy = policy::policy(&between("<style>", "</style>"), &between("<script>", "</script>"));
    assert!(html.contains(&format!(r#"content="{policy}""#)));
}

#[test]
fn two_legs_are_one_drawing_and_every_leg_can_be_opened() {
    let html = report(&dossier("incidents/gitlab/both-legs.pcap"));
    assert!(html.contains("The two legs side by side"));
    assert!(html.contains("linked by ClientHello random and by addresses in the PROXY header (certain)"));
    assert!(html.contains(r#"id="flow-1-424""#) && html.contains(r#"id="flow-1-419""#));
}

/// Every text of a report but those that a program reads is replaced.
fn poisoned(value: &mut Value, key: &str, poison: &str) {
    const READ: &[&str] = &[
        "severity",
        "confidence",
        "role",
        "state",
        "side",
        "leg",
        "verdict",
        "methods",
        "certainty",
        "protocols",
        "time",
        "first",
        "last",
        "last_good",
        "first_bad",
        "recovered_at",
        "start",
        "end",
    ];
    match value {
        Value::String(text) if !READ.contains(&key) => *text = format!("{poison}{text}"),
        Value::Array(list) => list.iter_mut().for_each(|one| poisoned(one, key, poison)),
        Value::Object(map) => map.iter_mut().for_each(|(key, one)| poisoned(one, key, poison)),
        _ => {}
    }
}

#[test]
fn whatever_packets_say_comes_out_as_text() {
    let poison = "</script><script>boom()</script><img src=x onerror=boom()>\"' onmouseover=boom() \u{202e}\0\x1b[31m\u{9b}\
                  |[x](javascript:boom())| $(reboot) `x` &lt; {{ 7*7 }} {% raw %} --> ]]> \u{2028} #12 ";
    let mut dossier = dossier("incidents/gitlab/both-legs.pcap");
    let mut value = serde_json::to_value(&dossier.report).expect("a report is JSON");
    poisoned(&mut value, "", poison);
    dossier.report = serde_json::from_value::<Report>(value).expect("still a report");
    dossier.command = poison.to_owned();
    for ladder in &mut dossier.ladders {
        ladder.flow.client = poison.to_owned();
        ladder.flow.explanation = poison.to_owned();
        ladder.links.push(poison.to_owned());
        ladder.steps.iter_mut().for_each(|rung| {
            rung.what = poison.to_owned();
            rung.means.push(poison.to_owned());
        });
    }
    let html = report(&dossier);
    sound(&html);
    assert!(!html.contains("<img") && !html.contains("<script>boom") && !html.contains("49 "));
    assert!(html.contains(r"\u{202e}\x00\x1b[31m\x9b"));
    assert!(data(&html)["words"].to_string().contains("boom()"), "it is there, as text");
}

#[test]
fn ten_thousand_failing_flows_stay_below_three_megabytes() {
    let mut dossier = dossier("incidents/gitlab/both-legs.pcap");
    let failing = dossier.report.flows.iter().filter(|flow| !flow.findings.is_empty());
    let like: Vec<_> = failing.cloned().collect();
    dossier.report.flows = (0..10_000u64)
        .map(|n| {
            let mut flow = like[n as usize % like.len()].clone();
            let (client, id) = (format!("198.51.{}.{}:{}", n / 250 % 250, n % 250, 1024 + n), 1000 + n * 9);
            flow.explanation = flow.explanation.replace(&flow.client, &client).replace("#4", &format!("#{id}4"));
            (flow.client, flow.id) = (client, id);
            flow.community_id = format!("1:{:027}=", n * 7919);
            flow
        })
        .collect();
    dossier.report.counts.flows.total = 10_000;
    let html = report(&dossier);
    assert!(html.len() < 3_000_000, "{} octets", html.len());
    assert_eq!(data(&html)["rows"].as_array().map(Vec::len), Some(10_000));
}

#[test]
fn what_has_no_room_is_counted() {
    let mut dossier = dossier("incidents/gitlab/both-legs.pcap");
    let like = dossier.report.flows[0].clone();
    dossier.report.flows = (0..60_000u64)
        .map(|n| {
            let mut flow = like.clone();
            flow.id = n;
            flow.explanation =
                format!("{n}").chars().map(|digit| char::from(digit as u8 + 49)).collect::<String>().repeat(30);
            flow
        })
        .collect();
    let html = report(&dossier);
    assert!(html.len() < 3_000_000, "{} octets", html.len());
    let listed = data(&html)["rows"].as_array().map_or(0, Vec::len);
    assert!(html.contains(&format!("There is no room for {} more", 60_000 - listed)));
}

#[test]
fn what_a_drawing_leaves_out_is_counted_and_never_called_silence() {
    let dossier = dossier("rules/packet-loss/fifteen-percent-behind-the-capture.pcap");
    let clocks = moment::Clocks::of(&dossier.report);
    let (cited, ends) = (BTreeSet::new(), clocks.ends(&dossier.report));
    let long = dossier.ladders.iter().find(|ladder| ladder.left_out > 0).expect("a long flow");
    let stage = ladder::Stage { id: "x", legs: &[long], link: None, cited: &cited, clocks: &clocks, ends: &ends };
    let drawing = ladder::draw(&stage);
    let drawn: u64 = drawing.rows.iter().map(|row| row.count).sum();
    assert_eq!(drawn + drawing.left_out, long.flow.packets);
    assert!(drawing.rows.len() <= 44 && drawing.svg.contains("and more, not drawn"));
    // Between #64 and #744 there are packets that are not drawn.
    assert!(!drawing.svg.contains("261 ms later"), "no silence");
}

#[test]
fn a_request_that_is_never_answered_ends_with_the_capture() {
    let dossier = dossier("incidents/hung-fetch/both-sides.pcap");
    let html = report(&dossier);
    assert!(html.contains("nothing more until the capture ends, 26.8 s later"));
}

#[test]
fn a_capture_that_holds_nothing_says_what_to_do() {
    let html = report(&dossier("broken/unknown-link-type.pcap"));
    assert!(html.contains("nothing can be said about any connection") && html.contains("tcpwhy capture-plan"));
    let html = report(&dossier("healthy/01-rst-after-fin.pcap"));
    assert!(html.contains("nothing is broken in 2 flows"));
}
