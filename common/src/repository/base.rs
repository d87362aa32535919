//! Base backups: the label, and the list of files.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

use super::derivation::Lineage;
use super::layer::Layer;
use crate::lsn::{Lsn, LsnRange};
use crate::seal::{ObjectDigest, SealedObject};
use crate::segment::SegmentSize;
use crate::timeline::Branch;

/// Name of a base backup: when it began, and a random number. Sorts by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseId(String);

impl BaseId {
    /// The id of a backup that begins at `start` (to the second), told apart by `random`.
    pub fn new(start: Timestamp, random: u32) -> BaseId {
        BaseId(format!("{}-{random:08x}", start.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// A new id for now, from the operating system's random bytes. Ids of one host sort by time also within a second: the
    /// number begins with the milliseconds.
    ///
    /// Errors: there are none.
    pub fn generate() -> Result<BaseId, crate::seal::SealError> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| crate::seal::SealError::NoEntropy(error.to_string()))?;
        let now = Timestamp::now();
        let millisecond = now.subsec_millisecond().unsigned_abs();
        Ok(BaseId::new(now, (millisecond << 20) | (u32::from_le_bytes(random) & 0xF_FFFF)))
    }

    /// When the backup began, to the second, by its archiver's clock; `None` for a time that no calendar knows.
    pub fn begun(&self) -> Option<Timestamp> {
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", self.0.get(..16)?).ok()?;
        time.in_tz("UTC").ok().map(|time| time.timestamp())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BaseId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &[u8] = b"00000000T000000Z-hhhhhhhh";
        let fits = text.len() == SHAPE.len()
            && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                other => byte == *other,
            });
        if fits {
            Ok(BaseId(text.to_owned()))
        } else {
            Err(format!("\"{text}\" is not the id of a base backup; expected one such as 20261121T023000Z-9f3a01bc"))
        }
    }
}

impl Serialize for BaseId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BaseId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a backup stands alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseType {
    /// Refers to no other.
    #[default]
    Full,
    /// Refers to frames of others, which did not change since.
    Incremental,
}

impl BaseType {
    /// The word in the label.
    pub const fn word(self) -> &'static str {
        match self {
            BaseType::Full => "full",
            BaseType::Incremental => "incremental",
        }
    }
}

/// An object that a backup needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectReference {
    /// Its name in the repository.
    pub name: String,
    /// All its bytes.
    pub size: u64,
    /// Digest of all its bytes.
    pub digest: ObjectDigest,
}

impl ObjectReference {
    /// The object, and what refers to it: to be made where the object is, for its digest takes milliseconds.
    pub fn with(object: SealedObject) -> (SealedObject, ObjectReference) {
        let reference = ObjectReference::from(&object);
        (object, reference)
    }
}

impl From<&SealedObject> for ObjectReference {
    fn from(object: &SealedObject) -> Self {
        ObjectReference { name: object.name.clone(), size: object.bytes.len() as u64, digest: object.digest() }
    }
}

/// The plain, signed body of a label, as in section 6 of the format. Written last: without it the backup does not
/// exist (I7).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Label {
    /// The backup's name.
    pub id: BaseId,
    /// Whether it stands alone.
    #[serde(rename = "type")]
    pub kind: BaseType,
    /// The backup it was compared with.
    pub parent: Option<BaseId>,
    /// The branch at its start and stop.
    pub branch: Branch,
    /// Where replay begins.
    pub start: Lsn,
    /// From here on the backup is consistent; no target before it can be reached with it (case 7).
    pub stop: Lsn,
    /// The archiver's clock at the start.
    pub start_time: Timestamp,
    /// The archiver's clock at the stop.
    pub stop_time: Timestamp,
    /// The highest transaction time that the archiver saw in WAL before `stop`.
    pub highest_time: Option<Timestamp>,
    /// The server's version number, for example 150018.
    pub postgres_version: u32,
    /// Size of its WAL segments.
    pub segment_size: SegmentSize,
    /// Bytes of all files.
    pub cluster_size: u64,
    /// Bytes of all data objects that this backup wrote.
    pub stored_size: u64,
    /// How many tablespaces beside the default one.
    pub tablespaces: u32,
    /// Page checksum failures that the server reported; 0 in a sound backup (case 31).
    pub suspect: u64,
    /// Files with such pages, as far as the server told, at most 100; none in labels of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspect_files: Vec<String>,
    /// The pages of the list of files, in order.
    pub manifest: Vec<ObjectReference>,
    /// Every data object that is needed, own and others'.
    pub objects: Vec<ObjectReference>,
    /// How many incremental backups there are since the last full one, this one included; 0 in a full one.
    #[serde(default, deserialize_with = "null_is_default")]
    pub depth: u32,
    /// Whether the server sent only what had changed.
    #[serde(default, deserialize_with = "null_is_default")]
    pub native: bool,
    /// What the next backup has to know of this one; without it none can be based on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumePages>,
    /// The pages that say which relation each file is, in order; none in labels of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<ObjectReference>,
    /// The pages with configuration files that lie outside the data directory, in order; none where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ObjectReference>,
    /// What it comes from, where it was taken of a drill's instance and not of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Lineage>,
}

/// The pages with which the next backup of the same writer goes on. Only the archiver that wrote them opens them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResumePages {
    /// The list of files and objects, in order.
    pub list: Vec<ObjectReference>,
    /// The server's manifest, in order.
    pub server_manifest: Vec<ObjectReference>,
}

/// A member that may be missing may be null as well.
fn null_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Label {
    /// A full one, for tests: of a cluster of 40 MiB, begun and stored at `time`, with no list of files and no objects. Replay begins where
    /// `wal` does, and it is consistent from its end on.
    pub fn sample(id: BaseId, branch: Branch, segment_size: SegmentSize, wal: LsnRange, time: Timestamp) -> Label {
        Label {
            id,
            kind: BaseType::Full,
            parent: None,
            branch,
            start: wal.start,
            stop: wal.end,
            start_time: time,
            stop_time: time,
            highest_time: None,
            postgres_version: 150_018,
            segment_size,
            cluster_size: 40 << 20,
            stored_size: 8 << 20,
            tablespaces: 0,
            suspect: 0,
            suspect_files: Vec::new(),
            manifest: Vec::new(),
            objects: Vec::new(),
            depth: 0,
            native: false,
            resume: None,
            names: Vec::new(),
            config: Vec::new(),
            derived: None,
        }
    }

    /// The backup shows the cluster as it was then or later, by the archiver's clock.
    pub fn shows(&self) -> Timestamp {
        let own = self.highest_time.map_or(self.start_time, |ended| ended.min(self.start_time));
        // A drill's instance shows what it had replayed: later than where it began, earlier than when it was taken.
        let from = self.derived.as_ref().and_then(|from| from.base.begun());
        from.map_or(own, |begun| begun.min(own))
    }

    /// Bytes of the data objects of other backups that it needs.
    pub fn referenced_size(&self) -> u64 {
        let own = format!("base/{}/", self.id);
        self.objects.iter().filter(|object| !object.name.starts_with(&own)).map(|object| object.size).sum()
    }
}

/// A path in the data directory, relative, with `/` between parts. Bytes: PostgreSQL does not promise UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelativePath(Vec<u8>);

/// A path would lead out of the data directory, or is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a path below the data directory", .0.escape_debug())]
pub struct PathError(pub String);

impl RelativePath {
    /// A path of these bytes.
    ///
    /// Errors: empty, absolute, with an empty part, `.`, `..` or a zero byte: nothing may be written outside.
    pub fn new(bytes: &[u8]) -> Result<RelativePath, PathError> {
        let legal = !bytes.is_empty()
            && !bytes.contains(&0)
            && bytes.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
        if legal {
            Ok(RelativePath(bytes.to_vec()))
        } else {
            Err(PathError(String::from_utf8_lossy(bytes).chars().take(200).collect()))
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is `folder` or lies below it.
    pub fn is_within(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// This path, which is relative to a tablespace's folder, relative to the data directory.
    pub fn in_tablespace(&self, oid: u32) -> RelativePath {
        let mut joined = format!("pg_tblspc/{oid}/").into_bytes();
        joined.extend_from_slice(&self.0);
        RelativePath(joined)
    }
}

/// Text as it is; where it is not UTF-8 or has control characters, all that is not printable ASCII is escaped.
impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// One line of the list of files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ManifestEntry {
    /// A tablespace.
    Tablespace {
        /// Its OID, the name of its link in `pg_tblspc`.
        oid: u32,
        /// Where it was on the server; none for an in-place tablespace.
        location: Option<String>,
    },
    /// A directory.
    Directory {
        /// Where.
        #[serde(flatten)]
        path: PathField,
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File(FileEntry),
}

/// A file of a base backup.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "RawFile")]
pub struct FileEntry {
    /// Where.
    pub path: PathField,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes.
    pub size: u64,
    /// Which frames make up the file, in order; none where it has layers.
    pub extents: Vec<Extent>,
    /// First half of the digest of each frame's plaintext, in order.
    pub digests: Vec<FrameDigest>,
    /// From the oldest to the newest, what it consists of where the server sent changed blocks only; else none.
    pub layers: Vec<Layer>,
}

/// Frames or layers, never both.
impl Serialize for FileEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.path.text_or_hex() {
            Ok(text) => map.serialize_entry("path", text)?,
            Err(hex) => map.serialize_entry("path_hex", &hex)?,
        }
        map.serialize_entry("mode", &self.mode)?;
        map.serialize_entry("mtime", &self.mtime)?;
        map.serialize_entry("size", &self.size)?;
        if self.layers.is_empty() {
            map.serialize_entry("extents", &self.extents)?;
            map.serialize_entry("digests", &frame_digests::text(&self.digests))?;
        } else {
            map.serialize_entry("layers", &self.layers)?;
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct RawFile {
    path: Option<String>,
    path_hex: Option<String>,
    mode: u32,
    mtime: i64,
    size: u64,
    extents: Option<Vec<Extent>>,
    digests: Option<String>,
    layers: Option<Vec<Layer>>,
}

impl TryFrom<RawFile> for FileEntry {
    type Error = String;
    fn try_from(raw: RawFile) -> Result<FileEntry, String> {
        let RawFile { path, path_hex, mode, mtime, size, extents, digests, layers } = raw;
        let path = PathField::try_from(RawPath { path, path_hex }).map_err(|error| error.to_string())?;
        let (extents, digests, layers) = match (extents, digests, layers) {
            (Some(extents), Some(digests), None) => (extents, frame_digests::read(&digests)?, Vec::new()),
            (None, None, Some(layers)) if !layers.is_empty() => (Vec::new(), Vec::new(), layers),
            _ => return Err(format!("{} has not either extents and digests, or layers", path.0)),
        };
        Ok(FileEntry { path, mode, mtime, size, extents, digests, layers })
    }
}

/// First half of BLAKE3 of a frame's plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameDigest(pub [u8; 16]);

impl FrameDigest {
    /// The digest of this plaintext.
    pub fn of(plain: &[u8]) -> FrameDigest {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(plain).as_bytes()[..16]);
        FrameDigest(half)
    }
}

/// A run of frames in one object: `[object, frame, count]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Extent {
    /// Which of the label's `objects`.
    pub object: u32,
    /// The first frame's number.
    pub frame: u32,
    /// How many frames.
    pub count: u32,
}

impl From<(u32, u32, u32)> for Extent {
    fn from((object, frame, count): (u32, u32, u32)) -> Extent {
        Extent { object, frame, count }
    }
}

impl From<Extent> for (u32, u32, u32) {
    fn from(extent: Extent) -> (u32, u32, u32) {
        (extent.object, extent.frame, extent.count)
    }
}

/// A path in JSON: `path` when it is UTF-8, else `path_hex`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawPath", into = "RawPath")]
pub struct PathField(pub RelativePath);

#[derive(Clone, Serialize, Deserialize)]
struct RawPath {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl TryFrom<RawPath> for PathField {
    type Error = PathError;
    fn try_from(raw: RawPath) -> Result<PathField, PathError> {
        let bytes = match (raw.path, raw.path_hex) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => (0..hex.len())
                .step_by(2)
                .map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<Vec<u8>>>()
                .ok_or(PathError(hex))?,
            _ => return Err(PathError("neither path nor path_hex, or both".to_owned())),
        };
        RelativePath::new(&bytes).map(PathField)
    }
}

impl From<PathField> for RawPath {
    fn from(field: PathField) -> RawPath {
        match field.text_or_hex() {
            Ok(path) => RawPath { path: Some(path.to_owned()), path_hex: None },
            Err(hex) => RawPath { path: None, path_hex: Some(hex) },
        }
    }
}

impl PathField {
    fn text_or_hex(&self) -> Result<&str, String> {
        let bytes = self.0.as_bytes();
        std::str::from_utf8(bytes).map_err(|_| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

pub(super) mod frame_digests {
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, Engine, FrameDigest, STANDARD};

    pub fn serialize<S: Serializer>(digests: &[FrameDigest], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(digests))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FrameDigest>, D::Error> {
        read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub fn text(digests: &[FrameDigest]) -> String {
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
        STANDARD.encode(bytes)
    }

    pub fn read(text: &str) -> Result<Vec<FrameDigest>, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let (chunks, rest) = bytes.as_chunks::<16>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|chunk| FrameDigest(*chunk)).collect())
        } else {
            Err("the list of digests is not whole".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_lines_are_those_of_the_format() {
        let file = ManifestEntry::File(FileEntry {
            path: PathField(RelativePath::new(b"base/1/1259").expect("a path")),
            mode: 0o600,
            mtime: 1_700_000_000,
            size: 65_537,
            extents: vec![Extent { object: 0, frame: 3, count: 2 }],
            digests: vec![FrameDigest([1; 16]), FrameDigest([2; 16])],
            layers: vec![],
        });
        let text = serde_json::to_string(&file).expect("serialisable");
        assert_eq!(
            text,
            r#"{"type":"file","path":"base/1/1259","mode":384,"mtime":1700000000,"size":65537,"extents":[[0,3,2]],"digests":"AQEBAQEBAQEBAQEBAQEBAQICAgICAgICAgICAgICAgI="}"#
        );
        assert_eq!(serde_json::from_str::<ManifestEntry>(&text).expect("its own text"), file);
        let directory =
            ManifestEntry::Directory { path: PathField(RelativePath::new(b"odd\xff").expect("a path")), mode: 0o700 };
        let text = serde_json::to_string(&directory).expect("serialisable");
        assert_eq!(text, r#"{"type":"directory","path_hex":"6f6464ff","mode":448}"#);
        assert_eq!(serde_json::from_str::<ManifestEntry>(&text).expect("its own text"), directory);
    }

    #[test]
    fn a_path_never_leads_out_of_the_data_directory() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(RelativePath::new(path.as_bytes()).is_err(), "{path:?}");
            let line = serde_json::json!({ "type": "directory", "path": path, "mode": 448 });
            assert!(serde_json::from_value::<ManifestEntry>(line).is_err(), "{path:?}");
        }
        assert!(serde_json::from_str::<ManifestEntry>(r#"{"type":"directory","path_hex":"2e2","mode":448}"#).is_err());
        assert!(serde_json::from_str::<ManifestEntry>(r#"{"type":"directory","path_hex":"é","mode":448}"#).is_err());
    }

    #[test]
    fn base_ids_sort_by_time() {
        let id = |text: &str, random| BaseId::new(text.parse().expect("a time"), random);
        assert_eq!(id("2026-11-21T02:30:00.9Z", 42).to_string(), "20261121T023000Z-0000002a");
        assert!(id("2026-11-21T02:30:00Z", 9) < id("2026-11-21T02:30:01Z", 0));
        for text in ["", "20261121T023000Z", "20261121T023000Z-0000002A", "20261121T023000Z-0000002a/x"] {
            assert!(text.parse::<BaseId>().is_err(), "{text:?}");
        }
    }
}
