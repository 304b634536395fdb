//! Ten thousand blocks of demand for inference, by people who pay what it is worth to them and by people who want to hurt.
//!
//! Integers only, from one seed: the same on every machine.

pub mod plot;

use metis_precompiles::{Market, MarketHeader};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Wei in a gwei.
pub const GWEI: u64 = 1_000_000_000;
/// Blocks that are simulated.
pub const BLOCKS: usize = 10_000;

/// Somebody who wants gas for inference, and the most that they pay for each.
#[derive(Clone, Copy, Debug)]
struct Bid {
    gas: u64,
    max_fee: u64,
    attacker: bool,
}

/// What happens in some blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// People only.
    Ordinary,
    /// Somebody with much money fills every block at any price.
    Flood,
    /// Somebody fills every second block, so that the price forgets.
    Sawtooth,
    /// The block's own base fee is a hundred times as high: the reserve holds.
    Congested,
    /// Nobody wants anything.
    Silence,
    /// Everybody wants ten times as much.
    Rush,
    /// The builder fills its blocks with calls of its own, whose tips it pays itself, as long as the base fee is not too high for it.
    Stuffing,
}

/// The phases by their first block.
pub const PHASES: [(usize, Phase); 12] = [
    (0, Phase::Ordinary),
    (1_000, Phase::Flood),
    (2_000, Phase::Ordinary),
    (3_000, Phase::Sawtooth),
    (4_000, Phase::Ordinary),
    (5_000, Phase::Congested),
    (6_000, Phase::Ordinary),
    (6_500, Phase::Silence),
    (7_500, Phase::Rush),
    (8_000, Phase::Ordinary),
    (8_500, Phase::Stuffing),
    (9_500, Phase::Ordinary),
];

/// The phase of a block.
pub fn phase(block: usize) -> Phase {
    PHASES.iter().rev().find(|(first, _)| *first <= block).map_or(Phase::Ordinary, |(_, phase)| *phase)
}

/// A simulated block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Its own base fee, wei.
    pub base_fee: u64,
    /// What inference costs in it, wei per gas.
    pub inference_fee: u64,
    /// Gas of inference that it used.
    pub used: u64,
    /// Of that, by attackers.
    pub attacked: u64,
    /// What attackers have paid so far, in gwei.
    pub spent_gwei: u128,
}

/// The base fee up to which a builder stuffs its blocks, wei per gas.
pub const STUFFER_FEE: u64 = 64 * GWEI;
/// What the flooding attacker has, in gwei: a thousand of the chain's coins.
pub const FLOOD_BUDGET_GWEI: u128 = 1_000 * 1_000_000_000;

/// Runs all blocks.
pub fn simulate(market: &Market, seed: u64) -> Vec<Block> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut header, mut blocks) = (MarketHeader::default(), Vec::with_capacity(BLOCKS));
    let (mut spent_gwei, mut parent_fee) = (0u128, GWEI);
    for number in 0..BLOCKS {
        let phase = phase(number);
        let base_fee = if phase == Phase::Congested { 100 * GWEI } else { GWEI };
        header.excess_gas = market.next_excess(header, parent_fee);
        let inference_fee = market.base_fee(header.excess_gas, base_fee);
        let mut bids = people(&mut rng, phase, market);
        let whole = Bid { gas: market.limit_gas, max_fee: u64::MAX, attacker: true };
        match phase {
            Phase::Flood if spent_gwei < FLOOD_BUDGET_GWEI => bids.push(whole),
            Phase::Sawtooth if number % 2 == 0 => bids.push(whole),
            Phase::Stuffing => bids.push(Bid { max_fee: STUFFER_FEE, ..whole }),
            _ => {}
        }
        let (used, attacked) = build(market, inference_fee, bids);
        spent_gwei += u128::from(attacked) * u128::from(inference_fee) / u128::from(GWEI);
        header.used_gas = used;
        parent_fee = base_fee;
        blocks.push(Block { base_fee, inference_fee, used, attacked, spent_gwei });
    }
    blocks
}

/// What people want in a block. Half of them would pay twice the reserve, a quarter four times, and so on.
fn people(rng: &mut ChaCha8Rng, phase: Phase, market: &Market) -> Vec<Bid> {
    let mean = match phase {
        Phase::Silence => return Vec::new(),
        Phase::Rush => 20 * market.target_gas,
        _ => 2 * market.target_gas,
    };
    let mut left = rng.random_range(mean / 2..=mean * 3 / 2);
    let mut bids = Vec::new();
    while left > 0 {
        let gas = rng.random_range(200_000..2_000_000u64).min(left);
        left -= gas;
        let doublings = rng.random::<u64>().trailing_ones();
        let fee = GWEI << doublings.min(20);
        bids.push(Bid { gas, max_fee: fee + rng.random_range(0..fee), attacker: false });
    }
    bids
}

/// A builder that takes who pays most, as long as there is room: what a block uses, and attackers of that.
///
/// An attacker's bid is for whatever room there is.
fn build(market: &Market, fee: u64, mut bids: Vec<Bid>) -> (u64, u64) {
    bids.sort_by_key(|bid| core::cmp::Reverse(bid.max_fee));
    let (mut used, mut attacked) = (0, 0);
    for bid in bids.into_iter().filter(|bid| bid.max_fee >= fee) {
        let room = market.limit_gas - used;
        if bid.attacker {
            used += room;
            attacked += room;
        } else if bid.gas <= room {
            used += bid.gas;
        }
    }
    (used, attacked)
}
