//! What must fit in the group rules: names that exist, and keys that mean something for what a rule counts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::validate::Problems;
use super::{Config, GroupRule, Per, keys};

/// More rules than anybody keeps in mind; each is a label of a metric.
const MOST_RULES: usize = 32;
/// Tags, and patterns of each: every start looks through them.
const MOST_TAGS: usize = 100;
const MOST_PATTERNS: usize = 10_000;
/// As of an account's streams: what a rule counts stands in the account's table.
const MOST_OF_A_GROUP: u32 = 1_000;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As `humantime` has it: 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// The name that the account's total has.
const RESERVED: &str = crate::config::ACCOUNT_RULE;

pub(super) fn check(config: &Config, found: &mut Problems) {
    let many = config.rules.len() <= MOST_RULES;
    found.check("rules", many, format_args!("must be at most {MOST_RULES}"));
    for (name, rule) in &config.rules {
        let path = keys::join("rules", name);
        let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let named = (1..=32).contains(&name.len()) && name.chars().all(of_name) && name != RESERVED;
        let message = format!("its name must be 1 to 32 of a-z, 0-9, - and _, and not {RESERVED}");
        found.check(&path, named, message);
        found.range(format_args!("{path}.limit"), rule.limit, 0..=MOST_OF_A_GROUP);
        for (i, plan) in rule.plans.iter().enumerate() {
            let known = config.plans.contains_key(plan);
            let path = format!("{path}.plans[{i}]");
            found.check(path, known, format_args!("no plan {plan:?} in [plans]"));
        }
        what_it_is_about(config, rule, &path, found);
        keys_that_count(rule, &path, found);
    }
    tags(config, found);
    exempt(config, found);
    for (i, class) in config.devices.classes.iter().enumerate() {
        let fits = (1..=64).contains(&class.len());
        found.check(format!("devices.classes[{i}]"), fits, "must have 1 to 64 bytes");
    }
}

/// The classes, contents and tags of `of`.
fn what_it_is_about(config: &Config, rule: &GroupRule, path: &str, found: &mut Problems) {
    let double = rule.of.iter().collect::<BTreeSet<_>>().len() < rule.of.len();
    found.check(format_args!("{path}.of"), !double, "must not name anything twice");
    for (i, value) in rule.of.iter().enumerate() {
        let path = format!("{path}.of[{i}]");
        match rule.per {
            Per::DeviceClass => {
                let known = config.devices.classes.contains(value);
                found.check(path, known, format_args!("no class {value:?} in devices.classes"));
            }
            Per::Tag => {
                let known = config.tags.contains_key(value);
                found.check(path, known, format_args!("no tag {value:?} in [tags]"));
            }
            Per::Content => found.check(path, is_pattern(value), PATTERN),
            Per::Profile | Per::Address | Per::Device => {}
        }
    }
}

/// Keys that mean something only for some of `per`.
fn keys_that_count(rule: &GroupRule, path: &str, found: &mut Problems) {
    let listed = matches!(rule.per, Per::DeviceClass | Per::Content | Per::Tag);
    let message = "only with per = \"device_class\", \"content\" or \"tag\"";
    found.check(format_args!("{path}.of"), listed || rule.of.is_empty(), message);
    let message = "only with per = \"address\"";
    let homely = rule.per == Per::Address || rule.home.is_empty();
    found.check(format_args!("{path}.home"), homely, message);
    let remembers = rule.per == Per::Device || rule.per == Per::Address && rule.home.is_empty();
    if let Some(within) = rule.within {
        let path = format!("{path}.within");
        let message = "only with per = \"device\", or \"address\" without home";
        found.check(&path, remembers, message);
        found.span(&path, within, HOUR..=YEAR);
    }
    let lasting = rule.per == Per::Device && rule.within.is_some();
    let message = "not with per = \"device\" and within: the end of a session frees no device";
    found.check(
        format_args!("{path}.enforce_running"),
        !(lasting && rule.enforce_running),
        message,
    );
}

fn tags(config: &Config, found: &mut Problems) {
    let many = config.tags.len() <= MOST_TAGS;
    found.check("tags", many, format_args!("must be at most {MOST_TAGS}"));
    for (tag, patterns) in &config.tags {
        let path = keys::join("tags", tag);
        found.check(
            &path,
            (1..=64).contains(&tag.len()),
            "its name must have 1 to 64 bytes",
        );
        // The catalogue may give a tag that no content here has.
        let least = usize::from(!config.modules.catalogue);
        let message = format!("must have {least} to {MOST_PATTERNS} contents");
        found.check(&path, (least..=MOST_PATTERNS).contains(&patterns.len()), message);
        for (i, pattern) in patterns.iter().enumerate() {
            found.check(format!("{path}[{i}]"), is_pattern(pattern), PATTERN);
        }
    }
}

fn exempt(config: &Config, found: &mut Problems) {
    for (i, pattern) in config.exempt.contents.iter().enumerate() {
        found.check(format!("exempt.contents[{i}]"), is_pattern(pattern), PATTERN);
    }
    for (i, tag) in config.exempt.tags.iter().enumerate() {
        let known = config.tags.contains_key(tag);
        found.check(
            format!("exempt.tags[{i}]"),
            known,
            format_args!("no tag {tag:?} in [tags]"),
        );
    }
    for (i, account) in config.exempt.accounts.iter().enumerate() {
        let (tenant, name) = account.split_once('/').unwrap_or(("main", account));
        let fits = !tenant.is_empty() && (1..=256).contains(&name.len());
        let message = "must be <account> or <tenant>/<account>";
        found.check(format!("exempt.accounts[{i}]"), fits, message);
    }
}

const PATTERN: &str = "must be a content of 1 to 256 bytes; a * may stand at its end only";

fn is_pattern(text: &str) -> bool {
    let stem = text.strip_suffix('*').unwrap_or(text);
    (1..=256).contains(&text.len()) && !stem.contains('*')
}
