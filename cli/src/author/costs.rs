//! What a transaction will cost, before it is sent.

use alloy_primitives::U256;
use serde_json::{Value, json};

use super::money::coins;

/// What gas costs, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// At most.
    pub max_fee: u128,
    /// Of that, for the block's maker.
    pub tip: u128,
}

/// What a command will pay.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    what: &'static str,
    wei: U256,
    /// Gas that it is for, if it is for gas.
    gas: Option<u64>,
}

impl Costs {
    /// Money that goes to a contract.
    #[must_use]
    pub fn with(mut self, what: &'static str, wei: U256) -> Self {
        self.parts.push(Part { what, wei, gas: None });
        self
    }

    /// Gas of a transaction, at most.
    #[must_use]
    pub fn with_gas(mut self, what: &'static str, gas: u64, fees: Fees) -> Self {
        let wei = U256::from(gas) * U256::from(fees.max_fee);
        self.parts.push(Part { what, wei, gas: Some(gas) });
        self
    }

    /// All of it.
    pub fn total(&self) -> U256 {
        self.parts.iter().fold(U256::ZERO, |sum, part| sum.saturating_add(part.wei))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let part = |part: &Part| json!({ "what": part.what, "wei": part.wei, "gas": part.gas });
        json!({ "parts": self.parts.iter().map(part).collect::<Vec<_>>(), "total_wei": self.total() })
    }

    /// For people.
    pub fn text(&self) -> String {
        let line = |part: &Part| {
            let gas = part.gas.map_or_else(String::new, |gas| format!("  (at most, {gas} gas)"));
            format!("  {:<28} {}{gas}\n", part.what, coins(part.wei))
        };
        let lines: String = self.parts.iter().map(line).collect();
        format!("{lines}  {:<28} {}\n", "all together, at most", coins(self.total()))
    }
}
