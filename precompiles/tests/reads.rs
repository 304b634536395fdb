//! What cannot be paid is not fetched: reads of the registry, counted where the state comes from.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use metis_precompiles::abi::{modelInfoCall, verifyBundleCall};
use metis_precompiles::{
    ChainConfig, INFERENCE_ADDRESS, Inference, MetisPrecompiles, ModelSet, REGISTRY_ADDRESS, RegistryConfig,
};
use revm::context::TxEnv;
use revm::context::result::ExecutionResult;
use revm::database::InMemoryDB;
use revm::primitives::hardfork::SpecId;
use revm::primitives::{StorageKey, StorageValue, TxKind};
use revm::state::{AccountInfo, Bytecode};
use revm::{Database, ExecuteEvm, MainBuilder};
use support::osaka;

const CALLER: Address = Address::repeat_byte(0x11);

/// A state with nothing in it but a registered model with a size, which counts who looks.
#[derive(Debug, Default)]
struct Counting {
    accounts: Arc<AtomicUsize>,
    slots: Arc<AtomicUsize>,
}

impl Database for Counting {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        self.accounts.fetch_add(usize::from(address == REGISTRY_ADDRESS), Ordering::Relaxed);
        Ok(Some(AccountInfo { balance: U256::from(1u64) << 100, ..AccountInfo::default() }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        InMemoryDB::default().code_by_hash(hash)
    }

    fn storage(&mut self, address: Address, _: StorageKey) -> Result<StorageValue, Infallible> {
        self.slots.fetch_add(usize::from(address == REGISTRY_ADDRESS), Ordering::Relaxed);
        // Every slot: registered, and of one MiB.
        Ok((U256::from(2) << 224) | (U256::from(1) << 232))
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        InMemoryDB::default().block_hash(number)
    }
}

/// What a transaction to the precompile ends with, and how often the registry's account and its slots were fetched.
fn transact(from: Address, gas: u64, data: &[u8]) -> (Result<ExecutionResult, String>, [usize; 2]) {
    let mut config = ChainConfig::embedded(B256::repeat_byte(1));
    config.registry = Some(RegistryConfig::default());
    let inference = Arc::new(Inference::new(&config, ModelSet::new(&config)));
    let db = Counting::default();
    let counts = [Arc::clone(&db.accounts), Arc::clone(&db.slots)];
    let mut evm = osaka(db).build_mainnet().with_precompiles(MetisPrecompiles::new(SpecId::OSAKA, inference));
    let tx = TxEnv::builder().caller(from).kind(TxKind::Call(INFERENCE_ADDRESS)).gas_limit(gas).gas_price(0);
    let result = evm.transact_one(tx.data(data.to_vec().into()).build().unwrap());
    (result.map_err(|error| error.to_string()), counts.map(|count| count.load(Ordering::Relaxed)))
}

#[test]
fn looking_up_fetches_nothing_that_is_not_paid() {
    // It is not active, which is said at the end, without a bundle.
    let data = modelInfoCall { model: B256::repeat_byte(7) }.abi_encode();
    let (all, counts) = transact(CALLER, 1 << 30, &data);
    assert_eq!(counts, [1, 2]);
    let used = all.unwrap().tx_gas_used();
    for (less, expected) in [
        (0, [1, 2]),
        (1, [1, 1]),
        (2_100, [1, 1]),
        (2_101, [1, 0]),
        (4_200, [1, 0]),
        (4_201, [0, 0]),
        (6_801, [0, 0]),
    ] {
        assert_eq!(transact(CALLER, used - less, &data).1, expected, "{less} gas less");
    }
}

#[test]
fn comparing_a_bundle_fetches_nothing_that_is_not_paid() {
    // The registry sends the transaction itself, so its account is warm. This node has no bundles: with enough gas it stops.
    let data = verifyBundleCall { model: B256::repeat_byte(7) }.abi_encode();
    let price = ChainConfig::embedded(B256::ZERO).gas.verification(1).0;
    let of = |gas| transact(REGISTRY_ADDRESS, gas, &data);
    let (mut low, mut high) = (0u64, 1 << 24);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if of(middle).0.is_err_and(|error| error.contains("loads no registered models")) {
            high = middle;
        } else {
            low = middle;
        }
    }
    for (less, slots) in [
        (1, 5),
        (price, 5),
        (price + 1, 4),
        (price + 2_100, 4),
        (price + 2_101, 3),
        (price + 6_301, 1),
        (price + 8_400, 1),
        (price + 8_401, 0),
        (price + 10_500 + 1, 0),
    ] {
        assert_eq!(of(high - less).1[1], slots, "{less} gas less");
    }
}
