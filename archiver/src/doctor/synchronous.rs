//! Whether commits wait for this archiver, and whether that was asked for (case 13).

use super::Finding;

const CHECK: &str = "synchronous";

/// `synchronous_standby_names`, as far as this archiver is concerned.
#[derive(Debug)]
struct Names {
    /// `ANY`: whoever is first counts; else those that stand first.
    any: bool,
    /// For how many a commit waits.
    wanted: usize,
    members: Vec<String>,
}

impl Names {
    /// Reads what the server took (`syncrep_gram.y`): `name, …`, `n (name, …)`, `FIRST n (…)` or `ANY n (…)`.
    fn parse(setting: &str) -> Names {
        let (head, list) = match setting.split_once('(') {
            Some((head, list)) => (head, list.trim_end().trim_end_matches(')')),
            None => ("", setting),
        };
        let mut words = head.split_whitespace();
        let first = words.next().unwrap_or_default();
        let any = first.eq_ignore_ascii_case("any");
        let wanted = if any || first.eq_ignore_ascii_case("first") { words.next() } else { Some(first) };
        let members = list.split(',').map(|name| name.trim().trim_matches('"').to_ascii_lowercase());
        Names {
            any,
            wanted: wanted.and_then(|word| word.parse().ok()).unwrap_or(1),
            members: members.filter(|name| !name.is_empty()).collect(),
        }
    }

    fn place_of(&self, wanted: &str) -> Option<usize> {
        self.members.iter().position(|name| name.eq_ignore_ascii_case(wanted))
    }
}

/// Judges `synchronous_standby_names`. `name` is our application name, `chosen` is `wal.synchronous`.
pub fn synchronous(setting: &str, name: &str, chosen: bool) -> Finding {
    let names = Names::parse(setting);
    if chosen {
        return wanted(setting, name, &names);
    }
    if names.members.is_empty() {
        return Finding::fine(CHECK, "synchronous_standby_names is empty: no commit waits for anybody");
    }
    if names_everybody(setting) {
        let text = format!(
            "synchronous_standby_names = '{setting}': the '*' makes this archiver a synchronous standby, and commits may wait for \
             the store"
        );
        return Finding::warning(CHECK, text).fix("name the standbys in place of '*', then SELECT pg_reload_conf();");
    }
    if names.place_of(name).is_some() {
        let text = format!("synchronous_standby_names = '{setting}' names {name}: commits wait for the store");
        return Finding::warning(CHECK, text)
            .fix("set wal.synchronous = true where that is wanted, else take the name out");
    }
    Finding::fine(CHECK, format!("synchronous_standby_names = '{setting}' does not name this archiver"))
}

/// Where commits are to wait for us: whether each of them does.
fn wanted(setting: &str, name: &str, names: &Names) -> Finding {
    let said = format!("wal.synchronous is set; synchronous_standby_names = '{setting}'");
    let Some(place) = names.place_of(name).or(names.place_of("*")) else {
        let text = format!("{said} does not name {name}: no commit waits for the store");
        return Finding::warning(CHECK, text)
            .fix(format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'; SELECT pg_reload_conf();"));
    };
    if names.wanted >= names.members.len() && names.place_of("*").is_none() {
        return Finding::fine(CHECK, format!("{said}: each commit waits until it is in the repository"));
    }
    let gap = if names.any || place >= names.wanted {
        "a commit may return before it is in the repository, when others have it"
    } else {
        "while the archiver is not connected, commits wait for another one in its place, and not for the repository"
    };
    let all = names.members.len();
    Finding::warning(CHECK, format!("{said}: {gap}")).fix(format!(
        "where every commit is to be in the repository, name no more than are waited for: 'ANY {all} (…)'"
    ))
}

/// Whether `synchronous_standby_names` makes everybody that streams a synchronous standby.
pub fn names_everybody(setting: &str) -> bool {
    Names::parse(setting).place_of("*").is_some()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const OURS: &str = "walseal_orders";

    fn finding(setting: &str, chosen: bool) -> Finding {
        synchronous(setting, OURS, chosen)
    }

    #[test]
    fn case_13_being_a_synchronous_standby_unasked_is_warned_about() {
        assert_eq!(finding("", false).verdict, Verdict::Fine);
        assert_eq!(finding("FIRST 1 (s1, s2)", false).verdict, Verdict::Fine);
        for asked in ["*", "ANY 1 (*)", "ANY 1 (s1, \"*\")", OURS, "FIRST 2 (s1, \"Walseal_Orders\")"] {
            assert_eq!(finding(asked, false).verdict, Verdict::Warning, "{asked}");
        }
        assert!(!finding("*", false).fix.is_empty());
    }

    #[test]
    fn a_setting_by_which_not_each_commit_waits_is_told_apart() {
        for each in [OURS, "1 (walseal_orders)", "FIRST 2 (s1, Walseal_Orders)", "any 2 (\"walseal_orders\", s1)"] {
            assert_eq!(finding(each, true).verdict, Verdict::Fine, "{each}");
        }
        for (some, why) in [
            ("", "no commit waits"),
            ("s1", "no commit waits"),
            ("ANY 1 (walseal_orders, s1)", "when others have it"),
            ("FIRST 1 (s1, walseal_orders)", "when others have it"),
            ("s1, walseal_orders", "when others have it"),
            ("walseal_orders, s1", "is not connected"),
            ("FIRST 1 (walseal_orders, s1)", "is not connected"),
            ("2 (walseal_orders, s1, s2)", "is not connected"),
            ("*", "is not connected"),
        ] {
            let found = finding(some, true);
            assert_eq!(found.verdict, Verdict::Warning, "{some}");
            assert!(found.text.contains(why), "{some}: {}", found.text);
            assert!(!found.fix.is_empty(), "{some}");
        }
    }
}
