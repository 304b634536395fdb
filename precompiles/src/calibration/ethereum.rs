//! Ethereum's operations, priced by Osaka: the yardstick.

use alloy_primitives::{Address, B256, Bytes, U256, address, hex};
use revm::context::{Context, TxEnv};
use revm::database::InMemoryDB;
use revm::precompile::{PrecompileSpecId, Precompiles};
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode};
use revm::{ExecuteEvm, MainBuilder, MainContext};

use super::{CalibrationError, Measurement, Options, Origin, fastest};
use crate::gas::Gas;

/// Storage slots that one transaction reads.
const SLOTS: u16 = 4_000;

pub(super) fn measure(options: &Options) -> Result<Vec<Measurement>, CalibrationError> {
    let mut measurements = Vec::new();
    for (name, precompile, input) in precompiled() {
        let wrong = |reason: String| CalibrationError::Input { name: name.to_owned(), reason };
        let contracts = Precompiles::new(PrecompileSpecId::OSAKA);
        let contract = contracts
            .get(&Address::left_padding_from(&[precompile]))
            .ok_or_else(|| wrong("no such contract".into()))?;
        let mut output = contract.execute(&input, u64::MAX, 0);
        let nanoseconds = fastest(options, || output = contract.execute(&input, u64::MAX, 0));
        let output = output.map_err(|error| wrong(error.to_string()))?;
        if !output.is_success() || output.bytes.is_empty() {
            return Err(wrong("the input is not valid".into()));
        }
        let gas = Gas(output.gas_used);
        measurements.push(Measurement { origin: Origin::Ethereum, name: name.into(), gas, nanoseconds });
    }
    for (name, repeats) in [("SLOAD, cold", 1), ("SLOAD, once cold and 15 times warm", 16)] {
        measurements.push(sload(options, name, repeats)?);
    }
    Ok(measurements)
}

fn precompiled() -> Vec<(&'static str, u8, Vec<u8>)> {
    vec![
        ("ECRECOVER", 1, hex!("456e9aea5e197a1f1af7a3e85a3212fa4049a3ba34c2289b4c860fc0b0c64ef3000000000000000000000000000000000000000000000000000000000000001c9242685bf161793cc25603c231bc2f568eb630ea16aa137d2664ac80388256084f8ae3bd7535248d0bd448298cc2e2071e56992d0774dc340c368ae950852ada").to_vec()),
        ("MODEXP, 32-byte odd modulus, 32-byte exponent", 5, modexp(32, &[0xff; 32], 1)),
        ("MODEXP, 256-byte odd modulus, 32-byte exponent", 5, modexp(256, &[0xff; 32], 1)),
        ("MODEXP, 1024-byte even modulus, exponent 65537", 5, modexp(1024, &[1, 0, 1], 0)),
        ("MODEXP, 1024-byte odd modulus, exponent 65537", 5, modexp(1024, &[1, 0, 1], 1)),
        ("BN254 pairing, 2 pairs", 8, pairing(1)),
        ("BN254 pairing, 16 pairs", 8, pairing(8)),
    ]
}

/// All ones to a power, modulo all ones but for the last bit.
fn modexp(size: usize, exponent: &[u8], last_bit: u8) -> Vec<u8> {
    let length = |n: usize| B256::from(U256::from(n)).to_vec();
    let mut modulus = vec![0xff; size];
    modulus[size - 1] = 0xfe | last_bit;
    let base = vec![0xaa; size];
    [length(size), length(exponent.len()), length(size), base, exponent.to_vec(), modulus].concat()
}

/// Pairs of generators whose product is one: `e(G1, G2) * e(-G1, G2)`, repeated.
fn pairing(repeats: usize) -> Vec<u8> {
    const G2: [u8; 128] = hex!(
        "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2"
        "1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed"
        "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b"
        "12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
    );
    const NEGATIVE_TWO: [u8; 32] = hex!("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd45");
    let (one, two) = (B256::with_last_byte(1), B256::with_last_byte(2));
    [&one[..], &two[..], &G2, &one[..], &NEGATIVE_TWO, &G2].concat().repeat(repeats)
}

/// A transaction that reads [`SLOTS`] slots, each `repeats` times. State is in memory: a disk is slower.
fn sload(options: &Options, name: &str, repeats: usize) -> Result<Measurement, CalibrationError> {
    const CALLER: Address = address!("0x1111111111111111111111111111111111111111");
    const CONTRACT: Address = address!("0x2222222222222222222222222222222222222222");
    let wrong = |reason: String| CalibrationError::Input { name: name.to_owned(), reason };

    let (push2, sload, pop) = (0x61, 0x54, 0x50);
    let read = |slot: u16| {
        let [high, low] = slot.to_be_bytes();
        [push2, high, low, sload, pop].repeat(repeats)
    };
    let count = SLOTS / repeats as u16;
    let code: Bytes = (0..count).flat_map(read).collect::<Vec<u8>>().into();
    let mut db = InMemoryDB::default();
    db.insert_account_info(CONTRACT, AccountInfo::from_bytecode(Bytecode::new_legacy(code)));
    for slot in 0..count {
        let _ = db.insert_account_storage(CONTRACT, U256::from(slot), U256::from(slot) + U256::from(1));
    }
    let mut evm = Context::mainnet()
        .with_db(db)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA);
            cfg.disable_nonce_check = true;
        })
        .build_mainnet();
    let tx = TxEnv::builder().caller(CALLER).to(CONTRACT).gas_limit(1 << 24).gas_price(0).build_fill();
    let mut result = evm.transact(tx.clone());
    let nanoseconds = fastest(options, || result = evm.transact(tx.clone()));
    let result = result.map_err(|error| wrong(format!("{error:?}")))?.result;
    if !result.is_success() {
        return Err(wrong(format!("{result:?}")));
    }
    let gas = Gas(result.tx_gas_used());
    Ok(Measurement { origin: Origin::Ethereum, name: name.into(), gas, nanoseconds })
}
