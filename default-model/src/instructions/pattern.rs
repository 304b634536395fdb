//! A pattern is a line of text with alternatives, `[send|pay|]`, that may nest, and slots, `{v}`.
//!
//! One pattern stands for many skeletons: the texts in which every alternative is decided and the slots
//! are still open. Two splits of the corpus share no skeleton of a core clause.

use rand::Rng;
use rand::seq::IndexedRandom;

/// Decides every alternative of `pattern` at random; the slots stay.
pub fn choose(pattern: &str, rng: &mut impl Rng) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(open) = rest.find('[') {
        out.push_str(&rest[..open]);
        let (alternatives, after) = split_choice(&rest[open..]);
        if let Some(alternative) = alternatives.choose(rng) {
            out.push_str(&choose(alternative, rng));
        }
        rest = after;
    }
    out.push_str(rest);
    collapse_spaces(&out)
}

/// Every skeleton of `pattern`, in the order in which it is written.
#[must_use]
pub fn skeletons(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('[') else {
        return vec![collapse_spaces(pattern)];
    };
    let (alternatives, after) = split_choice(&pattern[open..]);
    let tails = skeletons_raw(after);
    let mut out = Vec::new();
    for alternative in alternatives {
        for middle in skeletons_raw(alternative) {
            for tail in &tails {
                out.push(collapse_spaces(&format!("{}{middle}{tail}", &pattern[..open])));
            }
        }
    }
    out
}

/// As `skeletons`, but with the spaces as written: a part of a pattern may begin or end with one.
fn skeletons_raw(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('[') else {
        return vec![pattern.to_owned()];
    };
    let (alternatives, after) = split_choice(&pattern[open..]);
    let tails = skeletons_raw(after);
    let mut out = Vec::new();
    for alternative in alternatives {
        for middle in skeletons_raw(alternative) {
            for tail in &tails {
                out.push(format!("{}{middle}{tail}", &pattern[..open]));
            }
        }
    }
    out
}

/// One space between words, none at the ends, none before a comma, a full stop or a colon.
#[must_use]
pub fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() && !matches!(word, "," | "." | ":" | "!" | "?") {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Splits `[a|b[c|d]]tail` into its top alternatives and the tail. A missing `]` ends with the text.
fn split_choice(text: &str) -> (Vec<&str>, &str) {
    let mut depth = 0;
    let mut start = 1;
    let mut alternatives = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b'|' if depth == 1 => {
                alternatives.push(&text[start..at]);
                start = at + 1;
            }
            b']' => {
                depth -= 1;
                if depth == 0 {
                    alternatives.push(&text[start..at]);
                    return (alternatives, &text[at + 1..]);
                }
            }
            _ => {}
        }
    }
    alternatives.push(&text[start..]);
    (alternatives, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn alternatives_nest_and_may_be_empty() {
        assert_eq!(
            skeletons("a [b|c [d|]] {n} , e"),
            ["a b {n}, e", "a c d {n}, e", "a c {n}, e"].map(str::to_owned)
        );
    }

    #[test]
    fn a_choice_is_one_of_the_skeletons() {
        let pattern = "[send|pay [back|]] {v} [to|over to] {n}";
        let all = skeletons(pattern);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..100 {
            assert!(all.contains(&choose(pattern, &mut rng)));
        }
    }
}
