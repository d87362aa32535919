#![allow(clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Conninfo {
    Conninfo::parse(text, &nothing).expect("a legal connection string")
}

fn refused(text: &str) -> String {
    Conninfo::parse(text, &nothing).expect_err("an illegal connection string").to_string()
}

fn hosts(conninfo: &Conninfo) -> Vec<String> {
    conninfo.hosts().iter().map(ToString::to_string).collect()
}

#[test]
fn keyword_values_may_be_quoted_and_escaped() {
    let conninfo = parse(r"user = 'a b' password='it\'s \\ here' dbname=x\ y   port = 5433 host=db");
    assert_eq!(conninfo.user(), "a b");
    assert_eq!(conninfo.password, Some(Password::new(r"it's \ here")));
    assert_eq!(conninfo.dbname(), "x y");
    assert_eq!(hosts(&conninfo), ["db:5433"]);
    assert_eq!(parse("user=u dbname=''").dbname(), "postgres");
    assert_eq!(parse("user=u user=v").user(), "v");
}

#[test]
fn urls_are_percent_decoded() {
    let conninfo = parse("postgresql://us%40er:p%3Aw%25@db.example.net:5433/my%20db?application_name=a%26b");
    assert_eq!((conninfo.user(), conninfo.dbname()), ("us@er", "my db"));
    assert_eq!(conninfo.password, Some(Password::new("p:w%")));
    assert_eq!(conninfo.application_name(), Some("a&b"));
    assert_eq!(hosts(&conninfo), ["db.example.net:5433"]);
    let socket = parse("postgres://u@%2Frun%2Fpostgresql:5433/db");
    assert_eq!(hosts(&socket), ["/run/postgresql/.s.PGSQL.5433"]);
    assert_eq!(hosts(&parse("postgresql:///db?host=/tmp/a&user=u")), ["/tmp/a/.s.PGSQL.5432"]);
    assert_eq!(hosts(&parse("postgresql://u@[::1]:5433,[fe80::1]/db")), ["::1:5433", "fe80::1:5432"]);
    assert_eq!(parse("postgresql://u@h/db?ssl=true").ssl_mode(), SslMode::Require);
}

#[test]
fn several_hosts_take_one_port_or_one_each() {
    assert_eq!(hosts(&parse("user=u host=a,b port=1,2")), ["a:1", "b:2"]);
    assert_eq!(hosts(&parse("user=u host=a,b port=7")), ["a:7", "b:7"]);
    assert_eq!(hosts(&parse("user=u host=a,b port=7,")), ["a:7", "b:5432"]);
    assert_eq!(hosts(&parse("user=u host=a,/tmp hostaddr=10.0.0.1,")), ["a (10.0.0.1):5432", "/tmp/.s.PGSQL.5432"]);
    assert_eq!(hosts(&parse("user=u hostaddr=::1")), ["[::1]:5432"]);
    assert_eq!(
        hosts(&parse("user=u port=6000")),
        ["/run/postgresql/.s.PGSQL.6000", "/tmp/.s.PGSQL.6000"],
        "no host: Debian's socket, then PostgreSQL's own"
    );
    assert!(refused("user=u host=a,b,c port=1,2").contains("2 ports for 3 hosts"));
    assert!(refused("user=u host=a,b hostaddr=127.0.0.1").contains("hostaddr 1"));
    assert!(refused("user=u hostaddr=db.example.net").contains("use host for names"));
    for port in ["0", "65536", "-1", "x"] {
        assert!(refused(&format!("user=u host=a port={port}")).contains("is not a port"), "{port}");
    }
    let pinned = parse("user=u host=a,b").hosts()[1].clone();
    assert_eq!(hosts(&parse("user=u host=a,b").pinned(&pinned)), ["b:5432"]);
}

#[test]
fn the_environment_fills_in_what_the_text_leaves_open() {
    let env = |name: &str| {
        let value = match name {
            "PGHOST" => "envhost",
            "PGPORT" => "6000",
            "PGUSER" => "envuser",
            "PGPASSWORD" => "secret",
            "PGSSLMODE" => "require",
            "PGCONNECT_TIMEOUT" => "7",
            "PGTARGETSESSIONATTRS" => "primary",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let conninfo = Conninfo::parse("", &env).expect("legal");
    assert_eq!(hosts(&conninfo), ["envhost:6000"]);
    assert_eq!((conninfo.user(), conninfo.ssl_mode()), ("envuser", SslMode::Require));
    assert_eq!(conninfo.connect_timeout(), Some(Duration::from_secs(7)));
    assert_eq!(conninfo.target_session_attrs(), TargetSessionAttrs::Primary);
    let conninfo = Conninfo::parse("host=mine user=me connect_timeout=0", &env).expect("legal");
    assert_eq!((hosts(&conninfo), conninfo.user()), (vec!["mine:6000".to_owned()], "me"));
    assert_eq!(conninfo.connect_timeout(), None);
}

#[test]
fn unknown_keywords_name_the_nearest_and_unsupported_ones_are_refused() {
    assert!(refused("user=u pasfile=x").contains("did you mean \"passfile\""));
    assert!(refused("user=u ssl_mode=require").contains("did you mean \"sslmode\""));
    assert!(refused("user=u sslcrl=x").contains("not supported"));
    assert!(refused("user=u replication=database").contains("can only be"));
    assert!(refused("user=u sslmode=verify").contains("verify-ca, verify-full"));
    assert!(refused("user=u sslrootcert=system sslmode=require").contains("too weak"));
    assert_eq!(parse("user=u sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
    parse("user=u gssencmode=prefer client_encoding=UTF8 sslsni=1");
}

#[test]
fn no_message_and_no_debug_output_holds_a_password() {
    for text in [
        "password=my secret",
        "password='my secret",
        "user=u password=hunter2 secret",
        "postgresql://u:secret%zz@h/",
        "postgresql://u:secret@h:1:2/",
        "postgresql://u:secret@h/db?nonsense",
    ] {
        let message = refused(text);
        assert!(!message.contains("secret"), "{text:?}: {message}");
    }
    let conninfo = parse("host=h user=u password=secret options='-c x=secret'");
    assert!(!format!("{:?}", conninfo.password).contains("secret"));
    assert!(!conninfo.redacted().contains("secret") && conninfo.redacted().contains("password=***"));
    assert_eq!(conninfo.to_string(), "host=h port=5432 user=u password=*** sslmode=prefer");
    // What is shown is a connection string again.
    assert_eq!(parse(&parse(r"host=h user='a \'b'").redacted()).user(), "a 'b");
}

fn passfile(content: &str, mode: u32) -> (tempfile::TempDir, Conninfo) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pgpass");
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions set");
    let conninfo = parse(&format!("host=db,/run/postgresql,::1 user=u passfile={}", path.display()));
    (folder, conninfo)
}

#[test]
fn the_password_file_is_matched_line_by_line_with_escapes_and_wildcards() {
    let content = "# db:5432:*:u:comment\nother:5432:*:u:a\ndb:5433:*:u:b\ndb:*:x\\:y:u:c\ndb:*:replication:u:p\\:w\\\\:d\n\
                   localhost:*:*:u:socket\n\\:\\:1:*:*:*:six\n";
    let (_folder, conninfo) = passfile(content, 0o600);
    let find = |host: usize, database: &str| conninfo.password_for(&conninfo.hosts()[host], database);
    assert_eq!(find(0, "x:y"), Ok(Password::new("c")));
    assert_eq!(find(0, "replication"), Ok(Password::new("p:w\\:d")));
    assert_eq!(find(1, "any"), Ok(Password::new("socket")));
    assert_eq!(find(2, "any"), Ok(Password::new("six")));
    let missing = find(0, "postgres").expect_err("no line fits");
    assert!(missing.contains("db:5432:postgres:u:<password>"), "{missing}");
}

#[test]
fn a_password_file_that_others_can_read_is_not_used() {
    for mode in [0o640, 0o604, 0o660] {
        let (_folder, conninfo) = passfile("*:*:*:*:secret\n", mode);
        let why = conninfo.password_for(&conninfo.hosts()[0], "postgres").expect_err("not used");
        assert!(why.contains("chmod 0600") && !why.contains("secret"), "{why}");
    }
    let (folder, conninfo) = passfile("*:*:*:*:secret\n", 0o600);
    assert!(conninfo.password_for(&conninfo.hosts()[0], "postgres").is_ok());
    drop(folder);
    let why = conninfo.password_for(&conninfo.hosts()[0], "postgres").expect_err("gone");
    assert!(why.contains("is not readable"), "{why}");
}

proptest! {
    #[test]
    fn connection_strings_never_panic(text: String) {
        let parsed = Conninfo::parse(&text, &nothing);
        prop_assert!(parsed.is_ok() || parsed.is_err());
        let parsed = Conninfo::parse(&format!("postgresql://{text}"), &nothing);
        prop_assert!(parsed.is_ok() || parsed.is_err());
    }

    #[test]
    fn any_value_survives_quoting(value in "[^\0]+") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let conninfo = Conninfo::parse(&format!("user='{quoted}'"), &nothing);
        prop_assert_eq!(conninfo.map(|conninfo| conninfo.user().to_owned()), Ok(value));
    }
}
