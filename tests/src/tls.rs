//! Certificates for clusters that speak TLS, made once with openssl.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::scratch::{Scratch, make_dir};
use crate::template;

/// A certificate authority, a server's certificate for `localhost` and `127.0.0.1`, a client's, and an
/// authority that signed neither.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// The database role that the client's certificate names.
    pub const CLIENT_ROLE: &str = "cert";

    /// The certificates of this user's tests.
    ///
    /// Errors: no openssl on this machine.
    pub fn make(scratch: &Scratch) -> Result<Certificates> {
        let folder = template::once(scratch, "tls-1", |fresh| {
            make_dir(fresh, 0o755)?;
            scratch.account().own(fresh)?;
            authority(scratch, fresh, "ca")?;
            authority(scratch, fresh, "stranger")?;
            leaf(scratch, fresh, "server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")?;
            leaf(scratch, fresh, "client", &format!("/CN={}", Certificates::CLIENT_ROLE), "keyUsage=digitalSignature")
        })?;
        Ok(Certificates { folder })
    }

    /// The authority that signed the server's and the client's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// An authority that signed neither.
    pub fn stranger(&self) -> PathBuf {
        self.folder.join("stranger.crt")
    }

    /// The server's certificate.
    pub fn server(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// The client's certificate.
    pub fn client(&self) -> PathBuf {
        self.folder.join("client.crt")
    }

    /// The client's key.
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("client.key")
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn authority(scratch: &Scratch, folder: &Path, name: &str) -> Result<()> {
    let call = scratch.call("/usr/bin/openssl").args(["req", "-x509", "-days", "3650"]).args(NEW_KEY);
    call.args(["-subj", &format!("/CN=walseal tests {name}"), "-keyout"])
        .arg(folder.join(name).with_extension("key"))
        .arg("-out")
        .arg(folder.join(name).with_extension("crt"))
        .run()
        .context("openssl is needed; scripts/test installs it")?
        .success()?;
    Ok(())
}

fn leaf(scratch: &Scratch, folder: &Path, name: &str, subject: &str, extension: &str) -> Result<()> {
    let file = |extension: &str| folder.join(name).with_extension(extension);
    let ask = scratch.call("/usr/bin/openssl").args(["req", "-new"]).args(NEW_KEY);
    let ask = ask.args(["-subj", subject, "-addext", extension, "-keyout"]).arg(file("key")).arg("-out");
    ask.arg(file("csr")).run()?.success()?;
    let sign = scratch.call("/usr/bin/openssl").args(["x509", "-req", "-days", "3650", "-copy_extensions", "copy"]);
    let sign = sign.arg("-in").arg(file("csr")).arg("-CA").arg(folder.join("ca.crt"));
    let sign = sign.arg("-CAkey").arg(folder.join("ca.key")).arg("-CAcreateserial").arg("-out").arg(file("crt"));
    sign.run()?.success()?;
    Ok(())
}
