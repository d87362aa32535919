//! Keys and how they are written down.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{ByteIterExt, Fe32IterExt, Hrp};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use zeroize::Zeroizing;

use super::compare::CompareKey;
use super::{Entropy, ResumeKey, SealError};

const RECIPIENT: &str = "walseal";
const IDENTITY: &str = "walseal-secret-identity";
const WRITER: &str = "walsealw";
const WRITER_SECRET: &str = "walseal-secret-writer";
const COMPARE_SECRET: &str = "walseal-secret-compare";

/// A text is not a key of the kind that was asked for. Never holds the text: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not Bech32m, or a mistyped character.
    #[error("this is not a {expected}: {why}; it begins with {prefix}1 and has a checksum, so copy it whole")]
    Unreadable {
        /// What was expected.
        expected: &'static str,
        /// The human-readable part it begins with.
        prefix: &'static str,
        /// What the decoder found.
        why: String,
    },
    /// A key of another kind.
    #[error("this is no {expected}, which would begin with {prefix}1, but another key: {found}")]
    OtherKind {
        /// What was expected.
        expected: &'static str,
        /// The human-readable part it begins with.
        prefix: &'static str,
        /// What it is instead.
        found: &'static str,
    },
    /// The bytes are no valid point or have a wrong length.
    #[error("this {0} is well written but not a valid key; make a new one with keygen")]
    Invalid(&'static str),
    /// A key file without a key of the kind.
    #[error("the file holds no {0}; make one with keygen --output FILE")]
    Missing(&'static str),
    /// A writer key file with two keys of one kind.
    #[error("the file holds more than one {0}; keep one in each file")]
    Several(&'static str),
}

fn name_of(prefix: &str) -> &'static str {
    match prefix {
        RECIPIENT => "recipient",
        IDENTITY => "identity (a secret: it belongs on the restore host only)",
        WRITER => "writer's public key",
        WRITER_SECRET => "writer key (a secret)",
        COMPARE_SECRET => "compare key (a secret)",
        _ => "something else",
    }
}

fn encode(prefix: &str, bytes: &[u8]) -> String {
    // The five prefixes above are legal: only an illegal one could fail, and a test encodes each.
    let hrp = Hrp::parse_unchecked(prefix);
    bytes.iter().copied().bytes_to_fes().with_checksum::<bech32::Bech32m>(&hrp).chars().collect()
}

fn decode(text: &str, prefix: &'static str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let expected = name_of(prefix);
    let parsed = CheckedHrpstring::new::<bech32::Bech32m>(text.trim()).map_err(|error| KeyError::Unreadable {
        expected,
        prefix,
        why: error.to_string(),
    })?;
    let found = parsed.hrp().to_lowercase();
    if found != prefix {
        return Err(KeyError::OtherKind { expected, prefix, found: name_of(&found) });
    }
    let mut key = Zeroizing::new([0; 32]);
    let mut bytes = parsed.byte_iter();
    for slot in key.iter_mut() {
        *slot = bytes.next().ok_or(KeyError::Invalid(expected))?;
    }
    if bytes.next().is_some() {
        return Err(KeyError::Invalid(expected));
    }
    Ok(key)
}

/// The first 8 bytes of a recipient's fingerprint, by which an identity finds its data key in a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecipientId(pub(super) [u8; 8]);

impl fmt::Display for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key that objects are sealed to: `walseal1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient {
    pub(super) key: <X25519HkdfSha256 as Kem>::PublicKey,
}

impl Recipient {
    /// Fingerprint of the key, as it stands in headers.
    pub fn id(&self) -> RecipientId {
        let digest = blake3::derive_key("walseal 2026-11 recipient id", &self.key.to_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        RecipientId(id)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(RECIPIENT, &self.key.to_bytes()))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Recipient {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = decode(text, RECIPIENT)?;
        // X25519 maps every 32 bytes to some point; the all-zero one would make every shared secret zero.
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(KeyError::Invalid(name_of(RECIPIENT)));
        }
        let key = Deserializable::from_bytes(bytes.as_slice()).map_err(|_| KeyError::Invalid(name_of(RECIPIENT)))?;
        Ok(Recipient { key })
    }
}

/// The secret key that opens objects. Lives on the restore host only.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: <X25519HkdfSha256 as Kem>::PrivateKey,
    recipient: Recipient,
}

impl Identity {
    /// A new identity from the operating system's random bytes.
    pub fn generate() -> Result<Identity, SealError> {
        let mut secret = Zeroizing::new([0; 32]);
        super::entropy::System.fill(secret.as_mut_slice())?;
        Identity::from_secret(&secret).ok_or_else(|| SealError::Sealing("an unusable identity was drawn".to_owned()))
    }

    pub(super) fn from_secret(secret: &[u8; 32]) -> Option<Identity> {
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret).ok()?;
        let recipient = Recipient { key: X25519HkdfSha256::sk_to_pk(&key) };
        Some(Identity { key, recipient })
    }

    /// The public half.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The content of an identity file. Secret.
    pub fn to_file(&self) -> Zeroizing<String> {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(self.key.to_bytes().into());
        let secret = Zeroizing::new(encode(IDENTITY, bytes.as_slice()));
        Zeroizing::new(format!(
            "# walseal identity: whoever holds this file can read every backup sealed to it. Keep a copy offline.\n\
             # recipient: {}\n{}\n",
            self.recipient,
            secret.as_str()
        ))
    }

    /// Reads an identity file: one identity on a line, `#` begins a comment.
    ///
    /// Errors: a line that is no identity, or none at all.
    pub fn read_file(content: &str) -> Result<Vec<Identity>, KeyError> {
        let identities: Vec<Identity> = key_lines(content)
            .map(|line| {
                let secret = decode(line, IDENTITY)?;
                Identity::from_secret(&secret).ok_or(KeyError::Invalid(name_of(IDENTITY)))
            })
            .collect::<Result<_, _>>()?;
        if identities.is_empty() { Err(KeyError::Missing(name_of(IDENTITY))) } else { Ok(identities) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {})", self.recipient)
    }
}

fn key_lines(content: &str) -> impl Iterator<Item = &str> {
    content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The public half of a writer key: `walsealw1…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterPublic(VerifyingKey);

impl WriterPublic {
    /// Checks a signature over `message`, strictly (RFC 8032 with canonical encodings, no small-order keys).
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl PartialOrd for WriterPublic {
    fn partial_cmp(&self, other: &WriterPublic) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WriterPublic {
    fn cmp(&self, other: &WriterPublic) -> Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl fmt::Display for WriterPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(WRITER, self.0.as_bytes()))
    }
}

impl fmt::Debug for WriterPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WriterPublic {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = decode(text, WRITER)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid(name_of(WRITER)))?;
        if key.is_weak() { Err(KeyError::Invalid(name_of(WRITER))) } else { Ok(WriterPublic(key)) }
    }
}

/// The key with which an archiver signs what it writes, and the compare key that its cluster's archivers share.
#[derive(Clone)]
pub struct WriterKey {
    signing: SigningKey,
    compare: CompareKey,
}

impl WriterKey {
    /// A new writer key with a new compare key.
    pub fn generate() -> Result<WriterKey, SealError> {
        let mut seed = Zeroizing::new([0; 32]);
        let mut compare = Zeroizing::new([0; 32]);
        super::entropy::System.fill(seed.as_mut_slice())?;
        super::entropy::System.fill(compare.as_mut_slice())?;
        Ok(WriterKey { signing: SigningKey::from_bytes(&seed), compare: CompareKey::new(*compare) })
    }

    /// A new writer key for one more archiver of the same cluster: it shares the compare key.
    pub fn generate_sibling(&self) -> Result<WriterKey, SealError> {
        WriterKey::generate_for(self.compare.clone())
    }

    /// A new writer key with the compare key of a cluster's archivers.
    pub fn generate_for(compare: CompareKey) -> Result<WriterKey, SealError> {
        Ok(WriterKey { signing: WriterKey::generate()?.signing, compare })
    }

    /// The public half, which readers are told to trust.
    pub fn public(&self) -> WriterPublic {
        WriterPublic(self.signing.verifying_key())
    }

    /// The compare key.
    pub fn compare(&self) -> &CompareKey {
        &self.compare
    }

    /// The key of the lists that this writer keeps for its own next base backup.
    ///
    /// Errors: there are none, short of a seed that makes no X25519 key; every 32 bytes do.
    pub fn resume(&self) -> Result<ResumeKey, SealError> {
        let unusable = || SealError::Sealing("the writer key makes no resume identity".to_owned());
        ResumeKey::derive(&self.signing).ok_or_else(unusable)
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The content of a writer key file. Secret.
    pub fn to_file(&self) -> Zeroizing<String> {
        let signing = Zeroizing::new(encode(WRITER_SECRET, self.signing.as_bytes()));
        let compare = Zeroizing::new(encode(COMPARE_SECRET, self.compare.bytes()));
        Zeroizing::new(format!(
            "# walseal writer key: signs what the archiver writes. It opens no backup.\n# public half: {}\n{}\n{}\n",
            self.public(),
            signing.as_str(),
            compare.as_str()
        ))
    }

    /// Reads a writer key file: one writer secret and one compare key, a line each, `#` begins a comment.
    pub fn read_file(content: &str) -> Result<WriterKey, KeyError> {
        let mut signing = None;
        let mut compare = None;
        for line in key_lines(content) {
            if line.starts_with(COMPARE_SECRET) {
                let key = CompareKey::new(*decode(line, COMPARE_SECRET)?);
                if compare.replace(key).is_some() {
                    return Err(KeyError::Several(name_of(COMPARE_SECRET)));
                }
            } else {
                let key = SigningKey::from_bytes(&*decode(line, WRITER_SECRET)?);
                if signing.replace(key).is_some() {
                    return Err(KeyError::Several(name_of(WRITER_SECRET)));
                }
            }
        }
        Ok(WriterKey {
            signing: signing.ok_or(KeyError::Missing(name_of(WRITER_SECRET)))?,
            compare: compare.ok_or(KeyError::Missing(name_of(COMPARE_SECRET)))?,
        })
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_survive_their_files() {
        let identity = Identity::generate().expect("random bytes");
        let read = Identity::read_file(&identity.to_file()).expect("its own file");
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].recipient(), identity.recipient());
        assert!(identity.recipient().to_string().starts_with("walseal1"));
        assert_eq!(identity.recipient().to_string().parse(), Ok(identity.recipient().clone()));

        let writer = WriterKey::generate().expect("random bytes");
        let read = WriterKey::read_file(&writer.to_file()).expect("its own file");
        assert_eq!(read.public(), writer.public());
        assert_eq!(read.compare().id(), writer.compare().id());
        assert!(writer.public().to_string().starts_with("walsealw1"));
        assert_eq!(writer.public().to_string().parse(), Ok(writer.public()));
        let sibling = writer.generate_sibling().expect("random bytes");
        assert_ne!(sibling.public(), writer.public());
        assert_eq!(sibling.compare().id(), writer.compare().id());
    }

    #[test]
    fn a_key_of_another_kind_is_named_and_never_shown() {
        let identity = Identity::generate().expect("random bytes");
        let file = identity.to_file();
        let secret = key_lines(&file).next().expect("one line");
        let error = secret.parse::<Recipient>().expect_err("a secret is no recipient").to_string();
        assert!(error.contains("identity (a secret"), "{error}");
        assert!(!error.contains(&secret[30..]), "{error}");
        let error = WriterKey::read_file(&file).expect_err("an identity is no writer key").to_string();
        assert!(!error.contains(&secret[30..]), "{error}");
        assert!(!format!("{identity:?}").contains(&secret[30..]));
    }

    #[test]
    fn a_mistyped_key_is_refused() {
        let text = Identity::generate().expect("random bytes").recipient().to_string();
        for at in 8..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert!(typo.parse::<Recipient>().is_err(), "{typo}");
        }
        assert!(encode(RECIPIENT, &[0; 32]).parse::<Recipient>().is_err());
        assert!(encode(RECIPIENT, &[1; 31]).parse::<Recipient>().is_err());
        assert!(encode(RECIPIENT, &[1; 33]).parse::<Recipient>().is_err());
    }

    proptest! {
        #[test]
        fn key_files_never_panic(content: String) {
            prop_assert!(Identity::read_file(&content).is_err());
            prop_assert!(WriterKey::read_file(&content).is_err());
        }
    }
}
