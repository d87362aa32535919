#![allow(clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::repository::{ManifestEntry, PathField};

fn path(text: &str) -> RelativePath {
    RelativePath::new(text.as_bytes()).expect("a path")
}

fn layer(blocks: Option<&[(u32, u32)]>, length: u64) -> Layer {
    let blocks = blocks.map(|runs| runs.iter().copied().map(BlockRun::from).collect());
    let mut layer = Layer { extents: vec![], digests: vec![], blocks, length };
    if layer.plain_size() > 0 {
        layer.extents.push(Extent { object: 0, frame: 0, count: 1 });
        layer.digests.push(FrameDigest([1; 16]));
    }
    layer
}

fn entry(layers: Vec<Layer>) -> FileEntry {
    let size = layers.last().map_or(0, |layer| layer.length);
    let path = PathField(path("base/5/1259"));
    FileEntry { path, mode: 0o600, mtime: 3, size, extents: vec![], digests: vec![], layers }
}

/// The format's own words, step by step: the file is cut or grown to a layer's length, then its blocks are written. A byte is
/// told by the layer and the place in the layer that it comes from.
fn by_the_format(layers: &[Layer]) -> Vec<Option<(usize, u64)>> {
    let mut file: Vec<Option<(usize, u64)>> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        file.resize(layer.length as usize, None);
        let whole = || vec![Span { stream: 0, file: 0, length: layer.length }];
        let run = |run: &BlockRun| {
            let bytes = run.bytes();
            Span { stream: 0, file: bytes.start, length: bytes.end - bytes.start }
        };
        let runs = layer.blocks.as_ref().map_or_else(whole, |runs| runs.iter().map(run).collect());
        let bytes = runs.iter().flat_map(|run| run.file..run.file + run.length);
        for (stream, at) in bytes.enumerate() {
            file[at as usize] = Some((number, stream as u64));
        }
    }
    file
}

fn by_spans(layers: &[Layer]) -> Vec<Option<(usize, u64)>> {
    let length = layers.last().map_or(0, |layer| layer.length);
    let mut file = vec![None; length as usize];
    for (number, kept) in spans(layers).iter().enumerate() {
        let mut end = 0;
        for span in kept {
            assert!(span.length > 0 && span.file >= end, "ascending: {kept:?}");
            end = span.file + span.length;
            for step in 0..span.length {
                let place = &mut file[(span.file + step) as usize];
                assert!(place.is_none(), "written twice");
                *place = Some((number, span.stream + step));
            }
        }
    }
    file
}

/// A later layer: some blocks of the first twelve, and a length that holds them.
fn later() -> impl Strategy<Value = Layer> {
    (prop::collection::vec(any::<bool>(), 0..12), 0u64..4).prop_map(|(held, more)| {
        let mut runs: Vec<BlockRun> = Vec::new();
        for (number, _) in held.iter().enumerate().filter(|(_, held)| **held) {
            match runs.last_mut() {
                Some(run) if run.first + run.count == number as u32 && number % 3 != 0 => run.count += 1,
                _ => runs.push(BlockRun { first: number as u32, count: 1 }),
            }
        }
        let end = runs.last().map_or(0, |run| u64::from(run.first + run.count));
        let mut layer = layer(None, (end + more) * LAYER_BLOCK);
        layer.blocks = Some(runs);
        layer
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_byte_comes_from_the_layer_that_the_format_says_and_is_written_once(
        oldest in 0u64..80_000,
        newer in prop::collection::vec(later(), 0..5),
    ) {
        let layers: Vec<Layer> = std::iter::once(layer(None, oldest)).chain(newer).collect();
        prop_assert!(by_spans(&layers) == by_the_format(&layers), "{:?}", layers);
    }

    #[test]
    fn lines_that_are_odd_in_any_way_never_panic(
        runs in prop::collection::vec((any::<u32>(), any::<u32>()), 0..4),
        length in any::<u64>(),
        size in any::<u64>(),
        oldest in any::<bool>(),
    ) {
        let mut layers = vec![layer(None, if oldest { length } else { 0 }), layer(None, length)];
        layers[1].blocks = Some(runs.into_iter().map(BlockRun::from).collect());
        let entry = FileEntry { size, ..entry(layers) };
        if entry.adds_up() {
            spans(&entry.layers);
        }
    }
}

#[test]
fn a_line_with_layers_is_that_of_the_format() {
    let mut entry = entry(vec![layer(None, 24_576), layer(Some(&[(0, 1), (2, 1)]), 40_960)]);
    entry.layers[1].extents[0] = Extent { object: 4, frame: 2, count: 1 };
    assert!(entry.adds_up());
    let line = ManifestEntry::File(entry);
    let text = serde_json::to_string(&line).expect("serialisable");
    assert_eq!(
        text,
        r#"{"type":"file","path":"base/5/1259","mode":384,"mtime":3,"size":40960,"layers":[{"extents":[[0,0,1]],"digests":"AQEBAQEBAQEBAQEBAQEBAQ==","length":24576},{"extents":[[4,2,1]],"digests":"AQEBAQEBAQEBAQEBAQEBAQ==","blocks":[[0,1],[2,1]],"length":40960}]}"#
    );
    assert_eq!(serde_json::from_str::<ManifestEntry>(&text).expect("its own text"), line);
}

#[test]
fn a_line_has_frames_of_its_own_or_layers() {
    let start = r#"{"type":"file","path":"a","mode":384,"mtime":3,"size":0"#;
    let read = |rest: &str| serde_json::from_str::<ManifestEntry>(&format!("{start}{rest}}}"));
    assert!(read(r#","extents":[],"digests":"""#).is_ok());
    assert!(read(r#","extents":[],"digests":"","layers":null"#).is_ok());
    for rest in [
        "",
        r#","extents":[]"#,
        r#","layers":[]"#,
        r#","extents":[],"digests":"","layers":[]"#,
        r#","extents":[],"digests":"","layers":[{"extents":[],"digests":"","length":0}]"#,
    ] {
        let error = read(rest).expect_err(rest).to_string();
        assert!(error.contains("layers"), "{rest}: {error}");
    }
}

#[test]
fn lines_that_do_not_add_up_are_told() {
    let good = || entry(vec![layer(None, 24_576), layer(Some(&[(0, 1), (2, 1)]), 24_576)]);
    assert!(good().adds_up());
    type Change = fn(&mut FileEntry);
    let changes: [(&str, Change); 12] = [
        ("another size", |e| e.size += 1),
        ("an oldest layer of blocks", |e| e.layers[0].blocks = Some(vec![])),
        ("a newer layer without blocks", |e| e.layers[1].blocks = None),
        ("blocks beyond its length", |e| e.layers[1].blocks = Some(vec![BlockRun { first: 3, count: 1 }])),
        ("an empty run", |e| e.layers[1].blocks = Some(vec![BlockRun { first: 1, count: 0 }])),
        ("a block twice", |e| e.layers[1].blocks = Some(vec![BlockRun { first: 0, count: 2 }, (1, 1).into()])),
        ("blocks in no order", |e| e.layers[1].blocks = Some(vec![(2, 1).into(), (0, 1).into()])),
        ("content without frames", |e| (e.layers[1].extents, e.layers[1].digests) = (vec![], vec![])),
        ("frames without content", |e| e.layers[1].blocks = Some(vec![])),
        ("a frame without a digest", |e| e.layers[1].digests.clear()),
        ("frames of its own, too", |e| e.digests.push(FrameDigest([1; 16]))),
        ("frames that can't be counted", |e| e.layers[0].extents[0].frame = u32::MAX),
    ];
    for (what, change) in changes {
        let mut entry = good();
        change(&mut entry);
        assert!(!entry.adds_up(), "{what}");
    }
    let many = std::iter::once(layer(None, 0)).chain((0..MOST_LAYERS).map(|_| layer(Some(&[]), 0)));
    assert!(!entry(many.collect()).adds_up());
}

#[test]
fn only_files_of_relations_come_as_changed_blocks() {
    for (sent, real) in [
        ("base/5/INCREMENTAL.1259", Some("base/5/1259")),
        ("base/5/INCREMENTAL.1259.12", Some("base/5/1259.12")),
        ("global/INCREMENTAL.1262_vm", Some("global/1262_vm")),
        ("pg_tblspc/16384/PG_17_202406281/5/INCREMENTAL.77_vm.1", Some("pg_tblspc/16384/PG_17_202406281/5/77_vm.1")),
        ("base/5/1259", None),
        ("base/5/INCREMENTAL.", None),
        ("base/5/INCREMENTAL.x", None),
        ("base/5/INCREMENTAL.1259_x", None),
        ("base/5/INCREMENTAL.1259.", None),
        ("base/5/INCREMENTAL.INCREMENTAL.1259", None),
        ("pg_xact/INCREMENTAL.0000", None),
        ("INCREMENTAL.1259", None),
    ] {
        assert_eq!(path(sent).changed_blocks_of(), real.map(path), "{sent}");
    }
}
