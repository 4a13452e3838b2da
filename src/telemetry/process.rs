//! The process's own metrics.
//!
//! Owns: `process_*`. The library's collector counts processor time in whole seconds, which tells nothing about an idle
//! node or a short measurement: here it has the resolution of the kernel's clock. Called by: `metrics`, and the load
//! tool's floor server.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

/// Gives `process_*` of this process to a registry.
#[derive(Debug)]
pub struct Process(ProcessCollector);

impl Default for Process {
    fn default() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            if family.name() == "process_cpu_seconds_total" {
                for metric in family.mut_metric() {
                    let mut counter = metric.get_counter().clone();
                    counter.set_value(cpu_seconds());
                    metric.set_counter(counter);
                }
            }
        }
        families
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a process's life")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_has_a_fraction() {
        let families = Process::default().collect();
        let family = families
            .iter()
            .find(|family| family.name() == "process_cpu_seconds_total");
        let seconds = family.map(|family| family.get_metric()[0].get_counter().get_value());
        assert!(
            seconds.is_some_and(|seconds| seconds > 0.0 && seconds.fract() > 0.0),
            "{seconds:?}"
        );
    }
}
