//! Foreign keys: whether each row that refers to another has it.
//!
//! PostgreSQL itself looks, as it does where a key is added: in a transaction that is rolled back, a key is called one that was
//! not validated yet, and validated.

use walseal_common::postgres::{PostgresError, SqlClient};

use super::{databases, text};
use crate::drill::report::Found;
use crate::instance::Instance;

/// What is expected, in words.
pub const EXPECTED: &str = "every foreign key holds";

/// Keys of tables that have rows of their own, and how many were never validated. Of a key that refers to a partitioned table only
/// the one that was made counts: those that PostgreSQL made of it, one for each partition, hold only together. From 18 on a key may
/// be one that is not enforced.
const KEYS: &str = "select c.oid::text, c.conrelid::regclass::text, quote_ident(c.conname), c.conname::text, c.convalidated::text \
     from pg_constraint c join pg_class r on r.oid = c.conrelid left join pg_constraint p on p.oid = c.conparentid \
     where c.contype = 'f' and r.relkind = 'r' and r.relpersistence <> 't' and p.conrelid is distinct from c.conrelid \
     and coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true) order by 2, 4";

/// `foreign_key_violation`.
const VIOLATED: &str = "23503";

/// Validates all of them.
///
/// Errors: the server's.
pub async fn look(instance: &Instance, client: &SqlClient, user: &str) -> Result<Found, PostgresError> {
    let (mut held, mut broken, mut never) = (0u64, Vec::new(), Vec::new());
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        for row in client.query("listing foreign keys failed", KEYS, &[]).await? {
            let [oid, table, quoted, name] = [text(&row, 0)?, text(&row, 1)?, text(&row, 2)?, text(&row, 3)?];
            if text(&row, 4)? != "true" {
                never.push(format!(
                    "{database}: {name} of {table} was never validated on the server either (NOT VALID)"
                ));
                continue;
            }
            match validate(&client, &oid, &table, &quoted, &name).await? {
                None => held += 1,
                Some(why) => broken.push(format!("{database}: {why}")),
            }
        }
    }
    if let Some(first) = broken.first() {
        let words = format!("{} of {} do not hold: {first}", broken.len(), held + broken.len() as u64);
        return Ok(Found::bad(words).with(broken));
    }
    let words = format!("{held} hold");
    Ok(if never.is_empty() {
        Found::good(words)
    } else {
        Found::good(format!("{words}; {} were never validated", never.len())).with(never)
    })
}

/// Validates one; why it does not hold, where it does not.
async fn validate(
    client: &SqlClient,
    oid: &str,
    table: &str,
    quoted: &str,
    name: &str,
) -> Result<Option<String>, PostgresError> {
    let doing = format!("validating the foreign key {name} of {table} failed");
    client
        .simple_query(&doing, &format!("begin; update pg_constraint set convalidated = false where oid = {oid}"))
        .await?;
    let validated = client.simple_query(&doing, &format!("alter table {table} validate constraint {quoted}")).await;
    client.simple_query(&doing, "rollback").await?;
    match validated {
        Ok(_) => Ok(None),
        Err(PostgresError::Server { error, .. }) if error.sqlstate == VIOLATED => {
            let detail = error.detail.as_deref().unwrap_or_default();
            Ok(Some(format!("{}. {detail}", error.message)))
        }
        Err(error) => Err(error),
    }
}
