//! The report as one HTML file. It fetches nothing, runs nothing, and every text that comes out of the repository is escaped by
//! the type that holds it.

mod chart;
mod glance;
mod records;
mod scale;
mod sections;
mod summary;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Figures;

const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded, whatever stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The whole page.
pub fn page(figures: &Figures) -> String {
    let month = figures.period.words();
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Backups and restores of cluster " (figures.cluster) ", " (month) }
                // Our own text, not one of the repository's.
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (summary::head(figures, &month))
                    (summary::verdict(figures))
                    (summary::cards(figures))
                    (sections::glance(figures))
                    (sections::promised(figures))
                    (sections::loss(figures))
                    (sections::backups(figures))
                    (sections::drills(figures))
                    (sections::growth(figures))
                    (records::restores(figures))
                    (records::alerts(figures))
                    (records::actors(figures))
                    (records::events(figures))
                    (summary::foot(figures))
                }
            }
        }
    };
    page.into_string()
}

/// A moment in UTC, to the minute. The page says once that it is.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A share in percent. Nothing but all is 100, and nothing but none 0.
fn share(part: Option<f64>) -> String {
    match part {
        None => "not measured".to_owned(),
        Some(part) if part >= 1.0 => "100 %".to_owned(),
        Some(part) if part <= 0.0 => "0 %".to_owned(),
        Some(part) => format!("{:.2} %", ((part * 1e4).floor() / 1e2).max(0.01)),
    }
}

/// `1 drill`, `2 drills`.
fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}
