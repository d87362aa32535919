//! Physical replication slots.

use super::{ReplicationClient, VERSION_15, not_understood};
use crate::lsn::Lsn;
use crate::postgres::error::PostgresError;
use crate::timeline::TimelineId;

/// What became of creating a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotCreated {
    /// It was made, and the server keeps WAL from its last checkpoint on.
    Created,
    /// There was one of that name, physical or logical; nothing was changed.
    AlreadyExists,
}

/// What READ_REPLICATION_SLOT tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotState {
    /// The oldest WAL that the slot keeps; `None` when it keeps nothing (never used, or invalidated).
    pub restart: Option<Lsn>,
    /// The timeline of that position; `None` without one.
    pub timeline: Option<TimelineId>,
}

/// A slot's name in a command. Errors: names that the server would refuse (slot.c, `ReplicationSlotValidateName`).
pub(super) fn quote(slot: &str) -> Result<String, PostgresError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if slot.is_empty() || slot.len() > 63 || !slot.chars().all(legal) {
        return Err(PostgresError::Argument(format!(
            "\"{slot}\" is not a slot's name; use at most 63 of a-z, 0-9 and _"
        )));
    }
    Ok(format!("\"{slot}\""))
}

impl ReplicationClient {
    /// CREATE_REPLICATION_SLOT … PHYSICAL with RESERVE_WAL, so that WAL is kept from now on and not only from the
    /// first connection on (case 15). A `temporary` slot goes with this connection.
    pub async fn create_physical_slot(&mut self, slot: &str, temporary: bool) -> Result<SlotCreated, PostgresError> {
        let name = quote(slot)?;
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let reserve = if self.server_version_num() >= VERSION_15 { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
        let doing = format!("creating the slot {slot} failed");
        let command = format!("CREATE_REPLICATION_SLOT {name}{temporary} PHYSICAL {reserve}");
        match self.one_set(&doing, &command).await {
            Ok(_) => Ok(SlotCreated::Created),
            Err(error) if error.sqlstate() == Some("42710") => Ok(SlotCreated::AlreadyExists),
            Err(error) => Err(error),
        }
    }

    /// DROP_REPLICATION_SLOT. Returns whether there was one.
    ///
    /// Errors: [`PostgresError::is_slot_active`] when it is in use.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<bool, PostgresError> {
        let doing = format!("dropping the slot {slot} failed");
        let command = format!("DROP_REPLICATION_SLOT {}", quote(slot)?);
        match self.session.query(&doing, &command).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_slot_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// READ_REPLICATION_SLOT: where a physical slot stands, or `None` when there is no such slot.
    ///
    /// Errors: [`PostgresError::Unsupported`] before PostgreSQL 15 (ask `pg_replication_slots` there); the server's
    /// for a logical slot.
    pub async fn read_slot(&mut self, slot: &str) -> Result<Option<SlotState>, PostgresError> {
        if self.server_version_num() < VERSION_15 {
            let has = self.parameter("server_version").unwrap_or("unknown").to_owned();
            return Err(PostgresError::Unsupported { what: "READ_REPLICATION_SLOT", needs: 15, has });
        }
        let doing = format!("reading the slot {slot} failed");
        let set = self.one_set(&doing, &format!("READ_REPLICATION_SLOT {}", quote(slot)?)).await?;
        let Some(row) = set.rows.first() else { return Err(not_understood(&doing, &set)) };
        if row.first().is_none_or(|kind| kind.is_none()) {
            return Ok(None);
        }
        let restart = set.first(1).map(|text| text.parse()).transpose().map_err(|_| not_understood(&doing, &set))?;
        let timeline = set.first(2).map(|text| text.parse()).transpose().map_err(|_| not_understood(&doing, &set))?;
        Ok(Some(SlotState { restart, timeline: timeline.and_then(TimelineId::new) }))
    }
}
