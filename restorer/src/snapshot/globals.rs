//! Roles, as `pg_dumpall --globals-only` makes them, in the cluster of a drill.
//!
//! Tablespaces are passed over: their folders are production's, and whatever a drill wrote there would stay when its cluster is gone.

use walseal_common::postgres::{PostgresError, SqlClient};

use crate::drill::report::Found;

/// Runs what `text` says, tablespaces aside. What fails is told: the dump's own errors judge.
///
/// Errors: the connection broke.
pub async fn make(client: &SqlClient, text: &str) -> Result<Found, PostgresError> {
    let (mut said, mut passed_over) = (Vec::new(), Vec::new());
    // One by one: a role that is there already must not keep the others away.
    for statement in statements(text) {
        if is_about_tablespaces(&statement) {
            passed_over.push(format!("passed over: {}", statement.trim_end()));
            continue;
        }
        match client.simple_query("a statement failed", &statement).await {
            Ok(_) => {}
            // The new cluster's own superuser.
            Err(error) if error.sqlstate() == Some("42710") => {}
            Err(PostgresError::Server { error, .. }) => said.push(error.message.clone()),
            Err(error) => return Err(error),
        }
    }
    Ok(found(said, passed_over))
}

fn found(said: Vec<String>, passed_over: Vec<String>) -> Found {
    if said.is_empty() && passed_over.is_empty() {
        return Found::good("made");
    }
    let mut words = match said.first() {
        None => "roles are made".to_owned(),
        Some(first) => format!("{} statements failed: {first}", said.len()),
    };
    if !passed_over.is_empty() {
        words.push_str(&format!(
            "; {} statements about tablespaces were passed over: everything is restored into the cluster's own folder",
            passed_over.len()
        ));
    }
    Found::odd(words).with([said, passed_over].concat())
}

/// What a piece of SQL is within.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Text,
    Name,
}

impl Within {
    /// After this character. A quote that is doubled leaves and enters at once.
    fn after(self, character: char) -> Within {
        match (self, character) {
            (Within::Nothing, '\'') => Within::Text,
            (Within::Nothing, '"') => Within::Name,
            (Within::Text, '\'') | (Within::Name, '"') => Within::Nothing,
            (within, _) => within,
        }
    }
}

/// The statements of `pg_dumpall --globals-only`: each begins on a line of its own, and ends with a semicolon at the end of one, unless
/// that is within quotes.
fn statements(text: &str) -> Vec<String> {
    let (mut found, mut open, mut within) = (Vec::new(), String::new(), Within::Nothing);
    for line in text.lines() {
        if open.is_empty() && (line.trim().is_empty() || line.starts_with("--") || line.starts_with('\\')) {
            continue;
        }
        open.push_str(line);
        open.push('\n');
        within = line.chars().fold(within, Within::after);
        if within == Within::Nothing && line.ends_with(';') {
            found.push(std::mem::take(&mut open));
        }
    }
    found
}

/// Whether a statement makes or changes a tablespace, or says or grants something on one.
fn is_about_tablespaces(statement: &str) -> bool {
    let mut within = Within::Nothing;
    let mut bare = String::with_capacity(statement.len());
    for character in statement.chars() {
        let before = within;
        within = within.after(character);
        // What is quoted is a name or a text, whatever it reads like.
        bare.push(if before == Within::Nothing && within == Within::Nothing { character } else { '?' });
    }
    let words: Vec<&str> = bare.split_whitespace().collect();
    matches!(words.as_slice(), ["CREATE" | "ALTER", "TABLESPACE", ..])
        || words.windows(2).any(|pair| *pair == ["ON", "TABLESPACE"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::report::Outcome;

    #[test]
    fn statements_of_globals_are_told_apart() {
        let text = "--\n-- Roles\n--\n\n\\restrict x\nSET client_encoding = 'UTF8';\n\nCREATE ROLE a;\nCOMMENT ON ROLE a IS 'two\nlines';\n";
        let found = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[2], "COMMENT ON ROLE a IS 'two\nlines';\n");
        // A comment that reads like the end of a statement and the beginning of another one.
        let text = "COMMENT ON ROLE a IS 'it''s;\nDROP ROLE b;\n-- \n';\nCREATE ROLE \"o'b;\";\nCREATE ROLE c;\n";
        let found = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[1], "CREATE ROLE \"o'b;\";\n");
    }

    #[test]
    fn statements_about_tablespaces_are_told_from_those_that_read_like_one() {
        for about in [
            "CREATE TABLESPACE fast OWNER clerk LOCATION '/srv/fast';\n",
            "ALTER TABLESPACE \"odd name\" SET (seq_page_cost=1);\n",
            "COMMENT ON TABLESPACE fast IS 'on\nnvme';\n",
            "REVOKE ALL ON TABLESPACE fast FROM clerk;\n",
            "GRANT ALL ON TABLESPACE fast TO PUBLIC;\n",
            "SECURITY LABEL FOR dummy ON TABLESPACE fast IS 'secret';\n",
        ] {
            assert!(is_about_tablespaces(about), "{about}");
        }
        for other in [
            "CREATE ROLE clerk;\n",
            "CREATE ROLE \"TABLESPACE\";\n",
            "GRANT \"x ON TABLESPACE y\" TO clerk;\n",
            "COMMENT ON ROLE clerk IS 'grants ON TABLESPACE fast';\n",
            "ALTER ROLE clerk SET default_tablespace TO 'fast';\n",
        ] {
            assert!(!is_about_tablespaces(other), "{other}");
        }
    }

    #[test]
    fn what_was_passed_over_is_a_warning_beside_what_failed() {
        let one = |word: &str| vec![word.to_owned()];
        assert_eq!(found(Vec::new(), Vec::new()).outcome, Outcome::Passed);
        let passed_over = found(Vec::new(), one("passed over: CREATE TABLESPACE fast"));
        assert_eq!(passed_over.outcome, Outcome::Warned);
        assert!(passed_over.found.starts_with("roles are made; 1 statements about tablespaces were passed over"));
        let both = found(one("no such plugin"), one("passed over: CREATE TABLESPACE fast"));
        assert!(both.found.starts_with("1 statements failed: no such plugin; 1 statements"), "{}", both.found);
        assert_eq!(both.details.len(), 2);
    }
}
