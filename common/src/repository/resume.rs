//! What one base backup tells the next: the lines of `resume` objects, as in section 6 of the format.

use serde::{Deserialize, Serialize};

use super::{FileEntry, ObjectReference};

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ResumeEntry {
    /// A data object. Extents of the list refer to the objects by the order of these lines.
    Object(ResumeObject),
    /// A file, as in the manifest.
    File(FileEntry),
}

/// A data object that frames of the listed files lie in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeObject {
    /// The object.
    #[serde(flatten)]
    pub reference: ObjectReference,
    /// Bytes of plaintext in all its frames, whether a file of the list still has them or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_format() {
        let digest = "00".repeat(32);
        let object = format!(
            r#"{{"type":"object","name":"base/20261121T023000Z-0000002a/data/00000000","size":70000,"digest":"{digest}","plain_size":65537}}"#
        );
        let file = r#"{"type":"file","path":"base/1/1259","mode":384,"mtime":1700000000,"size":65537,"extents":[[0,3,2]],"digests":"AQEBAQEBAQEBAQEBAQEBAQICAgICAgICAgICAgICAgI="}"#;
        for line in [object.as_str(), file] {
            let entry: ResumeEntry = serde_json::from_str(line).expect("a line");
            assert_eq!(serde_json::to_string(&entry).expect("serialisable"), line);
        }
        let without = object.replace(r#","plain_size":65537"#, "");
        assert!(matches!(
            serde_json::from_str::<ResumeEntry>(&without).expect("a line"),
            ResumeEntry::Object(ResumeObject { plain_size: None, .. })
        ));
    }
}
