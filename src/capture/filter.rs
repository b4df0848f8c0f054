//! `--filter` in tcpdump's language, compiled by libpcap for each link type when it is first met.
//!
//! Expressions about the link layer (`ether`, `vlan`) do not compile for link types without one: their packets are passed over and counted
//! with libpcap's reason. Only an expression that fits none of the link types met is an error.
//!
//! Of a frame that the snaplen cut, the expression sees what was kept: `len`, `less` and `greater` mean kept octets there.

use super::Frame;
#[cfg(feature = "libpcap")]
use super::LinkType;
use crate::error::{Error, ErrorKind, Result};

/// Whether a frame is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It matches.
    Yes,
    /// It does not, or the expression does not fit its link type.
    No,
}

/// A filter expression.
pub struct Filter {
    #[cfg(feature = "libpcap")]
    expression: String,
    #[cfg(feature = "libpcap")]
    programs: Vec<(LinkType, std::result::Result<pcap::BpfProgram, String>, u64)>,
}

#[cfg(feature = "libpcap")]
impl Filter {
    /// A filter; what cannot be parsed is refused here.
    ///
    /// # Errors
    /// When the expression is no expression: it compiles for none of the link types that have words of their own.
    pub fn new(expression: &str) -> Result<Self> {
        if let Err(why) = compile(LinkType::ETHERNET, expression)
            && PROBES.iter().all(|link| compile(LinkType(*link), expression).is_err())
        {
            return Err(Error::usage(format!("the filter {expression:?} does not compile: {why}")));
        }
        Ok(Self { expression: expression.into(), programs: Vec::new() })
    }

    /// Whether the frame matches.
    pub fn pass(&mut self, frame: &Frame<'_>) -> Pass {
        let n = match self.programs.iter().position(|(link, ..)| *link == frame.link) {
            Some(n) => n,
            None => {
                self.programs.push((frame.link, compile(frame.link, &self.expression), 0));
                self.programs.len() - 1
            }
        };
        match &mut self.programs[n] {
            (_, Ok(program), _) if program.filter(frame.bytes) => Pass::Yes,
            (_, Ok(_), _) => Pass::No,
            (_, Err(_), passed_over) => {
                *passed_over += 1;
                Pass::No
            }
        }
    }

    /// Link types the expression does not fit: name, packets passed over, libpcap's reason.
    pub fn refused(&self) -> Vec<(String, u64, String)> {
        let refused = self.programs.iter().filter_map(|(link, program, packets)| match program {
            Ok(_) => None,
            Err(why) => Some((link.name().to_owned(), *packets, why.clone())),
        });
        refused.collect()
    }

    /// # Errors
    /// When packets were read and the expression fits none of their link types.
    pub fn check_used(&self) -> Result<()> {
        match self.programs.first() {
            Some((link, Err(why), _)) if self.programs.iter().all(|(_, program, _)| program.is_err()) => {
                let message = format!("the filter {:?} does not fit {}: {why}", self.expression, link.name());
                Err(Error::new(ErrorKind::Usage, message))
            }
            _ => Ok(()),
        }
    }
}

/// Link types whose words do not compile for Ethernet: raw IP, radiotap (`wlan`, `type mgt`), pflog (`on`, `action`), Linux cooked v2
/// (`ifindex`), PPP with a direction (`inbound`), SunATM (`vpi`), MTP2 (`fisu`).
#[cfg(feature = "libpcap")]
const PROBES: &[u16] = &[101, 127, 117, 276, 204, 123, 140];

#[cfg(feature = "libpcap")]
fn compile(link: LinkType, expression: &str) -> std::result::Result<pcap::BpfProgram, String> {
    let dead = pcap::Capture::dead(pcap::Linktype(i32::from(link.dlt()))).map_err(|error| error.to_string())?;
    dead.compile(expression, true).map_err(|error| match error {
        pcap::Error::PcapError(why) => why,
        other => other.to_string(),
    })
}

#[cfg(not(feature = "libpcap"))]
impl Filter {
    /// # Errors
    /// Always: this build has no libpcap.
    pub fn new(_expression: &str) -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "--filter needs libpcap, which this build was made without"))
    }

    /// Whether the frame matches.
    pub fn pass(&mut self, _frame: &Frame<'_>) -> Pass {
        Pass::Yes
    }

    /// Link types the expression does not fit.
    pub fn refused(&self) -> Vec<(String, u64, String)> {
        Vec::new()
    }

    /// # Errors
    /// Never.
    pub fn check_used(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(all(test, feature = "libpcap"))]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn frame(link: LinkType, bytes: &[u8]) -> Frame<'_> {
        let wire_len = bytes.len() as u32;
        Frame {
            file: 0,
            point: 0,
            number: 1,
            time: Timestamp(0),
            interface: 0,
            link,
            wire_len,
            bytes,
            offset: 0,
            flags: 0,
        }
    }

    /// An IPv4 header of a TCP packet to 10.0.0.5, and the ports 1234 > 443.
    const PACKET: &[u8] = &[
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 5, 4, 0xd2, 1, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0,
        0x50, 2, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn raw_ip_of_a_file_is_compiled_for_libpcaps_own_number() {
        let mut filter = Filter::new("tcp port 443 and host 10.0.0.5").expect("an expression");
        assert_eq!(filter.pass(&frame(LinkType::RAW, PACKET)), Pass::Yes);
        assert_eq!(Filter::new("udp").expect("an expression").pass(&frame(LinkType::RAW, PACKET)), Pass::No);
    }

    #[test]
    fn a_link_type_the_expression_does_not_fit_is_passed_over_and_named() {
        let mut filter = Filter::new("ether host 02:00:00:00:00:01").expect("an expression for Ethernet");
        assert_eq!(filter.pass(&frame(LinkType::RAW, PACKET)), Pass::No);
        assert_eq!(filter.refused().len(), 1);
        assert_eq!(filter.refused()[0].1, 1);
        assert!(filter.check_used().is_err());
        filter.pass(&frame(LinkType::ETHERNET, PACKET));
        assert!(filter.check_used().is_ok());
    }

    #[test]
    fn words_of_other_link_types_are_no_nonsense() {
        for expression in ["type mgt", "ifindex 3", "action pass", "fisu", "vpi 3"] {
            assert!(Filter::new(expression).is_ok(), "{expression}");
        }
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        assert!(Filter::new("tcp prot 80").is_err());
    }
}
