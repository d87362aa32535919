//! What a check found.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it must be.
    Fine,
    /// It works, and may bite one day.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be looked at; nobody may take that for a pass.
    NotChecked,
}

impl Verdict {
    /// The word before a line.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Failed => "FAILED",
            Verdict::NotChecked => "UNKNOWN",
        }
    }
}

/// One precondition, looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub text: String,
    /// What to do about it, the best first; several are alternatives.
    pub fix: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, text: impl ToString) -> Finding {
        Finding { check, verdict, text: text.to_string(), fix: Vec::new() }
    }

    /// As it must be.
    pub fn fine(check: &'static str, text: impl ToString) -> Finding {
        Finding::new(check, Verdict::Fine, text)
    }

    /// It works, and may bite one day.
    pub fn warning(check: &'static str, text: impl ToString) -> Finding {
        Finding::new(check, Verdict::Warning, text)
    }

    /// It does not work.
    pub fn failed(check: &'static str, text: impl ToString) -> Finding {
        Finding::new(check, Verdict::Failed, text)
    }

    /// It could not be looked at.
    pub fn not_checked(check: &'static str, text: impl ToString) -> Finding {
        Finding::new(check, Verdict::NotChecked, text)
    }

    /// Adds what to do.
    #[must_use]
    pub fn fix(mut self, step: impl ToString) -> Finding {
        self.fix.push(step.to_string());
        self
    }

    /// Adds several things to do.
    #[must_use]
    pub fn fixes(self, steps: impl IntoIterator<Item = String>) -> Finding {
        steps.into_iter().fold(self, Finding::fix)
    }

    /// Whether it is as it must be, or at least works.
    pub fn passes(&self) -> bool {
        matches!(self.verdict, Verdict::Fine | Verdict::Warning)
    }
}
