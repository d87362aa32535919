//! Exit codes: each is part of the contract.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

/// How every verb ends, except `fetch` and `status --check`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// 0: what was asked for is done.
    Done = 0,
    /// 1: it failed; the reason is on standard error.
    Failed = 1,
    /// 2: the command line is wrong; nothing was tried.
    Usage = 2,
}

/// How `fetch` ends. PostgreSQL takes 1 to 125 for "no such file", which ends recovery and may promote; above 125 it stops
/// (`RestoreArchivedFile` in src/backend/access/transam/xlogarchive.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FetchExit {
    /// 0: the file is there, whole.
    Delivered = 0,
    /// 1: it is proven that nothing is known there (I6).
    NotThere = 1,
    /// 200: anything else, wrong usage and internal errors too. Not 126 or 127, which shells use for programs that they
    /// cannot run, so that the two can be told apart in PostgreSQL's log.
    Failed = 200,
}

/// How `status --check` ends, as monitors expect it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CheckExit {
    /// 0: all is well.
    Fine = 0,
    /// 1: something wants attention.
    Warning = 1,
    /// 2: recovery to now is at risk, or nothing is known.
    Critical = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<FetchExit> for ExitCode {
    fn from(exit: FetchExit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<CheckExit> for ExitCode {
    fn from(exit: CheckExit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl FetchExit {
    /// Makes every panic of this process, on any thread, end it with [`FetchExit::Failed`]. Rust's own code for a panic is
    /// 101, which PostgreSQL would take for the end of WAL. `fetch` calls this first.
    pub fn on_panic() {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            std::process::exit(i32::from(FetchExit::Failed as u8));
        }));
    }
}

/// The exit code for a command line that clap refused: 0 where it asked for help or version, else 2; but for `fetch`
/// [`FetchExit::Failed`], because 2 would tell PostgreSQL that the WAL ends there. `arguments` are those of the process;
/// a command line that names `fetch` anywhere counts as `fetch`.
pub fn of_usage_error(error: &clap::Error, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done as u8,
        _ if arguments.into_iter().skip(1).any(|argument| argument == "fetch") => FetchExit::Failed as u8,
        _ => Exit::Usage as u8,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn case_01_no_failure_of_fetch_looks_like_the_end_of_wal() {
        let code = FetchExit::Failed as u8;
        // Up to 125 PostgreSQL ends recovery; from 128 shells report signals, of which there are 64.
        assert!(code > 128 + 64, "{code} could be taken for something else");
        assert_eq!((FetchExit::Delivered as u8, FetchExit::NotThere as u8), (0, 1));
    }

    #[test]
    fn case_01_a_command_line_of_fetch_that_is_wrong_does_not_look_like_the_end_of_wal() {
        let refuse = |arguments: &[&str]| {
            let command = clap::Command::new("walseal-restorer").subcommand(clap::Command::new("fetch"));
            let error = command.try_get_matches_from(arguments).expect_err("wrong usage");
            of_usage_error(&error, arguments.iter().map(OsString::from))
        };
        assert_eq!(refuse(&["walseal-restorer", "fetch", "--wrong"]), 200);
        assert_eq!(refuse(&["walseal-restorer", "--wrong", "fetch"]), 200);
        assert_eq!(refuse(&["walseal-restorer", "list"]), 2);
        assert_eq!(refuse(&["walseal-restorer", "--help"]), 0);
    }

    /// Runs only as the child of the next test.
    #[test]
    fn a_child_that_panics_on_another_thread() {
        if std::env::var_os("WALSEAL_TEST_PANIC").is_some() {
            FetchExit::on_panic();
            let ended = std::thread::spawn(|| panic!("on purpose")).join();
            panic!("the process outlived a panic: {ended:?}");
        }
    }

    #[test]
    fn case_01_a_panic_in_fetch_does_not_look_like_the_end_of_wal() {
        let program = std::env::current_exe().expect("this test's program");
        let output = Process::new(program)
            .args(["--exact", "terminal::exit::tests::a_child_that_panics_on_another_thread", "--nocapture"])
            .env("WALSEAL_TEST_PANIC", "1")
            .output()
            .expect("run this test's program again");
        assert_eq!(output.status.code(), Some(200), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("on purpose"), "{output:?}");
    }
}
