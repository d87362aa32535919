//! Native incremental base backups from real servers.

use std::collections::BTreeSet;

use crate::postgres::ReplicationClient;
use crate::postgres::replication::{BackupEvent, BaseBackupOptions, Checkpoint};
use crate::postgres::test_cluster::TestCluster;

/// A backup's data directory as tar, and its manifest.
async fn take(client: &mut ReplicationClient, incremental: bool) -> (Vec<u8>, Vec<u8>) {
    let options = BaseBackupOptions { checkpoint: Checkpoint::Fast, incremental, ..BaseBackupOptions::default() };
    let mut backup = client.base_backup(&options).await.expect("starts");
    let (mut tar, mut manifest) = (Vec::new(), Vec::new());
    loop {
        match backup.next().await.expect("goes on") {
            BackupEvent::Data(data) => tar.extend_from_slice(&data),
            BackupEvent::ManifestData(data) => manifest.extend_from_slice(&data),
            BackupEvent::End { .. } => return (tar, manifest),
            _ => {}
        }
    }
}

async fn upload(client: &mut ReplicationClient, manifest: &[u8]) -> Result<(), crate::postgres::PostgresError> {
    let mut upload = client.upload_manifest().await?;
    upload.send(manifest).await?;
    upload.finish().await
}

/// Paths that a manifest lists.
fn listed(manifest: &[u8]) -> BTreeSet<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).expect("JSON");
    let files = manifest["Files"].as_array().expect("files");
    files.iter().filter_map(|file| file["Path"].as_str()).map(str::to_owned).collect()
}

async fn incremental(major: u32) {
    let cluster = TestCluster::of(major, "summarize_wal = on\n", &[]);
    cluster.sql("create table changed as select i, repeat('x', 100) from generate_series(1, 20000) i");
    cluster.sql("create table same as select i, repeat('x', 100) from generate_series(1, 20000) i");
    // The first look at rows sets hint bits, which with checksums is a change of each page.
    cluster.sql("vacuum (freeze)");
    let path = |table: &str| cluster.sql(&format!("select pg_relation_filepath('{table}')"));
    let native = |path: &str| path.rsplit_once('/').map(|(at, name)| format!("{at}/INCREMENTAL.{name}")).expect("a /");
    let conninfo = cluster.socket("user=postgres");
    let mut client = ReplicationClient::connect(&conninfo, "walseal_test").await.expect("connects");
    let (full, manifest) = take(&mut client, false).await;
    cluster.sql("update changed set i = -i where i = 7");

    upload(&mut client, &manifest).await.expect("the server takes its own manifest");
    let (tar, second) = take(&mut client, true).await;
    assert!(tar.len() * 4 < full.len(), "{} of {} bytes", tar.len(), full.len());
    let files = listed(&second);
    for table in ["changed", "same"] {
        assert!(files.contains(&native(&path(table))) && !files.contains(&path(table)), "{table}");
    }
    // The manifest of an incremental backup, as it was sent, is what the next one is compared with.
    cluster.sql("update same set i = -i where i = 7");
    upload(&mut client, &second).await.expect("the server takes its own manifest");
    let (_, third) = take(&mut client, true).await;
    assert!(listed(&third).contains(&native(&path("same"))));

    // What is no manifest is refused, and the connection stays.
    let error = upload(&mut client, b"{\"no\": \"manifest\"}").await.expect_err("refused");
    assert!(error.server().is_some(), "{error}");
    let mut broken = manifest.clone();
    let at = broken.len() / 2;
    broken[at] ^= 1;
    assert!(upload(&mut client, &broken).await.expect_err("refused").server().is_some());
    assert_eq!(client.show("wal_level").await.expect("shown"), "replica");
}

#[tokio::test]
async fn case_34_17_sends_changed_blocks_only() {
    incremental(17).await;
}

#[tokio::test]
async fn case_34_18_sends_changed_blocks_only() {
    incremental(18).await;
}

#[tokio::test]
async fn case_34_without_summaries_the_server_says_so_and_the_client_goes_on() {
    let cluster = TestCluster::of(17, "", &[]);
    let conninfo = cluster.socket("user=postgres");
    let mut client = ReplicationClient::connect(&conninfo, "walseal_test").await.expect("connects");
    let (_, manifest) = take(&mut client, false).await;
    upload(&mut client, &manifest).await.expect("the server takes its own manifest");
    let options = BaseBackupOptions { checkpoint: Checkpoint::Fast, incremental: true, ..BaseBackupOptions::default() };
    let error = client.base_backup(&options).await.expect_err("refused");
    assert_eq!(error.sqlstate(), Some("55000"), "{error}");
    let (tar, _) = take(&mut client, false).await;
    assert!(!tar.is_empty());
}
