//! The next base backup, made of the instance while it waits at its target. Production is not touched.
//!
//! The archiver's program takes it, as a child: that is who makes base backups, and it shares no code with this one. It stores all
//! but the label and waits; the label is written only when the whole drill has passed. When this program goes away, however that
//! comes, the child hears the end of its standard input, and nothing of it is visible.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use walseal_common::config::OpenError;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BaseId, ConfigEntry, Derivation, Lineage, RepositoryError};
use walseal_common::seal::Kind;

use crate::access::Access;
use crate::instance::{Instance, InstanceError, Scratch};
use crate::plan::{Action, Plan, Request, Target, TimelineChoice};
use crate::record;

/// The archiver's program, beside this one.
pub(super) const PROGRAM: &str = "walseal-archiver";

/// Lines of what the archiver says that are kept.
const LINES: usize = 15;

/// How long the archiver may take to end once it has been told that it is not wanted.
const FAREWELL: Duration = Duration::from_secs(10);

/// No base backup was made.
#[derive(Debug, thiserror::Error)]
pub enum NextBaseError {
    /// There is nothing to sign with.
    #[error("keys.writer_key_file names no key for this host")]
    NoKey,
    /// Nobody would believe it.
    #[error(
        "this host's writer key may not sign base backups: add {{ key = \"{0}\", roles = [\"drill\", \"base\"] }} to keys.trusted_writers, here and on the other hosts"
    )]
    NotTrusted(String),
    /// A key.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup that it comes from.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The instance, or its directory.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// What the archiver is told cannot be written down.
    #[error("what the archiver is to know cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    /// The archiver's program did not do it.
    #[error("{PROGRAM} made none; it said: {0}")]
    Archiver(String),
}

/// Where recovery has to pause, for a plan to the latest moment: just behind the last transaction, with everything in that the plan
/// leads to. `None` where nothing ended since the base backup: the next one would be the same again.
///
/// Errors: the repository's.
pub async fn pausing(access: &Access, plan: &Plan) -> Result<Option<Request>, RepositoryError> {
    let Some(last) = plan.last_before else { return Ok(None) };
    // One that a drill made holds more than what it needs to be consistent.
    let held = access.repository.label(&plan.base.id).await?.derived.map_or(plan.base.stop, |from| from.to);
    if last.end <= held.max(plan.base.stop) {
        let base = &plan.base.id;
        tracing::info!(%base, "drill.make_base: nothing was committed since the base backup, and no other one is made");
        return Ok(None);
    }
    let branch = plan.path.last().map_or(plan.base.branch, |step| step.branch);
    // By its number, and not by its position: of a record at which it stops for its position PostgreSQL does not log the time.
    let request =
        Request { action: Action::Pause, timeline: Some(TimelineChoice::Branch(branch)), ..plan.request.clone() };
    Ok(Some(Request { base: Some(plan.base.id.clone()), target: Target::Xid(u64::from(last.xid.0)), ..request }))
}

/// A base backup that is stored, and waits for its label. Dropped, it is not published.
#[derive(Debug)]
pub struct NextBase {
    id: BaseId,
    child: Child,
    // Its end is what tells the archiver that it is not wanted.
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl NextBase {
    /// Has it made of an instance that is paused. All but the label is durable on return.
    ///
    /// Errors: no key that is trusted with it; what the archiver says.
    pub async fn make(
        access: &Access,
        instance: &Instance,
        scratch: &Scratch,
        plan: &Plan,
    ) -> Result<NextBase, NextBaseError> {
        let signer = record::signer(&access.config)?.ok_or(NextBaseError::NoKey)?;
        let key = signer.writer.public();
        if !access.repository.trust().allows(key, Kind::Label) {
            return Err(NextBaseError::NotTrusted(key.to_string()));
        }
        let to = plan.stop;
        let told = scratch.folder().join("derivation.json");
        write_private(&told, &serde_json::to_vec(&derivation(access, plan, to).await?)?)?;
        let additions = instance.take_additions()?;
        let made = start(access, instance, scratch, &told).await;
        // Whatever came of it: recovery ends with them only.
        additions.put_back()?;
        made
    }

    /// Its name.
    pub fn id(&self) -> &BaseId {
        &self.id
    }

    /// Writes its label. Durable on return.
    ///
    /// Errors: what the archiver says.
    pub async fn publish(mut self) -> Result<BaseId, NextBaseError> {
        // An archiver that has ended meanwhile says why.
        let _ = self.input.write_all(b"publish\n").await;
        let _ = self.input.shutdown().await;
        let said = self.output.next_line().await.ok().flatten();
        let ended = self.child.wait().await.map_err(InstanceError::io("wait for", Path::new(PROGRAM)))?;
        match said {
            Some(line) if ended.success() && line.trim() == self.id.as_str() => Ok(self.id),
            _ => Err(failed(&self.log)),
        }
    }

    /// Lets it go: there will be no label.
    pub async fn give_up(self) {
        let NextBase { mut child, input, .. } = self;
        drop(input);
        // So that its lease is over at once, and not when it is old. One that does not end is killed when it is dropped.
        let _ = timeout(FAREWELL, child.wait()).await;
    }
}

async fn start(
    access: &Access,
    instance: &Instance,
    scratch: &Scratch,
    told: &Path,
) -> Result<NextBase, NextBaseError> {
    let log = scratch.folder().join("archiver.log");
    let errors = File::create(&log).map_err(InstanceError::io("make", &log))?;
    let program = program();
    let mut call = Command::new(&program);
    if let Some(file) = access.config.file() {
        call.arg("--config").arg(file);
    }
    // Where it works, so that it goes with the folder.
    call.args(["backup", "--derived"]).arg(told).current_dir(scratch.folder()).kill_on_drop(true);
    let user = access.config.drill.user.value.as_str();
    let conninfo = format!("{} target_session_attrs=standby", instance.conninfo(user, "postgres"));
    call.env("WALSEAL_CLUSTER_CONNINFO", conninfo);
    if access.config.keys.recipients.is_none() {
        let recipients: Vec<String> = access.identities.iter().map(|one| one.recipient().to_string()).collect();
        call.env("WALSEAL_KEYS_RECIPIENTS", recipients.join(","));
    }
    call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
    let mut child = call.spawn().map_err(InstanceError::io("run", &program))?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return Err(failed(&log)) };
    let mut output = BufReader::new(output).lines();
    let said = output.next_line().await.ok().flatten();
    match said.and_then(|line| line.trim().parse().ok()) {
        Some(id) => Ok(NextBase { id, child, input, output, log }),
        None => {
            drop(input);
            // It has nothing more to say; its reason is in its log once it has ended.
            let _ = timeout(FAREWELL, child.wait()).await;
            Err(failed(&log))
        }
    }
}

/// What the backup comes from, and the configuration files that the instance does not have.
async fn derivation(access: &Access, plan: &Plan, to: Lsn) -> Result<Derivation, NextBaseError> {
    let label = access.repository.label(&plan.base.id).await?;
    let mut config = Vec::new();
    for page in &label.config {
        config.extend(access.repository.attachment::<ConfigEntry>(page, &access.identities).await?);
    }
    Ok(Derivation { lineage: Lineage { base: label.id, to }, config })
}

/// Beside this program, else wherever programs are looked for.
pub(super) fn program() -> PathBuf {
    let beside = crate::program::path().ok().map(|own| own.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

fn failed(log: &Path) -> NextBaseError {
    let said = std::fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    NextBaseError::Archiver(lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n"))
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), InstanceError> {
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(content)).map_err(InstanceError::io("write", path))
}
