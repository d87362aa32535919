//! Object lock: what keeps an object that is there from being removed, and legal holds.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus};

use super::super::failure::Failure;
use super::super::{Lock, StoreErrorKind};
use super::S3Store;
use super::failure::{Refusal, failure, refusal};

/// What may be wrong when a lock is not told.
const MAY_NOT_KNOW: &str = "; a plain delete would hide a locked object, so nothing is removed without knowing: allow \
                            s3:GetObjectRetention and s3:GetObjectLegalHold, as `walseal-archiver init --print-policy pruner` prints";

/// Whether a refusal is the answer: the server does not know the question, the bucket has no object lock, or these credentials may
/// not ask. A clock, a token, a request on its way that is wrong is none: with it put right, the answer may be another.
fn answers(refusal: &Refusal<'_>, kind: StoreErrorKind) -> bool {
    let asked = match kind {
        StoreErrorKind::NotFound | StoreErrorKind::Protocol => true,
        StoreErrorKind::Denied => matches!(refusal.code, "" | "AccessDenied" | "Forbidden" | "MethodNotAllowed"),
        _ => false,
    };
    asked && matches!(refusal.status, 400..=405 | 501)
}

impl S3Store {
    /// Whether the bucket has object lock: because the configuration says so, or else because the bucket does. One that does not know
    /// the question, or does not answer it to these credentials, has none.
    pub(super) async fn bucket_locks(&self) -> Result<bool, Failure> {
        if self.options().object_lock.is_some() {
            return Ok(true);
        }
        let request = self.client().get_object_lock_configuration().bucket(self.bucket());
        match self.in_time(0, request.send()).await? {
            Ok(answer) => {
                let enabled = answer.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
                Ok(enabled == Some(&ObjectLockEnabled::Enabled))
            }
            Err(error) => {
                let failure = failure(&error, self.place());
                if refusal(&error).is_some_and(|refusal| answers(&refusal, failure.kind)) {
                    tracing::debug!(reason = failure.reason, "the bucket does not say that it has object lock");
                    return Ok(false);
                }
                Err(failure)
            }
        }
    }

    /// The retention of an object, and its legal hold.
    pub(super) async fn read_lock(&self, key: &str) -> Result<Lock, Failure> {
        let full = self.full_key(key)?;
        let request = self.client().get_object_retention().bucket(self.bucket()).key(&full);
        let answer = self.in_time(0, request.send()).await?;
        let answer = self.unless_none(answer)?;
        let until = answer.and_then(|answer| Some(answer.retention()?.retain_until_date()?.secs()));
        let request = self.client().get_object_legal_hold().bucket(self.bucket()).key(&full);
        let answer = self.in_time(0, request.send()).await?;
        let answer = self.unless_none(answer)?;
        let status = answer.and_then(|answer| answer.legal_hold()?.status().cloned());
        Ok(Lock { until, held: status == Some(ObjectLockLegalHoldStatus::On) })
    }

    /// An answer; none where there is nothing to tell (`NoSuchObjectLockConfiguration`), or no such object.
    fn unless_none<T, E>(&self, answer: Result<T, SdkError<E>>) -> Result<Option<T>, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        let mut failure = failure(&error, self.place());
        match failure.kind {
            StoreErrorKind::NotFound => return Ok(None),
            StoreErrorKind::Denied => failure.reason.push_str(MAY_NOT_KNOW),
            _ => {}
        }
        Err(failure)
    }

    /// Sets or lifts a legal hold.
    pub(super) async fn hold(&self, key: &str, held: bool) -> Result<(), Failure> {
        let full = self.full_key(key)?;
        let status = if held { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let request = self.client().put_object_legal_hold().bucket(self.bucket()).key(&full).legal_hold(hold);
        match self.in_time(0, request.send()).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(&error, self.place())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_question_itself_says_that_there_is_no_object_lock() {
        use StoreErrorKind as Kind;
        for (status, code, kind, answered) in [
            (404, "ObjectLockConfigurationNotFoundError", Kind::NotFound, true),
            (404, "NoSuchBucket", Kind::NoSuchStore, false),
            (403, "AccessDenied", Kind::Denied, true),
            (403, "RequestTimeTooSkewed", Kind::Denied, false),
            (400, "ExpiredToken", Kind::Denied, false),
            (400, "RequestTimeout", Kind::Unreachable, false),
            (405, "MethodNotAllowed", Kind::Protocol, true),
            (501, "NotImplemented", Kind::Protocol, true),
            (503, "SlowDown", Kind::Throttled, false),
        ] {
            assert_eq!(answers(&Refusal { status, code }, kind), answered, "{status} {code}");
        }
    }
}
