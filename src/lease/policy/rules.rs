//! From the configured group rules to the groups of one start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::config::{GroupRule, Per};
use crate::protocol::server::millis;

use super::super::group::{Group, Measure};
use super::Viewer;
use super::tags::{Contents, Tags};

/// How long the first address of an account is its home, unless the rule says otherwise.
const HOME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a session away from the configured home counts as.
const AWAY: &str = "away";

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    name: String,
    limit: u32,
    by: By,
    plans: BTreeSet<String>,
    shadow: bool,
    enforce: bool,
}

/// What a rule groups by, with what it must know for it.
#[derive(Clone, Debug)]
enum By {
    DeviceClass(BTreeSet<String>),
    Content(Option<Contents>),
    Tag(BTreeSet<String>),
    Profile,
    Home(Vec<IpNet>),
    FirstAddress(Duration),
    Device,
    KnownDevice(Duration),
}

impl Rule {
    pub(super) fn new(name: &str, rule: &GroupRule) -> Self {
        let of = || rule.of.iter().cloned().collect();
        Self {
            name: name.to_owned(),
            limit: rule.limit,
            by: match (rule.per, rule.within) {
                (Per::DeviceClass, _) => By::DeviceClass(of()),
                (Per::Content, _) => By::Content((!rule.of.is_empty()).then(|| Contents::new(&rule.of))),
                (Per::Tag, _) => By::Tag(of()),
                (Per::Profile, _) => By::Profile,
                (Per::Address, _) if !rule.home.is_empty() => By::Home(rule.home.clone()),
                (Per::Address, within) => By::FirstAddress(within.unwrap_or(HOME)),
                (Per::Device, None) => By::Device,
                (Per::Device, Some(within)) => By::KnownDevice(within),
            },
            plans: rule.plans.iter().cloned().collect(),
            shadow: rule.shadow,
            enforce: rule.enforce_running,
        }
    }

    /// Whether tags decide.
    pub(super) fn uses_tags(&self) -> bool {
        matches!(self.by, By::Tag(_))
    }

    pub(super) fn label(&self) -> String {
        label(&self.name, self.shadow)
    }

    /// The groups into which the rule puts a start: none when it is not about it.
    pub(super) fn groups(&self, viewer: &Viewer<'_>, tags: &Tags, groups: &mut Vec<Group>) {
        let of_plan = |plan: &str| self.plans.contains(plan);
        if !self.plans.is_empty() && !viewer.plan.is_some_and(of_plan) {
            return;
        }
        let listed = |of: &BTreeSet<String>, value: &str| of.is_empty() || of.contains(value);
        let mut add = |value: &str, measure| groups.push(self.group(value, measure));
        match &self.by {
            By::DeviceClass(of) => {
                // Who names no class is of a class of its own, which no list has.
                let class = viewer.device.class.as_deref().unwrap_or_default();
                if listed(of, class) {
                    add(class, Measure::Sessions);
                }
            }
            By::Content(of) => {
                if of.as_ref().is_none_or(|of| of.has(viewer.content)) {
                    add(viewer.content, Measure::Sessions);
                }
            }
            By::Tag(of) => {
                let tags = tags.of(&viewer.account.tenant, viewer.content);
                for tag in tags.iter().filter(|tag| listed(of, tag)) {
                    add(tag, Measure::Sessions);
                }
            }
            By::Profile => viewer
                .profile
                .into_iter()
                .for_each(|profile| add(profile, Measure::Sessions)),
            By::Home(home) => {
                let address = viewer.address.to_canonical();
                if !home.iter().any(|net| net.contains(&address)) {
                    add(AWAY, Measure::Sessions);
                }
            }
            By::FirstAddress(within) => add(&place(viewer.address), Measure::Away(millis(*within))),
            By::Device => add("", Measure::Sessions),
            By::KnownDevice(within) => add(&viewer.device.id, Measure::Known(millis(*within))),
        }
    }

    fn group(&self, value: &str, measure: Measure) -> Group {
        Group {
            key: Arc::from(format!("{}/{value}", self.name)),
            limit: self.limit,
            measure,
            shadow: self.shadow,
            enforce: self.enforce,
        }
    }
}

/// What the metric of refusals calls a rule.
pub(super) fn label(rule: &str, shadow: bool) -> String {
    if shadow {
        format!("shadow:{rule}")
    } else {
        rule.to_owned()
    }
}

/// One home: an address, or the /64 of an IPv6 one, within which devices choose theirs.
fn place(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            Ipv6Net::new(address, 64).map_or_else(|_| address.to_string(), |net| net.trunc().to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::config::{self, Overrides};
    use crate::lease::model::Device;
    use crate::lease::policy::Policy;
    use crate::protocol::id::AccountKey;

    /// The keys of the groups of one start under these rules.
    fn keys(rules: &str, content: &str, class: Option<&str>, address: &str) -> Vec<String> {
        let dir = config::scratch::Scratch::new();
        let file = dir.write("usher.toml", rules);
        let config = config::load(Some(&file), [], &Overrides::default()).unwrap();
        let device = Device {
            id: "d/1".into(),
            name: None,
            class: class.map(Into::into),
            plan: None,
        };
        let terms = Policy::new(&config).terms(&Viewer {
            account: &AccountKey::new("main", "a"),
            plan: Some("basic"),
            profile: Some("ann"),
            device: &device,
            content,
            address: address.parse().unwrap(),
        });
        terms.keys().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_groups_by_its_own_value() {
        let tags = "[tags]\nlive = [\"m*\"]\nsports = [\"m1\"]\n";
        for (rule, expected) in [
            ("per = \"device_class\"", &["r/tv"][..]),
            ("per = \"device_class\"\nof = [\"phone\"]", &[]),
            ("per = \"content\"", &["r/m1"]),
            ("per = \"content\"\nof = [\"m*\"]", &["r/m1"]),
            ("per = \"content\"\nof = [\"n*\"]", &[]),
            ("per = \"tag\"", &["r/live", "r/sports"]),
            ("per = \"tag\"\nof = [\"sports\"]", &["r/sports"]),
            ("per = \"profile\"", &["r/ann"]),
            ("per = \"profile\"\nplans = [\"gold\"]", &[]),
            ("per = \"profile\"\nplans = [\"basic\"]", &["r/ann"]),
            ("per = \"address\"", &["r/2001:db8:0:7::/64"]),
            ("per = \"address\"\nhome = [\"2001:db8::/32\"]", &[]),
            ("per = \"address\"\nhome = [\"10.0.0.0/8\"]", &["r/away"]),
            ("per = \"device\"", &["r/"]),
            ("per = \"device\"\nwithin = \"30d\"", &["r/d/1"]),
        ] {
            let plans = "[plans.basic]\nlimit = 1\n[plans.gold]\nlimit = 1\n";
            let rules = format!("{tags}{plans}[rules.r]\nlimit = 1\n{rule}\n");
            assert_eq!(
                keys(&rules, "m1", Some("tv"), "2001:db8:0:7::9"),
                expected,
                "{rule}"
            );
        }
    }

    #[test]
    fn rules_come_in_the_order_of_their_names_and_what_is_exempt_has_none() {
        let rules = "[rules.b]\nper = \"content\"\nlimit = 1\n[rules.a]\nper = \"device_class\"\nlimit = 1\n";
        assert_eq!(keys(rules, "m1", None, "::ffff:10.0.0.1"), ["a/", "b/m1"]);
        let exempt = format!("{rules}[exempt]\ncontents = [\"m*\"]\n");
        assert!(keys(&exempt, "m1", None, "10.0.0.1").is_empty());
        let exempt = format!("{rules}[exempt]\naccounts = [\"main/a\"]\n");
        assert!(keys(&exempt, "m1", None, "10.0.0.1").is_empty());
    }
}
