//! The hook while the bucket is away.

use walseal_tests::proxy::Line;

use super::*;

#[test]
fn i1_case_22_nothing_counts_as_archived_while_the_bucket_is_away_and_everything_does_afterwards() -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(1), Store::S3)?;
    let (proxied, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&proxied);
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    site.archiver.run_long(&["backup"])?.success()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    end_segment(&site.cluster)?;
    wait_archived(&site.cluster)?;

    proxy.set(Line::Down);
    let name = end_segment(&site.cluster)?;
    fails(&push(&site, &file(&site.cluster, &name))?, &[&name])?;
    for _ in 0..20 {
        end_segment(&site.cluster)?;
    }
    ensure!(queued(&site.cluster)?.len() > 20, "nothing may count as archived: {:?}", queued(&site.cluster)?);
    load.goes_on(20, PATIENCE)?;
    let commits = load.stop()?;
    // Its shutdown tries three times to archive what is left, and waits for the hook each time.
    site.cluster.stop(Stop::Fast)?;

    proxy.set(Line::Up);
    site.cluster.start()?;
    end_segment(&site.cluster)?;
    wait_archived(&site.cluster)?;
    site.cluster.destroy()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &commits.iter().map(|commit| commit.id).collect())
}
