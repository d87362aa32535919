//! Which of several hosts is the primary (case 16).
//!
//! libpq takes the first host that fits. After a failover that may be the old primary, which came back and takes writes on
//! the timeline that everybody else has left. So every host is asked, and the one on the newest timeline is taken.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;
use walseal_common::postgres::conninfo::{Host, TargetSessionAttrs};
use walseal_common::postgres::{Attempt, Conninfo, PostgresError, ReplicationClient};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::timeline::TimelineId;

/// How long the other hosts are waited for once one would do. A host that is gone must not hold up the stream.
const OTHERS: Duration = Duration::from_secs(2);

/// A host that takes writes.
struct Candidate {
    client: ReplicationClient,
    timeline: TimelineId,
}

/// Connects to the primary: the only host, or of several the one that takes writes on the newest timeline. Where
/// `target_session_attrs` asks for a standby, as libpq does.
///
/// Errors: no host is up and takes writes; the server's.
pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<ReplicationClient, PostgresError> {
    connect_and_alert(conninfo, application_name, &Alerts::to_log()).await
}

/// As [`connect`]; that several hosts take writes is an alert, until a connect finds but one.
pub async fn connect_and_alert(
    conninfo: &Conninfo,
    application_name: &str,
    alerts: &Alerts,
) -> Result<ReplicationClient, PostgresError> {
    let wanted = conninfo.target_session_attrs();
    if !has_choice(conninfo) {
        return ReplicationClient::connect(conninfo, application_name).await;
    }
    let hosts = conninfo.hosts().iter().enumerate();
    let mut asked: FuturesUnordered<_> = hosts
        .map(|(at, host)| async move {
            ask(conninfo, host, wanted, application_name).await.map_err(|attempt| (at, attempt))
        })
        .collect();
    let (mut candidates, mut attempts) = (Vec::new(), Vec::new());
    loop {
        let next = match candidates.is_empty() {
            true => asked.next().await,
            false => timeout(OTHERS, asked.next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(candidate)) => candidates.push(candidate),
            Some(Err(attempt)) => attempts.push(attempt),
            None => break,
        }
    }
    // In the order in which they are named: the same trouble is said in the same words.
    attempts.sort_by_key(|(at, _)| *at);
    choose(candidates, alerts)
        .ok_or_else(|| PostgresError::NoHost(attempts.into_iter().map(|(_, attempt)| attempt).collect()))
}

/// Whether there are several hosts of which one is the primary.
fn has_choice(conninfo: &Conninfo) -> bool {
    let primary = [TargetSessionAttrs::Any, TargetSessionAttrs::ReadWrite, TargetSessionAttrs::Primary];
    conninfo.hosts().len() > 1 && primary.contains(&conninfo.target_session_attrs())
}

/// Asks every host but the one that is streamed whether it takes writes: one may have come back after the last connect. That it does is
/// an alert, which is over once it is known not to; a host that does not answer is not known.
pub async fn ask_others(conninfo: &Conninfo, (streamed, timeline): (&str, TimelineId), name: &str, alerts: &Alerts) {
    if !has_choice(conninfo) {
        return;
    }
    for host in conninfo.hosts().iter().filter(|host| host.to_string() != streamed) {
        let subject = host.to_string();
        match ask(conninfo, host, conninfo.target_session_attrs(), name).await {
            Ok(rival) => {
                let text = rivalry(&subject, rival.timeline, streamed, timeline);
                alerts.raise(AlertKind::TwoPrimaries, subject, Severity::Critical, text);
                rival.client.close().await;
            }
            Err(attempt) if takes_no_writes(&attempt.error) => {
                alerts.clear(
                    AlertKind::TwoPrimaries,
                    &subject,
                    format!("it takes no writes any more: {}", attempt.error),
                );
            }
            Err(attempt) => tracing::debug!(error = %attempt.error, "whether {subject} takes writes is not known"),
        }
    }
}

/// Whether the answer says so. A host that is silent may only be cut off from here.
fn takes_no_writes(error: &PostgresError) -> bool {
    match error {
        PostgresError::WrongRole { .. } => true,
        PostgresError::Connect { source, .. } => {
            matches!(source.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
        }
        _ => false,
    }
}

/// What is wrong when `other` takes writes, too.
fn rivalry(other: &str, its: TimelineId, streamed: &str, timeline: TimelineId) -> String {
    let (numbers, advice) = ((its.number(), timeline.number()), "stop the one that should not");
    match its.cmp(&timeline) {
        Ordering::Less => format!(
            "two hosts take writes: {other} on timeline {}, and {streamed} on timeline {}, which is streamed. The one on the older \
             timeline is an old primary that came back. Stop it; what is written there is on a branch that nobody follows",
            numbers.0, numbers.1
        ),
        Ordering::Equal => {
            format!(
                "two hosts take writes on the same timeline {}: {streamed}, which is streamed, and {other}; {advice}",
                numbers.0
            )
        }
        Ordering::Greater => format!(
            "two hosts take writes: {other} on timeline {}, and {streamed} on timeline {}, which is streamed although it is the old \
             primary. Stop it: the other one is streamed then",
            numbers.0, numbers.1
        ),
    }
}

async fn ask(
    conninfo: &Conninfo,
    host: &Host,
    wanted: TargetSessionAttrs,
    application_name: &str,
) -> Result<Candidate, Attempt> {
    let failed = |error| Attempt { host: host.to_string(), error };
    let mut client = ReplicationClient::connect_to(conninfo, host, application_name).await.map_err(failed)?;
    let on = |name: &str| client.parameter(name) == Some("on");
    let what = if on("in_hot_standby") {
        Some("is in recovery (a standby)")
    } else {
        on("default_transaction_read_only")
            .then_some("is read-only")
            .filter(|_| wanted == TargetSessionAttrs::ReadWrite)
    };
    if let Some(what) = what {
        let wanted = TargetSessionAttrs::ReadWrite.as_str();
        return Err(failed(PostgresError::WrongRole { host: host.to_string(), what, wanted }));
    }
    let timeline = client.identify_system().await.map_err(failed)?.timeline;
    Ok(Candidate { client, timeline })
}

/// The candidate on the newest timeline; of several on the same one, the first that answered.
fn choose(candidates: Vec<Candidate>, alerts: &Alerts) -> Option<ReplicationClient> {
    let newest = candidates.iter().map(|candidate| candidate.timeline).max()?;
    let at = candidates.iter().position(|candidate| candidate.timeline == newest)?;
    let mut others = candidates;
    let chosen = others.remove(at);
    let mut rivals = Vec::new();
    for other in others {
        let (subject, streamed) = (other.client.host().to_string(), chosen.client.host().to_string());
        let text = rivalry(&subject, other.timeline, &streamed, newest);
        rivals.push(subject.clone());
        alerts.raise(AlertKind::TwoPrimaries, subject, Severity::Critical, text);
    }
    alerts.clear_all_but(AlertKind::TwoPrimaries, &rivals, "only one host is known to take writes now");
    Some(chosen.client)
}
