//! What calls cost. `docs/gas.md` is normative and derives the default constants.

use metis_kernels::formats::GROUP_INPUTS;
use serde::{Deserialize, Serialize};

use crate::config::Caps;
use crate::costs::ModelCosts;

/// An amount of EVM gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gas(pub u64);

impl Gas {
    /// The sum; the largest amount instead of an overflow, which nobody can pay.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; nothing instead of less.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    fn times(self, count: u128) -> Self {
        Self(u64::try_from(u128::from(self.0).saturating_mul(count)).unwrap_or(u64::MAX))
    }
}

/// The constants of the schedule: chain configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GasSchedule {
    /// Every call.
    pub base: Gas,
    /// Each started 32-byte word of calldata, selector included.
    pub per_word: Gas,
    /// Each byte of text that is tokenised.
    pub per_byte: Gas,
    /// Each token that is fed to a model, or that `tokenize` and `detokenize` handle.
    pub per_token: Gas,
    /// Multiply-accumulates that one gas buys; at least 1.
    pub macs_per_gas: u64,
    /// A layer for each fed token on top of its products, as multiply-accumulates: norms, roundings, the cache, and starting the kernels,
    /// which is what small models take their time for.
    pub macs_per_layer: u64,
    /// Choosing a token from a row of logits, or its log-probability, as multiply-accumulates for each logit.
    pub macs_per_logit: u64,
    /// Multiply-accumulates of the linear layers that one of attention counts as: it weighs its scores with exponentials, and reads a
    /// cache that no other token shares.
    pub attention_weight: u64,
    /// Each byte of a pattern or of options.
    pub per_constraint_byte: Gas,
    /// Each transition of a constraint's automaton.
    pub per_transition: Gas,
    /// Finding the tokens that a constraint allows, as multiply-accumulates for each byte that the vocabulary's tokens have.
    pub macs_per_spelled_byte: u64,
    /// The multiplier of a group of weights, as multiply-accumulates on top of those of its 32 weights.
    pub macs_per_multiplier: u64,
    /// Each MiB of a bundle that is compared with its registration: hashing it.
    pub per_mebibyte: Gas,
}

/// Text bytes for each prompt token that `quote` allows for.
pub const QUOTED_BYTES_PER_TOKEN: u32 = 16;

/// Pairs of positions of a pattern that cost as much as a transition.
const POSITION_PAIRS_PER_TRANSITION: u128 = 16;

/// Words of `generateTokens` calldata around its prompt and stop ids: eight in the head, two lengths, and the selector's own.
const GENERATE_TOKENS_WORDS: u64 = 11;

impl Default for GasSchedule {
    fn default() -> Self {
        Self {
            base: Gas(3_000),
            per_word: Gas(6),
            per_byte: Gas(100),
            per_token: Gas(400),
            macs_per_gas: 192,
            macs_per_layer: 65_536,
            macs_per_logit: 384,
            attention_weight: 6,
            per_constraint_byte: Gas(50),
            per_transition: Gas(8),
            macs_per_spelled_byte: 64,
            macs_per_multiplier: 16,
            per_mebibyte: Gas(200_000),
        }
    }
}

impl GasSchedule {
    /// What is paid before calldata is looked at.
    pub fn input(&self, calldata_bytes: usize) -> Gas {
        self.base.plus(self.per_word.times(calldata_bytes.div_ceil(32) as u128))
    }

    /// What is paid before text is tokenised.
    pub fn text(&self, bytes: usize) -> Gas {
        self.per_byte.times(bytes as u128)
    }

    /// What tokens cost that no model sees.
    pub fn tokens(&self, count: usize) -> Gas {
        self.per_token.times(count as u128)
    }

    /// What is paid before a constraint is read.
    pub fn constraint(&self, bytes: usize) -> Gas {
        self.per_constraint_byte.times(bytes as u128)
    }

    /// What comparing a bundle of so many MiB with its registration costs.
    pub fn verification(&self, mebibytes: u32) -> Gas {
        self.per_mebibyte.times(mebibytes.into())
    }

    /// What building an automaton costs.
    pub fn automaton(&self, automaton: AutomatonSize) -> Gas {
        let AutomatonSize { states, classes, positions } = automaton;
        let (transitions, positions) = (states as u128 * classes as u128, positions as u128);
        self.per_transition
            .times(transitions + (positions * positions).div_ceil(POSITION_PAIRS_PER_TRANSITION))
    }

    /// What a model's work costs.
    pub fn work(&self, costs: &ModelCosts, work: Work) -> Gas {
        let macs = self.macs(costs, work);
        let gas = macs.div_ceil(u128::from(self.macs_per_gas.max(1)));
        self.per_token.times(work.tokens).plus(Gas(u64::try_from(gas).unwrap_or(u64::MAX)))
    }

    /// The most that `generateTokens` can cost with this many prompt tokens and new tokens, whatever its stop ids, and the most
    /// that `generate` can cost whose prompt has these tokens and at most [`QUOTED_BYTES_PER_TOKEN`] bytes for each.
    pub fn quote(&self, costs: &ModelCosts, caps: &Caps, prompt_tokens: u32, max_new: u32) -> Gas {
        let words = GENERATE_TOKENS_WORDS + u64::from(caps.max_stop_ids) + u64::from(prompt_tokens);
        let text =
            (u64::from(prompt_tokens) * u64::from(QUOTED_BYTES_PER_TOKEN)).min(caps.max_prompt_bytes.into());
        self.base
            .plus(self.per_word.times(words.into()))
            .plus(self.per_byte.times(text.into()))
            .plus(self.work(costs, Work::generation(prompt_tokens as usize, max_new as usize)))
    }

    /// Weighted multiply-accumulates.
    pub(crate) fn macs(&self, costs: &ModelCosts, work: Work) -> u128 {
        let choice = u128::from(costs.vocabulary) * u128::from(self.macs_per_logit);
        let pair = u128::from(costs.attention_macs) * u128::from(self.attention_weight);
        let mask = u128::from(costs.spelled_bytes) * u128::from(self.macs_per_spelled_byte);
        let layers = u128::from(costs.layers) * u128::from(self.macs_per_layer);
        let token = self.linear(costs, costs.linear_macs).saturating_add(layers);
        [
            work.tokens.saturating_mul(token),
            work.pairs.saturating_mul(pair),
            work.rows.saturating_mul(self.linear(costs, costs.head_macs)),
            work.choices.saturating_mul(choice),
            work.masks.saturating_mul(mask),
        ]
        .into_iter()
        .fold(0, u128::saturating_add)
    }

    /// Multiply-accumulates of matrix products with those that their multipliers count as.
    fn linear(&self, costs: &ModelCosts, macs: u64) -> u128 {
        let multipliers = if costs.has_groups { macs.div_ceil(GROUP_INPUTS as u64) } else { 0 };
        u128::from(macs) + u128::from(multipliers) * u128::from(self.macs_per_multiplier)
    }
}

/// What of a constraint's automaton enters its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutomatonSize {
    /// States.
    pub states: usize,
    /// Classes of bytes.
    pub classes: usize,
    /// Positions of the pattern.
    pub positions: usize,
}

/// What a call makes a model do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens that are fed.
    pub tokens: u128,
    /// Pairs of a fed token and a position that it attends to, its own included.
    pub pairs: u128,
    /// Rows of logits that are computed.
    pub rows: u128,
    /// Tokens that are chosen or whose log-probability is taken.
    pub choices: u128,
    /// Times that the tokens which a constraint allows are looked for.
    pub masks: u128,
}

impl Work {
    /// A prompt and new tokens: the last new token is chosen, not fed.
    pub const fn generation(prompt: usize, new: usize) -> Self {
        if new == 0 {
            return Self { tokens: 0, pairs: 0, rows: 0, choices: 0, masks: 0 };
        }
        let (prompt, new) = (prompt as u128, new as u128);
        let tokens = (prompt + new).saturating_sub(1);
        Self { tokens, pairs: triangle(tokens), rows: new, choices: new, masks: 0 }
    }

    /// A generation under a constraint whose answer has `answer` tokens: masks are looked for before the first and after each.
    pub const fn constrained(prompt: usize, new: usize, answer: usize) -> Self {
        let work = Self::generation(prompt, new);
        Self { masks: answer as u128 + 1, ..work }
    }

    /// A prompt and labels, of which each continues the prompt on its own: the last token of a label is scored, not fed.
    pub fn scoring(prompt: usize, labels: impl IntoIterator<Item = usize>) -> Self {
        let prompt = prompt as u128;
        let start = Self { tokens: prompt, pairs: triangle(prompt), rows: 1, choices: 0, masks: 0 };
        labels.into_iter().fold(start, |sum, label| {
            let (scored, fed) = (label as u128, label.saturating_sub(1) as u128);
            Self {
                tokens: sum.tokens + fed,
                pairs: sum.pairs + fed * prompt + triangle(fed),
                rows: sum.rows + fed,
                choices: sum.choices + scored,
                masks: 0,
            }
        })
    }

    /// A text that an encoder reads: every token attends to every other.
    pub const fn reading(tokens: usize) -> Self {
        let tokens = tokens as u128;
        Self { tokens, pairs: tokens * tokens, rows: 0, choices: 0, masks: 0 }
    }

    /// A prompt, and one row of logits after it.
    pub const fn last_logits(prompt: usize) -> Self {
        let prompt = prompt as u128;
        Self { tokens: prompt, pairs: triangle(prompt), rows: 1, choices: 0, masks: 0 }
    }
}

const fn triangle(n: u128) -> u128 {
    n * (n + 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COSTS: ModelCosts = ModelCosts {
        linear_macs: 1_000_000,
        attention_macs: 2_000,
        head_macs: 500_000,
        layers: 5,
        vocabulary: 1_000,
        spelled_bytes: 5_000,
        has_groups: false,
    };

    #[test]
    fn generation_counts_are_those_of_the_specification() {
        // P = 10, N = 3: T = 12, pairs = 78.
        assert_eq!(Work::generation(10, 3), Work { tokens: 12, pairs: 78, rows: 3, choices: 3, masks: 0 });
        assert_eq!(Work::generation(10, 1), Work { tokens: 10, pairs: 55, rows: 1, choices: 1, masks: 0 });
        assert_eq!(Work::generation(10, 0), Work::default());
    }

    #[test]
    fn scoring_counts_each_label_after_the_prompt() {
        // Prompt 10; labels of 1 and 3 tokens: the second feeds positions 11 and 12, which attend to 11 and 12 positions.
        let work = Work::scoring(10, [1, 3]);
        assert_eq!(work, Work { tokens: 12, pairs: 55 + 11 + 12, rows: 3, choices: 4, masks: 0 });
    }

    #[test]
    fn a_group_counts_as_half_as_many_multiply_accumulates_more() {
        let schedule = GasSchedule::default();
        let grouped = ModelCosts { has_groups: true, ..COSTS };
        let more = ModelCosts { linear_macs: 1_500_000, head_macs: 750_000, ..COSTS };
        for work in [Work::generation(10, 3), Work::scoring(10, [1, 3]), Work::reading(7)] {
            assert_eq!(schedule.work(&grouped, work), schedule.work(&more, work));
        }
        let one = ModelCosts { linear_macs: 33, head_macs: 1, layers: 0, ..grouped };
        assert_eq!(schedule.macs(&one, Work { tokens: 1, rows: 1, ..Work::default() }), 33 + 32 + 1 + 16);
    }

    #[test]
    fn every_fed_token_pays_for_every_layer() {
        let schedule = GasSchedule { macs_per_layer: 1_000, ..GasSchedule::default() };
        let none = ModelCosts { layers: 0, ..COSTS };
        for (work, tokens) in
            [(Work::generation(10, 3), 12), (Work::scoring(10, [1, 3]), 12), (Work::reading(7), 7)]
        {
            assert_eq!(schedule.macs(&COSTS, work) - schedule.macs(&none, work), tokens * 5 * 1_000);
        }
    }

    #[test]
    fn absurd_work_costs_everything_and_does_not_wrap() {
        let huge = ModelCosts {
            linear_macs: u64::MAX,
            attention_macs: u64::MAX,
            head_macs: u64::MAX,
            layers: u32::MAX,
            vocabulary: u32::MAX,
            spelled_bytes: u64::MAX,
            has_groups: true,
        };
        let schedule = GasSchedule {
            macs_per_gas: 0,
            macs_per_logit: u64::MAX,
            macs_per_layer: u64::MAX,
            attention_weight: u64::MAX,
            macs_per_multiplier: u64::MAX,
            ..GasSchedule::default()
        };
        let most = u32::MAX as usize;
        assert_eq!(schedule.work(&huge, Work::constrained(most, most, most)), Gas(u64::MAX));
        let schedule = GasSchedule { per_transition: Gas(u64::MAX), ..schedule };
        let automaton = AutomatonSize { states: most, classes: 256, positions: most };
        assert_eq!(schedule.automaton(automaton), Gas(u64::MAX));
    }

    proptest! {
        #[test]
        fn the_price_never_falls_with_more_tokens(prompt in 1usize..5_000, new in 0usize..5_000) {
            let s = GasSchedule::default();
            let price = |p, n| s.work(&COSTS, Work::generation(p, n));
            prop_assert!(price(prompt, new) <= price(prompt + 1, new));
            prop_assert!(price(prompt, new) <= price(prompt, new + 1));
        }
    }
}
