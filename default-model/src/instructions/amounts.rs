//! Amounts and how people write them: `12.5`, `1,000`, `2k`, `twelve and a half`, `a dozen`.

use crate::grammar::Amount;
use rand::Rng;
use rand::seq::IndexedRandom;

/// An amount and one way to write it.
pub fn random(rng: &mut impl Rng) -> (Amount, String) {
    match rng.random_range(0..100) {
        0..32 => integer(rng),
        32..56 => decimal(rng),
        56..62 => thousands_suffix(rng),
        62..84 => words(rng),
        84..93 => words_and_fraction(rng),
        _ => idiom(rng),
    }
}

/// `number` below one million in English words; `and` puts "and" after the hundreds and `dash` joins
/// "twenty-one".
#[must_use]
pub fn in_words(number: u64, and: bool, dash: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    let (thousands, rest) = (number / 1000, number % 1000);
    if thousands > 0 {
        parts.push(format!("{} thousand", below_thousand(thousands, and, dash)));
    }
    if rest > 0 || number == 0 {
        if and && thousands > 0 && rest < 100 {
            parts.push("and".to_owned());
        }
        parts.push(below_thousand(rest, and, dash));
    }
    parts.join(" ")
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

fn below_thousand(number: u64, and: bool, dash: bool) -> String {
    let (hundreds, rest) = (number / 100, number % 100);
    let tail = below_hundred(rest, dash);
    match (hundreds, rest) {
        (0, _) => tail,
        (_, 0) => format!("{} hundred", SMALL[hundreds as usize]),
        _ if and => format!("{} hundred and {tail}", SMALL[hundreds as usize]),
        _ => format!("{} hundred {tail}", SMALL[hundreds as usize]),
    }
}

fn below_hundred(number: u64, dash: bool) -> String {
    let (tens, ones) = ((number / 10) as usize, (number % 10) as usize);
    match (tens, ones) {
        (0 | 1, _) => SMALL[number as usize].to_owned(),
        (_, 0) => TENS[tens].to_owned(),
        _ => format!("{}{}{}", TENS[tens], if dash { '-' } else { ' ' }, SMALL[ones]),
    }
}

/// A whole number, small ones and round ones more often.
fn whole(rng: &mut impl Rng) -> u64 {
    match rng.random_range(0..10) {
        0..3 => rng.random_range(1..=20),
        3..5 => rng.random_range(1..=99),
        5..7 => rng.random_range(100..=999),
        7 => rng.random_range(1..=99) * 10u64.pow(rng.random_range(1..=3)),
        8 => rng.random_range(1000..=9999),
        _ => rng.random_range(10_000..=999_999),
    }
}

fn integer(rng: &mut impl Rng) -> (Amount, String) {
    let units = whole(rng);
    let text = if units >= 1000 && rng.random_bool(0.45) { with_commas(units) } else { units.to_string() };
    // "5.0" and "20.00" are still 5 and 20.
    let text = if rng.random_bool(0.06) { format!("{text}.{}", zeros(rng)) } else { text };
    (Amount::new(units, 0), text)
}

fn decimal(rng: &mut impl Rng) -> (Amount, String) {
    let units = match rng.random_range(0..10) {
        0..4 => 0,
        4..9 => rng.random_range(1..=150),
        _ => rng.random_range(151..=9999),
    };
    let places = [1, 1, 1, 2, 2, 2, 3, 3, 4][rng.random_range(0..9)];
    let millionths = rng.random_range(1..10u64.pow(places)) * 10u64.pow(6 - places);
    let amount = Amount::new(units, millionths);
    let mut text = if units >= 1000 && rng.random_bool(0.5) { with_commas(units) } else { units.to_string() };
    if units == 0 && rng.random_bool(0.12) {
        text.clear();
    }
    text.push('.');
    text.push_str(&amount.decimals());
    if rng.random_bool(0.08) {
        text.push_str(zeros(rng));
    }
    (amount, text)
}

fn zeros(rng: &mut impl Rng) -> &'static str {
    if rng.random_bool(0.5) { "0" } else { "00" }
}

fn thousands_suffix(rng: &mut impl Rng) -> (Amount, String) {
    let thousands = if rng.random_bool(0.7) { rng.random_range(1..=20) } else { rng.random_range(1..=500) };
    if rng.random_bool(0.6) {
        return (Amount::new(thousands * 1000, 0), format!("{thousands}k"));
    }
    let tenths = rng.random_range(1..=9);
    (Amount::new(thousands * 1000 + tenths * 100, 0), format!("{thousands}.{tenths}k"))
}

/// A number that people do write in words.
fn wordy(rng: &mut impl Rng) -> u64 {
    match rng.random_range(0..20) {
        0..7 => rng.random_range(1..=20),
        7..12 => rng.random_range(21..=99),
        12..14 => rng.random_range(1..=9) * 100,
        14..18 => rng.random_range(101..=999),
        18 => rng.random_range(1..=99) * 1000,
        _ => rng.random_range(1..=20) * 1000 + rng.random_range(1..=9) * 100,
    }
}

fn words(rng: &mut impl Rng) -> (Amount, String) {
    let number = wordy(rng);
    let text = in_words(number, rng.random_bool(0.6), rng.random_bool(0.5));
    let text = match text.strip_prefix("one ") {
        Some(rest) if rng.random_bool(0.5) => format!("a {rest}"),
        _ => text,
    };
    (Amount::new(number, 0), text)
}

const FRACTIONS: [(u64, &str); 3] =
    [(500_000, "and a half"), (250_000, "and a quarter"), (750_000, "and three quarters")];

fn words_and_fraction(rng: &mut impl Rng) -> (Amount, String) {
    let units = if rng.random_bool(0.75) { rng.random_range(1..=20) } else { rng.random_range(21..=99) };
    let (and, dash) = (rng.random_bool(0.6), rng.random_bool(0.5));
    if rng.random_bool(0.55) {
        let (millionths, fraction) = FRACTIONS[[0, 0, 0, 1, 2][rng.random_range(0..5)]];
        let head = if rng.random_bool(0.3) { units.to_string() } else { in_words(units, and, dash) };
        return (Amount::new(units, millionths), format!("{head} {fraction}"));
    }
    let units = if rng.random_bool(0.25) { 0 } else { units };
    let places = if rng.random_bool(0.7) { 1 } else { 2 };
    let millionths = rng.random_range(1..10u64.pow(places)) * 10u64.pow(6 - places);
    let amount = Amount::new(units, millionths);
    let mut text = format!("{} point", in_words(units, and, dash));
    for digit in amount.decimals().bytes() {
        text.push(' ');
        text.push_str(SMALL[usize::from(digit - b'0')]);
    }
    (amount, text)
}

const IDIOMS: [(u64, u64, &str); 15] = [
    (12, 0, "a dozen"),
    (6, 0, "half a dozen"),
    (24, 0, "two dozen"),
    (2, 0, "a couple of"),
    (2, 0, "a pair of"),
    (0, 500_000, "half a"),
    (0, 500_000, "half an"),
    (0, 500_000, "half of one"),
    (0, 250_000, "a quarter of a"),
    (0, 750_000, "three quarters of a"),
    (1, 0, "a single"),
    (1, 0, "one single"),
    (100, 0, "a hundred"),
    (1000, 0, "a thousand"),
    (1, 500_000, "one and a half"),
];

fn idiom(rng: &mut impl Rng) -> (Amount, String) {
    let (units, millionths, text) = IDIOMS.choose(rng).copied().unwrap_or(IDIOMS[0]);
    (Amount::new(units, millionths), text.to_owned())
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn number_words_round_trip_below_one_million() {
        for (and, dash) in [(false, false), (false, true), (true, false), (true, true)] {
            let numbers = (0..2000).chain((2000..1_000_000).step_by(997));
            for number in numbers {
                let text = in_words(number, and, dash);
                assert_eq!(read_words(&text), number, "{text}");
            }
        }
    }

    #[test]
    fn commas_stand_every_three_digits() {
        assert_eq!(with_commas(999), "999");
        assert_eq!(with_commas(1000), "1,000");
        assert_eq!(with_commas(1_234_567), "1,234,567");
    }

    /// An independent reader of number words.
    fn read_words(text: &str) -> u64 {
        let mut value_of: HashMap<&str, u64> = (0..).zip(SMALL).map(|(n, w)| (w, n)).collect();
        value_of.extend((0u64..).zip(TENS).skip(2).map(|(n, w)| (w, n * 10)));
        let (mut total, mut part) = (0, 0);
        for word in text.split([' ', '-']) {
            match word {
                "and" => {}
                "hundred" => part *= 100,
                "thousand" => (total, part) = (part * 1000, 0),
                word => part += value_of[word],
            }
        }
        total + part
    }
}
