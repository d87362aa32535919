//! Telling "same bytes" from "other bytes" without being able to read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key of the comparison digests, shared by the archivers of one cluster. With it alone nothing can be read;
/// without it a digest of a small tail tells nothing about the tail.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CompareKey([u8; 32]);

impl CompareKey {
    /// A compare key of these bytes.
    pub fn new(bytes: [u8; 32]) -> CompareKey {
        CompareKey(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's bytes, to be sealed into `identity`. Secret.
    pub fn to_sealed_content(&self) -> zeroize::Zeroizing<Vec<u8>> {
        zeroize::Zeroizing::new(self.0.to_vec())
    }

    /// Fingerprint of the key, as it stands in headers: digests of different keys cannot be compared.
    pub fn id(&self) -> CompareKeyId {
        let digest = blake3::derive_key("walseal 2026-11 compare key id", &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        CompareKeyId(id)
    }

    /// A hasher for the bytes of one segment, from the segment's start.
    pub fn hasher(&self) -> CompareHasher {
        CompareHasher(blake3::Hasher::new_keyed(&self.0))
    }
}

impl fmt::Debug for CompareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompareKey({})", self.id())
    }
}

/// Digests a segment's bytes in order, from the segment's start.
#[derive(Clone)]
pub struct CompareHasher(blake3::Hasher);

impl CompareHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> CompareDigest {
        CompareDigest(*self.0.finalize().as_bytes())
    }
}

macro_rules! hexadecimal {
    ($name:ident, $length:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                super::header::from_hex::<$length>(text).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Keyed digest of a segment's bytes from its start to some position.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompareDigest([u8; 32]);
hexadecimal!(CompareDigest, 32);

/// Fingerprint of a compare key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompareKeyId([u8; 8]);
hexadecimal!(CompareKeyId, 8);

pub(super) use hexadecimal;
