//! Which layer wins, and what becomes of values.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use insta::assert_snapshot;

use super::*;

#[test]
fn the_example_is_read_whole() {
    let config = Config::from_toml(EXAMPLE).expect("the example");
    assert_eq!(config.need_name().unwrap().as_str(), "orders");
    assert_eq!(config.need_slot().unwrap(), "walseal_orders");
    assert_eq!(config.need_state_dir().unwrap(), PathBuf::from("/var/lib/walseal/orders"));
    assert_eq!(config.need_conninfo().unwrap().text.expose(), "host=/run/postgresql user=walseal");
    assert_eq!(config.need_repository().unwrap().to_string(), "s3://acme-pg/orders");
    assert_eq!(config.need_recipients().unwrap().value, ["walseal1one", "walseal1two"]);
    assert_eq!(config.need_identities().unwrap().value, [PathBuf::from("/etc/walseal/identity.key")]);
    let writers = &config.need_trusted_writers().unwrap().value;
    assert_eq!(writers[0].roles, [WriterRole::Wal, WriterRole::Base]);
    assert_eq!((writers[1].key.as_str(), writers[1].roles.as_slice()), ("walsealw1two", &[WriterRole::Drill][..]));
    assert_eq!(*config.wal.ship_interval, Duration::from_secs(1));
    assert_eq!(*config.retention.window, Duration::from_secs(14 * 86_400));
    assert_eq!(config.drill.checks[0].expect, "t");
    assert_eq!(config.drill.checks[0].timeout, Duration::from_secs(300));
    assert_eq!(config.drill.schedule.as_ref().map(ToString::to_string).as_deref(), Some("30 4 * * *"));
    assert!(config.repository.s3.uses_path_style());
    assert_eq!(config.repository.s3.uses_checksums(), Checksums::WhenRequired);
    assert_eq!(config.snapshot.last.value, 3);
    assert_eq!(config.warnings(), [] as [String; 0]);
}

#[test]
fn nothing_at_all_is_a_configuration_with_every_default() {
    let config = from_environment(&[]).expect("an empty environment");
    assert_eq!(config.file(), None);
    assert!(config.warnings().is_empty());
    assert_eq!(config, {
        let mut same = Config::from_toml("").expect("an empty file");
        (same.file, same.file_exists) = (config.file.clone(), false);
        same
    });
    assert!(*config.wal.enabled && !config.wal.enabled.is_set());
    assert_eq!(*config.fetch.retry, Duration::from_secs(300));
    assert_eq!(*config.base.max_rate, 0);
    assert_eq!(config.base.schedule.as_ref().map(ToString::to_string).as_deref(), Some("0 2 * * *"));
}

#[test]
fn a_flag_beats_a_variable_which_beats_the_file_which_beats_the_platform() {
    let (_folder, path) = with_file("[cluster]\npg_bin = \"/file\"\n[repository]\nurl = \"file:///file\"\n", 0o600);
    let load = |flag: Option<&str>, own: &str, config: Option<&std::path::Path>| {
        let variables = [("WALSEAL_REPOSITORY_URL", own), ("WALSEAL_CLUSTER_PG_BIN", own), ("S3_BUCKET", "platform")];
        let mut sources = Sources::new(Environment::from_iter(variables));
        sources.default_file = PathBuf::from("/nowhere/walseal.toml");
        sources.config_flag = config.map(std::path::Path::to_owned);
        Config::load(&sources.flag("repository.url", "--repository", flag)).expect("all layers are right")
    };
    let seen = |config: &Config| {
        let url = config.need_repository().unwrap();
        (url.to_string(), url.origin.to_string())
    };
    let at = format!("{}:4", path.display());
    assert_eq!(
        seen(&load(Some("file:///flag"), "file:///own", Some(&path))),
        ("file:///flag".into(), "--repository".into())
    );
    assert_eq!(seen(&load(None, "file:///own", Some(&path))), ("file:///own".into(), "WALSEAL_REPOSITORY_URL".into()));
    assert_eq!(seen(&load(None, "", Some(&path))), ("file:///file".into(), at));
    assert_eq!(seen(&load(None, "", None)), ("s3://platform".into(), "S3_BUCKET".into()));
}

#[test]
fn the_flag_names_the_file_before_the_variable_does_before_the_default() {
    let (_one, flag) = with_file("cluster.name = \"flag\"", 0o600);
    let (_two, variable) = with_file("cluster.name = \"variable\"", 0o600);
    let (_three, default) = with_file("cluster.name = \"default\"", 0o600);
    let name = |config_flag: Option<&PathBuf>, variable: &str| {
        let mut sources = Sources::new(Environment::from_iter([("WALSEAL_CONFIG", variable)]));
        sources.default_file.clone_from(&default);
        sources.config_flag = config_flag.cloned();
        Config::load(&sources).expect("three right files").need_name().unwrap().value.clone()
    };
    let variable = variable.display().to_string();
    assert_eq!(name(Some(&flag), &variable), "flag");
    assert_eq!(name(None, &variable), "variable");
    assert_eq!(name(None, ""), "default");
}

#[test]
fn every_key_that_fits_a_variable_can_be_set_by_one() {
    for key in KEYS.iter().filter(|key| key.kind.fits_a_variable()) {
        let value = match key.kind {
            Kind::Boolean => "true",
            Kind::Number => "3",
            Kind::Duration => "30m",
            Kind::Size => "64MiB",
            Kind::Price => "0.02",
            Kind::Choice(words) => words[0],
            _ if key.path == "repository.url" => "file:///x",
            _ if key.path == "repository.s3.endpoint" => "http://127.0.0.1:8333/",
            _ if key.path == "http.listen" => "9187",
            Kind::Secret if key.path.ends_with("_url") => "https://hooks.example.net/x",
            _ if matches!(key.path, "base.schedule" | "drill.schedule" | "snapshot.schedule") => "@weekly",
            _ => "one",
        };
        let config = from_environment(&[(&key.variable(), value)]);
        assert!(config.is_ok(), "{}: {config:?}", key.path);
        // An empty variable is one that is not set: compose files pass them on.
        assert_eq!(from_environment(&[(&key.variable(), "")]).ok(), from_environment(&[]).ok(), "{}", key.path);
        // Every key is looked at: a value that no type takes is noticed, unless any text will do.
        if matches!(
            key.kind,
            Kind::Boolean | Kind::Number | Kind::Duration | Kind::Size | Kind::Price | Kind::Choice(_)
        ) {
            assert!(from_environment(&[(&key.variable(), "/*")]).is_err(), "{} is not read", key.path);
        }
    }
}

#[test]
fn a_port_alone_is_loopback_and_any_other_address_is_written_out() {
    let listen =
        |text: &str| from_environment(&[("WALSEAL_HTTP_LISTEN", text)]).map(|config| config.listen.unwrap().value);
    for text in ["9187", ":9187", "localhost:9187", "127.0.0.1:9187"] {
        assert_eq!(listen(text).expect(text).to_string(), "127.0.0.1:9187");
    }
    assert_eq!(listen("0.0.0.0:9187").expect("said").to_string(), "0.0.0.0:9187");
    assert_eq!(listen("[::1]:9187").expect("said").to_string(), "[::1]:9187");
    for text in ["70000", "db1:9187", "http://127.0.0.1:9187", "127.0.0.1"] {
        let words = listen(text).expect_err(text).to_string();
        assert!(words.contains("http.listen") && words.contains("9187"), "{words}");
    }
}

#[test]
fn lists_are_split_by_commas_in_the_environment() {
    let config = from_environment(&[
        ("WALSEAL_KEYS_RECIPIENTS", "walseal1a, walseal1b,"),
        ("WALSEAL_KEYS_TRUSTED_WRITERS", "walsealw1a"),
    ]);
    let config = config.expect("two lists");
    assert_eq!(config.need_recipients().unwrap().value, ["walseal1a", "walseal1b"]);
    assert_eq!(config.need_trusted_writers().unwrap().roles_of(0), [WriterRole::Wal, WriterRole::Base]);
}

trait RolesOf {
    fn roles_of(&self, index: usize) -> &[WriterRole];
}

impl RolesOf for Vec<TrustedWriter> {
    fn roles_of(&self, index: usize) -> &[WriterRole] {
        &self[index].roles
    }
}

#[test]
fn platform_names_and_keys_are_a_complete_configuration_without_a_file() {
    let config = from_environment(&[
        ("DATABASE_URL", "postgres://ro:hunter2@db.example.net/shop"),
        ("S3_ENDPOINT", "https://s3.example.net"),
        ("S3_BUCKET", "acme-pg"),
        ("S3_PREFIX", "/orders/"),
        ("S3_REGION", "eu-1"),
        ("S3_ACCESS_KEY_ID", "S3ID"),
        ("S3_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_ACCESS_KEY_ID", "AWSID"),
        ("AWS_SESSION_TOKEN", "another's"),
        ("WALSEAL_KEYS_RECIPIENTS", "walseal1a"),
        ("WALSEAL_KEYS_WRITER_KEY_FILE", "/run/secrets/writer"),
    ]);
    let config = config.expect("a complete configuration");
    assert_eq!(config.need_repository().unwrap().to_string(), "s3://acme-pg/orders");
    assert_eq!(config.need_conninfo().unwrap().origin.to_string(), "DATABASE_URL");
    let credentials = config.s3_credentials().expect("a pair").expect("credentials");
    assert_eq!((credentials.access_key_id.as_str(), credentials.secret_access_key.expose()), ("S3ID", "hunter2"));
    assert_eq!(credentials.session_token, None, "a token of other credentials was mixed in");
    assert!(!format!("{config:?} {config:#?} {credentials:?}").contains("hunter2"));
}

#[test]
fn libpqs_variables_make_a_connection_and_fill_in_what_a_conninfo_leaves_out() {
    let config = from_environment(&[("PGHOST", "/run/postgresql"), ("PGPASSWORD", "hunter2"), ("PGDATA", "/x")]);
    let conninfo = config.expect("libpq's variables").need_conninfo().expect("a place");
    assert_eq!((conninfo.text.expose(), conninfo.origin.to_string().as_str()), ("", "PGHOST"));
    let pairs: Vec<_> = conninfo.defaults.iter().map(|default| (default.keyword, default.value.expose())).collect();
    assert_eq!(pairs, [("host", "/run/postgresql"), ("password", "hunter2")]);
    assert!(!format!("{conninfo:?}").contains("hunter2"));

    let config = from_environment(&[("PGHOST", "other"), ("WALSEAL_CLUSTER_CONNINFO", "host=here")]).unwrap();
    assert_eq!(config.need_conninfo().unwrap().text.expose(), "host=here");
    assert!(from_environment(&[("PGPASSWORD", "alone")]).unwrap().need_conninfo().is_err());
}

#[test]
fn credentials_come_from_files_and_never_half() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display().to_string();
    let id = ("WALSEAL_REPOSITORY_S3_ACCESS_KEY_ID", "ID");
    let file = ("WALSEAL_REPOSITORY_S3_SECRET_ACCESS_KEY_FILE", secret.as_str());
    let platform = ("AWS_SECRET_ACCESS_KEY", "another's");

    let found = from_environment(&[id, file, platform]).unwrap().s3_credentials().unwrap().expect("credentials");
    assert_eq!(found.secret_access_key.expose(), "hunter2");
    assert_eq!(from_environment(&[]).unwrap().s3_credentials().unwrap(), None);

    let error =
        |variables: &[(&str, &str)]| from_environment(variables).unwrap().s3_credentials().unwrap_err().to_string();
    assert_snapshot!(error(&[id, platform]), @"repository.s3.access_key_id (from WALSEAL_REPOSITORY_S3_ACCESS_KEY_ID) stands alone: repository.s3.secret_access_key (or …_file) is not set; set repository.s3.secret_access_key (or …_file) as well, or neither");
    assert_snapshot!(error(&[platform]), @"repository.s3.secret_access_key (from AWS_SECRET_ACCESS_KEY) stands alone: repository.s3.access_key_id is not set; set repository.s3.access_key_id as well, or neither");
    let both = error(&[id, file, ("WALSEAL_REPOSITORY_S3_SECRET_ACCESS_KEY", "hunter2")]);
    assert!(!both.contains("hunter2"));
    assert_snapshot!(both, @"repository.s3.secret_access_key (from WALSEAL_REPOSITORY_S3_SECRET_ACCESS_KEY) says the same as repository.s3.secret_access_key_file (from WALSEAL_REPOSITORY_S3_SECRET_ACCESS_KEY_FILE); set only one of them");
}

#[test]
fn relative_paths_start_at_the_configuration_files_folder() {
    let (folder, path) = with_file("keys.identity_files = [\"identity.key\", \"/abs.key\"]", 0o600);
    let mut sources = Sources::new(Environment::default());
    sources.config_flag = Some(path);
    let config = Config::load(&sources).unwrap();
    assert_eq!(
        config.need_identities().unwrap().value,
        [folder.path().join("identity.key"), PathBuf::from("/abs.key")]
    );
}

#[test]
fn control_variables_and_kubernetes_service_links_are_no_keys() {
    let names = [
        "WALSEAL_LOG",
        "WALSEAL_TOOLS",
        "WALSEAL_TEST_POSTGRES",
        "WALSEAL_BENCH_SIZE",
        "WALSEAL_ARCHIVER_SERVICE_HOST",
        "WALSEAL_ARCHIVER_SERVICE_PORT_METRICS",
        "WALSEAL_ARCHIVER_PORT",
        "WALSEAL_ARCHIVER_PORT_9187_TCP_ADDR",
    ];
    for name in names {
        assert!(from_environment(&[(name, "x")]).is_ok(), "{name} was refused");
    }
}

#[test]
fn names_are_derived_with_hyphens_as_underscores() {
    let config = Config::from_toml("[cluster]\nname = \"orders-eu\"").unwrap();
    assert_eq!(config.need_slot().unwrap(), "walseal_orders_eu");
    assert_eq!(config.need_application_name().unwrap(), "walseal_orders_eu");
    assert_eq!(config.need_state_dir().unwrap(), PathBuf::from("/var/lib/walseal/orders-eu"));
    let config = Config::from_toml("[cluster]\nname = \"orders-eu\"\nslot = \"mine\"").unwrap();
    assert_eq!(
        (config.need_slot().unwrap(), config.need_application_name().unwrap()),
        ("mine".into(), "walseal_orders_eu".into())
    );
}

#[test]
fn checks_may_stand_in_a_file_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (checks, main) = (folder.path().join("checks.toml"), folder.path().join("walseal.toml"));
    let check = |name: &str| format!("name = \"{name}\"\ndatabase = \"b\"\nsql = \"c\"\nexpect = \"1\"\n");
    std::fs::write(&main, format!("[drill]\nchecks_file = \"checks.toml\"\n[[drill.checks]]\n{}", check("a")))
        .expect("written");
    let mut sources = Sources::new(Environment::from_iter([("NOTHING", "")]));
    sources.config_flag = Some(main);
    let config = Config::load(&sources).expect("a configuration");
    let open = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&checks, text).expect("written");
        }
        config
            .open_checks()
            .map(|all| all.into_iter().map(|one| one.name).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    assert!(open(None).is_err_and(|why| why.contains("checks.toml cannot be read")));
    assert_eq!(open(Some("")), Ok(vec!["a".to_owned()]));
    assert_eq!(open(Some(&format!("[[checks]]\n{}", check("b")))), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert!(
        open(Some("checks = 1")).is_err_and(|why| why.contains("drill.checks_file") && why.contains("array of tables"))
    );
    assert!(open(Some("[drill]")).is_err_and(|why| why.contains("\"drill\" is not known; the file holds [[checks]]")));
}
