//! Libraries that functions of the cluster are in: an extension whose files are not on this host makes other checks fail, and what
//! is restored here useless to its users, and the backup is not at fault.

use std::collections::BTreeMap;

use walseal_common::postgres::{PostgresError, SqlClient};

use super::{databases, text};
use crate::drill::report::Found;
use crate::instance::Instance;

/// What is expected, in words.
pub const EXPECTED: &str = "the libraries of all extensions are on this host";

/// Every library that a function is in, and the extension that the function is of.
const LIBRARIES: &str = "select distinct p.probin, coalesce((select e.extname::text from pg_depend d \
       join pg_extension e on e.oid = d.refobjid where d.classid = 'pg_proc'::regclass and d.objid = p.oid \
       and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' limit 1), '') \
     from pg_proc p join pg_language l on l.oid = p.prolang where l.lanname = 'c' and p.probin is not null order by 1, 2";

/// Where libraries are.
const FOLDER: &str = "select setting from pg_config where name = 'PKGLIBDIR'";

/// Whether there is a file.
const THERE: &str = "select (pg_stat_file($1::text, true)).size is not null";

/// Extensions without files to make them, which nothing that is restored needs.
const NOT_AVAILABLE: &str = "select extname::text from pg_extension e \
     where not exists (select from pg_available_extensions a where a.name = e.extname) order by 1";

/// Looks for the files of all libraries, loading none.
///
/// Errors: the server's.
pub async fn look(instance: &Instance, client: &SqlClient, user: &str) -> Result<Found, PostgresError> {
    let folder = text(&client.query_one("asking for the folder of libraries failed", FOLDER, &[]).await?, 0)?;
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    let (mut missing, mut without_files) = (Vec::new(), Vec::new());
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        for row in client.query("listing libraries failed", LIBRARIES, &[]).await? {
            let (library, extension) = (text(&row, 0)?, text(&row, 1)?);
            let there = match known.get(&library) {
                Some(there) => *there,
                None => is_there(&client, &library, &folder).await?,
            };
            known.insert(library.clone(), there);
            if !there {
                let of = if extension.is_empty() { "functions".to_owned() } else { format!("extension {extension}") };
                missing.push(format!("{of} of database {database}: the library {library} is not on this host"));
            }
        }
        for row in client.query("listing extensions failed", NOT_AVAILABLE, &[]).await? {
            without_files
                .push(format!("extension {} of database {database} has no control file on this host", text(&row, 0)?));
        }
    }
    if let Some(first) = missing.first() {
        let words = format!("{first}; the backup is not at fault: install the extension's package here");
        missing.extend(without_files);
        return Ok(Found::bad(words).with(missing));
    }
    Ok(match without_files.first() {
        Some(first) => {
            Found::odd(format!("{first}: pg_dump or an update of the extension would need it")).with(without_files)
        }
        None => Found::good(format!("{} libraries, all there", known.len())),
    })
}

/// Whether PostgreSQL would find it (`expand_dynamic_library_name` in `dfmgr.c`), with `dynamic_library_path` as it is by default.
async fn is_there(client: &SqlClient, library: &str, folder: &str) -> Result<bool, PostgresError> {
    const DOING: &str = "looking for a library failed";
    let file = path(library, folder);
    for file in [format!("{file}.so"), file] {
        let row = client.query_one(DOING, THERE, &[&file]).await?;
        if row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn path(library: &str, folder: &str) -> String {
    match library.strip_prefix("$libdir") {
        Some(rest) => format!("{folder}{rest}"),
        None if library.contains('/') => library.to_owned(),
        None => format!("{folder}/{library}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_looked_for_where_postgresql_does() {
        let folder = "/usr/lib/postgresql/15/lib";
        assert_eq!(path("$libdir/hstore", folder), format!("{folder}/hstore"));
        assert_eq!(path("hstore", folder), format!("{folder}/hstore"));
        assert_eq!(path("/opt/acme/lib.so", folder), "/opt/acme/lib.so");
    }
}
