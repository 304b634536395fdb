//! The price of inference: a second resource with a target, a limit for each block, and a base fee that follows demand.
//!
//! The base fee is that of EIP-4844: `min_base_fee * e^(excess / update_fraction)`, where the excess is what blocks have used above the
//! target. As in EIP-7918 it has a reserve that follows the block's own base fee, below which it does not fall, and while the reserve holds
//! the excess does not shrink: so the price does not have to climb out of a hole when demand comes back. `docs/market.md` is normative.

use alloy_primitives::U256;
use metis_vm::MeteredBlock;
use serde::{Deserialize, Serialize};

/// The market's constants: chain configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Market {
    /// Gas of inference for each block that leaves the base fee as it is.
    pub target_gas: u64,
    /// The most that a block may use.
    pub limit_gas: u64,
    /// Least base fee, in wei per gas.
    pub min_base_fee: u64,
    /// The reserve as a part of the block's base fee, Q16: 65,536 is all of it.
    pub reserve_q16: u32,
    /// Excess that multiplies the base fee by e.
    pub update_fraction: u64,
}

impl Default for Market {
    /// A full block raises the base fee by an eighth: `update_fraction = (limit - target) / ln(9/8)`.
    fn default() -> Self {
        Self {
            target_gas: 30_000_000,
            limit_gas: 60_000_000,
            min_base_fee: 1,
            reserve_q16: 1 << 16,
            update_fraction: 254_705_610,
        }
    }
}

/// What a block's header says of inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarketHeader {
    /// What blocks before this one have used above the target, in gas.
    pub excess_gas: u64,
    /// What this block has used, in gas.
    pub used_gas: u64,
}

/// Multiples of the update fraction beyond which an excess does not grow: the base fee is then the largest of 64 bits.
const MOST_FRACTIONS: u64 = 45;

impl Market {
    /// What is wrong with the constants: the field, its value and the rule.
    pub(crate) fn check(&self) -> Result<(), (&'static str, u64, &'static str)> {
        if self.target_gas == 0 {
            return Err(("market.target_gas", 0, "it must be at least 1"));
        }
        if self.limit_gas <= self.target_gas {
            return Err(("market.limit_gas", self.limit_gas, "it must be more than market.target_gas"));
        }
        if self.min_base_fee == 0 {
            return Err(("market.min_base_fee", 0, "it must be at least 1"));
        }
        if self.update_fraction == 0 || self.update_fraction > u64::MAX / MOST_FRACTIONS {
            return Err(("market.update_fraction", self.update_fraction, "it must be between 1 and 2^58"));
        }
        Ok(())
    }

    /// Wei per gas in a block with this excess, whose own base fee is `block_base_fee`.
    pub fn base_fee(&self, excess_gas: u64, block_base_fee: u64) -> u64 {
        self.demand_fee(excess_gas).max(self.reserve(block_base_fee))
    }

    /// The excess of the block after one with this header and base fee.
    pub fn next_excess(&self, parent: MarketHeader, parent_base_fee: u64) -> u64 {
        let MarketHeader { excess_gas, used_gas } = parent;
        let most = self.update_fraction.saturating_mul(MOST_FRACTIONS);
        let next = if self.reserve(parent_base_fee) > self.demand_fee(excess_gas) {
            let above = u128::from(self.limit_gas - self.target_gas);
            let part = u128::from(used_gas) * above / u128::from(self.limit_gas);
            excess_gas.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
        } else {
            excess_gas.saturating_add(used_gas).saturating_sub(self.target_gas)
        };
        next.min(most)
    }

    /// The rules of a block with this excess.
    pub fn block(&self, excess_gas: u64, block_base_fee: u64) -> MeteredBlock {
        MeteredBlock { base_fee: self.base_fee(excess_gas, block_base_fee), gas_limit: self.limit_gas }
    }

    /// What demand alone asks for: EIP-4844's `fake_exponential`, Taylor's series in integers.
    fn demand_fee(&self, excess_gas: u64) -> u64 {
        let (numerator, denominator) = (U256::from(excess_gas), U256::from(self.update_fraction));
        let mut term = U256::from(self.min_base_fee) * denominator;
        let (mut sum, mut i) = (U256::ZERO, 1u64);
        // Terms shrink once there are more of them than fractions in the excess, of which there are at most 45.
        while !term.is_zero() {
            sum += term;
            term = term * numerator / (denominator * U256::from(i));
            i += 1;
        }
        (sum / denominator).saturating_to()
    }

    fn reserve(&self, block_base_fee: u64) -> u64 {
        let reserve = u128::from(block_base_fee) * u128::from(self.reserve_q16);
        u64::try_from(reserve.div_ceil(1 << 16)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_base_fee_is_eip_4844s_exponential() {
        // EIP-4844's own examples: fake_exponential(factor, numerator, denominator).
        let examples: [(u64, u64, u64, u64); 8] = [
            (1, 0, 1, 1),
            (38_493, 0, 1_000, 38_493),
            (1, 2, 1, 6),
            (1, 4, 2, 6),
            (1, 3, 1, 16),
            (1, 6, 2, 18),
            (10, 8, 2, 542),
            (2, 5, 2, 23),
        ];
        for (min_base_fee, excess, update_fraction, expected) in examples {
            let market = Market { min_base_fee, update_fraction, ..Market::default() };
            assert_eq!(market.demand_fee(excess), expected, "{min_base_fee} {excess} {update_fraction}");
        }
    }

    #[test]
    fn a_full_block_raises_the_base_fee_by_an_eighth_and_an_empty_one_undoes_it() {
        let market = Market { min_base_fee: 1_000_000_000, ..Market::default() };
        let full = MarketHeader { excess_gas: 0, used_gas: market.limit_gas };
        let excess = market.next_excess(full, 0);
        assert_eq!(market.base_fee(excess, 0), 1_125_000_000);
        let empty = MarketHeader { excess_gas: excess, used_gas: 0 };
        assert_eq!(market.next_excess(empty, 0), 0);
    }

    #[test]
    fn below_the_reserve_the_excess_does_not_shrink() {
        let market = Market::default();
        let excess_gas = 10 * market.limit_gas;
        assert!(market.base_fee(excess_gas, 0) < 1_000);
        assert_eq!(market.base_fee(excess_gas, 1_000), 1_000);
        let next = |used_gas| market.next_excess(MarketHeader { excess_gas, used_gas }, 1_000);
        assert_eq!(next(0), excess_gas);
        assert_eq!(next(market.limit_gas), excess_gas + market.limit_gas - market.target_gas);
    }

    #[test]
    fn constants_that_make_no_market_are_named() {
        let broken = [
            Market { target_gas: 0, ..Market::default() },
            Market { limit_gas: 30_000_000, ..Market::default() },
            Market { min_base_fee: 0, ..Market::default() },
            Market { update_fraction: 0, ..Market::default() },
            Market { update_fraction: u64::MAX, ..Market::default() },
        ];
        let fields: Vec<_> = broken.iter().map(|market| market.check().unwrap_err().0).collect();
        let name = |field: &str| format!("market.{field}");
        let expected = ["target_gas", "limit_gas", "min_base_fee", "update_fraction", "update_fraction"];
        assert_eq!(fields, expected.map(name));
        assert_eq!(Market::default().check(), Ok(()));
    }

    proptest! {
        #[test]
        fn more_demand_is_never_cheaper_and_nothing_overflows(
            target in 1u64..1 << 40, above in 1u64..1 << 40, min_base_fee in 1u64.., reserve_q16: u32,
            update_fraction in 1u64..u64::MAX / MOST_FRACTIONS, excess: u64, used: u64, fee: u64,
        ) {
            let market = Market { target_gas: target, limit_gas: target + above, min_base_fee, reserve_q16, update_fraction };
            prop_assert_eq!(market.check(), Ok(()));
            let excess = excess.min(update_fraction * MOST_FRACTIONS);
            let next = |used_gas| market.next_excess(MarketHeader { excess_gas: excess, used_gas }, fee);
            prop_assert!(next(used) <= update_fraction * MOST_FRACTIONS);
            prop_assert!(next(used / 2) <= next(used));
            prop_assert!(market.base_fee(next(used / 2), fee) <= market.base_fee(next(used), fee));
            prop_assert!(market.base_fee(excess, fee) >= min_base_fee);
        }
    }
}
