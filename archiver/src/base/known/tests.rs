//! Lists as a backup leaves them, read again.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use walseal_common::repository::{
    BaseId, Extent, FileEntry, FrameDigest, Label, Layer, ObjectName, ObjectReference, PathField, RelativePath,
    Repository, ResumeEntry, ResumeObject,
};
use walseal_common::seal::{Draft, Kind, ObjectDigest, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::DirectoryStore;
use walseal_common::timeline::SystemIdentifier;

use super::*;

const ATTEMPT: &str = "20261121T023000Z-0000002a";

struct Fixture {
    _folder: tempfile::TempDir,
    repository: Repository,
    writer: WriterKey,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        Fixture { _folder: folder, repository: Repository::new(store, SystemIdentifier(7), trust), writer }
    }

    /// Stores a page of an attempt that has no label.
    async fn page(&self, number: u32, plain: &[u8]) -> ObjectReference {
        let name = ObjectName::Resume(id(), number);
        let draft = Draft {
            kind: Kind::Resume,
            cluster: self.repository.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: 1 << 20,
            level: 1,
        };
        let mut sealer = self.writer.resume().expect("a key").seal(draft, &self.writer).expect("sealable");
        sealer.frames_of(plain).expect("within bounds");
        let object = sealer.finish().expect("sealable");
        self.repository.put(&object).await.expect("a folder of our own");
        ObjectReference::from(&object)
    }

    async fn known(&self) -> Known {
        let reader = PageReader::new(self.repository.clone(), PageCache::default(), &self.writer).expect("a key");
        Known::read(reader, &Sources::default()).await.expect("readable")
    }
}

fn id() -> BaseId {
    ATTEMPT.parse().expect("an id")
}

fn path(name: &str) -> RelativePath {
    RelativePath::new(name.as_bytes()).expect("a path")
}

/// An object that is in the store, and its line.
async fn object(fixture: &Fixture, number: u32) -> String {
    let name = ObjectName::Data(id(), number);
    let bytes = bytes::Bytes::from(vec![b'x'; 10 + number as usize]);
    let size = bytes.len() as u64;
    let key = name.key(fixture.repository.cluster());
    fixture.repository.store().put_new(&key, bytes).await.expect("a folder of our own");
    let reference = ObjectReference { name: name.to_string(), size, digest: ObjectDigest::of(b"") };
    line(&ResumeEntry::Object(ResumeObject { reference, plain_size: Some(64 << 10) }))
}

fn line(entry: &ResumeEntry) -> String {
    serde_json::to_string(entry).expect("JSON") + "\n"
}

fn file(name: &str, object: u32, frames: u32) -> String {
    let digests = (0..frames).map(|frame| FrameDigest([frame as u8; 16])).collect();
    let extents = vec![Extent { object, frame: 3, count: frames }];
    let size = u64::from(frames) << 16;
    line(&ResumeEntry::File(FileEntry {
        path: PathField(path(name)),
        mode: 0o600,
        mtime: 0,
        size,
        extents,
        digests,
        layers: vec![],
    }))
}

async fn place(known: &mut Known, name: &str, frame: u32) -> Option<(u32, u32)> {
    let mut files = known.files.find(&path(name)).await;
    files.iter_mut().find_map(|file| file.place(frame as usize, FrameDigest([frame as u8; 16])))
}

#[tokio::test]
async fn i11_however_many_pages_there_are_few_are_at_hand_and_each_file_is_found() {
    let fixture = Fixture::new();
    for page in 0..20 {
        let mut plain = object(&fixture, page).await;
        // Two files of 1 MiB of digests and more.
        for n in 0..2 {
            plain += &file(&format!("{page}/{n}"), page, 50_000);
        }
        fixture.page(page, plain.as_bytes()).await;
    }
    let mut known = fixture.known().await;
    assert_eq!(known.attempts, [id()]);
    assert_eq!(known.objects.len(), 20);
    for round in 0..2 {
        for page in 0..20 {
            for n in 0..2 {
                assert_eq!(place(&mut known, &format!("{page}/{n}"), 7).await, Some((page, 10)), "{round}");
                assert!(known.files.bytes_at_hand() <= 8 << 20, "{}", known.files.bytes_at_hand());
            }
        }
    }
    assert!(known.files.bytes_at_hand() > 4 << 20);
    assert_eq!(place(&mut known, "20/0", 7).await, None);
}

#[tokio::test]
async fn case_36_a_list_ends_where_a_page_is_missing_or_is_none() {
    let fixture = Fixture::new();
    fixture.page(0, (object(&fixture, 0).await + &file("zero", 0, 1)).as_bytes()).await;
    fixture.page(1, (object(&fixture, 1).await + &file("one", 1, 1)).as_bytes()).await;
    // The object of page 2 counts as number 2 only where page 2 is there.
    fixture.page(3, file("three", 2, 1).as_bytes()).await;
    let mut known = fixture.known().await;
    assert_eq!(place(&mut known, "one", 0).await, Some((1, 3)));
    assert_eq!(place(&mut known, "three", 0).await, None);
    // The server's manifest follows the list.
    fixture.page(2, b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n").await;
    let mut known = fixture.known().await;
    assert_eq!(place(&mut known, "zero", 0).await, Some((0, 3)));
    assert_eq!(place(&mut known, "three", 0).await, None);
}

/// The label of a backup that left these pages.
fn label(list: &[ObjectReference], server_manifest: &[ObjectReference]) -> Label {
    let time = "2026-11-21T02:30:00Z";
    let label = serde_json::json!({
        "id": ATTEMPT, "type": "full", "parent": null, "branch": "00000001-a2dd04c7", "start": "0/2000028",
        "stop": "0/2000100", "start_time": time, "stop_time": time, "highest_time": null, "postgres_version": 170_011,
        "segment_size": 16_777_216, "cluster_size": 1, "stored_size": 1, "tablespaces": 0, "suspect": 0, "manifest": [],
        "objects": [], "resume": { "list": list, "server_manifest": server_manifest },
    });
    serde_json::from_value(label).expect("a label")
}

#[tokio::test]
async fn the_parents_whole_lines_are_found_with_the_numbers_of_known_objects() {
    let fixture = Fixture::new();
    let layer = |object, blocks: Option<(u32, u32)>, length| Layer {
        extents: vec![Extent { object, frame: 3, count: 1 }],
        digests: vec![FrameDigest([0; 16])],
        blocks: blocks.map(|run| vec![run.into()]),
        length,
    };
    let layers = vec![layer(1, None, 40_000), layer(0, Some((2, 1)), 24_576)];
    let layered = FileEntry {
        path: PathField(path("layered")),
        mode: 0o600,
        mtime: 0,
        size: 24_576,
        extents: vec![],
        digests: vec![],
        layers,
    };
    let text = line(&ResumeEntry::File(layered.clone()));
    let objects = object(&fixture, 0).await + &object(&fixture, 1).await;
    let list = fixture.page(0, (objects + &file("plain", 1, 2) + &file("empty", 0, 0) + &text).as_bytes()).await;
    let manifest = fixture.page(1, b"the manifest").await;
    let label = label(&[list], &[manifest]);
    let reader = PageReader::new(fixture.repository.clone(), PageCache::default(), &fixture.writer).expect("a key");
    let pages = reader.server_manifest(&label);
    assert_eq!(pages.len(), 1);
    assert_eq!(reader.read(&pages[0]).await.expect("readable"), b"the manifest");

    let sources = Sources { parent: Some(label), since: Some(id()) };
    let mut known = Known::read(reader, &sources).await.expect("readable");
    assert_eq!(known.files.parent_objects(), Some([0, 1].into()));
    assert_eq!(known.files.longest_layered(), text.len() - 1);
    assert_eq!(known.files.line(&path("layered")).await, Some(layered));
    let plain = known.files.line(&path("plain")).await.expect("it is there");
    assert_eq!((plain.size, plain.extents[0].object, plain.layers.len()), (2 << 16, 1, 0));
    assert!(known.files.line(&path("empty")).await.is_some_and(|file| file.size == 0));
    assert_eq!(known.files.line(&path("unknown")).await, None);
    // Of a file of layers the oldest has frames of the whole file.
    assert_eq!(place(&mut known, "layered", 0).await, Some((1, 3)));
    // Of an attempt nothing is taken but frames.
    let mut known = fixture.known().await;
    assert_eq!((known.files.parent_objects(), known.files.line(&path("plain")).await), (None, None));
    assert_eq!(place(&mut known, "plain", 1).await, Some((1, 4)));
}

#[tokio::test]
async fn a_list_of_another_writer_tells_nothing() {
    let mut fixture = Fixture::new();
    fixture.page(0, (object(&fixture, 0).await + &file("zero", 0, 1)).as_bytes()).await;
    let other = fixture.writer.generate_sibling().expect("random bytes");
    let trust = [&fixture.writer, &other].map(|key| TrustedWriter::archiver(key.public())).to_vec();
    fixture.repository =
        Repository::new(fixture.repository.store().clone(), fixture.repository.cluster(), TrustedWriters::new(trust));
    assert_eq!(place(&mut fixture.known().await, "zero", 0).await, Some((0, 3)));
    fixture.writer = other;
    let mut known = fixture.known().await;
    assert_eq!((known.objects.len(), place(&mut known, "zero", 0).await), (0, None));
}

#[tokio::test]
async fn an_object_that_is_hardly_alive_is_not_referred_to() {
    let fixture = Fixture::new();
    let mut plain = object(&fixture, 0).await + &object(&fixture, 1).await;
    // A quarter of one object's 64 KiB, and less of the other's.
    for (name, object, size) in [("quarter", 0, 16 << 10), ("less", 1, (16 << 10) - 1)] {
        let extents = vec![Extent { object, frame: 0, count: 1 }];
        let digests = vec![FrameDigest([0; 16])];
        let path = PathField(path(name));
        plain += &line(&ResumeEntry::File(FileEntry {
            path,
            mode: 0o600,
            mtime: 0,
            size,
            extents,
            digests,
            layers: vec![],
        }));
    }
    fixture.page(0, plain.as_bytes()).await;
    let mut known = fixture.known().await;
    assert_eq!(place(&mut known, "quarter", 0).await, Some((0, 0)));
    assert_eq!(place(&mut known, "less", 0).await, None);
}

#[tokio::test]
async fn what_is_gone_from_the_store_or_has_another_size_is_not_referred_to() {
    let fixture = Fixture::new();
    let mut plain = String::new();
    for number in 0..3 {
        plain += &object(&fixture, number).await;
        plain += &file(&number.to_string(), number, 1);
    }
    fixture.page(0, plain.as_bytes()).await;
    let store = fixture.repository.store().clone();
    let key = |number| ObjectName::Data(id(), number).key(fixture.repository.cluster());
    store.delete(&key(0)).await.expect("a folder of our own");
    store.delete(&key(1)).await.expect("a folder of our own");
    store.put_new(&key(1), bytes::Bytes::from_static(b"other")).await.expect("a folder of our own");
    let mut known = fixture.known().await;
    assert_eq!(known.missing, 2);
    for (number, there) in [(0, None), (1, None), (2, Some((2, 3)))] {
        assert_eq!(place(&mut known, &number.to_string(), 0).await, there, "{number}");
    }
}
