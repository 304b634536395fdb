//! The surface forms of a stance and of a proposal. All splits share them.

use crate::grammar::Stance;
use crate::instructions::amounts;
use rand::Rng;
use rand::seq::IndexedRandom;

/// The stance as an adverb: "vote **in favour**".
pub fn adverb(stance: Stance, rng: &mut impl Rng) -> &'static str {
    match stance {
        Stance::Yes => pick(&["yes", "yes", "yes", "in favour", "in favor", "for", "aye", "yea"], rng),
        Stance::No => pick(&["no", "no", "no", "against", "nay", "against it"], rng),
        Stance::Abstain => pick(&["abstain", "abstain", "neutral", "abstention", "neither"], rng),
    }
}

/// The stance as a verb: "**approve** proposal 3".
pub fn verb(stance: Stance, rng: &mut impl Rng) -> &'static str {
    match stance {
        Stance::Yes => pick(
            &[
                "approve",
                "support",
                "back",
                "endorse",
                "accept",
                "vote for",
                "say yes to",
                "vote in favour of",
                "vote in favor of",
                "agree to",
                "vote to approve",
            ],
            rng,
        ),
        Stance::No => pick(
            &[
                "reject",
                "oppose",
                "vote against",
                "say no to",
                "turn down",
                "vote down",
                "decline",
                "refuse",
                "disapprove",
                "vote to reject",
                "block",
            ],
            rng,
        ),
        Stance::Abstain => pick(
            &[
                "abstain on",
                "abstain from",
                "abstain from voting on",
                "stay neutral on",
                "sit out",
                "remain neutral on",
                "abstain in the vote on",
            ],
            rng,
        ),
    }
}

/// A proposal's number and how it is named.
pub fn proposal(rng: &mut impl Rng) -> (u32, String) {
    let number = match rng.random_range(0..10) {
        0..3 => rng.random_range(1..=20),
        3..7 => rng.random_range(1..=199),
        7..9 => rng.random_range(100..=999),
        _ => rng.random_range(1000..=9999),
    };
    let text = if number < 1000 && rng.random_bool(0.15) {
        amounts::in_words(u64::from(number), rng.random_bool(0.6), rng.random_bool(0.5))
    } else {
        number.to_string()
    };
    let before = pick(
        &[
            "proposal ",
            "proposal ",
            "proposal ",
            "proposal number ",
            "proposal #",
            "prop ",
            "number ",
            "#",
            "the proposal ",
            "governance proposal ",
            "referendum ",
            "motion ",
            "item ",
            "",
        ],
        rng,
    );
    (number, format!("{before}{text}"))
}

fn pick(words: &[&'static str], rng: &mut impl Rng) -> &'static str {
    words.choose(rng).copied().unwrap_or_default()
}
