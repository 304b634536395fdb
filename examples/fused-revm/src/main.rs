//! Gives a revm of your own MetisVM's fused interpreter. The one line is `with_fusion`.
//!
//! ```sh
//! cargo run --release -p example-fused-revm
//! ```

use anyhow::ensure;
use metis_vm::{FusionCache, WithFusion};
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::TxEnv,
    database::{CacheDB, EmptyDB},
    primitives::{Address, Bytes, TxKind, hex},
    state::AccountInfo,
};
use std::time::Instant;

/// The `n`th Fibonacci number modulo 2^256, `n` in the calldata.
const CODE: &str = "5f355f60015b8215601a578181019150909160019003916005565b9150505f5260205ff3";
const CONTRACT: Address = Address::repeat_byte(0xcc);

fn main() -> anyhow::Result<()> {
    let code = Bytecode::new_raw(Bytes::from(hex::decode(CODE)?));
    let mut db = CacheDB::new(EmptyDB::default());
    db.insert_account_info(
        CONTRACT,
        AccountInfo { code_hash: code.hash_slow(), code: Some(code), ..AccountInfo::default() },
    );

    // One cache for as many machines and threads as you like.
    let cache = FusionCache::default();
    let mut plain = Context::mainnet().with_db(db.clone()).build_mainnet();
    let mut fused = Context::mainnet().with_db(db).build_mainnet().with_fusion(cache.clone());

    let mut input = [0; 32];
    input[30..].copy_from_slice(&10_000u16.to_be_bytes());
    let tx = TxEnv {
        gas_limit: 10_000_000,
        kind: TxKind::Call(CONTRACT),
        data: Bytes::copy_from_slice(&input),
        ..TxEnv::default()
    };
    for round in 1..=5 {
        let start = Instant::now();
        let expected = plain.transact(tx.clone())?;
        let revm = start.elapsed();
        let start = Instant::now();
        let result = fused.transact(tx.clone())?;
        let ours = start.elapsed();
        ensure!(result == expected, "the results differ");
        println!("round {round}: revm {revm:?}, with fusion {ours:?}, {} gas", result.result.tx_gas_used());
        // Only for this demonstration: otherwise fusion lands when it lands.
        cache.wait();
    }
    let stats = cache.stats();
    println!("{} programs, {} of at most {} bytes", stats.programs, stats.bytes, stats.max_bytes);
    Ok(())
}
