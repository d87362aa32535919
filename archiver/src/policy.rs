//! The least that credentials of a bucket must allow, for each who works on a repository: IAM policies, as AWS and what speaks its
//! protocol take them.

use serde_json::{Value, json};
use walseal_common::config::{Config, RepositoryUrl};

/// Who works on a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Worker {
    /// Puts, gets and lists; deletes nothing.
    Archiver,
    /// Removes what retention lets go, and writes down that it does.
    Pruner,
    /// Gets and lists; puts below `ledger/` only.
    Restorer,
    /// A restorer that records what it found.
    Drill,
}

/// There is no policy to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} has no IAM policies; they are for s3:// URLs. In a folder the rights of its files decide")]
pub struct NoPolicies(String);

/// The policy of `worker` for the repository that `config` names.
///
/// Errors: it does not lie in a bucket.
pub fn policy(url: &RepositoryUrl, config: &Config, worker: Worker) -> Result<Value, NoPolicies> {
    let RepositoryUrl::S3 { bucket, prefix } = url else { return Err(NoPolicies(url.to_string())) };
    let base = if prefix.is_empty() { bucket.clone() } else { format!("{bucket}/{prefix}") };
    // Below the prefix lies one folder for each cluster.
    let below = |kinds: &[&str]| -> Vec<String> {
        kinds.iter().map(|kind| format!("arn:aws:s3:::{base}/*/{kind}/*")).collect()
    };
    let all = format!("arn:aws:s3:::{base}/*");
    let locked = config.repository.s3.object_lock.is_some();
    let mut list = json!({ "Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": format!("arn:aws:s3:::{bucket}") });
    if !prefix.is_empty() {
        list["Condition"] = json!({ "StringLike": { "s3:prefix": format!("{prefix}/*") } });
    }
    let get = json!({ "Sid": "Get", "Effect": "Allow", "Action": "s3:GetObject", "Resource": all });
    let put = |resource: Value| {
        // Whoever puts an object with a retention must be allowed to set one.
        let action = if locked { json!(["s3:PutObject", "s3:PutObjectRetention"]) } else { json!("s3:PutObject") };
        json!({ "Sid": "Put", "Effect": "Allow", "Action": action, "Resource": resource })
    };
    let mut statements = vec![list, get];
    match worker {
        Worker::Archiver => statements.push(put(json!(all))),
        Worker::Pruner => {
            statements.push(put(json!(below(&["intent", "ledger", "hold", "pruned"]))));
            // Of a version that is locked nothing here lets anybody remove more than its name.
            statements
                .push(json!({ "Sid": "Delete", "Effect": "Allow", "Action": "s3:DeleteObject", "Resource": all }));
            // That is why it asks first.
            let bucket = format!("arn:aws:s3:::{bucket}");
            statements.push(json!({
                "Sid": "HasLocks", "Effect": "Allow", "Action": "s3:GetBucketObjectLockConfiguration", "Resource": bucket
            }));
            let lock = json!(["s3:GetObjectRetention", "s3:GetObjectLegalHold"]);
            statements.push(json!({ "Sid": "Locks", "Effect": "Allow", "Action": lock, "Resource": all }));
        }
        Worker::Restorer => statements.push(put(json!(below(&["ledger"])))),
        Worker::Drill => {
            let mut kinds = vec!["ledger", "evidence"];
            if config.drill.make_base.value {
                kinds.extend(["base", "lease"]);
            }
            statements.push(put(json!(below(&kinds))));
        }
    }
    Ok(json!({ "Version": "2012-10-17", "Statement": statements }))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn printed(url: &str, more: &str, worker: Worker) -> Value {
        let config = Config::from_toml(&format!("[repository]\nurl = \"{url}\"\n{more}")).expect("a configuration");
        let url = &config.need_repository().expect("set").value;
        policy(url, &config, worker).expect("a policy")
    }

    #[test]
    fn nobody_but_the_pruner_may_delete_and_nobody_may_lift_a_lock() {
        for worker in [Worker::Archiver, Worker::Pruner, Worker::Restorer, Worker::Drill] {
            let text =
                printed("s3://acme-pg/orders", "[repository.s3]\nobject_lock = \"governance\"", worker).to_string();
            assert_eq!(text.contains("s3:DeleteObject\""), worker == Worker::Pruner, "{worker:?}");
            assert!(
                !text.contains("Bypass") && !text.contains("DeleteObjectVersion") && !text.contains("s3:*"),
                "{text}"
            );
            assert!(text.contains("s3:PutObjectRetention"), "{text}");
        }
    }

    #[test]
    fn everything_lies_below_the_prefix() {
        let below = printed("s3://acme-pg/orders", "", Worker::Restorer);
        assert_eq!(below["Statement"][0]["Condition"]["StringLike"]["s3:prefix"], "orders/*");
        assert_eq!(below["Statement"][2]["Resource"], json!(["arn:aws:s3:::acme-pg/orders/*/ledger/*"]));
        let whole = printed("s3://acme-pg", "", Worker::Archiver);
        assert_eq!(whole["Statement"][0].get("Condition"), None);
        assert_eq!(whole["Statement"][2]["Resource"], "arn:aws:s3:::acme-pg/*");
        let config = Config::from_toml("[repository]\nurl = \"file:///srv/walseal\"").expect("a configuration");
        let url = &config.need_repository().expect("set").value;
        policy(url, &config, Worker::Archiver).expect_err("a folder");
    }
}
