//! The server over TCP: every `sslmode`, every way to prove who one is.

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::settings::{Access, Tls};
use walseal_tests::site::{Site, Store};
use walseal_tests::tls::Certificates;
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

/// A conninfo of `access` whose password comes from a file, as it should.
pub fn conninfo(site: &Site, access: Access, more: &str) -> Result<String> {
    // A password file escapes colons and backslashes.
    let password = access.password().replace('\\', "\\\\").replace(':', "\\:");
    let name = format!("passfile-{}", access.role());
    let passfile = site.scratch.file(&name, &format!("127.0.0.1:*:*:{}:{password}\n", access.role()))?;
    Ok(format!("{} passfile={} {more}", site.cluster.tcp_conninfo(access), passfile.display()))
}

#[test]
fn a_cluster_behind_tls_and_scram_is_archived_and_restored() -> Result<()> {
    let cluster = Cluster::builder().tcp(&[Access::Scram], Tls::Required);
    let mut site = Site::new(cluster, Store::Directory)?;
    let authority = Certificates::make(&site.scratch)?.authority();
    let more = format!("sslmode=verify-full channel_binding=require sslrootcert={}", authority.display());
    let secure = conninfo(&site, Access::Scram, &more)?;
    site.archiver.set_text("cluster.conninfo", &secure);
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(20, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let uses_tls = "select count(*) from pg_stat_ssl join pg_stat_replication using (pid) where ssl";
    assert_eq!(site.cluster.value(uses_tls)?, "1", "the stream goes through TLS");
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &workload::rows(&site.cluster)?)
}

#[test]
fn each_sslmode_and_each_way_in_does_what_libpq_does() -> Result<()> {
    let ways = [Access::Scram, Access::Md5, Access::Password, Access::Cert];
    let mut site = Site::new(Cluster::builder().tcp(&ways, Tls::Offered), Store::Directory)?;
    let certificates = Certificates::make(&site.scratch)?;
    let trusted = format!("sslrootcert={}", certificates.authority().display());
    let strange = format!("sslrootcert={}", certificates.stranger().display());
    // The client's key must belong to the archiver's user and to nobody else.
    let key = site.scratch.file("client.key", &std::fs::read_to_string(certificates.client_key())?)?;
    let client = format!("sslcert={} sslkey={}", certificates.client().display(), key.display());
    let cases = [
        (Access::Scram, "sslmode=disable".to_owned(), true),
        (Access::Scram, "sslmode=prefer".to_owned(), true),
        (Access::Scram, "sslmode=require".to_owned(), true),
        (Access::Scram, format!("sslmode=verify-ca {trusted}"), true),
        (Access::Scram, format!("sslmode=verify-full {trusted}"), true),
        (Access::Scram, format!("sslmode=verify-ca {strange}"), false),
        (Access::Scram, format!("sslmode=verify-full {strange}"), false),
        (Access::Scram, "sslmode=disable channel_binding=require".to_owned(), false),
        (Access::Md5, "sslmode=disable".to_owned(), true),
        (Access::Password, format!("sslmode=verify-full {trusted}"), true),
        (Access::Cert, format!("sslmode=verify-full {trusted} {client}"), true),
        (Access::Cert, format!("sslmode=verify-full {trusted}"), false),
    ];
    for (access, more, welcome) in cases {
        let conninfo = conninfo(&site, access, &more)?;
        let psql = site.cluster.psql(&conninfo).args(["-c", "select 1"]).run()?;
        ensure!((psql.code == Some(0)) == welcome, "libpq itself sees it otherwise: {psql}");
        site.archiver.set_text("cluster.conninfo", &conninfo);
        site.archiver.write_config()?;
        let init = site.archiver.run(&["init"])?;
        ensure!((init.code == Some(0)) == welcome, "{} {more}: {init}", access.role());
        ensure!(!init.stderr.contains("pass\\word"), "a secret is shown: {init}");
    }
    Ok(())
}
