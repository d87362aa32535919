//! Where random bytes come from.

use super::SealError;

/// A source of random bytes: the operating system's, or given ones for test vectors.
pub trait Entropy {
    /// Fills `target` with random bytes.
    ///
    /// Errors: [`SealError::NoEntropy`] when there are none.
    fn fill(&mut self, target: &mut [u8]) -> Result<(), SealError>;
}

/// The operating system's generator.
pub(super) struct System;

impl Entropy for System {
    fn fill(&mut self, target: &mut [u8]) -> Result<(), SealError> {
        getrandom::fill(target).map_err(|error| SealError::NoEntropy(error.to_string()))
    }
}

/// Random bytes drawn beforehand, in the shape that the HPKE library asks for: it takes exactly as many as a
/// secret key has.
pub(super) struct Drawn {
    bytes: zeroize::Zeroizing<[u8; 32]>,
    used: usize,
}

impl Drawn {
    pub(super) fn from(entropy: &mut dyn Entropy) -> Result<Drawn, SealError> {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Drawn { bytes, used: 0 })
    }

    /// Whether the library took more than was drawn; then what it made must not be used.
    pub(super) fn overdrawn(&self) -> bool {
        self.used > self.bytes.len()
    }
}

impl hpke::rand_core::TryRng for Drawn {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Self::Error> {
        let end = self.used.saturating_add(target.len());
        if let Some(drawn) = self.bytes.get(self.used..end) {
            target.copy_from_slice(drawn);
        }
        self.used = end;
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for Drawn {}
