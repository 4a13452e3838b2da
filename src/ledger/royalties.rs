//! How a pool of money is divided among labels: exact, and the same whatever the order of the rows.
//!
//! Owns: the two models and their rounding. Does not: know users' rows, files or currencies.
//! Called by: `figures`. All amounts are integers; a cent stands for the currency's minor unit.
//!
//! # Rounding rules
//!
//! * A user's net is the fee times the channel's share, rounded half up to the cent (`money::net`).
//! * **Pro rata**: the pool x a label's seconds / all seconds, rounded once to cents by largest remainder.
//! * **User centric**: each user's net is split over what that user watched, in millionths of a cent, by largest
//!   remainder; the parts are added up by label; the sums are rounded once to cents by largest remainder.
//!   When a single user's net is split, its parts are rounded to cents at once, so that both models agree on it.
//! * Largest remainder: every part is rounded down, and what is left goes, a unit each, to the largest remainders; of
//!   equal ones to the label that sorts first (bytes).

use std::collections::BTreeMap;

/// Millionths of a cent.
const FINE: i128 = 1_000_000;

/// Who has a part in the pool. The order is that of the report, and decides ties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// A label, by name.
    Label(String),
    /// Tracks without a label.
    Unlabelled,
    /// What was watched outside the region of the report.
    OutsideRegion,
}

/// How a pool is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// All fees are one pool, divided by all seconds.
    ProRata,
    /// Each user's fee is divided by that user's seconds.
    UserCentric,
}

impl Model {
    /// The name in requests and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProRata => "pro_rata",
            Self::UserCentric => "user_centric",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::ProRata, Self::UserCentric]
            .into_iter()
            .find(|model| model.name() == name)
    }
}

/// Cents by share.
pub type Cents = BTreeMap<Share, i128>;

/// Splits `total` units by weight, by largest remainder. Weights below one count as none; without any weight nobody gets
/// anything.
#[must_use]
pub fn split(total: i128, weights: &BTreeMap<Share, i128>) -> BTreeMap<Share, i128> {
    let all: i128 = weights.values().map(|weight| (*weight).max(0)).sum();
    if all == 0 {
        return weights.keys().map(|share| (share.clone(), 0)).collect();
    }
    let parts = weights.iter().map(|(share, weight)| {
        let product = total * (*weight).max(0);
        (share, product / all, product % all)
    });
    level(total, parts.collect())
}

/// Gives what rounding down left over to the largest remainders: parts are (share, rounded down, remainder).
fn level(total: i128, mut parts: Vec<(&Share, i128, i128)>) -> BTreeMap<Share, i128> {
    let given: i128 = parts.iter().map(|(_, part, _)| part).sum();
    let left = usize::try_from(total - given).unwrap_or(0);
    // The sort is stable, and the parts come in the order of their shares: ties stay with the first.
    parts.sort_by_key(|(_, _, remainder)| std::cmp::Reverse(*remainder));
    let mut shares = BTreeMap::new();
    for (at, (share, part, _)) in parts.into_iter().enumerate() {
        shares.insert(share.clone(), part + i128::from(at < left));
    }
    shares
}

/// The user-centric model, user by user in any order.
#[derive(Debug, Default)]
pub struct UserCentric {
    /// In millionths of a cent.
    sums: BTreeMap<Share, i128>,
    /// Cents that were split.
    given: i128,
    /// The cents of the first user, as long as there is no second.
    alone: Option<Cents>,
}

impl UserCentric {
    /// Splits one user's net over the seconds that the user watched. False when there are none: the net is nobody's.
    pub fn add(&mut self, net: i128, seconds: &BTreeMap<Share, i128>) -> bool {
        if seconds.values().all(|seconds| *seconds <= 0) {
            return false;
        }
        self.alone = self.sums.is_empty().then(|| split(net, seconds));
        for (share, part) in split(net * FINE, seconds) {
            *self.sums.entry(share).or_default() += part;
        }
        self.given += net;
        true
    }

    /// Cents that were split so far.
    #[must_use]
    pub fn given(&self) -> i128 {
        self.given
    }

    /// The sums in cents.
    #[must_use]
    pub fn finish(self) -> Cents {
        if let Some(cents) = self.alone {
            return cents;
        }
        let parts = self
            .sums
            .iter()
            .map(|(share, sum)| (share, sum / FINE, sum % FINE));
        level(self.given, parts.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::money::net;
    use super::*;

    fn label(name: impl Into<String>) -> Share {
        Share::Label(name.into())
    }

    fn seconds(parts: &[(&str, i128)]) -> BTreeMap<Share, i128> {
        parts
            .iter()
            .map(|(name, seconds)| (label(*name), *seconds))
            .collect()
    }

    fn amounts(cents: &Cents) -> Vec<i128> {
        cents.values().copied().collect()
    }

    /// Fee, share of the channel, seconds by label.
    type User = (i64, u32, &'static [(&'static str, i128)]);

    const USERS: [User; 4] = [
        (799, 7000, &[("L1", 1000)]),
        (1499, 9000, &[("L2", 8000), ("L3", 2000)]),
        (799, 9000, &[("L1", 3000), ("L2", 1000)]),
        (1499, 7000, &[("L3", 5000)]),
    ];

    /// The worked example of docs/ledger.md.
    #[test]
    fn the_worked_example_comes_out_to_the_cent() {
        let pool: i128 = USERS.iter().map(|(fee, share, _)| net(*fee, *share)).sum();
        assert_eq!(pool, 3676);
        let all = seconds(&[("L1", 4000), ("L2", 9000), ("L3", 7000)]);
        assert_eq!(amounts(&split(pool, &all)), [735, 1654, 1287]);
        let with_e = pool + net(799, 9000);
        assert_eq!(with_e, 4395);
        assert_eq!(amounts(&split(with_e, &all)), [879, 1978, 1538]);
        let mut each = UserCentric::default();
        for (fee, share, watched) in USERS {
            assert!(each.add(net(fee, share), &seconds(watched)));
        }
        assert!(!each.add(719, &seconds(&[("L1", 0)])));
        assert_eq!(each.given(), 3676);
        assert_eq!(amounts(&each.finish()), [1098, 1259, 1319]);
        let all = seconds(&[("a", 10_000), ("b", 6_000), ("c", 4_000)]);
        assert_eq!(amounts(&split(1_000_000, &all)), [500_000, 300_000, 200_000]);
    }

    #[test]
    fn ties_go_to_the_label_that_sorts_first() {
        let all: BTreeMap<_, _> = [
            (Share::OutsideRegion, 1),
            (Share::Unlabelled, 1),
            (label("b"), 1),
            (label("Z"), 1),
        ]
        .into();
        // Capitals come before small letters in bytes.
        assert_eq!(amounts(&split(2, &all)), [1, 1, 0, 0]);
        let names: Vec<_> = split(1, &all)
            .into_iter()
            .filter(|(_, cents)| *cents == 1)
            .collect();
        assert_eq!(names, [(label("Z"), 1)]);
    }

    #[test]
    fn nobody_watched() {
        assert_eq!(amounts(&split(100, &seconds(&[("a", 0), ("b", -5)]))), [0, 0]);
        assert!(split(100, &BTreeMap::new()).is_empty());
        assert!(UserCentric::default().finish().is_empty());
    }

    fn watched() -> impl Strategy<Value = Vec<(u8, i128)>> {
        vec((0..6_u8, 0..2_000_000_i128), 0..6)
    }

    fn by_label(rows: &[(u8, i128)]) -> BTreeMap<Share, i128> {
        let mut sums = BTreeMap::new();
        for (name, seconds) in rows {
            *sums.entry(label(name.to_string())).or_default() += seconds;
        }
        sums
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_pool_and_none_is_off_by_a_cent(
            pool in 0..i128::from(u64::MAX), rows in watched(),
        ) {
            let weights = by_label(&rows);
            let all: i128 = weights.values().sum();
            let shares = split(pool, &weights);
            prop_assert_eq!(shares.values().sum::<i128>(), if all == 0 { 0 } else { pool });
            for (share, cents) in &shares {
                let exact = pool * weights[share];
                prop_assert!((cents * all - exact).abs() < all.max(1), "{:?}", share);
                prop_assert!(*cents >= 0);
            }
        }

        #[test]
        fn neither_order_nor_chunking_of_rows_matters(
            pool in 0..1_000_000_i128, rows in watched().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
            users in vec((0..10_000_i128, watched()), 0..8).prop_flat_map(|u| (Just(u.clone()), Just(u).prop_shuffle())),
        ) {
            prop_assert_eq!(split(pool, &by_label(&rows.0)), split(pool, &by_label(&rows.1)));
            let run = |users: &[(i128, Vec<(u8, i128)>)]| {
                let mut each = UserCentric::default();
                for (net, rows) in users {
                    each.add(*net, &by_label(rows));
                }
                each.finish()
            };
            prop_assert_eq!(run(&users.0), run(&users.1));
        }

        #[test]
        fn users_parts_sum_to_what_was_given(users in vec((0..10_000_000_i128, watched()), 0..20)) {
            let (mut each, mut given) = (UserCentric::default(), 0);
            for (net, rows) in &users {
                if each.add(*net, &by_label(rows)) {
                    given += net;
                }
            }
            prop_assert_eq!(each.given(), given);
            prop_assert_eq!(each.finish().values().sum::<i128>(), given);
        }

        #[test]
        fn with_one_user_both_models_agree(net in 0..10_000_000_i128, rows in watched()) {
            let weights = by_label(&rows);
            let mut each = UserCentric::default();
            if each.add(net, &weights) {
                prop_assert_eq!(each.finish(), split(net, &weights));
            }
        }
    }
}
