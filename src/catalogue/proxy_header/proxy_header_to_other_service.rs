//! A PROXY protocol header was sent to a service that does not speak it: SSH, SMTP, Redis, PostgreSQL or MySQL.
//!
//! ## How tcpwhy knows
//! The client's first octets are a whole PROXY header, and the server answers in its own language that it does not understand: sshd prints
//! its banner, `Invalid SSH identification string.` and resets; Redis says `-ERR unknown command 'PROXY'`; an SMTP server says 500;
//! PostgreSQL closes without an octet. A service that greets before it has read the header does not read such headers either.
//!
//! ## What it is not
//! - A receiver that reads the header and refuses the client in it, as MariaDB does with `Host '…' is not allowed to connect`: then the
//!   text names the address inside the header.
//! - `service-greeting-error`: the bare refusal, here with its cause.
//!
//! ## What people see
//! The client's log shows the service's complaint: `kex_exchange_identification`, `unknown command 'PROXY'`, `500 Error: command "PROXY" not
//! recognized`. sshd logs `client sent invalid protocol identifier`, PostgreSQL `invalid length of startup packet`.
//!
//! ## False alarms it avoids
//! A receiver that strips the header (HAProxy `accept-proxy`, Postfix `smtpd_upstream_proxy_protocol`) is silent: the service's greeting
//! comes, no complaint follows and the server does not close. A port that took headers from others is silent.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, header};
use crate::wire::proxy::ProxyHeader;

/// A banner (RFC 4253 §4.2: at most 255 octets) and a line of complaint.
const FEW_WORDS: u64 = 512;

pub static RULE: Rule = Rule {
    id: "proxy-header-to-other-service",
    title: "a PROXY protocol header was sent to a service that does not speak it",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader]).and_any(&[Kind::Greeting, Kind::Fin, Kind::Reset]),
    says: "{client_host} sends a PROXY header to {service}, which does not read it: {server}",
    users_see: &[
        "kex_exchange_identification",
        "client sent invalid protocol identifier",
        "Invalid SSH identification string.",
        "invalid length of startup packet",
        "unknown command 'PROXY'",
        "500 Error: command \"PROXY\" not recognized",
    ],
    do_first: &[
        Step {
            says: "Which service is meant to listen on port {port} of {host}?",
            command: "ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "Which line of the proxy sends the header there?",
            command: "grep -nE 'send-proxy|:{port}' /etc/haproxy/haproxy.cfg",
        },
    ],
    fix: &[
        Fix {
            says: "Remove send-proxy or send-proxy-v2 from the server line, then reload.",
            command: "systemctl reload haproxy",
            risk: "the service sees the proxy's address instead of the client's",
        },
        Fix {
            says: "Or switch it on: Postfix smtpd_upstream_proxy_protocol=haproxy; MariaDB proxy-protocol-networks; sshd, Redis and PostgreSQL cannot: put mmproxy or go-mmproxy in front.",
            command: "",
            risk: "from then on connections without the header fail on that port",
        },
    ],
    verify: &[Step {
        says: "without the header the service greets, or waits, and does not complain:",
        command: "nc -w 3 {host} {port} </dev/null",
    }],
    cannot_show: &["where the proxy took this port from: its configuration, a state file, or its API"],
    explains: &[
        Explains("service-greeting-error", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("upstream-hang", Scope::SameOrLink),
        Explains("server-error-in-protocol", Scope::SameOrLink),
        Explains("proxy-upstream-closed", Scope::SameOrLink),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 6",
        "measured on OpenSSH 9.2, Redis 7.0, PostgreSQL 15, MariaDB 10.11",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    if header::has_a_fault_of_its_own(flow) {
        return None;
    }
    let Some(refusal) = mismatch::refusal(flow) else { return unanswered(flow, at, proxy) };
    let (protocol, said, shows, confidence) = match refusal {
        Refusal::Words(first, protocol, _) if mismatch::is_service(protocol) => {
            let (said, shows) = complaint(flow, proxy, at, first, protocol)?;
            (protocol, said, shows, Confidence::Certain)
        }
        refusal @ Refusal::Closed(close, _) => {
            let protocol = mismatch::by_number(flow.facts.server.port).filter(|p| mismatch::is_service(*p))?;
            (protocol, close, refusal.shows(flow), Confidence::Medium)
        }
        _ => return None,
    };
    let finding = RULE
        .found(flow, at, Side::Client, header::shows(proxy))
        .confidence(confidence)
        .and(said, Side::Server, shows)
        .with("service", protocol.name());
    Some(header::fill(mismatch::rules_out_path(finding, flow), proxy))
}

/// Redis takes a version 2 header for the beginning of a line without end, and waits for the rest (measured: Redis 7).
fn unanswered(flow: &FlowView<'_>, at: PacketRef, proxy: &ProxyHeader) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let redis = |protocol| protocol == Some(Protocol::Redis);
    let waits = redis(flow.protocol(Side::Client)) || redis(mismatch::by_number(flow.facts.server.port));
    let silent = server.payload + server.unseen + client.unseen == 0 && !flow.facts.mid_stream;
    let (asked, had) = (client.last_payload?, client.first_payload_acked?);
    let waited = flow.waited_since(asked);
    if !waits || !silent || proxy.version != 2 || waited < flow.thresholds.gave_up {
        return None;
    }
    let finding = RULE
        .found(flow, at, Side::Client, header::shows(proxy))
        .confidence(Confidence::Medium)
        .and(had, Side::Server, format!("acknowledged, and no octet of an answer in {waited}"))
        .with("service", Protocol::Redis.name());
    Some(header::fill(finding, proxy))
}

/// The packet by which the service shows that it did not read the header.
fn complaint(
    flow: &FlowView<'_>,
    proxy: &ProxyHeader,
    header: PacketRef,
    first: PacketRef,
    protocol: Protocol,
) -> Option<(PacketRef, String)> {
    let words = flow.story.events().filter(|e| e.side == Side::Server).find_map(|e| match &e.what {
        What::Greeting(words) if objects(&words.text, words.refuses, proxy) => Some((e.at, words.text.clone())),
        _ => None,
    });
    let bannered = mismatch::greets_first(protocol) && protocol != Protocol::Mysql;
    match words {
        Some(words) => Some(words),
        None if first < header && bannered => {
            Some((first, "the service greets before the header: it waits for none".into()))
        }
        None if protocol == Protocol::Ssh => hangs_up(flow, first),
        None => None,
    }
}

/// Whether the server's words are about the header. A refusal that names the client inside the header comes from a server that read it.
fn objects(text: &str, refuses: bool, proxy: &ProxyHeader) -> bool {
    let quotes_header = text.contains("PROXY") || text.contains("QUIT");
    let names_client = proxy.source.is_some_and(|source| text.contains(&source.address.to_string()));
    quotes_header || (refuses && !names_client)
}

/// An SSH server that closes behind its banner: no key exchange fits into so few octets.
fn hangs_up(flow: &FlowView<'_>, first: PacketRef) -> Option<(PacketRef, String)> {
    let (closer, close) = flow.facts.closer?;
    let octets = flow.server().payload;
    let soon = close.time.since(first.time) <= flow.thresholds.refusal;
    (closer == Side::Server && soon && octets <= FEW_WORDS)
        .then(|| (close, format!("{} after {octets} octets: no more than a banner", flow.close_word(Side::Server))))
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    if mismatch::behind_header(capture, &server).is_some() {
        return Keep::Drop;
    }
    for protocol in mismatch::SERVICES {
        if let Some(spoke) = mismatch::to_others(capture, &server, protocol) {
            finding.confidence = Confidence::Certain;
            mismatch::cite_control(finding, &spoke, "the service without the header");
        }
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, proxy_header};
    use crate::wire::text::Greeting;

    fn header(server: &str) -> Scene {
        let header = proxy_header(1, "35.229.69.78:22", 46);
        Scene::between("10.224.26.1:56118", server)
            .handshake()
            .data(Side::Client, 3, 46)
            .speaks(Side::Client, Protocol::Proxy)
            .also(Side::Client, What::ProxyHeader(Box::new(header)))
    }

    fn words(scene: Scene, protocol: Protocol, text: &str, refuses: bool) -> Scene {
        let greeting = Greeting { text: text.into(), code: None, refuses };
        scene
            .data(Side::Server, 8, text.len() as u32)
            .speaks(Side::Server, protocol)
            .also(Side::Server, What::Greeting(Box::new(greeting)))
    }

    #[test]
    fn a_complaint_about_the_header_is_certain() {
        let found = words(
            header("10.0.0.2:6379"),
            Protocol::Redis,
            "-ERR unknown command 'PROXY', args: 'TCP4' '203.0.113.7'",
            true,
        )
        .check(&RULE);
        assert!(found.expect("Redis complains").evidence[1].shows.contains("unknown command 'PROXY'"));
    }

    #[test]
    fn a_banner_and_a_reset_are_a_complaint() {
        let scene = words(header("10.0.0.2:22"), Protocol::Ssh, "SSH-2.0-OpenSSH_9.2p1", false);
        let found = scene.data(Side::Server, 8, 36).rst(Side::Server, 9, ResetKind::Abort, 40).check(&RULE);
        assert!(found.expect("sshd hangs up").evidence[1].shows.starts_with("RST after"));
    }

    #[test]
    fn a_banner_and_a_session_are_silent() {
        let scene = words(header("10.0.0.2:22"), Protocol::Ssh, "SSH-2.0-OpenSSH_9.2p1", false);
        assert!(scene.data(Side::Server, 9, 1088).fin(Side::Client, 130).fin(Side::Server, 131).check(&RULE).is_none());
    }

    #[test]
    fn a_refusal_that_names_the_client_in_the_header_has_read_it() {
        let text = "Host '203.0.113.7' is not allowed to connect to this MariaDB server";
        let scene = words(header("10.0.0.2:3306"), Protocol::Mysql, text, true);
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_short_conversation_in_mail_is_silent() {
        let scene = words(header("10.0.0.2:25"), Protocol::Smtp, "220 mail ESMTP", false);
        assert!(scene.data(Side::Server, 9, 20).fin(Side::Server, 10).check(&RULE).is_none());
    }

    #[test]
    fn postgresql_closes_without_an_octet() {
        let found = header("10.0.0.2:5432").fin(Side::Server, 4).check(&RULE).expect("port 5432");
        assert_eq!(found.confidence, Confidence::Medium);
        assert!(header("10.0.0.2:8080").fin(Side::Server, 4).check(&RULE).is_none());
    }
}
