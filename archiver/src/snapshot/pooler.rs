//! Poolers that a dump must not go through: in transaction mode each transaction may run in another session, `pg_dump` sets
//! what its own session is like, and whoever gets that session next finds no tables (pgbouncer issues 452 and 976).

use walseal_common::postgres::conninfo::Host;

/// What to do, where `host` is known to be such a pooler.
pub(super) fn direct(host: &Host) -> Option<String> {
    let name = host.name().to_ascii_lowercase();
    if name.ends_with(".pooler.supabase.com") && host.port == 6543 {
        return Some("connect to port 5432 of the same host (session mode), or to db.PROJECT.supabase.co".to_owned());
    }
    let (first, rest) = name.split_once('.')?;
    let stem = first.strip_suffix("-pooler").filter(|_| rest.ends_with("neon.tech"))?;
    Some(format!("connect to {stem}.{rest}"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::postgres::Conninfo;

    use super::*;

    #[test]
    fn poolers_of_transactions_are_known_by_their_names() {
        let said = |text: &str| {
            let conninfo = Conninfo::parse(text, &|_| None).expect("a connection string");
            direct(conninfo.hosts().first().expect("a host"))
        };
        let neon = "postgresql://a@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/db";
        assert_eq!(said(neon).as_deref(), Some("connect to ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech"));
        assert!(said("host=aws-0-eu-west-1.pooler.supabase.com port=6543 user=a").is_some());
        assert_eq!(said("host=aws-0-eu-west-1.pooler.supabase.com port=5432 user=a"), None);
        assert_eq!(said("host=my-pooler.example.net user=a"), None);
        assert_eq!(said("host=/run/postgresql user=a"), None);
    }
}
