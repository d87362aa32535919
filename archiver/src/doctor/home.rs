//! The state folder, and the daemon that lives in it.

use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Access, access};
use walseal_common::postgres::conninfo::system_user;
use walseal_common::terminal::units;

use super::{Examination, Finding};
use crate::socket;
use crate::stream::Progress;
use crate::told::Told;

/// Longest path of a Unix socket, in bytes (unix(7), without the zero at its end).
const LONGEST_SOCKET: usize = 107;

/// Whether the daemon can keep its state there.
pub(super) fn folder(state_dir: &Path) -> Finding {
    const CHECK: &str = "state folder";
    let shown = state_dir.display();
    let user = system_user().unwrap_or_else(|| "USER".to_owned());
    let make = format!("as root: install -d -o {user} -m 700 {shown}");
    if socket::path(state_dir).as_os_str().len() > LONGEST_SOCKET {
        return Finding::failed(
            CHECK,
            format!("{shown} is too long for a socket in it ({LONGEST_SOCKET} bytes with its name)"),
        )
        .fix("name a shorter one in cluster.state_dir");
    }
    if state_dir.is_dir() {
        return match access(state_dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Finding::fine(CHECK, format!("{shown} is there and writable")),
            Err(error) => Finding::failed(CHECK, format!("{shown} cannot be written: {error}")).fix(make),
        };
    }
    if state_dir.exists() {
        return Finding::failed(CHECK, format!("{shown} is not a folder")).fix("name another in cluster.state_dir");
    }
    let above = state_dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    match access(above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::fine(CHECK, format!("{shown} is not there yet, and can be made")),
        Err(error) => {
            Finding::failed(CHECK, format!("{shown} is not there, and {} cannot be written: {error}", above.display()))
                .fix(make)
        }
    }
}

/// What the daemon says of itself; `None` where none runs, or it does not say.
pub(super) async fn daemon(state_dir: &Path, examination: &mut Examination<'_>) -> Option<Progress> {
    const CHECK: &str = "daemon";
    match Told::ask(state_dir).await {
        None => {
            examination.add(
                Finding::failed(CHECK, "none runs with this state folder, so nothing is archived")
                    .fix("systemctl start walseal-archiver, or: walseal-archiver run"),
            );
            None
        }
        Some((_, Err(why))) => {
            examination.add(Finding::failed(CHECK, why));
            None
        }
        Some((pid, Ok(Told { progress, .. }))) => {
            examination.add(judge(pid, &progress, Timestamp::now()));
            Some(progress)
        }
    }
}

fn judge(pid: u32, progress: &Progress, now: Timestamp) -> Finding {
    const CHECK: &str = "daemon";
    let trouble = progress.trouble.as_deref().or(progress.store_trouble.as_deref());
    if !progress.connected {
        let why = trouble.unwrap_or("it has not said why");
        return Finding::failed(CHECK, format!("pid {pid} runs and is NOT streaming: {why}"));
    }
    let behind = units::distance(progress.frontier, progress.server_end.max(progress.frontier));
    let text = format!(
        "pid {pid} streams; the frontier is {}, {behind} and {} behind the server",
        progress.frontier,
        units::duration(progress.behind(now))
    );
    match trouble {
        None => Finding::fine(CHECK, text),
        Some(trouble) => Finding::warning(CHECK, format!("{text}; {trouble}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_state_folder_that_cannot_be_used_is_told_with_the_command_that_makes_it() {
        let folder_of = |name: &str| {
            let above = tempfile::tempdir().expect("a temporary folder");
            let path = above.path().join(name);
            (above, path)
        };
        let (above, path) = folder_of("state");
        assert!(folder(&path).text.contains("can be made"), "{:?}", folder(&path));
        std::fs::create_dir(&path).expect("made");
        assert_eq!(folder(&path).verdict, Verdict::Fine);
        let file = above.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert_eq!(folder(&file).verdict, Verdict::Failed);
        let (_above, long) = folder_of(&"x".repeat(100));
        assert!(folder(&long).verdict == Verdict::Failed && folder(&long).fix[0].contains("shorter"));
        // Whoever runs this, /proc takes no folders.
        let nowhere = folder(Path::new("/proc/state"));
        assert!(nowhere.verdict != Verdict::Failed || nowhere.fix[0].contains("install -d -o "), "{nowhere:?}");
    }
}
