//! In which order a server lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// Whether a server lists as S3 does, in byte order of whole keys, or folder by folder, `a/b` before `a.b`.
///
/// SeaweedFS does the latter, and then skips by byte order where a page starts, so that keys can be missing
/// without a sign. It is known by its name, in the `Server` header of every answer.
#[derive(Clone, Debug, Default)]
pub(super) struct ListingOrder {
    by_folder: Arc<AtomicBool>,
}

impl ListingOrder {
    pub(super) fn is_by_folder(&self) -> bool {
        self.by_folder.load(Ordering::Relaxed)
    }

    pub(super) fn set_by_folder(&self) {
        self.by_folder.store(true, Ordering::Relaxed);
    }
}

impl Intercept for ListingOrder {
    fn name(&self) -> &'static str {
        "ListingOrder"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().headers().get("server").is_some_and(|server| server.starts_with("SeaweedFS")) {
            self.set_by_folder();
        }
        Ok(())
    }
}
