//! What each token has earned, exactly, and what the registry should hold.

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use metisvm::contracts::ModelStatus;

use super::Stage;
use crate::economy::{AUTHOR, Economy};

/// Bits after the point of what a token has earned.
pub(super) const FRACTION: usize = 64;

/// A token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) id: U256,
    pub(super) class: usize,
    pub(super) owner: Address,
    pub(super) value: U256,
    pub(super) share: u64,
    pub(super) expire_at: u64,
    /// At most and at least, with [`FRACTION`] bits after the point.
    pub(super) earned: BTreeMap<Address, [U256; 2]>,
    pub(super) claimed: BTreeMap<Address, U256>,
    pub(super) claims: u64,
}

impl Token {
    pub(super) fn is_expired(&self, time: u64) -> bool {
        self.expire_at != 0 && time > self.expire_at
    }
}

/// A class of tokens.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) id: U256,
    pub(super) controller: Address,
    pub(super) minted: u64,
    pub(super) sealed: bool,
}

/// A model of the registry.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) status: ModelStatus,
    pub(super) active_until: u64,
    pub(super) matures_at: u64,
    pub(super) bond: U256,
    pub(super) owner: Address,
    pub(super) pending_owner: Address,
    pub(super) class: Option<usize>,
}

/// The books.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) tokens: Vec<Token>,
    pub(super) classes: Vec<Class>,
    /// The active one, then the other.
    pub(super) models: [Model; 2],
    pub(super) operators: Vec<(Address, usize, Address)>,
    pub(super) settled: BTreeMap<Address, U256>,
    pub(super) settlements: u64,
    pub(super) claims: u64,
    pub(super) rent: U256,
}

impl Ledger {
    pub(super) fn new(stage: &Stage) -> Self {
        let founder = Token {
            id: (stage.class << 64) | U256::from(1),
            class: 0,
            owner: AUTHOR,
            value: U256::ZERO,
            share: 6_000,
            expire_at: 0,
            earned: BTreeMap::new(),
            claimed: BTreeMap::new(),
            claims: 0,
        };
        let active = Model {
            status: ModelStatus::Active,
            // Activated for ten days in the stage's last block.
            active_until: stage.block.timestamp + 10 * 86_400,
            matures_at: 0,
            bond: Economy::bond(),
            owner: AUTHOR,
            pending_owner: Address::ZERO,
            class: Some(0),
        };
        let none = Model {
            status: ModelStatus::None,
            active_until: 0,
            bond: U256::ZERO,
            owner: Address::ZERO,
            class: None,
            ..active
        };
        Self {
            tokens: vec![founder],
            classes: vec![Class { id: stage.class, controller: AUTHOR, minted: 1, sealed: false }],
            models: [active, none],
            operators: Vec::new(),
            settled: BTreeMap::new(),
            settlements: 0,
            claims: 0,
            rent: Economy::rent(10),
        }
    }

    /// The shares of a class that count at a time.
    pub(super) fn total_share(&self, class: usize, time: u64) -> u64 {
        let counts = |token: &&Token| token.class == class && !token.is_expired(time);
        self.tokens.iter().filter(counts).map(|token| token.share).sum()
    }

    /// Books revenue.
    pub(super) fn settle(&mut self, class: usize, asset: Address, amount: U256, time: u64) {
        let total = U256::from(self.total_share(class, time));
        for token in self.tokens.iter_mut().filter(|token| token.class == class && !token.is_expired(time)) {
            let part = (amount * U256::from(token.share)) << FRACTION;
            let [most, least] = token.earned.entry(asset).or_default();
            *most += part.div_ceil(total);
            *least += part / total;
        }
        *self.settled.entry(asset).or_default() += amount;
        self.settlements += 1;
    }

    pub(super) fn is_operator(&self, owner: Address, class: usize, caller: Address) -> bool {
        owner == caller || self.operators.contains(&(owner, class, caller))
    }

    /// Different times at which shares of a class are going to expire.
    pub(super) fn expiries(&self, class: usize, time: u64) -> usize {
        let mut times: Vec<u64> = self
            .tokens
            .iter()
            .filter(|token| token.class == class && token.share > 0 && token.expire_at != 0)
            .filter(|token| !token.is_expired(time))
            .map(|token| token.expire_at)
            .collect();
        times.sort_unstable();
        times.dedup();
        times.len()
    }
}
