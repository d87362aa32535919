//! What transactions did, against what `pg_waldump` says of the same WAL: line by line, and in its sums.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::TimelineId;
use walseal_common::wal::change::{BODY_LIMIT, ChangeWalk, Work, row_change};
use walseal_common::wal::{Event, RecordBody, WalkOptions, Walker};
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::dice::{Dice, USUAL_SEED, number_from};

use crate::dump::{Dump, Line, dump, transaction};
use crate::{Wal, busy_cluster, load};

/// Inserted, updated, deleted.
type Counts = (u64, u64, u64);

/// By file, as `pg_waldump` writes it.
type Rows = BTreeMap<String, Counts>;

/// A transaction by its commit record.
#[derive(Debug, PartialEq, Default)]
struct Told {
    xid: u32,
    rows: Rows,
    removed: Vec<String>,
    dropped: Vec<String>,
}

/// What the lines say, subtransactions counted with the transaction that names them.
fn expected(lines: &[Line]) -> Result<Vec<(Lsn, Told)>> {
    let mut open: BTreeMap<u32, Rows> = BTreeMap::new();
    let mut told = Vec::new();
    for line in lines {
        if let Some((xid, ..)) = transaction(line)? {
            let list = |name: &str| -> Vec<String> {
                let found =
                    line.description.split_once(name).map_or("", |(_, after)| after.split(';').next().unwrap_or(""));
                found.split_whitespace().map(str::to_owned).collect()
            };
            let mut rows = open.remove(&xid).unwrap_or_default();
            for child in list("; subxacts:") {
                for (file, (inserted, updated, deleted)) in open.remove(&child.parse()?).unwrap_or_default() {
                    let sum = rows.entry(file).or_default();
                    *sum = (sum.0.wrapping_add(inserted), sum.1 + updated, sum.2 + deleted);
                }
            }
            if line.kind.starts_with("COMMIT") {
                let (removed, mut dropped) = (list("; rels:"), list("; dropped stats:"));
                // Those of functions are of another kind.
                dropped.retain(|one| one.starts_with("2/"));
                told.push((line.start, Told { xid, rows, removed, dropped }));
            }
            continue;
        }
        if let Some((file, change)) = rows_of(line)? {
            let sum = open.entry(line.xid).or_default().entry(file).or_default();
            *sum = (sum.0.wrapping_add(change.0), sum.1 + change.1, sum.2 + change.2);
        }
    }
    Ok(told)
}

/// What a line says of rows.
fn rows_of(line: &Line) -> Result<Option<(String, Counts)>> {
    let kind = line.kind.trim_end_matches("+INIT");
    let change = match (line.manager.as_str(), kind) {
        ("Heap", "INSERT") => (1, 0, 0),
        ("Heap", "UPDATE" | "HOT_UPDATE") => (0, 1, 0),
        ("Heap", "DELETE") => {
            let flags = line.description.split_once("flags").context("flags")?.1;
            let flags = flags.trim_start_matches([':', ' ']).trim_start_matches("0x");
            let digits: String = flags.chars().take_while(char::is_ascii_hexdigit).collect();
            let flags = u8::from_str_radix(&digits, 16).with_context(|| format!("{line:?}"))?;
            // An insert that is taken back: counted off.
            if flags & 0x08 != 0 {
                (1u64.wrapping_neg(), 0, 0)
            } else if flags & 0x10 != 0 {
                (0, 1, 0)
            } else {
                (0, 0, 1)
            }
        }
        ("Heap2", "MULTI_INSERT") => {
            // "5 tuples flags 0x02" up to 15, then "ntuples: 5, flags: 0x02".
            let rows = line.description.split_once("ntuples:").map_or(line.description.as_str(), |(_, after)| after);
            let digits: String = rows.trim().chars().take_while(char::is_ascii_digit).collect();
            (digits.parse().with_context(|| format!("{line:?}"))?, 0, 0)
        }
        _ => return Ok(None),
    };
    let file = line.blocks.split_once("rel ").context("a block")?.1.split_whitespace().next().context("a file")?;
    Ok(Some((file.to_owned(), change)))
}

/// As [`expected`], by walseal.
fn found(work: &Work) -> Told {
    let mut told = Told { xid: work.end.xid.0, ..Told::default() };
    for (file, done) in &work.relations {
        let rows = (done.rows.inserted, done.rows.updated, done.rows.deleted);
        if rows != (0, 0, 0) {
            told.rows.insert(file.to_string(), rows);
        }
    }
    // Of the default tablespace; `GetRelationPath` writes others otherwise.
    told.removed = work.removed.iter().map(|file| format!("base/{}/{}", file.database, file.number)).collect();
    told.dropped = work.dropped.iter().map(|one| format!("2/{}/{}", one.database, one.oid)).collect();
    told
}

fn compare(wal: &Wal, oracle: &Dump) -> Result<Vec<Work>> {
    let options = WalkOptions { body_limit: Some(BODY_LIMIT), ..WalkOptions::default() };
    let mut walker = Walker::new(wal.start, wal.size, options)?;
    let (mut walk, mut works) = (ChangeWalk::default(), Vec::new());
    let mut kinds: BTreeMap<(String, u8), u64> = BTreeMap::new();
    let version = walseal_common::wal::WalVersion::from_magic(u16::from_le_bytes([wal.bytes[0], wal.bytes[1]]))?;
    // It ends where the WAL does.
    let _ = walker.push(&wal.bytes, |event| {
        if let Event::Record(record) = &event
            && let Some(body) = record.body
            && let Ok(body) = RecordBody::parse(version, body)
            && let Ok(Some(_)) = row_change(record.manager, record.info, &body)
        {
            *kinds.entry((record.manager.to_string(), record.info & 0x70)).or_default() += 1;
        }
        works.extend(walk.add(version, &event));
    });
    let expected = expected(&oracle.lines)?;
    assert_eq!(works.len(), expected.len());
    for (work, (start, told)) in works.iter().zip(&expected) {
        let mut told = Told {
            rows: told.rows.clone(),
            removed: told.removed.clone(),
            dropped: told.dropped.clone(),
            xid: told.xid,
        };
        told.rows.retain(|_, rows| *rows != (0, 0, 0));
        assert_eq!((work.commit, &found(work)), (*start, &told));
        assert_eq!(work.left_out, 0, "{work:?}");
    }
    for ((manager, kind), count) in kinds {
        let name = match (manager.as_str(), kind) {
            ("Heap", 0x00) => "INSERT",
            ("Heap", 0x10) => "DELETE",
            ("Heap", 0x20) => "UPDATE",
            ("Heap", 0x40) => "HOT_UPDATE",
            _ => "MULTI_INSERT",
        };
        let same = |line: &&Line| line.manager == manager && line.kind.trim_end_matches("+INIT") == name;
        assert_eq!(oracle.lines.iter().filter(same).count() as u64, count, "{manager} {name}");
    }
    Ok(works)
}

/// `pg_waldump --stats=record`: records by kind, without what follows `+`.
fn sums(cluster: &Cluster, wal: &Wal, end: Lsn) -> Result<BTreeMap<String, u64>> {
    let call = cluster.client("pg_waldump").arg("-p").arg(&wal.folder).arg("--stats=record");
    let said = call.args(["-s", &wal.start.to_string(), "-e", &end.to_string()]).run()?.success()?;
    let mut sums = BTreeMap::new();
    for line in said.stdout.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(count)) = (words.next(), words.next()) else { continue };
        if let (true, Ok(count)) = (name.contains('/'), count.parse::<u64>()) {
            *sums.entry(name.trim_end_matches("+INIT").to_owned()).or_default() += count;
        }
    }
    Ok(sums)
}

/// As [`sums`], by `pg_walinspect`, of what ended by now; and up to where that is. `None` where the server has no such extension.
fn inspected(cluster: &Cluster, start: Lsn) -> Result<Option<(Lsn, BTreeMap<String, u64>)>> {
    if cluster.value("select count(*) from pg_available_extensions where name = 'pg_walinspect'")? == "0" {
        return Ok(None);
    }
    cluster.sql("create extension pg_walinspect")?;
    let end = cluster.flush_lsn()?;
    let mut sums = BTreeMap::new();
    let query = format!(
        "select \"resource_manager/record_type\", count::text from pg_get_wal_stats('{start}', '{end}', true) where count > 0"
    );
    for row in cluster.sql(&query)? {
        let [Some(name), Some(count)] = &row[..] else { anyhow::bail!("{row:?}") };
        *sums.entry(name.trim_end_matches("+INIT").to_owned()).or_default() += count.parse::<u64>()?;
    }
    Ok(Some((end, sums)))
}

/// Statements that nobody chose, the same for the same seed.
struct Random(Dice);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    fn change(&mut self, rows: &str) -> String {
        let (low, n, table) = (self.below(500), self.below(90) + 1, self.below(3));
        match self.below(11) {
            0 => format!(
                "insert into t{table} select i, 'new' from generate_series({low}, {low} + {n}) i on conflict do nothing"
            ),
            1 => format!("update t{table} set v = v || 'x' where id between {low} and {low} + {n}"),
            2 => format!("delete from t{table} where id between {low} and {low} + {n}"),
            3 => format!(
                "insert into t{table} select i, repeat(md5(i::text), 200) from generate_series({low}, {low} + {n}) i on conflict (id) do update set v = excluded.v"
            ),
            4 => format!("copy loaded from '{rows}'"),
            5 => format!("update parts set at = {} where at = {}", self.below(4), self.below(4)),
            6 => format!("insert into parts select {}, i from generate_series(1, {n}) i", self.below(4)),
            7 => "truncate loaded".to_owned(),
            8 => format!("truncate loaded, t{table}"),
            9 => {
                "drop table if exists gone; create table gone (id int primary key, v text); truncate loaded".to_owned()
            }
            _ => format!("drop table if exists made; create table made as select i from generate_series(1, {n}) i"),
        }
    }

    fn transaction(&mut self, number: usize, rows: &str) -> String {
        let mut script = match self.below(8) {
            0 => return "vacuum (full) t0;\n".to_owned(),
            1 => return "vacuum;\n".to_owned(),
            _ => "begin;\n".to_owned(),
        };
        for _ in 0..self.below(4) + 1 {
            let change = self.change(rows);
            script += &match self.below(4) {
                0 => format!("savepoint s; {change}; rollback to s;\n"),
                1 => format!("savepoint s; {change}; release s;\n"),
                _ => format!("{change};\n"),
            };
        }
        script
            + &match self.below(6) {
                0 => "rollback;\n".to_owned(),
                1 => format!("prepare transaction 'p{number}'; commit prepared 'p{number}';\n"),
                2 => format!("prepare transaction 'p{number}'; rollback prepared 'p{number}';\n"),
                _ => "commit;\n".to_owned(),
            }
    }
}

/// Drops some tables and empties others in one transaction. Returns the files of each of the latter, by name: before and after.
fn drops_and_truncates(cluster: &Cluster) -> Result<Vec<(u32, u32)>> {
    let file = |table: &str| -> Result<u32> {
        Ok(cluster.value(&format!("select pg_relation_filenode('{table}')"))?.parse()?)
    };
    cluster.sql(
        "create table away0 (id int primary key, v text); create table away1 (id int primary key, v text); \
         create table stays0 (id int primary key, v text); create table stays1 (id int primary key, v text); \
         create view sight as select 1 as one",
    )?;
    let emptied = ["stays0", "stays1", "stays0_pkey", "stays1_pkey"];
    let before: Vec<u32> = emptied.iter().map(|table| file(table)).collect::<Result<_>>()?;
    cluster.sql(
        "begin; drop table away0; truncate stays0; savepoint s; drop table if exists made; rollback to s; savepoint s; \
         truncate stays1; release s; drop table away1; create table away0 (a int); commit",
    )?;
    let after: Vec<u32> = emptied.iter().map(|table| file(table)).collect::<Result<_>>()?;
    // Nothing that has a file goes, so that a view leaves nothing open.
    cluster.sql("begin; drop view sight; truncate stays0; commit")?;
    let mut pairs: Vec<(u32, u32)> = before.into_iter().zip(after.iter().copied()).collect();
    pairs.push((after[0], file("stays0")?));
    Ok(pairs)
}

/// Of every removed file it is told whether its relation went with it.
fn files_that_were_replaced(works: &[Work], expected: &[(u32, u32)], major: u16) {
    let pairs = |work: &Work| -> Vec<(u32, u32)> {
        work.replaced.iter().flatten().map(|one| (one.old.number, one.new.number)).collect()
    };
    let all: Vec<(u32, u32)> = works.iter().flat_map(pairs).collect();
    for pair in expected {
        assert!(all.contains(pair), "{pair:?} is not in {all:?}");
    }
    for work in works.iter().filter(|work| !work.removed.is_empty()) {
        let replaced = work.replaced.as_ref().unwrap_or_else(|| panic!("nothing is told of {work:#?}"));
        // Here a commit says itself how many relations went; the view is one, and had no file.
        if major >= 15 {
            let had_none = usize::from(expected.last().is_some_and(|last| pairs(work).contains(last)));
            assert_eq!(work.removed.len() - replaced.len() + had_none, work.dropped.len(), "{work:#?}");
        }
    }
    assert!(works.iter().any(|work| work.replaced.as_ref().is_some_and(Vec::is_empty)), "only drops");
}

fn changes_are_as_pg_waldump_tells_them(major: u16) -> Result<()> {
    let size = SegmentSize::new(1 << 20)?;
    let mut cluster = busy_cluster(major, 1)?;
    load(&cluster)?;
    let rows = cluster.data().join("rows").display().to_string();
    cluster.sql(&format!(
        "create table t0 (id int primary key, v text); create table t1 (id int primary key, v text); \
         create table t2 (id int primary key, v text); create table loaded (a int); \
         create table parts (at int, b int) partition by list (at); \
         create table parts0 partition of parts for values in (0, 1); \
         create table parts1 partition of parts for values in (2, 3); \
         copy (select generate_series(1, 700)) to '{rows}'"
    ))?;
    let seed = number_from("WALSEAL_TEST_SEED", USUAL_SEED)?;
    println!("WALSEAL_TEST_SEED={seed}");
    let mut random = Random(Dice::new(seed));
    let script: String = (0..150).map(|number| random.transaction(number, &rows)).collect();
    let script = cluster.scratch().file("changes.sql", &script)?;
    cluster.psql(&cluster.conninfo()).arg("-f").arg(script).run()?.success()?;
    let replaced = drops_and_truncates(&cluster)?;
    let begin = Wal::read(&cluster, TimelineId::FIRST, size)?.start;
    let inspected = inspected(&cluster, begin)?;
    assert_eq!(inspected.is_some(), major >= 15);
    cluster.stop(Stop::Immediate)?;

    let wal = Wal::read(&cluster, TimelineId::FIRST, size)?;
    let oracle = dump(&cluster, &wal.folder, TimelineId::FIRST, wal.start)?;
    let works = compare(&wal, &oracle)?;
    let last = oracle.lines.last().context("lines")?;
    let sums = sums(&cluster, &wal, Lsn(last.start.0 + 1))?;
    for kind in ["Heap/INSERT", "Heap/DELETE", "Heap/UPDATE", "Heap/HOT_UPDATE", "Heap2/MULTI_INSERT"] {
        let (manager, name) = kind.split_once('/').context("a kind")?;
        let same = |line: &&Line| line.manager == manager && line.kind.trim_end_matches("+INIT") == name;
        let lines = oracle.lines.iter().filter(same).count() as u64;
        ensure!(lines > 0, "the load made no {kind}");
        assert_eq!(sums.get(kind), Some(&lines), "{kind}");
        if let Some((end, sums)) = &inspected {
            let lines = oracle.lines.iter().filter(same).filter(|line| line.start < *end).count() as u64;
            assert_eq!((sums.get(kind), wal.start), (Some(&lines), begin), "{kind}, by pg_walinspect");
        }
    }
    files_that_were_replaced(&works, &replaced, major);
    let new = |name: &str| {
        works.iter().flat_map(|work| &work.new_relations).any(|made| made.name == name && made.kind == 'r')
    };
    ensure!(new("t") && new("t0") && new("made"), "names of relations that were made");
    ensure!(works.iter().flat_map(|work| &work.new_relations).any(|made| made.rewrites().is_some()), "VACUUM FULL");
    if major >= 15 {
        ensure!(works.iter().any(|work| !work.dropped.is_empty()), "dropped relations by OID");
    }
    Ok(())
}

#[test]
fn changes_of_postgres_14_are_as_pg_waldump_tells_them() -> Result<()> {
    changes_are_as_pg_waldump_tells_them(14)
}

#[test]
fn changes_of_postgres_15_are_as_pg_waldump_tells_them() -> Result<()> {
    changes_are_as_pg_waldump_tells_them(15)
}

#[test]
fn changes_of_postgres_16_are_as_pg_waldump_tells_them() -> Result<()> {
    changes_are_as_pg_waldump_tells_them(16)
}

#[test]
fn changes_of_postgres_17_are_as_pg_waldump_tells_them() -> Result<()> {
    changes_are_as_pg_waldump_tells_them(17)
}

#[test]
fn changes_of_postgres_18_are_as_pg_waldump_tells_them() -> Result<()> {
    changes_are_as_pg_waldump_tells_them(18)
}
