//! Which addresses may be called: whoever can choose a URL, or answer for its name, must not make this node call
//! what only this node can reach (server-side request forgery).
//!
//! Owns: the list of networks that are not public, and resolving a name to addresses that may be called, so that the
//! address that was judged is the one that is called.
//! Does not: connect.
//! Called by: `client` for each connection.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

/// Networks that are no public unicast (IANA's special-purpose registries): this network, private, carrier-grade NAT,
/// loopback, link-local, protocol assignments, documentation, benchmarks, multicast, reserved.
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of IPv6 only `2000::/3` is public; what of it is not: Teredo and other assignments, documentation, and 6to4.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Judges addresses. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
    loopback: bool,
}

impl Guard {
    /// Public addresses, and those of `outbound.allowed_private`.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self {
            allowed: allowed.into(),
            loopback: false,
        }
    }

    /// The same and loopback, for a URL that names it in so many words.
    #[must_use]
    pub(super) fn with_loopback(self) -> Self {
        Self {
            loopback: true,
            ..self
        }
    }

    /// Whether this address may be called.
    #[must_use]
    pub fn permits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        is_public(ip)
            || self.loopback && ip.is_loopback()
            || self.allowed.iter().any(|network| network.contains(&ip))
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4
            .iter()
            .any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0),
        IpAddr::V6(ip) => {
            ip.segments()[0] >> 13 == 1
                && !SPECIAL_V6
                    .iter()
                    .any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0)
        }
    }
}

/// A name's addresses that may be called. hyper connects to these and to no other.
impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            // The port is the URL's, and hyper's to set.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<_> = found.filter(|address| guard.permits(address.ip())).collect();
            if permitted.is_empty() {
                let message = "the name leads to no address that may be called (outbound.allowed_private)";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            Ok(permitted.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn only_public_addresses_and_listed_ones() {
        let guard = Guard::new(&["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        for (ip, permitted) in [
            ("1.1.1.1", true),
            ("99.255.255.255", true),
            ("100.128.0.1", true),
            ("172.32.0.1", true),
            ("223.255.255.255", true),
            ("2606:4700::1111", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd00:1::7", true),
            ("10.2.0.1", false),
            ("fd00:2::7", false),
            ("0.0.0.0", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.168.0.1", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::127.0.0.1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(guard.permits(ip.parse().unwrap()), permitted, "{ip}");
        }
        assert!(
            guard
                .clone()
                .with_loopback()
                .permits("127.0.0.9".parse().unwrap())
        );
        assert!(!guard.with_loopback().permits("10.2.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_resolves_to_nothing() {
        let name = || "localhost".parse::<Name>().unwrap();
        let refused = Guard::default().call(name()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let mut found = Guard::default().with_loopback().call(name()).await.unwrap();
        assert!(found.all(|address| address.ip().is_loopback()));
    }
}
