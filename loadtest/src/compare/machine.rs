//! What the comparison ran on and with.
//!
//! Owns: asking for names and versions. Called by: [`super::results`].

use std::fs;
use std::path::Path;
use std::process::Command;

/// Processor, memory and system, in a line.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let model = after(&read("/proc/cpuinfo"), "model name");
    let kib: u64 = after(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{processors} x {model}, {} GiB, Linux {}",
        kib / 1_048_576,
        kernel.trim()
    )
}

/// The first line of what a program says of its version.
pub(super) fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

/// The commit of the working directory, when it is one of git.
pub(super) fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

/// Today, in UTC.
pub(super) fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.chars().take(10).collect()
}
