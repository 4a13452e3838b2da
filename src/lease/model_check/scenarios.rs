//! The tests: every mix of faults with all rules, and every rule taken away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path};

use super::actions::Action;
use super::mixes::{MIXES, OPEN, mix};
use super::mutations::{COVERED, MUTATIONS, Mutation};
use super::{Missing, Scenario, World};

/// A mix that takes longer than this is CUT.
const LONGEST: Duration = Duration::from_secs(15);

/// What an exploration came to.
struct Found {
    states: usize,
    depth: usize,
    took: Duration,
    /// It ended before everything was seen.
    cut: bool,
    /// The property that failed, and the shortest way there.
    failure: Option<(&'static str, Vec<Action>)>,
    /// What the mix was to reach and did not.
    unreached: Vec<&'static str>,
}

/// Explores breadth first. One thread finds the shortest counterexample, two find one sooner.
fn explore(scenario: Scenario, threads: usize, time: Duration) -> Found {
    let begun = Instant::now();
    let scenario = Scenario {
        until: begun + time,
        ..scenario
    };
    let checker = scenario.checker().threads(threads);
    let checker = checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let took = begun.elapsed();
    checker.model().explored.store(true, Ordering::Relaxed);
    let discoveries = checker.discoveries();
    let is_aim = |name: &str| name.starts_with("reached");
    // Several may fail in the steps that are explored at once: the shortest is told.
    let failure = discoveries
        .iter()
        .filter(|(name, _)| !is_aim(name))
        .map(|(name, path)| (*name, until_it_fails(checker.model(), name, path)))
        .min_by_key(|(name, actions)| (actions.len(), *name));
    let properties = checker.model().properties();
    Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        cut: failure.is_none() && (took >= time),
        failure,
        unreached: properties
            .iter()
            .map(|property| property.name)
            .filter(|name| is_aim(name) && !discoveries.contains_key(name))
            .collect(),
    }
}

/// The way to the first state in which a property does not hold: a path that is found may go on beyond it.
fn until_it_fails(scenario: &Scenario, name: &'static str, path: &Path<World, Action>) -> Vec<Action> {
    let property = scenario.property(name);
    let steps = path.clone().into_vec();
    let holds = |(world, _): &&(World, Option<Action>)| (property.condition)(scenario, world);
    let before = steps.iter().take_while(holds).count();
    steps[..before].iter().filter_map(|(_, action)| *action).collect()
}

impl Found {
    /// A line for the reader, with the way to a failure.
    #[allow(
        clippy::print_stdout,
        reason = "the results are for whoever runs the test with --nocapture"
    )]
    fn report(&self, name: &str) {
        let end = if self.cut { "CUT" } else { "done" };
        let (states, depth, took) = (self.states, self.depth, self.took.as_secs_f32());
        println!("{name:<44} {states:>9} states, depth {depth:>2}, {took:>6.1} s, {end}");
        if let Some((property, actions)) = &self.failure {
            println!("  {property}: {} steps", actions.len());
            for action in actions {
                println!("    {action:?}");
            }
        }
        for name in &self.unreached {
            println!("  not {name}");
        }
    }

    /// Fails unless everything that was seen is well, and the mix reached what it is for.
    fn must_hold(&self, name: &str) {
        self.report(name);
        assert!(self.failure.is_none(), "{name}: a counterexample");
        assert!(
            self.cut || self.unreached.is_empty(),
            "{name} does not reach {:?}",
            self.unreached
        );
    }
}

/// Explores a mix without a rule, which must fail in so many steps.
fn must_fail(mutation: &Mutation) {
    let (missing, line_up, budget, steps) = *mutation;
    let scenario = Scenario {
        missing,
        ..mix(line_up, budget)
    };
    let name = format!("{missing:?} in {}", scenario.name);
    let long = if std::env::var_os("HUNT").is_none() {
        LONG
    } else {
        LONGEST
    };
    let found = explore(scenario, 1, long);
    found.report(&name);
    let least = found.failure.map(|(_, actions)| actions.len());
    if std::env::var_os("HUNT").is_none() {
        assert_eq!(least, Some(steps), "{name}");
    }
}

const LONG: Duration = Duration::from_secs(3_600);

/// Mixes that are small enough for every run of the tests.
#[test]
fn small_mixes_hold() {
    let small = [
        ("one slot, three", "lost vanish stop"),
        ("one slot", "leave resume vanish stop"),
    ];
    for (line_up, budget) in small {
        explore(mix(line_up, budget), 1, LONG).must_hold(budget);
    }
}

#[test]
#[ignore = "long: minutes in a release build"]
fn all_mixes_hold() {
    for (line_up, budget) in MIXES {
        let scenario = mix(line_up, budget);
        let name = scenario.name.clone();
        explore(scenario, 1, LONGEST).must_hold(&name);
    }
    for (line_up, budget, steps) in OPEN {
        must_fail(&(Missing::Nothing, line_up, budget, *steps));
    }
}

/// Rules that are missed soon enough for every run of the tests.
#[test]
fn some_rules_are_needed() {
    for mutation in MUTATIONS.iter().filter(|(.., steps)| *steps <= 7) {
        must_fail(mutation);
    }
}

#[test]
#[ignore = "long: minutes in a release build"]
fn every_rule_is_needed() {
    MUTATIONS.iter().for_each(must_fail);
    for (missing, line_up, budget) in COVERED {
        let scenario = Scenario {
            missing: *missing,
            ..mix(line_up, budget)
        };
        let name = format!("{missing:?} in {}", scenario.name);
        explore(scenario, 1, LONGEST).must_hold(&name);
    }
}

/// By hand, when `MIX` is set: the mixes whose name contains `MIX`, without the rule whose name contains `MISSING`, for `SECONDS`.
#[test]
#[ignore = "by hand"]
fn one() {
    if std::env::var_os("MIX").is_none() {
        return;
    }
    let word = |name: &str| std::env::var(name).unwrap_or_default();
    let seconds = word("SECONDS").parse().unwrap_or(60);
    let all = MUTATIONS.iter().map(|(missing, ..)| *missing);
    let all = all.chain(COVERED.iter().map(|(missing, ..)| *missing));
    let wanted = |missing: &Missing| format!("{missing:?}").contains(&word("MISSING"));
    let missing: Vec<_> = match word("MISSING").is_empty() {
        true => vec![Missing::Nothing],
        false => all.filter(wanted).collect(),
    };
    for missing in missing {
        for (line_up, budget) in MIXES {
            let scenario = Scenario {
                missing,
                ..mix(line_up, budget)
            };
            let name = format!("{missing:?} {}", scenario.name);
            if !scenario.name.contains(&word("MIX")) {
                continue;
            }
            let found = explore(scenario, 1, Duration::from_secs(seconds));
            found.report(&name);
            // One counterexample is enough for a rule that is missing.
            if missing != Missing::Nothing && found.failure.is_some() {
                break;
            }
        }
    }
}
