//! Why a server could not be reached, or what it refused.

use std::fmt;
use std::io;

use bytes::Bytes;

use super::conninfo::ConninfoError;
use super::programs::ProgramError;
use super::wire::Fields;

/// What a server says in an ErrorResponse (PostgreSQL documentation, chapter 55.8).
///
/// Messages may be in the server's language: tell errors apart by [`ServerError::sqlstate`] and by the methods
/// of [`PostgresError`], which look at nothing that is translated where they can.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`; never translated.
    pub severity: String,
    /// Five characters (PostgreSQL documentation, appendix A).
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// More about it, where the server has more to say.
    pub detail: Option<String>,
    /// What to do, where the server knows.
    pub hint: Option<String>,
    /// The server's C function that reported it; never translated.
    pub routine: Option<String>,
}

/// A message that is no error: a warning such as a page checksum that failed, or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice(
    /// Its fields are those of an error; `severity` is `WARNING`, `NOTICE`, `INFO`, `LOG` or `DEBUG`.
    pub ServerError,
);

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse. What is malformed in it is left out, because a
    /// half-readable reason is better than none.
    pub(super) fn read(body: &Bytes) -> ServerError {
        let mut error = ServerError::default();
        let mut fields = Fields::new(body.clone());
        let mut local_severity = String::new();
        while let Some(code) = fields.u8().filter(|code| *code != 0) {
            let Some(value) = fields.text() else { break };
            match code {
                b'V' => error.severity = value,
                b'S' => local_severity = value,
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = local_severity;
        }
        error
    }

    fn routine_is(&self, name: &str) -> bool {
        self.routine.as_deref() == Some(name)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.message.is_empty() { "an error without a message" } else { &self.message })?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        write!(f, " [{}]", if self.sqlstate.is_empty() { "no SQLSTATE" } else { &self.sqlstate })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.severity, self.0)
    }
}

/// One host that was tried, and why it did not do.
#[derive(Debug)]
pub struct Attempt {
    /// The host, as in [`Host`](super::Host)'s `Display`.
    pub host: String,
    /// What was wrong with it.
    pub error: PostgresError,
}

/// A call to a server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The connection string is wrong.
    #[error(transparent)]
    Conninfo(#[from] ConninfoError),
    /// A program of the server was not found.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// None of the hosts did.
    #[error("no PostgreSQL server could be used: {}", attempts_text(.0))]
    NoHost(Vec<Attempt>),
    /// Neither the socket file nor the port answered.
    #[error("connection to {host} failed: {source}; {}", connect_advice(source))]
    Connect {
        /// The host that was tried.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host did not finish the connection in time.
    #[error(
        "connection to {host} was not ready within {seconds} s (connect_timeout); is a PostgreSQL server listening there, and \
         does a firewall let this host through?"
    )]
    Timeout {
        /// The host that was tried.
        host: String,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The host is up but not of the kind that `target_session_attrs` asks for.
    #[error("{host} {what}, and target_session_attrs asks for {wanted}")]
    WrongRole {
        /// The host that was tried.
        host: String,
        /// What it is.
        what: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// Encryption could not be set up as `sslmode` demands.
    #[error("TLS to {host} failed: {why}")]
    Tls {
        /// The host that was tried.
        host: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The server asked for something that this side cannot or will not give.
    #[error("authentication at {host} failed: {why}")]
    Authentication {
        /// The host that was tried.
        host: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The server refused.
    #[error("{doing}: {error}{}", advice_text(.error))]
    Server {
        /// What was being done: "START_REPLICATION failed", "connection to … was refused".
        doing: String,
        /// What the server says.
        error: Box<ServerError>,
    },
    /// The connection broke.
    #[error("{doing}: the connection broke: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server closed the connection without saying why.
    #[error("{doing}: the server closed the connection; its log says why")]
    Closed {
        /// What was being done.
        doing: String,
    },
    /// The server sent something that the protocol does not allow.
    #[error("{doing}: the server's answer is not understood: {why}; is this a PostgreSQL server?")]
    Protocol {
        /// What was being done.
        doing: String,
        /// What was sent.
        why: String,
    },
    /// This server is too old for the command.
    #[error("{what} needs PostgreSQL {needs} or newer; this server is {has}")]
    Unsupported {
        /// The command.
        what: &'static str,
        /// The first major that has it.
        needs: u32,
        /// What the server is.
        has: String,
    },
    /// An argument can not be sent.
    #[error("{0}")]
    Argument(String),
    /// A stream was left in its middle, so this connection has no use any more.
    #[error("{0}: the connection was left in the middle of a stream; connect anew")]
    Abandoned(String),
    /// Anything else that the SQL client met.
    #[error("{doing}: {why}")]
    Sql {
        /// What was being done.
        doing: String,
        /// What is wrong.
        why: String,
    },
}

fn attempts_text(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| attempt.error.to_string()).collect::<Vec<_>>().join("; ")
}

/// What to look at when there is no connection.
fn connect_advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return "this user may not use that socket; run as another one, or let it (unix_socket_permissions)";
    }
    // The system's resolver has no kind of its own.
    if error.raw_os_error().is_none() && error.to_string().contains("lookup") {
        return "check the host's name in cluster.conninfo, and that this machine can look it up";
    }
    "is the server running there, and does it accept connections?"
}

/// What to do, where the server does not say it.
fn advice_text(error: &ServerError) -> String {
    let routine = error.routine.as_deref().unwrap_or_default();
    let advice = match (error.sqlstate.as_str(), routine) {
        ("28000", "ClientAuthentication") => {
            "; add a line for this user, database and address to pg_hba.conf and reload"
        }
        ("28000", "InitializeSessionUserId") => {
            "; on the server, run: CREATE ROLE <user> LOGIN REPLICATION (or ALTER ROLE, where it is there)"
        }
        ("28000", _) => {
            "; with peer, run as the system user of that name or map it in pg_ident.conf, or choose another user"
        }
        ("28P01", _) => "; check the user, and the password in the password file",
        ("42501", "InitPostgres") => "; on the server, run: ALTER ROLE <user> REPLICATION",
        ("42501", _) => "; grant this user what is missing",
        // With wal_level = minimal there can be none.
        ("53300", _) if error.message.contains("max_wal_senders") && last_number(&error.message) == Some(0) => {
            "; set wal_level = replica and max_wal_senders = 10 in postgresql.conf, then restart the server"
        }
        ("53300", _) if error.message.contains("max_wal_senders") => {
            "; raise max_wal_senders in postgresql.conf and restart the server; pg_stat_replication shows who uses them"
        }
        ("53300", _) => "; raise max_connections on the server",
        ("53400", _) if error.hint.is_none() => "; raise max_replication_slots on the server",
        ("55000", _) if error.message.contains("wal_level") => "; set wal_level = replica and restart the server",
        ("55006", _) => {
            "; it is free again when that process ends, which pg_stat_replication shows: a second archiver needs a \
             cluster.name of its own; after a kill the server notices within wal_sender_timeout"
        }
        ("0A000", "ReadReplicationSlot") => {
            "; drop that slot (SELECT pg_drop_replication_slot), or name another in cluster.slot"
        }
        ("57P03", _) => "; wait until it has started",
        _ => "",
    };
    advice.to_owned()
}

/// The last whole number in a text.
fn last_number(text: &str) -> Option<u32> {
    text.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty()).and_then(|digits| digits.parse().ok())
}

impl PostgresError {
    /// What the server said, if it was the server that refused. Of several hosts, the last that spoke.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            PostgresError::Server { error, .. } => Some(error),
            PostgresError::NoHost(attempts) => attempts.iter().rev().find_map(|attempt| attempt.error.server()),
            _ => None,
        }
    }

    /// The server's five-character code, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.sqlstate.as_str())
    }

    fn has_state(&self, states: &[&str]) -> bool {
        self.sqlstate().is_some_and(|state| states.contains(&state))
    }

    /// The slot is in use by another connection, maybe one that died and was not noticed yet (case 52).
    pub fn is_slot_active(&self) -> bool {
        self.has_state(&["55006"])
    }

    /// Process id of the server process that holds the slot, when [`Self::is_slot_active`] and it was named.
    pub fn slot_holder(&self) -> Option<u32> {
        self.server().filter(|_| self.is_slot_active()).and_then(|error| last_number(&error.message))
    }

    /// There is no such slot.
    pub fn is_slot_missing(&self) -> bool {
        self.has_state(&["42704"])
    }

    /// The server invalidated the slot (`max_slot_wal_keep_size`, `idle_replication_slot_timeout`).
    pub fn is_slot_invalidated(&self) -> bool {
        self.has_state(&["55000"])
            && self.server().is_some_and(|error| {
                let slot = error.routine_is("ReplicationSlotAcquire") || error.routine_is("CreateDecodingContext");
                slot || error.message.contains("invalidated") || error.message.contains("can no longer")
            })
    }

    /// The WAL that was asked for is no longer on the server.
    pub fn is_wal_removed(&self) -> bool {
        self.has_state(&["58P01"])
    }

    /// The position or the timeline is not in the server's history: the server forked off before it (case 11).
    pub fn is_not_in_history(&self) -> bool {
        self.has_state(&["XX000"])
            && self.server().is_some_and(|error| {
                // The refusal of a position ahead of the server comes from the same function, without a detail.
                (error.routine_is("StartReplication") && error.detail.is_some())
                    || error.routine_is("tliSwitchPoint")
                    || error.message.contains("not in this server's history")
            })
    }

    /// The position lies beyond what the server has written.
    pub fn is_ahead_of_server(&self) -> bool {
        self.has_state(&["XX000"])
            && self.server().is_some_and(|error| {
                (error.routine_is("StartReplication") && error.detail.is_none())
                    || error.message.contains("ahead of the WAL flush position")
            })
    }

    /// The server is going down, or came down.
    pub fn is_shutting_down(&self) -> bool {
        self.has_state(&["57P01", "57P02"])
    }

    /// The server takes no connections yet, or no longer.
    pub fn is_not_accepting(&self) -> bool {
        self.has_state(&["57P03"])
    }

    /// The user may not do this.
    pub fn is_missing_privilege(&self) -> bool {
        self.has_state(&["42501"])
    }

    /// The server, or this side, refused to authenticate.
    pub fn is_authentication(&self) -> bool {
        matches!(self, PostgresError::Authentication { .. })
            || self.sqlstate().is_some_and(|state| state.starts_with("28"))
    }

    /// The command failed because of the connection, not because of what was asked.
    pub fn is_disconnect(&self) -> bool {
        match self {
            PostgresError::Connect { .. }
            | PostgresError::Timeout { .. }
            | PostgresError::Io { .. }
            | PostgresError::Closed { .. }
            | PostgresError::Abandoned(_) => true,
            _ => self.is_shutting_down() || self.is_not_accepting(),
        }
    }

    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            PostgresError::Conninfo(_)
            | PostgresError::Program(_)
            | PostgresError::Tls { .. }
            | PostgresError::Authentication { .. }
            | PostgresError::Unsupported { .. }
            | PostgresError::Argument(_) => true,
            PostgresError::NoHost(attempts) => attempts.iter().all(|attempt| attempt.error.is_permanent()),
            PostgresError::Server { error, .. } => {
                let class = error.sqlstate.get(..2).unwrap_or_default();
                matches!(class, "0A" | "22" | "28" | "3D" | "42")
                    || matches!(error.sqlstate.as_str(), "55000" | "58P01")
                    || self.is_not_in_history()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod error_tests {
    use super::*;

    fn server(sqlstate: &str, message: &str, detail: Option<&str>, routine: &str) -> PostgresError {
        let error = ServerError {
            severity: "ERROR".into(),
            sqlstate: sqlstate.into(),
            message: message.into(),
            detail: detail.map(str::to_owned),
            routine: Some(routine.to_owned()),
            ..ServerError::default()
        };
        PostgresError::Server { doing: "START_REPLICATION failed".into(), error: Box::new(error) }
    }

    #[test]
    fn case_52_the_holder_of_a_slot_is_found_in_any_language() {
        let german = server("55006", "Replikations-Slot »walseal_1« ist aktiv für PID 4711", None, "");
        assert!(german.is_slot_active() && !german.is_permanent());
        assert_eq!(german.slot_holder(), Some(4711));
        assert_eq!(server("55006", "kein Prozess", None, "").slot_holder(), None);
        assert_eq!(server("42704", "no 12", None, "").slot_holder(), None);
    }

    #[test]
    fn case_11_a_fork_is_told_from_a_position_ahead_by_what_is_not_translated() {
        let fork = server("XX000", "xyz", Some("forked from timeline 1"), "StartReplication");
        let ahead = server("XX000", "xyz", None, "StartReplication");
        assert!(fork.is_not_in_history() && !fork.is_ahead_of_server() && fork.is_permanent());
        assert!(ahead.is_ahead_of_server() && !ahead.is_not_in_history() && !ahead.is_permanent());
        assert!(!server("XX000", "xyz", None, "elsewhere").is_not_in_history());
    }

    #[test]
    fn malformed_error_bodies_are_read_as_far_as_they_go() {
        let error = ServerError::read(&Bytes::from_static(b"SFEHLER\0C28000\0Mno\xff\0Dcut off"));
        assert_eq!((error.severity.as_str(), error.sqlstate.as_str()), ("FEHLER", "28000"));
        assert_eq!(error.message, "no\u{fffd}");
        assert_eq!(error.detail, None);
    }
}
