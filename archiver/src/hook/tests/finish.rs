//! Only what is finished takes the name of a whole segment.

use walseal_common::wal::ResourceManager;

use super::*;

/// The segment's first bytes as they are written, and after them what the file held before.
fn over(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = old.to_vec();
    bytes[..new.len()].copy_from_slice(new);
    bytes
}

impl Bed {
    fn stored(&self, name: SegmentName) -> String {
        format!("wal/{}/{name}", self.root())
    }

    /// Says in `archive_status` that PostgreSQL has queued the segment.
    fn queue(&self, name: SegmentName) {
        self.file(&format!("archive_status/{name}.ready"), b"");
    }

    fn unqueue(&self, name: SegmentName) {
        std::fs::remove_file(self.pg_wal().join(format!("archive_status/{name}.ready"))).expect("it was queued");
    }

    /// Pushes this file of the segment, and expects that it is refused in one line and that nothing is stored.
    async fn refused(&self, name: SegmentName, bytes: &[u8]) -> String {
        let before = self.objects();
        let path = self.file(&name.to_string(), bytes);
        let error = self.archivist(None).push(&path).await.expect_err("it is not finished");
        assert_eq!(self.objects(), before);
        let message = error.to_string();
        assert!(message.contains(&name.to_string()) && !message.contains('\n'), "{message}");
        message
    }

    async fn accepted(&self, name: SegmentName, bytes: &[u8]) {
        let path = self.file(&name.to_string(), bytes);
        assert_eq!(self.archivist(None).push(&path).await.expect("it is finished"), Pushed::Shipped);
        assert!(self.objects().contains(&self.stored(name)), "{:?}", self.objects());
        std::fs::remove_file(self.folder.path().join("repository").join(SYSTEM.to_string()).join(self.stored(name)))
            .expect("it is there");
    }
}

#[tokio::test]
async fn i1_a_segment_that_is_being_written_is_refused_and_taken_once_it_is_finished() {
    let bed = Bed::new(1);
    let name = bed.name(1, 3);
    let mut wal = bed.begun(1, 3);
    wal.filler(200_000);
    for old in [vec![0; MIB as usize], bed.bytes(1, 9)] {
        let message = bed.refused(name, &over(&old, &wal.bytes)).await;
        assert!(message.contains("has not finished") && message.contains(".partial"), "{message}");
        assert!(message.contains(&format!("valid WAL ends at {}", wal.at())), "{message}");
    }
    bed.accepted(name, &finished(wal)).await;
}

#[tokio::test]
async fn case_18_no_part_of_a_large_segment_is_stored_before_its_end_was_seen() {
    let bed = Bed::new(64);
    let mut wal = bed.begun(1, 3);
    while wal.bytes.len() < 50 << 20 {
        wal.filler(30_000);
    }
    let message = bed.refused(bed.name(1, 3), &over(&vec![0; 64 << 20], &wal.bytes)).await;
    assert!(message.contains(&wal.at().to_string()), "{message}");
    wal.switch();
    let path = bed.file(&bed.name(1, 3).to_string(), &wal.bytes);
    assert_eq!(bed.archivist(None).push(&path).await.expect("finished"), Pushed::Shipped);
    assert_eq!(bed.objects().len(), 4, "{:?}", bed.objects());
}

#[tokio::test]
async fn a_switch_finishes_a_segment_wherever_its_record_lies() {
    let bed = Bed::new(1);
    for left in [24, 32, 8_168, 500_000] {
        let mut wal = bed.begun(1, 3);
        wal.fill_segment_but(left);
        wal.switch();
        bed.accepted(bed.name(1, 3), &wal.bytes).await;
    }
    // With 8 or 16 bytes left it is split, and consumes the next segment, which has nothing but its rest.
    for left in [8, 16] {
        let mut wal = bed.begun(1, 3);
        wal.fill_segment_but(left);
        wal.switch();
        let (first, second) = wal.bytes.split_at(MIB as usize);
        bed.queue(bed.name(1, 3));
        bed.accepted(bed.name(1, 3), first).await;
        bed.accepted(bed.name(1, 4), second).await;
    }
}

#[tokio::test]
async fn what_bytes_cannot_prove_is_asked_of_what_lies_beside_the_file() {
    let bed = Bed::new(1);
    let (name, next) = (bed.name(1, 3), bed.name(1, 4));
    let mut spanning = bed.begun(1, 3);
    spanning.fill_segment_but(3_000);
    spanning.filler(9_000);
    spanning.fill_segment_but(0);
    let (first, second) = spanning.bytes.split_at(MIB as usize);
    let mut switched = bed.begun(1, 3);
    switched.fill_segment_but(300_000);
    switched.switch();
    switched.bytes[900_000] = 1;

    for (bytes, words) in [(first, "cannot be checked"), (&switched.bytes, "is not zero")] {
        // In a pg_wal where nothing says that it is finished; a file made in advance says nothing.
        bed.file(&next.to_string(), &bed.bytes(1, 9));
        let message = bed.refused(name, bytes).await;
        assert!(message.contains(words), "{message}");
        bed.queue(name);
        bed.accepted(name, bytes).await;
        bed.unqueue(name);
        bed.file(&next.to_string(), second);
        bed.accepted(name, bytes).await;
        std::fs::remove_file(bed.pg_wal().join(next.to_string())).expect("it is there");
    }

    // Beside a copy there is nothing that tells: what looks finished is believed, what does not is not.
    std::fs::remove_dir_all(bed.pg_wal().join("archive_status")).expect("it is there");
    bed.accepted(name, first).await;
    bed.refused(name, &switched.bytes).await;
}

#[tokio::test]
async fn case_04_the_segment_in_which_a_timeline_begins_is_accepted_with_its_parents_pages() {
    let bed = Bed::new(1);
    bed.file("00000002.history", HISTORY);
    let mut wal = bed.begun(1, 3);
    assert!(wal.at() < history().begin());
    wal.filler(20_000);
    wal.timeline = 2;
    let path = bed.file(&bed.name(2, 3).to_string(), &finished(wal));
    assert_eq!(bed.archivist(None).push(&path).await.expect("finished"), Pushed::Shipped);
}

#[tokio::test]
async fn case_23_the_segment_in_which_a_timeline_was_left_is_stored_as_partial_whatever_its_name() {
    let bed = Bed::new(1);
    let mut wal = bed.begun(1, 3);
    let fork = wal.at();
    let left = over(&vec![0; MIB as usize], &wal.bytes);
    let path = bed.file(&bed.name(1, 3).to_string(), &left);
    bed.queue(bed.name(1, 3));
    bed.file("00000002.history", format!("1\t{fork}\tno recovery target specified\n").as_bytes());
    let archivist = bed.archivist(None);
    assert_eq!(archivist.push(&path).await.expect("kept"), Pushed::Shipped);
    let partial = format!("{}.partial", bed.stored(bed.name(1, 3)));
    assert_eq!(bed.objects(), [partial.as_str()]);
    assert_eq!(archivist.push(&path).await.expect("there"), Pushed::AlreadyThere);
    // What the promoted node pushes of it is the same.
    let own = bed.file(&format!("{}.partial", bed.name(1, 3)), &over(&bed.bytes(1, 9), &wal.bytes));
    assert_eq!(archivist.push(&own).await.expect("there"), Pushed::AlreadyThere);
    assert_eq!(bed.objects(), [partial.as_str()]);

    // Less than the fork is not all of the timeline, and the name of a whole one is still free for it.
    bed.file("00000002.history", format!("1\t{}\tno recovery target specified\n", fork.advance(8)).as_bytes());
    let message = bed.refused(bed.name(1, 3), &left).await;
    assert!(message.contains("counts it as finished"), "{message}");
    wal.filler(1_000);
    bed.accepted(bed.name(1, 3), &finished(wal)).await;
}

#[tokio::test]
async fn a_damaged_segment_that_postgresql_has_queued_is_refused_with_what_to_do() {
    let bed = Bed::new(1);
    let mut bytes = bed.bytes(1, 3);
    bytes[500_000] ^= 1;
    bed.queue(bed.name(1, 3));
    let message = bed.refused(bed.name(1, 3), &bytes).await;
    for words in ["counts it as finished", "checksum", "walseal-archiver backup", ".ready to .done"] {
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
}

#[tokio::test]
async fn records_of_an_unknown_resource_manager_do_not_block_archiving() {
    let bed = Bed::new(1);
    let mut wal = bed.begun(1, 3);
    wal.record(ResourceManager(99), 0x20, 700, &[7; 1_000]);
    bed.accepted(bed.name(1, 3), &finished(wal)).await;
}

#[tokio::test]
async fn i3_an_unfinished_copy_of_a_segment_that_is_there_is_no_conflict() {
    let bed = Bed::new(1);
    let mut wal = bed.begun(1, 3);
    wal.filler(200_000);
    let unfinished = over(&vec![0; MIB as usize], &wal.bytes);
    let path = bed.file(&bed.name(1, 3).to_string(), &finished(wal));
    assert_eq!(bed.archivist(None).push(&path).await.expect("finished"), Pushed::Shipped);
    bed.refused(bed.name(1, 3), &unfinished).await;
}

#[tokio::test]
async fn a_segment_that_the_stream_cannot_bring_yet_is_refused_and_its_stream_is_not_disturbed() {
    let bed = Bed::new(1);
    let stream = ProgressSender::default();
    stream.update(|progress| {
        progress.connected = true;
        progress.branch = Some(bed.root());
        progress.frontier = bed.start(3);
    });
    let wal = bed.begun(1, 3);
    let path = bed.file(&bed.name(1, 3).to_string(), &over(&bed.bytes(1, 9), &wal.bytes));
    let error = bed.archivist(Some(stream.watch())).push(&path).await.expect_err("it is being written");
    assert!(matches!(error, PushError::Unfinished { .. }), "{error}");
    assert_eq!(bed.objects(), Vec::<String>::new());
}
