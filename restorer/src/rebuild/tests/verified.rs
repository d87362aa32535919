//! A backup that is opened without being written anywhere: what is found is what a restore would meet.

use walseal_common::repository::{Flaw, FlawKind};
use walseal_common::terminal::Opened;

use super::toy::{Toy, ToyLayer, content};
use crate::verify::base;

fn line(path: &str, bytes: &[u8]) -> String {
    let checksum: String = crc32c::crc32c(bytes).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let size = bytes.len();
    format!(
        "{{ \"Path\": \"{path}\", \"Size\": {size}, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}"
    )
}

/// A plain file, one of layers with a hole, and a manifest that lists both, in which `wrong` stands for the content of the first.
async fn toy(wrong: Option<&[u8]>) -> Toy {
    let mut toy = Toy::new().await;
    let plain = content(200_000, 3);
    toy.file("base/5/1259", &plain);
    let (old, new) = (content(5 * 8192, 4), content(2 * 8192, 5));
    let mut whole = [&old[..8192], &new[..8192], &old[2 * 8192..]].concat();
    whole.resize(7 * 8192, 0);
    whole.extend(&new[8192..]);
    let layer = |blocks, bytes: &[u8], length| ToyLayer { blocks, bytes: bytes.to_vec(), length };
    let layers = vec![layer(None, &old, 5 * 8192), layer(Some(vec![(1, 1), (7, 1)]), &new, 8 * 8192)];
    toy.layered_file("base/5/2619", layers, &whole);
    let lines = [line("base/5/1259", wrong.unwrap_or(&plain)), line("base/5/2619", &whole)];
    toy.file("backup_manifest", format!("{{ \"Files\": [\n{}\n],\n", lines.join(",\n")).as_bytes());
    toy
}

async fn found(toy: &Toy) -> (Vec<Flaw>, Opened) {
    let label = toy.store().await;
    let sample = toy.repository();
    let mut opened = Opened::default();
    let verified = base::verify(&sample.repository, &sample.identities, &label.id, &mut opened, &mut |_| ()).await;
    let flaws = verified.expect("the store answers");
    assert!(flaws.iter().all(|flaw| flaw.bases == [label.id.clone()]), "{flaws:?}");
    (flaws, opened)
}

#[tokio::test]
async fn every_file_is_compared_with_the_manifest_of_the_server() {
    let sound = toy(None).await;
    let (flaws, opened) = found(&sound).await;
    assert_eq!(flaws, []);
    let bytes: usize = sound.files().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((opened.files, opened.file_bytes, opened.compared), (7, bytes as u64, 2));

    for wrong in [content(200_000, 9), content(199_999, 3)] {
        let (flaws, _) = found(&toy(Some(&wrong)).await).await;
        assert_eq!(flaws.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), [FlawKind::File]);
        assert!(flaws[0].what.starts_with("base/5/1259 has "), "{}", flaws[0].what);
    }
}

#[tokio::test]
async fn a_frame_that_the_list_of_files_does_not_mean_is_found() {
    let mut toy = toy(None).await;
    toy.forge_digest("base/5/1259");
    let (flaws, _) = found(&toy).await;
    assert_eq!(flaws[0].kind, FlawKind::Damaged);
    assert!(flaws[0].what.contains("is not the one that the list of files"), "{}", flaws[0].what);
    // And so the file is missing from what the server's manifest lists.
    assert!(
        flaws[1].what.contains("base/5/1259, which the server's manifest lists, is not in the backup"),
        "{flaws:?}"
    );
}
