//! Amounts as people write and read them.

use alloy_primitives::U256;

/// Digits after the point of a coin.
const DIGITS: usize = 18;

/// Wei as coins, without needless zeros.
pub fn coins(wei: U256) -> String {
    let (whole, rest) = wei.div_rem(U256::from(10).pow(U256::from(DIGITS)));
    let fraction = format!("{rest:0>DIGITS$}");
    match fraction.trim_end_matches('0') {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// Wei of an amount: a whole number of wei, or a decimal with a unit, such as `0.02coin`, `3gwei`, `5wei`.
pub fn wei(text: &str) -> Result<u128, String> {
    let bad = || format!("{text:?} is not an amount such as 1000000, 3gwei or 0.02coin");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let digits = match unit {
        "" | "wei" => 0,
        "gwei" => 9,
        "coin" | "coins" => DIGITS,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(bad());
    }
    if fraction.len() > digits {
        return Err(format!("{text:?} has parts of a wei"));
    }
    let padded = format!("{whole}{fraction:0<digits$}");
    padded.parse().map_err(|_| format!("{text:?} is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        assert_eq!(wei("7"), Ok(7));
        assert_eq!(wei("7wei"), Ok(7));
        assert_eq!(wei("1.5gwei"), Ok(1_500_000_000));
        assert_eq!(wei("0.000000000000000001coin"), Ok(1));
        assert_eq!(wei(".5coin"), Ok(500_000_000_000_000_000));
        for bad in ["", ".", "gwei", "1e9", "-1", "1 gwei", "0x5", "1.5", "0.0000000001gwei", "1btc"] {
            assert!(wei(bad).is_err(), "{bad}");
        }
        assert!(wei("999999999999999999999999999999999999999999coin").is_err());
    }

    #[test]
    fn and_written_exactly() {
        assert_eq!(coins(U256::ZERO), "0");
        assert_eq!(coins(U256::from(1)), "0.000000000000000001");
        assert_eq!(coins(U256::from(2_500_000_000_000_000_000u64)), "2.5");
    }
}
