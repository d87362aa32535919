//! A new cluster that is thrown away, for what a dump holds.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::disposable::Instance;
use super::programs::command;
use super::server::{GLANCE, Server};
use super::settings::Purpose;
use super::{InstanceError, Programs, Scratch};
use crate::rebuild::{ConfigFiles, Layout, Owner, Restored, Swept, Traffic};

/// How long a new server may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nothing of it has to last.
const SETTINGS: &str =
    "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\nmax_wal_size = 4GB\ncheckpoint_timeout = 1h\n";

impl Instance {
    /// Makes a cluster in `scratch` with the superuser `user`, and starts it. Its databases sort by the C locale unless they say
    /// otherwise: the host need not know the dumped server's.
    ///
    /// Errors: `initdb` fails; the server ends, or does not answer.
    pub async fn fresh(
        programs: &Programs,
        scratch: &Scratch,
        owner: &Owner,
        user: &str,
    ) -> Result<Instance, InstanceError> {
        let data = scratch.data();
        let mut call = command(&programs.other("initdb")?, owner, scratch.folder());
        call.arg("--pgdata").arg(&data).args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        call.arg(format!("--username={user}")).stdin(Stdio::null());
        let output = tokio::process::Command::from(call).kill_on_drop(true).output().await;
        let output = output.map_err(InstanceError::io("run initdb for", &data))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(InstanceError::Call { program: "initdb".to_owned(), said });
        }
        let file = data.join("postgresql.conf");
        let written =
            OpenOptions::new().append(true).open(&file).and_then(|mut file| file.write_all(SETTINGS.as_bytes()));
        written.map_err(InstanceError::io("write", &file))?;
        let restored = Restored {
            layout: Layout {
                data,
                mode: 0o700,
                waldir: None,
                tablespaces: Vec::new(),
                owner: owner.clone(),
                existing: Vec::new(),
                stands: false,
            },
            plan_file: scratch.folder().join("plan.json"),
            has_configuration: true,
            bytes: 0,
            config_files: ConfigFiles::default(),
            traffic: Traffic::default(),
            swept: Swept::default(),
            is_standby: false,
            inherited: None,
        };
        let purpose = Purpose::Disposable { preload: String::new(), readable: true };
        let server = Server::start(programs, &restored, &purpose, None)?;
        let mut instance = Instance::of(server, restored, programs);
        instance.answers(user).await?;
        Ok(instance)
    }

    async fn answers(&mut self, user: &str) -> Result<(), InstanceError> {
        let begun = Instant::now();
        loop {
            match self.connect(user, "postgres").await {
                Ok(client) => {
                    client.close().await;
                    return Ok(());
                }
                Err(_) if begun.elapsed() < PATIENCE && !self.has_ended()? => tokio::time::sleep(GLANCE).await,
                Err(error) => {
                    let said = format!("{error}; its log ends with:\n{}", self.log());
                    return Err(InstanceError::Call { program: "a new server".to_owned(), said });
                }
            }
        }
    }
}
