//! Setting up the log.

use std::fmt;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::journal;
use crate::config::Environment;
use crate::config::cli::LogFormat;

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error(
        "WALSEAL_LOG={filter:?} is not a log filter: {reason}; set it to error, warn, info, debug or trace, \
         or to a filter such as info,walseal_common::store=debug"
    )]
    Filter {
        /// The variable's text.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A log was set up before in this process.
    #[error("the log was set up twice; this is a defect of walseal, please report it")]
    Twice,
}

impl LoggingError {
    /// Trying again never helps.
    pub fn is_permanent(&self) -> bool {
        true
    }
}

/// What is logged where nobody says: what walseal itself has to say. The S3 client's own warnings tell in its insides what our
/// error says for a person.
const DEFAULT_FILTER: &str = "info,aws_config=off,aws_runtime=off,aws_smithy_runtime=off,aws_sdk_s3=off";

/// Sends what `tracing` records in this process to standard error. `WALSEAL_LOG` filters it, by default `info`;
/// `JOURNAL_STREAM` leaves the time to systemd's journal.
///
/// Errors: a filter that makes no sense; a second call.
pub fn init_logging(format: LogFormat, environment: &Environment) -> Result<(), LoggingError> {
    init(format, environment, DEFAULT_FILTER)
}

/// As [`init_logging`], for a hook, whose failure is one line in PostgreSQL's log (case 22): that a store's call is tried
/// again is not said, because the failure says it in the end.
///
/// Errors: as [`init_logging`].
pub fn init_hook_logging(format: LogFormat, environment: &Environment) -> Result<(), LoggingError> {
    init(format, environment, &format!("{DEFAULT_FILTER},walseal_common::store=error"))
}

fn init(format: LogFormat, environment: &Environment, default: &str) -> Result<(), LoggingError> {
    let times = !journal::reads_stderr(environment.get("JOURNAL_STREAM"));
    let filter = environment.get("WALSEAL_LOG").unwrap_or(default);
    let subscriber = subscriber(format, Some(filter), times, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)
}

fn subscriber<W>(
    format: LogFormat,
    filter: Option<&str>,
    times: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_timer(Utc);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match (format, times) {
        (LogFormat::Json, _) => lines.json().flatten_event(true).boxed(),
        (LogFormat::Text, true) => lines.with_target(false).boxed(),
        (LogFormat::Text, false) => lines.with_target(false).without_time().boxed(),
    };
    Ok(Registry::default().with(layer.with_filter(parse_filter(filter.unwrap_or(DEFAULT_FILTER))?)))
}

/// Reads a filter. A lone word that is no level is refused: the library would take it for a module of that name and log
/// nothing else.
fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |reason: String| LoggingError::Filter { filter: text.to_owned(), reason };
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_lone_word = |part: &str| !part.contains(['=', '[', ':']);
    for part in text.split(',').map(str::trim) {
        if is_lone_word(part) && !levels.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(wrong(format!("{part:?} is no level")));
        }
    }
    EnvFilter::builder().parse(text).map_err(|error| wrong(error.to_string()))
}

/// Times in UTC to the millisecond: `2026-11-21T02:30:00.120Z`.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::secret::Secret;
    use crate::terminal::paper::Paper;

    /// What is logged of two events.
    fn logged(format: LogFormat, filter: Option<&str>, times: bool) -> String {
        let paper = Paper::default();
        let writer = paper.clone();
        let subscriber = subscriber(format, filter, times, move || writer.clone()).expect("a right filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(lsn = "0/3000060", password = ?Secret::new("hunter2"), "shipped");
            tracing::debug!("a detail");
        });
        paper.text()
    }

    #[test]
    fn a_line_for_people_has_time_level_and_message_and_no_secret() {
        let text = logged(LogFormat::Text, None, true);
        let (time, rest) = text.split_once(' ').expect("a time first");
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z') && time.len() == 24, "{time}");
        assert_snapshot!(rest.trim(), @r#"INFO shipped lsn="0/3000060" password=[hidden]"#);
    }

    #[test]
    fn the_journal_gets_lines_without_a_time() {
        assert_snapshot!(logged(LogFormat::Text, None, false).trim(), @r#"INFO shipped lsn="0/3000060" password=[hidden]"#);
    }

    #[test]
    fn json_lines_have_their_fields_at_the_top() {
        let text = logged(LogFormat::Json, None, false);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(
            (&line["message"], &line["lsn"], &line["level"]),
            (&"shipped".into(), &"0/3000060".into(), &"INFO".into())
        );
        let time = line["timestamp"].as_str().expect("a time, also for the journal");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }

    #[test]
    fn the_filter_says_what_is_logged() {
        assert_eq!(logged(LogFormat::Text, Some("debug"), false).lines().count(), 2);
        assert_eq!(logged(LogFormat::Text, Some("error"), false), "");
        assert_eq!(logged(LogFormat::Text, Some("warn,walseal_common=debug"), false).lines().count(), 2);
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let refused = |filter: &str| parse_filter(filter).expect_err("a wrong filter").to_string();
        assert_snapshot!(refused("verbose"), @r#"WALSEAL_LOG="verbose" is not a log filter: "verbose" is no level; set it to error, warn, info, debug or trace, or to a filter such as info,walseal_common::store=debug"#);
        assert_snapshot!(refused("walseal_common=loud"), @r#"WALSEAL_LOG="walseal_common=loud" is not a log filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5; set it to error, warn, info, debug or trace, or to a filter such as info,walseal_common::store=debug"#);
        assert!(parse_filter("info,").is_err() && parse_filter("").is_err());
    }
}
