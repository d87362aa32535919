//! SQL on a real server, and what a person reads when a server is not as it must be.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::postgres::replication::BaseBackupOptions;
use crate::postgres::test_cluster::TestCluster;
use crate::postgres::{PostgresError, ReplicationClient, SqlClient};
use crate::timeline::TimelineId;

#[tokio::test]
async fn queries_bring_rows_and_their_errors_keep_the_sqlstate() {
    let cluster = TestCluster::new("", &[]);
    cluster.sql("create database shop");
    let conninfo = cluster.socket("user=postgres");
    let sql = SqlClient::connect(&conninfo, "walseal_test").await.expect("connects");
    let row = sql
        .query_one(
            "asking",
            "select current_database()::text, current_setting('application_name'), $1::int + 1",
            &[&41],
        )
        .await
        .expect("answered");
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("postgres", "walseal_test", 42));
    assert_eq!(sql.server_version_num().to_string(), cluster.sql("show server_version_num"));
    assert!(!sql.was_standby());
    assert_eq!(sql.execute("making t", "create table t (i int)", &[]).await.expect("made"), 0);
    assert_eq!(sql.execute("filling t", "insert into t values (1), (2)", &[]).await.expect("filled"), 2);
    assert!(sql.query_opt("asking", "select i from t where i = 3", &[]).await.expect("answered").is_none());
    assert_eq!(sql.query("asking", "select i from t", &[]).await.expect("answered").len(), 2);
    let error = sql.simple_query("reading x failed", "select * from x").await.expect_err("no such table");
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert!(error.is_permanent() && error.to_string().starts_with("reading x failed: relation"), "{error}");

    let shop = SqlClient::connect(&conninfo.with_dbname("shop"), "walseal_test").await.expect("connects");
    let name = shop.query_one("asking", "select current_database()::text", &[]).await.expect("answered");
    assert_eq!(name.get::<_, &str>(0), "shop");
    let gone = SqlClient::connect(&conninfo.with_dbname("nowhere"), "walseal_test").await.expect_err("no database");
    assert!(gone.sqlstate() == Some("3D000") && gone.is_permanent(), "{gone}");

    // The server ends the connection: the query says so, and so does the client.
    let pid: i32 = shop.query_one("asking", "select pg_backend_pid()", &[]).await.expect("answered").get(0);
    let ended = sql.query_one("ending", "select pg_terminate_backend($1, 30000)", &[&pid]).await.expect("ended");
    assert!(ended.get::<_, bool>(0));
    let error = shop.query("asking", "select 1", &[]).await.expect_err("ended");
    assert!(error.is_disconnect() && !error.is_permanent(), "{error}");
    sql.close().await;
    let left = "select count(*) from pg_stat_activity where application_name = 'walseal_test'";
    // The server's process ends a moment after its client.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while cluster.sql(left) != "0" {
        assert!(std::time::Instant::now() < deadline, "a connection is left over");
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_for_replication_says_what_to_do() {
    let mut cluster = TestCluster::new("wal_level = minimal\nmax_wal_senders = 0\n", &[]);
    let minimal = ReplicationClient::connect(&cluster.socket("user=postgres"), "walseal_test").await;
    let minimal = minimal.expect_err("no walsender").to_string();
    assert!(minimal.contains("set wal_level = replica and max_wal_senders = 10"), "{minimal}");
    let nobody = SqlClient::connect(&cluster.socket("user=nobody_here"), "walseal_test").await;
    let nobody = nobody.expect_err("no such role");
    assert!(nobody.to_string().contains("CREATE ROLE") && nobody.is_permanent(), "{nobody}");

    cluster.append("postgresql.conf", "wal_level = replica\nmax_wal_senders = 1\nmax_replication_slots = 0\n");
    cluster.restart();
    let conninfo = cluster.socket("user=postgres");
    let mut client = ReplicationClient::connect(&conninfo, "walseal_test").await.expect("connects");
    let slots = client.create_physical_slot("walseal_t", false).await.expect_err("no slots");
    assert!(slots.to_string().contains("max_replication_slots"), "{slots}");
    let full = ReplicationClient::connect(&conninfo, "walseal_test").await.expect_err("one is the most");
    assert!(full.to_string().contains("raise max_wal_senders") && !full.is_permanent(), "{full}");
    client.close().await;

    let hba = cluster.data().join("pg_hba.conf");
    cluster.write(&hba, "local all postgres trust\nlocal all all peer\n", 0o600);
    cluster.restart();
    let refused = ReplicationClient::connect(&conninfo, "walseal_test").await.expect_err("no line");
    assert!(refused.to_string().contains("add a line") && refused.is_permanent(), "{refused}");
    let peer = SqlClient::connect(&cluster.socket("user=somebody"), "walseal_test").await.expect_err("not peer");
    assert!(peer.to_string().contains("pg_ident.conf") && peer.is_permanent(), "{peer}");
    cluster.stop("fast");
    let down = ReplicationClient::connect(&conninfo, "walseal_test").await.expect_err("down");
    assert!(matches!(down, PostgresError::Connect { .. }) && !down.is_permanent(), "{down}");
}

/// Streams and backups run in tasks of their own, so their futures have to be able to move between threads.
#[allow(dead_code)]
fn futures_can_move_between_threads(client: &mut ReplicationClient, options: &BaseBackupOptions) {
    fn moves<T: Send>(_: T) {}
    moves(async {
        let mut stream = client.start_replication(None, Lsn::INVALID, TimelineId::FIRST).await?;
        stream.next().await?;
        stream.send_status(Lsn::INVALID, Lsn::INVALID, Lsn::INVALID, false).await?;
        stream.stop().await?;
        client.base_backup(options).await?.next().await
    });
}
