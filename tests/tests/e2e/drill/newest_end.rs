//! The newest end of a repository was cut off: what is left looks whole, but not to a host that has seen more.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;

use super::mutations::{green, keys, red, with_changed};
use super::site;

#[test]
fn case_45_i12_a_newest_end_that_was_seen_and_is_gone_turns_it_red() -> Result<()> {
    let mut site = site(Cluster::builder().segment_mib(1))?;
    let remembered = site.scratch.dir("remembered")?;
    site.restorer.set_text("cluster.state_dir", &remembered.to_string_lossy());
    site.restorer.write_config()?;
    let newest = keys(&site, |key| key.contains("/tail/") || key.contains("/frontier/"))?;
    ensure!(!newest.is_empty(), "nothing to cut off");
    // Nobody has seen anything yet, and no drill has: this cannot show.
    with_changed(&site, &newest, |_| None, || green(&site.restorer, &[]).map(drop))?;
    ensure!(std::fs::read_dir(&remembered)?.next().is_none(), "a drill is no verification");

    site.restorer.run_long(&["verify"])?.success()?;
    with_changed(
        &site,
        &newest,
        |_| None,
        || {
            let report = red(&site, &site.restorer, &[], "plan", "1 end was cut off")?;
            let checks = report["checks"].as_array().context("checks")?;
            let check = checks.iter().find(|check| check["name"] == "newest end").context("the check")?;
            let told = check["details"].to_string();
            ensure!(told.contains("CUT OFF: wal/") && told.contains("this host remembers"), "{check:#}");
            // Whoever lists, or plans, is told the same.
            let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
            ensure!(listed["cut_off"][0]["object"].as_str().is_some_and(|name| name.starts_with("wal/")), "{listed}");
            Ok(())
        },
    )?;
    green(&site.restorer, &[])?;
    Ok(())
}
