//! Numbers as people write them: `0x` hexadecimal or plain decimal.

use alloy_primitives::U256;

/// Parses `0x...` or decimal digits, at most 256 bits. No signs, blanks or separators.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<U256, &'static str> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err("expected a number: 0x and hexadecimal digits, or decimal digits");
    }
    U256::from_str_radix(digits, u64::from(radix)).map_err(|_| "the number does not fit into 256 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_parse() {
        assert_eq!(parse("0x10"), Ok(U256::from(16)));
        assert_eq!(parse("0010"), Ok(U256::from(10)));
        assert_eq!(parse(&format!("0x{}", "f".repeat(64))), Ok(U256::MAX));
        assert_eq!(parse(&U256::MAX.to_string()), Ok(U256::MAX));
        for bad in ["", "0x", "-1", "+1", "1_0", "0x1_0", " 1", "1e3", "0X1", "0xg", "ä"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&format!("0x1{}", "0".repeat(64))).is_err());
        assert!(parse(&"9".repeat(100)).is_err());
    }
}
