//! What every daemon shows of itself, whatever it does.

use jiff::Timestamp;

use super::{AlertKind, Alerts, Exposition, Labels};

impl Exposition {
    /// A page that begins with the version of the program, and when the daemon started.
    pub fn of_daemon(version: &str, started: Timestamp) -> Exposition {
        let mut page = Exposition::default();
        let labels: Labels<'_> = &[("version", version)];
        page.gauges("walseal_build_info", "Always 1; the version is a label.", [(labels, 1.0)]);
        let started = started.as_millisecond() as f64 / 1e3;
        page.gauge("walseal_start_time_seconds", "When the daemon started, since 1970.", started);
        page
    }

    /// The memory that this process takes; nothing where the system does not tell.
    pub fn memory(&mut self) {
        let bytes = resident().map(|bytes| bytes as f64);
        self.gauge("walseal_memory_resident_bytes", "Resident memory of the daemon.", bytes);
    }

    /// How many alerts of these kinds stand.
    pub fn alerts(&mut self, alerts: &Alerts, kinds: &[AlertKind]) {
        let standing = alerts.standing();
        let count = |kind: AlertKind| standing.iter().filter(|alert| alert.kind == kind).count();
        let labels: Vec<_> = kinds.iter().map(|kind| ([("kind", kind.word())], count(*kind))).collect();
        let samples = labels.iter().map(|(labels, count)| (labels as Labels<'_>, *count as f64));
        self.gauges("walseal_alerts", "Alerts that stand, by kind.", samples);
    }
}

/// Resident memory of this process in bytes, as Linux tells it (`proc_pid_status(5)`).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
