//! The server that an earlier run of the same restore left: a run that was killed could not end it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::InstanceError;
use super::server::GLANCE;
use super::settings::own_mark;
use crate::rebuild::live_server;

/// Ends the server that runs on the data directory `data`, where it is such a one: in order, and at once when that
/// takes longer than `patience`.
///
/// Errors: it is not, or nobody can tell.
pub(super) async fn end_leftover(data: &Path, patience: Duration) -> Result<(), InstanceError> {
    let (begun, mark) = (Instant::now(), own_mark(data));
    let mut is_told = false;
    while let Some(number) = live_server(data) {
        let is_late = begun.elapsed() > patience;
        if is_own(number, data, &mark) {
            if is_late || !is_told {
                tell(number, if is_late { Signal::QUIT } else { Signal::INT });
                is_told = true;
            }
        } else if (is_late || !is_told) && live_server(data) == Some(number) {
            // It did not end between the two looks; one that was told to looks like nobody's shortly before it is gone.
            return Err(InstanceError::Occupied { data: data.to_owned(), pid: number });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Whether the process is a server that a restore to this data directory started: it works there, with a setting on its
/// command line that nobody else gives.
fn is_own(number: u32, data: &Path, mark: &str) -> bool {
    let process = Path::new("/proc").join(number.to_string());
    let works_there = fs::read_link(process.join("cwd")).is_ok_and(|place| place == data);
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let wanted = Path::new(mark).as_os_str().as_bytes();
    works_there && words.split(|byte| *byte == 0).any(|word| word == wanted)
}

fn tell(number: u32, signal: Signal) {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that works in `data` and has `word` on its command line, named in `postmaster.pid`.
    fn process(data: &Path, word: &str) -> Child {
        // Whatever started these tests may have had these signals ignored, which a server never does.
        let mut call = Command::new("env");
        call.args(["--default-signal=INT,QUIT", "tail", "-f", "--", "/dev/null", word]);
        call.current_dir(data).stdout(Stdio::null()).stderr(Stdio::null());
        let child = call.spawn().expect("there is tail");
        fs::write(data.join("postmaster.pid"), format!("{}\n", child.id())).expect("ours");
        child
    }

    #[tokio::test]
    async fn a_server_that_no_restore_started_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().canonicalize().expect("there").join("data");
        fs::create_dir(&data).expect("ours");
        end_leftover(&data, Duration::ZERO).await.expect("nothing runs there");
        for word in ["-D", "external_pid_file=/elsewhere/server.pid"] {
            let mut child = process(&data, word);
            let number = child.id();
            let refused = end_leftover(&data, Duration::ZERO).await.expect_err("somebody else's");
            child.kill().and_then(|()| child.wait()).expect("our child");
            assert!(matches!(refused, InstanceError::Occupied { pid, .. } if pid == number), "{refused}");
            assert!(refused.next()[0].contains("pg_ctl stop -D "), "{:?}", refused.next());
        }
        // Its number stands there still, and nobody has it.
        end_leftover(&data, Duration::ZERO).await.expect("nothing runs there");
    }

    #[tokio::test]
    async fn a_server_that_a_killed_restore_left_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().canonicalize().expect("there").join("data");
        fs::create_dir(&data).expect("ours");
        let mut child = process(&data, &own_mark(&data));
        // A child of ours has not ended before it is waited for.
        let waited = std::thread::spawn(move || child.wait());
        end_leftover(&data, Duration::from_secs(60)).await.expect("ours");
        assert!(!waited.join().expect("it ended").expect("our child").success());
    }
}
