//! Frames that call, grow memory, and go to and fro between revm's loop and programs. Small enough for Miri:
//! `cargo +nightly miri test -p metis-vm --test frames`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use metis_vm::{FusionCache, FusionConfig, Interpreter, WithFusion};
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::{TxEnv, result::ResultAndState},
    database::{CacheDB, EmptyDB},
    state::AccountInfo,
};

const MAIN: Address = Address::repeat_byte(0xcc);
const OTHER: Address = Address::repeat_byte(0xdd);

fn database(main: &str, other: &str) -> CacheDB<EmptyDB> {
    let mut db = CacheDB::new(EmptyDB::default());
    for (address, code) in [(MAIN, main), (OTHER, other)] {
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let code = Bytecode::new_raw(Bytes::from(hex::decode(digits).unwrap()));
        let account = AccountInfo {
            balance: U256::from(1000),
            code_hash: code.hash_slow(),
            code: Some(code),
            ..AccountInfo::default()
        };
        db.insert_account_info(address, account);
    }
    db
}

fn tx(gas_limit: u64) -> TxEnv {
    let data = Bytes::from_static(&[1, 2, 3, 4, 5]);
    TxEnv { gas_limit, kind: TxKind::Call(MAIN), data, ..TxEnv::default() }
}

/// Every interpreter does what revm does, at every one of these gas limits.
fn same(main: &str, other: &str, gas_limits: impl IntoIterator<Item = u64>) -> ResultAndState {
    let mut last = None;
    for gas in gas_limits {
        let expected =
            Context::mainnet().with_db(database(main, other)).build_mainnet().transact(tx(gas)).unwrap();
        for interpreter in Interpreter::ALL {
            let config = FusionConfig { interpreter, hot_gas: 200, ..FusionConfig::default() };
            let cache = FusionCache::new(config);
            let mut evm =
                Context::mainnet().with_db(database(main, other)).build_mainnet().with_fusion(cache.clone());
            for round in 0..4 {
                let result = evm.transact(tx(gas)).unwrap();
                assert_eq!(result, expected, "{interpreter}, gas {gas}, round {round}");
                cache.wait();
            }
            let always = matches!(interpreter, Interpreter::FusedAlways | Interpreter::Plain);
            assert!(cache.stats().made > 0 || !always, "{interpreter} made no program");
        }
        last = Some(expected);
    }
    last.unwrap()
}

/// revm gives an empty range of shared memory to a call without calldata, and the range may lie anywhere.
#[test]
fn a_call_without_calldata_reads_zeros() {
    // CALL(gas, OTHER, 0, 0, 0, 0, 32); return memory[0..32]
    let main = "60205f5f5f5f73dddddddddddddddddddddddddddddddddddddddd5af1505f5160205260406000f3";
    // return calldatasize + calldataload(0) + 7
    let other = "365f35016007015f5260205ff3";
    let result = same(main, other, [100_000]);
    assert!(result.result.is_success());
}

/// The caller's memory is the callee's calldata, and the callee's memory grows behind it.
#[test]
fn calldata_in_shared_memory_survives_growth() {
    // mstore(0, 0x1234) ; CALL(gas, OTHER, 0, 0, 32, 32, 64); return memory[0..96]
    let main = "6112345f52604060205f6020945f5f6040602060205f5f73dddddddddddddddddddddddddddddddddddddddd5af150\
                60605ff3";
    // a = calldataload(0); mstore(4096, a); mstore(0, calldataload(0)); return memory[0..64]
    let other = "5f35611000525f355f5260405ff3";
    same(main, other, [200_000]);
}

/// A loop that stores, hashes and loads, at gas limits all along its way.
#[test]
fn every_gas_limit_ends_like_revm() {
    let main = "60035b8080520180602090205460019003805f5260205f20805590600190038060025700";
    let limits = if cfg!(miri) { 21_200..21_209 } else { 21_200..24_500 };
    same(main, "00", limits.step_by(if cfg!(miri) { 3 } else { 7 }));
    // PUSH1 40 JUMPDEST PUSH1 1 SWAP1 SUB DUP1 DUP1 MSTORE DUP1 PUSH1 32 MSTORE PUSH1 64 PUSH0 KECCAK256 POP DUP1 PUSH1 2 JUMPI STOP
    let main = "60285b6001900380805280602052 60405f205080600257 00";
    same(main, "00", [21_300, 23_000, 100_000]);
}

/// It calls itself with less gas each time, until there is none: frames begin cold and go on in a program.
#[test]
fn frames_go_on_in_a_program_that_landed_meanwhile() {
    let main = "5f5f5f5f5f305af1600101600a600b01505a5b600190038061001a57 5f5260205ff3";
    same(main, "00", if cfg!(miri) { vec![60_000] } else { vec![40_000, 100_000, 1_000_000] });
}

/// The code hash is what a database says, and may be wrong: each code does what it says all the same.
#[test]
fn codes_under_one_hash_are_not_taken_for_one_another() {
    // A loop that leaves 7 or 9, and one that is shorter.
    let codes = [
        "60085b600190038060025760075f5260205ff3",
        "60085b600190038060025760095f5260205ff3",
        "60095f5260205ff3",
    ];
    for interpreter in Interpreter::ALL {
        let cache = FusionCache::new(FusionConfig { interpreter, hot_gas: 50, ..FusionConfig::default() });
        for _ in 0..4 {
            for (code, expected) in codes.iter().zip([7, 9, 9]) {
                let mut db = database(code, "00");
                db.cache.accounts.get_mut(&MAIN).unwrap().info.code_hash =
                    alloy_primitives::B256::repeat_byte(1);
                let mut evm = Context::mainnet().with_db(db).build_mainnet().with_fusion(cache.clone());
                for _ in 0..3 {
                    let result = evm.transact(tx(100_000)).unwrap().result;
                    let output = result.output().map(|word| U256::from_be_slice(word));
                    assert_eq!(output, Some(U256::from(expected)), "{interpreter}, {code}");
                    cache.wait();
                }
            }
        }
    }
}

/// A user's instruction that takes memory without paying for it. revm goes by what was paid.
#[test]
fn memory_that_was_not_paid_for_is_as_in_revm() {
    use revm::{
        context::ContextTr,
        interpreter::{Instruction, InstructionContext, InstructionExecResult, interpreter::EthInterpreter},
    };
    fn takes<H>(context: InstructionContext<'_, H, EthInterpreter>) -> InstructionExecResult {
        context.interpreter.memory.resize(64);
        Ok(())
    }
    fn changed<
        E: revm::handler::EvmTr<Instructions = revm::handler::instructions::EthInstructions<EthInterpreter, C>>,
        C,
    >(
        evm: &mut E,
    ) where
        C: ContextTr + revm::context::Host,
    {
        let (_, instructions, ..) = evm.all_mut();
        instructions.insert_instruction(0x32, Instruction::new(takes::<C>), 3);
    }
    // ORIGIN is replaced; mload(0) pop msize, then mstore(32, it), and memory's size and the gas left returned.
    let main = "325f51505960205259606052 5a60405260806000f3";
    let mut expected = Context::mainnet().with_db(database(main, "00")).build_mainnet();
    changed(&mut expected);
    let expected = expected.transact(tx(100_000)).unwrap();
    for interpreter in Interpreter::ALL {
        let cache = FusionCache::new(FusionConfig { interpreter, hot_gas: 10, ..FusionConfig::default() });
        let mut evm =
            Context::mainnet().with_db(database(main, "00")).build_mainnet().with_fusion(cache.clone());
        changed(&mut evm);
        for _ in 0..4 {
            assert_eq!(evm.transact(tx(100_000)).unwrap(), expected, "{interpreter}");
            cache.wait();
        }
    }
}
