//! Finds the address of the client that sent a request, also behind proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The address of the client: the last one in `X-Forwarded-For` that a trusted proxy has written.
pub(super) fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_trusted(client, trusted) {
            break;
        }
        // A trusted proxy that writes no address hides the client, so the proxy's own address
        // counts.
        let hop = std::str::from_utf8(hop).unwrap_or_default();
        let Some(address) = parse_address(hop.trim()) else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The part of an address that identifies one household: all of an IPv4 address, the first 64 bits
/// of an IPv6 address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

/// Reads an address. Some proxies add the port.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client_behind(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let headers = forwarded
            .iter()
            .map(|line| {
                (
                    "x-forwarded-for".parse().unwrap(),
                    HeaderValue::from_bytes(line.as_bytes()).unwrap(),
                )
            })
            .collect();
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client_ip(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"];
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // What the client wrote is to the left of what the proxy saw.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.9.9.9,10.0.0.2"], "10.9.9.9"),
            ("10.0.0.1", &["198.51.100.7, x"], "10.0.0.1"),
            ("10.0.0.1", &["é, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("2001:db8::1", &["[2a00::1]:4711"], "2a00::1"),
            ("2001:db8::1", &["[2a00::1]"], "2a00::1"),
        ] {
            assert_eq!(
                client_behind(peer, forwarded, &proxies),
                expected,
                "{forwarded:?}"
            );
        }
    }
}
