//! Executes a loop of more than 16 million ops on a thread with a stack of 256 KiB.
//!
//! In release builds each handler ends in a call of the next one, which must have become a jump: as calls, they would need
//! hundreds of megabytes. CI runs this and looks at its disassembly.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use metis_vm::{FusionCache, FusionConfig, Interpreter, WithFusion};
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::TxEnv,
    database::{CacheDB, EmptyDB},
    state::AccountInfo,
};

const STACK: usize = 256 * 1024;
const CONTRACT: Address = Address::repeat_byte(0xcc);

fn main() {
    let expected = execute(Interpreter::Revm);
    for interpreter in [Interpreter::Plain, Interpreter::FusedAlways] {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || execute(interpreter));
        let executed = thread.map(|thread| thread.join());
        assert!(
            executed.is_ok_and(|executed| executed.is_ok_and(|executed| executed == expected)),
            "{interpreter}: not what revm does"
        );
        println!("{interpreter}: ran on a stack of {STACK} bytes");
    }
}

/// The gas that the loop uses.
fn execute(interpreter: Interpreter) -> u64 {
    // PUSH4 n; JUMPDEST PUSH1 1 SWAP1 SUB DUP1 DUP1 MUL POP DUP1 PUSH0 MSTORE DUP1 PUSH1 5 JUMPI STOP
    let mut code = vec![0x63];
    code.extend(5_600_000u32.to_be_bytes());
    code.extend([
        0x5b, 0x60, 1, 0x90, 0x03, 0x80, 0x80, 0x02, 0x50, 0x80, 0x5f, 0x52, 0x80, 0x60, 5, 0x57, 0x00,
    ]);
    let code = Bytecode::new_raw(Bytes::from(code));

    let mut db = CacheDB::new(EmptyDB::default());
    db.insert_account_info(
        CONTRACT,
        AccountInfo {
            code_hash: code.hash_slow(),
            code: Some(code),
            balance: U256::ZERO,
            ..AccountInfo::default()
        },
    );
    let cache = FusionCache::new(FusionConfig { interpreter, ..FusionConfig::default() });
    let mut context = Context::mainnet().with_db(db);
    context.cfg.tx_gas_limit_cap = Some(u64::MAX);
    context.block.gas_limit = u64::MAX;
    let mut evm = context.build_mainnet().with_fusion(cache);
    let tx = TxEnv { gas_limit: 1 << 40, kind: TxKind::Call(CONTRACT), ..TxEnv::default() };
    let result = evm.transact(tx).map(|done| done.result);
    assert!(result.as_ref().is_ok_and(|result| result.is_success()), "{interpreter}: not a success");
    result.map_or(0, |result| result.tx_gas_used())
}
