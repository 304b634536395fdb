//! The precompile through revm: every way of calling, gas, fatal errors.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256, address};
use alloy_sol_types::{SolCall, SolError};
use metis_models::engine::EngineOptions;
use metis_precompiles::abi::*;
use metis_precompiles::{ChainConfig, Inference, MetisPrecompiles, ModelSet, Outcome};
use revm::context::result::{ExecutionResult, HaltReason, OutOfGasError};
use revm::context::{Context, Evm, TxEnv};
use revm::database::InMemoryDB;
use revm::handler::{EthFrame, FrameResult, PrecompileProvider};
use revm::primitives::TxKind;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode};
use revm::{ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};
use support::{Mock, PLENTY, chain, generate, osaka, real};

const CALLER: Address = address!("0x1111111111111111111111111111111111111111");
const CONTRACT: Address = address!("0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0");

fn fund() -> AccountInfo {
    AccountInfo { balance: U256::from(1u64) << 100, ..AccountInfo::default() }
}

/// Runs a transaction on a state with `code` at [`CONTRACT`].
fn transact(
    inference: Arc<Inference>,
    code: &[u8],
    to: TxKind,
    value: u64,
    gas: u64,
    data: Vec<u8>,
) -> Result<ExecutionResult, String> {
    let mut db = InMemoryDB::default();
    db.insert_account_info(CALLER, fund());
    db.insert_account_info(
        CONTRACT,
        AccountInfo::from_bytecode(Bytecode::new_legacy(Bytes::copy_from_slice(code)))
            .with_balance(U256::from(1_000)),
    );
    let mut evm = osaka(db).build_mainnet().with_precompiles(MetisPrecompiles::new(SpecId::OSAKA, inference));
    let tx = TxEnv::builder()
        .caller(CALLER)
        .kind(to)
        .value(U256::from(value))
        .gas_limit(gas)
        .gas_price(0)
        .data(data.into())
        .build()
        .unwrap();
    evm.transact_one(tx).map_err(|error| error.to_string())
}

/// Copies its calldata to memory, calls the precompile with it by `opcode`, and returns what came back, after the success flag.
fn forwarder(opcode: u8, takes_value: bool) -> Vec<u8> {
    let mut code = vec![0x36, 0x5f, 0x5f, 0x37]; // calldatacopy(0, 0, calldatasize)
    code.extend([0x5f, 0x5f, 0x36, 0x5f]); // no output area; input 0..calldatasize
    if takes_value {
        code.push(0x5f);
    }
    code.extend([0x61, 0xa1, 0x00, 0x5a, opcode]); // address, gas
    code.extend([0x5f, 0x52]); // mstore(0, success)
    code.extend([0x3d, 0x5f, 0x60, 0x20, 0x3e]); // returndatacopy(32, 0, returndatasize)
    code.extend([0x3d, 0x60, 0x20, 0x01, 0x5f, 0xf3]); // return(0, 32 + returndatasize)
    code
}

#[test]
fn every_kind_of_call_gets_the_same_answer() {
    let inference = Arc::new(chain(real()));
    let calldata = generate("the hello world", 8).abi_encode();
    let Outcome::Return { output: expected, .. } = inference.call(&calldata, PLENTY).unwrap() else {
        panic!()
    };
    let kinds = [
        ("CALL", 0xf1, true),
        ("CALLCODE", 0xf2, true),
        ("DELEGATECALL", 0xf4, false),
        ("STATICCALL", 0xfa, false),
    ];
    for (name, opcode, takes_value) in kinds {
        let code = forwarder(opcode, takes_value);
        let result =
            transact(inference.clone(), &code, TxKind::Call(CONTRACT), 0, 1 << 40, calldata.clone()).unwrap();
        let output = result.into_output().unwrap();
        assert_eq!(output[31], 1, "{name}");
        assert_eq!(output[32..], expected, "{name}");
    }
    // In a constructor: the initcode carries the calldata behind itself and returns the answer as code.
    let mut init = vec![0x61, 0, 0, 0x80, 0x60, 0, 0x5f, 0x39]; // codecopy(0, offset, length)
    init.extend([0x5f, 0x5f, 0x91, 0x5f, 0x61, 0xa1, 0x00, 0x5a, 0xfa]); // staticcall(gas, A100, 0, length, 0, 0)
    init.extend([0x50, 0x3d, 0x5f, 0x5f, 0x3e, 0x3d, 0x5f, 0xf3]);
    init[1..3].copy_from_slice(&(calldata.len() as u16).to_be_bytes());
    init[5] = init.len() as u8;
    init.extend(&calldata);
    let created = transact(inference, &[], TxKind::Create, 0, 1 << 40, init).unwrap();
    assert_eq!(created.into_output().unwrap(), expected);
}

#[test]
fn a_transaction_may_call_it_directly_and_send_value_along() {
    let inference = Arc::new(chain(real()));
    let calldata = modelInfoCall { model: B256::ZERO }.abi_encode();
    for value in [0, 5] {
        let to = TxKind::Call(metis_precompiles::INFERENCE_ADDRESS);
        let result = transact(inference.clone(), &[], to, value, 1_000_000, calldata.clone()).unwrap();
        assert!(result.is_success());
        let info = modelInfoCall::abi_decode_returns_validate(&result.into_output().unwrap()).unwrap();
        assert_eq!(info.name, "fixture");
    }
}

#[test]
fn a_prefix_is_computed_once_a_block() {
    let model = support::engine(EngineOptions::default());
    let mut db = InMemoryDB::default();
    db.insert_account_info(CALLER, fund());
    let mut evm = Context::mainnet()
        .with_db(db)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA);
            cfg.tx_gas_limit_cap = Some(u64::MAX);
        })
        .modify_block_chained(|block| block.gas_limit = u64::MAX)
        .build_mainnet()
        .with_precompiles(MetisPrecompiles::new(SpecId::OSAKA, Arc::new(chain(model.clone()))));
    let calldata = generate("the hello world, the hello world, the hello world", 1).abi_encode();
    let (mut restored, mut nonce) = (Vec::new(), 0);
    for block in [7, 7, 7, 8, 8] {
        evm.ctx.block.number = U256::from(block);
        let tx = TxEnv::builder()
            .caller(CALLER)
            .nonce(nonce)
            .kind(TxKind::Call(metis_precompiles::INFERENCE_ADDRESS))
            .gas_limit(1 << 40)
            .gas_price(0)
            .data(calldata.clone().into())
            .build()
            .unwrap();
        nonce += 1;
        assert!(evm.transact_commit(tx).unwrap().is_success());
        restored.push(model.statistics().restored);
    }
    let each = restored[1];
    assert!(each > 0);
    assert_eq!(restored, [0, each, 2 * each, 2 * each, 3 * each]);
}

#[test]
fn an_error_reverts_and_gives_the_rest_of_the_gas_back() {
    let inference = Arc::new(chain(real()));
    let calldata = embedCall { model: B256::ZERO, text: "x".into() }.abi_encode();
    let to = TxKind::Call(metis_precompiles::INFERENCE_ADDRESS);
    let result = transact(inference, &[], to, 0, 10_000_000, calldata).unwrap();
    let ExecutionResult::Revert { output, .. } = &result else { panic!("{result:?}") };
    assert_eq!(*output, NotSupported { selector: embedCall::SELECTOR.into() }.abi_encode());
    assert!(result.tx_gas_used() < 100_000);
}

#[test]
fn out_of_gas_takes_all_of_it_and_says_nothing() {
    let inference = Arc::new(chain(real()));
    let calldata = generate("the hello world", 100).abi_encode();
    let to = TxKind::Call(metis_precompiles::INFERENCE_ADDRESS);
    let result = transact(inference, &[], to, 0, 60_000, calldata).unwrap();
    let ExecutionResult::Halt { reason, .. } = &result else { panic!("{result:?}") };
    assert_eq!(*reason, HaltReason::OutOfGas(OutOfGasError::Precompile));
    assert_eq!(result.tx_gas_used(), 60_000);
}

#[test]
fn a_device_that_fails_stops_the_node() {
    let broken = Arc::new(Mock { broken: true, ..Mock::new() });
    let calldata = generate("x", 1).abi_encode();
    let code = forwarder(0xfa, false);
    let error =
        transact(Arc::new(chain(broken)), &code, TxKind::Call(CONTRACT), 0, 1 << 40, calldata).unwrap_err();
    assert!(error.contains("it is lost"), "{error}");
}

#[test]
fn missing_weights_stop_the_node_and_name_the_model() {
    let config = ChainConfig::embedded(real().id());
    let without = || ModelSet::new(&config);
    assert_eq!(without().missing().count(), 1);
    let failing = || without().with_loader(|_| Err("the disk is gone".into()));
    let calldata = modelInfoCall { model: B256::ZERO }.abi_encode();
    for (models, says) in [(without(), "weights are not loaded"), (failing(), "the disk is gone")] {
        assert!(models.load_all().is_err());
        let inference = Arc::new(Inference::new(&config, models));
        let to = TxKind::Call(metis_precompiles::INFERENCE_ADDRESS);
        let error = transact(inference, &[], to, 0, 1_000_000, calldata.clone()).unwrap_err();
        assert!(error.contains(says) && error.contains(&config.default_model.to_string()), "{error}");
    }
}

#[test]
fn a_loader_brings_the_weights_when_they_are_needed() {
    let config = ChainConfig::embedded(real().id());
    let models = ModelSet::new(&config).with_loader(|entry| {
        assert_eq!(entry.id, real().id());
        Ok(real())
    });
    assert_eq!(models.missing().count(), 1);
    let inference = Inference::new(&config, models);
    let info = modelInfoCall { model: B256::ZERO };
    assert!(matches!(support::call(&inference, &info), Outcome::Return { .. }));
    assert_eq!(inference.models().missing().count(), 0);
}

#[test]
fn another_model_under_an_id_is_refused() {
    let config = ChainConfig::embedded(B256::repeat_byte(3));
    let models = ModelSet::new(&config).with_loader(|_| Ok(real()));
    let error = models.load_all().unwrap_err().to_string();
    assert!(error.contains(&real().id().to_string()), "{error}");
}

type Ctx = revm::handler::MainnetContext<InMemoryDB>;

#[test]
fn the_address_is_warm_beside_those_of_the_fork() {
    let mut provider = MetisPrecompiles::new(SpecId::BERLIN, Arc::new(chain(real())));
    let of = |provider: &MetisPrecompiles| {
        let warm = PrecompileProvider::<Ctx>::warm_addresses(provider);
        assert!(warm.contains(&metis_precompiles::INFERENCE_ADDRESS));
        assert!(warm.iter().all(|address| PrecompileProvider::<Ctx>::contains(provider, address)));
        warm.len()
    };
    assert_eq!(of(&provider), 9 + 1);
    assert!(!PrecompileProvider::<Ctx>::set_spec(&mut provider, SpecId::BERLIN));
    assert!(PrecompileProvider::<Ctx>::set_spec(&mut provider, SpecId::OSAKA));
    assert_eq!(of(&provider), 18 + 1);
    assert!(!PrecompileProvider::<Ctx>::contains(&provider, &CALLER));
}

/// The frame and result types that the virtual machine composes the provider with.
#[allow(dead_code, reason = "compiles or not")]
fn it_fits_the_handler(
    evm: Evm<
        Ctx,
        (),
        revm::handler::instructions::EthInstructions<revm::interpreter::interpreter::EthInterpreter, Ctx>,
        MetisPrecompiles,
        EthFrame<revm::interpreter::interpreter::EthInterpreter>,
    >,
) -> Option<FrameResult> {
    drop(evm);
    None
}

#[test]
fn bad_calldata_is_the_answer_to_an_empty_transfer() {
    let to = TxKind::Call(metis_precompiles::INFERENCE_ADDRESS);
    let result = transact(Arc::new(chain(real())), &[], to, 1, 100_000, vec![]).unwrap();
    let ExecutionResult::Revert { output, .. } = result else { panic!("{result:?}") };
    assert_eq!(output, BadCalldata {}.abi_encode());
}
