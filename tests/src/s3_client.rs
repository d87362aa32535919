//! The tests' own S3 client: `tests/oracle/s3.py`, one process for each that runs tests, which ends with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

static CLIENT: Mutex<Option<Client>> = Mutex::new(None);

struct Client {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the client prints for `arguments`, at the server that `environment` names.
///
/// Errors: what it says of a refusal, or of its end.
pub(crate) fn ask(environment: &BTreeMap<&str, &str>, arguments: &[&str]) -> Result<String> {
    let mut client = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = match client.take() {
        Some(known) => known,
        None => Client::start()?,
    };
    let answer = match known.exchange(&json!({ "environment": environment, "arguments": arguments })) {
        Ok(answer) => answer,
        Err(error) => bail!("s3.py {arguments:?} gave no answer: {error:#}\n{}", known.last_words()),
    };
    *client = Some(known);
    match (answer["printed"].as_str(), answer["error"].as_str()) {
        (Some(printed), None) => Ok(printed.to_owned()),
        (_, error) => bail!("s3.py {arguments:?} failed:\n{}", error.unwrap_or("it does not say why")),
    }
}

impl Client {
    fn start() -> Result<Client> {
        let python = std::env::var("WALSEAL_TEST_PYTHON")
            .context("WALSEAL_TEST_PYTHON is not set: scripts/test makes a Python with boto3; run `scripts/test`")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/s3.py");
        let mut call = Command::new(&python);
        call.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = call.spawn().with_context(|| format!("starting {python}"))?;
        let questions = process.stdin.take().context("its standard input is a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("its standard output is a pipe")?);
        Ok(Client { process, questions, answers })
    }

    fn exchange(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.questions, "{question}")?;
        self.questions.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("{line:?} is no answer"))
    }

    /// Ends it, and what it said beside its answers.
    fn last_words(mut self) -> String {
        let mut said = String::new();
        let ended = self.process.kill().and_then(|()| self.process.wait());
        let read = self.process.stderr.as_mut().map(|words| words.read_to_string(&mut said));
        format!("{said}\n(ended: {ended:?}, read: {read:?})")
    }
}
