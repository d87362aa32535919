//! A cluster that Patroni manages: three members on loopback, with a node of Patroni's own Raft as their consensus store, which lives on
//! when all of them are stopped.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deadline::{PATIENCE, eventually};
use crate::process::Process;
use crate::scratch::{Scratch, is_lived_in};
use crate::server::Server;

/// How long an election may take: the leader's lock is held for [`TTL`] after its death. Also how long making the first server
/// and copying it twice may take on a busy machine.
const ELECTION: Duration = Duration::from_secs(180);

/// Seconds that the leader's lock outlives the leader: the least that Patroni takes.
const TTL: u32 = 20;

/// Seconds that a leader may be cut off from the consensus store, as on a busy machine, before it steps down: the most that
/// Patroni takes beside that [`TTL`] and a `loop_wait` of 1.
const RETRY: u32 = 9;

/// How long one answer of a member may take. A switchover is answered when it is done.
const ANSWER: Duration = Duration::from_secs(45);

/// A cluster under Patroni. Dropping it ends all of it.
#[derive(Debug)]
pub struct Patroni {
    members: Vec<Member>,
    /// The consensus store.
    _store: Process,
    program: PathBuf,
    server: Server,
    scratch: Arc<Scratch>,
}

/// One Patroni and its server.
#[derive(Debug)]
struct Member {
    name: String,
    /// None after a kill. It starts its server outside of our process group; whoever ends the test's folder ends that, too.
    patroni: Option<Process>,
    config: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    /// PostgreSQL's.
    port: u16,
    /// Of Patroni's REST API.
    api: SocketAddr,
}

impl Patroni {
    /// Three members with these settings in the consensus store beside the bed's own, up and replicating.
    ///
    /// Errors: Patroni is not installed, with the command that installs it; the cluster did not come up.
    pub fn start(scratch: &Arc<Scratch>) -> Result<Patroni> {
        let program = program()?;
        let server = Server::find(Server::default_major()?)?;
        let (address, first) = own_address();
        let store = format!("{address}:{}", first + 2000);
        let config = json!({ "raft": {
            "data_dir": scratch.dir("raft")?, "self_addr": store, "partner_addrs": [],
        } });
        let config = scratch.file("raft.yml", &config.to_string())?;
        let raft = scratch.call(program.with_file_name("patroni_raft_controller")).arg(config).spawn()?;
        let mut members = Vec::new();
        for number in 1..=3 {
            let name = format!("db{number}");
            let (data, sockets) = (scratch.path().join(&name), scratch.dir(&format!("{name}.s"))?);
            let (port, api) = (first + number, SocketAddr::from((address, first + 1000 + number)));
            let account = &scratch.account().name;
            let config = json!({
                "scope": "orders",
                "name": name,
                "restapi": { "listen": api.to_string(), "connect_address": api.to_string() },
                "raft": { "data_dir": scratch.dir(&format!("{name}.raft"))?, "partner_addrs": [store] },
                "bootstrap": {
                    "dcs": {
                        "ttl": TTL, "loop_wait": 1, "retry_timeout": RETRY,
                        "postgresql": { "use_pg_rewind": true, "use_slots": true, "parameters": {
                            "wal_level": "replica", "max_wal_senders": 8, "max_replication_slots": 8,
                            "max_connections": 40, "shared_buffers": "16MB", "track_commit_timestamp": "on",
                        } },
                    },
                    "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums", "no-sync", { "wal-segsize": "1" }],
                },
                "postgresql": {
                    "listen": format!("{address}:{port}"),
                    "connect_address": format!("{address}:{port}"),
                    "data_dir": data,
                    "bin_dir": server.bin(),
                    "use_unix_socket": true,
                    "basebackup": [{ "checkpoint": "fast" }, "no-sync"],
                    "pgpass": scratch.path().join(format!("{name}.pgpass")),
                    "pg_hba": ["local all all trust", "local replication all trust",
                        "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust"],
                    "authentication": {
                        "superuser": { "username": account },
                        "replication": { "username": "replicator" },
                        "rewind": { "username": "rewinder" },
                    },
                    "parameters": { "unix_socket_directories": sockets, "fsync": "off", "timezone": "UTC" },
                },
            });
            // JSON is YAML, too.
            let config = scratch.file(&format!("{name}.yml"), &config.to_string())?;
            members.push(Member { name, patroni: None, config, data, sockets, port, api });
        }
        let mut patroni = Patroni { members, _store: raft, program, server, scratch: scratch.clone() };
        for member in 0..patroni.members.len() {
            patroni.start_member(member)?;
        }
        patroni.wait_whole()?;
        Ok(patroni)
    }

    /// How to reach whichever member takes writes.
    pub fn conninfo(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(|member| member.api.ip().to_string()).collect();
        let ports: Vec<String> = self.members.iter().map(|member| member.port.to_string()).collect();
        let user = &self.scratch.account().name;
        format!(
            "host={} port={} user={user} dbname=postgres sslmode=disable target_session_attrs=read-write",
            hosts.join(","),
            ports.join(",")
        )
    }

    /// The names of the members.
    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// A member's server, for SQL. It is Patroni that starts and stops it.
    pub fn cluster(&self, name: &str) -> Result<Cluster> {
        let member = self.member(name)?;
        let (data, sockets) = (member.data.clone(), member.sockets.clone());
        Ok(Cluster::new(self.scratch.clone(), self.server.clone(), data, sockets, member.port, Vec::new()))
    }

    /// The member that holds the leader's lock and whose server takes writes, as the others see it, too.
    pub fn leader(&self) -> Result<String> {
        eventually("a leader that takes writes", ELECTION, || self.look_for_leader()).with_context(|| self.said())
    }

    fn look_for_leader(&self) -> Result<Option<String>> {
        let Some(state) = self.state() else { return Ok(None) };
        for member in state["members"].as_array().into_iter().flatten() {
            if member["role"] == "leader" && member["state"] == "running" {
                let name = member["name"].as_str().context("a member has a name")?;
                // Its own answer: 200 only from the leader, once it is promoted.
                let api = self.member(name)?.api;
                let is_primary = request(api, "GET", "/primary", None).is_ok_and(|(status, _)| status == 200);
                return Ok(is_primary.then(|| name.to_owned()));
            }
        }
        Ok(None)
    }

    /// Waits until there is a leader and every other member streams from it.
    pub fn wait_whole(&self) -> Result<()> {
        eventually("a leader and two members that stream from it", ELECTION, || {
            let Some(leader) = self.look_for_leader()? else { return Ok(None) };
            let sql =
                "select count(*) from pg_stat_replication where state = 'streaming' and application_name like 'db_'";
            let streaming = self.cluster(&leader)?.value(sql).unwrap_or_default();
            Ok((streaming == "2").then_some(()))
        })
        .with_context(|| self.said())
    }

    /// Changes settings in the consensus store, as `patronictl edit-config` does.
    pub fn edit_config(&self, change: &Value) -> Result<()> {
        let api = self.member(&self.leader()?)?.api;
        let (status, answer) = request(api, "PATCH", "/config", Some(change))?;
        ensure!(status == 200, "the settings were refused with {status}: {answer}");
        Ok(())
    }

    /// Lets another member take over, as `patronictl switchover` does, and waits until the cluster is whole again. Returns the
    /// old leader and the new one.
    pub fn switchover(&self) -> Result<(String, String)> {
        let old = self.leader()?;
        // With synchronous_mode only a member that commits wait for may take over.
        let synchronous =
            "select coalesce(min(application_name), '') from pg_stat_replication where sync_state = 'sync'";
        let synchronous = self.cluster(&old)?.value(synchronous)?;
        let mut others = self.names();
        others.retain(|name| *name != old);
        others.sort_by_key(|name| *name != synchronous);
        let new = others.into_iter().next().context("there is another member")?;
        let wish = json!({ "leader": old, "candidate": new });
        let mut answer = (0, Value::Null);
        // A member that is busy or still behind refuses, and may be asked again; one that could not wait any longer may have done it.
        let taken = eventually("the switchover", ELECTION, || {
            answer = request(self.member(&old)?.api, "POST", "/switchover", Some(&wish))?;
            Ok((answer.0 == 200 || self.look_for_leader()?.is_some_and(|now| now == new)).then_some(()))
        });
        taken.with_context(|| format!("the last answer: {answer:?}\n{}", self.said()))?;
        self.wait_whole()?;
        let now = self.leader()?;
        ensure!(now == new, "{now} leads instead of {new}");
        Ok((old, new))
    }

    /// Kills the leader with SIGKILL, Patroni first, so that it starts nothing again, and returns its name.
    pub fn kill_leader(&mut self) -> Result<String> {
        let name = self.leader()?;
        let at = self.at(&name)?;
        let member = &mut self.members[at];
        let mut patroni = member.patroni.take().context("the leader's Patroni runs")?;
        let pid = std::fs::read_to_string(member.data.join("postmaster.pid")).context("reading the leader's pid")?;
        let pid = pid.lines().next().unwrap_or_default().trim().parse().context("a process id")?;
        patroni.kill()?;
        kill_process(Pid::from_raw(pid).context("a process id")?, Signal::KILL).context("killing the leader")?;
        let data = member.data.clone();
        eventually("the leader's processes to end", PATIENCE, || Ok((!is_lived_in(&data)?).then_some(())))?;
        Ok(name)
    }

    /// Starts the Patroni of a member that was killed or stopped.
    pub fn revive(&mut self, name: &str) -> Result<()> {
        self.start_member(self.at(name)?)
    }

    /// Stops every member as `systemctl stop patroni` does, with its server.
    pub fn stop_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            let Some(mut patroni) = member.patroni.take() else { continue };
            patroni.signal(Signal::TERM)?;
            patroni.wait(ELECTION)?.success()?;
            ensure!(!is_lived_in(&member.data)?, "the server of {} still runs", member.name);
        }
        Ok(())
    }

    /// Patroni's other program, to look at the cluster and to change it.
    pub fn patronictl(&self) -> PathBuf {
        self.program.with_file_name("patronictl")
    }

    /// The configuration of a member.
    pub fn config(&self, name: &str) -> Result<&Path> {
        Ok(&self.member(name)?.config)
    }

    fn start_member(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let mut call = self.scratch.call(&self.program).arg(&member.config).env("PYTHONUNBUFFERED", "1");
        if !self.server.is_where_programs_look() {
            // Patroni knows what a server of this major can say to libpq, and the system's may be older.
            call = call.env("LD_LIBRARY_PATH", self.server.bin().with_file_name("lib"));
        }
        member.patroni = Some(call.spawn()?);
        Ok(())
    }

    fn at(&self, name: &str) -> Result<usize> {
        self.members.iter().position(|member| member.name == name).with_context(|| format!("no member {name}"))
    }

    fn member(&self, name: &str) -> Result<&Member> {
        Ok(&self.members[self.at(name)?])
    }

    /// What the first member that answers says of all.
    fn state(&self) -> Option<Value> {
        let answers = self.members.iter().filter(|member| member.patroni.is_some());
        let mut answers = answers.map(|member| request(member.api, "GET", "/cluster", None));
        answers.find_map(|answer| answer.ok().filter(|(status, _)| *status == 200).map(|(_, state)| state))
    }

    /// The end of every member's log, for messages.
    pub fn said(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let log = member.patroni.as_ref().map_or_else(|| "(was killed)".to_owned(), Process::said);
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("{}:\n{}\n", member.name, lines[lines.len().saturating_sub(40)..].join("\n")));
        }
        text
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // Who starts servers again goes first.
        for member in &mut self.members {
            member.patroni = None;
        }
        for member in &self.members {
            if let Err(error) = end_server(&member.data) {
                eprintln!("stopping the server of {}: {error:#}", member.data.display());
            }
        }
    }
}

/// An immediate shutdown, which gives back shared memory.
fn end_server(data: &Path) -> Result<()> {
    if !is_lived_in(data)? {
        return Ok(());
    }
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    if let Some(pid) = pid.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw) {
        match kill_process(pid, Signal::QUIT) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("sending SIGQUIT"),
        }
    }
    eventually("the server to end", PATIENCE, || Ok((!is_lived_in(data)?).then_some(())))
}

/// Patroni's program, in the environment that `scripts/fetch-patroni` makes.
fn program() -> Result<PathBuf> {
    let told = std::env::var_os("WALSEAL_TEST_PATRONI").context(
        "WALSEAL_TEST_PATRONI is not set: run scripts/test, or `export WALSEAL_TEST_PATRONI=$(scripts/fetch-patroni)`",
    )?;
    let program = PathBuf::from(told);
    ensure!(program.exists(), "{} of WALSEAL_TEST_PATRONI is not there", program.display());
    Ok(program)
}

/// A loopback address that only this process has, and the first port of a test of it: nobody else can take a port on it.
fn own_address() -> (Ipv4Addr, u16) {
    static TESTS: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // 127.0.0.1 is everybody's.
    (Ipv4Addr::new(127, 64 + high % 64, middle, low), 20_000 + 10 * TESTS.fetch_add(1, Ordering::Relaxed))
}

/// One request to Patroni's REST API: the status and the document that came.
fn request(api: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
    let doing = || format!("{method} {path} at {api}");
    let mut stream = TcpStream::connect_timeout(&api, Duration::from_secs(2)).with_context(doing)?;
    stream.set_read_timeout(Some(ANSWER)).with_context(doing)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head =
        format!("{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).with_context(doing)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(doing)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{}: no answer in {answer:?}", doing()) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(doing)?;
    // Some answers are plain words.
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))))
}
