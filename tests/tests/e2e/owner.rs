//! Whoever owns the bucket can delete, replace and hide, but not unnoticed: each attack, and who tells of it by what name.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::site::Site;
use walseal_tests::store::Place;

use crate::{drill, flow};

/// What is written in place of an object; `None`: it is deleted.
type Changes = BTreeMap<String, Option<Vec<u8>>>;

/// What a program says of it.
#[derive(Debug)]
enum Says {
    /// It fails, with this.
    Fails(&'static str),
    /// It succeeds, and says this.
    Warns(&'static str),
    /// It succeeds without a word: what was asked for does not need what was attacked.
    Nothing,
}

struct Attack {
    name: &'static str,
    changes: fn(&Owner) -> Result<Changes>,
    /// Kinds of flaws that `verify` names, and what their objects' names begin with; nothing else is wrong.
    verify: &'static [(&'static str, &'static str)],
    /// `plan --to latest`.
    plan: Says,
    /// A drill to the latest moment: the kind of check that is red, and what it found.
    drill: Option<(&'static str, &'static str)>,
}

/// The attacks, in the words of those who fear them.
const ATTACKS: &[Attack] = &[
    Attack {
        name: "an object of the newest base backup is deleted",
        changes: |owner| Ok(BTreeMap::from([(owner.newest("/data/")?, None)])),
        verify: &[("missing", "base/")],
        plan: Says::Fails(" is missing"),
        drill: Some(("restore", "base/")),
    },
    Attack {
        name: "a segment of WAL is deleted",
        changes: |owner| Ok(BTreeMap::from([(owner.needed_segment()?, None)])),
        verify: &[("hole", "wal/")],
        plan: Says::Fails("missing"),
        drill: Some(("plan", "missing")),
    },
    Attack {
        name: "the newest label is replaced by an older one",
        changes: |owner| {
            let labels = owner.keys("/label")?;
            let (old, new) = (labels.first().context("two labels")?, labels.last().context("two labels")?);
            Ok(BTreeMap::from([(new.clone(), Some(owner.read(old)?))]))
        },
        verify: &[("misplaced", "base/")],
        plan: Says::Warns("base/"),
        drill: None,
    },
    Attack {
        name: "two segments of WAL are swapped",
        changes: |owner| owner.swapped(&owner.needed_segment()?, &owner.first("/wal/")?),
        verify: &[("misplaced", "wal/"), ("misplaced", "wal/")],
        plan: Says::Nothing,
        drill: Some(("recovery", "")),
    },
    Attack {
        name: "two objects of base backups are swapped",
        changes: |owner| owner.swapped(&owner.newest("/data/")?, &owner.first("/data/")?),
        verify: &[("misplaced", "base/"), ("misplaced", "base/")],
        plan: Says::Fails(" bytes instead of "),
        drill: Some(("restore", "base/")),
    },
    Attack {
        name: "the ledger is truncated",
        changes: |owner| Ok(BTreeMap::from([(owner.newest("/ledger/")?, None)])),
        verify: &[("cut-off", "ledger/")],
        plan: Says::Nothing,
        drill: None,
    },
    Attack {
        name: "the end of the WAL is truncated",
        changes: |owner| owner.without(&["/tail/", "/frontier/"]),
        verify: &[("cut-off", "wal/")],
        plan: Says::Warns("CUT OFF: wal/"),
        drill: Some(("plan", "1 end was cut off")),
    },
    Attack {
        name: "the newest base backup is hidden",
        changes: |owner| {
            let label = owner.newest("/label")?;
            owner.without(&[label.strip_suffix("label").context("a label's name")?])
        },
        verify: &[("missing", "base/")],
        plan: Says::Warns("CUT OFF: base/"),
        drill: Some(("plan", "1 end was cut off")),
    },
];

/// With keys that everybody may have.
const FORGERIES: &[Attack] = &[
    Attack {
        name: "a segment of WAL is forged with the public key",
        changes: |owner| {
            let key = owner.needed_segment()?;
            let forged = owner.forged.get(&key).context("the forger has the same segment")?;
            Ok(BTreeMap::from([(key, Some(forged.clone()))]))
        },
        verify: &[("untrusted", "wal/")],
        plan: Says::Fails("is not a trusted writer"),
        drill: Some(("target", "is not a trusted writer")),
    },
    Attack {
        name: "a whole base backup is forged with the public key",
        changes: |owner| {
            let base = owner.forged.iter().filter(|(key, _)| key.contains("/base/"));
            Ok(base.map(|(key, bytes)| (key.clone(), Some(bytes.clone()))).collect())
        },
        verify: &[("untrusted", "base/")],
        plan: Says::Warns("cannot be used: written by "),
        drill: None,
    },
];

/// Somebody who may do everything in the bucket, and has what is public.
struct Owner {
    site: Site,
    /// What he made of the same cluster with the same recipients, and a key of his own.
    forged: BTreeMap<String, Vec<u8>>,
}

impl Owner {
    fn begin() -> Result<Owner> {
        let mut site = drill::site(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"))?;
        site.restorer.set_text("cluster.state_dir", &site.scratch.dir("remembered")?.to_string_lossy());
        site.restorer.write_config()?;
        let mut daemon = site.start_daemon()?;
        site.cluster.sql("create table t (a int)")?;
        for _ in 0..2 {
            site.cluster.sql("insert into t select g from generate_series(1, 1000) g; select pg_switch_wal()")?;
            site.archiver.run_long(&["backup", "--full"])?.success()?;
        }
        let forged = forge(&site)?;
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql("insert into t values (-3)")?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        Ok(Owner { site, forged })
    }

    fn keys(&self, part: &str) -> Result<Vec<String>> {
        let objects = self.site.place.list()?.into_iter().map(|object| object.key);
        Ok(objects.filter(|key| key.contains(part)).collect())
    }

    fn first(&self, part: &str) -> Result<String> {
        self.keys(part)?.into_iter().next().with_context(|| format!("no {part}"))
    }

    fn newest(&self, part: &str) -> Result<String> {
        self.keys(part)?.pop().with_context(|| format!("no {part}"))
    }

    /// The last segment that the forger has, too: recovery from any base backup needs it.
    fn needed_segment(&self) -> Result<String> {
        let wal = self.keys("/wal/")?.into_iter().filter(|key| self.forged.contains_key(key));
        wal.max().context("a segment that both have")
    }

    fn read(&self, key: &str) -> Result<Vec<u8>> {
        self.site.place.read(&self.site.scratch, key)
    }

    fn swapped(&self, one: &str, other: &str) -> Result<Changes> {
        ensure!(one != other, "two objects");
        Ok(BTreeMap::from([(one.to_owned(), Some(self.read(other)?)), (other.to_owned(), Some(self.read(one)?))]))
    }

    fn without(&self, parts: &[&str]) -> Result<Changes> {
        let mut changes = Changes::new();
        for part in parts {
            changes.extend(self.keys(part)?.into_iter().map(|key| (key, None)));
        }
        ensure!(!changes.is_empty(), "nothing to hide");
        Ok(changes)
    }

    /// Makes these changes. Returns what undoes them.
    fn change(&self, changes: &Changes) -> Result<Changes> {
        let (place, scratch) = (&self.site.place, &self.site.scratch);
        let there = self.keys("")?;
        let mut undo = Changes::new();
        for (key, bytes) in changes {
            let old = there.contains(key).then(|| self.read(key)).transpose()?;
            match bytes {
                Some(bytes) => place.write(scratch, key, bytes)?,
                None => place.remove(key)?,
            }
            undo.insert(key.clone(), old);
        }
        Ok(undo)
    }

    /// What differs from what the table says; nothing where it is right.
    fn tries(&self, attack: &Attack) -> Result<Vec<String>> {
        let undo = self.change(&(attack.changes)(self)?)?;
        let mut wrong = Vec::new();
        let mut judge = |what: String, right: bool| {
            if !right {
                wrong.push(format!("{}: {what}", attack.name));
            }
        };
        let found = self.site.archiver.run_long(&["verify", "--json"])?.json()?;
        let kinds = flaws(&found);
        let is = |(kind, object): &(String, String), told: &(&str, &str)| kind == told.0 && object.starts_with(told.1);
        let all = attack.verify.iter().all(|told| kinds.iter().any(|found| is(found, told)));
        let only = kinds.iter().all(|(_, object)| attack.verify.iter().any(|(_, prefix)| object.starts_with(prefix)));
        let agree = all && only && kinds.len() >= attack.verify.len();
        judge(format!("verify finds {kinds:?}"), agree);
        let status = self.site.archiver.run(&["status", "--json"])?.json()?;
        judge(format!("status says {}", status["verified"]), status["verified"]["flaws"].as_u64() > Some(0));

        let planned = self.site.restorer.run(&["plan", "--to", "latest"])?;
        let right = match attack.plan {
            Says::Fails(why) => planned.code == Some(1) && planned.stderr.contains(why),
            Says::Warns(why) => {
                let mut warnings = planned.stdout.lines().filter(|line| line.contains("Warning"));
                planned.code == Some(0) && warnings.any(|line| line.contains(why))
            }
            Says::Nothing => planned.code == Some(0) && !planned.stdout.contains("Warning"),
        };
        judge(format!("plan says {planned}"), right);

        let (finished, report) = drill::drill(&self.site.restorer, &[])?;
        let red: Vec<&Value> =
            report["checks"].as_array().into_iter().flatten().filter(|check| check["outcome"] == "failed").collect();
        let right = match attack.drill {
            None => finished.code == Some(0) && red.is_empty(),
            Some((kind, why)) => {
                let told = |check: &&Value| check["kind"] == kind && check["found"].to_string().contains(why);
                finished.code == Some(1) && !red.is_empty() && red.iter().all(told)
            }
        };
        judge(format!("the drill finds {red:#?}"), right);
        self.change(&undo)?;
        Ok(wrong)
    }
}

/// What `verify` found: kinds and objects.
fn flaws(found: &Value) -> Vec<(String, String)> {
    let text = |flaw: &Value, field: &str| flaw[field].as_str().unwrap_or_default().to_owned();
    found["flaws"].as_array().into_iter().flatten().map(|flaw| (text(flaw, "kind"), text(flaw, "object"))).collect()
}

/// What an archiver of the same cluster makes that seals to the same recipients, with a repository and a writer key of its own.
fn forge(site: &Site) -> Result<BTreeMap<String, Vec<u8>>> {
    let place = Place::Directory(site.target("forged"));
    let mut forger = site.archiver.clone();
    forger.keygen("forger.key")?;
    forger.set_text("cluster.name", "forger");
    forger.set_text("cluster.state_dir", &site.scratch.dir("forger")?.to_string_lossy());
    forger.set_text("repository.url", &place.url());
    forger.set_text("keys.writer_key_file", &forger.folder().join("forger.key").to_string_lossy());
    // In the same folder: the other one's is written again below.
    forger.write_config()?;
    forger.run(&["init"])?.success()?;
    site.cluster.sql("insert into t values (-2); select pg_switch_wal()")?;
    forger.run_long(&["backup"])?.success()?;
    site.archiver.write_config()?;
    let objects = place.list()?;
    objects.into_iter().map(|object| Ok((object.key.clone(), place.read(&site.scratch, &object.key)?))).collect()
}

/// Each attack is told by everybody whom the table names, and by nobody else; when all are undone nothing is wrong.
fn are_told(attacks: &[Attack]) -> Result<()> {
    let owner = Owner::begin()?;
    // So that both hosts have seen all of it.
    owner.site.archiver.run_long(&["verify"])?.success()?;
    owner.site.restorer.run_long(&["verify"])?.success()?;
    let mut wrong = Vec::new();
    for attack in attacks {
        // What was done before is undone, and what was recorded since is seen.
        owner.site.archiver.run(&["verify", "--quick"])?.success()?;
        let tried = owner.tries(attack).with_context(|| attack.name);
        wrong.extend(tried.unwrap_or_else(|error| vec![format!("{error:#}")]));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (finished, _) = drill::drill(&owner.site.restorer, &[])?;
    finished.success()?;
    Ok(())
}

#[test]
fn whatever_the_owner_of_a_bucket_does_is_told_by_whom_it_concerns() -> Result<()> {
    are_told(ATTACKS)
}

#[test]
fn whatever_is_forged_with_the_public_key_is_told_by_whom_it_concerns() -> Result<()> {
    are_told(FORGERIES)
}
