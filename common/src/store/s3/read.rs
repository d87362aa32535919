//! Reading objects.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;
use tokio::time::timeout;

use super::super::failure::Failure;
use super::super::{LARGEST_GET, RangeBody, StoreErrorKind};
use super::S3Store;
use super::failure::{chain, failure, refusal};

impl S3Store {
    pub(super) async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<RangeBody, Failure> {
        let full = self.full_key(key)?;
        if let Some(range) = range.as_ref().filter(|range| range.start >= range.end || range.start > i64::MAX as u64) {
            // HTTP has no word for an empty range, but the object must be there.
            tracing::trace!(key, ?range, "nothing to read but the size");
            return Ok(RangeBody { bytes: Bytes::new(), object_size: self.size(&full).await? });
        }
        let header = range.as_ref().map(|range| match range.end {
            end if end > i64::MAX as u64 => format!("bytes={}-", range.start),
            end => format!("bytes={}-{}", range.start, end - 1),
        });
        let request = self.client().get_object().bucket(self.bucket()).key(&full).set_range(header);
        let answer = match self.in_time(0, request.send()).await? {
            Ok(answer) => answer,
            Err(error) if range.is_some() && refusal(&error).is_some_and(|refusal| refusal.status == 416) => {
                return Ok(RangeBody { bytes: Bytes::new(), object_size: self.size(&full).await? });
            }
            Err(error) => return Err(failure(&error, self.place())),
        };
        self.is_of_an_object(answer.e_tag(), answer.last_modified())?;
        let wanted = range.unwrap_or(0..u64::MAX);
        match answer.content_range().map(parse_content_range) {
            Some(Some((first, last, object_size))) => {
                let end = wanted.end.min(object_size);
                if first != wanted.start || last.checked_add(1) != Some(end) {
                    return Err(Failure::protocol(format!(
                        "bytes {first} to {last} were sent where {} to {end} were asked for",
                        wanted.start
                    )));
                }
                Ok(RangeBody { bytes: self.collect(answer, end - wanted.start).await?, object_size })
            }
            Some(None) => Err(Failure::protocol("the answer's Content-Range cannot be read")),
            // A server may send the whole object instead of a range.
            None => {
                let object_size = answer.content_length().and_then(|length| u64::try_from(length).ok());
                let object_size = object_size.ok_or_else(|| Failure::protocol("the answer does not say its length"))?;
                let bytes = self.collect(answer, object_size).await?;
                let start = wanted.start.min(object_size) as usize;
                let end = wanted.end.min(object_size) as usize;
                Ok(RangeBody { bytes: bytes.slice(start..end.max(start)), object_size })
            }
        }
    }

    /// The body, which must have `length` bytes.
    async fn collect(&self, answer: GetObjectOutput, length: u64) -> Result<Bytes, Failure> {
        if length > LARGEST_GET {
            return Err(Failure::protocol(format!("{length} bytes were asked for at once; {LARGEST_GET} are allowed")));
        }
        let mut body = answer.body;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let place = self.place();
        let broken =
            |why: String| Failure::new(StoreErrorKind::Unreachable, format!("the body from {place} broke off: {why}"));
        let reading = async {
            loop {
                match timeout(self.options().stall, body.try_next()).await {
                    Err(_) => return Err(broken(format!("nothing came for {}", seconds(self.options().stall)))),
                    Ok(Err(error)) => {
                        return Err(broken(chain(&error)));
                    }
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Ok(Some(piece))) if bytes.len() as u64 + piece.len() as u64 > length => {
                        return Err(Failure::protocol(format!("more than the announced {length} bytes were sent")));
                    }
                    Ok(Ok(Some(piece))) => bytes.extend_from_slice(&piece),
                }
            }
        };
        self.in_time(length, reading).await??;
        if bytes.len() as u64 != length {
            return Err(broken(format!("{} of {length} bytes came", bytes.len())));
        }
        Ok(bytes.into())
    }

    /// Of every object S3 says what it is and since when; what says neither is a page, or nothing, of somebody in between, and no
    /// object that is damaged.
    fn is_of_an_object(&self, e_tag: Option<&str>, last_modified: Option<&DateTime>) -> Result<(), Failure> {
        if e_tag.is_some() || last_modified.is_some() {
            return Ok(());
        }
        let reason = format!(
            "{} answered with neither ETag nor Last-Modified, which every object has; nobody speaks S3 there, or something between answers in its place",
            self.place()
        );
        Err(Failure::new(StoreErrorKind::Unreachable, reason))
    }

    /// Size of the object `full` in bytes. Errors: `NotFound` when there is none.
    pub(super) async fn size(&self, full: &str) -> Result<u64, Failure> {
        let request = self.client().head_object().bucket(self.bucket()).key(full);
        match self.in_time(0, request.send()).await? {
            Ok(answer) => {
                self.is_of_an_object(answer.e_tag(), answer.last_modified())?;
                answer
                    .content_length()
                    .and_then(|length| u64::try_from(length).ok())
                    .ok_or_else(|| Failure::protocol("the store does not say the object's size"))
            }
            Err(error) => Err(failure(&error, self.place())),
        }
    }
}

/// First byte, last byte and whole size of `bytes 0-9/100` (RFC 9110, section 14.4).
fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last, size))
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::parse_content_range;

    #[test]
    fn content_ranges_are_read_or_refused() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0, 9, 100)));
        for text in ["", "bytes */100", "bytes 0-9/*", "bytes 9-0/100", "bytes 0-100/100", "0-9/100", "bytes -1-9/10"] {
            assert_eq!(parse_content_range(text), None, "{text:?}");
        }
    }
}
