//! Building the SDK's client.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig, retry::RetryConfig,
};
use aws_types::service_config::ServiceConfigKey;

use super::super::failure::Failure;
use super::super::key::check_key;
use super::http;
use super::options::{S3Checksum, S3Credentials, S3Options};
use super::order::ListingOrder;
use super::whole::WholeAnswer;

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
    let http = http::client(options)?;
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
