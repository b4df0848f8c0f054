//! What to capture, where, and how long, as lines to paste.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// A host or a port of one: `10.0.0.5`, `10.0.0.5:443`, `[2001:db8::1]:443`.
struct Wanted {
    address: IpAddr,
    port: Option<u16>,
}

/// Prints the plan for these ends; without any, for everything.
pub(super) fn plan(ends: &[String]) -> Result<ExitCode> {
    let wanted = ends.iter().map(|end| parse(end)).collect::<Result<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    out.write_all(text(&wanted).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn parse(end: &str) -> Result<Wanted> {
    if let Ok(address) = end.parse() {
        return Ok(Wanted { address, port: None });
    }
    if let Ok(socket) = end.parse::<std::net::SocketAddr>() {
        return Ok(Wanted { address: socket.ip(), port: Some(socket.port()) });
    }
    bail!(
        "{end} is no address: capture-plan takes ADDRESS, ADDRESS:PORT or [IPv6]:PORT (a name may move while you capture)"
    )
}

/// tcpdump's expression. Without ICMP, ARP and DNS every "nothing answered" is weaker, so they are always in it.
fn expression(wanted: &[Wanted]) -> String {
    let hosts = wanted.iter().map(|end| match end.port {
        // ICMP errors about the port come from other hosts and match by their own term.
        Some(port) => format!("(host {} and tcp port {port})", end.address),
        None => format!("host {}", end.address),
    });
    hosts.chain(["icmp", "icmp6", "arp", "port 53"].map(str::to_owned)).collect::<Vec<_>>().join(" or ")
}

fn text(wanted: &[Wanted]) -> String {
    let filter = match wanted {
        [] => String::new(),
        _ => format!(" '{}'", expression(wanted)),
    };
    let tcpdump = |to: &str| format!("tcpdump -i any -y LINUX_SLL2 -s 0 -B 16384 {to}{filter}");
    let ring = tcpdump("-C 200 -W 10 -w \"/var/tmp/$(hostname)-$(date -u +%Y%m%dT%H%M%SZ).pcap\"");
    let probe = wanted.iter().find_map(|end| {
        let host = match end.address {
            IpAddr::V6(address) => format!("[{address}]"),
            IpAddr::V4(address) => address.to_string(),
        };
        let scheme = match end.port? {
            80 | 3000 | 8000 | 8080 => "http",
            443 | 4443 | 8443 => "https",
            _ => return None,
        };
        Some(format!("curl -skv -m 20 -o /dev/null {scheme}://{host}:{}/", end.port?))
    });
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line("WHERE     on the proxy, which sees both legs; or else on the host that makes the failing");
    line("          connections: it sees at least who closes first. `-i any` with LINUX_SLL2 keeps the");
    line("          interface of every packet (leave -y LINUX_SLL2 out where tcpdump refuses it). During a");
    line("          network outage a host is reached by its console or management network only.");
    line("START     a ring of ten files of 200 MB, headers and payload, with ICMP, ARP and DNS:");
    line(&format!("  sudo {ring}"));
    match probe {
        Some(probe) => {
            line("MEANWHILE once, from where it fails, while the capture runs:");
            line(&format!("  {probe}"));
        }
        None => line("MEANWHILE once, what fails, from where it fails, while the capture runs."),
    }
    line("HOW LONG  the longest timeout involved and 10 s more (60 s is the default of most proxies: 70 s),");
    line("          and one connection that works, for comparison. Then Ctrl-C once.");
    line("LOOK      all pieces of the ring at once (move captures of another incident away first):");
    line("  tcpwhy \"/var/tmp/$(hostname)-\"*.pcap*");
    line("LIVE      what breaks, as it breaks; the packets that prove it go to the folder:");
    line(&format!("  sudo tcpwhy live -i any --evidence /var/tmp/proof{filter}"));
    line("POD       on its node (ID: container); the second from a workstation (C: container's name in POD):");
    line(
        "  sudo nsenter -t \"$(crictl inspect --output go-template --template '{{.info.pid}}' ID)\" -n tcpdump -i any -y LINUX_SLL2 -s 0 -w /var/tmp/ID.pcap",
    );
    line("  kubectl debug -q -i POD --image=nicolaka/netshoot --target=C -- tcpdump -i any -U -s 0 -w - > POD.pcap");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_always_holds_what_absence_is_proven_with() {
        let wanted = [parse("10.0.0.5:443").expect("an end"), parse("2001:db8::1").expect("an address")];
        assert_eq!(
            expression(&wanted),
            "(host 10.0.0.5 and tcp port 443) or host 2001:db8::1 or icmp or icmp6 or arp or port 53"
        );
    }

    #[test]
    fn a_name_is_refused_with_the_reason() {
        let why = parse("lb.example:443").err().expect("refused").to_string();
        assert!(why.contains("is no address"), "{why}");
    }

    #[test]
    fn the_probe_fits_the_port_and_brackets_ipv6() {
        let plan = text(&[parse("[2001:db8::1]:8443").expect("an end")]);
        assert!(plan.contains("https://[2001:db8::1]:8443/"), "{plan}");
        for ends in [vec![], vec![parse("10.0.0.5:5432").expect("an end")]] {
            assert!(!text(&ends).contains("curl"), "PostgreSQL is not asked by curl");
        }
    }
}
