//! Writing objects: once, checked by the store, and confirmed.

use std::time::SystemTime;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ObjectLockMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::super::failure::Failure;
use super::super::{LARGEST_GET, PutOutcome, StoreErrorKind};
use super::S3Store;
use super::failure::{Refusal, failure, refusal};
use super::options::{LockMode, S3Checksum};

/// What may be wrong when an object with a lock is refused.
const NO_LOCK: &str =
    "; repository.s3.object_lock needs a bucket that was made with object lock enabled: make one, or leave the key out";

/// S3's limit.
const MOST_PARTS: u64 = 10_000;

/// Checksums of a body, in the forms that headers and answers have.
struct Checksums {
    crc32c: Option<String>,
    md5: Option<Md5Sum>,
}

struct Md5Sum {
    header: String,
    etag: String,
}

impl Checksums {
    /// What is sent of one kind; both as long as nobody knows which of them the store answers with.
    fn of(kind: S3Checksum, body: &[u8]) -> Checksums {
        let crc32c = || STANDARD.encode(crc32c::crc32c(body).to_be_bytes());
        let md5 = || {
            let digest = Md5::digest(body);
            let etag = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            Md5Sum { header: STANDARD.encode(digest), etag }
        };
        Checksums { crc32c: (kind != S3Checksum::ContentMd5).then(crc32c), md5: (kind != S3Checksum::Crc32c).then(md5) }
    }

    fn md5_header(&self) -> Option<String> {
        self.md5.as_ref().map(|md5| md5.header.clone())
    }

    /// Which checksum in the answer to a put proves that these bytes arrived.
    fn confirmed_by(&self, etag: Option<&str>, crc32c: Option<&str>) -> Option<S3Checksum> {
        if self.crc32c.is_some() && self.crc32c.as_deref() == crc32c {
            return Some(S3Checksum::Crc32c);
        }
        let same = |md5: &Md5Sum| etag.is_some_and(|etag| etag.trim_matches('"') == md5.etag);
        self.md5.as_ref().is_some_and(same).then_some(S3Checksum::ContentMd5)
    }
}

impl S3Store {
    pub(super) async fn put_once(&self, key: &str, body: Bytes) -> Result<PutOutcome, Failure> {
        let full = self.full_key(key)?;
        if !self.options().conditional_put && self.exists(&full).await? {
            return Ok(PutOutcome::AlreadyExists);
        }
        if body.len() as u64 > self.options().multipart_threshold {
            return self.put_in_parts(key, &full, body).await;
        }
        let kind = self.checksum();
        let sent = Checksums::of(kind, &body);
        match self.put_with(&sent, key, &full, &body).await? {
            Ok(answer) => match sent.confirmed_by(answer.e_tag(), answer.checksum_crc32_c()) {
                Some(known) => {
                    self.learn(known);
                    Ok(PutOutcome::Created)
                }
                None => {
                    self.learn(S3Checksum::ContentMd5);
                    self.confirm_by_reading(key, &full, &body).await
                }
            },
            Err(error) if kind == S3Checksum::Auto && refusal(&error).is_some_and(|why| why.dislikes_a_header()) => {
                // It may be that it does not know the newer one.
                self.learn(S3Checksum::ContentMd5);
                Box::pin(self.put_once(key, body)).await
            }
            Err(error) => match refusal(&error) {
                Some(refusal) => {
                    let locks = refusal.status == 400 && self.lock_of(key).is_some();
                    let otherwise = || {
                        let mut failure = failure(&error, self.place());
                        if locks {
                            failure.reason.push_str(NO_LOCK);
                        }
                        failure
                    };
                    self.refused(&refusal, &full, otherwise).await
                }
                None => Err(failure(&error, self.place())),
            },
        }
    }

    /// The lock of an object that is put now.
    fn lock_of(&self, key: &str) -> Option<(ObjectLockMode, DateTime)> {
        let lock = self.options().object_lock.as_ref().filter(|lock| lock.covers(key))?;
        let mode = match lock.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        Some((mode, DateTime::from(SystemTime::now() + lock.retain)))
    }

    async fn put_with(
        &self,
        sent: &Checksums,
        key: &str,
        full: &str,
        body: &Bytes,
    ) -> Result<Result<PutObjectOutput, SdkError<PutObjectError>>, Failure> {
        let (mode, until) = self.lock_of(key).unzip();
        let request = self
            .client()
            .put_object()
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .bucket(self.bucket())
            .key(full)
            .set_if_none_match(self.if_none_match())
            .set_content_md5(sent.md5_header())
            .set_checksum_crc32_c(sent.crc32c.clone())
            .content_type("application/octet-stream")
            .body(ByteStream::from(body.clone()));
        let mut request = request.customize();
        if self.vouches(sent) {
            request = request.disable_payload_signing();
        }
        self.in_time(body.len() as u64, request.send()).await
    }

    /// Whether the signature need not have a digest of the body, which costs as much as to encrypt it: nobody on the way changes
    /// what TLS carries, and MD5 in a signed header allows no other body either. CRC32C is easily forged.
    fn vouches(&self, sent: &Checksums) -> bool {
        let tls = self.inner.built.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https:"));
        tls || sent.md5.is_some()
    }

    fn if_none_match(&self) -> Option<String> {
        self.options().conditional_put.then(|| "*".to_owned())
    }

    /// What a refused put means.
    async fn refused(
        &self,
        refusal: &Refusal<'_>,
        full: &str,
        otherwise: impl FnOnce() -> Failure,
    ) -> Result<PutOutcome, Failure> {
        match refusal.status {
            412 => Ok(PutOutcome::AlreadyExists),
            // Another write of this name was under way. It may have failed since, so it proves nothing.
            409 => {
                if self.exists(full).await? {
                    return Ok(PutOutcome::AlreadyExists);
                }
                let reason = "another write of this name was under way and left nothing behind";
                Err(Failure::new(StoreErrorKind::Throttled, reason))
            }
            _ => Err(otherwise()),
        }
    }

    async fn exists(&self, full: &str) -> Result<bool, Failure> {
        match self.size(full).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == StoreErrorKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The last resort where a store's answer to a put has no checksum to compare: its bytes.
    async fn confirm_by_reading(&self, key: &str, full: &str, body: &Bytes) -> Result<PutOutcome, Failure> {
        tracing::debug!(key, "the answer to the put carries no known checksum; reading the object back");
        let same = if body.len() as u64 > LARGEST_GET {
            self.size(full).await? == body.len() as u64
        } else {
            self.read(key, None).await?.bytes == body
        };
        if same {
            return Ok(PutOutcome::Created);
        }
        Err(Failure::protocol(
            "the store accepted the object and holds other bytes than were sent; do not trust this store, and remove the object by hand",
        ))
    }

    async fn put_in_parts(&self, key: &str, full: &str, body: Bytes) -> Result<PutOutcome, Failure> {
        let length = body.len() as u64;
        // Parts cannot be sent again with another checksum.
        let kind = match self.checksum() {
            S3Checksum::Auto => S3Checksum::ContentMd5,
            known => known,
        };
        let part_size = self.options().part_size.max(length.div_ceil(MOST_PARTS)).max(1);
        let (mode, until) = self.lock_of(key).unzip();
        let request = self
            .client()
            .create_multipart_upload()
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .bucket(self.bucket())
            .key(full)
            .content_type("application/octet-stream")
            .set_checksum_algorithm(
                (kind == S3Checksum::Crc32c).then_some(aws_sdk_s3::types::ChecksumAlgorithm::Crc32C),
            );
        let upload = match self.in_time(0, request.send()).await? {
            Ok(answer) => answer.upload_id.ok_or_else(|| Failure::protocol("the multipart upload has no id"))?,
            Err(error) => return Err(failure(&error, self.place())),
        };
        let outcome = match self.put_parts(full, &upload, &body, part_size, kind).await {
            Ok(parts) => self.complete(full, &upload, parts, length).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(PutOutcome::Created) => {
                let stored = self.size(full).await?;
                if stored == length {
                    return Ok(PutOutcome::Created);
                }
                Err(Failure::protocol(format!("{length} bytes were sent in parts and {stored} are stored")))
            }
            other => {
                self.abort(key, full, &upload).await;
                other
            }
        }
    }

    async fn put_parts(
        &self,
        full: &str,
        upload: &str,
        body: &Bytes,
        part_size: u64,
        kind: S3Checksum,
    ) -> Result<Vec<CompletedPart>, Failure> {
        let mut parts = Vec::new();
        let mut rest = body.clone();
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(usize::try_from(part_size).unwrap_or(usize::MAX)));
            let number = i32::try_from(parts.len() + 1).map_err(|_| Failure::protocol("too many parts"))?;
            let checksum = Checksums::of(kind, &part);
            let request = self
                .client()
                .upload_part()
                .bucket(self.bucket())
                .key(full)
                .upload_id(upload)
                .part_number(number)
                .set_content_md5(checksum.md5_header())
                .set_checksum_crc32_c(checksum.crc32c.clone())
                .body(ByteStream::from(part.clone()));
            let mut request = request.customize();
            if self.vouches(&checksum) {
                request = request.disable_payload_signing();
            }
            let answer = self.in_time(part.len() as u64, request.send()).await?;
            let answer = answer.map_err(|error| failure(&error, self.place()))?;
            // There is nothing to read back yet, so a part without a known checksum rests on the header
            // that the store had to check, and on the size of the whole.
            if checksum.confirmed_by(answer.e_tag(), answer.checksum_crc32_c()).is_none() {
                tracing::debug!(part = number, "the answer to the part carries no known checksum");
            }
            parts.push(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(answer.e_tag)
                    .set_checksum_crc32_c(answer.checksum_crc32_c)
                    .build(),
            );
        }
        Ok(parts)
    }

    async fn complete(
        &self,
        full: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
        length: u64,
    ) -> Result<PutOutcome, Failure> {
        let request = self
            .client()
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(full)
            .upload_id(upload)
            .set_if_none_match(self.if_none_match())
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        // The store may put the parts together before it answers.
        match self.in_time(length, request.send()).await? {
            Ok(_) => Ok(PutOutcome::Created),
            Err(error) => match refusal(&error) {
                Some(refusal) => self.refused(&refusal, full, || failure(&error, self.place())).await,
                None => Err(failure(&error, self.place())),
            },
        }
    }

    async fn abort(&self, key: &str, full: &str, upload: &str) {
        let request = self.client().abort_multipart_upload().bucket(self.bucket()).key(full).upload_id(upload);
        let failed = match self.in_time(0, request.send()).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => failure(&error, self.place()),
            Err(failure) => failure,
        };
        tracing::warn!(
            key,
            reason = failed.reason,
            "could not abort a multipart upload; its parts cost until a bucket rule ends it"
        );
    }
}
