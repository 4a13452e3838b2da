//! What Usher keeps in Redis, key by key.
//!
//! Everything about an account lies in one bucket, and all keys of a bucket share the hash tag `{<prefix>:<bucket>}`,
//! so that they lie in one slot of a cluster and one script sees all of them. Every script is given all of them, in
//! this order, so that none is learnt inside a script (lease rule 23). Those of prefix `usher` and bucket 7:
//!
//! | | key | type | holds |
//! |---|---|---|---|
//! | 1 | `{usher:7}:v1:marker` | hash | the life of the data: `generation`, `server` (`master_replid`), `second` and `opens` (the halves of a recovery), `beat` (anybody's last renewal), `buckets` (of the installation), `dropped` (facts that the stream lost to its bound) |
//! | 2 | `..:owners` | hash | owner -> `<until> <since> <renewed>`: the nodes' leases |
//! | 3 | `..:accounts` | hash | account -> `{"entries":[..],"line":[..],"blocked":true,"limit":2}`: the last two are operators' decisions, absent without one |
//! | 4 | `..:index` | sorted set, lexicographic | `<generation>/<owner>/<session>/<account>` of entries, `line/<owner>/<session>/<account>` of waiters |
//! | 5 | `..:marked` | sorted set, lexicographic | `<owner>/<session>/<account>` of entries that are to end |
//! | 6 | `..:tombstones` | hash | session -> `<epoch> <code> <until>`: what has ended |
//! | 7 | `..:tombstone_times` | sorted set | `<until>` -> session |
//! | 8 | `..:events` | stream | facts, a field for each value: `kind` (`started`, `ended`), `v`, `tenant`, `account`, `session`, `epoch`, `owner`, `device`, `name`, `class`, `content`, `state`, `started`, `at`, `watched`, `position`, `code`, `generation` |
//! | 9 | `..:waiting` | sorted set | when it last asked -> `<session>/<account>` of waiters |
//! | 10 | `..:remembered` | hash | account -> `{"<rule>/<value>":<until>}`: values of rules that outlive a play |
//! | 11 | `..:remembered_times` | sorted set | the last `<until>` -> account |
//! | 12 | `..:expiries` | sorted set | when it ends -> `<session>/<account>` of entries without a socket |
//! | 13 | `..:displacers` | hash | session -> `{"id":..,"name":..,"class":..}`: who took over the slot of an ended one without a socket; goes with its tombstone |
//!
//! What webhooks and the ledger need is read and written by a script of its own, `webhooks.lua`, which is given 8 and these three:
//!
//! | | key | type | holds |
//! |---|---|---|---|
//! | 10 | `..:refusals` | stream | refused starts, a field for each value: `kind` (`refused`), `tenant`, `account`, `session`, `device`, `name`, `class`, `content`, `at`, `rule`, `used`, `limit` |
//! | 11 | `..:webhooks` | hash | by reader (a receiver; `@ledger`): lease, cursors, last error, dead letters counted (see the script) |
//! | 12 | `..:dead_letters` | stream | `receiver`, `id`, `reason`, `body` |
//!
//! And three channels of sharded pub/sub: `{usher:7}:v1:messages` (see room `messages`), `{usher:7}:v1:mail:<owner>`, on which a node hears what to look at again, and
//! `{usher:7}:v1:notices`, on which all hear the generation of a recovery that begins, and `{"blocked":<account>}`.
//!
//! An account is the JSON text `["tenant","account"]`; owner, generation and attempt are 16 lower-case hex digits; a
//! session its 22 characters; times are milliseconds of Redis's clock. 4, 5 and 9 follow from 3 (and the time in 9
//! stands nowhere else, so that all waiters can be forgiven at once, rule 2); so does 12, but for its times. An entry without a socket
//! has the owner `0000000000000000`, which no process has: a node of a version without them takes such an owner for
//! dead, and ends these sessions as `lease_lost`. Nodes of a version and the one before
//! it share these data: fields may be added to the JSON and are kept by those who do not know them; anything else
//! needs a `v2`.

use crate::protocol::id::{AccountKey, OwnerId};

/// The layout's version.
const VERSION: &str = "v1";

/// Keys of a bucket.
pub(super) const COUNT: usize = 13;

const NAMES: [&str; COUNT] = [
    "marker",
    "owners",
    "accounts",
    "index",
    "marked",
    "tombstones",
    "tombstone_times",
    "events",
    "waiting",
    "remembered",
    "remembered_times",
    "expiries",
    "displacers",
];

/// The keys of a bucket, in the order of the scripts.
#[must_use]
pub fn of_bucket(prefix: &str, bucket: u16) -> [String; COUNT] {
    NAMES.map(|name| format!("{{{prefix}:{bucket}}}:{VERSION}:{name}"))
}

/// The keys of a bucket that `webhooks.lua` is given, in its order.
#[must_use]
pub fn of_journal(prefix: &str, bucket: u16) -> [String; 4] {
    let names = ["events", "refusals", "webhooks", "dead_letters"];
    names.map(|name| format!("{{{prefix}:{bucket}}}:{VERSION}:{name}"))
}

/// The channel on which a node hears of a bucket.
#[must_use]
pub fn mail(prefix: &str, bucket: u16, owner: OwnerId) -> String {
    format!("{{{prefix}:{bucket}}}:{VERSION}:mail:{}", hex(owner.0))
}

/// What the name of a bucket's channel for all nodes ends with.
pub const NOTICES: &str = ":notices";

/// The channel on which all nodes hear of a bucket.
#[must_use]
pub fn notices(prefix: &str, bucket: u16) -> String {
    format!("{{{prefix}:{bucket}}}:{VERSION}{NOTICES}")
}

/// The channel on which all nodes hear of messages to the accounts and rooms of a bucket.
#[must_use]
pub fn messages(prefix: &str, bucket: u16) -> String {
    format!("{{{prefix}:{bucket}}}:{VERSION}{MESSAGES}")
}

/// What the name of a bucket's channel of messages ends with.
pub const MESSAGES: &str = ":messages";

/// The text of an account.
#[must_use]
pub fn account(key: &AccountKey) -> String {
    serde_json::json!([key.tenant, key.account]).to_string()
}

/// Reads the text of an account.
#[must_use]
pub fn parse_account(text: &str) -> Option<AccountKey> {
    let [tenant, account]: [String; 2] = serde_json::from_str(text).ok()?;
    Some(AccountKey::new(&tenant, &account))
}

/// 16 lower-case hex digits.
#[must_use]
pub fn hex(value: u64) -> String {
    format!("{value:016x}")
}

/// Reads 16 hex digits.
#[must_use]
pub fn parse_hex(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_bucket_share_its_tag() {
        let keys = of_bucket("usher", 7);
        assert_eq!(keys[0], "{usher:7}:v1:marker");
        let journal = of_journal("usher", 7);
        assert_eq!(journal[0], keys[7], "what the scripts write is what is read");
        assert!(
            keys.iter()
                .chain(&journal)
                .all(|key| key.starts_with("{usher:7}:v1:"))
        );
        assert_eq!(
            mail("usher", 7, OwnerId(255)),
            "{usher:7}:v1:mail:00000000000000ff"
        );
    }

    #[test]
    fn an_account_comes_back_from_its_text() {
        for (tenant, name) in [("main", "a"), ("\"]", "\\\n\u{0}/"), ("ä", "🦀")] {
            let key = AccountKey::new(tenant, name);
            assert_eq!(parse_account(&account(&key)), Some(key));
        }
        assert_eq!(parse_account("[\"a\"]"), None);
    }
}
