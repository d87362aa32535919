//! A cluster whose configuration lies outside its data directory, as Debian's does, and what a backup knows of its relations.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use walseal_common::config::{Config, Environment, Sources, StoreUse};
use walseal_common::repository::{NameEntry, Repository};
use walseal_common::seal::TrustedWriters;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::oracle;
use walseal_tests::settings::{ClusterBuilder, append};
use walseal_tests::site::{Site, Store};

use crate::{flow, restored};

/// Like [`Site::new`], with `postgresql.conf`, `pg_hba.conf` and an included file in a folder of their own.
fn site(cluster: ClusterBuilder) -> Result<(Site, PathBuf)> {
    let mut site = Site::new(cluster, Store::Directory)?;
    site.cluster.stop(Stop::Fast)?;
    let etc = site.scratch.dir("etc")?;
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        let (from, to) = (site.cluster.data().join(name), etc.join(name));
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        fs::remove_file(&from)?;
        site.scratch.account().own(&to)?;
    }
    let folder = etc.display();
    let lines = format!(
        "hba_file = '{folder}/pg_hba.conf'\nident_file = '{folder}/pg_ident.conf'\ninclude_dir = 'conf.d'\n\
         data_directory = '{}'\n",
        site.cluster.data().display()
    );
    append(&etc.join("postgresql.conf"), &lines)?;
    let included = site.scratch.dir("etc/conf.d")?.join("orders.conf");
    fs::write(&included, "work_mem = '7MB'\n")?;
    site.scratch.account().own(&included)?;
    site.cluster.set_override("config_file", &etc.join("postgresql.conf").to_string_lossy());
    site.cluster.start()?;
    ensure!(site.cluster.value("show work_mem")? == "7MB", "the included file counts");
    Ok((site, etc))
}

#[test]
fn case_48_configuration_outside_the_data_directory_comes_back_beside_it() -> Result<()> {
    let (mut site, etc) = site(Cluster::builder())?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table kept as select generate_series(1, 1000) as id")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    oracle::no_plaintext(&site.scratch, &site.scratch.path().join("repository"), &["work_mem", "local all all trust"])?;

    let target = site.target("restored");
    let place = target.to_string_lossy().into_owned();
    let restored = site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &place])?.success()?;
    let beside = site.target("restored.walseal").join("config").join(etc.strip_prefix("/")?);
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/orders.conf"] {
        let (ours, theirs) = (beside.join(name), etc.join(name));
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("reading {}", path.display()));
        ensure!(read(&ours)? == read(&theirs)?, "{name} came back as it was");
    }
    ensure!(restored.stdout.contains("4 configuration file(s) that lay outside"), "{restored}");
    ensure!(restored.stdout.contains(&format!("config_file={}/postgresql.conf", beside.display())), "{restored}");

    // What it says works, and the copy archives nothing.
    let mut copy = site.restored(&target)?;
    copy.set_override("config_file", &beside.join("postgresql.conf").to_string_lossy());
    copy.set_override("data_directory", &place);
    for (setting, name) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        copy.set_override(setting, &beside.join(name).to_string_lossy());
    }
    copy.start()?;
    copy.wait_promoted(walseal_tests::deadline::PATIENCE)?;
    assert_eq!(
        (copy.value("select count(*) from kept")?, copy.value("show archive_mode")?),
        ("1000".into(), "off".into())
    );
    drop(copy);

    // It is no reason to fail when they are gone from the store.
    for object in site.place.list()?.iter().filter(|object| object.key.contains("/config/")) {
        site.place.remove(&object.key)?;
    }
    let bare = site.target("bare").to_string_lossy().into_owned();
    let restored = site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &bare])?.success()?;
    ensure!(restored.stdout.contains("is not there: get "), "{restored}");

    // A role that may not read them, over TCP or not: the backup is whole, and says what it lacks.
    site.cluster.sql("create role plain login replication")?;
    let conninfo = site.cluster.conninfo();
    let conninfo = conninfo.split(' ').map(|part| if part.starts_with("user=") { "user=plain" } else { part });
    site.archiver.set_text("cluster.conninfo", &conninfo.collect::<Vec<_>>().join(" "));
    site.archiver.write_config()?;
    daemon.sigterm()?.success()?;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let said = daemon.log();
    ensure!(said.contains("configuration files outside the data directory were not all read"), "{said}");
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let again = site.target("again").to_string_lossy().into_owned();
    let restored =
        site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &again, "--start"])?.success()?;
    ensure!(restored.stdout.contains("is not there: config_file was not read: the role may not see it"), "{restored}");

    // Neither what this server lacks nor what the role may not see left an error in its log.
    let log = site.cluster.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR:")).collect();
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

/// What the newest backup says of names.
fn names(site: &Site) -> Result<Vec<NameEntry>> {
    let mut sources = Sources::new(Environment::from_iter(Vec::<(String, String)>::new()));
    sources.config_flag = Some(site.restorer.config());
    let config = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = config.open_store(StoreUse::Conditional).await?;
        let trust = TrustedWriters::new(config.open_trusted_writers()?);
        let repository = Repository::find(store, None, trust).await?;
        let newest = repository.base_ids().await?.pop().context("a base backup")?;
        let label = repository.label(&newest).await?;
        let mut entries = Vec::new();
        for page in &label.names {
            entries.extend(repository.attachment::<NameEntry>(page, &config.open_identities()?).await?);
        }
        Ok(entries)
    })
}

#[test]
fn a_backup_knows_which_relation_is_which_file() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create database shop")?;
    let shop = site.cluster.conninfo().replace("dbname=postgres", "dbname=shop");
    let statements =
        "create schema sales; create table sales.orders (id int primary key, note text); vacuum full sales.orders";
    for statement in statements.split("; ") {
        site.cluster.psql(&shop).args(["-c", statement]).run()?.success()?;
    }
    let asked = "select oid || ' ' || pg_relation_filenode(oid) from pg_class where oid = 'sales.orders'::regclass";
    let told = site.cluster.psql(&shop).args(["-c", asked]).run()?.success()?.text().to_owned();
    let (table, file) = told.split_once(' ').context("two numbers")?;
    let (table, file): (u32, u32) = (table.parse()?, file.parse()?);
    ensure!(table != file, "it was rewritten");
    site.archiver.run(&["init"])?.success()?;
    site.archiver.run_long(&["backup"])?.success()?;

    let entries = names(&site)?;
    let shop_oid: u32 = site.cluster.value("select oid from pg_database where datname = 'shop'")?.parse()?;
    let database = entries
        .iter()
        .any(|entry| matches!(entry, NameEntry::Database { oid, name, .. } if *oid == shop_oid && name == "shop"));
    ensure!(database, "{entries:?}");
    let of_shop: Vec<&NameEntry> = entries
        .iter()
        .filter(|entry| matches!(entry, NameEntry::Relation { database, .. } if *database == shop_oid))
        .collect();
    let found = |wanted: &str| {
        of_shop.iter().find_map(|entry| match entry {
            NameEntry::Relation { filenode, schema, name, kind, table, tablespace: 1663, .. } if name == wanted => {
                Some((*filenode, schema.clone(), kind.clone(), *table))
            }
            _ => None,
        })
    };
    assert_eq!(found("orders"), Some((file, "sales".to_owned(), "r".to_owned(), None)));
    let (_, _, kind, of) = found("orders_pkey").context("the index")?;
    assert_eq!((kind.as_str(), of), ("i", Some(table)));
    let (_, schema, kind, of) = found(&format!("pg_toast_{table}")).context("the TOAST table")?;
    assert_eq!((schema.as_str(), kind.as_str(), of), ("pg_toast", "t", Some(table)));
    let shared = entries
        .iter()
        .filter(|entry| matches!(entry, NameEntry::Relation { database: 0, name, .. } if name == "pg_database"));
    assert_eq!(shared.count(), 1, "what all share is told once");
    ensure!(!entries.iter().any(|entry| matches!(entry, NameEntry::Unread { .. })), "{entries:?}");

    // A database that does not let the role in is named, and the backup is whole.
    site.cluster.sql("create role plain login replication; revoke connect on database shop from public")?;
    let conninfo = site.cluster.conninfo();
    let conninfo = conninfo.split(' ').map(|part| if part.starts_with("user=") { "user=plain" } else { part });
    site.archiver.set_text("cluster.conninfo", &conninfo.collect::<Vec<_>>().join(" "));
    site.archiver.write_config()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let entries = names(&site)?;
    let unread: Vec<&NameEntry> = entries.iter().filter(|entry| matches!(entry, NameEntry::Unread { .. })).collect();
    let [NameEntry::Unread { database: Some(name), why }] = unread.as_slice() else { anyhow::bail!("{unread:?}") };
    ensure!(name == "shop" && why.contains("permission denied"), "{why}");
    restored::restore(&site, "latest", "restored")?;
    Ok(())
}
