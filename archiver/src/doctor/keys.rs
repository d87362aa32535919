//! The keys: to whom objects are sealed, who signs them, who else counts.

use std::sync::Arc;

use walseal_common::config::{Config, OpenError};
use walseal_common::seal::TrustedWriters;

use super::{Examination, Finding};
use crate::keys::ArchiveKeys;

/// The keys that the configuration names; `None` where one of them cannot be used.
pub(super) fn examine(
    config: &Config,
    examination: &mut Examination<'_>,
) -> Option<(Arc<ArchiveKeys>, TrustedWriters)> {
    let recipients = examination.opened("recipients", config.open_recipients());
    if let Some(recipients) = &recipients {
        examination.add(match recipients.as_slice() {
            [one] => Finding::warning("recipients", format!("only {one}: if its identity is lost, so is every backup"))
                .fix("make a second identity (walseal-restorer keygen), keep it offline, and add its recipient to keys.recipients"),
            several => Finding::fine("recipients", format!("objects are sealed to {} recipients", several.len())),
        });
    }
    let writer = examination.opened("writer key", config.open_writer_key());
    if let Some(writer) = &writer {
        examination.add(Finding::fine("writer key", format!("signs as {}", writer.public())));
    }
    let trusted = examination.opened("trusted writers", config.open_trusted_writers())?;
    let keys = ArchiveKeys { recipients: recipients?, writer: writer? };
    let own = keys.writer.public();
    let others = trusted.iter().filter(|writer| writer.key != own).count();
    examination.add(Finding::fine(
        "trusted writers",
        match others {
            0 => "this archiver alone".to_owned(),
            others => format!("this archiver and {others} more"),
        },
    ));
    let trust = keys.trust(trusted);
    Some((Arc::new(keys), trust))
}

/// A failure to open something, taken apart into what is wrong and what to do.
pub(super) fn refused(check: &'static str, error: OpenError) -> Finding {
    match error {
        OpenError::Config(error) => Finding::failed(check, error.problem()).fix(error.fix()),
        other => Finding::failed(check, other),
    }
}
