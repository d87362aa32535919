//! Every kind of alert: which test receives it, and that it is documented.

use anyhow::{Result, ensure};

use walseal_common::telemetry::AlertKind;

use super::{backups, faults};
use crate::{drill, failover, split, standby, verify};

/// The test in which somebody is told of this kind by the real fault that causes it, and of its end: a new kind needs one.
fn received_in(kind: AlertKind) -> fn() -> Result<()> {
    match kind {
        AlertKind::Gap | AlertKind::SlotLost => {
            super::i5_a_lost_slot_and_its_gap_are_told_once_and_so_is_the_base_backup_that_ends_it
        }
        AlertKind::SlotAtRisk => {
            faults::case_26_a_slot_that_keeps_more_than_its_limit_is_told_until_the_wal_is_in_the_repository
        }
        AlertKind::ArchiveCommandFails => {
            faults::case_26_an_archive_command_that_fails_is_told_with_what_waits_until_it_works
        }
        AlertKind::ConfirmedMissing => faults::wal_that_was_durable_and_vanished_is_told_until_it_is_back,
        AlertKind::StoreUnreachable | AlertKind::Backlog | AlertKind::RpoExceeded => {
            super::case_26_a_store_that_is_gone_and_the_wal_that_piles_up_are_told_with_their_end
        }
        AlertKind::TwoPrimaries => {
            failover::case_11_a_failover_to_a_standby_that_had_less_keeps_what_the_old_primary_shipped
        }
        AlertKind::TimelineLeft => {
            failover::case_16_an_old_primary_behind_the_only_address_is_told_until_the_new_one_is_streamed
        }
        AlertKind::Conflict => {
            split::case_17_the_living_server_that_came_second_is_adopted_and_everything_goes_on_with_it
        }
        AlertKind::ServerBehind => {
            split::case_17_a_server_that_came_back_with_an_older_disk_is_told_before_anything_differs
        }
        AlertKind::StandbyCutOff => {
            standby::case_33_a_standby_that_is_cut_off_from_its_primary_is_told_until_it_receives_again
        }
        AlertKind::SynchronousUnasked => super::case_13_a_star_in_synchronous_standby_names_is_told_until_it_is_gone,
        AlertKind::BackupFailed | AlertKind::BackupOverdue => {
            backups::a_base_backup_that_fails_and_stays_away_is_told_twice_over_until_one_is_taken
        }
        AlertKind::BackupSuspect => {
            backups::case_31_pages_that_are_damaged_are_told_with_their_table_until_they_are_gone
        }
        AlertKind::SnapshotFailed | AlertKind::TableShrank => {
            faults::a_daemon_that_only_dumps_tells_of_failures_and_shrunk_tables_and_its_heart_beats_on_success_only
        }
        AlertKind::NotWhole => verify::the_daemon_says_by_itself_that_something_is_missing_and_that_it_is_back,
        AlertKind::DrillFailed | AlertKind::DrillOverdue => {
            drill::the_daemon_drills_on_schedule_records_and_tells_of_what_fails
        }
        AlertKind::RetentionRefused => faults::retention_that_is_refused_is_told_until_it_is_kept_to,
        AlertKind::OneRecipient => {
            faults::what_stands_across_a_restart_is_told_once_and_what_ended_meanwhile_is_told_then
        }
        AlertKind::Test => super::every_receiver_is_told_once_and_says_in_a_test_whether_it_hears,
    }
}

#[test]
fn every_kind_is_received_in_a_test_and_stands_in_both_tables_for_people() -> Result<()> {
    let tables = [
        ("docs/CONFIGURATION.md", include_str!("../../../../docs/CONFIGURATION.md"), "## Alerts"),
        ("docs/RUNBOOK.md", include_str!("../../../../docs/RUNBOOK.md"), "## An alert came"),
    ];
    for (page, text, heading) in tables {
        let section = text.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut rows: Vec<&str> = rows.collect();
        let mut kinds: Vec<&str> = AlertKind::ALL.iter().map(|kind| kind.word()).collect();
        rows.sort_unstable();
        kinds.sort_unstable();
        if page.ends_with("CONFIGURATION.md") {
            // A second table, of heartbeats.
            rows.retain(|row| !row.starts_with("walseal-"));
        }
        ensure!(rows == kinds, "{page} names {rows:?}, and there are {kinds:?}");
    }
    AlertKind::ALL.iter().map(|kind| received_in(*kind)).for_each(drop);
    Ok(())
}
