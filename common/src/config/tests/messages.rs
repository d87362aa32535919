//! Every text that a person can be shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use super::*;

#[test]
fn an_open_file_with_a_secret_in_it_is_warned_about() {
    let warnings = |text: &str, mode: u32| {
        let (_folder, path) = with_file(text, mode);
        let mut sources = Sources::new(Environment::default());
        sources.config_flag = Some(path.clone());
        let warnings = Config::load(&sources).unwrap().warnings().join("\n");
        assert!(!warnings.contains("hunter2"));
        warnings.replace(&path.display().to_string(), "FILE")
    };
    let secret = "repository.s3.secret_access_key = \"hunter2\"";
    assert_snapshot!(warnings(secret, 0o644), @"FILE holds a secret and everybody can read it (mode 644): repository.s3.secret_access_key; run: chmod g-w,o-rwx FILE");
    assert_eq!(warnings(secret, 0o640), "");
    assert!(warnings("cluster.conninfo = \"host=x password=hunter2\"", 0o644).contains("cluster.conninfo"));
    assert!(warnings("cluster.conninfo = \"postgres://a:hunter2@x/y\"", 0o644).contains("cluster.conninfo"));
    assert_eq!(warnings("cluster.conninfo = \"host=/run/postgresql\"", 0o644), "");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_snapshot!(complaint("[cluster]\nname = \"a\"\nconninf = \"host=x\""), @r#"/walseal.toml:3: key "cluster.conninf" is not known; use the nearest known one, cluster.conninfo, or take it out"#);
    assert_snapshot!(complaint("[base]\nship_interval = \"1s\""), @r#"/walseal.toml:2: key "base.ship_interval" is not known; use the nearest known one, wal.ship_interval, or take it out"#);
    assert_snapshot!(complaint("[wall]\nenabled = true"), @r#"/walseal.toml:1: table "wall" is not known; use the nearest known one, [wal], or take it out"#);
    assert_snapshot!(complaint("[entirely.other]\nx = 1"), @r#"/walseal.toml:1: table "entirely" is not known; known tables are cluster, repository, repository.s3, keys, wal, base, retention, cost, verify, fetch, drill, snapshot, alerts, http, walseal, extra_repository, drill.checks"#);
    assert_snapshot!(complaint("recipients = []"), @r#"/walseal.toml:1: key "recipients" is not known; use the nearest known one, keys.recipients, or take it out"#);
    assert_snapshot!(complaint("[fetch]\nzzz = 1"), @r#"/walseal.toml:2: key "fetch.zzz" is not known; known keys under [fetch] are retry, retry_standby, prefetch"#);
    assert_snapshot!(complaint("wal = true"), @r#"/walseal.toml:1: key "wal" is not known; wal is a table: write [wal] on a line of its own, and its keys below"#);
    assert_snapshot!(complaint("[repository.s3.endpoint]\nurl = \"x\""), @r#"repository.s3.endpoint (from /walseal.toml:1) is a table, not text; write it as in "text in quotes""#);
    assert_snapshot!(complaint("[[drill.checks]]\nname = \"a\"\nsqll = \"b\""), @r#"drill.checks (from /walseal.toml:1) has an unknown "sqll" in line 3; each check has name, database, sql and expect, all in quotes, and may have tolerance, timeout and on_failure"#);
    let check =
        |more: &str| format!("[[drill.checks]]\nname = \"a\"\ndatabase = \"b\"\nsql = \"c\"\nexpect = \"1\"\n{more}");
    assert_snapshot!(complaint(&check("tolerance = \"-1\"")), @r#"drill.checks (from /walseal.toml:1) has the tolerance "-1"; write it as in "5" or "2.5%""#);
    assert_snapshot!(complaint(&check("on_failure = \"ignore\"")), @r#"drill.checks (from /walseal.toml:1) has on_failure "ignore"; write "fail" or "warn""#);
    let fails = |more: &str| Config::from_toml(&check(more)).expect(more).drill.checks[0].fails;
    assert!(fails("") && fails("on_failure = \"fail\"") && !fails("on_failure = \"warn\""));
    let tolerance = |more: &str| Config::from_toml(&check(more)).expect(more).drill.checks[0].tolerance;
    assert_eq!(tolerance("tolerance = 5"), Some(Tolerance::Absolute(5.0)));
    assert_eq!(tolerance("tolerance = \"2.5%\""), Some(Tolerance::Percent(2.5)));
    assert_eq!(tolerance(""), None);
    assert_snapshot!(complaint("[drill]\nshrink = 101"), @"drill.shrink (from /walseal.toml:2) is 101; write a number from 0 to 100");
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest_known_one() {
    assert_snapshot!(variable_complaint(&[("WALSEAL_REPOSITORY_URI", "s3://x")]), @r#"environment: variable "WALSEAL_REPOSITORY_URI" is not known; use the nearest known one, WALSEAL_REPOSITORY_URL, or unset it"#);
    assert_snapshot!(variable_complaint(&[("WALSEAL_XYZ", "hunter2")]), @r#"environment: variable "WALSEAL_XYZ" is not known; unset it, or see docs/CONFIGURATION.md for the known ones"#);
    assert_snapshot!(variable_complaint(&[("WALSEAL_DRILL_CHECKS", "x")]), @r#"environment: variable "WALSEAL_DRILL_CHECKS" is not known; drill.checks is a table, which only the configuration file can set"#);
}

#[test]
fn a_wrong_value_is_named_with_its_place_and_its_cure() {
    assert_snapshot!(complaint("wal.ship_interval = 5"), @r#"wal.ship_interval (from /walseal.toml:1) cannot be used: 5 has no unit; write "5s" if seconds are meant"#);
    assert_snapshot!(complaint("wal.ship_interval = \"0s\""), @r#"wal.ship_interval (from /walseal.toml:1) is out of range; write a time from "10ms" to "1h""#);
    assert_snapshot!(complaint("wal.enabled = \"yes\""), @"wal.enabled (from /walseal.toml:1) is text; write true or false, without quotes");
    assert_snapshot!(variable_complaint(&[("WALSEAL_WAL_ENABLED", "yes")]), @r#"wal.enabled (from WALSEAL_WAL_ENABLED) is "yes"; write true or false"#);
    assert_snapshot!(complaint("base.max_rate = 100"), @r#"base.max_rate (from /walseal.toml:1) cannot be used: 100 has no unit; write "100B" if bytes are meant"#);
    assert_snapshot!(complaint("retention.daily = -1"), @r#"retention.daily (from /walseal.toml:1) is "-1"; write a whole number from 0 to 4294967295"#);
    assert_snapshot!(complaint("keys.recipients = \"walseal1a\""), @r#"keys.recipients (from /walseal.toml:1) is text, not a list; put brackets around it, as in ["one", "two"]"#);
    assert_snapshot!(complaint("keys.trusted_writers = [{ key = \"walsealw1a\", roles = [\"king\"] }]"), @r#"keys.trusted_writers (from /walseal.toml:1) gives walsealw1a the role "king"; roles are wal, base and drill"#);
    assert_snapshot!(complaint("keys.trusted_writers = [{ key = \"walsealw1a\" }]"), @r#"keys.trusted_writers (from /walseal.toml:1) has a table without key and roles; write { key = "walsealw1…", roles = ["drill"] }"#);
    assert_snapshot!(complaint("cluster.name = \"Orders\""), @r#"cluster.name (from /walseal.toml:1) "Orders" cannot be a cluster's name; use 1 to 55 of a-z, 0-9, _ and -, such as "orders""#);
    assert_snapshot!(complaint("cluster.slot = \"a-b\""), @r#"cluster.slot (from /walseal.toml:1) "a-b" cannot be a replication slot's name; use 1 to 63 of a-z, 0-9 and _, such as "walseal_orders""#);
    assert_snapshot!(complaint("cluster.name = \"\""), @"cluster.name (from /walseal.toml:1) is empty; set it, or leave it out");
    assert_snapshot!(complaint("repository.url = \"/srv/walseal\""), @r#"repository.url (from /walseal.toml:1) is a path and not a URL; write "file:///srv/walseal""#);
    assert_snapshot!(complaint("repository.url = \"s3://id:hunter2@bucket\""), @"repository.url (from /walseal.toml:1) holds credentials, which would end up in messages and logs; take them out of the URL; credentials have keys of their own, such as repository.s3.access_key_id");
    assert_snapshot!(complaint("repository.s3.endpoint = \"minio:9000\""), @r#"repository.s3.endpoint (from /walseal.toml:1) has no scheme; write "https://minio:9000", or "http://minio:9000" where there is no TLS"#);
    assert_snapshot!(complaint("repository.s3.checksums = \"never\""), @r#"repository.s3.checksums (from /walseal.toml:1) is "never"; write "when_required" or "when_supported""#);
    assert_snapshot!(complaint("[[extra_repository]]\nurl = \"s3://b\"\nrequired = true"), @"extra_repository (from /walseal.toml:1) is not available yet: this version writes to one repository; take it out: nothing would be copied there");
    assert_snapshot!(complaint("snapshot = 1"), @r#"/walseal.toml:1: key "snapshot" is not known; snapshot is a table: write [snapshot] on a line of its own, and its keys below"#);
}

#[test]
fn a_secret_of_the_wrong_type_or_in_broken_toml_is_not_shown() {
    for text in [
        "repository.s3.secret_access_key = [\"hunter2\"]",
        "cluster.conninfo = { password = \"hunter2\" }",
        "repository.s3.secret_access_key = \"hunter2",
        "repository.s3.secret_access_key = hunter2",
        "cluster.conninfo = \"a\"\ncluster.conninfo = \"hunter2\"",
        "repository.s3.secret_access_key = \"\\hunter2\"",
    ] {
        let error = Config::from_toml(text).expect_err(text);
        assert!(!format!("{error} {error:?} {}", error.problem()).contains("hunter2"), "{error:?}");
    }
}

#[test]
fn broken_toml_is_named_with_its_line() {
    assert_snapshot!(complaint("[cluster]\nname = orders"), @"/walseal.toml:2: string values must be quoted, expected literal string; mend that line: text stands in double quotes, a list in brackets, a table starts with [name]");
    assert_snapshot!(complaint("a = 1\na = 2"), @"/walseal.toml:2: duplicate key; keep one of the two");
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_the_default_one_is_not() {
    let mut sources = Sources::new(Environment::from_iter([("WALSEAL_CONFIG", "/nowhere/walseal.toml")]));
    assert_snapshot!(Config::load(&sources).unwrap_err(), @"the configuration file /nowhere/walseal.toml, named by WALSEAL_CONFIG, does not exist; create it, or name another file");
    sources.config_flag = Some(PathBuf::from("/nowhere/else.toml"));
    assert_snapshot!(Config::load(&sources).unwrap_err(), @"the configuration file /nowhere/else.toml, named by --config, does not exist; create it, or name another file");
    sources.config_flag = Some(PathBuf::from("/proc"));
    assert_snapshot!(Config::load(&sources).unwrap_err(), @"/proc cannot be read: Is a directory (os error 21); name a file that can be read");
}

#[test]
fn what_a_verb_needs_is_asked_for_with_a_line_to_write() {
    let config = from_environment(&[]).unwrap();
    assert_snapshot!(config.need_repository().unwrap_err(), @r#"repository.url is not set: it says where the backups are; write url = "s3://acme-pg/orders" under [repository] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_REPOSITORY_URL"#);
    assert_snapshot!(config.need_conninfo().unwrap_err(), @r#"cluster.conninfo is not set: it says how to reach the server; write conninfo = "host=/run/postgresql user=walseal" under [cluster] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_CLUSTER_CONNINFO"#);
    assert_snapshot!(config.need_slot().unwrap_err(), @r#"cluster.name is not set: the replication slot and the application name are made of it; write name = "orders" under [cluster] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_CLUSTER_NAME"#);
    assert_snapshot!(config.need_writer_key_file().unwrap_err(), @r#"keys.writer_key_file is not set: what is written is signed with it (`walseal-archiver keygen --output FILE` makes one); write writer_key_file = "/etc/walseal/writer.key" under [keys] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_KEYS_WRITER_KEY_FILE"#);
    assert_snapshot!(config.need_identities().unwrap_err(), @r#"keys.identity_files is not set: backups are opened with them (`walseal-restorer keygen --output FILE` makes one); write identity_files = ["/etc/walseal/identity.key"] under [keys] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_KEYS_IDENTITY_FILES"#);
    assert_snapshot!(config.need_trusted_writers().unwrap_err(), @r#"keys.trusted_writers is not set: only what they signed is believed (`walseal-archiver keygen` prints one); write trusted_writers = ["walsealw1…"] under [keys] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_KEYS_TRUSTED_WRITERS"#);
    assert_snapshot!(config.need_recipients().unwrap_err(), @r#"keys.recipients is not set: objects are sealed to them (`walseal-restorer keygen` prints one); write recipients = ["walseal1…"] under [keys] in /nowhere/walseal.toml (no such file; --config names another), or set WALSEAL_KEYS_RECIPIENTS"#);
    assert!(config.need_state_dir().is_err());
}

#[test]
fn key_files_are_read_only_when_nobody_else_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.key");
    fs::write(&path, "hunter2\n").unwrap();
    let config = from_environment(&[("WALSEAL_KEYS_IDENTITY_FILES", &path.display().to_string())]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = config.read_identities().unwrap_err().to_string();
    assert_snapshot!(error.replace(&path.display().to_string(), "FILE"), @"keys.identity_files (from WALSEAL_KEYS_IDENTITY_FILES): FILE holds a secret and everybody can read it (mode 644); run: chmod g-w,o-rwx FILE");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(config.read_identities().unwrap()[0].1.expose(), "hunter2");
    fs::remove_file(&path).unwrap();
    let error = config.read_identities().unwrap_err().to_string();
    assert_snapshot!(error.replace(&path.display().to_string(), "FILE"), @"keys.identity_files (from WALSEAL_KEYS_IDENTITY_FILES): FILE cannot be read: No such file or directory (os error 2); put the secret there, readable by this user alone (mode 600), or correct keys.identity_files");
}

#[test]
fn a_problem_and_its_fix_make_up_the_whole_text() {
    let config = from_environment(&[]).unwrap();
    let (_folder, open) = with_file("x", 0o644);
    let errors = [
        config.need_repository().unwrap_err(),
        Config::from_toml("x = 1").unwrap_err(),
        Config::from_toml("x").unwrap_err(),
        Config::from_toml("wal.enabled = 1").unwrap_err(),
        read_secret_file("keys.writer_key_file", &Origin::Flag("--key"), &open).unwrap_err(),
        from_environment(&[("WALSEAL_CONFIG", "/nowhere/x.toml")]).unwrap_err(),
        ConfigError::NotText { name: "S3_BUCKET".into() },
    ];
    for error in errors {
        assert_eq!(format!("{}; {}", error.problem(), error.fix()), error.to_string());
        assert!(error.is_permanent());
    }
}

#[test]
fn schedules_are_read_or_switched_off_and_bad_ones_say_what_to_write() {
    let base = |line: &str| Config::from_toml(&format!("[base]\n{line}")).expect(line).base;
    assert_eq!(
        base("schedule = \"30 1 * * sun\"").schedule.value.map(|it| it.to_string()).as_deref(),
        Some("30 1 * * sun")
    );
    assert_eq!(base("schedule = \"off\"").schedule.value, None);
    assert_eq!(base("schedule = \"\"").schedule.value, None);
    assert_snapshot!(complaint("[base]\nschedule = \"0 25 * * *\""), @r#"base.schedule (from /walseal.toml:2) cannot be used: "25" is no hour; it goes from 0 to 23"#);
}

#[test]
fn a_rate_that_the_server_would_refuse_is_refused_with_the_range() {
    let rate = |text: &str| Config::from_toml(&format!("[base]\nmax_rate = {text:?}")).expect(text).base.max_rate.value;
    assert_eq!((rate("0"), rate("32KiB"), rate("50MB/s"), rate("1GiB")), (0, 32_768, 50_000_000, 1 << 30));
    assert_snapshot!(complaint("[base]\nmax_rate = \"31KiB\""), @r#"base.max_rate (from /walseal.toml:2) is a rate that PostgreSQL does not take; write one from "32KiB" to "1GiB" a second, or "0" for no limit"#);
    assert!(complaint("[base]\nmax_rate = \"2GB\"").contains("1GiB"));
}
