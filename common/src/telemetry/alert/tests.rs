//! Alerts are told once, and their end once; the command is never waited for.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;

use async_trait::async_trait;

use super::command::AlertCommand;
use super::courier::{Courier, Letter, Receiver, Undelivered};
use super::mail::Mail;
use super::*;
use crate::config::Config;

#[derive(Debug, Default)]
struct Paper(Mutex<Vec<AlertNews>>);

impl Outlet for Paper {
    fn tell(&self, news: &AlertNews) {
        self.0.lock().expect("no test panics while writing").push(news.clone());
    }
}

impl Paper {
    fn told(&self) -> Vec<(AlertState, AlertKind, String, String)> {
        let news = std::mem::take(&mut *self.0.lock().expect("no test panics while writing"));
        news.into_iter().map(|news| (news.state, news.alert.kind, news.alert.subject, news.alert.text)).collect()
    }
}

fn board() -> (Alerts, Arc<Paper>) {
    let paper = Arc::new(Paper::default());
    (Alerts::to(vec![paper.clone()]), paper)
}

#[test]
fn what_stood_before_a_restart_is_not_told_anew_and_its_end_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = AlertMemory::new(folder.path().join("alerts.json"), "7 in s3://acme-pg/orders");
    let (before, _) = board();
    before.raise(AlertKind::Backlog, "walseal_orders", Severity::Warning, "much");
    before.raise(AlertKind::Conflict, "00000001-a2dd04c7", Severity::Critical, "other bytes");
    before.raise(AlertKind::StoreUnreachable, "", Severity::Critical, "gone");
    let since = |alerts: &Alerts| {
        let standing = alerts.standing();
        standing.iter().find(|alert| alert.kind == AlertKind::Backlog).map(|alert| alert.since)
    };
    memory.save(&before);

    let (alerts, paper) = board();
    memory.recall(&alerts);
    assert_eq!((alerts.standing(), paper.told()), (before.standing(), vec![]));
    assert!(alerts.raise(AlertKind::Conflict, "00000001-a2dd04c7", Severity::Critical, "still"), "new to this process");
    assert!(!alerts.raise(AlertKind::Conflict, "00000001-a2dd04c7", Severity::Critical, "still"));
    assert_eq!(paper.told(), vec![], "and to nobody else");
    alerts.clear(AlertKind::StoreUnreachable, "", "it is back");
    alerts.clear_unfound(&[AlertKind::Conflict, AlertKind::ConfirmedMissing], "not found again");
    assert_eq!(
        paper.told(),
        [(AlertState::Cleared, AlertKind::StoreUnreachable, String::new(), "it is back".to_owned())]
    );
    alerts.raise(AlertKind::Backlog, "walseal_orders", Severity::Critical, "the disk is nearly full");
    assert_eq!(paper.told().len(), 1, "that it is worse is news");
    assert_eq!(since(&alerts), since(&before));

    let (of_another, paper) = board();
    AlertMemory::new(folder.path().join("alerts.json"), "8 in s3://acme-pg/orders").recall(&of_another);
    assert_eq!((of_another.standing(), paper.told()), (vec![], vec![]));
    // A daemon that does not know yet which cluster is its own takes what it can use, and who wrote it.
    let (some, _) = board();
    let (path, place) = (folder.path().join("alerts.json"), "s3://acme-pg/orders");
    AlertMemory::recall_kinds(&path, place, &[AlertKind::Backlog, AlertKind::SlotLost], &some);
    assert_eq!(some.standing().iter().map(|alert| alert.kind).collect::<Vec<_>>(), [AlertKind::Backlog]);
    assert_eq!(AlertMemory::owner(&path, place).as_deref(), Some("7"));
    assert_eq!(AlertMemory::owner(&path, "s3://acme-pg/others"), None);
    let (unfound, paper) = board();
    memory.recall(&unfound);
    unfound.clear_unfound(&[AlertKind::Conflict], "not found again");
    let over = "not found again".to_owned();
    assert_eq!(paper.told(), [(AlertState::Cleared, AlertKind::Conflict, "00000001-a2dd04c7".to_owned(), over)]);
}

#[tokio::test]
async fn what_stands_is_written_down_as_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = AlertMemory::new(folder.path().join("alerts.json"), "7");
    let (alerts, _) = board();
    let keeping = tokio::spawn(memory.clone().keep(alerts.clone()));
    let holds = async |count: usize| loop {
        let (other, _) = board();
        memory.recall(&other);
        if other.standing().len() == count && folder.path().join("alerts.json").exists() {
            return;
        }
        tokio::task::yield_now().await;
    };
    alerts.raise(AlertKind::Gap, "one", Severity::Critical, "lost");
    alerts.raise(AlertKind::Gap, "two", Severity::Critical, "lost");
    holds(2).await;
    alerts.clear(AlertKind::Gap, "one", "mended");
    holds(1).await;
    keeping.abort();
}

#[test]
fn an_alert_is_told_once_while_it_stands_and_once_when_it_is_over() {
    let (alerts, paper) = board();
    assert!(alerts.raise(AlertKind::SlotLost, "walseal_orders", Severity::Critical, "gone"));
    assert!(!alerts.raise(AlertKind::SlotLost, "walseal_orders", Severity::Critical, "still gone"));
    assert!(alerts.raise(AlertKind::SlotLost, "walseal_shop", Severity::Warning, "gone, too"));
    let standing = alerts.standing();
    assert_eq!(standing.iter().map(|alert| alert.text.as_str()).collect::<Vec<_>>(), ["still gone", "gone, too"]);
    assert!(!alerts.clear(AlertKind::Backlog, "walseal_orders", "nothing was there"));
    assert!(alerts.clear(AlertKind::SlotLost, "walseal_orders", "made anew"));
    assert!(!alerts.clear(AlertKind::SlotLost, "walseal_orders", "made anew"));
    alerts.clear_all_but(AlertKind::SlotLost, &["walseal_shop".to_owned()], "never");
    let (told, subject) = (paper.told(), |name: &str| format!("walseal_{name}"));
    assert_eq!(
        told,
        [
            (AlertState::Raised, AlertKind::SlotLost, subject("orders"), "gone".to_owned()),
            (AlertState::Raised, AlertKind::SlotLost, subject("shop"), "gone, too".to_owned()),
            (AlertState::Cleared, AlertKind::SlotLost, subject("orders"), "made anew".to_owned()),
        ]
    );
    alerts.clear_all_but(AlertKind::SlotLost, &[], "over");
    assert_eq!((paper.told().len(), alerts.standing().len()), (1, 0));
    // New trouble is news again.
    assert!(alerts.raise(AlertKind::SlotLost, "walseal_orders", Severity::Critical, "gone again"));
}

#[test]
fn an_alert_that_becomes_worse_is_told_again_and_one_that_becomes_better_is_not() {
    let (alerts, paper) = board();
    alerts.raise(AlertKind::Backlog, "", Severity::Warning, "much");
    let since = alerts.standing().first().map(|alert| alert.since);
    alerts.raise(AlertKind::Backlog, "", Severity::Critical, "very much");
    alerts.raise(AlertKind::Backlog, "", Severity::Warning, "much");
    assert_eq!(paper.told().len(), 2);
    let after = alerts.standing();
    assert_eq!(after.first().map(|alert| (Some(alert.since), alert.severity)), Some((since, Severity::Warning)));
}

#[test]
fn what_stands_for_long_is_told_again_at_its_interval() {
    let (alerts, paper) = board();
    let day = Duration::from_secs(86_400);
    alerts.raise(AlertKind::Gap, "a", Severity::Critical, "lost");
    let start = Instant::now();
    let hours = |hours: u32| start + day * hours / 24;
    for (hour, telling) in [(1, 1), (23, 0), (25, 1), (48, 0), (50, 1)] {
        alerts.remind_of(hours(hour), day);
        // The first was told when it was raised.
        assert_eq!(paper.told().len(), telling, "after {hour} hours");
    }
    alerts.clear(AlertKind::Gap, "a", "filled");
    paper.told();
    alerts.remind_of(hours(100), day);
    assert_eq!(paper.told(), []);
}

/// Pauses before another attempt.
const SOON: [Duration; 2] = [Duration::from_millis(1); 2];

fn shell(folder: &Path, script: &str) -> String {
    format!("cd '{}' && {{ {script}\n}}", folder.display())
}

async fn told(folder: &Path, script: &str, limit: Duration, news: usize) {
    let command = Arc::new(AlertCommand { command: shell(folder, script), limit });
    let courier = Courier::patient(command, "orders", Ledger::none(), SOON);
    let alerts = Alerts::to(vec![courier.clone()]);
    for number in 0..news {
        alerts.raise(AlertKind::Gap, number.to_string(), Severity::Critical, "the WAL is \"lost\"\n$(touch injected)");
    }
    alerts.clear(AlertKind::Gap, "0", "a base backup follows it");
    courier.finish(Instant::now() + Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_command_has_the_facts_in_its_environment_and_as_json_on_its_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "cat >> input; env | grep ^WALSEAL_ALERT_STATE= >> states
        printf '%s|%s|%s|%s' \"$WALSEAL_ALERT_KIND\" \"$WALSEAL_ALERT_SUBJECT\" \"$WALSEAL_ALERT_CLUSTER\" \"$WALSEAL_ALERT_TEXT\" > last";
    told(folder.path(), script, Duration::from_secs(60), 1).await;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("the command wrote it");
    assert_eq!(read("states"), "WALSEAL_ALERT_STATE=raised\nWALSEAL_ALERT_STATE=cleared\n");
    assert_eq!(read("last"), "gap|0|orders|a base backup follows it");
    let input = read("input");
    let documents: Vec<serde_json::Value> =
        input.lines().map(|line| serde_json::from_str(line).expect("one document on a line")).collect();
    assert_eq!(documents.len(), 2, "{input}");
    assert_eq!(documents[0]["schema"], "walseal.alert/1");
    for (field, value) in
        [("state", "raised"), ("kind", "gap"), ("subject", "0"), ("severity", "critical"), ("cluster", "orders")]
    {
        assert_eq!(documents[0][field], value, "{input}");
    }
    assert!(documents[0]["since"].as_str().is_some_and(|time| time.parse::<Timestamp>().is_ok()), "{input}");
    assert!(!folder.path().join("injected").exists(), "text was run as a command");
}

#[tokio::test]
async fn a_command_that_fails_hangs_or_is_deaf_keeps_nobody_from_being_told_next() {
    let folder = tempfile::tempdir().expect("a folder");
    // The first hangs, with a child of its own that holds the pipes; the second fails with much to say; the third works.
    let script = "echo x >> runs; case $(wc -l < runs) in
        1) sleep 1000 & sleep 1000 ;;
        2) yes complaint | head -c 1000000 >&2; exit 3 ;;
        esac";
    told(folder.path(), script, Duration::from_secs(1), 2).await;
    let runs = std::fs::read_to_string(folder.path().join("runs")).expect("it ran");
    // One that was ended may have done its work; one that failed is tried again.
    assert_eq!(runs.lines().count(), 4);
}

#[tokio::test]
async fn i11_more_news_than_the_command_can_take_are_left_to_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    told(folder.path(), "echo x >> runs", Duration::from_secs(60), 1000).await;
    let runs = std::fs::read_to_string(folder.path().join("runs")).expect("it ran").lines().count();
    assert!(runs > 0 && runs < 1000, "{runs}");
}

#[test]
fn kinds_have_one_word_each_in_every_form() {
    for kind in AlertKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.word());
        assert_eq!(kind.to_string(), kind.word());
    }
}

/// Fails as often as it is told to, and keeps what it then gets.
#[derive(Debug)]
struct Moody {
    failures: Mutex<u32>,
    passing: bool,
    got: Mutex<Vec<(AlertState, u32)>>,
}

#[async_trait]
impl Receiver for Moody {
    fn name(&self) -> String {
        "moody".to_owned()
    }

    async fn tell(&self, letter: &Letter) -> Result<String, Undelivered> {
        let mut left = self.failures.lock().expect("no test panics while it fails");
        self.got.lock().expect("no test panics while it writes").push((letter.news.state, *left));
        if *left == 0 {
            return Ok("thanks".to_owned());
        }
        *left -= 1;
        Err(Undelivered { why: "not now".to_owned(), passing: self.passing })
    }
}

/// Attempts, each with the failures that were left, for an alert and its end.
async fn attempts(failures: u32, passing: bool) -> Vec<(AlertState, u32)> {
    let moody = Arc::new(Moody { failures: Mutex::new(failures), passing, got: Mutex::default() });
    let courier = Courier::patient(moody.clone(), "orders", Ledger::none(), SOON);
    let alerts = Alerts::to(vec![courier.clone()]);
    alerts.raise(AlertKind::Gap, "", Severity::Critical, "lost");
    alerts.clear(AlertKind::Gap, "", "filled");
    courier.finish(Instant::now() + Duration::from_secs(60)).await;
    moody.got.lock().expect("no test panics while it writes").clone()
}

#[tokio::test]
async fn what_fails_for_now_is_tried_three_times_and_what_fails_for_good_once() {
    use AlertState::{Cleared, Raised};
    assert_eq!(attempts(0, true).await, [(Raised, 0), (Cleared, 0)]);
    assert_eq!(attempts(2, true).await, [(Raised, 2), (Raised, 1), (Raised, 0), (Cleared, 0)]);
    assert_eq!(attempts(3, true).await, [(Raised, 3), (Raised, 2), (Raised, 1), (Cleared, 0)]);
    assert_eq!(attempts(1, false).await, [(Raised, 1), (Cleared, 0)]);
}

#[tokio::test]
async fn a_mail_has_headers_that_no_text_gets_into_and_lines_that_smtp_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sendmail = folder.path().join("sendmail");
    let (mail, args) = (folder.path().join("mail"), folder.path().join("args"));
    let script = format!("#!/bin/sh\necho \"$@\" > '{}'\ncat > '{}'\n", args.display(), mail.display());
    std::fs::write(&sendmail, script).expect("a program");
    std::fs::set_permissions(&sendmail, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it can run");
    let to = vec!["ops@example.net".to_owned(), "night@example.net".to_owned()];
    let receiver = Mail { sendmail, to, from: "walseal@db1".to_owned(), limit: Duration::from_secs(60) };
    let now = Timestamp::now();
    let text = format!("lost\n.\nBcc: nobody {}", "ä".repeat(1500));
    let alert = OpenAlert {
        kind: AlertKind::Conflict,
        subject: "a\nBcc: mallory@example.net".to_owned(),
        severity: Severity::Critical,
        text,
        since: now,
    };
    let letter = Letter::new("orders", AlertNews { state: AlertState::Raised, alert, at: now, frontier: None }, None);
    receiver.tell(&letter).await.expect("the program takes it");
    let sent = std::fs::read_to_string(&mail).expect("a mail");
    let (head, body) = sent.split_once("\n\n").expect("headers and a body");
    assert!(head.contains("\nTo: ops@example.net, night@example.net\n"), "{sent}");
    assert!(
        head.contains("\nSubject: walseal orders: conflict (a?Bcc: mallory@example.net) raised, critical\n"),
        "{sent}"
    );
    assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{sent}");
    assert!(body.lines().all(|line| line.len() <= 998) && body.matches('ä').count() == 1500, "{sent}");
    let args = std::fs::read_to_string(&args).expect("arguments");
    assert_eq!(args.trim(), "-i -f walseal@db1 -- ops@example.net night@example.net");
}

#[tokio::test]
async fn a_url_is_never_shown_behind_its_host_and_one_that_is_none_is_refused() {
    let config = |url: &str| Config::from_toml(&format!("[alerts]\nslack_url = \"{url}\"\n"));
    for wrong in [
        "hooks.example.net/T0/s3cret",
        "ftp://hooks.example.net/s3cret",
        "https://me:s3cret@example.net/",
        "https:///s3cret",
    ] {
        let error = config(wrong).expect_err("no URL that can be posted to").to_string();
        assert!(error.contains("alerts.slack_url") && !error.contains("s3cret"), "{error}");
    }
    // Nobody listens on port 1.
    let config = config("http://127.0.0.1:1/T0/s3cret").expect("a URL");
    let trials = try_alerts(&config, "orders").await.expect("a receiver");
    let shown = format!("{trials:?} {config:?}");
    assert!(shown.contains("alerts.slack_url (http://127.0.0.1:1)") && shown.contains("not reached"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}
