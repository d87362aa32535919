//! The keys an archiver holds: public ones to seal to, its own to sign with. None of them opens anything (I9).

use walseal_common::seal::{Recipient, TrustedWriter, TrustedWriters, WriterKey};

/// What is needed to make objects.
#[derive(Clone, Debug)]
pub struct ArchiveKeys {
    /// Objects are sealed to all of them; never empty.
    pub recipients: Vec<Recipient>,
    /// Signs objects, and compares WAL.
    pub writer: WriterKey,
}

impl ArchiveKeys {
    /// The writers whose objects count for this archiver: the configured ones and itself.
    pub fn trust(&self, configured: Vec<TrustedWriter>) -> TrustedWriters {
        let mut trust = TrustedWriters::new(configured);
        trust.add(TrustedWriter::archiver(self.writer.public()));
        trust
    }
}
