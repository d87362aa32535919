//! Alerts are told once, and their end once; the command is never waited for.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;

use super::*;

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

fn shell(folder: &Path, script: &str) -> String {
    format!("cd '{}' && {{ {script}\n}}", folder.display())
}

async fn told(folder: &Path, script: &str, limit: Duration, news: usize) {
    let command = AlertCommand::start(shell(folder, script), "orders".to_owned(), limit);
    let alerts = Alerts::to(vec![command.clone()]);
    for number in 0..news {
        alerts.raise(AlertKind::Gap, number.to_string(), Severity::Critical, "the WAL is \"lost\"\n$(touch injected)");
    }
    alerts.clear(AlertKind::Gap, "0", "a base backup follows it");
    command.finish(Duration::from_secs(60)).await;
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
    told(folder.path(), script, Duration::from_millis(300), 2).await;
    let runs = std::fs::read_to_string(folder.path().join("runs")).expect("it ran");
    assert_eq!(runs.lines().count(), 3);
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
