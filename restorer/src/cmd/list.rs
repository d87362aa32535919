//! `list`: what can be restored.

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::BaseId;
use walseal_common::show;
use walseal_common::terminal::{Align, Failure, Look, Schema, Table, printable, to_json, units};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::target::refusal;
use crate::access::Access;
use crate::plan::windows::{Window, windows};
use crate::plan::{Inventory, PlanError, ends, surplus};

const SCHEMA: Schema = Schema { name: "list", version: 1 };

/// Objects of no use that are named on a terminal.
const MOST_NAMED: usize = 20;

/// What `list` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a repository can restore.
#[derive(Serialize)]
struct Listing {
    repository: String,
    cluster: String,
    postgres_major: u32,
    segment_size: u64,
    windows: Vec<Window>,
    bases: Vec<Base>,
    /// Base backups whose label does not verify.
    unusable: Vec<Unusable>,
    /// Objects of WAL that were found to be of no use. Not all objects are read for this.
    damaged: Vec<Damaged>,
    /// Why branches are left out.
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct Base {
    id: BaseId,
    branch: Branch,
    start: Lsn,
    stop: Lsn,
    start_time: Timestamp,
    stop_time: Timestamp,
    postgres_version: u32,
    cluster_size: u64,
    stored_size: u64,
    tablespaces: u32,
    suspect: u64,
}

#[derive(Serialize)]
struct Unusable {
    id: BaseId,
    why: String,
}

#[derive(Serialize)]
struct Damaged {
    name: String,
    branch: Branch,
    /// The bytes that it is there for.
    start: Lsn,
    end: Lsn,
    why: String,
}

/// Shows windows and base backups.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let mut inventory = Inventory::read(&access.repository, &access.identities)
        .await
        .map_err(|error| refusal(&PlanError::from(error)))?;
    let found = windows(&access.repository, &access.identities, &mut inventory).await;
    let found = found.map_err(|error| refusal(&error))?;
    let listing = Listing::new(&inventory, found);
    if arguments.json {
        let text = to_json(SCHEMA, &listing).map_err(|error| Failure::from_error("print the list", &error))?;
        show!("{text}");
    } else {
        print!("{}", listing.render(Look::of_stdout()));
    }
    Ok(())
}

impl Listing {
    fn new(inventory: &Inventory, windows: Vec<Window>) -> Listing {
        let bases = inventory.bases.iter().map(|label| Base {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            start_time: label.start_time,
            stop_time: label.stop_time,
            postgres_version: label.postgres_version,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            tablespaces: label.tablespaces,
            suspect: label.suspect,
        });
        let unusable = inventory.unusable.iter().map(|base| Unusable { id: base.id.clone(), why: base.why.clone() });
        let damaged = inventory.branches.values().flat_map(|facts| {
            facts.damaged.iter().map(|(held, damage)| Damaged {
                name: damage.name.to_string(),
                branch: facts.branch,
                start: held.start,
                end: held.end,
                why: damage.why.clone(),
            })
        });
        Listing {
            repository: inventory.store.clone(),
            cluster: inventory.identity.cluster.to_string(),
            postgres_major: inventory.identity.postgres_major,
            segment_size: inventory.identity.segment_size.bytes(),
            windows,
            bases: bases.collect(),
            unusable: unusable.collect(),
            damaged: damaged.collect(),
            unreadable: ends(inventory).unreadable.iter().map(ToString::to_string).collect(),
        }
    }

    fn render(&self, look: Look) -> String {
        let mut text = format!(
            "{}: cluster {}, PostgreSQL {}, WAL segments of {}\n\n",
            self.repository,
            self.cluster,
            self.postgres_major,
            units::size(self.segment_size)
        );
        if self.windows.is_empty() {
            text.push_str("Nothing can be restored: no base backup has its WAL here.\n");
        } else {
            let mut table = Table::new([
                ("timeline", Align::Right),
                ("any second from", Align::Left),
                ("to", Align::Left),
                ("WAL from", Align::Right),
                ("to", Align::Right),
                ("base backups", Align::Right),
            ]);
            for window in &self.windows {
                table.row([
                    window.timeline.number().to_string(),
                    time(window.from_time),
                    time(window.to_time),
                    window.from.to_string(),
                    window.to.to_string(),
                    window.bases.len().to_string(),
                ]);
            }
            text.push_str(&format!("{}\n", table.render(look)));
        }
        for window in &self.windows {
            if let Some(gap) = &window.gap {
                let size = units::size(gap.len());
                let timeline = window.timeline.number();
                let what = if window.damaged.is_empty() { "is missing" } else { "is missing or not usable, see below" };
                text.push_str(&format!("Gap on timeline {timeline}: {} to {} ({size}) {what}.\n", gap.start, gap.end));
            }
        }
        for window in &self.windows {
            if let Some(surplus) = &window.surplus {
                let words = surplus::words(surplus, window.to);
                text.push_str(&format!("On timeline {}, {words}.\n", window.timeline.number()));
            }
        }
        if !self.bases.is_empty() {
            let mut table = Table::new([
                ("base backup", Align::Left),
                ("timeline", Align::Right),
                ("ended", Align::Left),
                ("complete at", Align::Right),
                ("files", Align::Right),
                ("stored", Align::Right),
                ("", Align::Left),
            ]);
            for base in &self.bases {
                let in_a_window = self.windows.iter().any(|window| window.bases.contains(&base.id));
                let remark = match base.suspect {
                    0 if in_a_window => String::new(),
                    0 => "in no window".to_owned(),
                    failures => format!("suspect: {failures} page checksum failure(s)"),
                };
                table.row([
                    base.id.to_string(),
                    base.branch.timeline.number().to_string(),
                    PgTimestamp::from_jiff(base.stop_time).to_string(),
                    base.stop.to_string(),
                    units::size(base.cluster_size),
                    units::size(base.stored_size),
                    remark,
                ]);
            }
            text.push_str(&format!("\n{}\n", table.render(look)));
        }
        for base in &self.unusable {
            text.push_str(&format!(
                "\nNot usable: base backup {}: its label (base/{}/label): {}\n",
                base.id, base.id, base.why
            ));
        }
        for damaged in self.damaged.iter().take(MOST_NAMED) {
            text.push_str(&format!(
                "\nNot usable: {}, with the WAL from {} to {}: {}\n",
                damaged.name, damaged.start, damaged.end, damaged.why
            ));
        }
        if self.damaged.len() > MOST_NAMED {
            text.push_str(&format!("\nand {} more; --json names them all\n", self.damaged.len() - MOST_NAMED));
        }
        if !self.damaged.is_empty() || !self.unusable.is_empty() {
            text.push_str(
                "\nNothing that needs an object which is not usable can be restored. If the store keeps older versions, or there \
                 is another copy of the repository, put back what was written; a window that needs none of them begins with: \
                 walseal-archiver backup\n",
            );
        }
        for why in &self.unreadable {
            text.push_str(&format!("\nLeft out: {why}\n"));
        }
        printable(&text)
    }
}

fn time(time: Option<PgTimestamp>) -> String {
    time.map_or_else(|| "(no transaction)".to_owned(), |time| time.to_string())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::config::Config;
    use walseal_common::lsn::LsnRange;
    use walseal_common::repository::ObjectName;

    use super::*;
    use crate::sample::{SampleRepository, SampleWal};

    /// Two windows with a gap between them, and a second base backup in the later one.
    async fn sample() -> SampleRepository {
        let sample = SampleRepository::new().await;
        let branch = sample.branch();
        let mut wal = SampleWal::from(Lsn(0x30_0000));
        let start = wal.checkpoint(699, "2026-11-21T10:00:00Z").start;
        let stop = wal.commit(700, "2026-11-21T10:00:01Z").end;
        wal.fill_segment();
        sample.put_label(branch, start, stop, "2026-11-21T10:00:00Z", Some("2026-11-21T10:00:01Z")).await;
        wal.commit(701, "2026-11-21T10:05:00Z");
        wal.fill_segment();
        let start = wal.checkpoint(702, "2026-11-21T11:00:00Z").start;
        let stop = wal.filler(8).end;
        wal.commit(702, "2026-11-21T11:05:00Z");
        sample.put_label(branch, start, stop, "2026-11-21T11:00:00Z", Some("2026-11-21T10:05:00Z")).await;
        sample.put_wal(branch, &wal, Lsn(0x50_0000)).await;
        let first = LsnRange { start: Lsn(0x30_0000), end: Lsn(0x40_0000) };
        sample.put_segment(branch, sample.size.number(first.start), wal.slice(first)).await;
        sample
    }

    async fn listing(sample: &SampleRepository) -> Listing {
        let mut inventory = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
        let found = windows(&sample.repository, &sample.identities, &mut inventory).await.expect("readable");
        let mut listing = Listing::new(&inventory, found);
        listing.repository = "file:///srv/walseal".to_owned();
        listing
    }

    #[tokio::test]
    async fn windows_gaps_and_base_backups_are_listed_for_people() {
        let sample = sample().await;
        assert_eq!(
            listing(&sample).await.render(Look::Plain),
            "\
file:///srv/walseal: cluster 7437123456789012345, PostgreSQL 15, WAL segments of 1 MiB

timeline  any second from         to                      WAL from        to  base backups
       1  2026-11-21 10:00:01+00  2026-11-21 10:00:01+00  0/3000C8  0/400000             1
       1  2026-11-21 10:05:00+00  2026-11-21 11:05:00+00  0/500AB0  0/500AD8             1
Gap on timeline 1: 0/400000 to 0/500000 (1 MiB) is missing.

base backup                timeline  ended                   complete at   files  stored
20261121T100000Z-00000007         1  2026-11-21 10:00:00+00     0/3000C8  40 MiB   8 MiB
20261121T110000Z-00000007         1  2026-11-21 11:00:00+00     0/500AB0  40 MiB   8 MiB
"
        );
    }

    #[tokio::test]
    async fn a_damaged_segment_ends_its_window_and_is_named_with_what_to_do() {
        let sample = sample().await;
        let name = sample.segment(sample.branch(), sample.size.number(Lsn(0x50_0000)));
        let tail = LsnRange { start: Lsn(0x50_0000), end: Lsn(0x50_0AD8) };
        sample.garble(&ObjectName::Tail(sample.branch(), name, tail));
        let text = listing(&sample).await.render(Look::Plain).replace(&sample.branch().to_string(), "00000001-BRANCH");
        assert_eq!(
            text,
            "\
file:///srv/walseal: cluster 7437123456789012345, PostgreSQL 15, WAL segments of 1 MiB

timeline  any second from         to                      WAL from        to  base backups
       1  2026-11-21 10:00:01+00  2026-11-21 10:00:01+00  0/3000C8  0/400000             1
Gap on timeline 1: 0/400000 to 0/500AD8 (1 MiB) is missing or not usable, see below.

base backup                timeline  ended                   complete at   files  stored
20261121T100000Z-00000007         1  2026-11-21 10:00:00+00     0/3000C8  40 MiB   8 MiB
20261121T110000Z-00000007         1  2026-11-21 11:00:00+00     0/500AB0  40 MiB   8 MiB  in no window

Not usable: tail/00000001-BRANCH/000000010000000000000005/0000000000500000-0000000000500AD8, with the WAL from 0/500000 to \
             0/500AD8: the header's signature does not verify: these bytes are not what the writer signed

Nothing that needs an object which is not usable can be restored. If the store keeps older versions, or there is another \
             copy of the repository, put back what was written; a window that needs none of them begins with: \
             walseal-archiver backup
"
        );
    }

    #[tokio::test]
    async fn case_18_a_damaged_whole_segment_leaves_both_windows_beside_it() {
        let sample = sample().await;
        let branch = sample.branch();
        // The window before is whole; the later one begins with a segment that cannot be read.
        let mut wal = SampleWal::from(Lsn(0x60_0000));
        let start = wal.checkpoint(710, "2026-11-21T12:00:00Z").start;
        let stop = wal.commit(710, "2026-11-21T12:00:01Z").end;
        wal.commit(711, "2026-11-21T12:01:00Z");
        sample.put_wal(branch, &wal, Lsn(0x60_0000)).await;
        sample.put_label(branch, start, stop, "2026-11-21T12:00:00Z", Some("2026-11-21T12:00:01Z")).await;
        let first = ObjectName::Wal(branch, sample.segment(branch, sample.size.number(Lsn(0x30_0000))), None);
        sample.garble(&first);
        let listing = listing(&sample).await;
        let spans: Vec<(Lsn, Lsn)> = listing.windows.iter().map(|window| (window.from, window.to)).collect();
        assert_eq!(spans, [(Lsn(0x50_0AB0), Lsn(0x50_0AD8)), (stop, wal.end())]);
        assert_eq!(listing.damaged.iter().map(|d| d.name.clone()).collect::<Vec<_>>(), [first.to_string()]);
        let text = listing.render(Look::Plain);
        assert!(text.contains(&format!("Not usable: {first}, with the WAL from 0/300000 to 0/400000")), "{text}");
    }

    #[tokio::test]
    async fn a_damaged_label_is_named_and_the_other_base_backups_are_shown() {
        let sample = sample().await;
        let damaged: BaseId = "20261121T110000Z-00000007".parse().expect("an id");
        sample.garble(&ObjectName::Label(damaged.clone()));
        let listing = listing(&sample).await;
        assert_eq!(
            listing.bases.iter().map(|base| base.id.to_string()).collect::<Vec<_>>(),
            ["20261121T100000Z-00000007"]
        );
        assert_eq!(listing.windows.len(), 1);
        let text = listing.render(Look::Plain);
        assert!(
            text.contains(&format!("Not usable: base backup {damaged}: its label (base/{damaged}/label): ")),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_writer_that_is_not_trusted_is_no_damage() {
        let mut sample = sample().await;
        let branch = sample.branch();
        let stranger = walseal_common::seal::WriterKey::generate().expect("random bytes");
        sample.writer = stranger;
        let mut wal = SampleWal::from(Lsn(0x50_0000));
        wal.filler(2000);
        wal.commit(702, "2026-11-21T11:06:00Z");
        let tail = LsnRange { start: Lsn(0x50_0AD8), end: Lsn(0x50_0B00) };
        wal.bytes.resize(0xB00, 0);
        sample.put_tail(branch, tail, &wal.bytes).await;
        let mut inventory = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
        let error = windows(&sample.repository, &sample.identities, &mut inventory).await.expect_err("a stranger's");
        assert!(error.to_string().contains("not a trusted writer"), "{error}");
    }

    #[tokio::test]
    async fn the_configuration_leads_to_the_repository_or_says_what_is_missing() {
        let sample = sample().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let identity = folder.path().join("identity.key");
        std::fs::write(&identity, sample.identities[0].to_file().as_bytes()).expect("a file of our own");
        std::fs::set_permissions(&identity, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own");
        let toml = |writers: &str| {
            let text = format!(
                "[repository]\nurl = \"file://{}\"\n[keys]\nidentity_files = [\"{}\"]\n{writers}",
                sample.folder.path().display(),
                identity.display()
            );
            Config::from_toml(&text).expect("a configuration")
        };
        let writers = format!("trusted_writers = [\"{}\"]", sample.writer.public());
        let access = Access::open(toml(&writers), None).await.expect("everything is there");
        assert_eq!(access.repository.cluster(), crate::sample::SYSTEM);

        let nobody = Access::open(toml(""), None).await.expect_err("nobody is trusted").to_string();
        assert!(nobody.contains(&writers), "{nobody}");
        let stranger = Access::open(toml(&writers), "123".parse().ok()).await.expect_err("another cluster").to_string();
        assert!(stranger.contains("holds no cluster 123; it holds: 7437123456789012345"), "{stranger}");
    }
}
