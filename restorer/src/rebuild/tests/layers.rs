//! Files of changed blocks, put together in one pass.

use std::fs;

use walseal_common::repository::ObjectName;

use super::silent;
use super::toy::{Toy, ToyLayer, content};
use crate::rebuild::rebuild;

const BLOCK: usize = 8192;

/// A layer of these blocks, whose bytes tell it from others by `seed`.
fn layer(blocks: Option<&[(u32, u32)]>, length: usize, seed: usize) -> ToyLayer {
    let size = blocks.map_or(length, |runs| runs.iter().map(|run| run.1 as usize * BLOCK).sum());
    ToyLayer { blocks: blocks.map(<[_]>::to_vec), bytes: content(size, seed), length: length as u64 }
}

/// The file as the format says: cut or grown to each layer's length, and then its blocks written.
fn whole(layers: &[ToyLayer]) -> Vec<u8> {
    let mut file: Vec<u8> = Vec::new();
    for layer in layers {
        file.resize(layer.length as usize, 0);
        let Some(runs) = &layer.blocks else {
            file.copy_from_slice(&layer.bytes);
            continue;
        };
        let mut bytes = layer.bytes.chunks(BLOCK);
        for block in runs.iter().flat_map(|(first, count)| *first..first + count) {
            let at = block as usize * BLOCK;
            file[at..at + BLOCK].copy_from_slice(bytes.next().expect("as many blocks as listed"));
        }
    }
    file
}

#[tokio::test]
async fn a_file_of_layers_is_put_together_with_the_newest_block_of_each_and_zeros_where_there_is_none() {
    let stories: [Vec<ToyLayer>; 6] = [
        // Changed in the middle, over the edges of frames; then again.
        vec![
            layer(None, 100 * BLOCK, 1),
            layer(Some(&[(3, 2), (7, 9), (99, 1)]), 100 * BLOCK, 2),
            layer(Some(&[(0, 1), (8, 1), (50, 20)]), 100 * BLOCK, 3),
        ],
        // Grown, with a hole; grown again.
        vec![
            layer(None, 2 * BLOCK, 1),
            layer(Some(&[(2, 1), (6, 1)]), 9 * BLOCK, 2),
            layer(Some(&[(12, 1)]), 13 * BLOCK, 3),
        ],
        // Cut, and grown again without what was there.
        vec![
            layer(None, 40 * BLOCK, 1),
            layer(Some(&[(30, 10)]), 40 * BLOCK, 2),
            layer(Some(&[]), 4 * BLOCK, 3),
            layer(Some(&[(20, 2)]), 35 * BLOCK, 4),
        ],
        // Cut to nothing.
        vec![layer(None, 40 * BLOCK, 1), layer(Some(&[]), 0, 2)],
        // All of it replaced.
        vec![layer(None, 8 * BLOCK, 1), layer(Some(&[(0, 8)]), 8 * BLOCK, 2)],
        // Of an odd length once, and none at all.
        vec![layer(None, 5 * BLOCK + 100, 1), layer(Some(&[(1, 1)]), 7 * BLOCK, 2), layer(Some(&[]), 6 * BLOCK, 2)],
    ];
    let mut toy = Toy::new().await;
    for (number, layers) in stories.into_iter().enumerate() {
        let whole = whole(&layers);
        toy.layered_file(&format!("base/5/{}", 2000 + number), layers, &whole);
    }
    let label = toy.store().await;
    let bed = toy.bed(&label).await;
    rebuild(bed.source(), bed.layout.clone(), 2, &silent()).await.expect("a sound backup").finish().expect("ours");
    for (path, bytes) in toy.files() {
        let path = std::str::from_utf8(path).expect("UTF-8");
        let found = fs::read(bed.layout.data.join(path)).expect("there");
        assert!(found == *bytes, "{path}: {} of {} bytes", found.len(), bytes.len());
    }
}

#[tokio::test]
async fn an_object_that_newer_layers_hide_is_not_fetched() {
    let mut toy = Toy::new().await;
    // 128 frames of 64 KiB make an object: the oldest layer of this one fills some alone.
    let blocks = 3 * 128 * 8;
    let layers = vec![layer(None, blocks * BLOCK, 1), layer(Some(&[(0, blocks as u32)]), blocks * BLOCK, 2)];
    let whole = whole(&layers);
    toy.layered_file("base/5/2000", layers, &whole);
    let label = toy.store().await;
    let hidden: ObjectName = label.objects[1].name.parse().expect("a name");
    toy.repository().remove(&hidden).await;
    let bed = toy.bed(&label).await;
    rebuild(bed.source(), bed.layout.clone(), 2, &silent())
        .await
        .expect("nothing of it is needed")
        .finish()
        .expect("ours");
    assert!(fs::read(bed.layout.data.join("base/5/2000")).expect("there") == whole);
}

#[tokio::test]
async fn layers_that_do_not_add_up_are_refused_before_anything_is_written() {
    let mut toy = Toy::new().await;
    let layers = vec![layer(None, 4 * BLOCK, 1), layer(Some(&[(5, 1)]), 4 * BLOCK, 2)];
    toy.layered_file("base/5/2000", layers, &content(4 * BLOCK, 1));
    let label = toy.store().await;
    let error = crate::rebuild::Survey::of(toy.source(&label)).await.expect_err("a block beyond the end").to_string();
    assert!(error.contains("base/5/2000") && error.contains("does not add up"), "{error}");
}
