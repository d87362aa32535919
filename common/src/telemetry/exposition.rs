//! Figures as Prometheus reads them: its text format, version 0.0.4.

use std::fmt::Write as _;

/// The media type of the format.
pub const EXPOSITION_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of figures, written one metric after the other.
#[derive(Clone, Debug, Default)]
pub struct Exposition(String);

/// What kind of figure a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// The labels of a sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// A figure that goes up and down. What is not known is not there.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.head(name, help, Kind::Gauge);
        if let Some(value) = value.into() {
            self.sample(name, &[], value);
        }
    }

    /// A figure that only goes up, from 0 at the start of the process; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [(&[] as Labels<'_>, value)]);
    }

    /// Figures of one name, told apart by labels.
    pub fn gauges<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        self.head(name, help, Kind::Gauge);
        for (labels, value) in samples {
            self.sample(name, labels, value);
        }
    }

    /// Counters of one name, told apart by labels.
    pub fn counters<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels<'a>, u64)>) {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.head(name, help, Kind::Counter);
        for (labels, value) in samples {
            self.sample(name, labels, value as f64);
        }
    }

    /// How many values fell into each bucket: `buckets` has the upper bounds, ascending, with how many lay at or below each and
    /// above the one before; `beyond` how many lay above the last; `sum` is that of all values.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        beyond: u64,
        sum: f64,
    ) {
        self.head(name, help, Kind::Histogram);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, more) in buckets {
            count += more;
            self.sample(&bucket, &[("le", &bound.to_string())], count as f64);
        }
        count += beyond;
        self.sample(&bucket, &[("le", "+Inf")], count as f64);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], count as f64);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, help: &str, kind: Kind) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let mut page = Exposition::default();
        page.gauge("lag_bytes", "WAL\nthat waits", 5.0);
        page.gauge("unknown_seconds", "nobody knows", None);
        page.counters("errors_total", "how many", [(&[("why", "a \"b\"\\\n")] as Labels<'_>, 7)]);
        page.gauges("alerts", "what stands", [(&[("kind", "gap"), ("severity", "critical")] as Labels<'_>, 1.0)]);
        page.histogram("put_duration_seconds", "how long", [(0.5, 2), (1.0, 3)], 1, 4.25);
        assert_eq!(
            page.finish(),
            "# HELP lag_bytes WAL\\nthat waits\n# TYPE lag_bytes gauge\nlag_bytes 5\n\
             # HELP unknown_seconds nobody knows\n# TYPE unknown_seconds gauge\n\
             # HELP errors_total how many\n# TYPE errors_total counter\nerrors_total{why=\"a \\\"b\\\"\\\\\\n\"} 7\n\
             # HELP alerts what stands\n# TYPE alerts gauge\nalerts{kind=\"gap\",severity=\"critical\"} 1\n\
             # HELP put_duration_seconds how long\n# TYPE put_duration_seconds histogram\n\
             put_duration_seconds_bucket{le=\"0.5\"} 2\nput_duration_seconds_bucket{le=\"1\"} 5\n\
             put_duration_seconds_bucket{le=\"+Inf\"} 6\nput_duration_seconds_sum 4.25\nput_duration_seconds_count 6\n"
        );
    }
}
