//! Which of several hosts is the primary (case 16).
//!
//! libpq takes the first host that fits. After a failover that may be the old primary, which came back and takes writes on
//! the timeline that everybody else has left. So every host is asked, and the one on the newest timeline is taken. Timelines of another
//! cluster say nothing: a host that was made anew, or never belonged here, is left out while one of the right cluster is there.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;
use walseal_common::postgres::conninfo::{Host, TargetSessionAttrs};
use walseal_common::postgres::{Attempt, Conninfo, PostgresError, ReplicationClient};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::timeline::{SystemIdentifier, TimelineId};

/// How long the other hosts are waited for once one would do. A host that is gone must not hold up the stream.
const OTHERS: Duration = Duration::from_secs(2);

/// A host that takes writes.
struct Candidate {
    client: ReplicationClient,
    seen: Seen,
}

/// What such a host says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    cluster: SystemIdentifier,
    timeline: TimelineId,
}

/// Connects to the primary: the only host, or of several the one that takes writes on the newest timeline. Where
/// `target_session_attrs` asks for a standby, as libpq does.
///
/// Errors: no host is up and takes writes; the server's.
pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<ReplicationClient, PostgresError> {
    choose(conninfo, application_name, None, &Alerts::to_log()).await
}

/// As [`connect`], to the primary of `cluster`: hosts of others are left out, unless nobody else takes writes, and whoever needs the right
/// one finds that out (I4).
pub async fn connect_within(
    conninfo: &Conninfo,
    application_name: &str,
    cluster: SystemIdentifier,
) -> Result<ReplicationClient, PostgresError> {
    choose(conninfo, application_name, Some(cluster), &Alerts::to_log()).await
}

/// As [`connect_within`]; that several hosts take writes is an alert, until a connect finds but one.
pub async fn connect_and_alert(
    conninfo: &Conninfo,
    application_name: &str,
    cluster: SystemIdentifier,
    alerts: &Alerts,
) -> Result<ReplicationClient, PostgresError> {
    choose(conninfo, application_name, Some(cluster), alerts).await
}

async fn choose(
    conninfo: &Conninfo,
    application_name: &str,
    cluster: Option<SystemIdentifier>,
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
    let (mut candidates, mut attempts): (Vec<Candidate>, Vec<_>) = (Vec::new(), Vec::new());
    loop {
        // A host of another cluster would not do.
        let next = match candidates.iter().any(|candidate| candidate.seen.fits(cluster)) {
            false => asked.next().await,
            true => timeout(OTHERS, asked.next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(candidate)) => candidates.push(candidate),
            Some(Err(attempt)) => attempts.push(attempt),
            None => break,
        }
    }
    // In the order in which they are named: the same trouble is said in the same words.
    attempts.sort_by_key(|(at, _)| *at);
    // One of ours that does not answer now may be about to: no host of another cluster stands in for it.
    if let Some(ours) = cluster
        && !attempts.is_empty()
        && !candidates.iter().any(|candidate| candidate.seen.fits(cluster))
    {
        for Candidate { client, seen } in candidates.drain(..) {
            tracing::warn!("{}", stranger(&client.host().to_string(), seen.cluster, ours));
        }
    }
    take_newest(candidates, cluster, alerts)
        .ok_or_else(|| PostgresError::NoHost(attempts.into_iter().map(|(_, attempt)| attempt).collect()))
}

/// Whether there are several hosts of which one is the primary.
fn has_choice(conninfo: &Conninfo) -> bool {
    let primary = [TargetSessionAttrs::Any, TargetSessionAttrs::ReadWrite, TargetSessionAttrs::Primary];
    conninfo.hosts().len() > 1 && primary.contains(&conninfo.target_session_attrs())
}

/// Asks every host but the one that is streamed whether it takes writes: one may have come back after the last connect. That it does is
/// an alert, which is over once it is known not to, or to be of another cluster; a host that does not answer is not known.
pub async fn ask_others(
    conninfo: &Conninfo,
    cluster: SystemIdentifier,
    (streamed, timeline): (&str, TimelineId),
    name: &str,
    alerts: &Alerts,
) {
    if !has_choice(conninfo) {
        return;
    }
    for host in conninfo.hosts().iter().filter(|host| host.to_string() != streamed) {
        let subject = host.to_string();
        match ask(conninfo, host, conninfo.target_session_attrs(), name).await {
            Ok(Candidate { client, seen }) => {
                if seen.fits(Some(cluster)) {
                    let text = rivalry(&subject, seen.timeline, streamed, timeline);
                    alerts.raise(AlertKind::TwoPrimaries, subject, Severity::Critical, text);
                } else {
                    alerts.clear(AlertKind::TwoPrimaries, &subject, stranger(&subject, seen.cluster, cluster));
                }
                client.close().await;
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
    let system = client.identify_system().await.map_err(failed)?;
    Ok(Candidate { client, seen: Seen { cluster: system.system_identifier, timeline: system.timeline } })
}

impl Seen {
    /// Whether it is of `cluster`, where that is known.
    fn fits(self, cluster: Option<SystemIdentifier>) -> bool {
        cluster.is_none_or(|cluster| self.cluster == cluster)
    }
}

/// Which of them is the primary: of those of `cluster`, or where there is none of all, the one on the newest timeline; of several on the
/// same one, the first that answered.
fn newest(seen: &[Seen], cluster: Option<SystemIdentifier>) -> Option<usize> {
    let cluster = cluster.filter(|_| seen.iter().any(|one| one.fits(cluster)));
    let fitting = || seen.iter().enumerate().filter(|(_, one)| one.fits(cluster));
    let timeline = fitting().map(|(_, one)| one.timeline).max()?;
    fitting().find(|(_, one)| one.timeline == timeline).map(|(at, _)| at)
}

/// Takes the primary, and says what is wrong with the others.
fn take_newest(
    candidates: Vec<Candidate>,
    cluster: Option<SystemIdentifier>,
    alerts: &Alerts,
) -> Option<ReplicationClient> {
    let seen: Vec<Seen> = candidates.iter().map(|candidate| candidate.seen).collect();
    let mut others = candidates;
    let chosen = others.remove(newest(&seen, cluster)?);
    let (streamed, own) = (chosen.client.host().to_string(), chosen.seen);
    if !own.fits(cluster) {
        // Whoever needs the right one finds that out; of ours nothing was seen.
        return Some(chosen.client);
    }
    let mut rivals = Vec::new();
    for other in others {
        let subject = other.client.host().to_string();
        if !other.seen.fits(Some(own.cluster)) {
            tracing::warn!("{}", stranger(&subject, other.seen.cluster, own.cluster));
            continue;
        }
        let text = rivalry(&subject, other.seen.timeline, &streamed, own.timeline);
        rivals.push(subject.clone());
        alerts.raise(AlertKind::TwoPrimaries, subject, Severity::Critical, text);
    }
    alerts.clear_all_but(AlertKind::TwoPrimaries, &rivals, "only one host of the cluster is known to take writes now");
    Some(chosen.client)
}

/// What is wrong with a host of another cluster.
fn stranger(host: &str, its: SystemIdentifier, ours: SystemIdentifier) -> String {
    format!(
        "{host} takes writes and is of another cluster: its system identifier is {its}, and {ours} is the one that is archived. It is left \
         out; was it made anew? Take it out of cluster.conninfo, or make it a standby of the primary"
    )
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn i4_case_16_a_host_of_another_cluster_is_not_the_primary_while_one_of_the_right_cluster_is_there() {
        let seen = |cluster, timeline| Seen {
            cluster: SystemIdentifier(cluster),
            timeline: TimelineId::new(timeline).expect("not zero"),
        };
        let ours = Some(SystemIdentifier(7));
        // Not on a newer timeline, and not as the first of two on the same one.
        assert_eq!(newest(&[seen(8, 9), seen(7, 1)], ours), Some(1));
        assert_eq!(newest(&[seen(8, 1), seen(7, 1)], ours), Some(1));
        assert_eq!(newest(&[seen(7, 1), seen(8, 2), seen(7, 3), seen(7, 3)], ours), Some(2));
        // Where there is no other, it is named as what it is.
        assert_eq!(newest(&[seen(8, 1), seen(8, 2)], ours), Some(1));
        assert_eq!(newest(&[seen(8, 2), seen(7, 1)], None), Some(0), "nobody knows which one is right");
        assert_eq!(newest(&[], ours), None);
        let text = stranger("db2", SystemIdentifier(8), SystemIdentifier(7));
        assert!(["db2", "8", "7"].iter().all(|word| text.contains(word)), "{text}");
    }
}
