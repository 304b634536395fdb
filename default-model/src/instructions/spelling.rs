//! How tokens, values and whole sentences are spelt: nicknames, case, the odd typing mistake.

use crate::grammar::Token;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A way to write `token`.
pub(super) fn token(token: Token, rng: &mut impl Rng) -> &'static str {
    let spellings: &[&str] = match token {
        Token::Metis => &["METIS", "METIS", "metis", "metis", "Metis"],
        Token::Eth => &["ETH", "ETH", "ETH", "eth", "eth", "Eth", "ether", "ether", "Ether", "ethereum"],
        Token::Usdc => &["USDC", "USDC", "USDC", "usdc", "usdc", "usdc", "Usdc", "usd coin"],
        Token::Dai => &["DAI", "DAI", "dai", "dai", "Dai"],
        Token::Wbtc => &[
            "WBTC",
            "WBTC",
            "WBTC",
            "wbtc",
            "wbtc",
            "wbtc",
            "bitcoin",
            "Bitcoin",
            "btc",
            "BTC",
            "wrapped bitcoin",
        ],
    };
    spellings.choose(rng).copied().unwrap_or_default()
}

/// A way to write an amount of a token.
pub(super) fn value(amount: &str, of: Token, rng: &mut impl Rng) -> String {
    let token = token(of, rng);
    let wordy = amount.ends_with(|c: char| c.is_ascii_alphabetic() && c != 'k');
    match rng.random_range(0..100) {
        0..3 if !wordy => format!("{amount}{token}"),
        3..8 => format!("{amount} {token} tokens"),
        8..11 if !wordy => format!("{amount} of my {token}"),
        _ => format!("{amount} {token}"),
    }
}

/// The sentence with the case that a hurried, a careful or a loud user would give it.
pub(super) fn with_case(text: &str, rng: &mut impl Rng) -> String {
    match rng.random_range(0..100) {
        0..45 => text.to_owned(),
        45..70 => text.to_lowercase(),
        70..73 => text.to_uppercase(),
        _ => {
            let mut chars = text.chars();
            chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
        }
    }
}

/// The skeleton with one slip of the keyboard in a long word, past the word's second letter.
pub(super) fn with_typo(skeleton: &str, rng: &mut impl Rng) -> String {
    let mut words: Vec<String> = skeleton.split(' ').map(str::to_owned).collect();
    let long = |word: &&mut String| word.len() >= 5 && word.bytes().all(|b| b.is_ascii_lowercase());
    let mut candidates: Vec<&mut String> = words.iter_mut().filter(long).collect();
    if candidates.is_empty() {
        return skeleton.to_owned();
    }
    let pick = rng.random_range(0..candidates.len());
    let word = &mut candidates[pick];
    let at = rng.random_range(2..word.len() - 1);
    match rng.random_range(0..3) {
        0 => {
            word.remove(at);
        }
        1 => {
            let letter = word.remove(at);
            word.insert(at + 1, letter);
        }
        _ => {
            let doubled = word.as_bytes()[at];
            word.insert(at, char::from(doubled));
        }
    }
    words.join(" ")
}
