//! Whether the server is asked for changed blocks only (PostgreSQL 17 and newer), and telling it since when.

use std::collections::BTreeSet;

use walseal_common::postgres::replication::ReplicationClient;
use walseal_common::repository::{Label, MOST_LAYERS, Repository};
use walseal_common::terminal::units;

use super::Source;
use super::earlier::Earlier;
use crate::base::error::BaseError;

/// First version that sends changed blocks only.
const VERSION_17: u32 = 170_000;

/// What the server says when it can't: the WAL summaries since the parent are not all there, it was promoted since.
pub const NOT_POSSIBLE: &str = "55000";

/// With a line of a file that has so many bytes changed blocks are not asked for: a page holds lines of 15 MiB, and each backup
/// of changed blocks makes one of a file of 1 GiB longer by at most 1.2 MiB.
const LONG_LINE: usize = 8 << 20;

/// Whether the server is asked for changed blocks only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Native {
    /// It is, and it has the manifest of the backup that they are compared with.
    Asked,
    /// It is not.
    No {
        /// Why, a clause; none where there is nothing to be said: a full backup, or a server that can't.
        why: Option<String>,
    },
}

impl Native {
    fn because(why: impl Into<String>) -> Native {
        Native::No { why: Some(why.into()) }
    }

    /// Decides, and sends the server what it has to know. `whole` says why it is to send everything, where it is.
    ///
    /// Errors: the connection's; the repository's, where another attempt may succeed. What the server refuses is a reason.
    pub async fn prepare(
        client: &mut ReplicationClient,
        repository: &Repository,
        source: &Source,
        earlier: &Earlier,
        whole: Option<&str>,
    ) -> Result<Native, BaseError> {
        let Some(parent) = &earlier.parent else { return Ok(Native::No { why: None }) };
        if source.postgres_version < VERSION_17 {
            return Ok(Native::No { why: None });
        }
        if let Some(why) = whole {
            return Ok(Native::because(why));
        }
        if let Some(why) = unfit(client, source, parent).await? {
            return Ok(Native::because(why));
        }
        let longest = earlier.known.files.longest_layered();
        if longest > LONG_LINE {
            let size = units::size(longest as u64);
            return Ok(Native::because(format!("the line of a file in the list of {} has grown to {size}", parent.id)));
        }
        let Some(wanted) = earlier.known.files.parent_objects() else {
            return Ok(Native::because(format!("the list of frames of {} names an object in two ways", parent.id)));
        };
        let missing: BTreeSet<u32> = earlier.known.objects.missing(repository, wanted).await?;
        if !missing.is_empty() {
            let count = missing.len();
            return Ok(Native::because(format!("{count} data objects that {} needs are gone", parent.id)));
        }
        upload(client, earlier, parent).await
    }
}

/// Why changed blocks since `parent` would be of no use, or can't be had, as far as settings tell.
async fn unfit(client: &mut ReplicationClient, source: &Source, parent: &Label) -> Result<Option<String>, BaseError> {
    let id = &parent.id;
    if parent.branch != source.branch {
        return Ok(Some(format!("the server has gone on to a new timeline since {id}")));
    }
    if parent.depth as usize + 2 > MOST_LAYERS {
        return Ok(Some(format!("{} incremental ones have followed the last full one", parent.depth)));
    }
    if parent.resume.as_ref().is_none_or(|resume| resume.server_manifest.is_empty()) {
        return Ok(Some(format!("{id} has no copy of the server's manifest")));
    }
    if client.show("summarize_wal").await? != "on" {
        let next = "switch it on with: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf()";
        return Ok(Some(format!("summarize_wal is off ({next})")));
    }
    for (setting, usual) in [("block_size", "8192"), ("segment_size", "1GB")] {
        let found = client.show(setting).await?;
        if found != usual {
            return Ok(Some(format!("the server was built with {setting} = {found}, not {usual}")));
        }
    }
    Ok(None)
}

/// Sends the server the parent's manifest, as it was sent then.
async fn upload(client: &mut ReplicationClient, earlier: &Earlier, parent: &Label) -> Result<Native, BaseError> {
    let pages = earlier.reader.server_manifest(parent);
    let mut upload = client.upload_manifest().await?;
    let mut unread = None;
    for page in pages {
        match earlier.reader.read(&page).await {
            Ok(plain) => upload.send(&plain).await?,
            Err(error) if error.is_permanent() => {
                // What is cut off the server refuses, and the connection stays.
                unread = Some(error);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let taken = upload.finish().await;
    match (unread, taken) {
        (Some(error), _) => {
            Ok(Native::because(format!("the server's manifest of {} cannot be read: {error}", parent.id)))
        }
        (None, Ok(())) => Ok(Native::Asked),
        (None, Err(error)) if error.server().is_some() && !error.is_disconnect() => {
            Ok(Native::because(format!("the server does not take its manifest of {}: {error}", parent.id)))
        }
        (None, Err(error)) => Err(error.into()),
    }
}
