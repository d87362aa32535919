//! Configuration files that lie outside the data directory, as Debian's do: the server does not send them with a base backup.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::ConfigEntry;

use super::BaseError;
use super::attachment::Attachment;

/// How long the server may take for all of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes of one file, and most files: configuration is text that people write.
const LARGEST: u64 = 1 << 20;
const MOST: usize = 200;

/// The files, and the setting that names each.
type Files = BTreeMap<String, &'static str>;

/// Adds every file that the server's configuration is read from and that lies outside its data directory, and where one could not be
/// read, why. Says how many files there are, and how many could not be read.
///
/// Errors: the repository's; what cannot be read is no error.
pub async fn read(conninfo: &Conninfo, host: &Host, pages: &mut Attachment<'_>) -> Result<(usize, usize), BaseError> {
    let mut unread = 0;
    let found = match timeout(PATIENCE, collect(conninfo, host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => vec![unknown(why)],
        Err(_) => vec![unknown(format!("not answered within {} s", PATIENCE.as_secs()))],
    };
    for entry in &found {
        unread += usize::from(matches!(entry, ConfigEntry::Unread { .. }));
        pages.line(entry).await?;
    }
    Ok((found.len(), unread))
}

/// Not even where the files lie is known.
fn unknown(why: String) -> ConfigEntry {
    ConfigEntry::Unread { path: None, setting: "config_file".to_owned(), why }
}

/// Errors: in words, why it is not known where the files lie.
async fn collect(conninfo: &Conninfo, host: &Host) -> Result<Vec<ConfigEntry>, String> {
    let words = |error: PostgresError| error.to_string();
    let sql = SqlClient::connect_to(conninfo, host, "walseal configuration").await.map_err(words)?;
    let (data, files) = files(&sql).await?;
    let here = host.is_unix();
    let mut entries = Vec::new();
    for (path, setting) in files.into_iter().filter(|(path, _)| is_outside(&data, path, here)).take(MOST) {
        let setting = setting.to_owned();
        entries.push(match content(&sql, &path, here).await {
            Ok((content, mode)) => ConfigEntry::File { path, setting, mode, content },
            Err(why) => ConfigEntry::Unread { path: Some(path), setting, why },
        });
    }
    Ok(entries)
}

/// The data directory, and every file of the configuration.
async fn files(sql: &SqlClient) -> Result<(String, Files), String> {
    let doing = "reading where the configuration files lie failed";
    let of = |error| SqlClient::error(doing, &error).to_string();
    let settings = sql.query(
        doing,
        "SELECT name, setting FROM pg_settings WHERE name IN ('data_directory', 'config_file', 'hba_file', 'ident_file')",
        &[],
    );
    let mut data = None;
    let mut files = Files::new();
    for row in settings.await.map_err(|error| error.to_string())? {
        let (name, value): (String, Option<String>) = (row.try_get(0).map_err(of)?, row.try_get(1).map_err(of)?);
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        match name.as_str() {
            "data_directory" => data = Some(value),
            "config_file" => drop(files.insert(value, "config_file")),
            "hba_file" => drop(files.insert(value, "hba_file")),
            _ => drop(files.insert(value, "ident_file")),
        }
    }
    let Some(data) = data else {
        return Err("the role may not see it; allow it with: GRANT pg_read_all_settings TO the role".to_owned());
    };
    // Those that are included. Views that this server does not have, or does not show to this role, tell nothing; they are not
    // asked, because each would leave an error in the server's log.
    let views = "SELECT c.relname::text, a.attname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a \
                 ON a.attrelid = c.oid WHERE c.relnamespace = 'pg_catalog'::regnamespace AND (c.relname, a.attname) IN \
                 (('pg_file_settings', 'sourcefile'), ('pg_settings', 'sourcefile'), ('pg_hba_file_rules', 'file_name'), \
                 ('pg_ident_file_mappings', 'file_name')) AND has_table_privilege(c.oid, 'SELECT')";
    for row in sql.query(doing, views, &[]).await.map_err(|error| error.to_string())? {
        let (view, column): (String, String) = (row.try_get(0).map_err(of)?, row.try_get(1).map_err(of)?);
        let query = format!("SELECT DISTINCT {column} FROM pg_catalog.{view} WHERE {column} IS NOT NULL");
        for row in sql.query(doing, &query, &[]).await.unwrap_or_default() {
            if let Ok(Some(path)) = row.try_get::<_, Option<String>>(0) {
                files.entry(path).or_insert("include");
            }
        }
    }
    Ok((data, files))
}

/// Whether the server leaves the file out of a base backup.
fn is_outside(data: &str, path: &str, here: bool) -> bool {
    if !Path::new(path).starts_with(data) {
        return true;
    }
    // The server sends no links but those of tablespaces.
    here && Path::new(path).symlink_metadata().is_ok_and(|found| found.is_symlink())
}

/// The bytes of a file, over SQL where the role may, else from this machine's disk where the server is on it; and its mode, where that is
/// known.
async fn content(sql: &SqlClient, path: &str, here: bool) -> Result<(Vec<u8>, Option<u32>), String> {
    let doing = "pg_read_binary_file failed";
    let most = i64::try_from(LARGEST + 1).unwrap_or(i64::MAX);
    let over_sql = sql.query_one(doing, "SELECT pg_read_binary_file($1, 0, $2)", &[&path, &most]).await;
    let over_sql = match over_sql {
        Ok(row) => row.try_get::<_, Vec<u8>>(0).map_err(|error| SqlClient::error(doing, &error).to_string()),
        Err(error) => Err(error.to_string()),
    };
    let mode = if here { mode(path).await } else { None };
    let content = match over_sql {
        Ok(content) => content,
        Err(why) if here => from_disk(path).await.map_err(|error| format!("{why}; from disk: {error}"))?,
        Err(why) => {
            return Err(format!(
                "{why}; allow it with: GRANT pg_read_server_files TO the role; GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) \
                 TO the role"
            ));
        }
    };
    if content.len() as u64 > LARGEST {
        return Err(format!("it has more than {} KiB", LARGEST >> 10));
    }
    Ok((content, mode))
}

async fn mode(path: &str) -> Option<u32> {
    tokio::fs::metadata(path).await.ok().map(|found| found.permissions().mode() & 0o7777)
}

async fn from_disk(path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    tokio::fs::File::open(path).await?.take(LARGEST + 1).read_to_end(&mut content).await?;
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_data_directory_come_with_the_backup_unless_they_are_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join("postgresql.conf"), "").expect("a file");
        std::os::unix::fs::symlink("/etc/hostname", data.join("pg_hba.conf")).expect("a link");
        let outside = |path: &Path, here| is_outside(&data.to_string_lossy(), &path.to_string_lossy(), here);
        assert!(!outside(&data.join("postgresql.conf"), true));
        assert!(outside(&data.join("pg_hba.conf"), true));
        assert!(!outside(&data.join("pg_hba.conf"), false), "on another machine nobody can tell");
        assert!(outside(Path::new("/etc/postgresql/15/main/postgresql.conf"), true));
        assert!(outside(&folder.path().join("data2/postgresql.conf"), true));
    }
}
