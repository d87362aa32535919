//! A backlog without a daemon.

use super::*;

/// Segments of a backlog; the hook looks 16 ahead.
const BACKLOG: usize = 12;

fn the_first_call_ships_what_lies_ahead(store: Store) -> Result<()> {
    let site = Site::new(archiving().segment_mib(1).setting("archive_command", "/bin/false"), store)?;
    site.archiver.run(&["init"])?.success()?;
    let from = site.cluster.flush_lsn()?;
    for _ in 0..BACKLOG {
        end_segment(&site.cluster)?;
    }
    let until = Lsn(site.cluster.segment_size()?.align_down(site.cluster.insert_lsn()?).0 - 1);
    let mut names = queued(&site.cluster)?;
    names.sort();
    // What was written in between may have filled one more.
    ensure!((BACKLOG..BACKLOG + 2).contains(&names.len()), "{names:?}");
    push(&site, &file(&site.cluster, &names[0]))?.success()?;
    let stored = || -> Result<usize> {
        let keys = objects(&site)?;
        Ok(names.iter().filter(|name| keys.iter().any(|key| key.starts_with("wal/") && key.ends_with(*name))).count())
    };
    // It goes on for a bounded time; alone and the two at once beside it would be three.
    let shipped = stored()?;
    ensure!(shipped > BACKLOG / 2, "{shipped} of {BACKLOG} were shipped by the call for the first");
    for name in &names {
        push(&site, &file(&site.cluster, name))?.success()?;
    }
    assert_eq!(stored()?, names.len());
    flow::fetch_agrees_with_the_server(&site, from, until)
}

#[test]
fn the_first_call_of_a_backlog_ships_what_lies_ahead() -> Result<()> {
    the_first_call_ships_what_lies_ahead(Store::Directory)
}

#[test]
fn the_first_call_of_a_backlog_ships_what_lies_ahead_into_a_bucket() -> Result<()> {
    the_first_call_ships_what_lies_ahead(Store::S3)
}
