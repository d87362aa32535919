//! The programs of one PostgreSQL major.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::account::Account;

/// One installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Server {
    major: u16,
    version: String,
    bin: PathBuf,
}

impl Server {
    /// The major that tests use unless they name another: `WALSEAL_TEST_MAJOR`, so that everything can be run on any of
    /// them, else 15.
    ///
    /// Errors: the variable is no number.
    pub fn default_major() -> Result<u16> {
        match std::env::var("WALSEAL_TEST_MAJOR") {
            Ok(told) if !told.is_empty() => {
                told.parse().with_context(|| format!("WALSEAL_TEST_MAJOR is {told:?}, and must be a major such as 18"))
            }
            _ => Ok(15),
        }
    }

    /// The programs of `major`: in `WALSEAL_TEST_PG<major>_BIN`, or where Debian puts them.
    ///
    /// Errors: not installed, with the command that installs it; another version than its place says.
    pub fn find(major: u16) -> Result<Server> {
        let variable = format!("WALSEAL_TEST_PG{major}_BIN");
        let bin = match std::env::var_os(&variable) {
            Some(told) => PathBuf::from(told),
            None => PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        };
        if !bin.join("postgres").exists() {
            bail!(
                "PostgreSQL {major} is not in {}; run scripts/test, which installs 15, or \
                 `export {variable}=$(scripts/fetch-postgres {major})`",
                bin.display()
            );
        }
        let said = Account::of_server()?.command(bin.join("postgres")).arg("--version").output();
        let said = said.with_context(|| format!("running postgres in {}", bin.display()))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
        let version = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        if version.split('.').next() != Some(major.to_string().as_str()) {
            bail!("postgres in {} calls itself {text:?}, not version {major}", bin.display());
        }
        Ok(Server { major, version, bin })
    }

    /// Its major, for example 15.
    pub fn major(&self) -> u16 {
        self.major
    }

    /// Its whole version, for example "15.20".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Whether it lies where Debian puts it, so that programs find it by its major alone.
    pub fn is_where_programs_look(&self) -> bool {
        self.bin == Path::new(&format!("/usr/lib/postgresql/{}/bin", self.major))
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}
