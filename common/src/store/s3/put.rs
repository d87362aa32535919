//! Writing objects: once, checked by the store, and confirmed.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::super::failure::Failure;
use super::super::{LARGEST_GET, PutOutcome, StoreErrorKind};
use super::S3Store;
use super::failure::{Refusal, failure, refusal};
use super::options::S3Checksum;

/// S3's limit.
const MOST_PARTS: u64 = 10_000;

/// The checksum of a body, in the forms that headers and answers have.
enum Checksum {
    Crc32c { header: String },
    Md5 { header: String, etag: String },
}

impl Checksum {
    fn of(kind: S3Checksum, body: &[u8]) -> Checksum {
        match kind {
            S3Checksum::Crc32c => Checksum::Crc32c { header: STANDARD.encode(crc32c::crc32c(body).to_be_bytes()) },
            S3Checksum::ContentMd5 | S3Checksum::Auto => {
                let digest = Md5::digest(body);
                let etag = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                Checksum::Md5 { header: STANDARD.encode(digest), etag }
            }
        }
    }

    fn md5(&self) -> Option<String> {
        if let Checksum::Md5 { header, .. } = self { Some(header.clone()) } else { None }
    }

    fn crc32c(&self) -> Option<String> {
        if let Checksum::Crc32c { header } = self { Some(header.clone()) } else { None }
    }

    /// Whether the answer to a put proves that these bytes arrived.
    fn confirmed_by(&self, etag: Option<&str>, crc32c: Option<&str>) -> bool {
        match self {
            Checksum::Crc32c { header } => crc32c == Some(header),
            Checksum::Md5 { etag: expected, .. } => etag.is_some_and(|etag| etag.trim_matches('"') == expected),
        }
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
        let checksum = Checksum::of(self.checksum(), &body);
        let request = self
            .client()
            .put_object()
            .bucket(self.bucket())
            .key(&full)
            .set_if_none_match(self.if_none_match())
            .set_content_md5(checksum.md5())
            .set_checksum_crc32_c(checksum.crc32c())
            .content_type("application/octet-stream")
            .body(ByteStream::from(body.clone()));
        match self.in_time(body.len() as u64, request.send()).await? {
            Ok(answer) if checksum.confirmed_by(answer.e_tag(), answer.checksum_crc32_c()) => Ok(PutOutcome::Created),
            Ok(_) => self.confirm_by_reading(key, &full, &body).await,
            Err(error) => match refusal(&error) {
                Some(refusal) => self.refused(&refusal, &full, || failure(&error, self.place())).await,
                None => Err(failure(&error, self.place())),
            },
        }
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
        let part_size = self.options().part_size.max(length.div_ceil(MOST_PARTS)).max(1);
        let request = self
            .client()
            .create_multipart_upload()
            .bucket(self.bucket())
            .key(full)
            .content_type("application/octet-stream")
            .set_checksum_algorithm(
                (self.checksum() == S3Checksum::Crc32c).then_some(aws_sdk_s3::types::ChecksumAlgorithm::Crc32C),
            );
        let upload = match self.in_time(0, request.send()).await? {
            Ok(answer) => answer.upload_id.ok_or_else(|| Failure::protocol("the multipart upload has no id"))?,
            Err(error) => return Err(failure(&error, self.place())),
        };
        let outcome = match self.put_parts(full, &upload, &body, part_size).await {
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
    ) -> Result<Vec<CompletedPart>, Failure> {
        let mut parts = Vec::new();
        let mut rest = body.clone();
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(usize::try_from(part_size).unwrap_or(usize::MAX)));
            let number = i32::try_from(parts.len() + 1).map_err(|_| Failure::protocol("too many parts"))?;
            let checksum = Checksum::of(self.checksum(), &part);
            let request = self
                .client()
                .upload_part()
                .bucket(self.bucket())
                .key(full)
                .upload_id(upload)
                .part_number(number)
                .set_content_md5(checksum.md5())
                .set_checksum_crc32_c(checksum.crc32c())
                .body(ByteStream::from(part.clone()));
            let answer = self.in_time(part.len() as u64, request.send()).await?;
            let answer = answer.map_err(|error| failure(&error, self.place()))?;
            // There is nothing to read back yet, so a part without a known checksum rests on the header
            // that the store had to check, and on the size of the whole.
            if !checksum.confirmed_by(answer.e_tag(), answer.checksum_crc32_c()) {
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
