//! `tls-server-end-point` (RFC 5929, section 4.1): the digest of the server's certificate.

use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// The channel binding data of a certificate in DER: its digest with the hash function of its signature, where MD5
/// and SHA-1 are replaced by SHA-256. `None` for signatures without a single hash function, such as Ed25519: the
/// RFC leaves those undefined, and PostgreSQL's server can not bind to them either.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let hash = if algorithm.algorithm == oid::OID_PKCS1_RSASSAPSS {
        let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
        hash_of_digest(parameters.hash_algorithm_oid())?
    } else {
        hash_of_signature(&algorithm.algorithm)?
    };
    Some(match hash {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

fn hash_of_signature(algorithm: &Oid<'_>) -> Option<Hash> {
    let known = [
        (oid::OID_PKCS1_MD5WITHRSAENC, Hash::Sha256),
        (oid::OID_PKCS1_SHA1WITHRSA, Hash::Sha256),
        (oid::OID_PKCS1_SHA256WITHRSA, Hash::Sha256),
        (oid::OID_SIG_ECDSA_WITH_SHA256, Hash::Sha256),
        (oid::OID_PKCS1_SHA384WITHRSA, Hash::Sha384),
        (oid::OID_SIG_ECDSA_WITH_SHA384, Hash::Sha384),
        (oid::OID_PKCS1_SHA512WITHRSA, Hash::Sha512),
        (oid::OID_SIG_ECDSA_WITH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(oid, _)| oid == algorithm).map(|(_, hash)| hash)
}

fn hash_of_digest(digest: &Oid<'_>) -> Option<Hash> {
    let known = [
        (oid::OID_HASH_SHA1, Hash::Sha256),
        (oid::OID_NIST_HASH_SHA256, Hash::Sha256),
        (oid::OID_NIST_HASH_SHA384, Hash::Sha384),
        (oid::OID_NIST_HASH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(oid, _)| oid == digest).map(|(_, hash)| hash)
}

#[cfg(test)]
mod binding_tests {
    use std::fs;
    use std::process::Command;

    use super::super::super::test_cluster::run;
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_certificates_signature() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (arguments, digest) in [
            ("rsa:2048 -sha1", Some("sha256")),
            ("rsa:2048 -sha256", Some("sha256")),
            ("rsa:2048 -sha384", Some("sha384")),
            ("rsa:2048 -sha512", Some("sha512")),
            ("rsa:2048 -sha256 -sigopt rsa_padding_mode:pss", Some("sha256")),
            ("rsa:2048 -sha512 -sigopt rsa_padding_mode:pss", Some("sha512")),
            ("ec -pkeyopt ec_paramgen_curve:P-384 -sha384", Some("sha384")),
            ("ed25519", None),
        ] {
            let mut command = Command::new("openssl");
            command
                .args("req -x509 -nodes -days 2 -subj /CN=x -outform DER -out c.der -keyout c.key -newkey".split(' '));
            run(command.args(arguments.split(' ')).current_dir(folder.path()));
            let certificate = fs::read(folder.path().join("c.der")).expect("made");
            let expected = digest.map(|digest| {
                let mut command = Command::new("openssl");
                command.args(["dgst", "-binary", &format!("-{digest}"), "c.der"]);
                run(command.current_dir(folder.path())).stdout
            });
            assert_eq!(tls_server_end_point(&certificate), expected, "{arguments}");
        }
        assert_eq!(tls_server_end_point(b"no certificate"), None);
    }
}
