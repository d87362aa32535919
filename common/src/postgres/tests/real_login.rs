//! Authentication and TLS against a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres::test_cluster::{TestCluster, run};
use crate::postgres::{Conninfo, PostgresError, ReplicationClient, SqlClient};

const HBA: &str = "local all,replication all trust\n\
    hostssl all,replication tls_only 127.0.0.1/32 scram-sha-256\n\
    hostnossl all,replication tls_only 127.0.0.1/32 reject\n\
    hostnossl all,replication plain_only 127.0.0.1/32 scram-sha-256\n\
    hostssl all,replication certified 127.0.0.1/32 cert\n\
    host all,replication scram 127.0.0.1/32 scram-sha-256\n\
    host all,replication hashed 127.0.0.1/32 md5\n\
    host all,replication clear 127.0.0.1/32 password\n\
    host all,replication trusted 127.0.0.1/32 trust\n";

/// A server with TLS and one user for each way to log in; all passwords are `pw`.
struct Secured {
    cluster: TestCluster,
}

fn openssl(folder: &Path, arguments: &str) {
    run(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
}

impl Secured {
    fn new() -> Secured {
        let cluster = TestCluster::new("", &[]);
        let mut secured = Secured { cluster };
        let folder = secured.folder();
        fs::create_dir(&folder).expect("made");
        for name in ["root", "stranger"] {
            let subject = format!("/CN=walseal test {name}");
            run(Command::new("openssl")
                .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '))
                .args(["-subj", &subject, "-keyout"])
                .arg(format!("{name}.key"))
                .arg("-out")
                .arg(format!("{name}.crt"))
                .current_dir(&folder));
        }
        secured.certificate("server", "/CN=db.walseal.test", "subjectAltName=DNS:db.walseal.test,IP:127.0.0.1", "");
        secured.certificate("client", "/CN=certified", "extendedKeyUsage=clientAuth", "");
        secured.install("server");
        for user in ["tls_only", "plain_only", "scram", "clear", "trusted", "certified"] {
            secured.cluster.sql(&format!("create role {user} login replication password 'pw'"));
        }
        secured.cluster.sql("set password_encryption = 'md5'; create role hashed login replication password 'pw'");
        let data = secured.cluster.data();
        secured.cluster.write(&data.join("pg_hba.conf"), HBA, 0o600);
        let root = folder.join("root.crt").display().to_string();
        secured.cluster.append("postgresql.conf", &format!("ssl = on\nssl_ca_file = '{root}'\n"));
        secured.cluster.restart();
        secured
    }

    fn folder(&self) -> PathBuf {
        self.cluster.path().join("tls")
    }

    /// A certificate that `root` signs; without extensions it is of version 1.
    fn certificate(&self, name: &str, subject: &str, extensions: &str, more: &str) {
        let folder = self.folder();
        let kind = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        run(Command::new("openssl")
            .args(kind.split(' '))
            .args(["-subj", subject, "-keyout", &format!("{name}.key"), "-out", &format!("{name}.csr")])
            .current_dir(&folder));
        let mut sign =
            format!("x509 -req -in {name}.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2 -out {name}.crt");
        if !extensions.is_empty() {
            fs::write(folder.join("extensions"), extensions).expect("written");
            sign.push_str(" -extfile extensions");
        }
        sign.push_str(more);
        openssl(&folder, &sign);
    }

    /// Makes the server use this certificate from its next start or reload on.
    fn install(&self, name: &str) {
        for suffix in ["crt", "key"] {
            let text = fs::read_to_string(self.folder().join(format!("{name}.{suffix}"))).expect("made");
            self.cluster.write(&self.cluster.data().join(format!("server.{suffix}")), &text, 0o600);
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// Connects both ways, which must agree. Returns whether TLS was used.
    async fn connect(&self, more: &str) -> Result<bool, PostgresError> {
        let conninfo = self.cluster.tcp(more);
        let replication = ReplicationClient::connect(&conninfo, "walseal_test").await;
        let sql = SqlClient::connect(&conninfo.with_dbname("postgres"), "walseal_test").await;
        match (replication, sql) {
            (Ok(mut client), Ok(sql)) => {
                client.identify_system().await?;
                let row = sql
                    .query_one("asking", "select ssl, user::text from pg_stat_ssl where pid = pg_backend_pid()", &[])
                    .await?;
                assert_eq!(row.get::<_, String>(1), conninfo.user());
                sql.close().await;
                client.close().await;
                Ok(row.get(0))
            }
            (Err(error), Err(other)) => {
                assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&other), "{error}, {other}");
                assert_eq!(error.sqlstate(), other.sqlstate());
                Err(error)
            }
            (one, other) => panic!("replication and SQL disagree: {one:?}, {other:?}"),
        }
    }

    async fn refused(&self, more: &str) -> String {
        let error = self.connect(more).await.expect_err("refused");
        let text = error.to_string();
        assert!(error.is_permanent(), "{text}");
        assert!(!text.contains("pw"), "{text}");
        text
    }
}

fn verify(conninfo: Result<bool, PostgresError>, encrypted: bool, what: &str) {
    match conninfo {
        Ok(found) => assert_eq!(found, encrypted, "{what}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[tokio::test]
async fn every_way_to_log_in_works_over_tcp_with_and_without_tls() {
    let server = Secured::new();
    for user in ["scram", "hashed", "trusted"] {
        for (mode, encrypted) in [("disable", false), ("require", true)] {
            let what = format!("user={user} password=pw sslmode={mode}");
            verify(server.connect(&what).await, encrypted, &what);
        }
    }
    verify(server.connect("user=clear password=pw sslmode=require").await, true, "clear over TLS");
    let clear = server.refused("user=clear password=pw sslmode=disable").await;
    assert!(clear.contains("in the clear"), "{clear}");

    for user in ["scram", "hashed", "clear"] {
        let wrong = server.connect(&format!("user={user} password=nonsense sslmode=require")).await.expect_err("wrong");
        assert!(wrong.is_authentication() && wrong.sqlstate() == Some("28P01"), "{wrong}");
        let none = server.refused(&format!("user={user} sslmode=require")).await;
        assert!(none.contains("the server asks for a password"), "{none}");
    }
    // The replication database and the SQL one are looked up under their own names.
    let pgpass = server.cluster.path().join("pgpass");
    let port = server.cluster.port();
    let lines = format!("127.0.0.1:{port}:replication:scram:pw\n127.0.0.1:*:postgres:scram:pw\n");
    server.cluster.write(&pgpass, &lines, 0o600);
    verify(server.connect(&format!("user=scram passfile={}", pgpass.display())).await, true, "passfile");
    server.cluster.write(&pgpass, &lines, 0o644);
    let open = server.refused(&format!("user=scram passfile={}", pgpass.display())).await;
    assert!(open.contains("chmod 0600"), "{open}");

    let (certificate, key) = (server.file("client.crt"), server.file("client.key"));
    let certified = format!("user=certified sslmode=require sslcert={certificate} sslkey={key}");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions set");
    verify(server.connect(&certified).await, true, "client certificate");
    assert!(server.connect("user=certified sslmode=require").await.expect_err("none shown").is_authentication());
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("permissions set");
    let open = server.refused(&certified).await;
    assert!(open.contains("(sslkey) can be read by others"), "{open}");
}

#[tokio::test]
async fn the_sslmode_ladder_stands_as_libpq_built_it() {
    let server = Secured::new();
    let connect = |user: &str, mode: &str| format!("user={user} password=pw sslmode={mode}");
    // allow goes up only when it must; prefer goes down only when it must.
    for (user, mode, encrypted) in [
        ("scram", "disable", false),
        ("scram", "allow", false),
        ("tls_only", "allow", true),
        ("scram", "prefer", true),
        ("plain_only", "prefer", false),
        ("scram", "require", true),
    ] {
        let what = connect(user, mode);
        verify(server.connect(&what).await, encrypted, &what);
    }
    let hba = server.refused(&connect("tls_only", "disable")).await;
    assert!(hba.contains("pg_hba.conf"), "{hba}");
    server.refused(&connect("plain_only", "require")).await;

    let (root, stranger) = (server.file("root.crt"), server.file("stranger.crt"));
    let port = server.cluster.port();
    let named = |name: &str, mode: &str, root: &str| {
        let text = format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=scram password=pw sslmode={mode} sslrootcert={root}"
        );
        Conninfo::parse(&text, &|_| None).expect("legal")
    };
    for (name, mode, root, error) in [
        ("db.walseal.test", "verify-full", &root, None),
        ("DB.walseal.TEST", "verify-full", &root, None),
        ("127.0.0.1", "verify-full", &root, None),
        ("other.walseal.test", "verify-ca", &root, None),
        ("other.walseal.test", "require", &root, None),
        ("other.walseal.test", "verify-full", &root, Some("names other hosts")),
        ("127.0.0.2", "verify-full", &root, Some("names other hosts")),
        ("''", "verify-full", &root, Some("needs a host name to check")),
        ("db.walseal.test", "verify-full", &stranger, Some("not signed by an authority in sslrootcert")),
        ("db.walseal.test", "verify-ca", &stranger, Some("not signed by an authority in sslrootcert")),
        ("db.walseal.test", "require", &stranger, Some("not signed by an authority in sslrootcert")),
        ("db.walseal.test", "verify-ca", &"/nowhere/root.crt".to_owned(), Some("(sslrootcert) is not readable")),
        ("db.walseal.test", "prefer", &stranger, None),
    ] {
        let connected = ReplicationClient::connect(&named(name, mode, root), "walseal_test").await;
        match (connected, error) {
            (Ok(_), None) => {}
            (Err(found), Some(error)) => {
                assert!(found.to_string().contains(error) && found.is_permanent(), "{name} {mode}: {found}");
            }
            (connected, _) => panic!("{name} {mode} {root}: {connected:?}"),
        }
    }
    let none = server.refused(&connect("scram", "verify-full")).await;
    assert!(none.contains("sslrootcert"), "{none}");
}

#[tokio::test]
async fn scram_is_bound_to_the_certificate_where_it_can_be() {
    let server = Secured::new();
    let bound = "user=scram password=pw sslmode=require channel_binding=require";
    verify(server.connect(bound).await, true, "ECDSA with SHA-256");
    verify(server.connect("user=scram password=pw sslmode=require channel_binding=disable").await, true, "not bound");
    for (what, text) in [
        ("no TLS", "user=scram password=pw sslmode=disable channel_binding=require"),
        ("md5", "user=hashed password=pw sslmode=require channel_binding=require"),
        ("trust", "user=trusted password=pw sslmode=require channel_binding=require"),
    ] {
        let error = server.refused(text).await;
        assert!(error.contains("channel_binding=require"), "{what}: {error}");
    }
    // The digest follows the certificate's signature: RFC 5929, section 4.1.
    for (name, more) in [("sha384", " -sha384"), ("sha512", " -sha512"), ("version1", "")] {
        let extensions = if name == "version1" { "" } else { "subjectAltName=DNS:db.walseal.test" };
        server.certificate(name, "/CN=db.walseal.test", extensions, more);
        server.install(name);
        server.cluster.sql("select pg_reload_conf()");
        verify(reloaded(&server, bound, name).await, true, name);
    }
    // A certificate of version 1 can be used, but not be checked.
    let root = server.file("root.crt");
    let checked = server.refused(&format!("user=scram password=pw sslmode=verify-ca sslrootcert={root}")).await;
    assert!(checked.contains("version 1"), "{checked}");
}

/// Connects once the server shows the certificate `name`; a reload takes effect in the postmaster a moment later.
async fn reloaded(server: &Secured, text: &str, name: &str) -> Result<bool, PostgresError> {
    let certificate = server.file(&format!("{name}.crt"));
    // Its own certificate as the root: only the new one is accepted.
    let pinned = format!("user=scram password=pw sslmode=require sslrootcert={certificate}");
    let mut last = server.connect(&pinned).await;
    for _ in 0..1_000 {
        if last.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
        last = server.connect(&pinned).await;
    }
    last?;
    server.connect(text).await
}
