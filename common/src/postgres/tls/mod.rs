//! TLS as libpq does it: the `sslmode` ladder, its files, and the binding of SCRAM to the server's certificate.
//!
//! | sslmode | encrypts | checks the certificate | checks the name |
//! | --- | --- | --- | --- |
//! | `disable` | no | | |
//! | `allow` | if the server insists | no | no |
//! | `prefer` (default) | if the server offers it | no | no |
//! | `require` | yes | if there is a root file | no |
//! | `verify-ca` | yes | yes | no |
//! | `verify-full` | yes | yes | yes |
//!
//! Source: PostgreSQL documentation, chapter 34.19 "SSL Support". On Unix sockets there is never TLS.

mod binding;
mod files;
mod verifier;

pub(super) use files::{OptionalFile, RootSource, SslFiles};

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{Conninfo, Host, HostAddress};
use super::error::PostgresError;

/// libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Without TLS first, with it when the server refuses that.
    Allow,
    /// With TLS first, without it when the server does not have it.
    #[default]
    Prefer,
    /// TLS, whoever answers; with a root file as `verify-ca`.
    Require,
    /// TLS with a certificate that a trusted authority signed.
    VerifyCa,
    /// The same, and it names the host.
    VerifyFull,
}

impl SslMode {
    /// All modes, weakest first.
    pub const ALL: [SslMode; 6] =
        [SslMode::Disable, SslMode::Allow, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];

    /// The mode as it is written in a connection string.
    pub const fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// One attempt on the ladder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rung {
    /// Without TLS.
    Plain,
    /// With TLS if the server has it.
    TlsIfOffered,
    /// With TLS or not at all.
    Tls,
}

/// Which attempts `sslmode` allows, in order.
pub(super) struct Ladder {
    rung: Rung,
    other: Option<Rung>,
}

impl Ladder {
    pub(super) fn new(mode: SslMode, unix: bool) -> Ladder {
        let (rung, other) = match mode {
            _ if unix => (Rung::Plain, None),
            SslMode::Disable => (Rung::Plain, None),
            SslMode::Allow => (Rung::Plain, Some(Rung::Tls)),
            SslMode::Prefer => (Rung::TlsIfOffered, Some(Rung::Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Rung::Tls, None),
        };
        Ladder { rung, other }
    }

    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// Steps to the other rung when there is one and it can help after `error`: when the handshake failed, or
    /// when pg_hba.conf refuses this kind of connection. A wrong password is wrong on both.
    pub(super) fn next(&mut self, error: &PostgresError) -> bool {
        let helps = matches!(error, PostgresError::Tls { .. })
            || matches!(error, PostgresError::Authentication { .. }) && self.rung == Rung::Plain
            || matches!(error, PostgresError::Server { error, .. } if error.sqlstate == "28000");
        match self.other.take_if(|_| helps) {
            Some(other) => {
                self.rung = other;
                true
            }
            None => false,
        }
    }
}

/// Encrypts `stream`. Returns it with the data for SCRAM's channel binding, if the certificate allows one.
pub(super) async fn handshake(
    conninfo: &Conninfo,
    host: &Host,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Option<Vec<u8>>), PostgresError> {
    let failed = |why: String| PostgresError::Tls { host: host.to_string(), why };
    let config = client_config(conninfo, host).map_err(failed)?;
    let name = server_name(host, &stream).map_err(failed)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        failed(tls.map_or_else(|| error.to_string(), verifier::explain))
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let binding = certificate.and_then(|certificate| binding::tls_server_end_point(certificate));
    Ok((stream, binding))
}

fn client_config(conninfo: &Conninfo, host: &Host) -> Result<ClientConfig, String> {
    let files = conninfo.ssl_files();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = files::roots(conninfo.ssl_mode(), files)?;
    let verifier = verifier::ServerVerifier::new(conninfo.ssl_mode(), roots, host, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match files::client_identity(files)? {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client certificate (sslcert) and key (sslkey) do not fit: {error}")),
    }
}

/// The name to send to the server. Where the host's name is no DNS name, the address stands in: the name is
/// checked by our own verifier, against the host as configured.
fn server_name(host: &Host, stream: &TcpStream) -> Result<ServerName<'static>, String> {
    if let HostAddress::Tcp { name, .. } = &host.address
        && let Ok(name) = ServerName::try_from(name.clone())
    {
        return Ok(name);
    }
    stream.peer_addr().map(|peer| ServerName::from(peer.ip())).map_err(|error| error.to_string())
}
