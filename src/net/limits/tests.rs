//! Admission as the listener sees it, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use super::*;
use crate::net::address::tests::addressing;

pub(super) fn limits() -> Limits {
    Limits {
        connections: 100,
        connections_per_address: 0,
        handshakes: 0,
        handshakes_per_second: 0,
        handshakes_per_second_per_address: 0,
        exempt_addresses: Vec::new(),
        handshake_timeout: Duration::from_secs(10),
        starts_burst: 0,
        starts_per_second: 0,
        requests_per_second_per_address: 0,
        requests_burst_per_address: 0,
        requests_per_second_per_token: 0,
        requests_burst_per_token: 0,
        messages_burst: 0,
        messages_per_second: 0,
    }
}

fn admission(limits: &Limits) -> Admission {
    Admission::new(limits, Arc::new(addressing(&["10.0.0.0/8"], &["127.0.0.0/8"])))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_node_has_a_limit_for_everybody() {
    let admission = admission(&Limits {
        connections: 2,
        ..limits()
    });
    let first = admission.try_accept(ip("127.0.0.1"), Instant::now()).unwrap();
    let _second = admission.try_accept(ip("10.0.0.1"), Instant::now()).unwrap();
    assert_eq!(
        admission.try_accept(ip("127.0.0.1"), Instant::now()).unwrap_err(),
        Refusal::NodeLimit
    );
    assert_eq!(admission.open(), 2);
    drop(first);
    assert_eq!(admission.open(), 1);
    admission.try_accept(ip("192.0.2.1"), Instant::now()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_has_a_limit_and_a_refusal_holds_nothing() {
    let admission = admission(&Limits {
        connections_per_address: 2,
        ..limits()
    });
    let accept = |peer| admission.try_accept(ip(peer), Instant::now());
    let held = [accept("2001:db8::1").unwrap(), accept("2001:db8::2").unwrap()];
    assert_eq!(accept("2001:db8::3").unwrap_err(), Refusal::AddressLimit);
    let _other = accept("2001:db8:0:1::1").unwrap();
    assert_eq!(admission.open(), 3);
    drop(held);
    assert_eq!(admission.open(), 1);
    accept("2001:db8::3").unwrap();
    // Free of it: exempt ones and proxies.
    let _many: Vec<_> = (0..10)
        .map(|_| (accept("127.0.0.1").unwrap(), accept("10.0.0.1").unwrap()))
        .collect();
}

#[tokio::test(start_paused = true)]
async fn an_address_has_a_rate_and_a_burst_of_ten_seconds() {
    let admission = admission(&Limits {
        handshakes_per_second_per_address: 2,
        ..limits()
    });
    let accept = |peer| admission.try_accept(ip(peer), Instant::now()).map(drop);
    for _ in 0..20 {
        accept("192.0.2.1").unwrap();
    }
    assert_eq!(accept("192.0.2.1"), Err(Refusal::AddressRate));
    accept("192.0.2.2").unwrap();
    tokio::time::advance(Duration::from_millis(500)).await;
    accept("192.0.2.1").unwrap();
    assert_eq!(accept("192.0.2.1"), Err(Refusal::AddressRate));
    assert_eq!(admission.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_node_has_a_rate_that_one_greedy_address_cannot_use_up() {
    let limits = Limits {
        handshakes_per_second: 15,
        handshakes_per_second_per_address: 1,
        ..limits()
    };
    let admission = admission(&limits);
    let accept = |peer| admission.try_accept(ip(peer), Instant::now()).map(drop);
    let greedy = (0..1_000).filter(|_| accept("192.0.2.1").is_ok()).count();
    assert_eq!(greedy, 10);
    for _ in 0..5 {
        accept("127.0.0.1").unwrap();
    }
    assert_eq!(accept("127.0.0.1"), Err(Refusal::NodeRate));
    tokio::time::advance(Duration::from_secs(1)).await;
    accept("192.0.2.2").unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_behind_a_proxy_share_the_counts_of_direct_ones() {
    let admission = admission(&Limits {
        connections_per_address: 2,
        ..limits()
    });
    let check = |client| admission.check_client(ip(client), Instant::now());
    let _direct = admission.try_accept(ip("192.0.2.1"), Instant::now()).unwrap();
    let proxied = check("192.0.2.1").unwrap();
    assert!(proxied.is_some());
    assert_eq!(check("192.0.2.1").unwrap_err(), Refusal::AddressLimit);
    drop(proxied);
    check("192.0.2.1").unwrap();
    assert!(check("127.0.0.1").unwrap().is_none());
    assert!(check("10.0.0.1").unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn handshakes_wait_for_a_place() {
    let admission = admission(&Limits {
        handshakes: 1,
        ..limits()
    });
    let accept = || admission.try_accept(ip("192.0.2.1"), Instant::now()).unwrap();
    let [mut first, mut second, mut third] = [accept(), accept(), accept()];
    let deadline = Duration::from_secs(1);
    first.begin_handshake().await;
    assert!(
        tokio::time::timeout(deadline, second.begin_handshake())
            .await
            .is_err()
    );
    first.release_handshake();
    tokio::time::timeout(deadline, second.begin_handshake())
        .await
        .unwrap();
    drop(second);
    tokio::time::timeout(deadline, third.begin_handshake())
        .await
        .unwrap();
    assert_eq!(admission.open(), 2);
}

#[test]
fn open_files_bound_the_connections() {
    assert_eq!(bound_for(100_000), 99_000);
    assert_eq!(bound_for(1_024), 512);
    assert_eq!(bound_for(u64::MAX), u32::MAX);
    let capacity = admission(&Limits {
        connections: 0,
        ..limits()
    })
    .capacity();
    assert_eq!(capacity, file_bound());
    assert!(capacity > 0);
}
