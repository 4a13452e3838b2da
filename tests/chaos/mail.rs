//! Every message between the nodes is lost: what it would have hastened happens with the next renewal.

use std::time::Duration;

use crate::checker::Rules;
use crate::figures::{Figures, percentile};
use crate::fleet::Fleet;
use crate::log::{Mode, What};
use crate::swarm::{Grant, Player, Start, Told, account_name};

/// A renewal, which names marked sessions.
const RENEWAL: Duration = Duration::from_millis(2_500);

/// The slowest poll of a waiter.
const POLL: Duration = Duration::from_secs(5);

/// On a busy machine.
const SLACK: Duration = Duration::from_millis(1_000);

/// Accounts that do the same beside each other.
const ACCOUNTS: u32 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_dropped() {
    let fleet = Fleet::sharing("mail_dropped", 3).await;
    for cutter in &fleet.cutters {
        cutter.drop_messages(true);
    }
    let rounds = (0..ACCOUNTS).map(|account| round(&fleet, account));
    let times = futures_util::future::join_all(rounds).await;
    let dropped: u64 = fleet.cutters.iter().map(crate::cutter::Cutter::dropped).sum();
    let of = |which: fn(&[Duration; 3]) -> Duration| times.iter().map(which).collect::<Vec<_>>();
    let (handover, takeover, kick) = (of(|t| t[0]), of(|t| t[1]), of(|t| t[2]));
    fleet.verdict(&Rules::of_limit(3));
    Figures::of("mail_dropped")
        .add("messages_dropped", dropped)
        .times("handover", &handover)
        .times("takeover", &takeover)
        .times("kick", &kick)
        .print();
    assert!(
        dropped > 0,
        "no message was there to drop: the test tests nothing"
    );
    assert!(percentile(&handover, 100) <= RENEWAL + POLL + SLACK);
    assert!(percentile(&takeover, 100) <= RENEWAL + POLL + SLACK);
    assert!(percentile(&kick, 100) <= RENEWAL + SLACK);
}

/// All of an account, on three nodes, by one order and by a block: each is told with its own node's next renewal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_word_dropped() {
    let fleet = Fleet::sharing("operators_word_dropped", 3).await;
    for cutter in &fleet.cutters {
        cutter.drop_messages(true);
    }
    let mut times = Vec::new();
    for (account, (method, path, code)) in [("DELETE", "sessions", 4003), ("POST", "block", 4004)]
        .into_iter()
        .enumerate()
    {
        let account = u32::try_from(account).unwrap();
        let mut players = Vec::new();
        for node in 0..3 {
            let start = Start::of(account, u32::try_from(node).unwrap());
            let mut player = fleet.swarm.open(&fleet.door(node), &start).await.unwrap();
            let grant = player.granted().await.unwrap();
            fleet.swarm.log.push(
                account,
                player.id.socket,
                0,
                What::Kicked {
                    session: grant.session,
                },
            );
            players.push(player);
        }
        let start = fleet.swarm.log.now();
        let path = format!("/v1/admin/accounts/{}/{path}", account_name(account));
        let (status, body) = fleet.nodes[1].request(method, &path).await.unwrap();
        assert_eq!(status, 200, "{body}");
        for player in &mut players {
            assert_eq!(player.closed().await, code);
        }
        times.push(fleet.swarm.log.now() - start);
    }
    let dropped: u64 = fleet.cutters.iter().map(crate::cutter::Cutter::dropped).sum();
    fleet.verdict(&Rules::of_limit(3));
    Figures::of("operators_word_dropped")
        .add("messages_dropped", dropped)
        .times("told", &times)
        .print();
    assert!(
        dropped > 0,
        "no message was there to drop: the test tests nothing"
    );
    assert!(percentile(&times, 100) <= RENEWAL + SLACK, "{times:?}");
}

/// Hand-over, take-over, kick; how long each took.
async fn round(fleet: &Fleet, account: u32) -> [Duration; 3] {
    let log = &fleet.swarm.log;
    let mut players: Vec<(Player, Grant)> = Vec::new();
    for device in 0..3 {
        let mut player = fleet
            .swarm
            .open(&fleet.door(0), &Start::of(account, device))
            .await
            .unwrap();
        let grant = player.granted().await.unwrap();
        players.push((player, grant));
    }

    let wait = Start::of(account, 10).mode(Mode::Wait);
    let mut waiter = fleet.swarm.open(&fleet.door(1), &wait).await.unwrap();
    assert!(matches!(waiter.decision().await, Told::Waiting));
    let (mut leaver, _) = players.pop().unwrap();
    let start = log.now();
    leaver.stop();
    leaver.closed().await;
    let handover = waiter.granted().await.unwrap().at - start;

    let ask = Start::of(account, 11).mode(Mode::Ask);
    let mut newcomer = fleet.swarm.open(&fleet.door(2), &ask).await.unwrap();
    assert!(matches!(newcomer.decision().await, Told::Denied { .. }));
    let (mut victim, grant) = players.pop().unwrap();
    let start = log.now();
    newcomer.take_over(grant.session);
    let takeover = newcomer.granted().await.unwrap().at - start;
    assert_eq!(victim.closed().await, 4002);

    let (mut kicked, grant) = players.pop().unwrap();
    let session = grant.session;
    let start = log.push(account, kicked.id.socket, 0, What::Kicked { session });
    let path = format!("/v1/admin/accounts/{}/sessions/{session}", account_name(account));
    let (status, body) = fleet.nodes[2].request("DELETE", &path).await.unwrap();
    assert!((200..300).contains(&status), "{status} {body}");
    assert_eq!(kicked.closed().await, 4003);
    [handover, takeover, log.now() - start]
}
