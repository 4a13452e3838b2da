//! What a node tells about itself: metrics, logs, and ids that join a request's lines.
//!
//! Owns: the metric names, the log output, the audit trail, and their rotation.
//! Does not: decide what is worth counting or logging; no account, device, content or session id becomes a label.
//! Called by: everything that counts or logs; `cli::serve` starts the log.

mod instrument;
mod label;
mod logging;
mod metrics;
mod process;
mod request_id;
mod rotate;
mod trail;

pub use instrument::{
    Counted, CounterFamily, Counters, HttpCounters, HttpTimes, LevelGauges, TimeFamily, method_label,
};
pub use label::{Admission, Audit, Handshake, Label, RateRule, Refusal};
pub use logging::{LogError, LogHandle, init};
pub use metrics::Metrics;
pub use process::Process;
pub use request_id::RequestId;
pub use trail::AuditTrail;
