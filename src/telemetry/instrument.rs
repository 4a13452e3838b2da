//! The kinds of metrics that `metrics` declares.
//!
//! Owns: registration, handles resolved beforehand, and the bounds of labels.
//! Does not: know a metric's name or meaning.
//! Called by: `metrics`; its users count on the types.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use super::Label;

/// Tenants, or plans, with a label value of their own; the sessions of the others are counted together.
const MOST_VALUES: usize = 1000;
/// Label value of what has none of its own.
const OTHER: &str = "other";

/// One in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// One more.
    #[must_use]
    pub fn begin(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A kind of metric: makes itself known to a registry under a name and a help text.
pub(super) trait Declare: Sized {
    /// Labels, values to begin with, buckets.
    type Options;

    fn declare(registry: &Registry, name: &str, help: &str, options: Self::Options) -> Result<Self>;
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Declare for IntCounter {
    type Options = ();

    fn declare(registry: &Registry, name: &str, help: &str, (): ()) -> Result<Self> {
        register(registry, Self::new(name, help)?)
    }
}

impl Declare for IntGauge {
    type Options = ();

    fn declare(registry: &Registry, name: &str, help: &str, (): ()) -> Result<Self> {
        register(registry, Self::new(name, help)?)
    }
}

impl Declare for Gauge {
    type Options = ();

    fn declare(registry: &Registry, name: &str, help: &str, (): ()) -> Result<Self> {
        register(registry, Self::new(name, help)?)
    }
}

impl Declare for IntGaugeVec {
    type Options = &'static [&'static str];

    fn declare(registry: &Registry, name: &str, help: &str, labels: Self::Options) -> Result<Self> {
        register(registry, Self::new(Opts::new(name, help), labels)?)
    }
}

impl Declare for Histogram {
    type Options = &'static [f64];

    fn declare(registry: &Registry, name: &str, help: &str, buckets: Self::Options) -> Result<Self> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        register(registry, Self::with_opts(options)?)
    }
}

/// One counter for each value of a [`Label`]; counting is one atomic addition.
#[derive(Debug)]
pub struct Counters<L> {
    handles: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Counts one.
    pub fn inc(&self, value: L) {
        self.handles[value.index()].inc();
    }

    /// What was counted so far.
    #[must_use]
    pub fn count(&self, value: L) -> u64 {
        self.handles[value.index()].get()
    }
}

impl<L: Label> Declare for Counters<L> {
    type Options = ();

    fn declare(registry: &Registry, name: &str, help: &str, (): ()) -> Result<Self> {
        let family = register(registry, IntCounterVec::new(Opts::new(name, help), &[L::NAME])?)?;
        let handles = L::VALUES
            .iter()
            .map(|value| family.get_metric_with_label_values(&[*value]));
        Ok(Self {
            handles: handles.collect::<Result<_>>()?,
            label: PhantomData,
        })
    }
}

/// Counters by one label whose values are literals of the code or names out of the configuration, so that nothing a
/// stranger sends can become one.
#[derive(Debug)]
pub struct CounterFamily(IntCounterVec);

impl CounterFamily {
    /// Counts one for a name out of the configuration, never one that a player sent.
    pub fn inc_configured(&self, value: &str) {
        self.0.with_label_values(&[value]).inc();
    }

    /// Reports a name out of the configuration from zero on.
    pub fn begin_configured(&self, value: &str) {
        self.0.with_label_values(&[value]);
    }

    /// Counts one.
    pub fn inc(&self, value: &'static str) {
        self.0.with_label_values(&[value]).inc();
    }

    /// Counts so many.
    pub fn add(&self, value: &'static str, count: u64) {
        self.0.with_label_values(&[value]).inc_by(count);
    }

    /// What was counted so far.
    #[must_use]
    pub fn count(&self, value: &'static str) -> u64 {
        self.0.with_label_values(&[value]).get()
    }
}

impl Declare for CounterFamily {
    /// Name of the label, and the values that are reported from the start.
    type Options = (&'static str, &'static [&'static str]);

    fn declare(registry: &Registry, name: &str, help: &str, (label, known): Self::Options) -> Result<Self> {
        let family = register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in known {
            family.get_metric_with_label_values(&[*value])?;
        }
        Ok(Self(family))
    }
}

/// Durations by one label whose values are literals of the code.
#[derive(Debug)]
pub struct TimeFamily(HistogramVec);

impl TimeFamily {
    /// Notes one.
    pub fn observe(&self, value: &'static str, took: Duration) {
        self.0.with_label_values(&[value]).observe(took.as_secs_f64());
    }
}

impl Declare for TimeFamily {
    /// Name of the label, the values that are reported from the start, and the buckets.
    type Options = (&'static str, &'static [&'static str], &'static [f64]);

    fn declare(
        registry: &Registry,
        name: &str,
        help: &str,
        (label, known, buckets): Self::Options,
    ) -> Result<Self> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let family = register(registry, HistogramVec::new(options, &[label])?)?;
        for value in known {
            family.get_metric_with_label_values(&[*value])?;
        }
        Ok(Self(family))
    }
}

/// A gauge for each tenant or plan, up to a bound; those after that share the value `other`.
#[derive(Debug)]
pub struct LevelGauges {
    family: IntGaugeVec,
    handles: RwLock<HashMap<String, IntGauge>>,
}

impl LevelGauges {
    /// The gauge of this one. A session keeps it from start to end, so that both count on the same one.
    #[must_use]
    pub fn of(&self, value: &str) -> IntGauge {
        if let Some(gauge) = self
            .handles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(value)
        {
            return gauge.clone();
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        if handles.len() >= MOST_VALUES && !handles.contains_key(value) {
            return self.family.with_label_values(&[OTHER]);
        }
        let new = || self.family.with_label_values(&[value]);
        handles.entry(value.to_owned()).or_insert_with(new).clone()
    }
}

impl Declare for LevelGauges {
    /// The label, and its value that is reported from the start.
    type Options = (&'static str, &'static str);

    fn declare(registry: &Registry, name: &str, help: &str, (label, first): Self::Options) -> Result<Self> {
        let family = register(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
        let gauges = Self {
            family,
            handles: RwLock::default(),
        };
        let _ = gauges.of(first);
        Ok(gauges)
    }
}

/// Answered requests by route, method and status.
#[derive(Debug)]
pub struct HttpCounters(IntCounterVec);

impl HttpCounters {
    /// Counts one. `route` is the pattern that matched (`/v1/sessions/{id}`), never the path that was asked.
    pub fn inc(&self, route: &str, method: &Method, status: StatusCode) {
        self.0
            .with_label_values(&[route, method_label(method), status.as_str()])
            .inc();
    }
}

/// A method as a label and in logs: anybody may send any word.
#[must_use]
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

impl Declare for HttpCounters {
    type Options = ();

    fn declare(registry: &Registry, name: &str, help: &str, (): ()) -> Result<Self> {
        let family = IntCounterVec::new(Opts::new(name, help), &["route", "method", "status"])?;
        Ok(Self(register(registry, family)?))
    }
}

/// Durations by route.
#[derive(Debug)]
pub struct HttpTimes(HistogramVec);

impl HttpTimes {
    /// Notes one. `route` is the pattern that matched, never the path that was asked.
    pub fn observe(&self, route: &str, took: Duration) {
        self.0.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}

impl Declare for HttpTimes {
    type Options = &'static [f64];

    fn declare(registry: &Registry, name: &str, help: &str, buckets: Self::Options) -> Result<Self> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(Self(register(registry, HistogramVec::new(options, &["route"])?)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::super::{Admission, Handshake, Refusal};
    use super::*;

    #[test]
    fn every_variant_counts_under_its_own_value() {
        let registry = Registry::new();
        let counters = Counters::<Refusal>::declare(&registry, "refused", "help", ()).unwrap();
        counters.inc(Refusal::ProxyHeader);
        assert_eq!(counters.handles.len(), 5);
        assert_eq!(
            (
                counters.count(Refusal::ProxyHeader),
                counters.count(Refusal::NodeLimit)
            ),
            (1, 0)
        );
        assert_eq!(Admission::VALUES[Admission::Error.index()], "error");
        assert_eq!(Handshake::VALUES[Handshake::Failed.index()], "failed");
        assert_eq!(Refusal::VALUES[Refusal::ProxyHeader.index()], "proxy_header");
    }

    #[test]
    fn tenants_beyond_the_bound_share_a_value() {
        let registry = Registry::new();
        let gauges = LevelGauges::declare(&registry, "active", "help", ("tenant", "main")).unwrap();
        (0..MOST_VALUES + 500).for_each(|i| gauges.of(&format!("t{i}")).inc());
        let families = registry.gather();
        assert_eq!(families[0].get_metric().len(), MOST_VALUES + 1);
        assert_eq!(gauges.of("t0").get(), 1);
        assert_eq!(gauges.of("unheard of").get(), 501);
    }

    #[test]
    fn a_strange_method_is_other() {
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), OTHER);
        assert_eq!(method_label(&Method::GET), "GET");
    }
}
