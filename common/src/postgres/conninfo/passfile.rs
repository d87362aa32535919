//! The password file (PostgreSQL documentation, chapter 34.16).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Host, Password};

/// Where passwords are looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Passfile {
    path: PathBuf,
    /// Whether somebody named it, so that it has to be there.
    named: bool,
}

impl Passfile {
    pub(super) fn named(path: impl Into<PathBuf>) -> Passfile {
        Passfile { path: path.into(), named: true }
    }

    pub(super) fn default_place(path: PathBuf) -> Passfile {
        Passfile { path, named: false }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The password for a connection.
    ///
    /// Errors: a sentence that says what was looked for and where. As with libpq, a file that others can read is
    /// not used.
    pub(super) fn find(&self, host: &Host, database: &str, user: &str) -> Result<Password, String> {
        let path = self.path.display();
        let asked = "the server asks for a password";
        let names = host_names(host);
        let line = format!("{}:{}:{database}:{user}:<password>", names.first().map_or("*", String::as_str), host.port);
        let content = match read(&self.path) {
            Ok(content) => content,
            Err(why) if self.named => return Err(format!("{asked}, and the password file {path} {why}")),
            Err(why) => return Err(format!("{asked}, and none is known ({path} {why}); put there: {line}")),
        };
        for entry in content.lines() {
            if let Some(password) = match_line(entry, &names, &host.port.to_string(), database, user) {
                return Ok(password);
            }
        }
        Err(format!("{asked}, and no line of {path} fits; add: {line}"))
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let meta = fs::metadata(path).map_err(|error| format!("is not readable: {error}"))?;
    if !meta.is_file() {
        return Err("is not a plain file".to_owned());
    }
    if meta.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the password file can be read by others and is not used");
        return Err("is not used because its group or others can read it; run: chmod 0600 on it".to_owned());
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(|error| format!("is not readable: {error}"))?);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What the file may call the host.
fn host_names(host: &Host) -> Vec<String> {
    let name = host.name();
    if host.is_default_socket() { vec!["localhost".to_owned(), name] } else { vec![name] }
}

/// The password of a line when its four fields fit.
fn match_line(line: &str, hosts: &[String], port: &str, database: &str, user: &str) -> Option<Password> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    let (host, any_host) = field(&mut rest)?;
    let fits = |(value, wild): (String, bool), wanted: &str| (wild || value == wanted).then_some(());
    if !any_host && !hosts.contains(&host) {
        return None;
    }
    fits(field(&mut rest)?, port)?;
    fits(field(&mut rest)?, database)?;
    fits(field(&mut rest)?, user)?;
    // The password runs to the end of the line; a colon in it may be escaped or not.
    let mut password = Zeroizing::new(String::new());
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        password.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    (!password.is_empty()).then(|| Password::new(password.as_str()))
}

/// Takes a field and its colon off `rest`: its value without escapes, and whether it is a bare `*`.
fn field(rest: &mut &str) -> Option<(String, bool)> {
    let mut value = String::new();
    let mut chars = rest.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            ':' => {
                let wild = rest.get(..index) == Some("*");
                *rest = rest.get(index + 1..)?;
                return Some((value, wild));
            }
            c => value.push(c),
        }
    }
    None
}
