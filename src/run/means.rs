//! What an event means, in a few words beside its packet.

use crate::diagnose::format::rfc3339;
use crate::event::{Event, What};
use crate::wire::h2::{Settings, error_name};

fn on_stream(number: u32) -> String {
    if number == 0 { String::new() } else { format!("stream {number}: ") }
}

fn path(target: &str) -> &str {
    // A placeholder of HTTP/2 begins with a question mark.
    if target.starts_with('?') { target } else { target.split('?').next().unwrap_or("") }
}

/// A status; 0 where the field that holds it was never seen.
fn status(status: u16) -> String {
    if status == 0 { "status unknown".into() } else { status.to_string() }
}

fn settings_in_words(settings: &Settings) -> String {
    let list = [
        ("at most", settings.concurrent, "streams at once"),
        ("window", settings.window, "octets"),
        ("header table", settings.header_table, "octets"),
        ("frames of", settings.frame, "octets"),
    ];
    let known = list.iter().filter_map(|(what, value, unit)| value.map(|value| format!("{what} {value} {unit}")));
    let words: Vec<String> = known.collect();
    if words.is_empty() { "SETTINGS".into() } else { format!("SETTINGS: {}", words.join(", ")) }
}

/// An event in a few words; `None` for those the flags say already.
pub(super) fn meaning(event: &Event) -> Option<String> {
    Some(match &event.what {
        What::SynRetransmitted { after } => format!("the same SYN again, {after} after the first"),
        What::SynAckRetransmitted { after } => format!("the same SYN+ACK again, {after} after the first"),
        What::Reset { kind, unread } if *unread > 0 => format!("{kind:?} reset, {unread} octets unread").to_lowercase(),
        What::Reset { kind, .. } => format!("{kind:?} reset").to_lowercase(),
        What::Retransmitted { kind, .. } => format!("retransmission ({kind:?})").to_lowercase(),
        What::Reordered => "came late, out of order".into(),
        What::CaptureHole { missing } => format!("acknowledges {missing} octets the capture never saw"),
        What::OverlapConflict => "other octets than the first copy had".into(),
        What::KeepAlive => "keep-alive probe".into(),
        What::KeepAliveAnswered => "answers the keep-alive".into(),
        What::ZeroWindow => "receive window closed".into(),
        What::WindowOpened { after } => format!("receive window open again after {after}"),
        What::ZeroWindowProbe => "probes the closed window".into(),
        What::CutShort => "cut short by the capture".into(),
        What::Icmp(error) => format!("ICMP type {} code {} about this flow", error.kind, error.code),
        What::ProxyHeader(header) => match header.source {
            Some(source) => format!("PROXY v{} header, {} octets, client {source}", header.version, header.len),
            None => format!("PROXY v{} header, {} octets, no client address", header.version, header.len),
        },
        What::ProxyHeaderAgain(_) => "a second PROXY header".into(),
        What::ProxyBroken(broken) => {
            format!("PROXY v{} header that breaks a rule: {}", broken.version, broken.rule.says())
        }
        What::ClientHello(hello) => match &hello.sni {
            Some(name) => format!("ClientHello for {name}"),
            None => "ClientHello without a name".into(),
        },
        What::ServerHello(hello) if hello.retry_request => "HelloRetryRequest".into(),
        What::ServerHello(hello) => format!("ServerHello, {}", crate::wire::tls::version_name(hello.version)),
        What::Certificates(chain) => match chain.first() {
            Some(leaf) => format!("Certificate of {}, valid until {}", leaf.subject, rfc3339(leaf.not_after)),
            None => "empty Certificate".into(),
        },
        What::AlertPlain(alert) => {
            let level = if alert.fatal() { "fatal" } else { "warning" };
            format!("{level} alert {} {}", alert.description, alert.name())
        }
        What::CertificateSealed { len } => format!("sealed Certificate (by its size, {len} octets)"),
        What::AlertEncrypted { .. } => "encrypted alert (by its size)".into(),
        What::TlsData => "application data begins".into(),
        What::TlsBroken => "plain text where a TLS record must begin".into(),
        // Query values may be secrets: they are shown by no text output.
        What::Request(head) => format!("{}{} {}", on_stream(head.stream), head.method, path(&head.target)),
        What::Response(head) if head.stream > 0 => format!("{}{}", on_stream(head.stream), status(head.status)),
        What::Response(head) => format!("{} {}", head.status, head.reason),
        What::Settings(settings) => settings_in_words(settings),
        What::SettingsTaken => "confirms the SETTINGS".into(),
        What::StreamEnd { stream } => format!("stream {stream}: complete"),
        What::StreamReset(reset) => format!("stream {}: reset, {}", reset.stream.number, error_name(reset.code)),
        What::GoAway(farewell) => match farewell.away.debug.as_str() {
            "" => format!("GOAWAY, {}, last stream {}", error_name(farewell.away.code), farewell.away.last),
            words => format!("GOAWAY, {}, last stream {}: {words}", error_name(farewell.away.code), farewell.away.last),
        },
        What::GrpcStatus(call) => {
            format!("stream {}: grpc-status {} {}", call.stream.number, call.status, call.message)
        }
        What::StreamWindowClosed { stream, whole: false } => format!("stream {stream}: its window is used up"),
        What::StreamWindowClosed { stream, whole: true } => {
            format!("stream {stream}: the connection's window is used up")
        }
        What::StreamWindowOpened { stream, after } => format!("stream {stream}: the window opens again after {after}"),
        What::FieldsUnknown => "header fields that were sent before the capture or in a hole: ?62 and so on".into(),
        What::ResponseTruncated { .. } => "the response ends before its promised length".into(),
        What::Dns(message) if message.response => format!("DNS answer for {}, rcode {}", message.name, message.rcode),
        What::Dns(message) => format!("DNS query for {}", message.name),
        What::Greeting(greeting) => greeting.text.clone(),
        What::Failure(failure) => failure.text.clone(),
        What::CommandWaits { command } => command.clone(),
        What::AnswerLate(_) => "a late answer begins".into(),
        _ => return None,
    })
}
