//! The recovery card: what a stranger would need to get the data back, beside an identity file.

use std::fmt::Write as _;

use walseal_common::config::{Config, RepositoryUrl};
use walseal_common::repository::RepositoryIdentity;
use walseal_common::seal::{Recipient, TrustedWriters};

/// The card's text.
///
/// It has no secret on it, and so it can be printed and hung up.
pub fn card(
    config: &Config,
    identity: &RepositoryIdentity,
    recipients: &[Recipient],
    writers: &TrustedWriters,
    host: &str,
) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(url) = &config.repository.url {
        rows.push(("repository", url.value.to_string()));
        match &url.value {
            RepositoryUrl::S3 { .. } => s3_rows(config, &mut rows),
            RepositoryUrl::Directory { .. } => {
                rows.push(("host", format!("{host}: it is a folder there, on whatever is mounted there")));
            }
            RepositoryUrl::Sftp { .. } => {}
        }
    }
    rows.push(("cluster", format!("{} (PostgreSQL {})", identity.cluster, identity.postgres_major)));
    rows.extend(recipients.iter().map(|recipient| ("recipient", format!("{recipient} ({})", recipient.id()))));
    for writer in writers.iter() {
        let roles = writer.roles.iter().map(|role| role.word()).collect::<Vec<_>>().join(", ");
        let row = ("writer", format!("{} ({roles})", writer.key));
        // This archiver's own may stand in the configuration, too.
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.push(("format", format!("{}, walseal {}", identity.format, env!("CARGO_PKG_VERSION"))));
    rows.push(("made on", host.to_owned()));
    let mut text =
        "RECOVERY CARD: keep it where the server is not, with an identity file (the secret half of a recipient)."
            .to_owned();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {name:<13} {value}");
    }
    if recipients.len() == 1 {
        text.push_str(
            "\n  There is only one recipient: if its identity is lost, so is every backup. Add a second one, kept offline.",
        );
    }
    text
}

/// How the bucket is reached, as it is configured here: without it the URL alone leads nowhere.
fn s3_rows(config: &Config, rows: &mut Vec<(&str, String)>) {
    let s3 = &config.repository.s3;
    let set = |setting: &Option<walseal_common::config::Setting<String>>| {
        setting.as_ref().map(|setting| setting.value.clone())
    };
    let endpoint = set(&s3.endpoint);
    let region = set(&s3.region).or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
    rows.push(("endpoint", endpoint.unwrap_or_else(|| "AWS itself, by region".to_owned())));
    rows.push((
        "region",
        region.unwrap_or_else(|| "as the AWS settings of this host say; write it down here".to_owned()),
    ));
    rows.push(("path style", s3.uses_path_style().to_string()));
    if let Some(file) = &s3.ca_file {
        let what = format!("{}: the endpoint's certificate needs it; keep a copy with this card", file.value.display());
        rows.push(("ca file", what));
    }
    rows.push(("credentials", "not here: any that may list and get below the URL".to_owned()));
}

#[cfg(test)]
mod tests {
    use walseal_common::seal::{Identity, TrustedWriter, WriterKey};
    use walseal_common::segment::SegmentSize;
    use walseal_common::store::Capabilities;
    use walseal_common::timeline::SystemIdentifier;

    use super::*;

    fn of(toml: &str) -> String {
        let identity = RepositoryIdentity {
            format: 1,
            cluster: SystemIdentifier(7),
            postgres_major: 15,
            segment_size: SegmentSize::DEFAULT,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let recipient = Identity::generate().expect("random bytes").recipient().clone();
        let writer = TrustedWriter::archiver(WriterKey::generate().expect("random bytes").public());
        let config = Config::from_toml(toml).expect("a configuration");
        let twice = TrustedWriters::new(vec![writer.clone(), writer]);
        let card = card(&config, &identity, &[recipient], &twice, "db1.example.net");
        assert_eq!(card.matches("walsealw1").count(), 1, "{card}");
        card
    }

    fn has(card: &str, lines: &[&str]) {
        for line in lines {
            assert!(card.lines().any(|seen| seen.starts_with(&format!("  {line}"))), "{line:?} is not on\n{card}");
        }
    }

    #[test]
    fn a_card_of_a_bucket_says_how_it_is_reached_and_no_secret() {
        let card = of(
            "[repository]\nurl = \"s3://acme-pg/orders\"\n[repository.s3]\nendpoint = \"https://s3.example.net\"\n\
                       ca_file = \"/etc/ssl/s3.pem\"\naccess_key_id = \"WALSEALORDERS\"\nsecret_access_key = \"hunter2\"",
        );
        has(
            &card,
            &[
                "repository    s3://acme-pg/orders",
                "endpoint      https://s3.example.net",
                "region        us-east-1",
                "path style    true",
                "ca file       /etc/ssl/s3.pem: ",
                "credentials   not here",
                "cluster       7 (PostgreSQL 15)",
                "recipient     walseal1",
                "writer        walsealw1",
                "format        1, walseal ",
                "There is only one recipient",
            ],
        );
        assert!(!card.contains("hunter2") && !card.contains("WALSEALORDERS"), "{card}");
        let aws = of("[repository]\nurl = \"s3://acme-pg/orders\"\n[repository.s3]\nregion = \"eu-central-1\"");
        has(&aws, &["endpoint      AWS itself", "region        eu-central-1", "path style    false"]);
    }

    #[test]
    fn a_card_of_a_folder_names_the_host_that_has_it() {
        has(
            &of("[repository]\nurl = \"file:///srv/walseal\""),
            &["repository    file:///srv/walseal", "host          db1.example.net: "],
        );
    }
}
