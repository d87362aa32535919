//! `restore --table` and `restore --database`: a part of a cluster as it was, as a dump.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use walseal_common::repository::FailureClass;
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Schema, printable, to_json, units};

use super::drill::until_told_to_end;
use super::{plan, restore};
use crate::access::Access;
use crate::extract::catalog::Kind;
use crate::extract::{ExtractError, Extracted, Extraction, Format, Part, QualifiedTable, backups, dump_file};
use crate::instance::Landing;
use crate::plan::{Action, Plan, Request};
use crate::record;
use crate::shell::quoted;

const SCHEMA: Schema = Schema { name: "extract", version: 1 };

/// The flags that no other restore takes.
#[derive(clap::Args, Debug)]
pub struct PartArguments {
    /// Not the cluster but this table, as a dump; may be given several times, for tables of one database
    #[arg(long, value_name = "DATABASE.SCHEMA.TABLE", requires = "into", conflicts_with = "database")]
    table: Vec<QualifiedTable>,
    /// Not the cluster but this database, as a dump
    #[arg(long, value_name = "NAME", requires = "into")]
    database: Option<String>,
    /// The file that the dump goes to; one that is there is never overwritten
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target_dir", "delta", "start", "standby", "tablespace", "tablespace_dir", "waldir",
        "owner", "keep_archiving"])]
    into: Option<PathBuf>,
    /// custom, for pg_restore, or plain, for psql [default: plain for a FILE that ends in .sql, else custom]
    #[arg(long, value_name = "FORMAT", requires = "into", value_parser = format)]
    format: Option<Format>,
    /// Where the whole cluster is restored to for as long as it takes [default: drill.scratch_dir]
    #[arg(long, value_name = "D", requires = "into")]
    scratch_dir: Option<PathBuf>,
}

fn format(word: &str) -> Result<Format, String> {
    let known = [Format::Custom, Format::Plain].into_iter().find(|format| format.word() == word);
    known.ok_or_else(|| "it is custom or plain".to_owned())
}

impl PartArguments {
    /// What is to be taken out; `None` where the whole cluster is to be restored.
    ///
    /// Errors: wrong usage.
    pub fn part(&self) -> Result<Option<Part>, Failure> {
        let wrong = |words: &str| Err(Failure::saying(words).exit(Exit::Usage));
        // Beside --target-dir, which --into excludes, nothing asks for it.
        let part = self.database.is_some() || !self.table.is_empty();
        if self.into.is_none() && (part || self.format.is_some() || self.scratch_dir.is_some()) {
            return wrong(
                "--table, --database, --format and --scratch-dir go with --into FILE, and not with --target-dir",
            );
        }
        if let Some(database) = &self.database {
            return Ok(Some(Part::Database(database.clone())));
        }
        let Some(first) = self.table.first() else {
            return match self.into {
                None => Ok(None),
                Some(_) => {
                    wrong("--into takes a dump: name what of, with --table DATABASE.SCHEMA.TABLE or --database NAME")
                }
            };
        };
        if self.table.iter().any(|table| table.database != first.database) {
            return wrong(
                "the tables are of several databases, and a dump is of one: restore each database's with a command of its own",
            );
        }
        let mut tables = Vec::new();
        for table in &self.table {
            if !tables.contains(&table.table) {
                tables.push(table.table.clone());
            }
        }
        Ok(Some(Part::Tables { database: first.database.clone(), tables }))
    }
}

/// What was taken out, for machines.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    format: &'static str,
    bytes: u64,
    database: &'a str,
    tables: Vec<Table<'a>>,
    restored_bytes: u64,
    plan: &'a Plan,
    landing: &'a Landing,
    warnings: &'a [String],
    next: String,
}

#[derive(Serialize)]
struct Table<'a> {
    schema: &'a str,
    name: &'a str,
    kind: Kind,
    bytes: u64,
    below: usize,
    unlogged: bool,
}

/// Plans, restores to an instance that is thrown away, and dumps from it.
pub async fn run(
    arguments: &restore::Arguments,
    part: Part,
    request: &Request,
    access: &Access,
) -> Result<(), Failure> {
    if request.action != Action::Promote {
        let words = "--action is about a cluster that stays, and goes with --target-dir only";
        return Err(Failure::saying(words).exit(Exit::Usage));
    }
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| Failure::from_error("restore", &error));
    let flags = &arguments.part;
    let file = absolute(&flags.into.clone().unwrap_or_default())?;
    let scratch_dir = match &flags.scratch_dir {
        Some(folder) => absolute(folder)?,
        None => access.config.drill.scratch_dir.value.clone(),
    };
    let format = flags.format.unwrap_or_else(|| Format::of(&file));
    let drills = access.config.drill.pg_bin.as_ref().map(|setting| setting.value.clone());
    let pg_bin = drills.filter(|_| arguments.pg_bin.is_none()).or_else(|| restore::pg_bin(arguments, &access.config));
    let extraction = Extraction { part, file, format, scratch_dir, pg_bin, jobs: restore::jobs(arguments) };
    if arguments.dry_run && arguments.json {
        dump_file::vacant(&extraction.file).map_err(|error| failure(&error))?;
        return plan::run_for(None, request, access, true).await;
    }
    take_out(&extraction, request, access, arguments.dry_run, arguments.json).await
}

/// Plans, takes out what `extraction` says, and shows it; with `dry_run` the plan alone.
pub(super) async fn take_out(
    extraction: &Extraction,
    request: &Request,
    access: &Access,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    // Before WAL is read for the plan.
    dump_file::vacant(&extraction.file).map_err(|error| failure(&error))?;
    let plan = plan::make(access, request).await?;
    let lacking = backups::lacking(access, &plan, &extraction.part).await.map_err(|error| failure(&error.into()))?;
    if !json {
        let words = format!("{}\n{}", plan.explain(), announcement(extraction, &plan, &lacking));
        if dry_run {
            print!("{}", printable(&words));
            return Ok(());
        }
        eprint!("{}", printable(&words));
    }
    let extracted = carry_out(extraction, &plan, access).await?;
    show(extraction, &plan, &extracted, json)
}

/// What will be done, and what it needs for a while.
fn announcement(extraction: &Extraction, plan: &Plan, lacking: &[backups::Lacking]) -> String {
    let free = |path: &std::path::Path| {
        let there = path.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok());
        there.map_or_else(
            || "an unknown amount".to_owned(),
            |found| units::size(found.f_bavail.saturating_mul(found.f_frsize)),
        )
    };
    let folder = extraction.file.parent().unwrap_or(&extraction.file);
    let mut text = format!(
        "The whole cluster is restored to {} for as long as it takes, and removed again: about {} of {} that are free there.\n\
         The dump of {} goes to {}, in {} format: {} are free there.\n",
        extraction.scratch_dir.display(),
        units::size(plan.cost.disk_bytes),
        free(&extraction.scratch_dir),
        what(&extraction.part),
        extraction.file.display(),
        extraction.format.word(),
        free(folder)
    );
    for one in lacking {
        let instead = match one.similar.as_slice() {
            [] => String::new(),
            similar => format!("; it lists {}", similar.join(", ")),
        };
        text.push_str(&format!(
            "Warning: base backup {} lists no {}{instead}. It is looked for all the same: it may have been made later, and views and \
             partitioned tables are not listed.\n",
            plan.base.id, one.what
        ));
    }
    text.push('\n');
    text
}

fn what(part: &Part) -> String {
    match part {
        Part::Database(database) => format!("database {}", crate::extract::name::identifier(database)),
        Part::Tables { database, tables } => {
            let shown = |table: &crate::extract::TableName| {
                QualifiedTable { database: database.clone(), table: table.clone() }.to_string()
            };
            tables.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Does it, and records how that went.
async fn carry_out(extraction: &Extraction, plan: &Plan, access: &Access) -> Result<Extracted, Failure> {
    let begun = Instant::now();
    let ledger = record::ledger(access);
    ledger.record(record::started(plan, &extraction.file));
    let ended = until_told_to_end(extraction.carry_out(plan, access)).await;
    let (act, outcome) = match ended {
        Ok(Some(Ok(extracted))) => {
            let (bytes, landing) = (extracted.restored_bytes, Some(&extracted.landing));
            (record::finished(&extraction.file, bytes, begun.elapsed(), landing), Ok(extracted))
        }
        Ok(Some(Err(error))) => (record::failed(&extraction.file, error.class()), Err(failure(&error))),
        Ok(None) => {
            let words = "the restore was interrupted; nothing of it is left on this host";
            (record::failed(&extraction.file, FailureClass::Stopped), Err(Failure::saying(words)))
        }
        Err(failure) => (record::failed(&extraction.file, FailureClass::Machine), Err(failure)),
    };
    ledger.record(act);
    ledger.finish(record::LAST_ENTRIES).await;
    outcome
}

fn show(extraction: &Extraction, plan: &Plan, extracted: &Extracted, json: bool) -> Result<(), Failure> {
    let next = next(extraction);
    if json {
        let tables = extracted.tables.iter().map(|table| Table {
            schema: &table.name.schema,
            name: &table.name.name,
            kind: table.kind,
            bytes: table.bytes,
            below: table.below.len(),
            unlogged: !table.unlogged.is_empty(),
        });
        let report = Report {
            file: extraction.file.display().to_string(),
            format: extraction.format.word(),
            bytes: extracted.bytes,
            database: extraction.part.database(),
            tables: tables.collect(),
            restored_bytes: extracted.restored_bytes,
            plan,
            landing: &extracted.landing,
            warnings: &extracted.warnings,
            next,
        };
        let text = to_json(SCHEMA, &report).map_err(|error| Failure::from_error("print the report", &error))?;
        show!("{text}");
        return Ok(());
    }
    let mut text = extracted.landing.explain(plan);
    for table in &extracted.tables {
        let below = match table.below.len() {
            0 => String::new(),
            count => format!(", with {count} partition(s) or inheriting table(s)"),
        };
        text.push_str(&format!("{}: {} in the cluster{below}\n", table.name, units::size(table.bytes)));
    }
    for warning in &extracted.warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    text.push_str(&format!(
        "Dumped: {} in {} format to {}, {}. The instance is removed.\n{next}\n",
        what(&extraction.part),
        extraction.format.word(),
        extraction.file.display(),
        units::size(extracted.bytes)
    ));
    print!("{}", printable(&text));
    Ok(())
}

/// How the dump goes back to a server.
fn next(extraction: &Extraction) -> String {
    let (file, database) = (quoted(&extraction.file.to_string_lossy()), extraction.part.database());
    let whole = matches!(extraction.part, Part::Database(_));
    let into = if whole { format!("{database}_restored") } else { database.to_owned() };
    let into = quoted(&into);
    let load = match extraction.format {
        Format::Custom => format!("pg_restore --exit-on-error --dbname={into} {file}"),
        Format::Plain => {
            format!("psql --no-psqlrc --set=ON_ERROR_STOP=1 --single-transaction --dbname={into} --file={file}")
        }
    };
    if whole {
        return format!(
            "To bring it to a server, beside the database that is there:\n  createdb --template=template0 {into}\n  {load}"
        );
    }
    let kept = "A table of the same name must not be there: rename or drop it first. Types, functions and tables that it refers to are not in the dump.";
    format!("To bring it back to a server:\n  {load}\n{kept}")
}

fn failure(error: &ExtractError) -> Failure {
    let shown = match error {
        ExtractError::Refused { .. } | ExtractError::Absent { .. } => Failure::saying(error),
        ExtractError::Rebuild(crate::rebuild::RebuildError::Refused { .. }) => Failure::saying(error),
        _ => Failure::from_error("take it out of the backup", error),
    };
    error.next().into_iter().fold(shown, |failure, step| failure.next(step))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        restore: restore::Arguments,
    }

    fn part(words: &[&str]) -> Result<Option<Part>, String> {
        let all = [&["w", "--to", "latest"], words].concat();
        let program = Program::try_parse_from(all).map_err(|error| error.to_string())?;
        program.restore.part.part().map_err(|failure| failure.to_string())
    }

    #[test]
    fn flags_make_a_part() {
        let table = |name: &str| crate::extract::TableName { schema: "public".to_owned(), name: name.to_owned() };
        let tables = part(&[
            "--table",
            "shop.public.a",
            "--table",
            "shop.public.\"B\"",
            "--table",
            "shop.public.A",
            "--into",
            "x",
        ]);
        let expected = Part::Tables { database: "shop".to_owned(), tables: vec![table("a"), table("B")] };
        assert_eq!(tables, Ok(Some(expected)));
        assert_eq!(part(&["--database", "Shop", "--into", "x"]), Ok(Some(Part::Database("Shop".to_owned()))));
        assert_eq!(part(&["--target-dir", "d"]), Ok(None));
        for (wrong, why) in [
            (&["--table", "shop.public.a"][..], "--into"),
            (&["--table", "orders", "--into", "x"], "DATABASE.SCHEMA.TABLE"),
            (&["--table", "a.b.c", "--table", "d.b.c", "--into", "x"], "several databases"),
            (&["--table", "a.b.c", "--database", "a", "--into", "x"], "cannot be used with"),
            (&["--into", "x"], "name what of"),
            (&["--database", "a", "--into", "x", "--target-dir", "d"], "cannot be used with"),
            (&["--database", "a", "--into", "x", "--start"], "cannot be used with"),
            (&["--database", "a", "--into", "x", "--format", "tar"], "custom or plain"),
            (&["--format", "plain", "--target-dir", "d"], "--into"),
            (&["--table", "a.b.c", "--target-dir", "d"], "--into"),
            (&["--database", "a", "--into", "x", "--delta"], "cannot be used with"),
            (&[], "--target-dir"),
        ] {
            let error = part(wrong).expect_err(why);
            assert!(error.contains(why), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn what_to_type_next_fits_what_was_taken() {
        let extraction = |part: Part, file: &str| {
            let file = PathBuf::from(file);
            let format = Format::of(&file);
            Extraction { part, file, format, scratch_dir: PathBuf::from("/s"), pg_bin: None, jobs: 1 }
        };
        let words = next(&extraction(Part::Database("my shop".to_owned()), "/x/shop.dump"));
        assert!(
            words.contains("createdb --template=template0 'my shop_restored'\n  pg_restore --exit-on-error"),
            "{words}"
        );
        let table = crate::extract::TableName { schema: "public".to_owned(), name: "a".to_owned() };
        let words = next(&extraction(Part::Tables { database: "shop".to_owned(), tables: vec![table] }, "/x/a.SQL"));
        assert!(words.contains("psql --no-psqlrc") && words.contains("--dbname=shop --file=/x/a.SQL"), "{words}");
    }
}
