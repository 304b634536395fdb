//! The market for inference: on a chain, and over ten thousand blocks.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolError};
use metis_precompiles::abi::{self, Sampling, generateCall, inferenceBaseFeeCall};
use metis_precompiles::{INFERENCE_ADDRESS, Market};
use metis_tests::economy::{Economy, RICH, STRANGER, USER};
use metis_tests::market::{BLOCKS, FLOOD_BUDGET_GWEI, GWEI, PHASES, Phase, phase, plot, simulate};
use metis_vm::{BlockInfo, MeteredBlock, Status, Transaction};

const MINER: Address = Address::repeat_byte(0xcb);

fn generate(max_new: u32) -> Bytes {
    generateCall {
        model: B256::ZERO,
        prompt: Bytes::from_static(b"send 5 metis to alice"),
        maxNew: max_new,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
    .abi_encode()
    .into()
}

/// A chain whose blocks have these rules for inference.
fn chain(base_fee: u64, metered: MeteredBlock) -> Economy {
    let mut chain = Economy::new(|config| config.market = Some(Market::default())).unwrap();
    let block = chain.vm.config().block.clone();
    chain.vm.set_block(BlockInfo { base_fee, metered: Some(metered), coinbase: MINER, ..block });
    chain
}

#[test]
fn a_block_never_uses_more_than_its_limit_and_says_so_in_a_typed_error() {
    let mut chain = chain(0, MeteredBlock { base_fee: 0, gas_limit: 1_000_000 });
    let tx = Transaction::call(USER, INFERENCE_ADDRESS, generate(24));
    let (mut used, mut refused) = (0, 0);
    for _ in 0..20 {
        let outcome = chain.vm.transact(&tx).unwrap();
        used += outcome.metered_gas_used;
        assert_eq!(chain.vm.metered(), used);
        match outcome.status {
            Status::Success => assert!(outcome.metered_gas_used > 100_000),
            _ => {
                let left = abi::BlockInferenceLimit::abi_decode(&outcome.output).unwrap().left;
                // What was tokenised counts, and no more than what was left.
                assert_eq!(left + used - outcome.metered_gas_used, 1_000_000);
                refused += 1;
            }
        }
        assert!(used <= 1_000_000);
    }
    assert!(refused > 0 && refused < 20);
    // The next block has room, and what only describes always has.
    chain.wait(1);
    assert!(chain.vm.transact(&tx).unwrap().is_success());
}

#[test]
fn whoever_offers_less_than_inference_costs_gets_a_typed_error_and_keeps_the_rest() {
    let mut chain = chain(10, MeteredBlock { base_fee: 500, gas_limit: u64::MAX });
    let tx = Transaction::call(USER, INFERENCE_ADDRESS, generate(24)).with_gas(2_000_000);
    let outcome = chain.vm.transact(&tx.clone().with_gas_price(499)).unwrap();
    let error = abi::InferenceFeeTooLow { baseFee: U256::from(500) };
    assert_eq!((outcome.status.clone(), outcome.output.to_vec()), (Status::Revert, error.abi_encode()));
    assert_eq!(outcome.metered_gas_used, 0);
    assert!(outcome.gas_used < 40_000);
    assert!(chain.vm.transact(&tx.with_gas_price(500)).unwrap().is_success());
    let fee = Transaction::call(USER, INFERENCE_ADDRESS, inferenceBaseFeeCall {}.abi_encode());
    let outcome = chain.vm.transact(&fee.with_gas_price(10)).unwrap();
    assert_eq!(inferenceBaseFeeCall::abi_decode_returns(&outcome.output).unwrap(), U256::from(500));
}

#[test]
fn inference_has_its_own_price_within_one_gas_limit() {
    let mut chain = chain(10, MeteredBlock { base_fee: 700, gas_limit: u64::MAX });
    let tx = Transaction::call(USER, INFERENCE_ADDRESS, generate(24)).with_gas(2_000_000);
    let outcome = chain.vm.transact(&tx.with_gas_price(1_000).with_max_priority_fee(3)).unwrap();
    assert!(outcome.is_success());
    let (execution, inference) = (outcome.gas_used - outcome.metered_gas_used, outcome.metered_gas_used);
    let paid = U256::from(execution) * U256::from(13) + U256::from(inference) * U256::from(703);
    assert_eq!(chain.balance(USER), U256::from(RICH) - paid);
    assert_eq!(chain.balance(MINER), U256::from(outcome.gas_used) * U256::from(3));
}

#[test]
fn a_memo_changes_nothing_at_the_limit_either() {
    use metis_precompiles::{Gas, Inference, ModelSet, Site};
    let chain = Economy::new(|_| {}).unwrap();
    let model = chain.node.default_model().unwrap();
    let inference = |memo| {
        let mut models = ModelSet::new(chain.node.config());
        models.insert(model.clone()).unwrap();
        Inference::new(chain.node.config(), models).with_memo(memo)
    };
    let (with, without) = (inference(8), inference(0));
    let data = generate(24);
    let terms = |left| metis_vm::MeterTerms { base_fee: 0, affordable: true, left };
    let site = |left| Site { terms: Some(terms(left)), ..Site::nowhere() };
    // The memo knows the answer from here on.
    with.call_at(&data, Gas(u64::MAX), &mut site(u64::MAX)).unwrap();
    for left in [0, 1, 2_999, 3_000, 3_100, 4_000, 5_200, 5_300, 10_000, 100_000, 400_000, 450_000, 1_000_000]
    {
        for gas in [0, 3_000, 5_000, 5_300, 200_000, 450_000, u64::MAX] {
            let expected = without.call_at(&data, Gas(gas), &mut site(left)).unwrap();
            assert_eq!(with.call_at(&data, Gas(gas), &mut site(left)).unwrap(), expected, "{left} {gas}");
            assert!(expected.metered.0 <= left.min(gas));
        }
    }
}

#[test]
fn a_simulation_sees_the_limit_and_pays_nothing() {
    let mut chain = chain(10, MeteredBlock { base_fee: 700, gas_limit: 100_000 });
    let refused = chain.vm.simulate(&Transaction::call(STRANGER, INFERENCE_ADDRESS, generate(24))).unwrap();
    assert!(abi::BlockInferenceLimit::abi_decode(&refused.output).is_ok());
    let answered = chain.vm.simulate(&Transaction::call(STRANGER, INFERENCE_ADDRESS, generate(2))).unwrap();
    assert!(answered.is_success());
    assert_eq!(chain.vm.metered(), 0);
}

#[test]
fn ten_thousand_blocks_of_adversarial_demand() {
    let market = Market { min_base_fee: GWEI, ..Market::default() };
    let blocks = simulate(&market, 1);
    assert_eq!(blocks.len(), BLOCKS);
    let of = |wanted: Phase| {
        blocks.iter().enumerate().filter(move |(number, _)| phase(*number) == wanted).map(|(_, block)| block)
    };
    let mean =
        |used: Vec<u64>| used.iter().map(|gas| u128::from(*gas)).sum::<u128>() as u64 / used.len() as u64;

    for (pair, number) in blocks.windows(2).zip(1..) {
        let [before, block] = pair else { unreachable!() };
        assert!(block.used <= market.limit_gas, "block {number}");
        assert!(
            block.inference_fee >= block.base_fee.max(market.min_base_fee),
            "block {number}: the reserve"
        );
        // Nobody's fee can be raised by more than an eighth (and roundings) while their transaction waits a block, but for the reserve.
        let most = before.inference_fee + before.inference_fee / 8 + before.inference_fee / 1_000;
        assert!(block.inference_fee <= most.max(block.base_fee), "block {number}");
    }

    // People alone: blocks are at the target, and the price is where demand meets it.
    let settled: Vec<u64> = blocks[200..1_000].iter().map(|block| block.used).collect();
    let used = mean(settled);
    assert!(used.abs_diff(market.target_gas) < market.target_gas / 20, "{used}");

    // The flood: full blocks cost an eighth more each, so a fortune lasts for minutes, and soon after it the price is forgotten.
    let flooded: Vec<usize> = (1_000..2_000).filter(|&block| blocks[block].attacked > 0).collect();
    let lasted = flooded.len();
    assert!(lasted < 120, "{lasted} blocks");
    assert!(blocks[1_999].spent_gwei >= FLOOD_BUDGET_GWEI);
    let normal = blocks[999].inference_fee;
    let last = *flooded.last().unwrap();
    let forgotten = (last..2_000).find(|&block| blocks[block].inference_fee < 2 * normal).unwrap();
    assert!(forgotten - last < 250, "{} blocks", forgotten - last);

    // Filling every second block does not make the blocks between cheap: the average is still the target.
    let saw = mean(of(Phase::Sawtooth).map(|block| block.used).collect());
    assert!(saw <= market.target_gas + market.target_gas / 20, "{saw}");

    // While the block's own base fee is high, so is the price, at once; and the excess does not run away meanwhile.
    assert!(of(Phase::Congested).all(|block| block.inference_fee >= 100 * GWEI));
    let after = blocks[6_200..6_500].iter().map(|block| block.inference_fee).max().unwrap();
    assert!(after < 16 * normal, "{after} after congestion, {normal} before");

    // After a thousand empty blocks the price is the least, not below it, and a rush is stopped within a hundred blocks.
    assert_eq!(blocks[7_499].inference_fee, GWEI);
    let stopped = (7_500..8_000).find(|&block| blocks[block].used < market.limit_gas * 9 / 10).unwrap();
    assert!(stopped - 7_500 < 100, "{} blocks", stopped - 7_500);

    // A builder that fills its blocks with its own calls pays the burnt price like anybody: it cannot for long.
    let stuffed = of(Phase::Stuffing).filter(|block| block.attacked > 0);
    let paid: u128 = stuffed.map(|block| u128::from(block.attacked) * u128::from(block.inference_fee)).sum();
    assert!(paid / u128::from(GWEI) > FLOOD_BUDGET_GWEI, "stuffing cost only {paid} wei");

    assert_eq!(PHASES.len(), 12);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/market.svg");
    let svg = plot::svg(&market, &blocks);
    if std::env::var_os("METISVM_BLESS").is_some() {
        std::fs::write(&path, &svg).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == svg,
        "METISVM_BLESS=1 draws docs/market.svg anew"
    );
}
