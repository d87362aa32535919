//! What a person reads when something is wrong: the reason, and what to do.

use anyhow::{Context, Result, bail, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Finished;
use walseal_tests::settings::{Access, Tls};
use walseal_tests::site::{Site, Store};
use walseal_tests::store::Place;

use crate::flow;

/// The exit code is 1, and stderr, which holds no secret and no debug output, contains each of these.
pub fn says(finished: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(finished.code == Some(code), "{finished}");
    for word in words {
        ensure!(finished.stderr.contains(word), "{word:?} is not said: {finished}");
    }
    for never in ["panicked", "Backtrace", "Os {", "Some("] {
        ensure!(!finished.stderr.contains(never), "{never:?} is for programmers: {finished}");
    }
    Ok(())
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.set_text("wal.ship_intervall", "1s");
    site.archiver.write_config()?;
    let refused = site.archiver.run(&["init"])?;
    ensure!(refused.code == Some(1) || refused.code == Some(2), "{refused}");
    says(&refused, refused.code.unwrap_or_default(), &["ship_intervall", "ship_interval", "walseal.toml"])
}

#[test]
fn run_on_an_empty_prefix_names_init() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    says(&site.archiver.run(&["run"])?, 1, &["walseal-archiver", "init"])
}

#[test]
fn wal_level_minimal_is_named_with_the_setting_to_change() -> Result<()> {
    let cluster = Cluster::builder().setting("wal_level", "minimal").setting("max_wal_senders", "0");
    let site = Site::new(cluster, Store::Directory)?;
    says(&site.archiver.run(&["init"])?, 1, &["wal_level", "replica"])
}

#[test]
fn a_missing_privilege_is_named_with_the_sql_that_gives_it() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create role weak login")?;
    let user = format!("user={}", site.scratch.account().name);
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo().replace(&user, "user=weak"));
    site.archiver.write_config()?;
    says(&site.archiver.run(&["init"])?, 1, &["weak", "REPLICATION"])
}

/// The lines that stand below the one that ends like this.
fn lines_below<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.trim_end().ends_with(end));
    lines.nth(1).map(str::trim)
}

#[test]
fn the_lines_that_init_prints_let_another_role_in_over_the_socket() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let account = site.scratch.account().name.clone();
    let conninfo = site.cluster.conninfo().replace(&format!("user={account}"), "user=walseal");
    site.archiver.set_text("cluster.conninfo", &conninfo);
    site.archiver.write_config()?;
    let own = format!("local all {account} trust\n");
    let data = site.cluster.data().to_owned();
    // Written as told, and in force when it is seen to be.
    let in_force = |file: &str, text: &str, view: &str| -> Result<()> {
        std::fs::write(data.join(file), text)?;
        site.cluster.sql("select pg_reload_conf()")?;
        let wrong = format!("select count(*) from {view} where error is not null");
        ensure!(site.cluster.value(&wrong)? == "0", "the server does not understand {text:?}");
        Ok(())
    };
    in_force("pg_hba.conf", &own, "pg_hba_file_rules")?;
    site.cluster.sql("create role walseal login replication")?;
    let refused = eventually("the new pg_hba.conf to hold", PATIENCE, || {
        let refused = site.archiver.run(&["init"])?;
        Ok((refused.code == Some(1)).then_some(refused))
    })?;
    says(&refused, 1, &["to fix", "pg_hba.conf", "pg_ident.conf", "pg_reload_conf()"])?;
    let line = lines_below(&refused.stderr, "fit it, too:").context("a line for pg_hba.conf")?;
    let map = lines_below(&refused.stderr, "pg_ident.conf:").context("a line for pg_ident.conf")?;
    std::fs::write(data.join("pg_ident.conf"), format!("{map}\n"))?;
    in_force("pg_hba.conf", &format!("{line}\n{own}"), "pg_hba_file_rules")?;
    eventually("init to be let in", PATIENCE, || Ok((site.archiver.run(&["init"])?.code == Some(0)).then_some(())))?;
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    Ok(())
}

#[test]
fn the_recovery_card_of_a_bucket_says_how_it_is_reached_and_no_secret() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::S3)?;
    let card = site.archiver.run(&["init"])?.success()?;
    let Place::S3 { server, .. } = &site.place else { bail!("a bucket was asked for") };
    let wanted =
        [("repository", site.place.url()), ("endpoint", server.endpoint.clone()), ("region", server.region.clone())];
    for (name, value) in wanted {
        let line = format!("  {name:<13} {value}");
        ensure!(card.stdout.lines().any(|seen| seen == line), "{line:?} is not on the card: {card}");
    }
    ensure!(card.stdout.contains("path style    true"), "{card}");
    ensure!(!card.stdout.contains(&server.secret_access_key), "a secret is on the card: {card}");
    Ok(())
}

#[test]
fn a_wrong_password_is_named_and_not_shown() -> Result<()> {
    let mut site = Site::new(Cluster::builder().tcp(&[Access::Scram], Tls::Off), Store::Directory)?;
    let conninfo = format!("{} sslmode=disable password=guessed-wrong", site.cluster.tcp_conninfo(Access::Scram));
    site.archiver.set_text("cluster.conninfo", &conninfo);
    site.archiver.write_config()?;
    let refused = site.archiver.run(&["init"])?;
    says(&refused, 1, &["password", "scram"])?;
    ensure!(!refused.stderr.contains("guessed-wrong"), "{refused}");
    Ok(())
}

#[test]
fn case_19_a_new_cluster_is_refused_with_both_system_identifiers_until_it_has_a_folder_of_its_own() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let daemon = site.archive()?;
    daemon.sigterm()?.success()?;
    let stranger = Cluster::builder().inside(&site.scratch).stranger().start()?;
    site.archiver.set_text("cluster.conninfo", &stranger.conninfo());
    site.archiver.write_config()?;
    let refused = site.archiver.run(&["run"])?;
    let clusters = [site.cluster.system_identifier()?, stranger.system_identifier()?];
    says(&refused, 1, &[&clusters[0], &clusters[1], "walseal-archiver init"])?;
    // As it says: the new one lives beside the old one, and the restorer asks which is meant.
    site.archiver.run(&["init"])?.success()?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    flow::wait_durable(&stranger, &mut daemon)?;
    says(&site.restorer.run(&["list"])?, 1, &[&clusters[0], &clusters[1], "--cluster-id"])?;
    site.restorer.run(&["--cluster-id", &clusters[0], "list"])?.success().map(|_| ())
}

#[test]
fn a_server_that_is_down_is_named_with_its_address() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let sockets = site.cluster.sockets().to_string_lossy().into_owned();
    site.cluster.stop(walseal_tests::cluster::Stop::Fast)?;
    says(&site.archiver.run(&["init"])?, 1, &[&sockets])
}

#[test]
fn a_restorer_without_trusted_writers_prints_the_line_to_add() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.restorer.unset("keys.trusted_writers");
    site.restorer.write_config()?;
    says(&site.restorer.run(&["list"])?, 1, &["trusted_writers", "walsealw1"])
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_command_that_mends_it() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode;
    for (side, name) in [(&site.archiver, "writer.key"), (&site.restorer, "identity.key")] {
        let key = side.folder().join(name);
        std::fs::set_permissions(&key, mode(0o644))?;
        let refused = side.run(&[if name == "writer.key" { "init" } else { "list" }])?;
        says(&refused, 1, &[&key.to_string_lossy(), "chmod"])?;
        std::fs::set_permissions(&key, mode(0o600))?;
    }
    Ok(())
}

#[test]
fn a_repository_that_is_not_there_is_named_by_its_url() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let nowhere = site.scratch.path().join("nowhere/at/all");
    site.restorer.set_text("repository.url", &format!("file://{}", nowhere.display()));
    site.restorer.write_config()?;
    says(&site.restorer.run(&["list"])?, 1, &[&nowhere.to_string_lossy()])
}

#[test]
fn an_unreachable_store_a_wrong_secret_and_a_missing_bucket_are_told_apart() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    let known = site.archiver.clone();
    let cases: [(&str, String, &[&str]); 3] = [
        ("repository.s3.endpoint", format!("http://127.0.0.1:{}", walseal_tests::port::free()?), &["127.0.0.1"]),
        ("repository.s3.secret_access_key", "wrong-on-purpose".to_owned(), &["access", "key"]),
        ("repository.url", "s3://no-such-bucket-here/prefix".to_owned(), &["no-such-bucket-here", "bucket"]),
    ];
    for (key, value, words) in cases {
        site.archiver = known.clone();
        site.archiver.set_text(key, &value);
        site.archiver.write_config()?;
        let refused = site.archiver.run_long(&["init"])?;
        says(&refused, 1, words)?;
        ensure!(!refused.stderr.contains("wrong-on-purpose"), "a secret is shown: {refused}");
    }
    Ok(())
}

#[test]
fn wrong_usage_exits_2() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    for side in [&site.archiver, &site.restorer] {
        says(&side.run(&["no-such-verb"])?, 2, &["no-such-verb"])?;
    }
    says(&site.restorer.run(&["plan"])?, 2, &["--to"])
}
