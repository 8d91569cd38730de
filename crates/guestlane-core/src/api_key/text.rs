//! The text of an API key.

use std::{fmt, str::FromStr};

use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

use crate::{request::ValidationError, token::KeyError};

/// An API key: `gl_`, an ID of 12 characters, a secret of 43 (256 bits), and a checksum of 6.
///
/// All are letters and digits, so that a double click selects the whole key. The checksum lets
/// secret scanners recognize a key without a request. `Debug` prints only the ID.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Zeroizing<String>);

const PREFIX: &str = "gl_";
const ID: usize = 12;
/// 62^43 is more than 2^256.
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl ApiKey {
    /// Length in characters.
    pub const LENGTH: usize = PREFIX.len() + ID + SECRET + CHECKSUM;

    /// Generates a key.
    ///
    /// # Errors
    /// Returns [`KeyError::Unusable`] if the random number generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut text = Zeroizing::new(String::with_capacity(Self::LENGTH));
        text.push_str(PREFIX);
        let mut bytes = Zeroizing::new([0; 64]);
        while text.len() < Self::LENGTH - CHECKSUM {
            rand::fill(bytes.as_mut()).map_err(|_| KeyError::Unusable)?;
            // Reject bytes above the last whole multiple of 62; they would make some characters
            // more likely.
            let even = bytes
                .iter()
                .filter(|byte| **byte < 248)
                .take(Self::LENGTH - CHECKSUM - text.len());
            text.extend(even.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
        }
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Ok(Self(text))
    }

    /// Returns the key's ID, by which the store finds it.
    pub fn id(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + ID]
    }

    /// Returns the key's text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Returns the first 32 bits of SHA-256, in base 62.
fn checksum(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut number = hash
        .as_ref()
        .iter()
        .take(4)
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
    digits.map(char::from).iter().collect()
}

impl FromStr for ApiKey {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let invalid = |reason: &str| {
            Err(ValidationError::new(
                "Authorization",
                reason,
                "copy the complete key: gl_ and 61 letters and digits",
            ))
        };
        if text.len() != Self::LENGTH || !text.is_ascii() || !text.starts_with(PREFIX) {
            return invalid("has no API key");
        }
        let (body, found) = text.split_at(Self::LENGTH - CHECKSUM);
        if checksum(body) != found {
            return invalid("has an API key with a wrong character");
        }
        Ok(Self(text.to_owned().into()))
    }
}

/// Prints only the ID.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_round_trips_and_any_changed_character_is_rejected() {
        let key = ApiKey::generate().unwrap();
        let text = key.expose();
        assert_eq!(
            (text.len(), text.parse::<ApiKey>().unwrap()),
            (64, key.clone())
        );
        for at in 0..text.len() {
            let wrong = if text.as_bytes()[at] == b'x' {
                "y"
            } else {
                "x"
            };
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, wrong);
            assert!(changed.parse::<ApiKey>().is_err(), "{at}");
        }
        assert!(!format!("{key:?}").contains(&text[PREFIX.len() + ID..]));
    }

    #[test]
    fn generated_characters_are_uniformly_distributed() {
        let mut counts = [0_u32; 256];
        for _ in 0..500 {
            for byte in ApiKey::generate()
                .unwrap()
                .expose()
                .bytes()
                .skip(PREFIX.len())
                .take(ID + SECRET)
            {
                counts[usize::from(byte)] += 1;
            }
        }
        let expected = 500.0 * (ID + SECRET) as f64 / 62.0;
        // Each count is off by more than 7 standard deviations less than once in 10^11 runs.
        for byte in ALPHABET {
            let off = f64::from(counts[usize::from(*byte)]) - expected;
            assert!(
                off.abs() < 7.0 * expected.sqrt(),
                "{} came {} times",
                char::from(*byte),
                counts[usize::from(*byte)]
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = text.parse::<ApiKey>();
            let _ = format!("gl_{text}").parse::<ApiKey>();
        }
    }
}
