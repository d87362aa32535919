//! Foreign keys: whether each row that refers to another has it.
//!
//! PostgreSQL itself looks, as it does where a key is added: in a transaction that is rolled back, each is added once more.

use walseal_common::postgres::{PostgresError, SqlClient};

use super::{databases, text};
use crate::drill::report::Found;
use crate::instance::Instance;

/// What is expected, in words.
pub const EXPECTED: &str = "every foreign key holds";

/// Keys of tables that have rows of their own, as they would be added, and whether they were ever validated. Of a key that refers to a
/// partitioned table only the one that was made counts: those that PostgreSQL made of it, one for each partition, hold only together.
/// From 18 on a key may be one that is not enforced.
const KEYS: &str = "select c.conrelid::regclass::text, c.conname::text, pg_get_constraintdef(c.oid), c.convalidated::text \
     from pg_constraint c join pg_class r on r.oid = c.conrelid left join pg_constraint p on p.oid = c.conparentid \
     where c.contype = 'f' and r.relkind = 'r' and r.relpersistence <> 't' and p.conrelid is distinct from c.conrelid \
     and coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true) order by 1, 2";

/// `foreign_key_violation`.
const VIOLATED: &str = "23503";

/// What keys are called that are added to look.
const NAME: &str = "walseal_drill";

/// How the keys of some databases hold.
#[derive(Debug, Default)]
struct Tally {
    held: u64,
    broken: Vec<String>,
    never: Vec<String>,
}

/// Looks at those of all databases.
///
/// Errors: the server's.
pub async fn look(instance: &Instance, client: &SqlClient, user: &str) -> Result<Found, PostgresError> {
    let mut tally = Tally::default();
    for database in databases(client).await? {
        let client = instance.connect(user, &database).await?;
        tally.look(&client, &format!("{database}: ")).await?;
    }
    Ok(tally.found())
}

/// Looks at those of the database that `client` is connected to.
///
/// Errors: the server's.
pub async fn look_here(client: &SqlClient) -> Result<Found, PostgresError> {
    let mut tally = Tally::default();
    tally.look(client, "").await?;
    Ok(tally.found())
}

impl Tally {
    /// What is told of a key begins with `place`.
    async fn look(&mut self, client: &SqlClient, place: &str) -> Result<(), PostgresError> {
        for row in client.query("listing foreign keys failed", KEYS, &[]).await? {
            let [table, name, definition] = [text(&row, 0)?, text(&row, 1)?, text(&row, 2)?];
            if text(&row, 3)? != "true" {
                self.never
                    .push(format!("{place}{name} of {table} was never validated on the server either (NOT VALID)"));
                continue;
            }
            match add(client, &table, &name, &definition).await? {
                None => self.held += 1,
                Some(why) => self.broken.push(format!("{place}{why}")),
            }
        }
        Ok(())
    }

    fn found(self) -> Found {
        let Tally { held, broken, never } = self;
        if let Some(first) = broken.first() {
            let words = format!("{} of {} do not hold: {first}", broken.len(), held + broken.len() as u64);
            return Found::bad(words).with(broken);
        }
        let words = format!("{held} hold");
        match never.len() {
            0 => Found::good(words),
            never_held => Found::good(format!("{words}; {never_held} were never validated")).with(never),
        }
    }
}

/// Adds one again, which looks at each row; why it does not hold, where it does not.
async fn add(client: &SqlClient, table: &str, name: &str, definition: &str) -> Result<Option<String>, PostgresError> {
    let doing = format!("validating the foreign key {name} of {table} failed");
    client.simple_query(&doing, "begin").await?;
    let added = client.simple_query(&doing, &format!("alter table {table} add constraint {NAME} {definition}")).await;
    client.simple_query(&doing, "rollback").await?;
    match added {
        Ok(_) => Ok(None),
        Err(PostgresError::Server { error, .. }) if error.sqlstate == VIOLATED => {
            let (detail, said) = (error.detail.as_deref().unwrap_or_default(), error.message.replace(NAME, name));
            Ok(Some(format!("{said}. {detail}")))
        }
        Err(error) => Err(error),
    }
}
