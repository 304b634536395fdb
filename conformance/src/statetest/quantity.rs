//! Numbers as the files write them.

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, de::Error};

/// A number in hex after `0x`, with any number of zeros in front, or in decimal. Nothing (`0x` or an empty text) is 0.
///
/// # Errors
/// What is wrong with it: no number, or one that needs more than 256 bits.
pub(super) fn parse(text: &str) -> Result<U256, String> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.is_empty() {
        return Ok(U256::ZERO);
    }
    U256::from_str_radix(digits, radix).map_err(|problem| format!("{text:?}: {problem}"))
}

/// Like [`parse`], for numbers that fit 64 bits.
pub(super) fn parse_u64(text: &str) -> Result<u64, String> {
    parse(text)?.try_into().map_err(|_| format!("{text:?} needs more than 64 bits"))
}

/// A number of at most 256 bits in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(pub(super) U256);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Some generators write small numbers without quotes.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u64),
        }
        match Written::deserialize(from)? {
            Written::Text(text) => parse(&text).map(Self).map_err(D::Error::custom),
            Written::Number(number) => Ok(Self(U256::from(number))),
        }
    }
}

impl Quantity {
    /// The number, if it fits 64 bits.
    pub(super) fn to_u64(self) -> Option<u64> {
        self.0.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hex_or_decimal() {
        for (text, number) in [("0x", 0_u64), ("", 0), ("0x0000ff", 255), ("255", 255), ("0x0", 0)] {
            assert_eq!(parse(text), Ok(U256::from(number)), "{text}");
        }
        assert_eq!(serde_json::from_str::<Quantity>("7").unwrap(), Quantity(U256::from(7)));
        assert_eq!(serde_json::from_str::<Quantity>("\"0x07\"").unwrap(), Quantity(U256::from(7)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let too_large = format!("0x1{}", "0".repeat(64));
        for text in ["0x:bigint 0x1", "0xg", "-1", "1.5", &too_large] {
            assert!(parse(text).unwrap_err().contains(text), "{text}");
        }
        assert!(parse_u64("0x10000000000000000").is_err());
    }
}
