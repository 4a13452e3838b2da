//! Whose address a connection or request counts for.
//!
//! Owns: which peers are trusted and which are exempt, the reading of `X-Forwarded-For`, and the key under which
//! an address is counted.
//! Does not: count anything ([`super::limits`]) or read PROXY headers ([`super::proxy_protocol`]).
//! Called by: the listener for each connection and the HTTP layer for each request.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::config::{Limits, Listen};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The networks that the configuration names.
#[derive(Clone, Debug)]
pub struct Addressing {
    trusted: Vec<IpNet>,
    exempt: Vec<IpNet>,
}

impl Addressing {
    /// From `listen.trusted_proxies` and `limits.exempt_addresses`.
    #[must_use]
    pub fn new(listen: &Listen, limits: &Limits) -> Self {
        Self {
            trusted: listen.trusted_proxies.clone(),
            exempt: limits.exempt_addresses.clone(),
        }
    }

    /// Whether this peer's PROXY header and `X-Forwarded-For` are believed.
    #[must_use]
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        contains(&self.trusted, ip)
    }

    /// Whether this address is free of every per-address limit.
    #[must_use]
    pub fn is_exempt(&self, ip: IpAddr) -> bool {
        contains(&self.exempt, ip)
    }

    /// The client behind `peer`: the rightmost address of `X-Forwarded-For` that is not a trusted proxy.
    ///
    /// The header of an untrusted peer is ignored. Whatever stands left of an untrusted or malformed entry was
    /// written by a stranger, so the walk ends there, with the last address that a trusted proxy vouched for.
    #[must_use]
    pub fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // One list, even when proxies appended lines instead of entries (RFC 9110, section 5.3).
        let lines = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
        for line in lines.into_iter().rev() {
            let Ok(line) = line.to_str() else { return client };
            for entry in line.rsplit(',') {
                if !self.is_trusted(client) {
                    return client;
                }
                let Some(ip) = parse_entry(entry.trim()) else {
                    return client;
                };
                client = ip;
            }
        }
        client
    }
}

/// The address under which `ip` is counted: IPv4 as it is, IPv6 as its /64, which one customer can fill at will.
#[must_use]
pub fn key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| net.contains(&ip))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => entry
            .parse()
            .ok()
            .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip())),
    };
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    pub(in crate::net) fn addressing(trusted: &[&str], exempt: &[&str]) -> Addressing {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        Addressing {
            trusted: nets(trusted),
            exempt: nets(exempt),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nets_match_mapped_addresses_too() {
        let addressing = addressing(&["10.0.0.0/8", "2001:db8::/32"], &["127.0.0.0/8"]);
        assert!(addressing.is_trusted(ip("10.1.2.3")));
        assert!(addressing.is_trusted(ip("::ffff:10.1.2.3")));
        assert!(addressing.is_trusted(ip("2001:db8::7")));
        assert!(!addressing.is_trusted(ip("11.0.0.1")));
        assert!(addressing.is_exempt(ip("127.0.0.9")));
        assert!(!addressing.is_exempt(ip("::1")));
    }

    #[test]
    fn an_ipv6_64_counts_as_one() {
        assert_eq!(key(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_eq!(key(ip("2001:db8:1:2::1")), key(ip("2001:db8:1:2:ffff::1")));
        assert_ne!(key(ip("2001:db8:1:2::1")), key(ip("2001:db8:1:3::1")));
        assert_eq!(key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(key(ip("192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn forwarded_walks_from_the_right_to_the_first_stranger() {
        let addressing = addressing(&["10.0.0.0/8", "fd00::/8"], &[]);
        let rows: &[(&str, &[&str], &str)] = &[
            ("192.0.2.9", &["198.51.100.1"], "192.0.2.9"), // an untrusted peer is not believed
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.66, 198.51.100.1"], "198.51.100.1"), // the client's own claim is left out
            (
                "10.0.0.1",
                &["203.0.113.66, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                &["203.0.113.66", "198.51.100.1", "10.0.0.2"],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1,,10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1, \u{e9}"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &[" 198.51.100.1:4711 "], "198.51.100.1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:443,[fd00::2]"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["[198.51.100.1]"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1:99999"], "10.0.0.1"),
        ];
        for (peer, lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(
                addressing.forwarded(ip(peer), &headers),
                ip(expected),
                "{peer} {lines:?}"
            );
        }
    }
}
