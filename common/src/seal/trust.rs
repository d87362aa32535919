//! Whose signature counts, and for what.

use std::fmt;

use super::{KeyError, Kind, SealError, WriterPublic};

/// What a writer is trusted to write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Role {
    /// WAL and what belongs to it.
    Wal,
    /// Base backups and snapshots.
    Base,
    /// Results of drills.
    Drill,
}

impl Role {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Wal => "wal",
            Role::Base => "base",
            Role::Drill => "drill",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Role::Wal, Role::Base, Role::Drill]
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or_else(|| format!("\"{text}\" is not a role; roles are wal, base and drill"))
    }
}

/// One writer and its roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedWriter {
    /// The writer's public key.
    pub key: WriterPublic,
    /// What it may write.
    pub roles: Vec<Role>,
}

impl TrustedWriter {
    /// An archiver: roles wal and base.
    pub fn archiver(key: WriterPublic) -> TrustedWriter {
        TrustedWriter { key, roles: vec![Role::Wal, Role::Base] }
    }
}

/// Everyone whose objects count. Empty means that nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedWriters(Vec<TrustedWriter>);

impl TrustedWriters {
    /// These writers.
    pub fn new(writers: Vec<TrustedWriter>) -> TrustedWriters {
        TrustedWriters(writers)
    }

    /// Adds one; a writer named twice has the roles of both entries.
    pub fn add(&mut self, writer: TrustedWriter) {
        self.0.push(writer);
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The writers.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedWriter> {
        self.0.iter()
    }

    /// Whether `key` may write objects of `kind`.
    pub fn allows(&self, key: WriterPublic, kind: Kind) -> bool {
        self.0.iter().filter(|one| one.key == key).flat_map(|one| &one.roles).any(|role| allows(*role, kind))
    }

    /// The key of `writer`, if it may write objects of `kind`.
    pub(super) fn key_for(&self, writer: &str, kind: Kind) -> Result<WriterPublic, SealError> {
        let key: WriterPublic =
            writer.parse().map_err(|error: KeyError| SealError::Header(format!("\"writer\": {error}")))?;
        let mut roles: Vec<Role> =
            self.0.iter().filter(|one| one.key == key).flat_map(|one| one.roles.iter().copied()).collect();
        if !self.0.iter().any(|one| one.key == key) {
            return Err(SealError::UntrustedWriter(key.to_string()));
        }
        if roles.iter().any(|role| allows(*role, kind)) {
            return Ok(key);
        }
        roles.sort();
        roles.dedup();
        let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
        Err(SealError::WrongRole { writer: key.to_string(), kind: kind.word(), roles: words.join(", ") })
    }
}

fn allows(role: Role, kind: Kind) -> bool {
    match kind {
        Kind::Wal | Kind::Partial | Kind::Tail | Kind::History => role == Role::Wal,
        Kind::Gap | Kind::Frontier | Kind::Catalog | Kind::Summary | Kind::Adopt => role == Role::Wal,
        // What stays and what goes is decided where the cluster is archived, not where it is restored.
        Kind::Hold | Kind::Intent | Kind::Pruned => role == Role::Wal,
        Kind::Label | Kind::Manifest | Kind::Data | Kind::Resume | Kind::Lease => role == Role::Base,
        Kind::Names | Kind::Config | Kind::Snapshot | Kind::Dump => role == Role::Base,
        Kind::Ledger | Kind::Evidence => true,
        Kind::Identity => role == Role::Wal || role == Role::Base,
    }
}

impl fmt::Display for TrustedWriters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|writer| writer.key.to_string()).collect();
        f.write_str(&words.join(", "))
    }
}
