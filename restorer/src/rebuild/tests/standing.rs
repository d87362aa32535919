//! Into a directory that is there already: what an interrupted rebuild left, or a cluster.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use walseal_common::repository::{Label, Repository};
use walseal_common::seal::Identity;
use walseal_common::store::StoreErrorKind;
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_common::timeline::SystemIdentifier;

use super::silent;
use super::toy::{Bed, Toy, ToyLayer, content, noise};
use crate::rebuild::mark::MARK;
use crate::rebuild::*;
use crate::sample::Meter;

/// Rebuilds what `label` says, from `repository`.
async fn rebuilt(
    repository: &Repository,
    identities: &[Identity],
    label: &Label,
    layout: &Layout,
) -> Result<Traffic, RebuildError> {
    let source = Source { repository, identities, label };
    let unfinished = rebuild(source, layout.clone(), 2, &silent()).await?;
    let traffic = unfinished.traffic();
    unfinished.finish()?;
    Ok(traffic)
}

/// All files of the backup are there as they were, and `pg_control` is.
fn assert_whole(toy: &Toy, data: &Path) {
    for (path, bytes) in toy.files() {
        let path = data.join(std::str::from_utf8(path).expect("UTF-8"));
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let differs = found.iter().zip(bytes).position(|(one, other)| one != other);
        assert!(found == *bytes, "{}: {} of {} bytes, {differs:?}", path.display(), found.len(), bytes.len());
    }
    assert!(!data.join(MARK).exists() && !data.join("global/pg_control.unfinished").exists());
}

fn delta(mut bed: Bed<'_>) -> Bed<'_> {
    bed.destination.delta = true;
    bed
}

#[tokio::test]
async fn case_27_a_folder_with_nothing_but_half_a_mark_is_free() {
    let mut toy = Toy::new().await;
    toy.file("base/5/empty", b"");
    let label = toy.store().await;
    for deltas in [false, true] {
        let bed = toy.bed_without_layout(&label).await;
        let bed = if deltas { delta(bed) } else { bed };
        let data = bed.destination.data.clone();
        fs::create_dir_all(&data).expect("ours");
        fs::write(data.join(format!("{MARK}.new")), "{").expect("ours");
        assert!(!bed.decide().expect("nothing else is there").stands);
        fs::write(data.join("base"), "").expect("ours");
        bed.decide().expect_err("that is somebody's");
        fs::remove_dir_all(&data).expect("ours");
    }
}

#[tokio::test]
async fn case_27_an_interrupted_rebuild_is_gone_on_with_and_what_is_right_is_not_fetched_again() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", &noise(32 << 20, 5));
    toy.file("base/5/empty", b"");
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let faulty = Arc::new(Faulty::new(toy.repository().repository.store().clone()));
    let meter = Arc::new(Meter::new(faulty.clone()));
    let repository = toy.through(meter.clone());
    let bed = toy.bed_without_layout(&label).await;
    let layout = bed.decide().expect("a free place");
    // The last data object cannot be had.
    let lost = format!("{}/{}", repository.cluster(), label.objects.last().expect("objects").name);
    faulty.plan_below(&lost, Call::Get, 1..=9, Effect::FailBefore(StoreErrorKind::Denied));
    rebuilt(&repository, identities, &label, &layout).await.expect_err("an object is missing");
    let data = &layout.data;
    assert!(data.join(MARK).exists() && !data.join("global/pg_control").exists());
    let (first, _) = meter.take();
    // The last place of the disk is lost, too.
    let file = fs::OpenOptions::new().write(true).open(data.join("base/5/1259")).expect("there");
    file.set_len(23 << 20).expect("ours");

    faulty.heal();
    let layout = bed.decide().expect("what an interrupted rebuild left");
    assert!(layout.stands);
    let traffic = rebuilt(&repository, identities, &label, &layout).await.expect("all is there");
    assert_whole(&toy, data);
    let (second, _) = meter.take();
    assert!(second < first / 2 && traffic.fetched <= second, "{second} of {first} bytes, {traffic:?}");
    assert_eq!(traffic.kept + traffic.written, label.cluster_size);
    // It is a cluster now.
    let refused = bed.decide().expect_err("not to be written over");
    assert!(refused.to_string().contains("data directory of a cluster"), "{refused}");
    assert!(refused.next().iter().any(|next| next.contains("--delta")), "{:?}", refused.next());
}

#[tokio::test]
async fn delta_after_one_percent_changed_fetches_under_15_percent_of_the_bytes() {
    let mut toy = Toy::new().await;
    for number in 0..3 {
        toy.file(&format!("base/5/{}", 2000 + number), &noise(6 << 20, number + 1));
    }
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let meter = Arc::new(Meter::new(toy.repository().repository.store().clone()));
    let repository = toy.through(meter.clone());
    let bed = delta(toy.bed_without_layout(&label).await);
    let layout = bed.decide().expect("a free place");
    assert!(!layout.stands);
    let whole = rebuilt(&repository, identities, &label, &layout).await.expect("sound");
    let (full, _) = meter.take();
    assert!(whole.fetched <= full && whole.kept == 0, "{whole:?}");
    // Every hundredth block all over: the worst that 1 % can be.
    for number in 0..3 {
        let path = layout.data.join(format!("base/5/{}", 2000 + number));
        let mut bytes = fs::read(&path).expect("there");
        for block in bytes.chunks_mut(8192).step_by(100) {
            block[77] ^= 1;
        }
        fs::write(&path, bytes).expect("ours");
    }
    let layout = bed.decide().expect("a cluster that is to be written over");
    let traffic = rebuilt(&repository, identities, &label, &layout).await.expect("sound");
    assert_whole(&toy, &layout.data);
    let (fetched, requests) = meter.take();
    assert!(fetched * 100 < full * 15, "{fetched} of {full} bytes in {requests} requests");
    assert!(traffic.written * 100 < label.cluster_size * 9, "{traffic:?}");
    // Once more: nothing but the list of files, and pg_control.
    let layout = bed.decide().expect("a cluster");
    let traffic = rebuilt(&repository, identities, &label, &layout).await.expect("sound");
    assert_eq!(traffic.written, 8192, "{traffic:?}");
}

#[tokio::test]
async fn delta_makes_whatever_became_of_the_files_what_they_were() {
    let mut toy = Toy::new().await;
    const BLOCK: usize = 8192;
    let bytes = |blocks: usize, seed| noise(blocks * BLOCK, seed);
    toy.file("base/5/1259", &bytes(100, 1));
    toy.file("base/5/empty", b"");
    toy.cut_file("base/5/odd", &content(300_000, 9), &[7, 100_000, 65_536, 1, 134_456]);
    // Cut once and grown again: blocks 4 to 19, and from 29 on, are zeros, and hidden ones lie in the middle of frames.
    let layers = || {
        vec![
            ToyLayer { blocks: None, bytes: bytes(40, 2), length: 40 * BLOCK as u64 },
            ToyLayer { blocks: Some(vec![(1, 1)]), bytes: bytes(1, 3), length: 4 * BLOCK as u64 },
            ToyLayer { blocks: Some(vec![(20, 9)]), bytes: bytes(9, 4), length: 35 * BLOCK as u64 },
        ]
    };
    let mut whole = vec![0; 35 * BLOCK];
    whole[..4 * BLOCK].copy_from_slice(&bytes(40, 2)[..4 * BLOCK]);
    whole[BLOCK..2 * BLOCK].copy_from_slice(&bytes(1, 3));
    whole[20 * BLOCK..29 * BLOCK].copy_from_slice(&bytes(9, 4));
    toy.layered_file("base/5/2000", layers(), &whole);
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let repository = &toy.repository().repository;
    let bed = delta(toy.bed_without_layout(&label).await);
    let mut layout = bed.decide().expect("a free place");
    rebuilt(repository, identities, &label, &layout).await.expect("sound");
    let paths: Vec<_> =
        toy.files().map(|(path, _)| layout.data.join(std::str::from_utf8(path).expect("UTF-8"))).collect();
    for seed in 0..24 {
        let mut chance = noise(4096, seed + 7).into_iter().map(usize::from);
        let mut draw = |below: usize| (chance.next().expect("enough") << 8 | chance.next().expect("enough")) % below;
        for path in paths.iter().filter(|path| !path.ends_with("global/pg_control")) {
            let mut bytes = fs::read(path).expect("there");
            match draw(5) {
                0 => bytes.truncate(bytes.len() / 3),
                1 => bytes.extend(noise(1 + draw(100_000), seed)),
                2 if !bytes.is_empty() => {
                    for _ in 0..3 {
                        let at = draw(bytes.len().min(65_536)) * bytes.len() / bytes.len().min(65_536);
                        bytes[at] ^= 0x55;
                    }
                }
                3 => {
                    fs::remove_file(path).expect("ours");
                    continue;
                }
                _ => {}
            }
            fs::write(path, bytes).expect("ours");
        }
        layout = bed.decide().expect("a cluster");
        let traffic = rebuilt(repository, identities, &label, &layout).await.expect("sound");
        assert_whole(&toy, &layout.data);
        assert!(traffic.kept + traffic.written >= label.cluster_size - 22 * BLOCK as u64, "{traffic:?}");
    }
}

#[tokio::test]
async fn case_27_a_delta_that_breaks_off_leaves_no_pg_control_and_is_gone_on_with_without_the_flag() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", &noise(1 << 20, 5));
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let faulty = Arc::new(Faulty::new(toy.repository().repository.store().clone()));
    let repository = toy.through(faulty.clone());
    let mut bed = delta(toy.bed_without_layout(&label).await);
    let layout = bed.decide().expect("a free place");
    rebuilt(&repository, identities, &label, &layout).await.expect("sound");
    fs::write(layout.data.join("base/5/1259"), "gone").expect("ours");
    for call in [Call::Get, Call::GetRange] {
        let prefix = format!("{}/base/{}/data", repository.cluster(), label.id);
        faulty.plan_below(&prefix, call, 1..=99, Effect::FailBefore(StoreErrorKind::Denied));
    }
    let layout = bed.decide().expect("a cluster");
    rebuilt(&repository, identities, &label, &layout).await.expect_err("nothing can be had");
    assert!(!layout.data.join("global/pg_control").exists());
    faulty.heal();
    bed.destination.delta = false;
    let layout = bed.decide().expect("what the delta left");
    rebuilt(&repository, identities, &label, &layout).await.expect("sound");
    assert_whole(&toy, &layout.data);
}

#[tokio::test]
async fn frames_that_are_damaged_on_their_way_are_read_again() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", &noise(8 << 20, 5));
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let faulty = Arc::new(Faulty::new(toy.repository().repository.store().clone()));
    let repository = toy.through(faulty.clone());
    let bed = delta(toy.bed_without_layout(&label).await);
    let layout = bed.decide().expect("a free place");
    faulty.plan(Call::Get, 4..=4, Effect::WrongBytes);
    rebuilt(&repository, identities, &label, &layout).await.expect("read again");
    // Outline, frames: each of them once.
    for hit in [1, 3] {
        let path = layout.data.join("base/5/1259");
        let mut bytes = fs::read(&path).expect("there");
        bytes[3 << 20] ^= 1;
        fs::write(&path, bytes).expect("ours");
        faulty.heal();
        faulty.plan(Call::GetRange, hit..=hit, Effect::WrongBytes);
        let before = faulty.calls(Call::GetRange);
        let layout = bed.decide().expect("a cluster");
        rebuilt(&repository, identities, &label, &layout).await.expect("read again");
        assert!(faulty.calls(Call::GetRange) > before);
        assert_whole(&toy, &layout.data);
    }
}

fn refusal(bed: &Bed<'_>) -> String {
    let error = bed.decide().expect_err("refused");
    assert!(matches!(error, RebuildError::Refused { .. }), "{error:?}");
    format!("{error}\n{}", error.next().join("\n"))
}

#[tokio::test]
async fn delta_into_what_is_not_this_cluster_at_rest_is_refused() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let bed = delta(toy.bed_without_layout(&label).await);
    let data = bed.destination.data.clone();
    fs::create_dir_all(data.join("global")).expect("ours");
    fs::write(data.join("PG_VERSION"), "15\n").expect("ours");
    assert!(refusal(&bed).contains("no global/pg_control"));
    fs::write(data.join("global/pg_control"), SystemIdentifier(7).0.to_ne_bytes()).expect("ours");
    let text = refusal(&bed);
    assert!(text.contains("cluster 7") && text.contains("name another folder"), "{text}");
    fs::write(data.join("global/pg_control"), crate::sample::SYSTEM.0.to_ne_bytes()).expect("ours");
    fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).expect("ours");
    let text = refusal(&bed);
    assert!(text.contains("runs now") && text.contains("pg_ctl stop"), "{text}");
    fs::remove_file(data.join("postmaster.pid")).expect("ours");
    assert!(bed.decide().expect("a cluster at rest").stands);
    // An interrupted rebuild of another cluster is none of ours either.
    fs::remove_file(data.join("global/pg_control")).expect("ours");
    fs::write(data.join(MARK), r#"{"cluster":"7","waldir":null,"tablespaces":{}}"#).expect("ours");
    assert!(refusal(&bed).contains("cluster 7"));
    fs::write(data.join(MARK), "?").expect("ours");
    assert!(refusal(&bed).contains(MARK));
}

#[tokio::test]
async fn case_28_delta_writes_to_a_tablespace_only_when_it_is_named() {
    let mut toy = Toy::new().await;
    let old = toy.folder().join("fast");
    toy.tablespace(16384, old.to_str());
    toy.file("pg_tblspc/16384/PG_15_202209061/5/100", b"fast");
    let label = toy.store().await;
    let identities = &toy.repository().identities;
    let repository = &toy.repository().repository;
    let (space, wal) = (toy.folder().join("space"), toy.folder().join("wal-volume"));
    let mut bed = delta(toy.bed_without_layout(&label).await);
    bed.destination.tablespaces.pairs = vec![(old.clone(), space.clone())];
    bed.destination.waldir = Some(wal.clone());
    let layout = bed.decide().expect("free places");
    rebuilt(repository, identities, &label, &layout).await.expect("sound");
    // Named as they are, all is well; other versions' files stay.
    fs::create_dir(space.join("PG_14_202107181")).expect("ours");
    fs::write(space.join("PG_15_202209061/5/stray"), "x").expect("ours");
    let layout = bed.decide().expect("as it was");
    rebuilt(repository, identities, &label, &layout).await.expect("sound");
    assert_whole(&toy, &layout.data);
    assert!(space.join("PG_14_202107181").is_dir() && !space.join("PG_15_202209061/5/stray").exists());
    assert_eq!(fs::read_link(layout.data.join("pg_wal")).ok(), Some(wal.clone()));
    // Not named, they are refused with the flags to give.
    bed.destination.waldir = None;
    let text = refusal(&bed);
    assert!(text.contains(&format!("--waldir {}", wal.display())), "{text}");
    bed.destination.waldir = Some(wal);
    bed.destination.tablespaces.pairs.clear();
    let text = refusal(&bed);
    assert!(text.contains(&format!("--tablespace {}={}", old.display(), space.display())), "{text}");
    // An interrupted rebuild knows its own.
    fs::remove_file(layout.data.join("global/pg_control")).expect("ours");
    mark::Mark::of(&layout, repository.cluster()).put(&layout).expect("ours");
    assert_eq!(bed.decide().expect("its own").tablespaces, layout.tablespaces);
}
