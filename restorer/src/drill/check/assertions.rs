//! The user's own questions.

use tokio_postgres::SimpleQueryMessage;
use walseal_common::config::{DrillCheck, Tolerance};
use walseal_common::postgres::{PostgresError, SqlClient};
use walseal_common::terminal::units;

use crate::drill::report::{Found, Outcome};
use crate::instance::Instance;

/// What is expected, in words.
pub fn expected(check: &DrillCheck) -> String {
    match check.tolerance {
        None => check.expect.clone(),
        Some(Tolerance::Absolute(by)) => format!("{} ± {by}", check.expect),
        Some(Tolerance::Percent(by)) => format!("{} ± {by}%", check.expect),
    }
}

/// Asks the database that the check names: in a transaction that reads only, within the check's time. Where the check says so, whatever is
/// not as expected is a warning.
///
/// Errors: the statement cannot run, and the check does not say so.
pub async fn ask(instance: &Instance, user: &str, check: &DrillCheck) -> Result<Found, PostgresError> {
    ask_over(instance.connect(user, &check.database), check).await
}

/// As [`ask`], over this connection.
///
/// Errors: as those of [`ask`].
pub async fn ask_over(
    connection: impl Future<Output = Result<SqlClient, PostgresError>>,
    check: &DrillCheck,
) -> Result<Found, PostgresError> {
    let asked = async { asked(&connection.await?, check).await };
    rule(asked.await, check.fails)
}

fn rule(asked: Result<Found, PostgresError>, fails: bool) -> Result<Found, PostgresError> {
    if fails {
        return asked;
    }
    Ok(match asked {
        Ok(found) if found.outcome == Outcome::Passed => found,
        Ok(found) => Found { outcome: Outcome::Warned, ..found },
        Err(error) => Found::odd(format!("could not run: {error}")),
    })
}

async fn asked(client: &SqlClient, check: &DrillCheck) -> Result<Found, PostgresError> {
    let limit = check.timeout.as_millis().max(1);
    let begin = format!("begin read only; set local statement_timeout = {limit}");
    client.simple_query("beginning a transaction failed", &begin).await?;
    let asked = client.simple_query(&format!("check \"{}\" failed", check.name), &check.sql).await;
    let answers = match asked {
        // statement_timeout, as PostgreSQL says it
        Err(PostgresError::Server { error, .. }) if error.sqlstate == "57014" => {
            return Ok(Found::bad(format!("no answer within {}", units::duration(check.timeout))));
        }
        answers => answers?,
    };
    let row = answers.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("(null)").to_owned()),
        _ => None,
    });
    let Some(found) = row else { return Ok(Found::bad("(no row)")) };
    Ok(if fits(&found, &check.expect, check.tolerance) { Found::good(found) } else { Found::bad(found) })
}

/// Whether an answer is the expected one.
fn fits(found: &str, expected: &str, tolerance: Option<Tolerance>) -> bool {
    let Some(tolerance) = tolerance else { return found == expected };
    let (Ok(found), Ok(expected)) = (found.trim().parse::<f64>(), expected.trim().parse::<f64>()) else { return false };
    let by = match tolerance {
        Tolerance::Absolute(by) => by,
        Tolerance::Percent(by) => expected.abs() * by / 100.0,
    };
    (found - expected).abs() <= by
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_what_is_wrong_fails_unless_the_check_itself_says_that_it_warns() {
        let broken = || Err(PostgresError::Sql { doing: "asking".to_owned(), why: "no such table".to_owned() });
        let outcome = |asked, fails| rule(asked, fails).ok().map(|found| found.outcome);
        assert_eq!(outcome(Ok(Found::bad("3")), true), Some(Outcome::Failed));
        assert_eq!(outcome(broken(), true), None, "what cannot run has not run");
        assert_eq!(outcome(Ok(Found::bad("3")), false), Some(Outcome::Warned));
        assert_eq!(outcome(broken(), false), Some(Outcome::Warned));
        assert_eq!(outcome(Ok(Found::good("4")), false), Some(Outcome::Passed));
    }

    #[test]
    fn answers_are_texts_unless_a_tolerance_makes_them_numbers() {
        assert!(fits("t", "t", None) && !fits("t", "true", None) && !fits("7.0", "7", None));
        let by = Some(Tolerance::Absolute(2.0));
        assert!(fits("12", "10", by) && fits("8", "10", by) && !fits("12.5", "10", by));
        assert!(!fits("many", "10", by) && !fits("10", "many", by) && !fits("NaN", "10", by));
        let by = Some(Tolerance::Percent(10.0));
        assert!(fits("-11", "-10", by) && !fits("-11.5", "-10", by));
    }
}
