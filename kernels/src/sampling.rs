//! Choosing a token: greedy, or seeded sampling in integers.
//!
//! The random number of a position is a counter-based function of `(seed, position)`, so all positions of a generation can be
//! checked in parallel.

use std::cell::RefCell;
use std::cmp::Reverse;

use thiserror::Error;

use crate::formats::TokenId;
use crate::mask::TokenMask;
use crate::rounding::round_div;
use crate::tables::{LOG2E_Q32, exp2_neg};

/// How to choose the next token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Temperature, Q16; zero is greedy and ignores the other fields.
    pub temperature_q16: u32,
    /// Nucleus: the smallest set of most likely tokens whose probability reaches this (Q16, `1 ..= 65536`).
    pub top_p_q16: u32,
    /// Only the `top_k` most likely tokens; zero is all.
    pub top_k: u16,
    /// Seed of the counter-based PRF.
    pub seed: u64,
}

/// Parameters that no distribution belongs to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SamplingError {
    /// Temperature outside `1/64 ..= 64`.
    #[error("temperature {0}/65536 is outside 1/64 ..= 64 (0 is greedy)")]
    Temperature(u32),
    /// Top-p outside `1 ..= 65536`.
    #[error("top-p {0}/65536 is outside 1/65536 ..= 1")]
    TopP(u32),
}

impl Sampling {
    /// The most likely token, ties to the lowest id.
    pub const GREEDY: Self = Self { temperature_q16: 0, top_p_q16: 0, top_k: 0, seed: 0 };
    /// Smallest temperature above zero: 1/64.
    pub const MIN_TEMPERATURE_Q16: u32 = 1 << 10;
    /// Largest temperature: 64.
    pub const MAX_TEMPERATURE_Q16: u32 = 1 << 22;
    /// A top-p of one.
    pub const TOP_P_ONE: u32 = 1 << 16;

    /// Checks the ranges.
    pub const fn check(self) -> Result<(), SamplingError> {
        if self.temperature_q16 == 0 {
            return Ok(());
        }
        if self.temperature_q16 < Self::MIN_TEMPERATURE_Q16
            || self.temperature_q16 > Self::MAX_TEMPERATURE_Q16
        {
            return Err(SamplingError::Temperature(self.temperature_q16));
        }
        if self.top_p_q16 == 0 || self.top_p_q16 > Self::TOP_P_ONE {
            return Err(SamplingError::TopP(self.top_p_q16));
        }
        Ok(())
    }

    /// Chooses from one row of logits (Q16) the token at `position` of the sequence.
    ///
    /// `logits` is not empty and the parameters have been [checked](Self::check).
    pub fn choose(self, logits: &[i32], position: u64) -> TokenId {
        if self.temperature_q16 == 0 {
            argmax(logits)
        } else {
            self.draw(logits.iter().zip(0..).map(|(&logit, id)| (TokenId(id), logit)), position)
        }
    }

    /// The same among the tokens that a mask allows, as if there were no others; `None` if it allows none.
    ///
    /// The parameters have been [checked](Self::check).
    pub fn choose_among(self, logits: &[i32], mask: &TokenMask, position: u64) -> Option<TokenId> {
        let allowed = mask.tokens().filter_map(|token| Some((token, *logits.get(token.index())?)));
        let best = allowed.clone().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        Some(if self.temperature_q16 == 0 { best.0 } else { self.draw(allowed, position) })
    }

    /// `log2(e) / temperature`, Q32, for a temperature above zero: what turns differences of logits into log2 units.
    pub const fn inverse_temperature_q32(self) -> u64 {
        round_div((LOG2E_Q32 << 16) as i64, self.temperature_q16 as i64) as u64
    }

    fn draw(self, logits: impl Iterator<Item = (TokenId, i32)> + Clone, position: u64) -> TokenId {
        let max = logits.clone().map(|(_, logit)| logit).fold(i32::MIN, i32::max);
        let inverse = u128::from(self.inverse_temperature_q32());
        CANDIDATES.with_borrow_mut(|candidates| {
            candidates.clear();
            candidates.extend(logits.filter_map(|(TokenId(id), logit)| {
                let delta = (i64::from(max) - i64::from(logit)) as u128;
                let weight = exp2_neg(((delta * inverse + (1 << 31)) >> 32) as u64);
                (weight > 0).then_some(Candidate { weight, id })
            }));
            self.draw_among(candidates, position)
        })
    }

    fn draw_among(self, mut candidates: &mut [Candidate], position: u64) -> TokenId {
        let top_k = usize::from(self.top_k);
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by_key(top_k - 1, Candidate::order);
            candidates = &mut candidates[..top_k];
        }
        let nucleus = (u128::from(sum(candidates)) * u128::from(self.top_p_q16)).div_ceil(1 << 16);
        let last = reaches(candidates, nucleus as u64 - 1);
        let kept = &mut candidates[..=last];
        let r = ((u128::from(random(self.seed, position)) * u128::from(sum(kept))) >> 64) as u64;
        let chosen = reaches(kept, r);
        TokenId(kept[chosen].id)
    }
}

thread_local! {
    /// Kept between calls, so that a token allocates nothing.
    static CANDIDATES: RefCell<Vec<Candidate>> = const { RefCell::new(Vec::new()) };
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    weight: u32,
    id: u32,
}

impl Candidate {
    /// Descending weights, ascending ids.
    const fn order(&self) -> (Reverse<u32>, u32) {
        (Reverse(self.weight), self.id)
    }
}

fn sum(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|candidate| u64::from(candidate.weight)).sum()
}

/// The first place, in their order, up to which candidates weigh more than `target`, which is less than all of them weigh. Afterwards, exactly
/// those that come before it in the order lie before it. Halves what is left instead of sorting all of it.
fn reaches(candidates: &mut [Candidate], mut target: u64) -> usize {
    let (mut first, mut left) = (0, candidates);
    while left.len() > 1 {
        let middle = left.len() / 2;
        left.select_nth_unstable_by_key(middle, Candidate::order);
        let (before, after) = left.split_at_mut(middle);
        let weight = sum(before);
        left = if target < weight {
            before
        } else {
            target -= weight;
            first += middle;
            after
        };
    }
    first
}

/// The index of the largest logit; the lowest of equals.
pub fn argmax(logits: &[i32]) -> TokenId {
    let mut best = 0;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = i;
        }
    }
    TokenId(best as u32)
}

/// 64 random bits of `(seed, position)`: Philox4x32-10 (Salmon et al., SC 2011) with the key `seed`, the counter `position`,
/// low words first; the first two output words, low word first.
pub const fn random(seed: u64, position: u64) -> u64 {
    let mut counter = [position as u32, (position >> 32) as u32, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut round = 0;
    while round < 10 {
        let a = 0xd251_1f53_u64 * counter[0] as u64;
        let b = 0xcd9e_8d57_u64 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        round += 1;
    }
    counter[0] as u64 | (counter[1] as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sampling as `docs/numerics.md` words it: sort, cut, and walk.
    fn defined(s: Sampling, logits: &[i32], position: u64) -> TokenId {
        let max = *logits.iter().max().unwrap();
        let inverse = round_div((LOG2E_Q32 << 16) as i64, i64::from(s.temperature_q16)) as u128;
        let weight = |logit: i32| {
            let delta = (i64::from(max) - i64::from(logit)) as u128;
            exp2_neg(((delta * inverse + (1 << 31)) >> 32) as u64)
        };
        let mut sorted: Vec<(u32, u32)> =
            logits.iter().zip(0..).map(|(&logit, id)| (weight(logit), id)).filter(|c| c.0 > 0).collect();
        sorted.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        if s.top_k > 0 {
            sorted.truncate(s.top_k.into());
        }
        let total: u64 = sorted.iter().map(|c| u64::from(c.0)).sum();
        let (mut kept, mut count) = (0u64, 0);
        while u128::from(kept) << 16 < u128::from(total) * u128::from(s.top_p_q16) {
            kept += u64::from(sorted[count].0);
            count += 1;
        }
        let mut r = ((u128::from(random(s.seed, position)) * u128::from(kept)) >> 64) as u64;
        for (weight, id) in sorted {
            match r.checked_sub(weight.into()) {
                Some(rest) => r = rest,
                None => return TokenId(id),
            }
        }
        unreachable!("r is below the sum of the kept weights")
    }

    const PLAIN: Sampling = Sampling { temperature_q16: 1 << 16, top_p_q16: 1 << 16, top_k: 0, seed: 7 };

    #[test]
    fn philox_matches_the_published_vector() {
        // Random123 kat_vectors, philox4x32-10, counter 0, key 0: 6627e8d5 e169c58d ...
        assert_eq!(random(0, 0), 0xe169_c58d_6627_e8d5);
    }

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(argmax(&[3, 7, 7, 1]), TokenId(1));
        assert_eq!(Sampling::GREEDY.choose(&[-5, -5], 3), TokenId(0));
    }

    #[test]
    fn ranges_are_checked() {
        assert_eq!(Sampling::GREEDY.check(), Ok(()));
        assert_eq!(Sampling { temperature_q16: 1, ..PLAIN }.check(), Err(SamplingError::Temperature(1)));
        assert_eq!(Sampling { top_p_q16: 0, ..PLAIN }.check(), Err(SamplingError::TopP(0)));
        assert_eq!(Sampling { top_p_q16: 65_537, ..PLAIN }.check(), Err(SamplingError::TopP(65_537)));
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        // Probabilities 1/2, 1/4, 1/4 from logits ln 2, 0, 0.
        let logits = [45_426, 0, 0];
        let mut counts = [0u32; 3];
        for position in 0..8_000 {
            counts[PLAIN.choose(&logits, position).index()] += 1;
        }
        assert!((3_800..4_200).contains(&counts[0]), "{counts:?}");
        assert!((1_850..2_150).contains(&counts[1]), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_draw_is_what_the_definition_draws(
            logits in prop_oneof![
                proptest::collection::vec(-1_000_000i32..1_000_000, 1..300),
                proptest::collection::vec(0i32..4, 1..300),
                proptest::collection::vec(any::<i32>(), 1..40),
            ],
            temperature_q16 in 1024u32..=4_194_304,
            top_p_q16 in prop_oneof![1u32..=65_536, Just(65_536)],
            top_k in 0u16..320,
            seed: u64,
            position in 0u64..1_000,
        ) {
            let sampling = Sampling { temperature_q16, top_p_q16, top_k, seed };
            prop_assert_eq!(sampling.choose(&logits, position), defined(sampling, &logits, position));
        }

        #[test]
        fn top_k_one_is_greedy(logits in prop::collection::vec(-100_000i32..100_000, 1..50), seed: u64, position: u64) {
            let sampling = Sampling { top_k: 1, seed, ..PLAIN };
            prop_assert_eq!(sampling.choose(&logits, position), argmax(&logits));
        }

        #[test]
        fn any_checked_parameters_choose_a_token(
            logits in prop::collection::vec(-i32::MAX..=i32::MAX, 1..50),
            temperature_q16 in 1u32 << 10..=1 << 22, top_p_q16 in 1u32..=1 << 16, top_k: u16, seed: u64, position: u64,
        ) {
            let sampling = Sampling { temperature_q16, top_p_q16, top_k, seed };
            prop_assert!(sampling.check().is_ok());
            prop_assert!(sampling.choose(&logits, position).index() < logits.len());
        }

        #[test]
        fn forbidden_tokens_are_as_if_they_were_not_there(
            row in prop::collection::vec((-400_000i32..400_000, any::<bool>()), 1..150),
            temperature_q16 in prop_oneof![Just(0), 1u32 << 10..=1 << 22],
            top_p_q16 in 1u32..=1 << 16, top_k in 0u16..20, seed: u64, position: u64,
        ) {
            let sampling = Sampling { temperature_q16, top_p_q16, top_k, seed };
            let logits: Vec<i32> = row.iter().map(|entry| entry.0).collect();
            let ids: Vec<u32> = (0..).zip(&row).filter(|(_, entry)| entry.1).map(|(id, _)| id).collect();
            let mut mask = TokenMask::none(logits.len());
            ids.iter().for_each(|&id| mask.allow(TokenId(id)));
            // The allowed logits as a row of their own: order, hence ties, are those of the ids.
            let left: Vec<i32> = ids.iter().map(|&id| logits[id as usize]).collect();
            let expected = (!left.is_empty()).then(|| TokenId(ids[sampling.choose(&left, position).index()]));
            prop_assert_eq!(sampling.choose_among(&logits, &mask, position), expected);
        }

        #[test]
        fn a_mask_of_everything_changes_nothing(
            logits in prop::collection::vec(-i32::MAX..=i32::MAX, 1..150), temperature in 10u32..22, position: u64,
        ) {
            let mut mask = TokenMask::none(logits.len());
            (0..logits.len() as u32).for_each(|id| mask.allow(TokenId(id)));
            for sampling in [Sampling { temperature_q16: 1 << temperature, ..PLAIN }, Sampling::GREEDY] {
                let chosen = sampling.choose(&logits, position);
                prop_assert_eq!(sampling.choose_among(&logits, &mask, position), Some(chosen));
            }
        }
    }
}
