//! A TLS server closed in the middle of a record: the end of what it sent is missing, and its client says so.
//!
//! ## How tcpwhy knows
//! The header of a TLS record says how long it is; the server's FIN comes before so many octets did, with none missing from the capture. The
//! server closed first. No TLS library ends like that: a process was ended while it sent, or a proxy in the middle cut the stream.
//!
//! ## What it is not
//! - A close without close_notify between two records, which half of all servers do: silent, since the client knows by the length of
//!   the answer whether it is whole (RFC 9112 §9.8), and a capture cannot look inside.
//! - `server-reset-mid-response`: there a RST ended it.
//! - `client-abandoned`: there the client closed first.
//!
//! ## What people see
//! OpenSSL 3: "unexpected eof while reading"; curl (56); Go: "unexpected EOF"; Java: "Remote host terminated the handshake", "SSL peer shut
//! down incorrectly"; downloads that end early.
//!
//! ## False alarms it avoids
//! Clients that leave first, connections with a hole or whose beginning was not captured, handshakes that are not over.

use crate::event::{Kind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Recovery, Rule, Step};

pub static RULE: Rule = Rule {
    id: "tls-truncated-close",
    title: "a TLS server closed in the middle of a record",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::TlsCut, Kind::Fin]),
    symptom: true,
    says: "{server} closed in the middle of a TLS record: {missing} are missing, and what it sent is not whole",
    users_see: &[
        "unexpected eof while reading",
        "SSL_ERROR_EOF",
        "curl: (56) OpenSSL SSL_read: error:0A000126:SSL routines::unexpected eof while reading",
        "unexpected EOF",
        "SSL peer shut down incorrectly",
        "EOF occurred in violation of protocol",
    ],
    do_first: &[
        Step {
            says: "On {host}: was the service ended or restarted at that second, or did it crash?",
            command: "sudo journalctl --since '15 min ago' -p warning; sudo dmesg -T | tail",
        },
        Step {
            says: "On {host}: which process holds the port? A TCP proxy there cuts what another host sent.",
            command: "sudo ss -ltnp 'sport = :{port}'",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; (56) means that it is still cut:",
        command: "curl -sSk -o /dev/null -m 30 https://{host}:{port}/",
    }],
    not: &[("client-abandoned", "the server's FIN came first"), ("network", "no octet before the FIN is missing")],
    cannot_show: &["what was cut: it is encrypted"],
    sources: &["RFC 8446 §5.1, §6.1", "RFC 9112 §9.8", "measured: OpenSSL 3.0, curl 7.88"],
    check: Check::Flow(check),
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, missing) = flow.story.find(Kind::TlsCut, |event| match &event.what {
        What::TlsCut { missing } if event.side == Side::Server => Some((event.at, *missing)),
        _ => None,
    })?;
    let fin = flow.server().fin?;
    let holes = [flow.client(), flow.server()].iter().any(|half| half.unseen + half.cut > 0);
    if at != fin || !flow.closed_first(Side::Server) || holes {
        return None;
    }
    let missing = missing.map_or("parts of its header".to_owned(), |missing| format!("{missing} octets of it"));
    Some(
        RULE.found(flow, fin, Side::Server, "FIN inside of a TLS record")
            .and_maybe(flow.server().last_payload.filter(|last| *last < fin), Side::Server, "the last octets before it")
            .with("missing", missing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;

    fn download() -> Scene {
        let asked = Scene::open().data(Side::Client, 3, 517).speaks(Side::Client, Protocol::Tls);
        asked.data(Side::Server, 5, 1448).speaks(Side::Server, Protocol::Tls)
    }

    fn cut(side: Side, scene: Scene) -> Scene {
        scene.also(side, What::TlsCut { missing: Some(700) })
    }

    #[test]
    fn a_fin_inside_of_a_record_cites_itself_and_the_last_octets() {
        let finding = cut(Side::Server, download().fin(Side::Server, 9)).check(&RULE).expect("cut");
        assert_eq!(finding.evidence.iter().map(|told| told.at.number).collect::<Vec<_>>(), [6, 5]);
    }

    #[test]
    fn whoever_leaves_first_is_the_one_that_cuts() {
        let left = download().fin(Side::Client, 8);
        assert_eq!(cut(Side::Server, left.fin(Side::Server, 9)).check(&RULE), None);
        assert_eq!(cut(Side::Client, download().fin(Side::Client, 8)).check(&RULE), None);
        assert_eq!(download().fin(Side::Server, 9).check(&RULE), None, "between two records");
    }
}
