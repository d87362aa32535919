//! Base backups from a real server.

use std::fs;
use std::path::Path;

use crate::postgres::ReplicationClient;
use crate::postgres::replication::{BackupEvent, BaseBackupOptions, Checkpoint, ManifestChecksums};
use crate::postgres::test_cluster::{TestCluster, as_postgres, run};
use crate::timeline::TimelineId;

/// Name, tablespace and bytes.
type Archive = (String, Option<(u32, String)>, Vec<u8>);

/// What a whole backup brought: archives and the rest.
#[derive(Default)]
struct Received {
    archives: Vec<Archive>,
    manifest: Vec<u8>,
    progress: u64,
    notices: Vec<String>,
}

async fn take(client: &mut ReplicationClient, options: &BaseBackupOptions) -> Received {
    let mut received = Received::default();
    let mut backup = client.base_backup(options).await.expect("starts");
    let start = backup.start_position();
    assert!(!start.is_invalid());
    loop {
        match backup.next().await.expect("goes on") {
            BackupEvent::ArchiveStart { tablespace, name } => received.archives.push((name, tablespace, Vec::new())),
            BackupEvent::Data(data) => received.archives.last_mut().expect("it began").2.extend_from_slice(&data),
            BackupEvent::ManifestStart => assert!(received.manifest.is_empty()),
            BackupEvent::ManifestData(data) => received.manifest.extend_from_slice(&data),
            BackupEvent::Progress(bytes) => received.progress = received.progress.max(bytes),
            BackupEvent::Notice(notice) => {
                let error = notice.0;
                received.notices.push(format!("{} {} {}", error.severity, error.sqlstate, error.message));
            }
            BackupEvent::End { stop, timeline } => {
                assert!(stop > start, "{stop} after {start}");
                assert_eq!(timeline, TimelineId::FIRST);
                return received;
            }
        }
    }
}

/// Unpacks an archive as the server's user with the system's tar.
fn unpack(cluster: &TestCluster, name: &str, bytes: &[u8], into: &Path) {
    let tar = cluster.path().join(name);
    fs::write(&tar, bytes).expect("written");
    run(as_postgres("mkdir".as_ref()).args(["-p", "-m", "700"]).arg(into));
    run(as_postgres("tar".as_ref()).arg("-xf").arg(&tar).arg("-C").arg(into));
}

fn fast() -> BaseBackupOptions {
    BaseBackupOptions { checkpoint: Checkpoint::Fast, ..BaseBackupOptions::default() }
}

#[tokio::test]
async fn a_backup_with_a_tablespace_passes_pg_verifybackup() {
    backup_with_a_tablespace(15).await;
}

#[tokio::test]
async fn case_34_a_backup_of_14_passes_pg_verifybackup() {
    backup_with_a_tablespace(14).await;
}

#[tokio::test]
async fn case_34_a_backup_of_18_passes_pg_verifybackup() {
    backup_with_a_tablespace(18).await;
}

async fn backup_with_a_tablespace(major: u32) {
    let cluster = TestCluster::of(major, "", &[]);
    let place = cluster.path().join("space");
    run(as_postgres("mkdir".as_ref()).arg(&place));
    cluster.sql(&format!("create tablespace space location '{}'", place.display()));
    cluster.sql("create table here as select i, repeat('x', 100) from generate_series(1, 20000) i");
    cluster.sql("create table there tablespace space as select i from generate_series(1, 1000) i");
    let oid: u32 = cluster.sql("select oid from pg_tablespace where spcname = 'space'").parse().expect("a number");

    let mut client =
        ReplicationClient::connect(&cluster.socket("user=postgres"), "walseal_test").await.expect("connects");
    for checksums in [ManifestChecksums::Sha256, ManifestChecksums::Crc32c] {
        let options = BaseBackupOptions { label: "it's a label".to_owned(), manifest: Some(checksums), ..fast() };
        let received = take(&mut client, &options).await;
        let names: Vec<&str> = received.archives.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, [format!("{oid}.tar").as_str(), "base.tar"]);
        assert_eq!(received.archives[0].1, Some((oid, place.display().to_string())));
        assert_eq!(received.archives[1].1, None);
        assert_eq!(received.notices, [""; 0]);
        // 14 does not tell how far it is.
        assert_eq!(received.progress > 2_000_000, major > 14, "{} bytes of progress", received.progress);

        let target = cluster.path().join(format!("restored-{checksums:?}"));
        unpack(&cluster, "base.tar", &received.archives[1].2, &target);
        unpack(&cluster, "space.tar", &received.archives[0].2, &target.join(format!("pg_tblspc/{oid}")));
        cluster.write(&target.join("backup_manifest"), &String::from_utf8_lossy(&received.manifest), 0o600);
        run(as_postgres(&cluster.program("pg_verifybackup")).arg("-n").arg(&target).current_dir("/tmp"));
        let label = fs::read_to_string(target.join("backup_label")).expect("there is a label");
        assert!(label.contains("LABEL: it's a label"), "{label}");
        assert!(target.join("tablespace_map").exists());
    }
    // The connection is free after the end.
    assert_eq!(client.show("wal_level").await.expect("shown"), "replica");
    let received = take(&mut client, &BaseBackupOptions { manifest: None, progress: false, ..fast() }).await;
    assert_eq!((received.archives.len(), received.manifest.len()), (2, 0));
}

#[tokio::test]
async fn case_31_failed_page_checksums_are_reported_and_the_backup_is_whole() {
    let mut cluster = TestCluster::new("", &[]);
    cluster.sql("create table t as select i, repeat('x', 100) from generate_series(1, 5000) i");
    cluster.sql("checkpoint");
    let file = cluster.sql("select pg_relation_filepath('t')");
    cluster.stop("fast");
    let path = cluster.data().join(&file);
    let mut bytes = fs::read(&path).expect("the relation's file");
    bytes[8192 + 4000] ^= 1;
    fs::write(&path, bytes).expect("written");
    cluster.start();

    let mut client =
        ReplicationClient::connect(&cluster.socket("user=postgres"), "walseal_test").await.expect("connects");
    let received = take(&mut client, &fast()).await;
    assert!(received.notices.iter().any(|notice| notice.starts_with("WARNING 01000") && notice.contains(&file)));
    assert!(received.notices.last().is_some_and(|notice| notice.starts_with("ERROR XX001")), "{:?}", received.notices);
    assert!(!received.manifest.is_empty());
    assert!(client.identify_system().await.is_ok());
    // Not asked for, nothing is found.
    let unchecked = take(&mut client, &BaseBackupOptions { verify_checksums: false, ..fast() }).await;
    assert_eq!(unchecked.notices, [""; 0]);
}

#[tokio::test]
async fn a_backup_dropped_in_its_middle_leaves_its_client_without_use() {
    let cluster = TestCluster::new("", &[]);
    let conninfo = cluster.socket("user=postgres");
    let mut client = ReplicationClient::connect(&conninfo, "walseal_test").await.expect("connects");
    let mut backup = client.base_backup(&fast()).await.expect("starts");
    assert!(matches!(backup.next().await, Ok(BackupEvent::ArchiveStart { .. })));
    drop(backup);
    let error = client.identify_system().await.expect_err("no use");
    assert!(error.is_disconnect() && error.to_string().contains("connect anew"), "{error}");
}
