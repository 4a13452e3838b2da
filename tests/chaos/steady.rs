//! What sessions that just play cost Redis: nothing but the fixed cost of the nodes, and the audits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::audience::Audience;
use crate::checker::Rules;
use crate::figures::Figures;
use crate::fleet::Fleet;

/// Buckets, and how often a node renews its lease in each.
const BUCKETS: f64 = 32.0;
const RENEWAL_SECONDS: f64 = 2.5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady() {
    idle("steady", 100, Duration::from_secs(25)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "five minutes with 10,000 sessions"]
async fn steady_long() {
    idle("steady_long", 3_334, Duration::from_secs(300)).await;
}

async fn idle(name: &'static str, accounts: u32, time: Duration) {
    let mut fleet = Fleet::sharing(name, 3).await;
    let mut audience = Audience::full(&fleet.swarm, &fleet.doors(), accounts, 3).await;
    let sessions = f64::from(accounts * 3);
    // Whatever the starts have caused is over with the second renewal.
    sleep(Duration::from_secs(6)).await;
    let (before, start) = (fleet.redis().calls(), Instant::now());
    sleep(time).await;
    let (after, took) = (fleet.redis().calls(), start.elapsed().as_secs_f64());
    let calls: BTreeMap<&str, u64> = after
        .iter()
        .map(|(name, calls)| (&**name, calls - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, calls)| *calls > 0)
        .collect();
    let scripts = ["eval", "evalsha", "fcall", "eval_ro", "evalsha_ro", "fcall_ro"];
    let scripts: u64 = scripts.iter().filter_map(|name| calls.get(name)).sum();
    let scripts = f64::from(u32::try_from(scripts).unwrap());
    let fixed = 3.0 * BUCKETS / RENEWAL_SECONDS * took;
    let beside = (scripts - fixed) / (sessions * took / 3_600.0);
    let [memory, peak] = ["used_memory", "used_memory_peak"].map(|name| {
        let info = fleet.redis().info("memory");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.unwrap()
    });
    Figures::of(name)
        .add("sessions", sessions)
        .add("seconds", format!("{took:.1}"))
        .add("script_calls", scripts)
        .add("fixed_calls_expected", format!("{fixed:.0}"))
        .add(
            "calls_per_node_and_second",
            format!("{:.2}", scripts / 3.0 / took),
        )
        .add("calls_per_session_hour_beside_the_fixed", format!("{beside:.1}"))
        .add("redis_memory", memory)
        .add("redis_memory_peak", peak)
        .print();
    eprintln!("{name}: commands as Redis counts them, those inside scripts included: {calls:?}");
    // Each session is audited once a minute, at worst each by a call of its own.
    let audits = sessions * (took / 60.0 + 1.0);
    assert!(
        scripts >= fixed * 0.8,
        "{scripts} calls: the leases are not renewed ({fixed:.0})"
    );
    assert!(
        scripts <= fixed * 1.1 + audits,
        "{scripts} calls, {fixed:.0} fixed, {audits:.0} audits"
    );
    audience.leave().await;
    fleet.verdict(&Rules::of_limit(3));
}
