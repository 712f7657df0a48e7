//! The host that clients send their files to, and whether they can probably reach it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host's name or address, without the bucket that may stand before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// From the authority of a URL, which begins with the name of `bucket` if there is one.
    pub(super) fn from_authority(authority: &str, bucket: Option<&str>) -> Self {
        let host = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let without_bucket = bucket
            .and_then(|bucket| host.strip_prefix(bucket))
            .and_then(|rest| rest.strip_prefix('.'));
        Self(without_bucket.unwrap_or(host).to_owned())
    }

    /// Whether it looks like a host that only one network knows: a name without a dot, a name of a
    /// private kind, or a private address.
    pub fn is_internal(&self) -> bool {
        /// Domains of [one link](https://www.rfc-editor.org/rfc/rfc6762),
        /// [one machine](https://www.rfc-editor.org/rfc/rfc6761#section-6.3), one organisation and
        /// one Kubernetes cluster.
        const PRIVATE: [&str; 4] = ["local", "localhost", "internal", "svc"];
        match self.0.parse() {
            Ok(IpAddr::V4(address)) => is_internal_v4(address),
            Ok(IpAddr::V6(address)) => is_internal_v6(address),
            Err(_) => {
                let name = self.0.trim_end_matches('.').to_ascii_lowercase();
                name.rsplit_once('.')
                    .is_none_or(|(_, last)| PRIVATE.contains(&last))
            }
        }
    }

    /// Whether it is this machine. Browsers send requests to it without TLS, also from pages with TLS.
    pub fn is_loopback(&self) -> bool {
        let address = self.0.parse::<IpAddr>();
        let is_name = self.0 == "localhost" || self.0.ends_with(".localhost");
        is_name || address.is_ok_and(|address| address.is_loopback())
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    // Shared by the customers of one provider: https://www.rfc-editor.org/rfc/rfc6598
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || is_shared
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some_and(is_internal_v4)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Host {
        Host::from_authority(authority, Some("bucket"))
    }

    #[test]
    fn port_and_bucket_are_not_a_part_of_the_host() {
        for (authority, name) in [
            ("s3.example.com", "s3.example.com"),
            ("bucket.s3.example.com:9000", "s3.example.com"),
            ("bucket.minio:9000", "minio"),
            ("127.0.0.1:9000", "127.0.0.1"),
            ("[fd00::1]:9000", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
        ] {
            assert_eq!(host(authority).to_string(), name);
        }
        let path_style = Host::from_authority("bucket.example.com", None);
        assert_eq!(path_style.to_string(), "bucket.example.com");
    }

    #[test]
    fn hosts_that_strangers_cannot_reach_are_known() {
        for name in [
            "minio",
            "localhost",
            "MINIO.LOCAL",
            "minio.default.svc.cluster.local.",
            "minio.default.svc",
            "host.docker.internal",
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(host(name).is_internal(), "{name}");
        }
        for name in [
            "s3.amazonaws.com",
            "local.example.com",
            "8.8.8.8",
            "100.128.0.1",
            "[2001:4860::8888]",
        ] {
            assert!(!host(name).is_internal(), "{name}");
        }
    }
}
