//! A file's line when the server has sent the blocks that changed since the parent.

use walseal_common::repository::{FileEntry, Layer, spans};

use super::incremental::ChangedBlocks;
use super::packer::PackedFile;

/// The file's line: what it consisted of `before`, and what has changed since, whose blocks were packed as `packed`. Extents of
/// `before` are those of the parent, and `number` makes them this backup's; it is asked only for what is still needed.
pub fn layered(
    before: FileEntry,
    changed: ChangedBlocks,
    packed: PackedFile,
    mode: u32,
    mtime: i64,
    number: &mut dyn FnMut(u32) -> u32,
) -> FileEntry {
    let mut entry = FileEntry { mode, mtime, ..before };
    let ChangedBlocks { runs, length } = changed;
    if runs.is_empty() && length == entry.size {
        // As it was.
        entry.all_extents_mut().for_each(|extent| extent.object = number(extent.object));
        return entry;
    }
    let path = entry.path.clone();
    let mut layers = entry.into_layers();
    layers.push(Layer { extents: packed.extents, digests: packed.digests, blocks: Some(runs), length });
    simplify(&mut layers);
    if let Some((_, older)) = layers.split_last_mut() {
        let extents = older.iter_mut().flat_map(|layer| &mut layer.extents);
        extents.for_each(|extent| extent.object = number(extent.object));
    }
    FileEntry { path, mode, mtime, size: length, extents: Vec::new(), digests: Vec::new(), layers }
}

/// Takes out what newer layers hide, so that nobody has to keep objects of which a file needs nothing.
fn simplify(layers: &mut Vec<Layer>) {
    let kept = spans(layers);
    let hidden: Vec<bool> = kept.iter().map(Vec::is_empty).collect();
    let (mut number, mut shortest) = (layers.len(), u64::MAX);
    while number > 0 {
        number -= 1;
        let newest = number + 1 == layers.len();
        let Some(layer) = layers.get_mut(number) else { continue };
        let length = layer.length;
        if !newest && hidden.get(number) == Some(&true) {
            layer.extents = Vec::new();
            layer.digests = Vec::new();
            if number == 0 {
                layer.length = 0;
            } else if shortest <= length {
                // It does not cut what is older either.
                layers.remove(number);
            } else {
                layer.blocks = Some(Vec::new());
            }
        }
        shortest = shortest.min(length);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;
    use walseal_common::repository::{BlockRun, Extent, FrameDigest, LAYER_BLOCK, PathField, RelativePath};

    use super::*;

    fn packed(object: u32, bytes: u64) -> PackedFile {
        if bytes == 0 {
            return PackedFile::default();
        }
        let extents = vec![Extent { object, frame: 0, count: 1 }];
        PackedFile { size: bytes, extents, digests: vec![FrameDigest([object as u8; 16])] }
    }

    fn plain(blocks: u64) -> FileEntry {
        let path = PathField(RelativePath::new(b"base/5/1259").expect("a path"));
        let PackedFile { size, extents, digests } = packed(100, blocks * LAYER_BLOCK);
        FileEntry { path, mode: 0o600, mtime: 1, size, extents, digests, layers: vec![] }
    }

    fn changed(runs: &[(u32, u32)], blocks: u64) -> ChangedBlocks {
        let runs = runs.iter().copied().map(BlockRun::from).collect();
        ChangedBlocks { runs, length: blocks * LAYER_BLOCK }
    }

    /// The next backup's line; objects of the one before get numbers that are 1000 higher.
    fn next(before: &FileEntry, runs: &[(u32, u32)], blocks: u64, object: u32) -> FileEntry {
        let bytes = runs.iter().map(|run| u64::from(run.1) * LAYER_BLOCK).sum();
        let packed = packed(object, bytes);
        layered(before.clone(), changed(runs, blocks), packed, 0o640, 2, &mut |number| number + 1000)
    }

    fn objects(entry: &FileEntry) -> Vec<u32> {
        entry.all_extents().map(|extent| extent.object).collect()
    }

    #[test]
    fn a_file_without_changes_has_the_line_that_it_had() {
        let same = next(&plain(4), &[], 4, 0);
        assert_eq!((same.layers.len(), same.size, same.mode, same.mtime), (0, 4 * LAYER_BLOCK, 0o640, 2));
        assert_eq!(objects(&same), [1100]);
        let layered = next(&plain(4), &[(1, 1)], 4, 7);
        let same = next(&layered, &[], 4, 0);
        assert_eq!(objects(&same), [2100, 1007]);
        assert_eq!(same.layers[1].blocks, layered.layers[1].blocks);
        assert!(same.adds_up());
    }

    #[test]
    fn changes_are_a_layer_over_what_was_there() {
        let grown = next(&plain(4), &[(1, 1), (4, 2)], 6, 7);
        assert_eq!((objects(&grown), grown.size), (vec![1100, 7], 6 * LAYER_BLOCK));
        assert!(grown.adds_up() && grown.layers[0].blocks.is_none());
        let cut = next(&grown, &[], 2, 0);
        assert_eq!((objects(&cut), cut.size), (vec![2100, 1007], 2 * LAYER_BLOCK));
        assert!(cut.adds_up());
    }

    #[test]
    fn objects_of_which_nothing_is_left_are_not_needed() {
        // All of the oldest layer is replaced, and the second one cut away.
        let first = next(&plain(4), &[(8, 1)], 9, 7);
        let second = next(&first, &[(0, 5)], 5, 8);
        assert_eq!(objects(&second), [8]);
        assert_eq!(second.layers.iter().map(|layer| layer.length / LAYER_BLOCK).collect::<Vec<_>>(), [0, 5]);
        assert!(second.adds_up());
        // What only cuts stays as long as there is something to cut.
        let cut = next(&plain(4), &[], 2, 0);
        let grown = next(&cut, &[(7, 1)], 8, 9);
        assert_eq!(grown.layers.iter().map(|layer| layer.length / LAYER_BLOCK).collect::<Vec<_>>(), [4, 2, 8]);
        assert!(grown.adds_up());
    }

    /// Of each block, which object has it, and which block of that object's it is.
    fn sources(layers: &[Layer]) -> Vec<Option<(u32, u64)>> {
        let size = layers.last().map_or(0, |layer| layer.length);
        let mut found = vec![None; (size / LAYER_BLOCK) as usize];
        for (layer, spans) in layers.iter().zip(spans(layers)) {
            for span in spans {
                for block in 0..span.length / LAYER_BLOCK {
                    let place = &mut found[(span.file / LAYER_BLOCK + block) as usize];
                    *place = Some((layer.extents[0].object, span.stream / LAYER_BLOCK + block));
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_of_the_file_changes_when_what_is_hidden_goes(
            oldest in 0u64..10,
            steps in prop::collection::vec((prop::collection::vec(any::<bool>(), 0..12), 0u64..4), 1..7),
        ) {
            let mut all = plain(oldest).into_layers();
            let mut simple = plain(oldest);
            for (number, (held, more)) in steps.iter().enumerate() {
                let runs: Vec<(u32, u32)> =
                    (0..).zip(held).filter(|(_, held)| **held).map(|(block, _)| (block, 1)).collect();
                let blocks = runs.last().map_or(0, |run| u64::from(run.0) + 1) + more;
                let bytes = runs.len() as u64 * LAYER_BLOCK;
                let PackedFile { extents, digests, .. } = packed(number as u32, bytes);
                let ChangedBlocks { runs, length } = changed(&runs, blocks);
                let pack = packed(number as u32, bytes);
                simple = layered(simple, ChangedBlocks { runs: runs.clone(), length }, pack, 0, 0, &mut |object| object);
                all.push(Layer { extents, digests, blocks: Some(runs), length });
                prop_assert!(simple.adds_up(), "{:?}", simple);
                prop_assert_eq!(sources(&simple.clone().into_layers()), sources(&all));
            }
        }
    }
}
