//! Resume pages, from the copy at hand or from the repository, opened.

use walseal_common::repository::{BaseId, Label, ObjectName, ObjectReference, Repository, RepositoryError};
use walseal_common::seal::{Envelope, ResumeKey, SealError, WriterKey};

use super::PageCache;

/// A page that can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageName {
    /// Whose.
    pub id: BaseId,
    /// Its number.
    pub number: u32,
    /// How its label refers to it; `None` where there is no label.
    pub reference: Option<ObjectReference>,
}

/// Reads pages that this writer stored.
#[derive(Clone, Debug)]
pub struct PageReader {
    repository: Repository,
    cache: PageCache,
    key: ResumeKey,
    writer: String,
}

impl PageReader {
    /// A reader of the pages of `writer`.
    ///
    /// Errors: as [`WriterKey::resume`].
    pub fn new(repository: Repository, cache: PageCache, writer: &WriterKey) -> Result<PageReader, SealError> {
        Ok(PageReader { repository, cache, key: writer.resume()?, writer: writer.public().to_string() })
    }

    /// The repository that pages are read from.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The pages of the server's manifest of a backup, in order.
    pub fn server_manifest(&self, label: &Label) -> Vec<PageName> {
        let Some(resume) = &label.resume else { return Vec::new() };
        // Their numbers go on after those of the list.
        let pages = resume.server_manifest.iter().zip(resume.list.len() as u32..);
        let name = |(reference, number): (&ObjectReference, u32)| PageName {
            id: label.id.clone(),
            number,
            reference: Some(reference.clone()),
        };
        pages.map(name).collect()
    }

    /// The plaintext of a page, at most 16 MiB.
    ///
    /// Errors: it is not there, or not what this writer stored.
    pub async fn read(&self, page: &PageName) -> Result<Vec<u8>, RepositoryError> {
        let envelope = self.envelope(page).await?;
        let refuse = |source| RepositoryError::Object { name: envelope.header().name.clone(), source };
        if envelope.header().writer != self.writer {
            return Err(refuse(SealError::UntrustedWriter(envelope.header().writer.clone())));
        }
        self.key.open(&envelope).map_err(refuse)
    }

    async fn envelope(&self, page: &PageName) -> Result<Envelope, RepositoryError> {
        let name = ObjectName::Resume(page.id.clone(), page.number);
        let Some(reference) = &page.reference else { return self.repository.read(&name).await };
        if let Some(bytes) = self.cache.get(&page.id, page.number, reference) {
            return self.repository.verify(&name, bytes);
        }
        // A label names only pages of its own backup: what else it says is not followed.
        if reference.name != name.to_string() {
            let source = SealError::Structure(format!("the label refers to {} in its place", reference.name));
            return Err(RepositoryError::Object { name: name.to_string(), source });
        }
        let bytes = self.repository.reference_bytes(reference).await?;
        self.cache.put(&page.id, page.number, &bytes);
        self.repository.verify(&name, bytes)
    }
}
