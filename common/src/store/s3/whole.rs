//! Whether an answer came to its end.

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// Refuses answers that end before their last tag: the SDK takes what came until then for all there is. Names that a server or
/// something before it swallowed would look like a hole in the WAL, or like its end (I2, I6), and a locked object like one that is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeAnswer;

/// Those of which a missing part would look like another answer.
const ROOTS: [&[u8]; 4] = [b"ListBucketResult", b"Retention", b"LegalHold", b"ObjectLockConfiguration"];

/// Bytes in which an answer begins: behind the XML declaration.
const HEAD: usize = 512;

impl Intercept for WholeAnswer {
    fn name(&self) -> &'static str {
        "WholeAnswer"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match context.response().body().bytes() {
            Some(body) if !is_whole(body) => Err("the answer ends before its last tag".into()),
            _ => Ok(()),
        }
    }
}

/// Whether a body is another than those that are looked at, or one that ends.
fn is_whole(body: &[u8]) -> bool {
    let Some((root, rest)) = root(body) else { return true };
    let Some(name) = ROOTS.into_iter().find(|name| *name == root) else { return true };
    let body = body.trim_ascii_end();
    let closed =
        body.strip_suffix(b">").and_then(|body| body.strip_suffix(name)).is_some_and(|body| body.ends_with(b"</"));
    // An element without content closes itself.
    closed || (body.ends_with(b"/>") && !rest.contains(&b'<'))
}

/// The name of the first element, and what follows it.
fn root(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let head = body.get(from..body.len().min(HEAD))?;
        let name = head.get(head.iter().position(|byte| *byte == b'<')? + 1..)?;
        let length = name.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(name.len());
        let at = body.len().min(HEAD) - name.len();
        if length > 0 {
            return Some((name.get(..length)?, body.get(at + length..)?));
        }
        // A declaration or a comment.
        from = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_last_tag_is_there() {
        let whole = |text: &str| is_whole(text.as_bytes());
        assert!(whole("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>a</Name></ListBucketResult>\n"));
        assert!(!whole("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>a</Name>"));
        assert!(
            !whole("<ListBucketResult></ListBucketResult") && !whole("<ListBucketResult") && !whole("<Retention xmlns")
        );
        assert!(
            whole("<Retention><Mode>COMPLIANCE</Mode></Retention>") && !whole("<Retention><Mode>COMPLIANCE</Mode>")
        );
        assert!(whole("<LegalHold/>") && whole("<LegalHold xmlns=\"x\" />") && !whole("<LegalHold><Status/>"));
        assert!(!whole("<!-- a --><ObjectLockConfiguration><ObjectLockEnabled>"));
        assert!(
            whole("")
                && whole("<Error></Error>")
                && whole("an object")
                && whole("<Error>")
                && whole("<")
                && whole("<?")
        );
    }
}
