//! Addresses that mean the same everywhere: health checkers and front ends of cloud load balancers, metadata services, resolvers of clouds
//! and nodes, shared address space. Such an address is not "a client" and not "the server".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Address;

/// A range with what it is and what follows from it.
struct Range {
    first: IpAddr,
    bits: u32,
    says: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32, says: &'static str) -> Range {
    Range { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits, says }
}

const fn v6(segments: [u16; 8], bits: u32, says: &'static str) -> Range {
    let [a, b, c, d, e, f, g, h] = segments;
    Range { first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), bits, says }
}

const GOOGLE: &str = "a front end or health checker of Google Cloud: the client is in X-Forwarded-For";
const METADATA: &str = "the metadata service of the cloud";
const AMAZON_DNS: &str = "the resolver of an AWS VPC";

/// The narrower range first.
const RANGES: &[Range] = &[
    v4(35, 191, 0, 0, 16, GOOGLE),
    v4(130, 211, 0, 0, 22, GOOGLE),
    v6([0x2600, 0x2d00, 1, 0xb029, 0, 0, 0, 0], 64, GOOGLE),
    v4(169, 254, 169, 254, 32, "the metadata service of the cloud (in Google Cloud the resolver as well)"),
    v4(169, 254, 169, 253, 32, AMAZON_DNS),
    v4(169, 254, 169, 123, 32, "the time server of AWS"),
    v4(169, 254, 170, 2, 32, "the metadata service of Amazon ECS tasks"),
    v4(169, 254, 170, 23, 32, "the pod identity agent of Amazon EKS"),
    v4(169, 254, 20, 10, 32, "by default the node-local DNS cache of Kubernetes"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, METADATA),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253], 128, AMAZON_DNS),
    v4(168, 63, 129, 16, 32, "the platform of Azure: health probes, DHCP and DNS"),
    v4(100, 100, 100, 200, 32, "the metadata service of Alibaba Cloud"),
    v4(
        100,
        64,
        0,
        0,
        10,
        "shared address space (RFC 6598): carrier NAT, overlay or pods; one address may be many clients",
    ),
];

/// Names of services in which clouds and clusters hide many machines behind one name.
const SUFFIXES: &[(&str, &str)] = &[
    (".elb.amazonaws.com", "a load balancer of AWS"),
    (".cloudfront.net", "a front end of CloudFront"),
    (".azurefd.net", "a front end of Azure Front Door"),
    (".trafficmanager.net", "chosen by Azure Traffic Manager"),
    (".fastly.net", "a front end of Fastly"),
    (".akamaiedge.net", "a front end of Akamai"),
    (".svc.cluster.local", "a service of Kubernetes"),
];

/// What an address is, wherever it is seen.
pub fn address(address: Address) -> Option<&'static str> {
    let ip = address.to_ip();
    RANGES.iter().find(|range| range.holds(ip)).map(|range| range.says)
}

/// What a host of this name is.
pub fn name(name: &str) -> Option<&'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, says)| *says)
}

/// Whether an address is a front end or health checker of a public load balancer.
pub fn is_balancer(host: Address) -> bool {
    address(host) == Some(GOOGLE)
}

impl Range {
    fn holds(&self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => (first.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<&'static str> {
        let ip: IpAddr = text.parse().expect("an address");
        address(match ip {
            IpAddr::V4(ip) => Address::v4(ip.octets()),
            IpAddr::V6(ip) => Address::v6(ip.octets()),
        })
    }

    #[test]
    fn ranges_end_where_they_end() {
        assert_eq!((of("35.191.255.255"), of("35.192.0.0")), (Some(GOOGLE), None));
        assert_eq!((of("130.211.3.255"), of("130.211.4.0")), (Some(GOOGLE), None));
        assert!(of("100.64.0.1").is_some_and(|says| says.contains("RFC 6598")));
        assert_eq!((of("100.128.0.0"), of("100.63.255.255")), (None, None));
        assert_eq!(of("100.100.100.200"), Some("the metadata service of Alibaba Cloud"));
        assert_eq!((of("fd00:ec2::254"), of("fd00:ec2::255")), (Some(METADATA), None));
        assert_eq!((of("192.0.2.1"), of("2001:db8::1")), (None, None));
    }

    #[test]
    fn names_of_clouds_are_known_by_their_end() {
        assert_eq!(name("internal-app-1.eu-west-1.ELB.amazonaws.com."), Some("a load balancer of AWS"));
        assert_eq!(name("elb.amazonaws.com.example.net"), None);
    }
}
