//! What the catalogs say: indexes that are not valid, collations that sort otherwise here (case 46).

use walseal_common::postgres::{PostgresError, SqlClient};

use super::{databases, text};
use crate::drill::report::Found;
use crate::instance::Instance;

/// Indexes that PostgreSQL does not use: what an interrupted `CREATE INDEX CONCURRENTLY` leaves.
const INVALID: &str = "select i.indexrelid::regclass::text from pg_index i \
     where not (i.indisvalid and i.indisready and i.indislive) order by 1";

/// Collations that are of another version here, and the indexes that depend on them. The database's own has a version of its own
/// from 15 on.
const COLLATIONS: &str = "select c.collname::text, c.collversion, coalesce(pg_collation_actual_version(c.oid), 'none'), \
     coalesce((select string_agg(distinct d.objid::regclass::text, ', ') from pg_depend d \
       join pg_index i on i.indexrelid = d.objid \
       where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_collation'::regclass and d.refobjid = c.oid), 'none') \
     from pg_collation c where c.collversion is not null \
     and c.collversion is distinct from pg_collation_actual_version(c.oid) order by 1";

const DATABASE_COLLATION: &str = "select 'the database''s own', d.datcollversion, \
     coalesce(pg_database_collation_actual_version(d.oid), 'none'), \
     (select count(*) || ' indexes on text' from pg_index i join pg_class r on r.oid = i.indexrelid \
       where 100 = any(i.indcollation::oid[]) and r.relnamespace <> 'pg_catalog'::regnamespace) \
     from pg_database d where d.datname = current_database() and d.datcollversion is not null \
     and d.datcollversion is distinct from pg_database_collation_actual_version(d.oid)";

/// Indexes that are not valid. They were so before, so that they are no fault of the backup.
///
/// Errors: the server's.
pub async fn invalid_indexes(instance: &Instance, client: &SqlClient, user: &str) -> Result<Found, PostgresError> {
    let mut invalid = Vec::new();
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        for row in client.query("reading pg_index failed", INVALID, &[]).await? {
            invalid.push(format!("{database}: {}", text(&row, 0)?));
        }
    }
    match invalid.len() {
        0 => Ok(Found::good("all are valid")),
        count => {
            Ok(Found::odd(format!("{count} not valid, as on the server: reindex or drop them there")).with(invalid))
        }
    }
}

/// Collations whose version here is another than where the indexes were built.
///
/// Errors: the server's.
pub async fn collations(instance: &Instance, client: &SqlClient, user: &str) -> Result<Found, PostgresError> {
    let mut other = Vec::new();
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        let mut rows = client.query("reading pg_collation failed", COLLATIONS, &[]).await?;
        if client.server_version_num() >= 150_000 {
            rows.extend(client.query("reading pg_database failed", DATABASE_COLLATION, &[]).await?);
        }
        for row in rows {
            let [name, was, is, indexes] = [text(&row, 0)?, text(&row, 1)?, text(&row, 2)?, text(&row, 3)?];
            other.push(format!("{database}: collation {name}: {was} there, {is} here; indexes at risk: {indexes}"));
        }
    }
    match other.len() {
        0 => Ok(Found::good("all are of the versions that the indexes were built with")),
        count => {
            let words = format!("{count} of another version on this host: a cluster that goes live here needs REINDEX");
            Ok(Found::odd(words).with(other))
        }
    }
}
