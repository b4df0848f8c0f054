//! Asks a server in the protocol of the flow. Rules about any protocol give their commands for plain HTTP; where the flow spoke something
//! else, that command would fail on a healthy server, and be taken for the fault.

use std::borrow::Cow;

use crate::event::{Protocol, Side, What};
use crate::flow::facts::IpProtocol;
use crate::rule::Step;
use crate::rule::summary::{FlowSummary, protocol_of, spoken};

/// The part of a rule's command that asks the flow's server by plain HTTP.
const HTTP: &str = "http://{host}:{port}/";
/// The same, where the rule knows which page.
const PATH: &str = "http://{host}:{port}{path}";

/// Question and command of a rule's step, as templates, for a flow that spoke something else than HTTP.
pub(super) fn fitting(step: &Step, flow: Option<&FlowSummary>) -> (Cow<'static, str>, Cow<'static, str>) {
    let as_it_is = (step.says.into(), step.command.into());
    if let Some(command) = flow.and_then(|flow| by_datagrams(step, flow).or_else(|| through_proxy(step, flow))) {
        return (step.says.into(), command.into());
    }
    let asks = [HTTP, PATH].into_iter().find(|url| step.command.contains(url));
    let (Some(flow), Some(url)) = (flow, asks) else { return as_it_is };
    let spoke = spoken(&flow.story).or_else(|| protocol_of(&flow.story, Side::Client));
    let (command, tells) = match spoke {
        Some(Protocol::Http) | None => return as_it_is,
        Some(Protocol::Tls) => {
            let command = step.command.replace(url, "https://{host}:{port}/").replacen("curl ", "curl -k ", 1);
            return (step.says.into(), command.into());
        }
        Some(Protocol::Http2) => {
            return (step.says.into(), step.command.replace(url, &format!("--http2-prior-knowledge {url}")).into());
        }
        Some(Protocol::Redis) => ("redis-cli -h {host} -p {port} ping", "PONG means that it answers"),
        Some(Protocol::Mysql) => {
            ("mysqladmin -h {host} -P {port} --connect-timeout=5 ping", "'mysqld is alive' means that it answers")
        }
        Some(Protocol::Postgres) => {
            ("pg_isready -h {host} -p {port} -t 5", "'accepting connections' means that it answers")
        }
        Some(Protocol::Ssh) => ("ssh-keyscan -T 5 -p {port} {host}", "a key means that it answers"),
        Some(Protocol::Smtp) => ("nc -w 5 {host} {port} </dev/null", "a line with 220 means that it answers"),
        Some(Protocol::Ftp) => ("nc -w 5 {host} {port} </dev/null", "a line with 220 means that it answers"),
        Some(Protocol::Imap) => ("nc -w 5 {host} {port} </dev/null", "a line with * OK means that it answers"),
        Some(Protocol::Pop3) => ("nc -w 5 {host} {port} </dev/null", "a line with +OK means that it answers"),
        Some(Protocol::Amqp) => (
            "printf 'AMQP\\000\\000\\011\\001' | nc -w 5 {host} {port} | head -c 200 | strings",
            "the name of a product means that it answers",
        ),
        Some(Protocol::Mqtt) => (
            "timeout 5 mosquitto_sub -h {host} -p {port} -t '$SYS/broker/version' -C 1 -d",
            "CONNACK (0) means that it answers",
        ),
        Some(Protocol::Dns) => ("dig +tcp +time=5 +tries=1 -p {port} @{host} . NS", "any status means that it answers"),
        Some(Protocol::Proxy | Protocol::Unknown) => {
            ("nc -vz -w 5 {host} {port}", "it shows no more than that the port accepts")
        }
    };
    // A question stays; what to expect of the other command does not.
    let says = match step.says.ends_with('?') {
        true => step.says.into(),
        false => format!("from the client's host; {tells}:").into(),
    };
    (says, command.into())
}

/// A port of UDP is not asked by TCP.
fn by_datagrams(step: &Step, flow: &FlowSummary) -> Option<String> {
    let asks = flow.facts.transport == IpProtocol::Udp && step.command.contains("nc -vz ");
    asks.then(|| step.command.replace("nc -vz ", "nc -vzu "))
}

/// The client used the server as a forward proxy (RFC 9112 §3.2.2, §3.2.3): without `-x` the command asks the proxy itself for the page.
fn through_proxy(step: &Step, flow: &FlowSummary) -> Option<String> {
    let url = [HTTP, PATH].into_iter().find(|url| step.command.contains(url) && step.command.contains("curl "))?;
    let asked = flow.story.events().find_map(|event| match &event.what {
        What::Request(head) => Some(head),
        _ => None,
    })?;
    let (scheme, origin) = match asked.method.as_str() {
        "CONNECT" => ("https://", asked.target.as_str()),
        _ => ("http://", asked.target.strip_prefix("http://")?.split(['/', '?', '#']).next()?),
    };
    let harmless = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let named = !origin.is_empty() && origin.chars().all(harmless);
    named.then(|| step.command.replace(url, &format!("-x http://{{host}}:{{port}} {scheme}{origin}/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    const STEP: Step = Step {
        says: "from the client's host; (52) means that it is broken:",
        command: "curl -sS -o /dev/null -m 10 http://{host}:{port}/",
    };

    fn asked(protocol: Protocol) -> (String, String) {
        let scene = Scene::open().data(Side::Client, 3, 28).speaks(Side::Client, protocol);
        let (says, command) = fitting(&STEP, Some(&scene.summary()));
        (says.into_owned(), command.into_owned())
    }

    #[test]
    fn http_is_asked_as_the_rule_says() {
        assert_eq!(asked(Protocol::Http), (STEP.says.to_owned(), STEP.command.to_owned()));
        assert_eq!(fitting(&STEP, None).1, STEP.command);
    }

    #[test]
    fn other_protocols_are_asked_in_their_own_words() {
        assert_eq!(asked(Protocol::Tls).1, "curl -k -sS -o /dev/null -m 10 https://{host}:{port}/");
        assert_eq!(
            asked(Protocol::Redis),
            ("from the client's host; PONG means that it answers:".into(), "redis-cli -h {host} -p {port} ping".into())
        );
        assert!(asked(Protocol::Unknown).1.starts_with("nc -vz "));
    }

    #[test]
    fn a_forward_proxy_is_asked_as_one() {
        let asked = |method: &str, target: &str| {
            let scene = Scene::open().request(3, method, target, 60);
            fitting(&STEP, Some(&scene.summary())).1.into_owned()
        };
        let curl = "curl -sS -o /dev/null -m 10 ";
        let whole = asked("GET", "http://www.example.com/a?b=c");
        assert_eq!(whole, format!("{curl}-x http://{{host}}:{{port}} http://www.example.com/"));
        let tunnel = asked("CONNECT", "www.example.com:443");
        assert_eq!(tunnel, format!("{curl}-x http://{{host}}:{{port}} https://www.example.com:443/"));
        for target in ["/", "http://$(id)/", "http:///"] {
            assert_eq!(asked("GET", target), STEP.command, "{target}");
        }
    }

    #[test]
    fn a_port_of_udp_is_asked_by_datagrams() {
        let step = Step { says: "open?", command: "nc -vz -w 5 {host} {port}" };
        let scene = Scene::new().udp().data(Side::Client, 0, 30);
        assert_eq!(fitting(&step, Some(&scene.summary())).1, "nc -vzu -w 5 {host} {port}");
        assert_eq!(fitting(&step, Some(&Scene::open().summary())).1, step.command);
    }

    #[test]
    fn a_command_that_does_not_ask_by_http_stays() {
        let step = Step { says: "full?", command: "ss -ltn" };
        let scene = Scene::open().speaks(Side::Client, Protocol::Redis);
        assert_eq!(fitting(&step, Some(&scene.summary())).1, "ss -ltn");
    }
}
