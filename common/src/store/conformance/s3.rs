//! What only a store on S3 can get wrong, against a real server.

use super::*;

/// The options for a prefix of its own on the test server.
pub(super) fn options(test: &str) -> S3Options {
    let setting = |name: &str| {
        let variable = format!("WALSEAL_TEST_S3_{name}");
        std::env::var(&variable).unwrap_or_else(|_| {
            panic!(
                "{variable} is not set; scripts/test sets it. By hand, from the repository's root:\n  \
                 scripts/s3-server start /tmp/walseal-s3 && set -a && \
                 . <(sed s/^S3_/WALSEAL_TEST_S3_/ /tmp/walseal-s3/env) && set +a"
            )
        })
    };
    let credentials = S3Credentials::Static {
        access_key_id: setting("ACCESS_KEY_ID"),
        secret_access_key: Secret::new(setting("SECRET_ACCESS_KEY")),
        session_token: None,
    };
    let unique = getrandom::u64().expect("random bytes");
    S3Options {
        endpoint: Some(setting("ENDPOINT")),
        region: Some(setting("REGION")),
        ca_file: std::env::var_os("WALSEAL_TEST_S3_CA_FILE").map(Into::into),
        ..S3Options::new(setting("BUCKET"), format!("test/{test}-{unique:016x}"), credentials)
    }
}

pub(super) async fn subject(test: &str) -> Subject {
    Subject { store: store(options(test)).await, _folder: None }
}

async fn store(options: S3Options) -> Store {
    Arc::new(S3Store::new(options).await.expect("usable options"))
}

fn with_credentials(test: &str, change: impl FnOnce(&mut String, &mut Secret)) -> S3Options {
    let mut options = options(test);
    if let S3Credentials::Static { access_key_id, secret_access_key, .. } = &mut options.credentials {
        change(access_key_id, secret_access_key);
    }
    options
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_the_message_says_which() {
    let wrong_secret = with_credentials("denied", |_, secret| *secret = Secret::new("hunter2hunter2"));
    let wrong_id = with_credentials("denied", |id, _| *id = "AKIANOBODY".to_owned());
    for (options, part) in [(wrong_secret, "secret access key does not fit"), (wrong_id, "access key id is not known")]
    {
        let store = store(options).await;
        let errors = [
            store.put_new("a", Bytes::from_static(b"x")).await.expect_err("denied"),
            store.get("a").await.expect_err("denied"),
            store.list("", None, 1).await.expect_err("denied"),
            store.delete("a").await.expect_err("denied"),
        ];
        for error in errors {
            assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
            assert!(error.is_permanent());
            assert!(error.reason.contains(part), "{error}");
            assert!(!format!("{error} {error:?} {store:?}").contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn secrets_are_in_no_debug_output() {
    let options = options("debug");
    let S3Credentials::Static { access_key_id, secret_access_key, .. } = options.credentials.clone() else {
        panic!("the tests use a key pair")
    };
    let shown = format!("{options:?} {:?}", store(options.clone()).await);
    assert!(!shown.contains(secret_access_key.expose()), "{shown}");
    assert!(!shown.contains(&access_key_id), "{shown}");
}

#[tokio::test]
async fn a_missing_bucket_is_no_store() {
    let unique = getrandom::u64().expect("random bytes");
    let store = store(S3Options { bucket: format!("no-such-bucket-{unique:016x}"), ..options("bucket") }).await;
    for error in [
        store.put_new("a", Bytes::from_static(b"x")).await.expect_err("no bucket"),
        store.get("a").await.expect_err("no bucket"),
        store.list("", None, 1).await.expect_err("no bucket"),
    ] {
        assert_eq!(error.kind, StoreErrorKind::NoSuchStore, "{error}");
    }
}

#[tokio::test]
async fn prefixes_in_one_bucket_do_not_see_each_other() {
    let options = options("beside");
    let other = S3Options { prefix: format!("{}x", options.prefix), ..options.clone() };
    let (one, other) = (store(options).await, store(other).await);
    put(&one, "a", "1").await;
    put(&other, "a", "2").await;
    put(&other, "b", "2").await;
    assert_eq!(all_keys(&one, "", 1).await, ["a"]);
    assert_eq!(one.get("a").await.expect("get"), "1");
    assert_eq!(other.get("a").await.expect("get"), "2");
}

#[tokio::test]
async fn case_42_the_probe_knows_this_server() {
    let store = store(options("probe")).await;
    let seen = probe(store.as_ref(), "1").await.expect("probe");
    assert_eq!(seen, Capabilities { conditional_put: true, delete: true });
}

#[tokio::test]
async fn case_42_without_conditional_puts_a_put_looks_first() {
    let store = store(S3Options { conditional_put: false, ..options("looking") }).await;
    an_object_is_written_once_and_read_back(store.clone()).await;
    what_is_not_there_is_not_found(store).await;
}

#[tokio::test]
async fn case_35_every_kind_of_checksum_confirms_a_put() {
    for checksum in [S3Checksum::Crc32c, S3Checksum::ContentMd5] {
        let store = store(S3Options { checksum, ..options("checksum") }).await;
        an_object_is_written_once_and_read_back(store.clone()).await;
        put(&store, "size/0", "").await;
        put(&store, "size/1", bytes_of(1_000_000)).await;
        assert_eq!(store.get("size/1").await.expect("get"), bytes_of(1_000_000));
    }
}

// One after the other: writers in parts at the same moment are not told apart by every server (docs/PROVIDERS.md), and
// no object of a repository is large enough to need parts.
#[tokio::test]
async fn large_bodies_go_up_in_parts_and_still_only_once() {
    for checksum in [S3Checksum::Crc32c, S3Checksum::ContentMd5] {
        let parts = S3Options { checksum, multipart_threshold: 5 << 20, part_size: 5 << 20, ..options("parts") };
        let store = store(parts).await;
        let body = bytes_of((12 << 20) + 1);
        assert_eq!(put(&store, "large", body.clone()).await, PutOutcome::Created);
        assert!(store.get("large").await.expect("get") == body);
        assert_eq!(put(&store, "large", bytes_of(11 << 20)).await, PutOutcome::AlreadyExists);
        assert!(store.get("large").await.expect("get") == body);
    }
}

/// Runs this very test in a process of its own with other variables, since those of a process are shared by its
/// threads. `None` in the child.
fn in_a_child(test: &str, variables: &[(&str, &str)]) -> Option<std::process::Output> {
    const MARK: &str = "WALSEAL_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return None;
    }
    let own = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"];
    let mut command = std::process::Command::new(std::env::current_exe().expect("this test's program"));
    command.args(["--exact", &format!("store::conformance::s3::{test}"), "--nocapture"]);
    for name in own {
        command.env_remove(name);
    }
    command.env(MARK, "1").env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
    Some(command.envs(variables.iter().copied()).output().expect("a child process"))
}

#[tokio::test]
async fn the_standard_chain_finds_credentials_in_the_environment() {
    let known = options("chain");
    let S3Credentials::Static { access_key_id, secret_access_key, .. } = &known.credentials else {
        panic!("the tests use a key pair")
    };
    let variables =
        [("AWS_ACCESS_KEY_ID", access_key_id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret_access_key.expose())];
    let name = "the_standard_chain_finds_credentials_in_the_environment";
    if let Some(output) = in_a_child(name, &variables) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let chain = S3Options { credentials: S3Credentials::Chain { profile: None }, region: None, ..known.clone() };
    an_object_is_written_once_and_read_back(store(chain).await).await;
}

#[tokio::test]
async fn the_standard_chain_finds_the_endpoint_that_a_profile_names_for_s3() {
    let known = options("profile");
    let S3Credentials::Static { access_key_id, secret_access_key, .. } = &known.credentials else {
        panic!("the tests use a key pair")
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config");
    let (endpoint, secret) = (known.endpoint.clone().expect("an endpoint"), secret_access_key.expose());
    let text = format!(
        "[profile own]\nservices = here\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret}\nregion = us-east-1\n\
         [services here]\ns3 =\n  endpoint_url = {endpoint}\n"
    );
    std::fs::write(&file, text).expect("write");
    let name = "the_standard_chain_finds_the_endpoint_that_a_profile_names_for_s3";
    if let Some(output) = in_a_child(name, &[("AWS_CONFIG_FILE", file.to_str().expect("a path"))]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let credentials = S3Credentials::Chain { profile: Some("own".to_owned()) };
    let chain = S3Options { credentials, endpoint: None, region: None, ..known.clone() };
    // The bucket stands in the path then, as with an endpoint of the configuration.
    an_object_is_written_once_and_read_back(store(chain).await).await;
}

#[tokio::test]
async fn without_any_credentials_the_message_says_which_to_set() {
    let known = options("nobody");
    if let Some(output) = in_a_child("without_any_credentials_the_message_says_which_to_set", &[]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let nobody = S3Options { credentials: S3Credentials::Chain { profile: None }, ..known };
    let error = store(nobody).await.get("a").await.expect_err("nobody");
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(error.reason.contains("AWS_ACCESS_KEY_ID"), "{error}");
}
