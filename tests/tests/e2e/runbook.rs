//! docs/RUNBOOK.md, followed word by word: the commands are those of the page, and what they print is what it says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::patroni::Patroni;
use walseal_tests::scratch::Scratch;
use walseal_tests::session::Session;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::store::Place;

use crate::drill::scratch_dir;
use crate::flow::SLOT;
use crate::{flow, restored};

const RUNBOOK: &str = include_str!("../../../docs/RUNBOOK.md");

/// The server's time, as `--to` takes it.
const NOW: &str = "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Settings of a recovery that a copy of the server would inherit.
const INHERITED: &str = "select coalesce(string_agg(name, ' '), '') from pg_file_settings where sourcefile like '%postgresql.auto.conf' \
                         and setting <> '' and name ~ '^(recovery_|restore_command)'";

/// What stands for anything, in what the page says that is printed.
const ANYTHING: &str = "…";

/// Commands that are typed together, and what they print, where the page says it.
#[derive(Debug, Default)]
struct Step {
    commands: Vec<String>,
    prints: Option<Vec<String>>,
}

/// The steps of the page with this title.
fn page(title: &str) -> Result<Vec<Step>> {
    let heading = format!("## {title}");
    let lines = RUNBOOK.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let (mut steps, mut block): (Vec<Step>, Option<&str>) = (Vec::new(), None);
    for line in lines {
        match (block, line.strip_prefix("```")) {
            (None, Some("sh")) => {
                block = Some("sh");
                steps.push(Step::default());
            }
            (None, Some("text")) => {
                block = Some("text");
                steps.last_mut().context("something was typed before")?.prints = Some(Vec::new());
            }
            (None, Some(_)) => block = Some("other"),
            (Some(_), Some(_)) => block = None,
            (Some("sh"), None) => steps.last_mut().context("a step")?.commands.push(line.to_owned()),
            (Some("text"), None) => {
                steps.last_mut().and_then(|step| step.prints.as_mut()).context("a step")?.push(line.to_owned());
            }
            _ => {}
        }
    }
    ensure!(!steps.is_empty(), "the runbook has no page {title:?} with commands");
    Ok(steps)
}

/// Somebody at a terminal of a site's hosts.
struct Operator {
    bin: PathBuf,
    /// Words of the page, and what they are here; longer ones first.
    here: Vec<(String, String)>,
    daemon: Option<Daemon>,
}

impl Operator {
    fn new(site: &Site, here: &[(&str, String)]) -> Result<Operator> {
        let bin = site.scratch.dir("bin")?;
        for (name, side) in [("walseal-restorer", &site.restorer), ("walseal-archiver", &site.archiver)] {
            let text =
                format!("#!/bin/sh\nexec {} --config {} \"$@\"\n", side.program().display(), side.config().display());
            let script = site.scratch.file(&format!("bin/{name}"), &text)?;
            std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o700))?;
        }
        // Everything runs as the server's user here: `runuser -u postgres -- …` has nothing left to do.
        let script = site.scratch.file("bin/runuser", "#!/bin/sh\nshift 3\nexec \"$@\"\n")?;
        std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o700))?;
        let major = site.cluster.server().major();
        let mut here: Vec<(String, String)> =
            here.iter().map(|(word, text)| ((*word).to_owned(), text.clone())).collect();
        here.push(("PostgreSQL 15".to_owned(), format!("PostgreSQL {major}")));
        here.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Ok(Operator { bin, here, daemon: None })
    }

    /// Types `answers` whenever this program asks.
    fn answering(&self, name: &str, site: &Site, program: &Path, answers: &str) -> Result<()> {
        let text = format!("#!/bin/sh\nprintf '{answers}' | {} \"$@\"\n", program.display());
        let script = site.scratch.file(&format!("bin/{name}"), &text)?;
        Ok(std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o700))?)
    }

    fn said_here(&self, line: &str) -> String {
        self.here.iter().fold(line.to_owned(), |line, (word, text)| line.replace(word, text))
    }

    /// Types the commands of a step, one after another, and compares what they print, which it returns, with the page.
    fn follow(&mut self, site: &Site, step: &Step) -> Result<String> {
        let cluster = &site.cluster;
        let path = format!("{}:{}:/usr/local/bin:/usr/bin:/bin", self.bin.display(), cluster.server().bin().display());
        let mut printed = String::new();
        for command in &step.commands {
            if command == "systemctl start walseal-archiver" {
                self.daemon = Some(site.start_daemon()?);
                continue;
            }
            let call = site.scratch.call("/bin/sh").arg("-c").arg(self.said_here(command)).env("PATH", &path);
            let call = call.env("PGHOST", cluster.sockets()).env("PGPORT", cluster.port().to_string());
            let call = call.env("PGUSER", &site.scratch.account().name).within(PATIENCE * 2);
            printed.push_str(&call.run()?.success()?.stdout);
        }
        let Some(prints) = &step.prints else { return Ok(printed) };
        let prints: Vec<String> = prints.iter().map(|line| self.said_here(line)).collect();
        agrees(&prints, &printed)
            .with_context(|| format!("{:?} printed:\n{printed}\nnot:\n{}", step.commands, prints.join("\n")))?;
        Ok(printed)
    }
}

/// Whether what was printed is what the page says: line by line, but for blanks, and for what `…` stands for. Alone on a line that is
/// any number of lines.
fn agrees(prints: &[String], printed: &str) -> Result<()> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let filled = |lines: Vec<String>| lines.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let expected = filled(prints.iter().map(|line| words(line)).collect());
    let mut actual = filled(printed.lines().map(words).collect()).into_iter();
    let mut skips = false;
    for line in &expected {
        if line == ANYTHING {
            skips = true;
            continue;
        }
        let found =
            if skips { actual.find(|one| fits(line, one)) } else { actual.next().filter(|one| fits(line, one)) };
        ensure!(found.is_some(), "nothing printed is {line:?}");
        skips = false;
    }
    let rest: Vec<String> = actual.collect();
    ensure!(skips || rest.is_empty(), "the page does not tell of {rest:?}");
    Ok(())
}

/// Whether a line is what `pattern` says.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split(ANYTHING).map(str::trim);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn what_is_printed_is_compared_line_by_line() {
    let page = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (expected, printed) in [
        ("a\n\nb … d", "a\nb   c d\n"),
        ("a\n…", "a\nb\nc"),
        ("…\nc", "a\nb\nc"),
        ("…\nb …\n…", "a\nb 7\nc"),
        ("… is …", "this is that"),
    ] {
        agrees(&page(expected), printed).expect(expected);
    }
    for (expected, printed) in [("a", "a\nb"), ("a\nb", "a\nc\nb"), ("a … d", "a b c"), ("…\nz\n…", "a\nb"), ("b", "")]
    {
        agrees(&page(expected), printed).expect_err(expected);
    }
}

/// A cluster with a database `shop`, a base backup and a row after it, all durable.
fn shop() -> Result<(Site, Daemon)> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create database shop")?;
    let shop = session(&site)?;
    shop.rows("create table orders (id int primary key); insert into orders select generate_series(1, 1000)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    shop.rows("insert into orders values (1001)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    Ok((site, daemon))
}

fn session(site: &Site) -> Result<Session> {
    Session::connect(&site.cluster.conninfo().replace("dbname=postgres", "dbname=shop"))
}

#[test]
fn the_page_3_am_is_followed_on_a_destroyed_primary() -> Result<()> {
    let (mut site, daemon) = shop()?;
    site.cluster.destroy()?;
    daemon.sigterm()?;
    let data = site.cluster.data().to_string_lossy().into_owned();
    let mut operator = Operator::new(&site, &[("/var/lib/postgresql/15/main", data.clone())])?;
    for step in page("3 a.m.: the primary is gone")? {
        operator.follow(&site, &step)?;
    }
    assert_eq!(session(&site)?.value("select count(*) from orders")?, "1001");
    let gaps = site.archiver.run(&["status", "--json"])?.json()?["gaps"].clone();
    assert_eq!(gaps, serde_json::json!([]), "it goes on in the same repository, without a gap");
    assert_eq!(site.cluster.value(INHERITED)?, "", "a standby that is copied from it would inherit these");
    let mut daemon = operator.daemon.take().context("the page starts it")?;
    session(&site)?.rows("insert into orders values (1002)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let stop = site.cluster.client("pg_ctl").args(["stop", "-s", "-m", "fast", "-D", &data]);
    stop.within(PATIENCE * 2).run()?.success()?;
    daemon.sigterm()?;
    Ok(())
}

#[test]
fn the_page_under_patroni_takes_all_of_a_cluster_back_to_before_a_dropped_table() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut patroni = Patroni::start(&scratch)?;
    under_patroni(&scratch, &mut patroni).with_context(|| patroni.said())
}

fn under_patroni(scratch: &Scratch, patroni: &mut Patroni) -> Result<()> {
    let slots = serde_json::json!({ SLOT: { "type": "physical" } });
    patroni.edit_config(&serde_json::json!({ "slots": slots, "synchronous_mode": true }))?;
    let leader = patroni.leader()?;
    let mut site = Site::around(patroni.cluster(&leader)?, Store::Directory)?;
    site.archiver.set_text("cluster.conninfo", &patroni.conninfo());
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table orders as select generate_series(1, 1000) as id")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("insert into orders values (1001)")?;
    let before = site.cluster.value(NOW)?;
    site.cluster.sql("drop table orders")?;
    // More than a member may lag behind to become the leader: 1 MB, unless it is set.
    let sql =
        "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, 4) g";
    site.cluster.sql(sql)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    let path = |path: &Path| path.to_string_lossy().into_owned();
    let here = [
        ("/var/lib/postgresql/15/main", path(site.cluster.data())),
        ("/etc/patroni/config.yml", path(patroni.config(&leader)?)),
        ("--to latest", format!("--to '{before}'")),
        ("/var/tmp/orders.yml", path(&scratch.path().join("orders-settings.yml"))),
    ];
    let mut operator = Operator::new(&site, &here)?;
    operator.answering("patronictl", &site, &patroni.patronictl(), "orders\\nYes I am aware\\n")?;
    let mut others = patroni.names();
    others.retain(|name| *name != leader);
    for step in page("Under Patroni")? {
        let step_restores = step.commands.iter().any(|command| command.starts_with("walseal-restorer restore"));
        match step.commands.first().map(String::as_str) {
            _ if step.commands.iter().any(|command| command == "systemctl disable --now patroni") => {
                let first = step.commands[..1].to_vec();
                operator.follow(&site, &Step { commands: first, prints: step.prints })?;
                patroni.stop_all()?;
            }
            Some("systemctl enable --now patroni") => {
                patroni.revive(&leader)?;
                assert_eq!(patroni.leader()?, leader);
                operator.follow(&site, &Step { commands: step.commands[1..].to_vec(), prints: step.prints })?;
            }
            Some(command) if command.contains(" edit-config ") => {
                operator.follow(&site, &step)?;
                for other in &others {
                    let data = patroni.cluster(other)?.data().to_owned();
                    std::fs::rename(&data, data.with_extension("lost"))?;
                    patroni.revive(other)?;
                }
                patroni.wait_whole()?;
            }
            _ => {
                operator.follow(&site, &step)?;
            }
        }
        if step_restores {
            let settings = std::fs::read_to_string(site.cluster.data().join("postgresql.auto.conf"))?;
            let is_over = |line: &str| !line.starts_with("recovery_target") || line.ends_with(" = ''");
            ensure!(!settings.contains("restore_command") && settings.lines().all(is_over), "{settings}");
            ensure!(settings.contains("archive_mode = 'off'"), "{settings}");
        }
    }
    assert_eq!(site.cluster.value("select count(*) from orders")?, "1001");
    let waits = "select count(*) from pg_stat_replication where sync_state = 'sync'";
    eventually("a standby that commits wait for", PATIENCE, || Ok((site.cluster.value(waits)? == "1").then_some(())))?;
    site.cluster.sql("insert into orders values (1002)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(daemon.is_running()?, "the daemon is the first one");
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    assert_eq!(status["gaps"], serde_json::json!([]), "{status}");
    // It is a cluster like any other: the next switchover loses nothing.
    let (_, new) = patroni.switchover()?;
    let now = patroni.cluster(&new)?;
    now.sql("insert into orders values (1003)")?;
    flow::wait_durable(&now, &mut daemon)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select count(*) from orders")?, "1003");
    drop(latest);
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn the_page_of_a_dropped_table_is_followed_while_the_server_runs() -> Result<()> {
    let (mut site, mut daemon) = shop()?;
    site.restorer.set_text("drill.scratch_dir", &scratch_dir(&site).to_string_lossy());
    site.restorer.set_text("drill.user", &site.scratch.account().name);
    site.restorer.write_config()?;
    let before = site.cluster.value(NOW)?;
    session(&site)?.rows("drop table orders")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let file = site.scratch.path().join("orders.dump").to_string_lossy().into_owned();
    let here = [("2026-11-21T02:30:00Z", before), ("/var/tmp/orders.dump", file)];
    let mut operator = Operator::new(&site, &here)?;
    for step in page("A table was dropped")? {
        operator.follow(&site, &step)?;
    }
    assert_eq!(session(&site)?.value("select count(*) from orders")?, "1001");
    Ok(())
}

#[test]
fn the_page_of_a_moved_repository_is_followed() -> Result<()> {
    let (mut site, mut daemon) = shop()?;
    let Place::Directory(old) = site.place.clone() else { anyhow::bail!("it is a folder") };
    let new = old.with_file_name("moved");
    let path = |folder: &PathBuf| folder.to_string_lossy().into_owned();
    let mut operator = Operator::new(&site, &[("/srv/walseal-new", path(&new)), ("/srv/walseal", path(&old))])?;
    let steps = page("The repository moves")?;
    let [copy, plan] = steps.as_slice() else { anyhow::bail!("{steps:?}") };
    operator.follow(&site, copy)?;
    session(&site)?.rows("insert into orders values (1002)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    // What has come since the first round.
    operator.follow(&site, copy)?;
    site.place = Place::Directory(new);
    for side in [&mut site.restorer, &mut site.archiver] {
        side.use_place(&site.place);
        side.write_config()?;
    }
    std::fs::rename(&old, old.with_file_name("away"))?;
    operator.follow(&site, plan)?;
    let mut daemon = site.start_daemon()?;
    session(&site)?.rows("insert into orders values (1003)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    let held = Session::connect(&restored.conninfo().replace("dbname=postgres", "dbname=shop"))?;
    assert_eq!(held.value("select count(*) from orders")?, "1003");
    Ok(())
}

#[test]
fn the_page_of_a_lost_archiver_is_followed_without_its_key() -> Result<()> {
    let (mut site, daemon) = shop()?;
    daemon.sigkill()?;
    // Its host is gone, with the key and everything that it kept.
    let old = site.archiver.folder().join("writer.key");
    std::fs::remove_file(&old)?;
    std::fs::remove_dir_all(site.scratch.path().join("state"))?;
    session(&site)?.rows("insert into orders values (1002)")?;
    let new = site.archiver.folder().join("new-writer.key").to_string_lossy().into_owned();
    let mut operator = Operator::new(&site, &[("/etc/walseal/writer.key", new.clone())])?;
    let steps = page("The archiver's host is gone")?;
    let [keygen, protect] = steps.as_slice() else { anyhow::bail!("{steps:?}") };
    let key = operator.follow(&site, keygen)?.trim().to_owned();
    // As on a restore host whose configuration went, too: it says who wrote what is there.
    site.restorer.unset("keys.trusted_writers");
    site.restorer.write_config()?;
    let said = site.restorer.run(&["list"])?.exits(1)?.stderr;
    let lost = said.split(|one: char| !one.is_ascii_alphanumeric()).find(|word| word.starts_with("walsealw1"));
    let lost = lost.with_context(|| format!("no writer is named in: {said}"))?;
    site.restorer.set("keys.trusted_writers", &format!("[{lost:?}, {key:?}]"));
    site.archiver.set("keys.trusted_writers", &format!("[{lost:?}]"));
    site.archiver.set_text("keys.writer_key_file", &new);
    site.restorer.write_config()?;
    site.archiver.write_config()?;
    operator.follow(&site, protect)?;
    let mut daemon = operator.daemon.take().context("the page starts it")?;
    session(&site)?.rows("insert into orders values (1003)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let kinds: Vec<_> = listed["bases"].as_array().into_iter().flatten().map(|base| base["type"].to_string()).collect();
    assert_eq!(kinds, ["\"full\"", "\"full\""], "{listed}");
    assert_eq!(
        listed["windows"].as_array().map(Vec::len),
        Some(1),
        "nothing is missing between the two keys: {listed}"
    );
    // From the old one's backup, through what both archived.
    let oldest = listed["bases"][0]["id"].as_str().context("an id")?;
    let restored = restored::restore_with(&site, "latest", "both", &["--base", oldest])?;
    let session = Session::connect(&restored.conninfo().replace("dbname=postgres", "dbname=shop"))?;
    assert_eq!(session.value("select count(*) from orders")?, "1003");
    Ok(())
}

#[test]
fn the_page_of_a_lost_identity_is_followed() -> Result<()> {
    let (mut site, daemon) = shop()?;
    daemon.sigterm()?.success()?;
    std::fs::remove_file(site.restorer.folder().join("identity.key"))?;
    let new = site.restorer.folder().join("identity-2.key").to_string_lossy().into_owned();
    let mut operator = Operator::new(&site, &[("/etc/walseal/identity-2.key", new.clone())])?;
    let steps = page("A key is lost")?;
    let [keygen, protect] = steps.as_slice() else { anyhow::bail!("{steps:?}") };
    let recipient = operator.follow(&site, keygen)?.trim().to_owned();
    let Place::Directory(old) = site.place.clone() else { anyhow::bail!("it is a folder") };
    let place = Place::Directory(old.with_file_name("fresh"));
    site.archiver.set("keys.recipients", &format!("[{recipient:?}]"));
    site.restorer.set("keys.identity_files", &format!("[{new:?}]"));
    let drill_host = site.restorer.keygen_writer(&site.archiver, "drill.key")?;
    site.restorer.set_text("keys.writer_key_file", &site.restorer.folder().join("drill.key").to_string_lossy());
    site.archiver.set("keys.trusted_writers", &format!("[{{ key = \"{drill_host}\", roles = [\"drill\"] }}]"));
    site.restorer.set_text("drill.scratch_dir", &scratch_dir(&site).to_string_lossy());
    site.restorer.set_text("drill.user", &site.scratch.account().name);
    for side in [&mut site.archiver, &mut site.restorer] {
        side.use_place(&place);
        side.write_config()?;
    }
    operator.follow(&site, protect)?;
    operator.daemon.take().context("the page starts it")?.sigterm()?.success()?;
    Ok(())
}
