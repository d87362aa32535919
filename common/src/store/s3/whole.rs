//! Whether a listing came to its end.

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// Refuses a listing that ends before its last tag: the SDK takes what came until then for all there is, and names that a server or
/// something before it swallowed would look like a hole in the WAL, or like its end (I2, I6).
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeListing;

/// What a listing begins and ends with; the begin may have attributes.
const BEGIN: &[u8] = b"<ListBucketResult";
const END: &[u8] = b"</ListBucketResult>";

/// Bytes in which a listing begins: behind the XML declaration.
const HEAD: usize = 512;

impl Intercept for WholeListing {
    fn name(&self) -> &'static str {
        "WholeListing"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match context.response().body().bytes() {
            Some(body) if !is_whole(body) => Err("the listing ends before its last tag".into()),
            _ => Ok(()),
        }
    }
}

/// Whether a body is no listing, or one that ends.
fn is_whole(body: &[u8]) -> bool {
    let head = body.get(..HEAD).unwrap_or(body);
    !head.windows(BEGIN.len()).any(|window| window == BEGIN) || body.trim_ascii_end().ends_with(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_whole_when_its_last_tag_is_there() {
        let whole = |text: &str| is_whole(text.as_bytes());
        assert!(whole("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>a</Name></ListBucketResult>\n"));
        assert!(!whole("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>a</Name>"));
        assert!(!whole("<ListBucketResult></ListBucketResult"));
        assert!(whole("") && whole("<Error></Error>") && whole("an object"));
    }
}
