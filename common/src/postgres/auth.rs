//! Startup and authentication (PostgreSQL documentation, chapters 55.2.1 and 55.3).

use bytes::Bytes;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AUTHENTICATION_TAG, BACKEND_KEY_DATA_TAG, READY_FOR_QUERY_TAG};
use postgres_protocol::message::frontend;

use super::conninfo::{ChannelBindingMode, Conninfo, Host, Password};
use super::error::PostgresError;
use super::session::Purpose;
use super::transport::Privacy;
use super::wire::{Fields, Frame, NEGOTIATE_PROTOCOL_VERSION_TAG, Wire, malformed, unexpected};

/// Brings a fresh connection to its first ReadyForQuery. Returns BackendKeyData as sent (empty if it was not).
pub(super) async fn start(
    wire: &mut Wire,
    conninfo: &Conninfo,
    host: &Host,
    purpose: Purpose,
    application_name: &str,
) -> Result<Bytes, PostgresError> {
    let doing = format!("connection to {host} as user \"{}\" failed", conninfo.user());
    let mut parameters = vec![("user", conninfo.user()), ("application_name", application_name)];
    if let Some(options) = conninfo.options() {
        parameters.push(("options", options));
    }
    match purpose {
        Purpose::Replication => parameters.push(("replication", "true")),
        Purpose::Sql => {
            parameters.push(("client_encoding", "UTF8"));
            parameters.push(("database", conninfo.dbname()));
        }
    }
    wire.queue(&doing, |buffer| frontend::startup_message(parameters, buffer))?;
    wire.flush(&doing).await?;

    let mut login = Login { conninfo, host, purpose, doing: &doing };
    login.authenticate(wire).await?;
    wire.authenticated();

    let mut key = Bytes::new();
    loop {
        let frame = wire.receive(&doing).await?;
        match frame.tag {
            READY_FOR_QUERY_TAG => return Ok(key),
            BACKEND_KEY_DATA_TAG => key = frame.body,
            // Asked for 3.0 without options there is nothing to give in on.
            NEGOTIATE_PROTOCOL_VERSION_TAG => check_negotiation(&doing, &frame)?,
            _ => return Err(unexpected(&doing, &frame)),
        }
    }
}

/// The server names the newest minor version that it speaks and the options it does not know.
fn check_negotiation(doing: &str, frame: &Frame) -> Result<(), PostgresError> {
    let mut fields = Fields::new(frame.body.clone());
    let minor = fields.i32().ok_or_else(|| malformed(doing, frame))?;
    let count = fields.i32().ok_or_else(|| malformed(doing, frame))?;
    for _ in 0..count {
        let option = fields.text().ok_or_else(|| malformed(doing, frame))?;
        tracing::debug!(option, "the server does not know a protocol option");
    }
    // 3.0 is the oldest, so every honest answer is at least that; some servers send the whole number, some the minor.
    if minor < 0 {
        return Err(malformed(doing, frame));
    }
    Ok(())
}

/// Codes of authentication requests.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const GSS: i32 = 7;
const SSPI: i32 = 9;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

struct Login<'a> {
    conninfo: &'a Conninfo,
    host: &'a Host,
    purpose: Purpose,
    doing: &'a str,
}

impl Login<'_> {
    fn refuse(&self, why: impl Into<String>) -> PostgresError {
        PostgresError::Authentication { host: self.host.to_string(), why: why.into() }
    }

    async fn request(&self, wire: &mut Wire) -> Result<(i32, Fields, Frame), PostgresError> {
        loop {
            let frame = wire.receive(self.doing).await?;
            match frame.tag {
                AUTHENTICATION_TAG => {
                    let mut fields = Fields::new(frame.body.clone());
                    let code = fields.i32().ok_or_else(|| malformed(self.doing, &frame))?;
                    return Ok((code, fields, frame));
                }
                NEGOTIATE_PROTOCOL_VERSION_TAG => check_negotiation(self.doing, &frame)?,
                _ => return Err(unexpected(self.doing, &frame)),
            }
        }
    }

    async fn authenticate(&mut self, wire: &mut Wire) -> Result<(), PostgresError> {
        let (code, mut fields, frame) = self.request(wire).await?;
        if code != SASL && self.conninfo.channel_binding() == ChannelBindingMode::Require {
            return Err(self.refuse(
                "channel_binding=require, and the server asks for no SCRAM-SHA-256-PLUS; it needs TLS, a scram-sha-256 \
                 line in pg_hba.conf and a password stored as SCRAM",
            ));
        }
        match code {
            OK => return Ok(()),
            CLEARTEXT => {
                if *wire.transport().privacy() == Privacy::Plain {
                    return Err(self.refuse(
                        "the server asks for the password in the clear on a connection without TLS, which is refused; \
                         use sslmode=require or better, or scram-sha-256 in pg_hba.conf",
                    ));
                }
                let password = self.password()?;
                self.send_password(wire, password.as_bytes()).await?;
            }
            MD5 => {
                let salt = fields.bytes(4).and_then(|salt| <[u8; 4]>::try_from(salt.as_ref()).ok());
                let salt = salt.ok_or_else(|| malformed(self.doing, &frame))?;
                let password = self.password()?;
                let answer = md5_hash(self.conninfo.user().as_bytes(), password.as_bytes(), salt);
                self.send_password(wire, answer.as_bytes()).await?;
            }
            SASL => self.sasl(wire, fields, &frame).await?,
            GSS | SSPI => {
                return Err(self.refuse("the server asks for GSSAPI, which is not there; use another pg_hba.conf line"));
            }
            other => return Err(self.refuse(format!("the server asks for the unknown method {other}"))),
        }
        match self.request(wire).await? {
            (OK, _, _) => Ok(()),
            (_, _, frame) => Err(unexpected(self.doing, &frame)),
        }
    }

    fn password(&self) -> Result<Password, PostgresError> {
        let database = match self.purpose {
            Purpose::Replication => "replication",
            Purpose::Sql => self.conninfo.dbname(),
        };
        self.conninfo.password_for(self.host, database).map_err(|why| self.refuse(why))
    }

    async fn send_password(&self, wire: &mut Wire, password: &[u8]) -> Result<(), PostgresError> {
        wire.queue(self.doing, |buffer| frontend::password_message(password, buffer))?;
        wire.flush(self.doing).await
    }

    /// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).
    async fn sasl(&self, wire: &mut Wire, mut fields: Fields, frame: &Frame) -> Result<(), PostgresError> {
        let (mut plain, mut plus) = (false, false);
        loop {
            let mechanism = fields.text().ok_or_else(|| malformed(self.doing, frame))?;
            match mechanism.as_str() {
                "" => break,
                SCRAM_SHA_256 => plain = true,
                SCRAM_SHA_256_PLUS => plus = true,
                _ => {}
            }
        }
        let mode = self.conninfo.channel_binding();
        let (encrypted, data) = match wire.transport().privacy() {
            Privacy::Encrypted { binding } => (true, binding.clone()),
            Privacy::Local | Privacy::Plain => (false, None),
        };
        if plus && !encrypted {
            return Err(self.refuse("the server offers channel binding on a connection without TLS"));
        }
        let data = data.filter(|_| mode != ChannelBindingMode::Disable);
        let (binding, mechanism) = match data {
            Some(data) if plus => (ChannelBinding::tls_server_end_point(data), SCRAM_SHA_256_PLUS),
            _ if mode == ChannelBindingMode::Require => {
                return Err(self.refuse(
                    "channel_binding=require, and this connection can not have it; it needs TLS, a server that offers \
                     SCRAM-SHA-256-PLUS and a certificate whose signature has a digest (RSA or ECDSA)",
                ));
            }
            // Says "I could have": a man in the middle who removed the offer is found out by the server.
            Some(_) if plain => (ChannelBinding::unrequested(), SCRAM_SHA_256),
            None if plain => (ChannelBinding::unsupported(), SCRAM_SHA_256),
            _ => return Err(self.refuse("the server offers no mechanism that is known here (SCRAM-SHA-256)")),
        };
        let password = self.password()?;
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        wire.queue(self.doing, |buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
        wire.flush(self.doing).await?;

        let (code, fields, frame) = self.request(wire).await?;
        if code != SASL_CONTINUE {
            return Err(unexpected(self.doing, &frame));
        }
        scram.update(&fields.rest()).map_err(|error| self.refuse(format!("SCRAM: {error}")))?;
        wire.queue(self.doing, |buffer| frontend::sasl_response(scram.message(), buffer))?;
        wire.flush(self.doing).await?;

        let (code, fields, frame) = self.request(wire).await?;
        if code != SASL_FINAL {
            return Err(unexpected(self.doing, &frame));
        }
        scram.finish(&fields.rest()).map_err(|_| {
            self.refuse("the server could not prove that it knows the password; this is not the server it claims to be")
        })
    }
}
