//! The Certificate message of TLS ≤ 1.2 (RFC 5246 §7.4.2) and what its certificates say (RFC 5280). Nothing is verified: a capture
//! shows what was sent, not what the client trusts.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use tls_parser::TlsMessageHandshake;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::Certificate;
use super::hello::whole;
use crate::time::Timestamp;
use crate::wire::{Malformed, text_of};

/// Certificates read of one chain.
const MOST: usize = 16;
/// Names read of one certificate.
const MOST_NAMES: usize = 64;

/// Reads a Certificate message, its four octets of header included; the chain in the order sent, at most 16, leaf first, up to the first
/// that cannot be read.
///
/// # Errors
/// `limit: Slice` when octets of the message are missing, `limit: Field` when its lengths contradict each other or the leaf cannot be read.
pub fn parse_certificates(message: &[u8]) -> Result<Vec<Certificate>, Malformed> {
    let TlsMessageHandshake::Certificate(list) = whole(message, "Certificate")? else {
        return Err(Malformed::field("Certificate", 0));
    };
    let chain: Vec<_> = list.cert_chain.iter().take(MOST).map_while(|raw| parse_certificate(raw.data)).collect();
    if chain.is_empty() && !list.cert_chain.is_empty() {
        // Header, length of the list and length of the leaf: 4 + 3 + 3 octets.
        return Err(Malformed::field("certificate", 10));
    }
    Ok(chain)
}

fn parse_certificate(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (subject, issuer) = (certificate.subject(), certificate.issuer());
    let validity = certificate.validity();
    Some(Certificate {
        subject: text_of(subject.to_string().as_bytes(), 256).into(),
        issuer: text_of(issuer.to_string().as_bytes(), 256).into(),
        serial: serial(certificate.raw_serial()),
        not_before: moment(validity.not_before),
        not_after: moment(validity.not_after),
        names: names(&certificate),
        self_signed: subject.as_raw() == issuer.as_raw(),
    })
}

/// The serial number in hex, without the sign octet that DER puts before numbers with a high first bit.
fn serial(raw: &[u8]) -> String {
    let digits = raw.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(raw);
    digits.iter().take(32).fold(String::new(), |mut hex, octet| {
        let _ = write!(hex, "{octet:02X}");
        hex
    })
}

fn moment(time: ASN1Time) -> Timestamp {
    Timestamp(time.timestamp().saturating_mul(1_000_000_000))
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let lists = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(list) => Some(&list.general_names),
        _ => None,
    });
    lists.flatten().filter_map(name).take(MOST_NAMES).collect()
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match *general {
        GeneralName::DNSName(name) => Some(text_of(name.as_bytes(), 255).into()),
        GeneralName::IPAddress(octets) => match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
            (Ok(v4), _) => Some(Ipv4Addr::from(v4).to_string()),
            (_, Ok(v6)) => Some(Ipv6Addr::from(v6).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Limit;
    use crate::wire::samples::{self, octets};
    use crate::wire::tls::{HandshakeJoiner, RecordHeader, handshake};

    /// The Certificate message of the recorded server.
    fn message() -> Vec<u8> {
        let flight = octets(samples::SERVER_FLIGHT_12);
        let (mut joiner, mut rest, mut found) = (HandshakeJoiner::default(), &flight[..], Vec::new());
        while let Ok(header) = RecordHeader::parse(rest) {
            let (record, later) = rest.split_at(RecordHeader::LEN + usize::from(header.len));
            joiner
                .push(&record[RecordHeader::LEN..], |message| {
                    if message.kind == handshake::CERTIFICATE {
                        found = message.bytes.to_vec();
                    }
                })
                .expect("short messages");
            rest = later;
        }
        found
    }

    #[test]
    fn a_recorded_certificate_says_who_it_is_for_and_how_long() {
        let chain = parse_certificates(&message()).expect("whole");
        let [leaf] = &chain[..] else { panic!("{chain:?}") };
        assert_eq!(
            (leaf.subject.as_str(), leaf.issuer.as_str(), leaf.serial.as_str()),
            ("CN=app.test", "CN=Lab CA", "1000")
        );
        // 2024-01-01T00:00:00Z to 2024-04-01T00:00:00Z.
        assert_eq!(leaf.not_before, Timestamp(1_704_067_200_000_000_000));
        assert_eq!(leaf.not_after, Timestamp(1_711_929_600_000_000_000));
        assert_eq!(leaf.names, ["app.test"]);
        assert!(!leaf.self_signed);
    }

    #[test]
    fn an_empty_list_is_no_error() {
        assert_eq!(parse_certificates(&octets("0b000003000000")), Ok(Vec::new()));
    }

    #[test]
    fn an_unreadable_certificate_ends_the_chain() {
        assert!(parse_certificates(&octets("0b000007 000004 000001 00")).is_err());
    }

    #[test]
    fn every_truncation_is_said_to_be_short() {
        let message = message();
        for end in 0..message.len() {
            assert_eq!(
                parse_certificates(&message[..end]).map_err(|malformed| malformed.limit),
                Err(Limit::Slice),
                "{end}"
            );
        }
    }

    #[test]
    fn the_sign_octet_is_no_part_of_the_serial_number() {
        assert_eq!(serial(&[0x00, 0xab, 0x01]), "AB01");
        assert_eq!(serial(&[0x00]), "00");
    }

    proptest! {
        #[test]
        fn no_octets_panic(at: usize, to: u8, noise: Vec<u8>) {
            let mut message = message();
            let at = at % message.len();
            message[at] = to;
            let _ = parse_certificates(&message);
            parse_certificate(&noise);
        }
    }
}
