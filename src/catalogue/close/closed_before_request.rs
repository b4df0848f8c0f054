//! The server closed right after accepting, before the client had said anything.
//!
//! ## How tcpwhy knows
//! The handshake was completed, and within 5 s the server sent FIN or RST although the client had sent nothing, or nothing that the
//! server took. The client had not closed before. A limit of connections, a deny rule, or a proxy in TCP mode whose backend failed.
//!
//! ## What it is not
//! - A client that connects and leaves (`lb-health-check-noise`): there the client closes first.
//! - `closed-without-answer`: there the server had taken the client's octets.
//!
//! ## What people see
//! `curl: (52)` or `(56)`, "kex_exchange_identification: Connection closed by remote host", MySQL's error 2013 "Lost connection at
//! 'reading initial communication packet'".
//!
//! ## False alarms it avoids
//! A browser's unused connection that the server drops at its timeout lives longer than 5 s. A server that speaks first and then closes
//! has answered, unless its words are a refusal.

use crate::event::{Kind, ResetKind, Side, What};
use crate::flow::facts::Handshake;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "closed-before-request",
    title: "the server closed right after accepting, before the client spoke",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Established]).and_any(&[Kind::Fin, Kind::Reset]),
    symptom: true,
    says: "{server} accepted {client_host} and closed {after} later, before it heard a word",
    variants: &["{server} refused {client_host} in its greeting and closed {after} after accepting"],
    users_see: &[
        "curl: (52) Empty reply from server",
        "curl: (56) Recv failure: Connection reset by peer",
        "curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL",
        "kex_exchange_identification: Connection closed by remote host",
        "ERROR 2013 (HY000): Lost connection to MySQL server at 'reading initial communication packet'",
    ],
    do_first: &[
        Step {
            says: "On {host}: how many connections does the service hold? Compare with its limit:",
            command: "ss -tn state established 'sport = :{port}' | wc -l",
        },
        Step {
            says: "On {host}: does the log name a limit, a deny rule or a dead backend?",
            command: "sudo journalctl --since '15 min ago' -p info",
        },
    ],
    verify: &[Step {
        says: "from the client's host, without a word; 124 after 3 s means that it stayed open:",
        command: "timeout 3 bash -c 'cat </dev/tcp/{host}/{port}'; echo $?",
    }],
    not: &[
        ("lb-health-check-noise", "the server closed first"),
        ("closed-without-answer", "the server had taken no octet of the client"),
    ],
    cannot_show: &["why the server closed: a limit, a deny rule or a failed backend"],
    sources: &[
        "RFC 9293 §3.6",
        "measured: HAProxy tcp-request connection reject closes by RST+ACK, a dead backend by FIN",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let opened = flow.facts.established.filter(|_| flow.facts.handshake == Handshake::Full)?;
    let (closer, close) = flow.facts.closer?;
    let after = close.time.since(opened.time);
    if closer != Side::Server || after >= flow.thresholds.closed_early || !unheard(flow) {
        return None;
    }
    // Where packets are missing (a filter that takes SYN and FIN alone), the numbers say that octets went to and fro before the end; and the
    // ACK of the handshake is one that came later.
    let [client, server] = [flow.client(), flow.server()];
    if close < opened || [client, server].iter().any(|half| half.never_came() > 0 || half.unseen > 0) {
        return None;
    }
    if flow.facts.reset(Side::Server).is_some_and(|reset| reset.at == close && reset.kind == ResetKind::Edge) {
        return None;
    }
    let refusal = flow
        .story
        .events()
        .find(|e| e.side == Side::Server && e.at <= close && matches!(&e.what, What::Greeting(words) if words.refuses));
    if flow.server().payload > 0 && refusal.is_none() {
        return None;
    }
    let word = flow.close_word(Side::Server);
    let finding = RULE
        .found(flow, close, Side::Server, format!("{word} {after} after the handshake: the client had said nothing"))
        .and(opened, Side::Client, "ACK: the handshake is complete")
        .with("after", after);
    Some(match refusal {
        Some(words) => finding.and(words.at, Side::Server, "the greeting is a refusal").variant(1),
        None => finding,
    })
}

/// The client had sent nothing when the server closed, or nothing that the server took.
fn unheard(flow: &FlowView<'_>) -> bool {
    let Some((_, close)) = flow.facts.closer else { return false };
    let Some(first) = flow.client().first_payload else { return true };
    // A RST without ACK answers octets of a connection the host does not know: stray-reset.
    let untaken = flow.facts.reset(Side::Server).is_some_and(|reset| {
        let unread = reset.kind == ResetKind::Abort && reset.unread > 0;
        reset.at == close && unread && flow.client().acknowledged == 0
    });
    first > close || untaken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;
    use crate::wire::text::Greeting;

    #[test]
    fn a_fin_right_after_the_handshake_is_told() {
        let finding = Scene::open().fin(Side::Server, 3).fin(Side::Client, 5).check(&RULE).expect("closed");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (4, 3));
        assert!(finding.evidence[0].shows.starts_with("FIN 1 ms after"));
    }

    #[test]
    fn a_reset_that_takes_none_of_the_clients_octets_counts_as_unheard() {
        let scene = Scene::open().data(Side::Client, 3, 80).rst(Side::Server, 4, ResetKind::Abort, 80);
        assert!(scene.check(&RULE).is_some());
    }

    #[test]
    fn a_checker_that_closes_first_is_no_failure() {
        assert_eq!(Scene::open().fin(Side::Client, 3).fin(Side::Server, 4).check(&RULE), None);
    }

    #[test]
    fn an_unused_connection_dropped_at_the_servers_timeout_is_no_failure() {
        assert_eq!(Scene::open().fin(Side::Server, 60_002).check(&RULE), None);
        assert_eq!(Scene::open().fin(Side::Server, 5_002).check(&RULE), None);
    }

    #[test]
    fn a_server_that_speaks_and_closes_has_answered() {
        let scene = Scene::open().data(Side::Server, 3, 26).fin(Side::Server, 4);
        assert_eq!(scene.clone().check(&RULE), None);
        let words = Greeting { text: "421 too many connections".into(), code: Some(421), refuses: true };
        let refused = Scene::open().data(Side::Server, 3, 26).also(Side::Server, What::Greeting(Box::new(words)));
        assert_eq!(refused.fin(Side::Server, 4).check(&RULE).expect("refused").variant, 1);
    }

    #[test]
    fn octets_that_the_server_took_are_another_rules_business() {
        let scene = Scene::open().data(Side::Client, 3, 28).acked(Side::Client, 4).fin(Side::Server, 5);
        assert_eq!(scene.check(&RULE), None);
    }
}
