//! The corpus: an endless, seeded stream of instructions with the command that each one means.
//!
//! A sentence is `opening? (frame imperative | whole) closing?`; the parts are [patterns](pattern) with
//! slots, which are then filled with amounts, tokens, names and proposals. Core clauses and names belong to
//! one [`Split`] only.

pub mod amounts;
pub mod clauses;
pub mod frames;
pub mod names;
pub mod pattern;
pub mod stances;

mod spelling;

use crate::grammar::{Amount, Command, Stance, Token};
use clauses::Kind;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A part of the corpus. No name and no skeleton of a core clause belongs to two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model is trained on.
    Train,
    /// What training is watched with.
    Validation,
    /// What the model is judged by.
    HeldOut,
}

/// One instruction and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What the user writes.
    pub instruction: String,
    /// What the model must answer.
    pub command: Command,
    /// The instruction with its slots open: the sentence's template.
    pub skeleton: String,
}

/// An endless stream of examples of one split; equal seeds give equal streams.
#[derive(Clone, Debug)]
pub struct Instructions {
    split: Split,
    plain: bool,
    rng: ChaCha8Rng,
}

impl Instructions {
    /// The stream of `split` under `seed`.
    #[must_use]
    pub fn new(split: Split, seed: u64) -> Self {
        Self { split, plain: false, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The same stream without openings and closings: short sentences, with which training begins.
    #[must_use]
    pub fn plain(split: Split, seed: u64) -> Self {
        Self { plain: true, ..Self::new(split, seed) }
    }
}

impl Iterator for Instructions {
    type Item = Example;

    fn next(&mut self) -> Option<Example> {
        Some(example(self.split, self.plain, &mut self.rng))
    }
}

fn example(split: Split, plain: bool, rng: &mut ChaCha8Rng) -> Example {
    let kind = match rng.random_range(0..100) {
        0..30 => Some(Kind::Transfer),
        30..49 => Some(Kind::Swap),
        49..60 => Some(Kind::Stake),
        60..71 => Some(Kind::Unstake),
        71..82 => Some(Kind::Vote),
        _ => None,
    };
    let (core, question) = match kind {
        Some(kind) => instruction_core(split, kind, rng),
        None => idle_core(split, rng),
    };
    let mut skeleton =
        if plain { pattern::collapse_spaces(&core) } else { surround(split, &core, question, rng) };
    if kind.is_some() && rng.random_bool(0.05) {
        skeleton = spelling::with_typo(&skeleton, rng);
    }
    let slots = Slots::random(split, rng);
    let instruction = spelling::with_case(&slots.fill(&skeleton, rng), rng);
    let command = kind.map_or(Command::Nothing, |kind| slots.command(kind));
    Example { instruction, command, skeleton }
}

/// A sentence that instructs, and whether it is put as a question.
fn instruction_core(split: Split, kind: Kind, rng: &mut ChaCha8Rng) -> (String, bool) {
    if rng.random_bool(0.3) {
        let whole = pick(kind.wholes(split), rng);
        return (whole, false);
    }
    let frame = frame(frames::instructing, split, rng);
    let imperative = pick(kind.imperatives(split), rng);
    let question = ["can ", "could ", "would ", "will "].iter().any(|start| frame.starts_with(start));
    (format!("{frame} {imperative}"), question)
}

/// A sentence that is no instruction, and whether it is a question.
fn idle_core(split: Split, rng: &mut ChaCha8Rng) -> (String, bool) {
    const QUESTIONS: [&str; 12] =
        ["how", "what", "when", "why", "who", "is ", "did ", "do you", "should", "has ", "where", "does "];
    let core = if rng.random_bool(0.55) {
        pick(frames::statements(split), rng)
    } else {
        let kind = Kind::ALL.choose(rng).copied().unwrap_or(Kind::Transfer);
        let frame = frame(frames::defusing, split, rng);
        format!("{frame} {}", pick(kind.imperatives(split), rng))
    };
    let question = QUESTIONS.iter().any(|start| core.starts_with(start));
    (core, question)
}

/// Frames, openings and closings of the held-out split are half its own and half those of training.
fn frame(list: fn(Split) -> &'static [&'static str], split: Split, rng: &mut ChaCha8Rng) -> String {
    let own = split != Split::HeldOut || rng.random_bool(0.5);
    pick(list(if own { split } else { Split::Train }), rng)
}

fn surround(split: Split, core: &str, question: bool, rng: &mut ChaCha8Rng) -> String {
    let mut text = String::new();
    // A name at the very beginning has no space before it, which is another token: rarely so.
    if rng.random_bool(if core.starts_with("{n}") { 0.8 } else { 0.35 }) {
        text.push_str(
            &frame(frames::openings, split, rng).replace("{,}", [",", "", "!", "."][rng.random_range(0..4)]),
        );
        text.push(' ');
    }
    text.push_str(core);
    if rng.random_bool(0.33) {
        let closing = frame(frames::closings, split, rng);
        if !closing.starts_with([',', '.', '!']) {
            text.push(' ');
        }
        text.push_str(&closing);
    }
    text.push_str(match rng.random_range(0..10) {
        0..4 => "",
        _ if question => "?",
        9 => "!",
        _ => ".",
    });
    pattern::collapse_spaces(&text)
}

fn pick(patterns: &[&str], rng: &mut ChaCha8Rng) -> String {
    patterns.choose(rng).map_or_else(String::new, |pattern| pattern::choose(pattern, rng))
}

/// What the slots of one sentence stand for.
struct Slots {
    split: Split,
    amount: (Amount, String),
    token: Token,
    other_token: Token,
    name: String,
    stance: Stance,
    proposal: (u32, String),
}

impl Slots {
    fn random(split: Split, rng: &mut ChaCha8Rng) -> Self {
        let token = *Token::ALL.choose(rng).unwrap_or(&Token::Metis);
        let mut other_token = token;
        while other_token == token {
            other_token = *Token::ALL.choose(rng).unwrap_or(&Token::Metis);
        }
        Self {
            split,
            amount: amounts::random(rng),
            token,
            other_token,
            name: names::random(split, rng),
            stance: *Stance::ALL.choose(rng).unwrap_or(&Stance::Yes),
            proposal: stances::proposal(rng),
        }
    }

    fn command(&self, kind: Kind) -> Command {
        let (amount, token) = (self.amount.0, self.token);
        match kind {
            Kind::Transfer => Command::Transfer { amount, token, to: self.name.clone() },
            Kind::Swap => Command::Swap { amount, from: token, to: self.other_token },
            Kind::Stake => Command::Stake { amount, token },
            Kind::Unstake => Command::Unstake { amount, token },
            Kind::Vote => Command::Vote { stance: self.stance, proposal: self.proposal.0 },
        }
    }

    fn fill(&self, skeleton: &str, rng: &mut ChaCha8Rng) -> String {
        let mut out = String::with_capacity(skeleton.len() + 40);
        let mut rest = skeleton;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            let close = rest[open..].find('}').map_or(rest.len(), |at| open + at + 1);
            match &rest[open..close] {
                "{v}" => out.push_str(&spelling::value(&self.amount.1, self.token, rng)),
                "{u}" => out.push_str(spelling::token(self.other_token, rng)),
                "{n}" => out.push_str(&self.name),
                "{q}" => out.push_str(&self.proposal.1),
                "{s}" => out.push_str(stances::adverb(self.stance, rng)),
                "{sv}" => out.push_str(stances::verb(self.stance, rng)),
                "{m}" => out.push_str(&names::random(self.split, rng)),
                "{w}" => {
                    let (_, text) = amounts::random(rng);
                    let token = *Token::ALL.choose(rng).unwrap_or(&Token::Metis);
                    out.push_str(&spelling::value(&text, token, rng));
                }
                "{y}" => out.push_str(spelling::token(*Token::ALL.choose(rng).unwrap_or(&Token::Metis), rng)),
                unknown => out.push_str(unknown),
            }
            rest = &rest[close..];
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_core_clause_belongs_to_two_splits() {
        let mut shared = Vec::new();
        for kind in Kind::ALL {
            let skeletons_of = |split: Split| -> HashSet<String> {
                let clauses = kind.imperatives(split).iter().chain(kind.wholes(split));
                clauses.flat_map(|clause| pattern::skeletons(clause)).collect()
            };
            shared.extend(shared_with_training(&skeletons_of));
        }
        for list in [frames::statements, frames::defusing] {
            shared.extend(shared_with_training(&|split| {
                list(split).iter().flat_map(|line| pattern::skeletons(line)).collect()
            }));
        }
        assert!(shared.is_empty(), "{shared:#?}");
    }

    fn shared_with_training(skeletons_of: &dyn Fn(Split) -> HashSet<String>) -> Vec<(Split, String)> {
        let train = skeletons_of(Split::Train);
        let others = [Split::Validation, Split::HeldOut];
        let all =
            others.into_iter().flat_map(|split| skeletons_of(split).into_iter().map(move |s| (split, s)));
        all.filter(|(_, skeleton)| train.contains(skeleton)).collect()
    }

    #[test]
    fn no_held_out_sentence_template_occurs_in_training() {
        let held_out: HashSet<String> =
            Instructions::new(Split::HeldOut, 1).take(5_000).map(|example| example.skeleton).collect();
        let training = Instructions::new(Split::Train, 2).take(200_000).map(|example| example.skeleton);
        let shared: HashSet<String> = training.filter(|skeleton| held_out.contains(skeleton)).collect();
        assert!(shared.is_empty(), "{shared:#?}");
    }

    /// The held-out set asks for new sentences, not for words that the model has never seen.
    #[test]
    fn every_word_of_a_held_out_pattern_occurs_in_a_training_pattern() {
        let words_of = |split: Split| -> HashSet<&str> {
            let clauses = Kind::ALL.iter().flat_map(|kind| [kind.imperatives(split), kind.wholes(split)]);
            let lists = [frames::instructing, frames::defusing, frames::statements];
            let around = lists.into_iter().chain([frames::openings, frames::closings]);
            let patterns = clauses.chain(around.map(|list| list(split))).flatten();
            patterns.flat_map(|pattern| words(pattern)).collect()
        };
        let known = words_of(Split::Train);
        let unknown: Vec<&str> =
            words_of(Split::HeldOut).into_iter().filter(|word| !known.contains(word)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// The words of a pattern, without its slots.
    fn words(pattern: &str) -> impl Iterator<Item = &str> {
        let literal = pattern.split('{').map(|part| part.split_once('}').map_or(part, |(_, after)| after));
        literal.flat_map(|text| text.split(|c: char| !c.is_ascii_alphabetic() && c != '\''))
    }

    #[test]
    fn equal_seeds_give_equal_streams_and_every_command_is_canonical() {
        for split in [Split::Train, Split::Validation, Split::HeldOut] {
            let again = Instructions::new(split, 7).take(3_000);
            for (a, b) in Instructions::new(split, 7).take(3_000).zip(again) {
                assert_eq!(a, b);
                assert_eq!(a.command.to_string().parse::<Command>().unwrap(), a.command);
                assert!(!a.instruction.contains(['{', '}', '[', ']', '|']), "{}", a.instruction);
            }
        }
    }
}
