//! `fetch` as PostgreSQL runs it: the program, its exit code, its file.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "../src/sample/mod.rs"]
mod sample;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sample::{SampleRepository, SampleWal};
use walseal_common::lsn::Lsn;

struct Desk {
    sample: SampleRepository,
    folder: tempfile::TempDir,
}

impl Desk {
    /// Segments 3 and 4 and a tail, and a configuration that names them.
    async fn new() -> Desk {
        let sample = SampleRepository::new().await;
        let mut wal = SampleWal::from(Lsn(3 << 20));
        while wal.end() < Lsn((5 << 20) + 5000) {
            wal.filler(4000);
        }
        sample.put_wal(sample.branch(), &wal, Lsn(3 << 20)).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = folder.path().join("identity.key");
        write_private(&key, &sample.identities[0].to_file());
        let config = format!(
            "[repository]\nurl = \"file://{}\"\n[keys]\nidentity_files = [\"{}\"]\ntrusted_writers = [\"{}\"]\n\
             [fetch]\nretry = \"0s\"\nretry_standby = \"0s\"\n",
            sample.folder.path().display(),
            key.display(),
            sample.writer.public()
        );
        write_private(&folder.path().join("walseal.toml"), &config);
        Desk { sample, folder }
    }

    fn fetch(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_walseal-restorer"))
            .current_dir(self.folder.path())
            .env_clear()
            .args(["--config", "walseal.toml", "fetch"])
            .args(words)
            .output()
            .expect("the program of this crate")
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("our own folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

#[tokio::test]
async fn case_01_the_program_ends_with_0_1_or_200_and_with_nothing_else() {
    let desk = Desk::new().await;
    let code = |words: &[&str]| {
        let output = desk.fetch(words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (delivered, text) = code(&["000000010000000000000003", "RECOVERYXLOG"]);
    assert_eq!((delivered, text.as_str()), (Some(0), ""));
    assert_eq!(fs::metadata(desk.folder.path().join("RECOVERYXLOG")).expect("delivered").len(), 1 << 20);
    assert_eq!(code(&["000000010000000000000006", "x"]).0, Some(1));
    assert_eq!(code(&["00000002.history", "x"]).0, Some(1));
    for wrong in [
        &["000000010000000000000002x", "x"][..],
        &["000000010000000000000003", "no/such/folder/x"],
        &["000000010000000000000003", "x", "--plan", "no-such-plan.json"],
        &["000000010000000000000003"],
        &["000000010000000000000003", "x", "--cluster-id", "1"],
        &["000000010000000000000003", "x", "--no-such-flag"],
    ] {
        let (code, text) = code(wrong);
        assert_eq!(code, Some(200), "{wrong:?}: {text}");
        assert!(!text.is_empty(), "{wrong:?} says nothing");
    }
}

#[tokio::test]
async fn case_01_a_wrong_configuration_does_not_look_like_the_end_of_wal() {
    let desk = Desk::new().await;
    let config = desk.folder.path().join("walseal.toml");
    let good = fs::read_to_string(&config).expect("ours");
    let url = format!("file://{}", desk.sample.folder.path().display());
    for wrong in [
        good.replace("trusted_writers", "trusted_writer"),
        good.replace(&url, "file:///no/such/folder"),
        good.replace("identity.key", "no-such.key"),
        "[fetch]\n".to_owned(),
    ] {
        write_private(&config, &wrong);
        let output = desk.fetch(&["000000010000000000000006", "x"]);
        assert_eq!(output.status.code(), Some(200), "{wrong}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_file(&config).expect("ours");
    assert_eq!(desk.fetch(&["000000010000000000000006", "x"]).status.code(), Some(200));
}

/// A server that takes connections and never says a word; tells how many it took.
fn silent_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let port = listener.local_addr().expect("bound").port();
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for connection in listener.incoming() {
            held.push(connection);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, taken)
}

#[tokio::test]
async fn case_01_a_standby_does_not_wait_for_a_store_that_has_fallen_silent() {
    let desk = Desk::new().await;
    let config = desk.folder.path().join("walseal.toml");
    let good = fs::read_to_string(&config).expect("ours");
    let url = format!("url = \"file://{}\"", desk.sample.folder.path().display());
    let (port, taken) = silent_server();
    let s3 = format!(
        "url = \"s3://bucket/prefix\"\n[repository.s3]\nendpoint = \"http://127.0.0.1:{port}\"\naccess_key_id = \"x\"\n\
         secret_access_key = \"x\"\n"
    );
    write_private(&config, &good.replace(&url, &s3));
    fs::write(desk.folder.path().join("standby.signal"), "").expect("ours");
    let output = desk.fetch(&["000000010000000000000003", "x"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("this standby may ask again"), "{text}");
    // The limit is over when the first call has gone unanswered: no second one.
    assert_eq!(taken.load(Ordering::SeqCst), 1, "{text}");
}
