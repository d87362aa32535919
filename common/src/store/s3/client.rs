//! Building the SDK's client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig, retry::RetryConfig,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_types::service_config::ServiceConfigKey;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::failure::Failure;
use super::super::key::check_key;
use super::options::{S3Checksum, S3Credentials, S3Options};
use super::order::ListingOrder;
use super::whole::WholeAnswer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the idle times of usual servers, so that a connection they closed is rarely tried.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
/// What providers without regions expect.
const DEFAULT_REGION: &str = "us-east-1";

/// A client, and what could only be known when it was built.
pub(super) struct BuiltClient {
    pub(super) client: Client,
    /// The endpoint for messages; `None` for AWS.
    pub(super) endpoint: Option<String>,
    /// Never `Auto`.
    pub(super) checksum: S3Checksum,
    /// What is known of the order in which the server lists.
    pub(super) order: ListingOrder,
}

pub(super) async fn build(options: &S3Options) -> Result<BuiltClient, Failure> {
    check(options)?;
    let http = http_client(options)?;
    let (mut config, endpoint) = match &options.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            let token = session_token.as_ref().map(|token| token.expose().to_owned());
            let secret = secret_access_key.expose();
            let credentials = Credentials::new(access_key_id, secret, token, None, "walseal configuration");
            let config = Builder::new().behavior_version(BehaviorVersion::latest()).credentials_provider(credentials);
            (config, options.endpoint.clone())
        }
        S3Credentials::Chain { profile } => {
            let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
            if let Some(profile) = profile {
                loader = loader.profile_name(profile);
            }
            if let Some(region) = &options.region {
                loader = loader.region(Region::new(region.clone()));
            }
            let found = loader.load().await;
            let endpoint = options.endpoint.clone().or_else(|| endpoint_of(&found));
            (Builder::from(&found), endpoint)
        }
    };
    if let Some(region) = &options.region {
        config = config.region(Region::new(region.clone()));
    } else if endpoint.is_some() && !matches!(options.credentials, S3Credentials::Chain { .. }) {
        config = config.region(Region::new(DEFAULT_REGION));
    }
    if let Some(endpoint) = &endpoint {
        config = config.endpoint_url(endpoint);
    }
    let order = ListingOrder::default();
    let mut config = config
        .http_client(http)
        .interceptor(order.clone())
        .interceptor(WholeAnswer)
        .force_path_style(options.path_style.unwrap_or(endpoint.is_some()))
        // A decorator of ours retries, for every backend alike.
        .retry_config(RetryConfig::disabled())
        // Deadlines and the stall limit of reads stand in for it; it takes back-pressure for a stall.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        // The checksum that a put needs is set at the put; others confuse many providers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    if config.region().is_none() {
        if endpoint.is_none() {
            return Err(Failure::protocol(
                "no region is known; set repository.s3.region or AWS_REGION to the bucket's region",
            ));
        }
        config = config.to_builder().region(Region::new(DEFAULT_REGION)).build();
    }
    let checksum = match options.checksum {
        S3Checksum::Auto if endpoint.is_none() => S3Checksum::Crc32c,
        chosen => chosen,
    };
    Ok(BuiltClient { client: Client::from_conf(config), endpoint, checksum, order })
}

/// The endpoint that the environment or AWS's files name for S3, or else for every service, as the SDK looks for it. Who knows of none
/// would take the line for AWS's own.
fn endpoint_of(found: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok();
    let for_s3 = key.zip(found.service_config()).and_then(|(key, sources)| sources.load_config(key));
    for_s3.or_else(|| found.endpoint_url().map(str::to_owned))
}

fn check(options: &S3Options) -> Result<(), Failure> {
    if !options.prefix.is_empty() {
        check_key(&options.prefix).map_err(|why| Failure::protocol(format!("the prefix cannot be one: {why}")))?;
    }
    if let Some(endpoint) = &options.endpoint {
        // Not repeated where it may hold a password.
        if endpoint.contains('@') {
            return Err(Failure::protocol("the endpoint contains credentials; they do not belong there"));
        }
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Failure::protocol(format!(
                "the endpoint \"{endpoint}\" does not start with https:// or http://"
            )));
        }
    }
    if let S3Credentials::Static { access_key_id, secret_access_key, .. } = &options.credentials {
        // Either breaks the header that carries the signature; usually a line end from a file.
        for (what, text) in
            [("access key id", access_key_id.as_str()), ("secret access key", secret_access_key.expose())]
        {
            if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Failure::protocol(format!("the {what} is empty or contains white space")));
            }
        }
    }
    Ok(())
}

fn http_client(options: &S3Options) -> Result<SharedHttpClient, Failure> {
    let from_environment = || std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let plain = options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let trust = if let Some(path) = options.ca_file.clone().or_else(from_environment) {
        TrustStore::empty().with_pem_certificate(read_authorities(&path)?)
    } else if plain && matches!(options.credentials, S3Credentials::Static { .. }) {
        // Nothing is reached by TLS, so a machine without certificates will do.
        TrustStore::empty()
    } else {
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            return Err(Failure::protocol(
                "this machine has no certificate authorities to trust; install ca-certificates or name a PEM file in AWS_CA_BUNDLE",
            ));
        }
        TrustStore::default()
    };
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls = tls.map_err(|e| Failure::protocol(format!("could not set up TLS: {e}")))?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE_CONNECTION)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https())
}

/// The PEM file, after a look that it is one: the SDK panics at what it cannot parse.
fn read_authorities(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::protocol(format!("could not use the CA bundle {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM form".to_owned()));
    }
    Ok(pem)
}
