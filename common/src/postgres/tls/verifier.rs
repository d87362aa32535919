//! Checking a server's certificate as `sslmode` says.
//!
//! The handshake's signature is checked in every mode: the server always has to hold the key of the certificate it
//! shows, because SCRAM's channel binding relies on it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::conninfo::{Host, HostAddress};
use super::SslMode;
use super::files::Roots;

/// libpq's rules for certificates, for one host.
pub(super) struct ServerVerifier {
    roots: Option<Roots>,
    /// The host as configured, when its name is to be checked.
    name: Option<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = self.roots.is_some();
        f.debug_struct("ServerVerifier").field("chain", &chain).field("name", &self.name).finish_non_exhaustive()
    }
}

impl ServerVerifier {
    /// `roots`: `None` when certificates are not to be checked.
    ///
    /// Errors: `verify-full` without a name to check.
    pub(super) fn new(
        mode: SslMode,
        roots: Option<Roots>,
        host: &Host,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ServerVerifier, String> {
        let name = match (&host.address, mode) {
            (HostAddress::Tcp { name, .. }, SslMode::VerifyFull) if name.is_empty() => {
                return Err("sslmode=verify-full needs a host name to check; set host beside hostaddr".to_owned());
            }
            (HostAddress::Tcp { name, .. }, SslMode::VerifyFull) => Some(name.clone()),
            _ => None,
        };
        Ok(ServerVerifier { roots, name, algorithms: provider.signature_verification_algorithms })
    }

    fn check_chain(
        &self,
        roots: &Roots,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A self-signed certificate that is its own root is no chain, but trusted all the same, as with libpq.
        if roots.certificates.iter().any(|root| root.as_ref() == certificate.as_ref()) {
            return check_validity(&parse(certificate)?, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots.anchors, intermediates, now, self.algorithms.all)
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate.as_ref())
        .map(|(_, parsed)| parsed)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.validity().not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > certificate.validity().not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// libpq's rule (fe-secure-common.c): the alternative names of the host's kind, else the common name.
fn names_host(certificate: &X509Certificate<'_>, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let mut has_names = false;
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match (name, address) {
                (GeneralName::DNSName(pattern), None) => {
                    has_names = true;
                    if matches_pattern(pattern, host) {
                        return true;
                    }
                }
                // An address as a DNS name is not what the standards want, but libpq takes it.
                (GeneralName::DNSName(pattern), Some(_)) => {
                    has_names = true;
                    if *pattern == host {
                        return true;
                    }
                }
                (GeneralName::IPAddress(bytes), Some(address)) => {
                    has_names = true;
                    let same = match address {
                        IpAddr::V4(v4) => *bytes == v4.octets().as_slice(),
                        IpAddr::V6(v6) => *bytes == v6.octets().as_slice(),
                    };
                    if same {
                        return true;
                    }
                }
                _ => {}
            }
        }
    }
    !has_names
        && certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .is_some_and(|name| if address.is_some() { name == host } else { matches_pattern(name, host) })
}

/// A name, or one with `*.` in front that stands for exactly one label; letters of either case.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(suffix), Some((first, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !first.is_empty() && suffix.contains('.') && suffix.eq_ignore_ascii_case(rest)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            self.check_chain(roots, certificate, intermediates, now)?;
        }
        if let Some(name) = &self.name
            && !names_host(&parse(certificate)?, name)
        {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // With the key taken out, because servers still have certificates of version 1, as PostgreSQL's own
        // documentation makes them, which the stricter parser of webpki refuses.
        let parsed = parse(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a failed handshake means for the person who configures it.
pub(super) fn explain(error: &Error) -> String {
    let Error::InvalidCertificate(why) = error else {
        return error.to_string();
    };
    match why {
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by an authority in sslrootcert; give the file of the right one".to_owned()
        }
        CertificateError::NotValidForName => {
            "its certificate names other hosts than the one in the connection string; connect by a name in it, or \
             make a certificate with this name in subjectAltName"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; make a new one, and check this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; check the clocks of both machines".to_owned()
        }
        other => {
            let text = format!("{other:?}");
            if text.contains("UnsupportedCertVersion") {
                "its certificate is of X.509 version 1 and can not be checked; make one of version 3 with \
                 subjectAltName (openssl x509 -req -extfile …)"
                    .to_owned()
            } else {
                format!("its certificate is not accepted: {text}")
            }
        }
    }
}

#[cfg(test)]
mod verifier_tests {
    use super::matches_pattern;

    #[test]
    fn wildcards_stand_for_one_whole_label() {
        assert!(matches_pattern("DB.example.net", "db.EXAMPLE.net"));
        assert!(matches_pattern("*.example.net", "db.example.net"));
        assert!(!matches_pattern("*.example.net", "a.db.example.net"));
        assert!(!matches_pattern("*.example.net", ".example.net"));
        assert!(!matches_pattern("*.example.net", "example.net"));
        assert!(!matches_pattern("*.net", "example.net"));
        assert!(!matches_pattern("d*.example.net", "db.example.net"));
    }
}
