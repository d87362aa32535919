//! Progress of long work.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{printable, units};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress in bytes, on standard error: one line that renews itself on a terminal, a plain line every 5 seconds
/// elsewhere. Clones report on the same work, from any thread.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Work>>);

struct Work {
    meter: Meter,
    output: Output,
    last_line: Instant,
    finished: bool,
}

enum Output {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
}

/// What is known about the work; without a clock of its own.
#[derive(Clone, Debug)]
struct Meter {
    title: String,
    started: Instant,
    done: u64,
    total: Option<u64>,
    message: String,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.work().meter, f)
    }
}

impl Progress {
    /// Progress of work called `title`, of `total` bytes where that is known.
    pub fn new(title: &str, total: Option<u64>) -> Progress {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The line is made here, so that both outputs say the same. The template is known to be right; where it
            // were not, the default style still shows the message.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            Progress::with_output(title, total, Output::Bar(bar))
        } else {
            Progress::with_output(title, total, Output::Lines(Box::new(std::io::stderr())))
        }
    }

    fn with_output(title: &str, total: Option<u64>, output: Output) -> Progress {
        let now = Instant::now();
        let meter = Meter { title: printable(title), started: now, done: 0, total, message: String::new() };
        Progress(Arc::new(Mutex::new(Work { meter, output, last_line: now, finished: false })))
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        let mut work = self.work();
        work.meter.done = work.meter.done.saturating_add(bytes);
        work.show(Instant::now(), false);
    }

    /// The total, once it is known or known better.
    pub fn set_total(&self, bytes: u64) {
        self.work().meter.total = Some(bytes);
    }

    /// What is being done or waited for now; shown with the numbers. Where there is no terminal a new message is a line
    /// at once.
    pub fn message(&self, text: &str) {
        let mut work = self.work();
        let text = printable(text);
        if work.meter.message != text {
            work.meter.message = text;
            work.show(Instant::now(), true);
        }
    }

    /// As [`Progress::message`], for what changes many times a second: where there is no terminal it waits for the next
    /// line.
    pub fn note(&self, text: &str) {
        let mut work = self.work();
        work.meter.message = printable(text);
        work.show(Instant::now(), false);
    }

    /// The work is done: shows how much it was, how long it took and `result`. Only the first call counts.
    pub fn finish(&self, result: &str) {
        let mut work = self.work();
        let line = work.meter.last_line(Instant::now(), &printable(result));
        work.end(Some(&line));
    }

    /// The work ended in an error, which says the rest: removes what is shown.
    pub fn abandon(&self) {
        self.work().end(None);
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        // Numbers for people: those of a thread that panicked are as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Shows the numbers; where there is no terminal, only when a line is due or `at_once`.
    fn show(&mut self, now: Instant, at_once: bool) {
        if self.finished {
            return;
        }
        match &mut self.output {
            Output::Bar(bar) => bar.set_message(self.meter.line(now)),
            Output::Lines(lines) => {
                if at_once || now.saturating_duration_since(self.last_line) >= LINE_INTERVAL {
                    self.last_line = now;
                    write_line(lines, &self.meter.line(now));
                }
            }
        }
    }

    fn end(&mut self, line: Option<&str>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
        if let Some(line) = line {
            match &mut self.output {
                Output::Bar(_) => write_line(&mut std::io::stderr(), line),
                Output::Lines(lines) => write_line(lines, line),
            }
        }
    }
}

fn write_line(output: &mut dyn Write, line: &str) {
    // Nobody can be told that standard error is closed, and the work goes on.
    let _ = writeln!(output, "{line}");
}

impl Meter {
    /// `base backup: 1.2 GiB of 3.4 GiB (35 %), 210 MiB/s, 10 s left: waiting for …`
    fn line(&self, now: Instant) -> String {
        let elapsed = now.saturating_duration_since(self.started);
        let mut line = format!("{}: {}", self.title, units::size(self.done));
        // An estimate may turn out too low: then there is nothing to compare with.
        let total = self.total.filter(|total| *total > 0 && self.done <= *total);
        if let Some(total) = total {
            let percent = u128::from(self.done) * 100 / u128::from(total);
            line.push_str(&format!(" of {} ({percent} %)", units::size(total)));
        }
        let per_second = self.done as f64 / elapsed.as_secs_f64();
        if elapsed >= Duration::from_secs(1) && self.done > 0 {
            line.push_str(&format!(", {}", units::rate(per_second)));
            if let Some(total) = total.filter(|total| self.done < *total) {
                let left =
                    Duration::try_from_secs_f64((total - self.done) as f64 / per_second).unwrap_or(Duration::MAX);
                line.push_str(&format!(", {} left", units::duration(left)));
            }
        }
        if !self.message.is_empty() {
            line.push_str(&format!(": {}", self.message));
        }
        line
    }

    /// `base backup: 3.4 GiB in 16 s, 210 MiB/s: done`
    fn last_line(&self, now: Instant, result: &str) -> String {
        let elapsed = now.saturating_duration_since(self.started);
        let mut line = format!("{}: {} in {}", self.title, units::size(self.done), units::duration(elapsed));
        if elapsed >= Duration::from_millis(100) && self.done > 0 {
            line.push_str(&format!(", {}", units::rate(self.done as f64 / elapsed.as_secs_f64())));
        }
        if !result.is_empty() {
            line.push_str(&format!(": {result}"));
        }
        line
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use insta::assert_snapshot;

    use super::super::paper::Paper;
    use super::*;

    fn meter(done: u64, total: Option<u64>) -> Meter {
        Meter { title: "base backup".into(), started: Instant::now(), done, total, message: String::new() }
    }

    #[test]
    fn a_line_has_share_rate_and_time_left_where_they_are_known() {
        let after = |meter: &Meter, seconds: u64| meter.line(meter.started + Duration::from_secs(seconds));
        assert_snapshot!(after(&meter(0, None), 0), @"base backup: 0 B");
        assert_snapshot!(after(&meter(0, Some(4 << 30)), 3), @"base backup: 0 B of 4 GiB (0 %)");
        assert_snapshot!(after(&meter(1 << 30, None), 5), @"base backup: 1 GiB, 205 MiB/s");
        assert_snapshot!(after(&meter(1 << 30, Some(4 << 30)), 5), @"base backup: 1 GiB of 4 GiB (25 %), 205 MiB/s, 15 s left");
        // More than was estimated.
        assert_snapshot!(after(&meter(5 << 30, Some(4 << 30)), 5), @"base backup: 5 GiB, 1 GiB/s");
        let waiting = Meter { message: "waiting for WAL through 0/3000060".into(), ..meter(4 << 30, Some(4 << 30)) };
        assert_snapshot!(after(&waiting, 20), @"base backup: 4 GiB of 4 GiB (100 %), 205 MiB/s: waiting for WAL through 0/3000060");
        let end = waiting.last_line(waiting.started + Duration::from_secs(20), "20261121T023000Z");
        assert_snapshot!(end, @"base backup: 4 GiB in 20 s, 205 MiB/s: 20261121T023000Z");
    }

    #[test]
    fn without_a_terminal_there_is_a_line_for_each_message_and_one_at_the_end() {
        let paper = Paper::default();
        let progress = Progress::with_output("restore", Some(2048), Output::Lines(Box::new(paper.clone())));
        progress.advance(1024);
        assert_eq!(paper.text(), "", "a line came before its time");
        progress.message("reading the manifest");
        progress.message("reading the manifest");
        let clone = progress.clone();
        std::thread::spawn(move || clone.advance(1024)).join().expect("a thread that reports");
        progress.finish("done");
        progress.finish("done twice");
        progress.advance(1);
        let text = paper.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], "restore: 1 KiB of 2 KiB (50 %): reading the manifest");
        assert!(lines[1].starts_with("restore: 2 KiB in ") && lines[1].ends_with(": done"), "{text}");
    }

    #[test]
    fn without_a_terminal_lines_are_five_seconds_apart() {
        let paper = Paper::default();
        let progress = Progress::with_output("restore", None, Output::Lines(Box::new(paper.clone())));
        let start = progress.work().last_line;
        for seconds in 1..=11 {
            progress.note(&format!("second {seconds}"));
            progress.work().show(start + Duration::from_secs(seconds), false);
        }
        assert_eq!(paper.text().lines().count(), 2);
    }

    #[test]
    fn abandoned_work_says_nothing_more() {
        let paper = Paper::default();
        let progress = Progress::with_output("restore", None, Output::Lines(Box::new(paper.clone())));
        progress.abandon();
        progress.finish("done");
        assert_eq!(paper.text(), "");
    }
}
