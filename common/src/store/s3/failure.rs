//! What an answer of an S3 server, or none, means to a caller.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::StoreErrorKind;
use super::super::failure::Failure;

/// Longest text of a server that is repeated in a message, in characters.
const LONGEST_QUOTE: usize = 300;

/// How the server refused, as far as its answer can be read: the HTTP status and S3's error code.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) code: &'a str,
}

impl Refusal<'_> {
    /// Whether it may be that a header is not known there.
    pub(super) fn dislikes_a_header(&self) -> bool {
        matches!(self.status, 400 | 501)
    }
}

/// The server's refusal; `None` when there is no answer.
pub(super) fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Refusal<'_>> {
    let status = error.raw_response()?.status().as_u16();
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
    Some(Refusal { status, code })
}

/// The failure that `error` is. `place` is the endpoint, for messages.
pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>, place: &str) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let Some(Refusal { status, code }) = refusal(error) else { return no_answer(error, place) };
    if (200..300).contains(&status) {
        // A server that ends, or comes up, under a request; of a put nobody knows what became.
        let why = chain(error);
        let reason = format!(
            "{place} answered {status}, and what it sent cannot be read: {why}; it broke off, or nobody speaks S3 there"
        );
        return Failure::new(StoreErrorKind::Unreachable, reason);
    }
    let (kind, hint) = judge(status, code);
    let said = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    let name = if code.is_empty() { "no code" } else { code };
    let mut reason = format!("{place} answered {status} ({name})");
    if !said.is_empty() {
        reason.push_str(": ");
        reason.push_str(quote(said).trim_end_matches('.'));
    }
    if !hint.is_empty() {
        reason.push_str("; ");
        reason.push_str(hint);
    }
    Failure::new(kind, reason)
}

/// The kind of a refusal, and what to do about it. S3's error codes: "Error responses" in its API reference.
fn judge(status: u16, code: &str) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind as Kind;
    match code {
        "NoSuchKey" | "NotFound" => return (Kind::NotFound, ""),
        "NoSuchBucket" => return (Kind::NoSuchStore, "check the bucket's name and the region, or make the bucket"),
        "InvalidAccessKeyId" => {
            return (Kind::Denied, "the access key id is not known there; check it and the endpoint");
        }
        "SignatureDoesNotMatch" => {
            return (Kind::Denied, "the secret access key does not fit the access key id; check both, and the region");
        }
        "RequestTimeTooSkewed" | "RequestExpired" => return (Kind::Denied, "set this machine's clock"),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            return (Kind::Denied, "the session token is not valid any more; get new credentials");
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => {
            return (Kind::Denied, "the bucket is probably in another region; set repository.s3.region");
        }
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "Busy"
        | "RequestThrottled"
        | "ServiceUnavailable" => return (Kind::Throttled, ""),
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientCapacity"
        | "InsufficientStorage" => return (Kind::Full, "make space or raise the quota there"),
        // Bytes that were lost or changed on the way; the next attempt may fare better.
        "RequestTimeout"
        | "IncompleteBody"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => {
            return (Kind::Unreachable, "the body did not arrive as it was sent");
        }
        _ => {}
    }
    match status {
        404 => (Kind::NotFound, ""),
        401 | 403 => (
            Kind::Denied,
            "check the access key id, its secret and this machine's clock, and that the key may put, get and list in this bucket",
        ),
        429 | 503 => (Kind::Throttled, ""),
        507 => (Kind::Full, "make space or raise the quota there"),
        408 => (Kind::Unreachable, ""),
        500..=599 if status != 501 => {
            (Kind::Unreachable, "its own log says why; some stores answer so when their disk is full")
        }
        301 | 302 | 307 | 308 => (Kind::Denied, "the bucket is probably in another region; set repository.s3.region"),
        501 => (Kind::Protocol, "the store lacks something that walseal needs"),
        _ => (Kind::Protocol, ""),
    }
}

fn no_answer<E>(error: &SdkError<E, HttpResponse>, place: &str) -> Failure
where
    E: std::error::Error + Send + Sync + 'static,
{
    let chain = chain(error);
    // The SDK wraps the credentials' failures like those of connections.
    let about_credentials = sources(error).any(|source| {
        let text = source.to_string();
        text.contains("credential") || text.contains("identity")
    });
    match error {
        _ if about_credentials => Failure::new(
            StoreErrorKind::Denied,
            format!(
                "no usable credentials were found ({chain}); set repository.s3.access_key_id and secret_access_key_file (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or give this machine a role or a profile"
            ),
        ),
        SdkError::ConstructionFailure(_) => Failure::protocol(format!("the request could not be made: {chain}")),
        SdkError::DispatchFailure(_) if chain.contains("ertificate") => Failure::new(
            StoreErrorKind::Unreachable,
            format!(
                "no trust in the certificate of {place} ({chain}); name a PEM file of its authorities in repository.s3.ca_file"
            ),
        ),
        SdkError::DispatchFailure(_) => {
            let hint = if chain.contains("InvalidContentType") {
                "nobody speaks TLS there; is repository.s3.endpoint an http:// one?"
            } else {
                "check repository.s3.endpoint, and that this host reaches it"
            };
            Failure::new(StoreErrorKind::Unreachable, format!("no answer from {place}: {chain}; {hint}"))
        }
        _ => Failure::new(StoreErrorKind::Unreachable, format!("no answer from {place}: {chain}")),
    }
}

fn sources(error: &dyn std::error::Error) -> impl Iterator<Item = &dyn std::error::Error> {
    std::iter::successors(error.source(), |error| error.source())
}

/// What the SDK and its HTTP client put around what the system says; beside that it tells a person nothing.
const WRAPPERS: [&str; 4] = ["dispatch failure", "io error", "client error (Connect)", "tcp connect error"];

/// An error and what caused it, from the outside in, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    for source in sources(error).map(ToString::to_string) {
        // Many wrappers repeat what they wrap.
        if !texts.iter().any(|text| text.contains(&source)) {
            texts.push(source);
        }
    }
    let last = texts.len().saturating_sub(1);
    let telling = texts.iter().enumerate().filter(|(at, text)| *at == last || !WRAPPERS.contains(&text.as_str()));
    quote(&telling.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(": "))
}

/// Text from outside, short and on one line.
pub(super) fn quote(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.take(LONGEST_QUOTE).collect();
    if text.chars().nth(LONGEST_QUOTE).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_code_first_and_by_status_then() {
        use StoreErrorKind as Kind;
        for (status, code, kind) in [
            (404, "NoSuchKey", Kind::NotFound),
            (404, "NoSuchBucket", Kind::NoSuchStore),
            (404, "", Kind::NotFound),
            (403, "InvalidAccessKeyId", Kind::Denied),
            (403, "QuotaExceeded", Kind::Full),
            (403, "", Kind::Denied),
            (400, "ExpiredToken", Kind::Denied),
            (400, "BadDigest", Kind::Unreachable),
            (400, "InvalidArgument", Kind::Protocol),
            (503, "SlowDown", Kind::Throttled),
            (503, "", Kind::Throttled),
            (429, "", Kind::Throttled),
            (500, "InternalError", Kind::Unreachable),
            (502, "", Kind::Unreachable),
            (501, "NotImplemented", Kind::Protocol),
            (507, "", Kind::Full),
            (301, "", Kind::Denied),
        ] {
            assert_eq!(judge(status, code).0, kind, "{status} {code}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn a_person_reads_what_the_system_said_and_not_what_was_wrapped_around_it() {
        let wrapped = |inner| {
            let inner = Layer("tcp connect error", Some(Box::new(Layer(inner, None))));
            Layer("dispatch failure", Some(Box::new(Layer("client error (Connect)", Some(Box::new(inner))))))
        };
        assert_eq!(chain(&wrapped("Connection refused (os error 111)")), "Connection refused (os error 111)");
        assert_eq!(chain(&Layer("dispatch failure", None)), "dispatch failure", "better than nothing");
        let other =
            Layer("dispatch failure", Some(Box::new(Layer("dns error", Some(Box::new(Layer("no such host", None)))))));
        assert_eq!(chain(&other), "dns error: no such host");
    }

    #[test]
    fn what_a_server_says_is_cut_and_kept_on_one_line() {
        assert_eq!(quote("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), LONGEST_QUOTE + 1);
    }
}
