//! A base backup of which an object is gone, or another, is refused before anything is written.

use walseal_common::repository::{Label, ObjectName, ObjectReference};
use walseal_common::seal::ObjectDigest;

use super::*;
use crate::plan::check_presence;

struct Backups {
    sample: SampleRepository,
    /// Oldest first; each refers to an object of the one before it, too.
    labels: Vec<Label>,
}

impl Backups {
    async fn three() -> Backups {
        let mut backups = Backups { sample: SampleRepository::new().await, labels: Vec::new() };
        for (began, segment) in [("2026-11-20T02:30:00Z", 2), ("2026-11-21T02:30:00Z", 4), ("2026-11-22T02:30:00Z", 6)]
        {
            let start = Lsn(segment << 24);
            let mut label = backups.sample.label(backups.sample.branch(), start, Lsn(start.0 + 0x100), began, None);
            let before = backups.labels.last().and_then(|label| label.objects.first());
            label.objects = (0..6).map(|number| backups.put(&ObjectName::Data(label.id.clone(), number))).collect();
            label.objects.extend(before.cloned());
            backups.sample.put_label_as_is(&label).await;
            backups.labels.push(label);
        }
        backups
    }

    fn put(&self, name: &ObjectName) -> ObjectReference {
        let path = self.sample.folder.path().join(name.key(self.sample.cluster));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of our own");
        std::fs::write(path, [7; 21]).expect("a folder of our own");
        ObjectReference { name: name.to_string(), size: 21, digest: ObjectDigest::of(&[7; 21]) }
    }

    fn data(&self, backup: usize, number: u32) -> ObjectName {
        ObjectName::Data(self.labels[backup].id.clone(), number)
    }

    async fn refusal(&self, backup: usize) -> Option<String> {
        let (label, branch) = (&self.labels[backup], self.sample.branch());
        let mut plan = crate::plan::sample::plan(Request::to(Target::Latest), label.start, label.stop);
        (plan.base.id, plan.base.branch) = (label.id.clone(), branch);
        let (timeline, from, to) = (branch.timeline, label.start, label.stop);
        plan.path = vec![PathStep { branch, timeline, from, to, known_end: to }];
        let checked = check_presence(&self.sample.repository, &plan).await;
        checked.err().map(|error| error.to_string())
    }
}

#[tokio::test]
async fn an_object_of_the_base_backup_that_is_gone_or_another_is_named_with_an_older_backup_that_is_whole() {
    let backups = Backups::three().await;
    assert_eq!((backups.refusal(0).await, backups.refusal(2).await), (None, None));

    // What the newest refers to in the one before it: both are incomplete, the oldest is not.
    let shared = backups.data(1, 0);
    backups.sample.remove(&shared).await;
    let refused = backups.refusal(2).await.expect("it is incomplete");
    assert!(
        refused.contains(&format!("of its 7 data objects 1 is not as its label says: {shared} is missing.")),
        "{refused}"
    );
    assert!(refused.ends_with(&format!("--base {}", backups.labels[0].id)), "{refused}");

    for number in 1..5 {
        backups.sample.remove(&backups.data(2, number)).await;
    }
    let refused = backups.refusal(2).await.expect("it is incomplete");
    assert!(refused.contains("7 data objects 5 are not") && refused.contains(", and 2 more"), "{refused}");

    let cut = backups.data(0, 3);
    std::fs::write(backups.sample.folder.path().join(cut.key(backups.sample.cluster)), [7; 20])
        .expect("a folder of our own");
    let refused = backups.refusal(0).await.expect("it is another object");
    assert!(refused.contains(&format!("{cut} has 20 bytes instead of 21")) && !refused.contains("--base"), "{refused}");
}
