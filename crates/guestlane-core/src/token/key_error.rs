//! Why a signing key cannot be used.

/// Why a signing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is not an RSA key of 2048 bits in PKCS#8, or the crypto library failed.
    #[error("the signing key is unusable")]
    Unusable,
    /// A session's token was signed by a key that the key ring does not have.
    #[error("the signing key {0} is not in the key ring")]
    Missing(String),
    /// The store has no signing key, or all are revoked.
    #[error("no active signing key exists")]
    NoUsableKey,
}
